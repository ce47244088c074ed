"""Bases that are not trained on the other half: files of weights, other data sets; and classes without halves."""

import os
import pickle
import random
import re
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models as published

from tlprotocols.config.identity import base_of, factors, run_id
from tlprotocols.config.models import MODELS
from tlprotocols.errors import ConfigError
from tlprotocols.images.cache import ImageCache
from tlprotocols.images.splits import halves
from tlprotocols.launching.driver import sweep
from tlprotocols.launching.local import Local
from tlprotocols.planning import weights_file as finder
from tlprotocols.planning.plan import plan, resolved
from tlprotocols.randomness import stream
from tlprotocols.records import files, read_row
from tlprotocols.training import models, transfer, weights_file
from tlprotocols.training.run import execute, load_images, network

LOCAL = Local(workers=1, gpus=None, per_gpu=1, dry_run=False, retry_failed=False)
MACHINES = ("seconds", "images_per_second", "date", "log")


@pytest.fixture(scope="module")
def small(composed, tiny, tmp_path_factory):
    """Overrides to the configuration of a run of a model on the shapes at 32 pixels, before it is resolved."""
    store = tmp_path_factory.mktemp("store")

    def made(model, *overrides):
        own = [f"model={model}", f"model.width={max(0.1, MODELS[model].width[0])}", f"machine.image_cache={store}"]
        return composed(*tiny, "dataset.side=32", "dataset.pixels=32", *own, *overrides)

    return made


def from_file(small, model, path, *overrides):
    return resolved(small(model, "base=weights", f"base.weights={path}", *overrides))


def same(one, other):
    return [name for name in one if torch.equal(one[name], other[name])]


def saved(path, model="resnet18", seed=7, classes=1000):
    """A state dict of torchvision's network, in its own names."""
    torch.manual_seed(seed)
    net = getattr(published, model)(num_classes=classes)
    net.train()(torch.randn(4, 3, 64, 64))  # so that running statistics are not those of every network
    torch.save(net.state_dict(), path)
    return net


def refused(config):
    """The one line with which a sweep refuses, before it leaves anything."""
    with pytest.raises(ConfigError) as caught:
        sweep([config], LOCAL)
    line = str(caught.value)
    assert "\n" not in line
    assert not os.path.exists(config.results_dir)
    return line


@pytest.mark.parametrize("model", ["alexnet_small", "convnet", "resnet18"])
def test_the_weights_of_a_base_run_give_what_the_base_gives(small, tmp_path, model):
    config = resolved(small(model, "layers=all", "freeze=1", f"results_dir={tmp_path}"))
    base = execute(base_of(config), role="base")
    copied = from_file(
        small, model, files(base_of(config)).weights, "layers=all", "freeze=1", f"results_dir={tmp_path}"
    )
    rows = [execute(one) for one in (config, copied)]
    different = {key for key in rows[0] if key not in MACHINES and rows[0][key] != rows[1].get(key)}
    assert {key for key in different if not key.startswith("base")} == {"run_id"}
    row = rows[1]
    assert (row["base"], row["base_weights"], row["base.digest"]) == ("weights", *[base["weights_digest"]] * 2)
    assert row["base_id"] is row["base_top1"] is row["base_collapsed"] is row["base_diverged"] is None
    assert plan([copied]).to_run == []


@pytest.mark.parametrize("model", ["resnet18", "densenet121"])
def test_torchvisions_own_names(small, tmp_path, model):
    net = saved(tmp_path / "file.pth", model)
    config = from_file(small, model, tmp_path / "file.pth", "layers=all")
    weights_file.check([config])
    ours = transfer.weights(network(config, 4))
    theirs = {id(value): name for name, value in net.state_dict(keep_vars=True).items()}
    assert len(theirs) == len(ours)
    copied = [value for name, value in ours.items() if name.partition(".")[0] != MODELS[model].stages[-1]]
    expected = [v for name, v in net.state_dict().items() if not name.startswith(("fc.", "classifier."))]
    assert all(torch.equal(one, other) for one, other in zip(copied, expected, strict=True))


