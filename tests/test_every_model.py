"""What every network must do, whatever its stages: copied, frozen, interrupted, swept; batch norm in particular."""

import math

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models as published

from tlprotocols.config.compose import CONF
from tlprotocols.config.help import text
from tlprotocols.config.identity import base_of, run_id
from tlprotocols.config.models import MODELS
from tlprotocols.errors import ConfigError, Stopped
from tlprotocols.images.cache import ImageCache
from tlprotocols.launching.driver import sweep
from tlprotocols.launching.local import Local
from tlprotocols.planning.cost import guess
from tlprotocols.planning.plan import resolved
from tlprotocols.records import files, read_row
from tlprotocols.training import checkpoints, models, optimizers, transfer
from tlprotocols.training.loop import fit
from tlprotocols.training.run import execute, network, selected
from tlprotocols.training.shards import Gradient

CPU = torch.device("cpu")
CLASSES = 4
LARGE = ("alexnet", "caffenet", "vgg16", "vit_b_16")  # 57 M to 134 M weights, which take seconds to draw
ONE_STEP = ("resnet50", "efficientnet_b0", "convnext_tiny", "swin_t")  # not trained more than a step
TRAINED = [name for name in MODELS if name not in (*LARGE, *ONE_STEP)]
PUBLISHED = [name for name, spec in MODELS.items() if spec.parts]
SMALL = [name for name in MODELS if name not in LARGE]
BATCH_NORM = [name for name, spec in MODELS.items() if spec.batch_norm]
STOCHASTIC_DEPTH = ("efficientnet_b0", "convnext_tiny", "swin_t")
SHALLOW = {"densenet_bc": ("model.depth=16", "dropout=0.2", "model.se=true", "model.drop_channel=before_conv")}
INSIDE = ("densenet_bc",)  # dropout lies in the stages: a frozen one has none
DEPTHS = [  # copied and frozen stages, out of those that can be; one that is random and frozen
    pytest.param("0", "0", id="scratch"),
    pytest.param("1", "1", id="first frozen"),
    pytest.param("all-1", "0", id="all but one copied"),
    pytest.param("all", "all", id="feature extractor"),
    pytest.param("0", "1", id="random frozen"),
]
MACHINES = ("seconds", "images_per_second", "date", "log")


def pixels(model):
    return max(32, MODELS[model].pixels[0])


@pytest.fixture(scope="module")
def small(composed, tiny, tmp_path_factory):
    """Overrides to the configuration of a run of a model on the shapes at 32 pixels, images decoded."""
    store, results = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("results")

    def made(model, *overrides):
        side, width = pixels(model), max(0.1, MODELS[model].width[0])
        own = [f"model={model}", f"model.width={width}", f"dataset.side={side}", f"dataset.pixels={side}"]
        own += SHALLOW.get(model, ())
        config = resolved(composed(*tiny, *own, f"machine.image_cache={store}", f"results_dir={results}", *overrides))
        ImageCache.of(config).ensure({(part, label) for part in ("train", "val") for label in range(8)}, workers=1)
        return config

    return made


@pytest.fixture(scope="module")
def protocol(small):
    """The same with its base trained."""

    def made(model, copied, frozen, *overrides):
        config = small(model, f"layers={copied}", f"freeze={frozen}", "freeze_random=true", *overrides)
        if config.layers:
            execute(base_of(config), role="base")
        return config

    return made


def clones(net):
    return {name: value.clone() for name, value in transfer.weights(net).items()}


def same(one, other):
    """Stages of which every bit is equal."""
    stages = dict.fromkeys(name.partition(".")[0] for name in one)
    differ = {name.partition(".")[0] for name in one if not torch.equal(one[name], other[name])}
    return [stage for stage in stages if stage not in differ]


def built(plain, model, *overrides, side=None):
    side = side or pixels(model)
    return models.build(plain(f"model={model}", f"dataset.side={side}", f"dataset.pixels={side}", *overrides), CLASSES)


@pytest.mark.parametrize("model", MODELS)
def test_stages_have_every_parameter_and_every_buffer_once(plain, model):
    with torch.device("meta"):
        net = built(plain, model)
    assert tuple(net.stages) == MODELS[model].stages
    in_stages = [id(v) for stage in net.stages.values() for v in (*stage.parameters(), *stage.buffers())]
    assert sorted(in_stages) == sorted(id(v) for v in (*net.parameters(), *net.buffers()))
    assert len(set(in_stages)) == len(in_stages)
    assert any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()) == MODELS[model].batch_norm


def order_of_use(net, side):
    """Places of the stages in the order in which a pass of images reaches their layers."""
    where = {id(m): place for place, stage in enumerate(net.stages.values()) for m in leaves(stage)}
    reached = []
    for module in (module for stage in net.stages.values() for module in leaves(stage)):
        module.register_forward_pre_hook(lambda module, inputs: reached.append(where[id(module)]))
    net(torch.zeros(2, 3, side, side))
    return reached


