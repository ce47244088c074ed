"""From the command line to a configuration: every choice composes, every wrong value is named in one line."""

import math
import subprocess
import typing
from operator import attrgetter

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from tlprotocols.config.checks import check
from tlprotocols.config.compose import CONF, composer, load
from tlprotocols.config.protocols import leaves
from tlprotocols.config.schema import (
    AUGMENTS,
    PRECISIONS,
    SCHEDULES,
    Base,
    Classes,
    Config,
    Dataset,
    Machine,
    Model,
    Rates,
)
from tlprotocols.config.validate import build, keys
from tlprotocols.errors import ConfigError

NEEDS = {  # what a choice cannot do without
    "model=alexnet": ["dataset.side=64", "dataset.pixels=64"],
    "model=caffenet": ["dataset.side=64", "dataset.pixels=64"],
    "recipe=plested2019": ["dataset=imagenet"],
    "recipe=yosinski": ["dataset=imagenet"],
    "recipe=imagenet": ["dataset=imagenet"],
    "model=vit_b_16": ["dataset.upscale=224"],
    "base=none": ["layers=0"],
    "base=weights": ["base.weights=somewhere"],
    "base=dataset": ["base.dataset=cifar10"],
    "classes=all": ["base=self"],
    "classes=groups": ["classes.source=[a,b]", "classes.target=[c,d]"],
}
GROUPS = sorted(f"{file.parent.relative_to(CONF)}={file.stem}" for file in CONF.glob("*/*.yaml"))
LEGAL = dict(keys())
NUMBERS = sorted(key for key, about in LEGAL.items() if about["low"] is not None and key not in ("lr.layers",))
NUMBERS = [key for key in NUMBERS if not LEGAL[key]["optional"]]  # base.dataset.KEY is as dataset.KEY
TUPLES = ("classes.sizes", "dataset.std", "head", "lr.milestones", "base.lr.milestones")