@pytest.mark.parametrize("model", [name for name, spec in MODELS.items() if spec.parts])
def test_a_published_file_fits_every_network(composed, model):
    """All tensors of torchvision's own layout: those of the last stage are not copied, and are no mistake."""
    side = max(64, MODELS[model].pixels[0])
    own = (f"model={model}", f"dataset.side={side}", f"dataset.pixels={side}")
    config = composed(*own, "base=weights", "base.weights=x", "layers=all")
    with torch.device("meta"):
        net, theirs = models.build(config, 4), getattr(published, model)(num_classes=1000)
    file = {name: torch.zeros((), dtype=v.dtype).expand(v.shape) for name, v in theirs.state_dict().items()}
    found = weights_file.fitted(file, net, config)
    last = list(MODELS[model].parts.values())[-1]
    assert {id(v) for v in found.values()} == {id(v) for k, v in file.items() if not k.startswith(f"{last}.")}
    names = {id(value): name for name, value in net.body.state_dict(keep_vars=True).items()}
    for stage, module in list(net.stages.items())[:-1]:
        for name, value in module.state_dict(keep_vars=True).items():
            assert found[f"{stage}.{name}"] is file[names[id(value)]]
    missing = next(name for name in reversed(file) if not name.startswith(last) and "num_batches" not in name)
    with pytest.raises(ConfigError, match=f"stages of {model}: missing {re.escape(missing)}$"):
        weights_file.fitted({name: v for name, v in file.items() if name != missing}, net, config)


def test_names_and_counters_of_the_published_densenet(small, tmp_path):
    """Its file is older than the counters of batch norm, and its names have one more dot than the network's."""
    net = saved(tmp_path / "new.pth", "densenet121")
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): value
        for name, value in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    nets = [
        network(from_file(small, "densenet121", tmp_path / name, "layers=all"), 4) for name in ("new.pth", "old.pth")
    ]
    one, other = map(transfer.weights, nets)
    assert {name.rpartition(".")[2] for name in set(one) - set(same(one, other))} == {"num_batches_tracked"}


def test_only_the_copied_stages_must_fit(small, tmp_path):
    net = saved(tmp_path / "whole.pth")
    first = {name: value for name, value in net.state_dict().items() if name.startswith(("conv1", "bn1", "layer1"))}
    save_file(first | {"head.weight": torch.zeros(3)}, tmp_path / "first.safetensors")
    for layers in (1, 3):
        weights_file.check([from_file(small, "resnet18", tmp_path / "first.safetensors", f"layers={layers}")])
    with pytest.raises(ConfigError, match=r"does not fit 4 of 10 stages of resnet18: missing layer2.0.conv1.weight, "):
        weights_file.check([from_file(small, "resnet18", tmp_path / "first.safetensors", "layers=4")])


def damaged(whole, change):
    """A state dict of torchvision's resnet18 in which something does not fit."""
    state = dict(whole)
    match change:
        case "shape":
            state["layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
        case "missing":
            del state["layer1.0.bn1.running_var"]
        case "extra":
            state["layer1.0.conv1.bias"] = torch.zeros(64)
        case "resnet34":
            state["layer1.2.conv1.weight"] = torch.zeros(64, 64, 3, 3)
        case "type":
            state["conv1.weight"] = torch.zeros(64, 3, 7, 7, dtype=torch.int8)
        case "nan":
            state["conv1.weight"] = torch.full((64, 3, 7, 7), float("nan"))
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shape", r"of another shape layer1.0.conv1.weight \(64, 64, 1, 1\) instead of \(64, 64, 3, 3\)"),
        ("missing", "missing layer1.0.bn1.running_var"),
        ("extra", "unknown layer1.0.conv1.bias"),
        ("resnet34", "unknown layer1.2.conv1.weight"),
        ("type", r"of another shape conv1.weight \(64, 3, 7, 7\) of torch.int8 instead of \(64, 3, 7, 7\)"),
        ("nan", "not finite conv1.weight"),
    ],
)
def test_what_does_not_fit_is_one_line(small, tmp_path, change, message):
    whole = saved(tmp_path / "whole.pth").state_dict()
    path = tmp_path / "file.pt"
    torch.save(damaged(whole, change), path)
    line = refused(small("resnet18", "base=weights", f"base.weights={path}", f"results_dir={tmp_path / 'results'}"))
    assert re.fullmatch(rf"base.weights={path}: does not fit 8 of 10 stages of resnet18: {message}", line)


@pytest.mark.parametrize("prefix", ["module.", "model.backbone."])
@pytest.mark.parametrize("ours", [False, True])
def test_names_that_all_begin_alike_are_explained_and_load_without_that(small, tmp_path, prefix, ours):
    """As DataParallel and Lightning save them; and as our own runs name them."""
    path = tmp_path / "file.pt"
    state = saved(path).state_dict()
    if ours:
        state = transfer.weights(network(from_file(small, "resnet18", path, "layers=all"), 4))
    state = {f"{prefix}{name}": value for name, value in state.items()} | {"other": torch.zeros(1)}
    torch.save(state, path)
    config = small("resnet18", "base=weights", f"base.weights={path}", f"results_dir={tmp_path / 'results'}")
    line = refused(config)
    advice = f'; its names begin with {prefix}: save {{name.removeprefix("{prefix}"): x for name, x in state.items()}}'
    assert line.startswith(f"base.weights={path}: does not fit 8 of 10 stages of resnet18: missing ")
    assert line.endswith(advice)
    made = eval(advice.partition("save ")[2], {"state": torch.load(path)})
    torch.save(made, path)
    weights_file.check([from_file(small, "resnet18", path)])