def leaves(stage):
    """The modules of a stage that have weights of their own."""
    return [m for m in stage.modules() if any(True for _ in m.parameters(recurse=False))]


@pytest.mark.parametrize("model", PUBLISHED)
def test_stages_are_torchvisions_modules_in_the_order_of_a_pass(plain, model):
    """Held against the installed torchvision: names, shapes, the linear classifier last."""
    side = pixels(model)
    with torch.device("meta"):
        net, theirs = built(plain, model), getattr(published, model)(num_classes=CLASSES)
        reached = order_of_use(net, side)
    assert reached == sorted(reached)
    last = theirs.get_submodule(list(MODELS[model].parts.values())[-1])
    assert isinstance(last, nn.Linear)
    assert last is [m for m in theirs.modules() if isinstance(m, nn.Linear)][-1]
    copied = {name for name, _ in net.body.state_dict().items()}
    head = {
        name for name, value in theirs.state_dict(keep_vars=True).items() if value is last.weight or value is last.bias
    }
    assert copied == theirs.state_dict().keys() - head
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    assert all(value.shape == shapes[name] for name, value in net.body.state_dict().items())
    assert [v.shape for v in net.stages[MODELS[model].stages[-1]].parameters()] == [v.shape for v in last.parameters()]


@pytest.mark.parametrize("model", MODELS)
def test_rates_can_be_given_to_every_stage(model):
    assert tuple(OmegaConf.load(CONF / "model" / f"{model}.yaml").lr.layers) == MODELS[model].stages


@pytest.mark.parametrize("model", MODELS)
def test_images_from_the_smallest_up(plain, model):
    least, most = MODELS[model].pixels
    for side in {side for side in (least, least + 1, 96) if least <= side <= most}:
        with torch.device("meta"):
            assert built(plain, model, side=side)(torch.zeros(2, 3, side, side)).shape == (2, CLASSES)
    for side in (least - 1, most + 1):
        with pytest.raises(ConfigError, match=f"(pixels|side)={side}: must be"):
            built(plain, model, side=side)


@pytest.mark.parametrize("model", MODELS)
def test_the_first_stage_whose_weights_depend_on_the_pixels_is_named(plain, model):
    least, most = MODELS[model].pixels
    with torch.device("meta"):
        few, many = (built(plain, model, side=side).stages for side in (least, min(2 * least + 16, most)))
    shapes = {name: [[w.shape for w in stages[name].parameters()] for stages in (few, many)] for name in few}
    assert next((name for name, (one, other) in shapes.items() if one != other), None) == MODELS[model].by_pixels


@pytest.mark.parametrize("model", MODELS)
def test_multiply_adds_are_those_of_the_layers(plain, model):
    side, width = {"alexnet_small": 32, "convnet": 32, "densenet_bc": 32}.get(model, 224), 1
    with torch.device("meta"), FlopCounterMode(display=False) as counted:
        built(plain, model, f"model.width={width}", side=side)(torch.zeros(2, 3, side, side))
    assert MODELS[model].multiply_adds(side, width) == pytest.approx(counted.get_total_flops() / 4, rel=0.15)


@pytest.mark.parametrize("model", [*MODELS, "densenet_bc model.depth=22", "densenet_bc model.se=true"])
def test_parameter_tensors_are_counted(plain, model):
    name, *options = model.split()
    config = plain(f"model={name}", *options, f"dataset.side={pixels(name)}", f"dataset.pixels={pixels(name)}")
    with torch.device("meta"):
        tensors = list(built(plain, name, *options, side=pixels(name)).parameters())
    assert config.model.spec.tensors(**config.model.options) == len(tensors)


@pytest.mark.parametrize("model", MODELS)
def test_the_cost_is_guessed_and_the_help_lists_it(plain, model):
    config = plain(f"model={model}", f"dataset.side={pixels(model)}", f"dataset.pixels={pixels(model)}")
    assert 0.5 < guess(config) < 1e6  # vit_b_16: 17.6 G multiply-adds
    entry = text(Local).split("\n  model ")[1].split("\n  recipe ")[0]  # one choice, over several lines
    assert model in entry.split()


@pytest.mark.parametrize("model", SMALL)
def test_weights_are_decided_by_the_seed(plain, model):
    nets = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        nets.append(transfer.weights(built(plain, model)))
    assert same(nets[0], nets[1]) == list(MODELS[model].stages)
    assert same(nets[0], nets[2]) == []


