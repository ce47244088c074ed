"""What a sweep comes to: unique runs, finished ones skipped, bases first and once."""

import fcntl
import json

import pytest
from filelock import FileLock

from tlprotocols.config.identity import base_of, run_id
from tlprotocols.errors import ConfigError
from tlprotocols.launching import driver, terminal
from tlprotocols.launching.local import Local
from tlprotocols.planning.plan import plan, resolved
from tlprotocols.records import files, is_running
from tlprotocols.training import memory_estimate as memory
from tlprotocols.training.run import execute

OWN_BASE = (  # the base of layers=4, as a cell
    "layers=0 target=A n_per_class=full high_lr_layers=8 decay_epochs=10 dropout=0.2 lr.high=0.02 lr.low=0.02 shards=2"
)


@pytest.fixture
def sweep(cfg, tmp_path):
    def made(*cells):
        return plan([cfg(f"results_dir={tmp_path}", *cell.split()) for cell in cells])

    return made


def roles(planned):
    return [run.role for run in planned.to_run]


def test_eight_cells_are_eight_runs_and_one_base(sweep):
    planned = sweep(*(f"layers={layers} n_per_class={n}" for layers in (4, 5, 6, 7) for n in (10, 5)))
    assert len(planned.cells) == len(set(planned.cells)) == 8
    assert roles(planned) == ["base"] + ["run"] * 8
    assert {run.base for run in planned.to_run[1:]} == {planned.to_run[0].id}


def test_equal_cells_are_one_run(sweep):
    planned = sweep("layers=4", "layers=4 epochs=2", "layers=5", "layers=4 curve=true")
    assert [planned.cells.count(id) for id in planned.cells] == [3, 3, 1, 3]
    assert roles(planned) == ["base", "run", "run"]


def test_equal_cells_of_several_sweeps_have_the_names_of_all_and_so_has_their_base(sweep):
    planned = sweep("layers=4 sweep=a", "layers=5 sweep=c", "layers=4 sweep=b", "layers=4", "layers=4 sweep=a")
    assert [run.config.sweep for run in planned.requested] == ["a,b", "c"]
    assert [run.config.sweep for run in planned.to_run if run.role == "base"] == ["a,c,b"]


def test_a_cell_that_is_also_a_base_has_the_names_of_the_sweeps_that_request_it(sweep):
    """Else the rows of the sweep that copies from it would have one that is none of its cells."""
    cells = ("layers=4 sweep=copies", f"{OWN_BASE} sweep=one", f"{OWN_BASE} sweep=two")
    for planned in (sweep(*cells), sweep(*reversed(cells))):
        (base,) = set(planned.cells) - {run.id for run in planned.requested if run.base}
        assert planned.runs[base].role == "base"
        assert set(planned.runs[base].config.sweep.split(",")) == {"one", "two"}


def test_every_split_seed_and_half_has_one_base(sweep):
    cells = [f"layers={k} split={s} seed={r} target={t}" for k in (1, 7) for s in (0, 1) for r in (0, 1) for t in "AB"]
    planned = sweep(*cells)
    assert roles(planned) == ["base"] * 8 + ["run"] * 16
    assert len({run.base for run in planned.to_run if run.role == "run"}) == 8


@pytest.mark.parametrize(
    ("cells", "varying"),
    [
        ("optimizer=sgd|optimizer=adam", ["optimizer"]),
        ("optimizer=sgd momentum=0|optimizer=sgd|optimizer=adam", ["optimizer", "momentum"]),
        ("schedule=own_clock|schedule=cosine|schedule=plateau", ["schedule"]),
        ("schedule=cosine|schedule=both|schedule=both decay_epochs=1", ["decay_epochs", "schedule"]),
        ("seed=0|lr.layers.conv1=0.5", ["lr.layers.conv1"]),
        ("layers=7 freeze=7|layers=7 freeze=0", ["freeze"]),
        ("layers=7 freeze=7|layers=7 freeze=0 head_epochs=1|layers=7 freeze=0", ["freeze", "head_epochs"]),
    ],
)
def test_what_varies_is_what_differs_between_cells_that_read_it(sweep, cells, varying):
    assert sorted(sweep(*cells.split("|")).varying) == sorted(["n_per_class", "layers", *varying])


def test_no_transfer_needs_no_base(sweep):
    assert roles(sweep("layers=0", "layers=0 seed=1")) == ["run", "run"]


def test_the_longest_come_first_after_the_bases(sweep):
    planned = sweep("layers=4 n_per_class=1", "layers=4 n_per_class=full", "layers=4 n_per_class=5 epochs=3")
    assert [run.image_passes for run in planned.to_run] == [2 * 4 * 12, 2 * 4 * 12, 3 * 4 * 5, 2 * 4 * 1]
    assert planned.image_passes == 96 + 96 + 60 + 8