def test_the_weights_of_another_network_are_a_short_line(small, tmp_path):
    saved(tmp_path / "file.pth", "densenet121")
    config = small("resnet18", "base=weights", f"base.weights={tmp_path / 'file.pth'}", f"results_dir={tmp_path / 'r'}")
    assert re.search(r"resnet18: missing (\S+, ){2}\S+ and 87 more$", refused(config))


class Code:
    """What a pickle may run when it is loaded."""

    def __reduce__(self):
        return os.mkdir, (os.environ["OWNED"],)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_with_code_in_it_is_not_run(small, tmp_path, monkeypatch, new):
    monkeypatch.setenv("OWNED", str(tmp_path / "owned"))
    path = tmp_path / "file.pt"
    torch.save({"conv1.weight": Code()}, path, _use_new_zipfile_serialization=new)
    config = small("resnet18", "base=weights", f"base.weights={path}", f"results_dir={tmp_path / 'results'}")
    assert "holds a pickle with code in it (posix.mkdir), which is not run; save net.state_dict() alone" in refused(
        config
    )
    path.write_bytes(pickle.dumps(Code()))
    line = refused(config)
    assert "holds a pickle with code in it" in line or "is damaged, or no file of weights" in line
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "is no state dict: it holds list"),
        ({"epoch": 3, "state_dict": {}}, "is no state dict: it holds epoch, state_dict; save net.state_dict() alone"),
        ({}, "is no state dict: it holds ; save"),
        (torch.zeros(3), "is no state dict: it holds Tensor"),
    ],
)
def test_what_is_no_state_dict_is_said(small, tmp_path, content, message):
    torch.save(content, tmp_path / "file.pt")
    config = small("resnet18", "base=weights", f"base.weights={tmp_path / 'file.pt'}", f"results_dir={tmp_path / 'r'}")
    assert message in refused(config)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_files_that_are_cut_or_damaged(small, tmp_path, kind):
    """Cut anywhere: one line. A changed bit: one line, or, where the format has no checksum, another digest."""
    torch.manual_seed(0)
    net = models.build(small("convnet"), 4)
    path, draw = tmp_path / "file", random.Random(0)
    if kind == "safetensors":
        save_file(transfer.weights(net), path)
    else:
        torch.save(transfer.weights(net), path, _use_new_zipfile_serialization=kind == "zip")
    whole, id = path.read_bytes(), run_id(from_file(small, "convnet", path))

    def message_of(path):
        try:
            weights_file.check([from_file(small, "convnet", path)])
        except ConfigError as error:
            return str(error)
        return "nothing"

    assert message_of(path) == "nothing"
    for place in [0, 1, 9, *(draw.randrange(len(whole)) for _ in range(10))]:
        path.write_bytes(whole[:place])
        assert re.search("is damaged, or no file of weights|holds a pickle|no state dict", message_of(path))
    for _ in range(20):
        content, place = bytearray(whole), draw.randrange(len(whole))
        content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        assert run_id(from_file(small, "convnet", path)) != id
        assert "\n" not in message_of(path)
    path.write_bytes(b"")
    assert "is damaged, or no file" in message_of(path)


def test_a_changed_weight_in_a_zip_is_found_by_its_checksum(small, tmp_path):
    path = tmp_path / "file.pt"
    torch.save(transfer.weights(models.build(small("convnet"), 4)), path)
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda part: part.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"the checksum of .* does not fit"):
        weights_file.check([from_file(small, "convnet", path)])


def test_a_base_is_its_content_not_its_path_and_not_a_recipe(small, tmp_path):
    saved(tmp_path / "one.pth")
    (tmp_path / "other.pth").write_bytes((tmp_path / "one.pth").read_bytes())
    saved(tmp_path / "third.pth", seed=8)
    one, other, third = (from_file(small, "resnet18", tmp_path / f"{name}.pth") for name in ("one", "other", "third"))
    again = from_file(small, "resnet18", tmp_path / "one.pth", "base.epochs=77", "base.lr.high=3", "base.n_per_class=1")
    assert run_id(one) == run_id(other) == run_id(again) != run_id(third)
    assert [key for key in factors(one) if key.startswith("base")] == ["base", "base.digest"]
    assert factors(one)["base.digest"] == one.base.digest != third.base.digest
    assert base_of(one) is None


