"""Every sweep expands to the cells it promises, all of them different; the study shares what they have in common."""

import csv
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from tests.synthetic import TABLE2
from tlprotocols.config.compose import composer
from tlprotocols.config.identity import base_of, run_id
from tlprotocols.config.studies import cells, cells_by_sweep, check_no_study
from tlprotocols.errors import ConfigError
from tlprotocols.images.splits import PUBLISHED
from tlprotocols.launching.driver import new_by_sweep
from tlprotocols.lr_schedule import rate
from tlprotocols.planning.plan import resolved

SWEEPS = Path(__file__).parents[1] / "sweeps"
CELLS = {
    "fig1_layers": 4 * 4 * 4,
    "fig2_high_lr": 8 * 4 * 4,
    "fig3_layers_decay": 2 * 4 * 4 * 4,
    "fig4_decay": 8 * 4 * 4,
    "fig5_freeze": 7 * 4 * 4,
    "fig6_optimal": 3 * 4 * 4,
}
YOSINSKI = {  # cells, and runs among them that no sweep before has
    "yosinski_frozen": (8 * 2 * 2 * 4, 7 * 2 * 2 * 4 + 8),  # one baseB for each half of a split, whatever `base` is
    "yosinski_tuned": (7 * 2 * 2 * 4, 7 * 2 * 2 * 4),
    "yosinski_natman": (8 * 2, 8 * 2),
    "yosinski_random": (8, 8),
    "yosinski_reduced": (10, 10),
}
OTHER_SWEEPS = {  # of studies of other texts: cells
    "densenet_frozen": 2 * 2 * 2 * 2 * 4,
    "densenet_no_callbacks": 2 * 4,
    "densenet_augmented": 2 * 4,
    "densenet_unfrozen": 2 * 2 * 4,
    "densenet_scratch": 2 * 4,
    "hybrid_variants": 2 * 2 * 3,
    "hybrid_checkpoint": 3,
    "hybrid_no_dropout": 3,
    "protocols_named": 10 * 2 * 4,
    "protocols_surgical": 3 * 2 * 4,
}
IMAGES = {  # of every study
    "plested2019": {"imagenet"},
    "tiny_plested2019": {"tiny_imagenet"},
    "tiny_plested2019_2": {"tiny_imagenet"},
    "tiny_plested2019_large": {"tiny_imagenet"},
    "fig5_none_or_four": {"glyphs"},
    "yosinski2014": {"imagenet"},
    "tiny_yosinski2014": {"tiny_imagenet"},
    "densenet_transfer": {"cifar10"},
    "tiny_densenet_transfer": {"folder"},
    "boost2018": {"cifar10"},
    "tiny_boost2018": {"folder"},
    "hybrid_cifar100": {"cifar100"},
    "hybrid_tiny_imagenet": {"tiny_imagenet"},
    "hybrid_densenet": {"cifar100", "tiny_imagenet"},
    "tiny_hybrid_densenet": {"folder"},
    "protocols_compared": {"imagenet"},
    "tiny_protocols_compared": {"tiny_imagenet"},
}
BOOST = {"boost_scratch": 1, "boost_random": 1, "boost_self": 2, "boost_transfer": 6, "boost_equal": 1}  # arms
STUDIES = {file.stem for file in SWEEPS.glob("*.yaml") if "\nstudy:" in file.read_text()}


@pytest.fixture(scope="module")
def compose():
    return composer()


def ids(compose, name, *overrides):
    return [run_id(compose(cell)) for cell in cells(SWEEPS / f"{name}.yaml", list(overrides))]


@pytest.mark.parametrize("name", CELLS)
def test_a_sweep_has_the_cells_it_promises_and_no_two_are_equal(compose, name):
    """On the default data set, which has enough images of each class: it runs as it stands."""
    configs = [resolved(compose(cell)) for cell in cells(SWEEPS / f"{name}.yaml", [])]
    found = [run_id(config) for config in configs]
    assert {config.dataset.name for config in configs} == {"glyphs"}
    assert len(found) == len(set(found)) == CELLS[name]
    promised = re.search(r"= (\d+) runs, 4 bases", (SWEEPS / f"{name}.yaml").read_text())
    assert promised is not None
    assert int(promised[1]) == CELLS[name]