@pytest.mark.parametrize("recipe", ["small", "plested2019", "glyphs", "cifar10", "miniature"])
@pytest.mark.parametrize("model", MODELS)
def test_default_recipes_suit_every_model(plain, model, recipe):
    side = pixels(model)
    config = plain(f"recipe={recipe}", f"model={model}", f"dataset.side={side}", f"dataset.pixels={side}")
    assert config.model.name == model
    assert (config.layers, len(base_of(config).model.stages)) == (
        len(MODELS[model].stages) - 2,
        len(MODELS[model].stages),
    )


@pytest.mark.parametrize("model", TRAINED)
@pytest.mark.parametrize(("copied", "frozen"), DEPTHS)
def test_what_is_copied_is_the_bases_and_what_is_frozen_stays(protocol, model, copied, frozen):
    config = protocol(model, copied, frozen, "epochs=1", "weight_decay=0.1")
    stages, net = list(MODELS[model].stages), network(config, CLASSES)
    before = clones(net)
    if config.layers:
        paths = files(base_of(config))
        base = checkpoints.load_weights(paths.weights, read_row(paths.row)["weights_digest"])
        assert same(before, base) == stages[: config.layers]
    sgd = optimizers.optimizer(net, config)
    assert [group["name"] for group in sgd.param_groups] == stages[config.freeze :]
    grouped = [id(p) for group in sgd.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    list(fit(net, sgd, config, selected(config, "train", CPU)))
    assert same(before, transfer.weights(net)) == stages[: config.freeze]


@pytest.mark.parametrize("model", [*TRAINED, "efficientnet_b0"])  # which has stochastic depth
def test_killed_and_resumed_is_never_stopped(protocol, model, tmp_path):
    overrides = ("epochs=3", "dropout=0.3", "batch_size=9")  # 16 images: batches of 9 and 7
    config = protocol(model, "1", "1", *overrides)
    nets = []
    for stopped in (False, True):
        net = network(config, CLASSES)
        sgd = optimizers.optimizer(net, config)
        images = selected(config, "train", CPU)
        for done, _ in fit(net, sgd, config, images):
            if stopped and done == 1:
                checkpoints.save_state(tmp_path / "checkpoint", net, sgd, checkpoints.State(done=1))
                break
        if stopped:
            net = network(config, CLASSES)
            sgd = optimizers.optimizer(net, config)
            done = checkpoints.load_state(tmp_path / "checkpoint", net, sgd).done
            list(fit(net, sgd, config, images, done=done))
        momenta = [sgd.state[p]["momentum_buffer"] for group in sgd.param_groups for p in group["params"]]
        nets.append([*transfer.weights(net).values(), *momenta])
    assert all(torch.equal(one, other) for one, other in zip(*nets, strict=True))


@pytest.mark.parametrize("model", TRAINED)
def test_an_interrupted_run_writes_the_row_of_one_that_was_not(small, model, tmp_path):
    rows = []
    for name in ("whole", "interrupted"):
        config = small(
            model, "layers=0", "curve=true", "machine.checkpoint_minutes=0", f"results_dir={tmp_path / name}"
        )
        if name == "interrupted":
            with pytest.raises(Stopped):
                execute(config, stop=lambda: True)
            assert files(config).checkpoint.exists()
        rows.append({key: value for key, value in execute(config).items() if key not in MACHINES})
    assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.parametrize("model", TRAINED)
def test_a_sweep_from_end_to_end(small, model, tmp_path):
    cells = [("layers=0", "freeze=0"), ("layers=all", "freeze=all"), ("layers=all-1", "freeze=1")]
    configs = [small(model, *cell, f"results_dir={tmp_path}") for cell in cells]
    backend = Local(workers=1, gpus=None, per_gpu=1, dry_run=False, retry_failed=False)
    rows = sweep(configs, backend)
    base = read_row(files(base_of(configs[1])).row)
    assert [row["run_id"] for row in rows] == [run_id(config) for config in configs]
    assert [row["base_weights"] for row in rows] == [None, base["weights_digest"], base["weights_digest"]]
    assert all(row["model"] == model and math.isfinite(row["val_loss"]) for row in rows)
    assert {row["layers"] for row in rows} == {0, len(MODELS[model].stages) - 1, len(MODELS[model].stages) - 2}


@pytest.mark.parametrize("model", [name for name in PUBLISHED if name not in LARGE])
def test_it_is_torchvisions(plain, model):
    """With stochastic depth, and with torchvision's dropout where it has one before the last layer."""
    torch.manual_seed(0)
    dropout = {"mobilenet_v3_small": 0.2, "efficientnet_b0": 0.2}.get(model, 0)
    net = built(plain, model, f"dropout={dropout}")
    torch.manual_seed(0)
    reference = getattr(published, model)(num_classes=CLASSES)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), reference.parameters(), strict=True))
    images = torch.randn(3, 3, 64, 64)
    for mode in (True, False):
        found = []
        for one in (net, reference):
            torch.manual_seed(1)
            found.append(one.train(mode)(images))
        assert torch.equal(*found)
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), reference.buffers(), strict=True))