def test_a_file_that_changes_after_the_plan_is_not_copied(small, tmp_path):
    saved(tmp_path / "file.pth")
    config = from_file(small, "resnet18", tmp_path / "file.pth", f"results_dir={tmp_path / 'results'}")
    saved(tmp_path / "file.pth", seed=8)
    with pytest.raises(ConfigError, match="changed after the sweep was planned; run the same command again"):
        execute(config)


def test_names_of_torchvision_come_from_its_cache(small, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    finder._cached.cache_clear()
    name, where = "ResNet18_Weights.IMAGENET1K_V1", tmp_path / "hub" / "checkpoints"
    url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    cached = where / "resnet18-f37072fd.pth"
    config = small("resnet18", "base=weights", f"base.weights={name}", f"results_dir={tmp_path / 'results'}")
    line = refused(config)
    assert line == f"base.weights={name}: {cached} is missing; get it: curl --create-dirs -Lo {cached} {url}"
    where.mkdir(parents=True)
    saved(cached)
    assert "is damaged: its SHA-256 does not begin with f37072fd; get it again" in refused(config)
    digest = finder._digest(cached, *finder._version(cached))
    own = cached.rename(where / f"resnet18-{digest[:8]}.pth")
    monkeypatch.setattr(finder, "_cached", lambda name: (own, url))
    assert resolved(config).base.weights == str(own)
    weights_file.check([resolved(config)])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere.pth", "is no file, and no name as"),
        ("ResNet18_Weights.NOPE", "is no weights of the torchvision that is installed"),
        ("Nope_Weights.DEFAULT", "is no weights of the torchvision that is installed"),
    ],
)
def test_what_names_no_weights_is_said(small, tmp_path, value, message):
    config = small("resnet18", "base=weights", f"base.weights={value}", f"results_dir={tmp_path / 'results'}")
    assert refused(config).startswith(f"base.weights={value}: {message}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("base=weights", "base.weights=null: is needed: a file, or"),
        ("base.weights=x", "base.weights=x: must be null with base=trained; say base=weights"),
        ("base=dataset", "base.dataset=null: is needed: one of glyphs, "),
        ("base.dataset=cifar10", "base.dataset=cifar10: is for base=dataset; say so, or leave it out"),
        ("base=dataset base.dataset=cifar", "dataset=cifar: must be one of cifar10, "),
        ("base=dataset base.dataset=cifar10 base.dataset.pixels=99", r"base.dataset.pixels=99: must be from 16 to 40"),
        ("base=dataset base.dataset=tiny_imagenet", "base.dataset.pixels=56: must be dataset.pixels=32 where fc6 of"),
        (
            "base=dataset base.dataset=glyphs base.dataset.sid=9",
            "base.dataset.sid=9: there is no such key",
        ),
        ("base.digest=abc", "base.digest=abc: has no place in what was chosen"),
        ("classes=all", "base=trained: has no classes of its own with classes=all"),
        ("classes=all base=self target=A", "target=A: must be B with classes=all, which has no halves"),
    ],
)
def test_bases_that_cannot_be_are_one_line(composed, overrides, message):
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        composed(*overrides.split())
    assert "\n" not in str(caught.value)


def test_the_images_of_a_base_are_named_by_their_own_key(small, tmp_path):
    lost = ("base=dataset", "base.dataset=folder", f"base.dataset.root={tmp_path / 'nowhere'}")
    config = small("resnet18", *lost, f"results_dir={tmp_path / 'results'}")
    assert refused(config).startswith(f"base.dataset.root={tmp_path / 'nowhere'}: is not a folder; it must hold")


def test_all_classes_are_targets(composed):
    config, names = composed("classes=all", "base=self"), tuple("abcde")
    assert halves(config, names) == {"A": [0, 1, 2, 3, 4], "B": [0, 1, 2, 3, 4]}
    assert base_of(config).classes.name == "all"
    assert composed("classes=all", "layers=0", "freeze=0").base.name == "trained"  # and copies nothing


def other_images(root):
    own = ("base.dataset.side=40", "base.dataset.pixels=32", "base.dataset.mean=[0.1,0.2,0.3]")
    return ("base=dataset", "base.dataset=folder", f"base.dataset.root={root}", *own, "base.n_per_class=6")


@pytest.fixture
def others(make_shapes, tmp_path):
    """Another data set of five classes."""
    return make_shapes(tmp_path / "others", tuple("vwxyz"), 8, 2)