def test_every_sweep_file_is_counted_or_a_study():
    others = {"tiny_pilot", "tiny_boost_pilot", *OTHER_SWEEPS, *BOOST, *YOSINSKI}
    assert {file.stem for file in SWEEPS.glob("*.yaml")} == STUDIES | set(CELLS) | others


@pytest.mark.parametrize("name", OTHER_SWEEPS)
def test_a_sweep_of_another_study_has_its_cells_and_no_two_are_equal(compose, name):
    found = ids(compose, name)
    assert len(found) == len(set(found)) == OTHER_SWEEPS[name]


def test_the_study_is_the_union_and_shares_cells(compose):
    """Shared: 6 layers all high (figs 1, 2), 6 at D = 30 (2, 3, 4), at D = 5 (3, 4, 5), 7 all high (1, 6), Table 2."""
    union = ids(compose, "plested2019", "dataset=imagenet")
    assert len(union) == sum(CELLS.values()) // 4 * 7 == 1064
    papers = ("dataset=imagenet", "n_per_class=10,25,50,100,250,500,full")
    assert set(union) == {id for name in CELLS for id in ids(compose, name, *papers)}
    each = 28  # 7 sizes, 4 splits
    twice = each + 2 * each + 2 * each + each  # repeats in the order of the line above
    # Table 2 at n=25 has 5 frozen at D=5 (fig 5), at n=500 none at D=0 (fig 4), at full 5 layers at D=30 (fig 3)
    assert len(set(union)) == 1064 - twice - 3 * 4


def test_the_papers_study_is_on_imagenet_unless_told_otherwise(compose):
    names = {name: {compose(cell).dataset.name for cell in cells(SWEEPS / f"{name}.yaml", [])} for name in STUDIES}
    assert names == IMAGES
    assert {compose(cell).dataset.name for cell in cells(SWEEPS / "plested2019.yaml", ["dataset=cifar10"])} == {
        "cifar10"
    }


def test_the_second_miniature_has_the_settings_and_bases_of_the_first_on_both_halves(compose):
    first, second = (
        [compose(cell) for cell in cells(SWEEPS / f"tiny_plested2019{number}.yaml", [])] for number in ("", "_2")
    )
    assert len({run_id(config) for config in second}) == 2 * len({run_id(config) for config in first})
    assert {(c.target, c.test_per_class, c.weight_decay) for c in second} == {("A", 400, 1e-4), ("B", 400, 1e-4)}
    bases = [{run_id(base) for c in study if (base := base_of(c)) is not None} for study in (first, second)]
    assert bases[0] < bases[1]
    assert (len(bases[0]), len(bases[1])) == (4, 8)


def test_the_2014_study_has_every_treatment_and_its_bases_are_cells_of_their_own(compose):
    by_sweep = cells_by_sweep(SWEEPS / "yosinski2014.yaml", [])
    lines = new_by_sweep(by_sweep, compose).splitlines()
    found = {line.split()[1]: tuple(int(line.split()[i].split("=")[1]) for i in (2, -1)) for line in lines}
    assert found == YOSINSKI
    configs = [compose(cell) for batch in by_sweep.values() for cell in batch]
    bases = {run_id(base) for config in configs if (base := base_of(config)) is not None}
    assert len(bases) == 4 * 2 + 2
    assert bases < {run_id(config) for config in configs}
    assert {config.high_lr_layers for config in configs} == {8}
    assert {(c.lr.high, c.lr.low, c.lr.step_updates, c.max_updates) for c in configs} == {
        (0.01, 0.01, 100_000, 450_000),
        (0.0125, 0.0125, 64_000, 200_000),  # fewer images have a solver of their own
    }


def test_the_2014_miniature_is_that_study_on_random_halves(compose):
    found = {run_id(config): config for config in map(compose, cells(SWEEPS / "tiny_yosinski2014.yaml", []))}
    assert len(found) == 2 * 2 * (4 * 7 + 1)
    values = {(c.dataset.name, c.classes.name, c.n_per_class, c.base.n_per_class) for c in found.values()}
    assert values == {("tiny_imagenet", "random", 100, 100)}
    frozen = [c for c in found.values() if c.freeze]
    assert len(frozen) == 2 * 2 * 2 * 7
    assert all(c.freeze == c.layers for c in frozen)