@pytest.mark.parametrize("model", BATCH_NORM)
def test_statistics_move_unless_they_are_frozen(plain, model):
    net, stages = built(plain, model), list(MODELS[model].stages)
    transfer.freeze(net, list(net.stages)[:2])
    before = clones(net)
    net.train()(torch.randn(4, 3, 64, 64))
    plain_stages = [
        name
        for name in stages
        if not any(module.endswith("running_mean") for module, _ in net.stages[name].named_buffers())
    ]
    assert same(before, transfer.weights(net)) == [
        name for name in stages if name in stages[:2] or name in plain_stages
    ]
    assert [stage.training for stage in net.stages.values()] == [False, False] + [True] * (len(stages) - 2)
    before = clones(net)
    net.eval()(torch.randn(4, 3, 64, 64))
    assert same(before, transfer.weights(net)) == stages


@pytest.mark.parametrize("model", [name for name in MODELS if name not in (*INSIDE, "vgg16", "vit_b_16")])
def test_dropout_stays_on_whatever_is_frozen(plain, model):
    net = built(plain, model, "dropout=0.5")
    transfer.freeze(net, list(net.stages)[:-1])
    images = torch.randn(2, 3, pixels(model), pixels(model))
    with torch.no_grad():
        assert not torch.equal(net.train()(images), net(images))
        assert torch.equal(net.eval()(images), net(images))


@pytest.mark.parametrize("key", ["shards", "base.shards"])
@pytest.mark.parametrize("model", BATCH_NORM)
def test_batch_norm_needs_a_whole_batch(composed, model, key):
    with pytest.raises(ConfigError, match=f"^{key}=2: must be 1: batch norm of {model} needs a whole batch$"):
        composed(f"model={model}", f"{key}=2")


def test_a_last_batch_of_one_image_is_refused(small):
    message = "batch_size=5: leaves one of the 16 training images for the last batch, too few for .* such as 6"
    with pytest.raises(ConfigError, match=message):
        small("resnet18", "layers=0", "batch_size=5")
    with pytest.raises(ConfigError, match=r"base.batch_size=47: leaves one of the 48 .* such as 48"):
        small("resnet18", "layers=1", "base.batch_size=47")
    with pytest.raises(ConfigError, match="batch_size=1: leaves one"):
        small("resnet18", "layers=0", "batch_size=1")
    assert small("convnet", "layers=0", "batch_size=5").batch_size == 5
    assert small("resnet18", "layers=all", "freeze=all", "batch_size=5").batch_size == 5  # no statistics move


@pytest.mark.parametrize("model", STOCHASTIC_DEPTH)
def test_stochastic_depth_acts_in_stages_that_learn_only(plain, model):
    net, images = built(plain, model, "dropout=0"), torch.randn(4, 3, pixels(model), pixels(model))
    with torch.no_grad():
        learning = net.train()(images), net(images)
        transfer.freeze(net, list(net.stages)[:-1])
        frozen = net.train()(images), net(images)
    assert not torch.equal(*learning)
    assert torch.equal(*frozen)


def test_stochastic_depth_of_shards_is_decided_by_the_seed(plain):
    """Threads would take torch's own random numbers first come first served."""
    config = plain("model=convnext_tiny", "dropout=0", "shards=2", "dataset.side=32", "dataset.pixels=32")
    torch.manual_seed(0)
    net, crops = models.build(config, CLASSES), torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    with Gradient(net, config, CPU) as gradient:
        twin, seen = gradient.nets[1], []
        for drawn, epoch in enumerate((0, 0, 1)):
            gradient.begin(epoch)
            torch.rand(drawn)  # by the other shard, more or less of it before this one
            seen.append(twin.body(crops.permute(0, 3, 1, 2).float()))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.slow
@pytest.mark.parametrize("model", ONE_STEP)
def test_one_step_moves_what_learns(plain, model):
    config = plain(f"model={model}", "dataset.side=32", "dataset.pixels=32", "freeze=2", "shards=1")
    net = models.build(config, CLASSES)
    transfer.freeze(net, list(net.stages)[:2])
    before, sgd = clones(net), optimizers.optimizer(net, config)
    with Gradient(net, config, CPU) as gradient:
        gradient.begin(0)
        gradient(torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8), torch.arange(4))
        sgd.step()
    assert same(before, transfer.weights(net)) == list(net.stages)[:2]


def test_the_stages_are_listed(command):
    listed = command("resnet50", module="tlprotocols.models").stdout.splitlines()
    assert [line.split()[1] for line in listed[1:]] == list(MODELS["resnet50"].stages)
    assert "18  fc" in listed[-1]
    wrong = command("resnet51", module="tlprotocols.models")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "model=resnet51: must be one of alexnet, " in wrong.stderr