def test_the_base_is_the_run_that_trains_that_data_set(small, others, tmp_path):
    """One for all splits, halves and dependants of a seed; its id is that of the same training by itself."""
    configs = [
        resolved(small("resnet18", *other_images(others), f"results_dir={tmp_path}", *cell.split()))
        for cell in ("layers=1", "layers=all split=3", "layers=4 target=A n_per_class=2", "layers=4 seed=1")
    ]
    bases = [run_id(base_of(config)) for config in configs]
    assert len(set(bases[:3])) == 1 != len(set(bases))
    assert [run.role for run in plan(configs).to_run] == ["base"] * 2 + ["run"] * 4
    b = base_of(configs[0])
    rates = [f"lr.low={b.lr.high}", f"lr.high={b.lr.high}", f"lr.step={b.lr.step}", f"decay_epochs={b.lr.step}"]
    images = [f"dataset.root={others}", "dataset.side=40", "dataset.pixels=32", "dataset.mean=[0.1,0.2,0.3]"]
    images += [f"dataset.pad={b.dataset.pad}"]
    recipe = [f"{key}={getattr(b, key)}" for key in ("epochs", "batch_size", "dropout", "augment", "n_per_class")]
    scratch = ("classes=all", "layers=0", "freeze=0", "high_lr_layers=all")
    direct = resolved(small("resnet18", *scratch, *rates, *images, *recipe, f"results_dir={tmp_path}"))
    assert factors(direct) == factors(b)
    assert run_id(direct) == bases[0]


def test_each_network_normalizes_by_its_own_data_set(small, others):
    config = resolved(small("resnet18", *other_images(others)))
    base = base_of(config)
    assert base.dataset.mean == (0.1, 0.2, 0.3) != config.dataset.mean
    assert config.dataset.fingerprint != base.dataset.fingerprint == config.base.dataset.fingerprint
    data = load_images(base, torch.device("cpu"), print)
    assert (data.classes, len(data.train), len(data.val)) == (5, 30, 10)
    assert ImageCache.of(base).folder != ImageCache.of(config).folder


@pytest.mark.slow
@pytest.mark.parametrize("model", ["alexnet_small", "resnet18", "densenet121"])
def test_a_sweep_of_every_base(small, others, tmp_path, model):
    results, file = f"results_dir={tmp_path / 'results'}", tmp_path / "file.pth"
    if MODELS[model].batch_norm:
        saved(file, model)
    else:
        torch.save(transfer.weights(models.build(small(model), 3)), file)
    cells = {
        "trained": ("layers=all",),
        "self": ("layers=all", "base=self", "classes=all"),
        "dataset": ("layers=all", "freeze=2", *other_images(others)),
        "weights": ("layers=all", "classes=all", "base=weights", f"base.weights={file}"),
        "none": ("layers=0", "base=none"),
    }
    configs = [small(model, results, *cell) for cell in cells.values()]
    rows = dict(zip(cells, sweep(configs, LOCAL), strict=True))
    assert [row["base"] for row in rows.values()] == list(cells)
    assert [rows[name]["base_top1"] is None for name in cells] == [False, False, False, True, True]
    assert rows["weights"]["base_weights"] == finder.find(str(file))[1]
    assert [rows[name]["classes_learned"] for name in cells] == [4, 8, 4, 8, 4]
    base = read_row(tmp_path / "results" / "rows" / f"{rows['dataset']['base_id']}.json")
    assert (base["classes_learned"], base["classes"], base["role"]) == (5, "all", "base")
    assert base["weights_digest"] == rows["dataset"]["base_weights"]
    assert base["val_top1"] == rows["dataset"]["base_top1"]
    assert plan([resolved(config) for config in configs]).to_run == []


def test_a_base_has_the_seed_of_the_run_or_its_own(plain):
    """With its own, all seeds share one base, and new layers do not start where those of the base started."""
    assert base_of(plain("seed=3")).seed == 3
    shared = {run_id(base_of(plain("base.seed=7", f"seed={seed}"))) for seed in (0, 1, 2)}
    assert shared == {run_id(base_of(plain("seed=7")))}
    assert "base.seed" not in factors(plain("layers=0", "base.seed=7"))


def test_new_layers_of_a_selffer_start_elsewhere_with_another_base_seed(plain):
    last = []
    for overrides in (("base=self",), ("base=self", "base.seed=7")):
        config = plain(*overrides, "model.width=0.1")
        nets = []
        for one in (config, base_of(config)):
            torch.manual_seed(stream("initialisation", one.seed))
            nets.append(transfer.weights(models.build(one, 4))["fc8.weight"])
        last.append(torch.equal(nets[0], nets[1]))
    assert last == [True, False]