def test_a_base_comes_first_however_short_it_is(sweep):
    planned = sweep("layers=4 n_per_class=full epochs=9 base.epochs=1", "layers=0 n_per_class=full epochs=8")
    assert [(run.role, run.image_passes) for run in planned.to_run] == [("base", 48), ("run", 432), ("run", 384)]


def test_a_base_that_is_asked_for_is_one_run(sweep, cfg):
    for cells in (["layers=4", OWN_BASE], [OWN_BASE, "layers=4"]):
        planned = sweep(*cells)
        assert len(planned.to_run) == 2
        assert planned.to_run[0].role == "base"  # it keeps its weights
        assert planned.to_run[1].base == planned.to_run[0].id


def test_a_base_that_is_a_cell_is_finished_without_weights_once_nothing_copies_from_it_any_more(cfg, tmp_path):
    """As in a table that was imported, which has no weights."""
    config = cfg(f"results_dir={tmp_path}", "layers=4")
    base = base_of(config)
    execute(base, "base")
    files(base).weights.unlink()
    assert roles(plan([config, base])) == ["base", "run"]
    execute(base, "base")
    execute(config)
    files(base).weights.unlink()
    assert roles(plan([config, base])) == []


def test_finished_runs_are_not_planned_and_need_no_base(sweep, cfg, tmp_path):
    config = cfg(f"results_dir={tmp_path}", "layers=4")
    execute(base_of(config), role="base")
    execute(config)
    assert roles(sweep("layers=4")) == []
    assert [run.id for run in sweep("layers=4", "layers=5").to_run] == [run_id(cfg("layers=5"))]
    assert roles(sweep("layers=4", "layers=5 seed=1")) == ["base", "run"]
    (tmp_path / "rows" / f"{run_id(base_of(config))}.json").unlink()
    assert roles(sweep("layers=4")) == []
    assert roles(sweep("layers=4", "layers=5")) == ["base", "run"]


def test_a_curve_that_is_not_there_is_run_for(sweep, cfg, tmp_path):
    execute(cfg(f"results_dir={tmp_path}", "layers=0"))
    assert roles(sweep("layers=0")) == []
    assert roles(sweep("layers=0 curve=true")) == ["run"]
    execute(cfg(f"results_dir={tmp_path}", "layers=0", "curve=true"))
    assert roles(sweep("layers=0 curve=true")) == []


def test_planning_writes_nothing(sweep, tmp_path):
    sweep("layers=4", "layers=0")
    assert list(tmp_path.iterdir()) == []


def test_no_row_says_auto(composed, cfg, tiny):
    config = cfg("precision=auto", "base.precision=auto")
    assert config.precision in ("fp32", "bf16")
    assert config.base.precision in ("fp32", "bf16")
    assert len(config.dataset.fingerprint) == 16


@pytest.mark.parametrize(
    ("names", "overrides", "words"),
    [
        ("cat dog", "layers=0", "the run 1 of 2 classes"),
        ("cat dog", "layers=5", "the run 1 of 2 classes"),
        ("ant cat dog", "layers=5", "the base 1 of 3 classes"),
        ("ant cat dog", "layers=0 target=A", "the run 1 of 3 classes"),
        (
            "ant cat dog",
            "layers=5 classes=groups classes.source=[ant] classes.target=[cat,dog]",
            "the base 1 of 3 classes",
        ),
        (
            "ant cat dog",
            "layers=0 classes=groups classes.source=[ant,cat] classes.target=[dog]",
            "the run 1 of 3 classes",
        ),
    ],
)
def test_one_class_is_nothing_to_learn(composed, tiny, make_shapes, tmp_path, names, overrides, words):
    """All images of one class are recognized, as 100%."""
    root = make_shapes(tmp_path, tuple(names.split()))
    given = (*tiny, f"dataset.root={root}")
    with pytest.raises(ConfigError, match=f"^classes=[a-z]+: leaves {words}, and it needs two; give classes=all"):
        resolved(composed(*given, *overrides.split()))
    assert resolved(composed(*given, "classes=all", "protocol=scratch")).layers == 0  # as the message says


@pytest.mark.parametrize("key", ["n_per_class", "base.n_per_class"])
def test_more_images_than_a_class_has(cfg, key):
    with pytest.raises(ConfigError, match=rf"^{key}=13: class \w+ has only 12 training images; give at most 12"):
        cfg(f"{key}=13")