def refused(composed, *overrides):
    with pytest.raises(ConfigError) as caught:
        composed(*overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("choice", GROUPS)
def test_every_choice_of_every_group_can_run(composed, choice):
    check(composed(choice, *NEEDS.get(choice, [])))


@pytest.mark.parametrize(
    ("dataset", "model", "epochs", "batch", "pixels"),
    [
        ("glyphs", "alexnet_small", 8, 64, 32),
        ("cifar10", "alexnet_small", 30, 32, 32),
        ("cifar100", "alexnet_small", 30, 32, 32),
        ("folder", "alexnet_small", 30, 32, 32),
        ("tiny_imagenet", "alexnet_small", 30, 32, 56),
        ("imagenet", "alexnet", 90, 256, 224),
    ],
)
def test_a_dataset_alone_brings_its_model_and_recipe(composed, dataset, model, epochs, batch, pixels):
    config = composed(f"dataset={dataset}")
    found = (config.dataset.name, config.model.name, config.epochs, config.batch_size, config.dataset.pixels)
    assert found == (dataset, model, epochs, batch, pixels)


@pytest.mark.parametrize(
    ("protocol", "layers", "freeze", "high", "decay"),
    [("scratch", 0, 0, 8, 30), ("commonly_used", 7, 0, 8, 30), ("fine_tune", 6, 0, 1, 5), ("frozen", 6, 6, 1, 5)],
)
def test_protocols_are_the_papers(composed, protocol, layers, freeze, high, decay):
    config = composed("dataset=imagenet", f"protocol={protocol}")
    found = (config.layers, config.freeze, config.high_lr_layers, config.decay_epochs)
    assert found == (layers, freeze, high, decay)


OPEN = {"layers": 3, "freeze": 1, "high_lr_layers": 4, "decay_epochs": 2}
OTHER = OPEN | {
    **{"head_epochs": 3, "unfreeze_every": 5, "learn_layers": 1, "l2_sp": 0.7, "schedule": "plateau", "max_updates": 9},
    **{"batch_size": 7, "weight_decay": 0.3, "dropout": 0.4, "lr.high": 0.9, "lr.gamma": 0.9, "lr.layer_decay": 0.9},
}


def set_by(file):
    """The keys that a protocol sets."""
    content: typing.Any = OmegaConf.to_container(OmegaConf.load(file))
    return {key for key, _ in leaves(content)}


PROTOCOLS = {file.stem: set_by(file) for file in (CONF / "protocol").glob("*.yaml")}


@pytest.mark.parametrize(("protocol", "key"), [(name, key) for name, keys in PROTOCOLS.items() for key in sorted(keys)])
def test_a_protocol_and_another_value_for_what_it_sets_are_refused(composed, protocol, key):
    own = attrgetter(key)(composed(f"protocol={protocol}"))
    assert own != OTHER[key]
    line = refused(composed, f"protocol={protocol}", f"{key}={OTHER[key]}")
    assert line.startswith(f"{key}={OTHER[key]}: protocol={protocol} means {key}={own}; leave one of the two out")
    assert refused(composed, f"{key}={OTHER[key]}", f"protocol={protocol}") == line
    assert composed(f"protocol={protocol}", f"{key}={own}") == composed(f"protocol={protocol}")


@pytest.mark.parametrize(("protocol", "key"), [(name, key) for name in PROTOCOLS for key in OPEN])
def test_what_a_protocol_leaves_open_can_be_set(composed, protocol, key):
    if key not in PROTOCOLS[protocol]:
        assert getattr(composed(f"protocol={protocol}", f"{key}={OTHER[key]}"), key) == OTHER[key]


def test_every_training_recipe_names_the_same_keys():
    files = sorted((CONF / "recipe" / "training").glob("*.yaml"))
    named = {file.stem: {key for key, _ in leaves(dict(OmegaConf.load(file)))} for file in files}
    assert len(named) == 3
    assert named["yosinski"] == named["small"] == named["plested2019"]


def test_a_protocol_is_checked_against_a_sweep_files_values(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [config, _self_]\nlayers: 5\n")
    compose = composer("mine", str(tmp_path))
    assert compose([]).layers == 5
    with pytest.raises(ConfigError, match=r"^layers=5: protocol=scratch means layers=0"):
        compose(["protocol=scratch"])


def test_a_protocol_of_ones_own_may_inherit_and_set_keys_of_groups(tmp_path):
    (tmp_path / "protocol").mkdir()
    head = "# @package _global_\n"
    (tmp_path / "protocol" / "hot.yaml").write_text(head + "lr: {high: 0.05}\n")
    (tmp_path / "protocol" / "hotter.yaml").write_text(head + "defaults: [scratch, _self_]\nlr: {high: 0.1}\n")
    compose = composer(config_dir=str(tmp_path))
    assert compose(["protocol=hot"]).lr.high == 0.05
    assert compose(["protocol=hotter"]).layers == 0
    with pytest.raises(ConfigError, match=r"^lr.high=0.2: protocol=hot means lr.high=0.05"):
        compose(["protocol=hot", "lr.high=0.2"])
    with pytest.raises(ConfigError, match=r"^layers=7: protocol=hotter means layers=0"):
        compose(["protocol=hotter", "layers=7"])


def test_a_protocol_that_sets_one_rate_keeps_the_others_of_the_protocol_below(tmp_path):
    (tmp_path / "protocol").mkdir()
    text = "# @package _global_\ndefaults: [bit, _self_]\nlr: {low: 0.01}\n"
    (tmp_path / "protocol" / "mybit.yaml").write_text(text)
    compose = composer(config_dir=str(tmp_path))
    assert compose(["protocol=mybit"]).lr.high == 0.003
    with pytest.raises(ConfigError, match=r"^lr.high=0.5: protocol=mybit means lr.high=0.003"):
        compose(["protocol=mybit", "lr.high=0.5"])


@pytest.mark.parametrize(
    ("override", "number", "quoted"),
    [
        ("sweep=1.10", "1.1", "sweep='1.10'"),
        ("sweep=1e3", "1000.0", "sweep='1e3'"),
        ("results_dir=2024_06", "202406", "results_dir='2024_06'"),
        ("classes.target=[1.1,1.10,2]", "1.1", "classes.target=['1.1','1.10','2']"),
        ("classes.target=['a b',1.10]", "1.1", "classes.target=['a b','1.10']"),
    ],
)
def test_a_text_that_would_be_read_as_another_number_is_refused(composed, override, number, quoted):
    groups = ["classes=groups", "classes.source=[a,b]"] if "classes" in override else []
    with pytest.raises(ConfigError) as refusal:
        composed(*groups, override)
    assert f"would be read as the number {number}; " in str(refusal.value)
    assert f': "{quoted}"' in str(refusal.value)
    config = composed(*groups, quoted)  # the advice works
    assert quoted.replace("'", "").partition("=")[2].strip("[]") in (
        config.sweep,
        config.results_dir,
        ",".join(config.classes.target or ()),
    )


def test_a_value_that_a_protocol_sets_and_a_network_has_not_names_the_protocol(composed):
    line = refused(composed, "protocol=optimal", "model=convnet", "n_per_class=10")
    assert line.startswith("layers=6: must be from 0 to 2 (conv1..fc of convnet;")
    assert line.endswith("; protocol=optimal sets it")
    assert not refused(composed, "layers=6", "model=convnet").endswith("sets it")


def test_texts_that_are_numbers_as_typed_stay_as_they_are(composed):
    assert composed("sweep=3").sweep == "3"
    assert composed("classes=groups", "classes.source=[1,2]", "classes.target=[3,1.5]").classes.target == ("3", "1.5")


def test_a_recipe_of_ones_own_may_set_any_key(tmp_path):
    (tmp_path / "recipe").mkdir()
    text = "# @package _global_\ndefaults: [glyphs, _self_]\nlayers: 3\ndecay_epochs: 7\ncurve: true\nbase: {seed: 4}\n"
    (tmp_path / "recipe" / "mine.yaml").write_text(text)
    compose = composer(config_dir=str(tmp_path))
    config = compose(["recipe=mine"])
    assert (config.layers, config.decay_epochs, config.curve, config.base.seed) == (3, 7, True, 4)
    assert compose(["recipe=mine", "layers=5"]).layers == 5
    assert compose(["recipe=mine", "protocol=scratch"]).layers == 0


@pytest.mark.parametrize("override", ["~freeze", "~layers", "layers='0'"])
def test_a_protocol_and_a_key_that_is_gone_are_one_line(composed, override):
    assert refused(composed, "protocol=scratch", override)


def test_a_grid_of_layers_and_protocols_loses_no_cell(composed):
    """The default values are those of fine_tune; scratch and commonly_used have layers of their own."""
    assert composed() == composed("protocol=fine_tune")
    assert composed("protocol=commonly_used", "layers=7") == composed("protocol=commonly_used")
    assert refused(composed, "protocol=scratch", "layers=7").startswith("layers=7: protocol=scratch means layers=0")


@pytest.mark.parametrize("choice", ["natman", "groups", "all"])
def test_one_class_split_is_not_called_several(composed, choice):
    needed = NEEDS.get(f"classes={choice}", [])
    assert refused(composed, f"classes={choice}", *needed, "split=1").startswith("split=1: must be 0 with classes=")


@pytest.mark.parametrize(
    ("overrides", "layers", "freeze", "high"),
    [
        ("layers=all", 7, 0, 1),
        ("layers=all-2 freeze=all-3", 5, 4, 1),
        ("high_lr_layers=all", 6, 0, 8),
        ("high_lr_layers=all-8", 6, 0, 0),
        ("layers=all-99", 0, 0, 1),
        ("protocol=frozen layers=all", 7, 7, 1),
    ],
)
def test_depths_are_relative_to_the_model_and_numbers_in_the_id(composed, overrides, layers, freeze, high):
    config = composed(*overrides.split())
    assert (config.layers, config.freeze, config.high_lr_layers) == (layers, freeze, high)


@pytest.mark.parametrize("value", ["al", "all-", "all-x", "-all", "ALL"])
def test_what_is_no_depth_is_named(composed, value):
    line = refused(composed, f"layers={value}")
    assert line.startswith(f"layers={value}: must be a whole number of at least 0, or all, or all-K")


def test_the_frozen_protocol_freezes_what_it_copies(composed):
    assert composed("protocol=frozen", "layers=4").freeze == 4


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["layers=4", "n_per_class=full"],
        ["layers=4", "layers=5"],
        ["dataset=imagenet", "lr.layers.conv1=0.0005"],
        ["lr.layers.conv1=0.0005", "protocol=frozen", "layers=3"],
        ["dataset=tiny_imagenet", "recipe=glyphs", "epochs=3", "base.lr.high=0.5"],
        ["epochs=3", "recipe=small", "dataset=cifar10", "dataset.pad=1"],
        ["base=dataset", "dataset@base.dataset=cifar10", "base.dataset.root=somewhere", "base.dataset.side=40"],
        ["base=weights", "base.weights=some/file.pt", "classes=all"],
        ["base=self", "classes=groups", "classes.source=[a,b]", "classes.target=[c]"],
        ["model=alexnet", "dataset.side=70", "dataset.pixels=64", "decay_epochs=${lr.step}"],
        ["protocol=scratch", "lr.step=4", "machine.device=cpu", "++seed=3", "results_dir=there"],
    ],
    ids=" ".join,
)
def test_the_fast_way_to_a_cell_is_hydras_own(composed, overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        whole = compose("config", overrides)
    assert composed(*overrides) == build(typing.cast(dict, OmegaConf.to_container(whole, resolve=True)))


def test_a_notebook_gets_what_the_command_line_runs(composed):
    assert load("layers=4", "dataset=cifar10") == composed("layers=4", "dataset=cifar10")


def test_a_later_cell_does_not_inherit_from_an_earlier_one(composed):
    before = composed()
    composed("layers=2", "lr.layers.conv2=0.5", "lr.high=0.3")
    assert composed() == before


def _kind(key):
    kind: typing.Any = Config
    for name in key.split(".")[:-1]:
        kind = {"lr": Rates, "dataset": Dataset, "model": Model, "base": Base, "classes": Classes, "machine": Machine}[
            name
        ]
        if key.startswith("base.lr."):
            kind = Base.__dataclass_fields__["lr"].type
            break
    return str(typing.get_type_hints(kind)[key.rsplit(".", 1)[-1]])


WHOLE = [key for key in NUMBERS if "int" in _kind(key) and key not in TUPLES]
REAL = [key for key in NUMBERS if "float" in _kind(key) and key not in TUPLES]


@pytest.mark.parametrize("key", [*WHOLE, *REAL])
@settings(max_examples=8)
@given(data=st.data())
def test_a_number_below_its_range_is_named_with_its_key(composed, key, data):
    low = LEGAL[key]["low"]
    below = st.integers(-(10**9), int(low) - 1) if key in WHOLE else st.floats(-1e9, low - 1e-3)
    value = data.draw(below)
    if key in REAL:
        value = float(f"{value:.6g}")
    line = refused(composed, f"{key}={value}")
    assert line.startswith(f"{key}={value}: must be ")
    assert f"{low}" in line


@pytest.mark.parametrize("key", ["layers", "freeze", "high_lr_layers", "split", "dropout", "momentum", "model.width"])
@settings(max_examples=8)
@given(over=st.integers(1, 10**9))
def test_a_number_above_its_range_is_named_with_its_key(composed, key, over):
    most = {"layers": 7, "freeze": 7, "high_lr_layers": 8}.get(key, LEGAL[key]["high"])
    value = math.ceil(most) + over
    assert refused(composed, f"{key}={value}").startswith(f"{key}={value}: must be ")


@settings(max_examples=25)
@given(
    layers=st.integers(0, 7),
    frozen=st.floats(0, 1),
    high=st.integers(0, 8),
    decay=st.integers(0, 10**6),
    n=st.one_of(st.just("full"), st.integers(1, 10**6)),
    split=st.integers(0, 2**32 - 1),
    seed=st.integers(0, 10**12),
    schedule=st.sampled_from([s for s in SCHEDULES if s not in ("step_all", "multistep")]),
    augment=st.sampled_from(AUGMENTS),
    precision=st.sampled_from(PRECISIONS),
)
def test_a_number_inside_its_range_is_taken(
    composed, layers, frozen, high, decay, n, split, seed, schedule, augment, precision
):
    wanted = {"layers": layers, "freeze": round(layers * frozen), "high_lr_layers": high, "decay_epochs": decay}
    wanted |= {"n_per_class": n, "split": split, "seed": seed, "schedule": schedule, "augment": augment}
    wanted |= {"precision": precision}
    config = composed(*(f"{key}={value}" for key, value in wanted.items()))
    assert {key: getattr(config, key) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("layers=9", "layers=9: must be from 0 to 7"),
        ("layers=x", "layers=x: must be a whole number"),
        ("layers=2.5", "layers=2.5: must be a whole number"),
        ("layers=inf", "layers=inf: must be a whole number"),
        ("layers=nan", "layers=nan: must be a whole number"),
        ("layers=null", "layers=null: must be a whole number"),
        ("layers=true", "layers=True: must be a whole number"),
        ("layers=[1,2]", "layers=[1, 2]: must be a whole number"),
        ("n_per_class=0", "n_per_class=0: must be a whole number of at least 1, or full"),
        ("n_per_class=Full", "n_per_class=Full: must be a whole number of at least 1, or full"),
        ("protocol=nan", "protocol=nan: must be one of bit, commonly_used, "),
        ("recipe=3.5", "recipe=3.5: must be one of boost2018, "),
        ("base=dataset base.dataset=7", "base.dataset=7: must be one of cifar10, "),
        ("lr.high=inf", "lr.high=inf: must be a number"),
        ("lr.high=nan", "lr.high=nan: must be a number"),
        ("lr=0.1", "lr=0.1: is a group of keys"),
        ("lr.layers=0.1", "lr.layers=0.1: is a group of keys"),
        ("lr.layers=null", "lr.layers=null: is a group of keys"),
        ("lr.layers.conv1=-1", "lr.layers.conv1=-1: must be a number of at least 0"),
        ("curve=1", "curve=1: must be true or false"),
        ("freeze_random=maybe", "freeze_random=maybe: must be true or false"),
        ("target=C", "target=C: must be one of A, B"),
        ("schedule=linear", "schedule=linear: must be one of own_clock, join_low, extra_step, step_all, both, multi"),
        ("base.schedule=both", "base.schedule=both: must be one of own_clock, multistep, cosine, plateau"),
        ("schedule=multistep", "schedule=multistep: needs lr.milestones=[...]"),
        ("base.schedule=multistep", "base.schedule=multistep: needs base.lr.milestones=[...]"),
        ("lr.milestones=[3]", "lr.milestones=[3]: needs schedule=multistep (it is own_clock)"),
        ("base.lr.milestones=[3]", "base.lr.milestones=[3]: needs base.schedule=multistep (it is own_clock)"),
        ("schedule=multistep lr.milestones=[5,3]", "lr.milestones=[5, 3]: must be rising epochs"),
        ("schedule=multistep lr.milestones=[3,3]", "lr.milestones=[3, 3]: must be rising epochs"),
        ("schedule=multistep lr.milestones=[]", "lr.milestones=[]: must be rising epochs"),
        ("schedule=multistep lr.milestones=[0]", "lr.milestones=0: must be a whole number of at least 1"),
        ("schedule=multistep lr.milestones=3", "lr.milestones=3: must be a list"),
        ("dataset.mean=0.5", "dataset.mean=0.5: must be a list"),
        ("dataset.mean=[0.5,0.5]", "dataset.mean=[0.5, 0.5]: must be three numbers"),
        ("dataset.std=[0.5,0.5,0]", "dataset.std=0: must be a number of at least 1e-06"),
        ("dataset.pixels=40", "dataset.pixels=40: must be from 16 to 36"),
        ("results_dir=[a]", "results_dir=['a']: must be text"),
        ("~freeze", "freeze=: is missing"),
        ("freeze=7 layers=4", "freeze=7: must be at most layers=4; to freeze random layers say freeze_random=true"),
        ("base=none layers=1", "layers=1: must be 0 with base=none"),
        ("schedule=step_all decay_epochs=0", "decay_epochs=0: must be at least 1"),
        ("model=alexnet dataset.side=64 dataset.pixels=64 model.width=2", "model.width=2.0: must be 1"),
        ("classes=groups", "classes=groups: needs classes.source"),
        ("classes=drawn classes.sizes=[4,4]", "classes.sizes=[4, 4]: must be three numbers, the classes of A, B and C"),
        ("classes=drawn classes.sizes=[4,0,2]", "classes.sizes=0: must be a whole number of at least 1"),
        ("classes=drawn classes.source_group=C", "classes.source_group=C: must be one of A, diverse, more"),
        ("classes=drawn classes.source_group=null", "classes.source_group=null: must be one of A, diverse, more"),
        (
            "classes=drawn classes.sizes=[2,4,2] classes.source_group=diverse",
            "classes.source_group=diverse: needs fewer classes in C than in A",
        ),
        ("classes=all base=self probe=true", "probe=true: must be false with classes=all"),
        ("classes.source_group=more", "classes.source_group=more: has no place in what was chosen"),
        (
            "classes=groups classes.source=[a,b] classes.target=[b,a]",
            "classes.target=['b', 'a']: must differ from classes.source; to copy from a base on the target classes say",
        ),
        ("classes.source=[a,b]", "classes.source=['a', 'b']: is for classes=groups; say so, or leave it out"),
        ("classes=natman classes.target=[a]", "classes.target=['a']: is for classes=groups; say so, or leave it out"),
        ("dataset.fingerprint=abc", "dataset.fingerprint=abc: is computed from the files; leave it out"),
        ("base=weights base.weights=x +base.digest=abc", "base.digest=abc: is computed from the files; leave it out"),
        (
            "base=dataset base.dataset=cifar10 base.dataset.fingerprint=a",
            "base.dataset.fingerprint=a: is computed from",
        ),
        ("layers=all-K", "layers=all-K: must be a whole number of at least 0, or all, or all-K"),
        ("dataset.pad=1e9", "dataset.pad=1000000000.0: must be a whole number from 0 to 1024"),
        ("dataset.side=1e5", "dataset.side=100000.0: must be a whole number from 8 to 4096"),
        ("shards=1e7", "shards=10000000.0: must be a whole number from 1 to 1024"),
        ("base.shards=1e7", "base.shards=10000000.0: must be a whole number from 1 to 1024"),
        ("epochs=1e12", "epochs=1000000000000.0: must be a whole number from 1 to 1000000"),
        ("optimizer=lamb", "optimizer=lamb: must be one of sgd, adam, adamw"),
        ("stop_after=-1", "stop_after=-1: must be a whole number of at least 0"),
        ("lr.patience=0", "lr.patience=0: must be a whole number of at least 1"),
        ("max_updates=-1", "max_updates=-1: must be a whole number of at least 0"),
        ("base.max_updates=1.5", "base.max_updates=1.5: must be a whole number of at least 0"),
        ("max_updates=full", "max_updates=full: must be a whole number of at least 0"),
        ("nesterov=true momentum=0", "nesterov=true: needs optimizer=sgd and momentum above 0 (they are sgd and 0.0)"),
        ("nesterov=true optimizer=adam", "nesterov=true: needs optimizer=sgd and momentum above 0"),
        ("base.nesterov=true base.optimizer=adamw", "base.nesterov=true: needs base.optimizer=sgd and base.momentum"),
    ],
)
def test_a_wrong_value_is_one_line(composed, override, line):
    assert refused(composed, *override.split()).startswith(line)


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("layer=3", "layers"),
        ("n_per_clas=3", "n_per_class"),
        ("+freez=3", "freeze"),
        ("lr.hihg=3", "lr.high"),
        ("base.epoch=3", "base.epochs"),
        ("+machine.devise=cpu", "machine.device"),
        ("learning_rate=0.1", "lr.high or lr.low"),
        ("freeze_layers=3", "freeze"),
        ("dry_run=true", "hydra.launcher.dry_run"),
    ],
)
def test_an_unknown_key_suggests_the_one_that_was_meant(composed, override, near):
    line = refused(composed, override)
    assert line.startswith(override.lstrip("+").split("=")[0])
    assert f"did you mean {near}?" in line