@pytest.mark.slow
def test_python_m_sweeps_plans_the_2014_study_on_the_synsets_of_ilsvrc(command, tmp_path):
    """A tree of one training and one validation image for each of the real synsets is enough to plan."""
    with PUBLISHED.open(newline="") as file:
        synsets = [row["synset"] for row in csv.DictReader(file)]
    Image.new("RGB", (9, 7)).save(tmp_path / "one.png")
    for name in synsets:
        for part in ("train", "val"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            (tmp_path / "images" / part / name / "1.png").hardlink_to(tmp_path / "one.png")
    where = (f"dataset.root={tmp_path / 'images'}", f"machine.image_cache={tmp_path / 'cache'}")
    narrowed = "n_per_class=1"  # of the reduced sets, and only these
    ended = command(
        "yosinski2014",
        *where,
        narrowed,
        f"results_dir={tmp_path / 'results'}",
        "hydra.launcher.dry_run=true",
        module="sweeps",
    )
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[1] for line in ended.stdout.splitlines() if line.startswith("sweep: ")] == list(YOSINSKI)
    runs = sum(new for _, new in YOSINSKI.values()) - 9
    assert f"plan: cells={sum(n for n, _ in YOSINSKI.values()) - 9} runs={runs} " in ended.stdout
    assert " bases=0 " in ended.stdout  # the bases are baseB, cells themselves


def test_a_dry_run_says_what_the_sweeps_share(compose):
    lines = new_by_sweep(cells_by_sweep(SWEEPS / "plested2019.yaml", ["dataset=imagenet"]), compose).splitlines()
    new = [int(line.rsplit("=", 1)[1]) for line in lines]
    assert [line.split()[1] for line in lines] == list(CELLS)
    assert new == [112, 224 - 28, 224 - 28, 224 - 56, 196 - 28, 84 - 28 - 3 * 4]
    assert sum(new) == 884


def test_a_grid_is_narrowed_and_widened_from_the_command_line(compose):
    cell = cells(SWEEPS / "fig1_layers.yaml", ["layers=range(8)", "n_per_class=10", "epochs=3"])
    assert len(cell) == 8 * 4
    assert {compose(one).layers for one in cell} == set(range(8))
    assert {compose(one).epochs for one in cell} == {3}


def test_a_studys_grid_is_narrowed_only_where_it_is_one():
    """layers=5,6 narrows figures 1 and 3; 2, 4 and 5 stay at six layers, and figure 6 at its protocols'."""
    found = cells_by_sweep(SWEEPS / "plested2019.yaml", ["layers=5,6", "split=0", "epochs=3"])
    counts = {name: len(batch) for name, batch in found.items()}
    assert counts == {
        **{"fig1_layers": 2 * 7, "fig2_high_lr": 8 * 7, "fig3_layers_decay": 2 * 2 * 7},
        **{"fig4_decay": 8 * 7, "fig5_freeze": 7 * 7, "fig6_optimal": 3 * 7},
    }
    assert all("epochs=3" in cell for batch in found.values() for cell in batch)


def test_the_miniature_is_the_same_study_with_other_images(compose):
    found = [compose(cell) for cell in cells(SWEEPS / "tiny_plested2019.yaml", [])]
    assert len(found) == 1064 // 7 * 4
    assert {(c.dataset.name, c.model.name, c.epochs, c.lr.step, c.batch_size) for c in found} == {
        ("tiny_imagenet", "alexnet_small", 90, 30, 25)
    }


def test_the_optimal_protocol_is_table_2(compose):
    for n, expected in TABLE2.items():
        config = compose(["protocol=optimal", f"n_per_class={n}"])
        assert (config.layers, config.decay_epochs, config.freeze, config.high_lr_layers) == (*expected, 1)


@pytest.mark.parametrize(("study", "n", "fewer"), [("boost2018", "full", 3333), ("tiny_boost2018", 500, 333)])
def test_the_boost_has_its_arms_in_eight_draws_and_two_seeds(compose, study, n, fewer):
    """Eleven arms share the classes B of a draw; four networks of other classes, and the baseline, are their bases."""
    batches = cells_by_sweep(SWEEPS / f"{study}.yaml", [])
    assert {name: len(batch) for name, batch in batches.items()} == {name: 16 * arms for name, arms in BOOST.items()}
    configs = [compose(cell) for batch in batches.values() for cell in batch]
    assert len({run_id(config) for config in configs}) == 11 * 16
    assert {(c.split, c.seed) for c in configs} == {(split, seed) for split in range(8) for seed in (0, 1)}
    assert {(c.n_per_class, c.classes.name, c.high_lr_layers, c.probe, c.lr.low == c.lr.high) for c in configs} == {
        (n, "drawn", 3, True, True)
    }
    bases = {run_id(base): base for c in configs if (base := base_of(c)) is not None}
    assert len(bases) == 16 * 5
    baselines = {run_id(c) for c in configs if c.layers == 0 and c.freeze == 0}
    assert len(bases.keys() & baselines) == 16
    sources = {(b.classes.source_group, b.n_per_class) for b in bases.values() if b.target == "A"}
    assert sources == {("A", n), ("diverse", n), ("more", n), ("more", fewer)}
    assert {(b.epochs, b.lr.high, b.batch_size, b.augment) for b in bases.values()} == {
        (c.epochs, c.lr.high, c.batch_size, c.augment) for c in configs
    }