def test_a_row_with_other_factors_is_no_result(sweep, cfg, tmp_path, caplog):
    config = cfg(f"results_dir={tmp_path}", "layers=0")
    row = execute(config)
    path = tmp_path / "rows" / f"{run_id(config)}.json"
    for key, value in (("layers", 3), ("dataset.mean", "0,0,0"), ("lr.high", 0.5), ("n_per_class", "full")):
        path.write_text(json.dumps(row | {key: value}))
        assert roles(sweep("layers=0")) == ["run"]
        assert f"no result ({key} is not" in caplog.text
    path.write_text(json.dumps(row))
    assert roles(sweep("layers=0")) == []


def test_a_failure_without_a_reason_is_still_a_failure(sweep, cfg, tmp_path):
    config = cfg(f"results_dir={tmp_path}", "layers=0")
    files(config).folder.mkdir(parents=True)
    files(config).failure.write_text("")
    assert sweep("layers=0").failures == {run_id(config): "no reason was kept"}


def test_two_that_look_at_a_run_at_once_do_not_take_each_other_for_its_process(sweep, monkeypatch):
    (run,) = sweep("layers=0").to_run
    paths, take, others = files(run.config), fcntl.flock, [is_running]
    seen = []
    paths.folder.mkdir(parents=True)
    paths.lock.touch()

    def taken(file, how):
        take(file, how)
        if others:  # one looks while we do
            seen.append(others.pop()(paths))

    monkeypatch.setattr(fcntl, "flock", taken)
    assert not is_running(paths)
    assert seen == [False]
    with FileLock(paths.lock):
        assert is_running(paths)
        assert [run.id for run in sweep("layers=0").to_run] == []
    assert not is_running(paths)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_of_equal_cells_one_that_wants_a_curve_or_a_probe_is_enough(sweep, first):
    cells = ("layers=4", "layers=4 curve=true", "layers=4 probe=true")
    (run,) = sweep(*cells[first:], *cells[:first]).requested
    assert (run.config.curve, run.config.probe) == (True, True)


@pytest.mark.parametrize("key", ["results_dir", "machine.image_cache", "machine.device", "machine.checkpoint_minutes"])
def test_a_sweep_over_a_setting_would_ignore_all_values_but_one(cfg, tmp_path, key):
    folders = (tmp_path / "a", tmp_path / "b")
    values = {"machine.device": ("cpu", "auto"), "machine.checkpoint_minutes": (1, 2)}.get(key, folders)
    configs = [cfg(f"results_dir={tmp_path}", "layers=0", f"{key}={value}") for value in values]
    with pytest.raises(ConfigError, match=rf"^{key}=\S+: is no factor: a sweep has one value; give a command for each"):
        driver.sweep(configs, Local(workers=1, gpus=None, per_gpu=1, dry_run=True, retry_failed=False))


def test_an_image_cache_that_does_not_fit_is_refused_before_it_is_decoded(
    composed, tiny, tmp_path, monkeypatch, capsys
):
    folders = [f"results_dir={tmp_path / 'results'}", f"machine.image_cache={tmp_path / 'cache'}"]
    cells = ("target=A", "target=B", "seed=1 dataset.pad=1")  # which is added after decoding
    configs = [composed(*tiny, *folders, "layers=0", *cell.split()) for cell in cells]
    needed = 8 * (12 + 4) * (16 * 16 * 3 + 4)  # all eight classes once, with a checksum each
    monkeypatch.setattr(driver, "free_bytes", lambda folder: needed - 1)
    text = "98.8 kB of decoded images are to be written and 98.8 kB are free; give a folder"
    with pytest.raises(ConfigError, match=f"^machine.image_cache=.*: {text}"):
        driver.sweep(configs, Local(workers=1, gpus=None, per_gpu=1, dry_run=False, retry_failed=False))
    assert not (tmp_path / "results").exists()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["digests"]
    driver.sweep(configs, Local(workers=1, gpus=None, per_gpu=1, dry_run=True, retry_failed=False))
    shown = capsys.readouterr().out
    assert "this sweep will be refused: machine.image_cache=" in shown
    assert text in shown
    assert "plan: cells=3 " in shown  # what it would take is what somebody wants to know


def test_the_plan_says_what_will_be_decoded_and_what_is_free(composed, tiny, tmp_path, monkeypatch, capsys):
    folders = [f"results_dir={tmp_path / 'results'}", f"machine.image_cache={tmp_path / 'cache'}"]
    monkeypatch.setattr(driver, "free_bytes", lambda folder: 252.04e9)
    dry = Local(workers=1, gpus=None, per_gpu=1, dry_run=True, retry_failed=False)
    driver.sweep([composed(*tiny, *folders, "layers=0")], dry)
    assert f"49.4 kB to be decoded into {tmp_path / 'cache'}, 252.0 GB are free" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2.5e6, "2.5 MB"), (1.2e13, "12,000.0 GB")]
)
def test_sizes_are_readable(count, text):
    assert terminal.size(count) == text