@pytest.mark.parametrize("override", ["lr.layers.conv9=0.1", "+lr.layers.conv9=0.1"])
def test_a_rate_for_a_layer_that_is_not_there(composed, override):
    assert refused(composed, override).startswith("lr.layers.conv9=")


@pytest.mark.parametrize("override", ["dataset=nosuch", "classes.source=[a", "a b", "layers=${nosuch}", "protocol="])
def test_what_hydra_complains_about_is_one_line_with_the_words_typed(composed, override):
    assert override in refused(composed, override)


@pytest.mark.parametrize(
    "value",
    [
        *("/x/My Photos, 2020 (a=b)", "Photos (1)", "a, b", "it's", "the 'b\\'", 'a "b" &', "#1", "R&D", "~old"),
        *("ünï", "x!", "[x", "{y}", "a=b", "$(a)", "`a`", "50 % (x)", "back\\slash (x)", "a=\\", "a=\\\\"),
    ],
)
def test_the_advice_for_a_value_with_signs_works_as_it_is_typed(composed, value):
    """In a shell, too, whose quotes are around Hydra's."""
    key, _, line = refused(composed, f"dataset.root={value}").partition("=")
    assert (key, line.partition(": ")[0]) == ("dataset.root", value)
    typed = line.partition("needs quotes in quotes: ")[2]
    (word,) = subprocess.run(["sh", "-c", f"printf %s {typed}"], capture_output=True, text=True).stdout.splitlines()
    assert composed(word).dataset.root == value
    assert ("'" in value or set(value) & set('"$`!\\')) or typed == f"\"dataset.root='{value}'\""


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("layers", "command line=layers: must be KEY=VALUE, as in layers=4"),
        ("layers=4,5", "layers=4,5: lists values, where one is needed"),
        ("layers=4,", "layers=4,: ends with a comma; list values without spaces, as in layers=A,B"),
        ("+base.dataset=a b(", "+base.dataset=a b(: cannot be parsed; one text with "),
        ("base.dataset=a b(", "base.dataset=a b(: cannot be parsed; one text with "),
    ],
)
def test_what_is_no_override_of_one_value_is_one_line(composed, override, line):
    assert refused(composed, override).startswith(line)


def test_random_layers_are_frozen_only_on_request(composed):
    assert composed("layers=0", "freeze=3", "freeze_random=true").freeze == 3


def test_no_recipe_sets_what_config_yaml_sets_after_it():
    """Its value would be overridden without a word."""

    def leaves(values, path=""):
        for key, value in values.items():
            yield from leaves(value, f"{path}{key}.") if isinstance(value, dict) else [f"{path}{key}"]

    def of(file):
        values = OmegaConf.to_container(OmegaConf.load(file))
        assert isinstance(values, dict)
        return set(leaves({key: value for key, value in values.items() if key not in ("defaults", "hydra")}))

    own = of(CONF / "config.yaml")
    assert "layers" in own
    for file in (*(CONF / "recipe").rglob("*.yaml"), *(CONF / "model").glob("*.yaml")):
        assert not of(file) & own, file.name


def test_a_number_where_a_file_is_chosen_is_refused_in_a_line(command):
    ended = command("protocol=1", "hydra.launcher.dry_run=true")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith("protocol=1: must be one of bit, commonly_used, ")