VALUES = [  # of YAML, at the top of a sweep file
    *(None, True, 5, 1.5, "", "1,2", "[a,b]", "a b", " a ", "1.10", "007", "1e5", "true", "null", "None", "nan"),
    *("range(1,3)", "choice(a,b)", "glob(*)", "a'b", 'a"b', "a\\", "a\\'b", "\\,", "{a:b}", "a=b", "a]", "'a'", "a\nb"),
    *("${lr.step}", "x${lr.step},y", "${oc.env:NOTHING,'a, b'}", "\\${lr.step}"),
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_of_a_sweep_file_is_what_hydra_makes_of_it(tmp_path, compose, value):
    """By `python -m sweeps FILE` as by `-cn`: a text is no grid, no list and no number."""
    source = ["x", value if isinstance(value, str) else "y"]
    content = {"sweep": value, "head": None, "lr": {"high": 0.5}, "classes": {"source": source, "target": ["z"]}}
    OmegaConf.save(OmegaConf.create({"defaults": ["config", "_self_"], **content}), tmp_path / "one.yaml")
    (cell,) = cells(tmp_path / "one.yaml", ["classes=groups"])
    config = compose(cell)
    assert config == composer("one", str(tmp_path))(["classes=groups"])
    assert (config.head, config.lr.high) == (None, 0.5)


def test_null_in_a_grid_and_in_what_sweeps_have_in_common_is_no_text(tmp_path, compose):
    (tmp_path / "one.yaml").write_text(
        "defaults: [config, _self_]\nhydra: {sweeper: {params: {sweep: null, layers: '4,5'}}}\n"
    )
    (tmp_path / "all.yaml").write_text("study: [one]\noverrides: {head: null, lr.layers.conv1: 0.5}\n")
    configs = [compose(cell) for cell in cells(tmp_path / "all.yaml", [])]
    assert [(c.layers, c.sweep, c.head, c.lr.layers) for c in configs] == [
        (layers, None, None, {"conv1": 0.5}) for layers in (4, 5)
    ]


@pytest.mark.parametrize("empty", ["hydra:", "hydra: {sweeper: }", "hydra: {sweeper: {params: }}"])
def test_a_sweep_file_without_a_grid_is_one_cell(tmp_path, empty):
    (tmp_path / "one.yaml").write_text(f"defaults: [config, _self_]\nlayers: 4\n{empty}\n")
    (tmp_path / "all.yaml").write_text("study: [one]\noverrides:\n")
    assert cells(tmp_path / "all.yaml", []) == [["layers=4"]]


def test_an_unknown_study_names_the_known_ones():
    names = r"or one of boost2018, .*fig1_layers, .*tiny_plested2019"
    with pytest.raises(ConfigError, match=rf"^study=fig9: must be a file in \S+sweeps, {names}"):
        cells(SWEEPS / "fig9.yaml", [])
    with pytest.raises(ConfigError, match=r"^study=plested: did you mean plested2019\? It must be a file in"):
        cells(SWEEPS / "plested.yaml", [])


@pytest.mark.parametrize("flags", ["-cd {} -cn plested2019", "--config-dir={} --config-name=plested2019.yaml"])
def test_hydra_is_given_no_study(flags):
    with pytest.raises(
        ConfigError, match=r"^--config-name=plested2019\S*: is a study, .* python -m sweeps \S+2019.yaml"
    ):
        check_no_study(flags.format(SWEEPS).split())
    check_no_study(["-m", "-cd", str(SWEEPS), "-cn", "fig1_layers", "layers=4"])
    check_no_study(["layers=4"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../mine/all.yaml", "../mine/all", "{}/mine/all.yaml"])
def test_a_study_of_ones_own_names_sweeps_beside_it_and_ours(command, tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "all.yaml").write_text("study: [fig2_high_lr, own]\noverrides:\n  split: 0\n")
    own = "defaults: [config, _self_]\nhydra:\n  sweeper:\n    params:\n      layers: 4,5\n"
    (tmp_path / "mine" / "own.yaml").write_text(own)
    dry = ("n_per_class=10", "hydra.launcher.dry_run=true")
    ended = command(name.format(tmp_path), *dry, module="sweeps")
    assert ended.returncode == 0, ended.stderr
    assert "sweep: fig2_high_lr cells=8 runs=8 new=8\nsweep: own cells=2 runs=2 new=2\n" in ended.stdout
    (tmp_path / "mine" / "own.yaml").unlink()
    ended = command(name.format(tmp_path), *dry, module="sweeps")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("study=own: must be a file in ")


@pytest.mark.slow
def test_python_m_sweeps_plans_the_whole_study(command, tmp_path):
    """The study reaches the sweeper, whatever its path, and a command line narrows it."""
    where = f"results_dir={tmp_path / 'results'}"
    narrowed = ("dataset=glyphs", "n_per_class=10", "split=0")
    ended = command("plested2019", *narrowed, where, "hydra.launcher.dry_run=true", module="sweeps")
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines() if line.startswith("sweep: ")]
    assert [line[1] for line in lines] == list(CELLS)
    assert sum(int(line[2].removeprefix("cells=")) for line in lines) == 1064 // 28
    assert "plan: cells=38 " in ended.stdout


def hybrid(compose, name, *overrides):
    return [compose(cell) for cell in cells(SWEEPS / f"{name}.yaml", list(overrides))]


def test_the_hybrid_study_is_the_texts(compose):
    """Sec. 4: five variants on two data sets, and one without dropout; every value of its training."""
    found = hybrid(compose, "hybrid_densenet")
    assert len({run_id(c) for c in found}) == len(found) == 2 * 3 * 6
    model = {(c.model.drop_channel, c.model.se, c.model.checkpoint, c.dropout) for c in found}
    plain, a = ("none", "before_bn")
    assert model == {
        *((plain, False, False, 0.2), (a, False, False, 0.2), (plain, True, False, 0.2), (a, True, False, 0.2)),
        *((a, True, True, 0.2), (plain, False, False, 0)),
    }
    assert {(c.model.name, c.model.depth, c.model.growth, c.batch_size, c.precision) for c in found} == {
        ("densenet_bc", 100, 12, 64, "fp32")
    }
    assert {(c.layers, c.high_lr_layers, c.base.name, c.classes.name, c.n_per_class, c.curve) for c in found} == {
        (0, 7, "none", "all", "full", True)
    }
    assert {(c.optimizer, c.momentum, c.nesterov, c.weight_decay, c.augment) for c in found} == {
        ("sgd", 0.9, True, 1e-4, "crop_flip")
    }
    by_data = {
        (c.dataset.name, c.epochs, c.lr.milestones, c.dataset.val_from_train, c.dataset.val_per_class, c.test_per_class)
        for c in found
    }
    assert by_data == {("cifar100", 300, (150, 225), True, 50, 0), ("tiny_imagenet", 180, (90, 135), False, 50, 50)}
    assert {(c.dataset.side, c.dataset.pixels, c.dataset.pad) for c in found} == {(32, 32, 4)}


@pytest.mark.parametrize(("epoch", "expected"), [(0, 0.1), (149, 0.1), (150, 0.01), (224, 0.01), (225, 1e-3)])
def test_its_rate_falls_at_half_and_three_quarters(compose, epoch, expected):
    (config,) = hybrid(compose, "hybrid_no_dropout", "dataset=cifar100", "seed=0")
    assert [rate(config, stage, epoch) for stage in config.model.stages] == pytest.approx([expected] * 7)


def test_options_are_set_from_the_command_line_of_a_study(compose):
    found = hybrid(compose, "tiny_hybrid_densenet", "model.depth=22", "model.drop_channel=before_conv", "seed=0")
    assert {c.model.depth for c in found} == {22}
    assert [c.model.drop_channel for c in found] == ["before_conv", "before_conv", "before_bn", "none"]