def test_target_classes_that_the_base_has_learned_too_are_noted(sweep):
    groups = "classes=groups classes.source=[ant,bee,cat] classes.target=[cat,dog]"
    assert terminal.cautions(sweep(f"layers=4 {groups}")) == [
        "note: the base is trained on 1 target class: cat in classes.source too"
    ]
    assert terminal.cautions(sweep(f"layers=4 base=self {groups}")) == []


def test_a_sweep_of_half_of_the_classes_from_a_base_of_other_images_is_noted(sweep, shapes):
    other = f"layers=4 base=dataset dataset@base.dataset=folder base.dataset.root={shapes}"
    half = ["note: 4 of the 8 classes are learned (half B); with classes=all, all are"]
    assert terminal.cautions(sweep(other)) == half
    assert terminal.cautions(sweep(f"{other} classes=all")) == []
    assert terminal.cautions(sweep("layers=4")) == []  # from a base of the other half


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_batch_that_fits_no_memory_is_refused_before_it_is_trained(cfg, tmp_path, monkeypatch, dry_run):
    config = cfg(
        f"results_dir={tmp_path / 'results'}", "layers=0", "n_per_class=full", "batch_size=1000000", "shards=9"
    )
    local = Local(workers=3, gpus=None, per_gpu=1, dry_run=dry_run, retry_failed=False)
    need = memory.bytes_needed(config, images=48)  # of the batch that it comes to
    monkeypatch.setattr(driver, "memory_bytes", lambda: need - 1)
    line = (
        r"^batch_size=1000000: a run needs about .* of memory \(alexnet_small of width 0.1, shards=9\) and .* are here"
    )
    with pytest.raises(ConfigError, match=line):
        driver.sweep([config], local)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("times", "noted"), [(1.5, "hydra.launcher.workers=1 fits"), (2.5, "workers=2 fits"), (3, "")])
def test_more_runs_at_a_time_than_fit_are_noted(cfg, tmp_path, monkeypatch, capsys, times, noted):
    config = cfg(f"results_dir={tmp_path / 'results'}", "layers=0", "high_lr_layers=8")
    monkeypatch.setattr(driver, "memory_bytes", lambda: times * memory.bytes_needed(config, images=16))
    driver.sweep([config], Local(workers=3, gpus=None, per_gpu=1, dry_run=True, retry_failed=False))
    printed = capsys.readouterr().out
    assert noted in printed if noted else "of memory" not in printed


def test_memory_is_that_of_weights_gradients_momentum_and_outputs(plain):
    """Of alexnet_small by hand: 5 convolutions, 3 linear layers, what is pooled and flattened, and the input."""
    config = plain("model.width=1", "shards=1", "batch_size=32", "dropout=0", "layers=5", "freeze=2")
    sizes = [(64, 3, 25), (192, 64, 9), (384, 192, 9), (256, 384, 9), (256, 256, 9)]
    linear = [(1024, 256 * 2 * 2), (1024, 1024), (1000, 1024)]
    weights = [out * (into * kernel + 1) for out, into, kernel in sizes] + [out * (into + 1) for out, into in linear]
    outputs = 384 * 4**2 + 256 * (4**2 + 4**2 + 2**2 + 2**2)  # no gradient passes conv1 and conv2
    outputs += 1024 + 1024 + 1024 + 1024 + 1000  # dropout gives its own
    wanted = 4 * (sum(weights) + 2 * sum(weights[2:]) + 32 * (outputs + 3 * 32**2))
    assert memory.bytes_needed(config, images=10**6) == wanted


def test_a_class_that_fits_no_memory_is_not_decoded(composed, tiny, tmp_path, monkeypatch):
    folders = [f"results_dir={tmp_path / 'results'}", f"machine.image_cache={tmp_path / 'cache'}"]
    monkeypatch.setattr(driver, "memory_bytes", lambda: 2 * 12 * (16 * 16 * 3 + 4) - 1)
    with pytest.raises(
        ConfigError, match=r"^dataset.side=16: decoding a class needs 18.5 kB of memory and 18.5 kB are"
    ):
        driver.sweep(
            [composed(*tiny, *folders, "layers=0")],
            Local(workers=1, gpus=None, per_gpu=1, dry_run=True, retry_failed=False),
        )
