"""A trained network, used: on the command line, and in a notebook as docs/results.md says."""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from tlprotocols import predict as predict_module
from tlprotocols.config.identity import run_id
from tlprotocols.errors import BadImages
from tlprotocols.predict import load_model, main, predict, prepared
from tlprotocols.records import files, save_config
from tlprotocols.training.run import execute

(EXAMPLE,) = re.findall(
    "```python\n(from tlprotocols.predict import load_model.*?)```",
    (ROOT / "docs" / "results.md").read_text(),
    re.DOTALL,
)
PROBE = ("layers=0", "freeze=all", "freeze_random=true", "augment=none", "dropout=0")


@pytest.fixture(scope="module")
def made(cfg, tmp_path_factory):
    """A finished run, its folder, and eight images of its classes."""
    folder = tmp_path_factory.mktemp("predict")
    config = cfg("layers=0", "keep_weights=true", f"results_dir={folder}")
    save_config(config)
    execute(config)
    images = sorted((Path(config.dataset.root) / "val").rglob("*.png"))[:8]
    return run_id(config), folder, images


@pytest.fixture
def typed(made, monkeypatch, capsys):
    """What the command line prints, and its exit status: a number, or the text on stderr, which means 1."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["predict", made[0], "--results", str(made[1]), *map(str, arguments)])
        code: str | int | None = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        return capsys.readouterr().out.splitlines(), code

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("layers=0", "dataset.side=20", "dataset.mean_of=source"),
        ("layers=0", "dataset.upscale=32", "model=convnet"),
        PROBE,
        (*PROBE, "precision=bf16"),
        ("layers=0", "precision=bf16"),
    ],
)
def test_the_example_of_the_documents_gives_the_predictions_of_the_run(
    composed, tiny, tmp_path, monkeypatch, overrides
):
    from tlprotocols.planning.plan import resolved

    where = (f"results_dir={tmp_path / 'results'}", "keep_weights=true", "predictions=true")
    config = resolved(composed(*tiny, *where, *overrides))
    save_config(config)
    execute(config)
    found = pd.read_parquet(files(config).predictions)
    images = [Path(config.dataset.root) / name for name in found["image"]]
    expected = np.stack(found["probabilities"].to_list())
    assert predict(run_id(config), images, tmp_path / "results") == pytest.approx(expected, abs=1e-6)
    shutil.copy(images[5], tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"RUN": run_id(config)[:6]}
    exec(EXAMPLE, names)
    example = names["probabilities"].detach().numpy()
    assert example == pytest.approx(expected[5:6], abs=1e-6 if config.precision == "fp32" else 0.02)
    assert example.dtype == np.float32
    net, loaded, _ = load_model(run_id(config), "results")
    assert run_id(loaded) == run_id(config)
    all_at_once = net(prepared(images, loaded)).softmax(1).detach().numpy()
    assert all_at_once[5:6] == pytest.approx(example, abs=1e-6)


def test_images_around_bad_ones_are_classified_and_all_bad_ones_named(made, typed, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_module, "at_once", lambda dataset: 3)
    _, _, images = made
    (tmp_path / "more" / "folder.png").mkdir(parents=True)
    for number, file in enumerate(images):
        shutil.copy(file, tmp_path / "more" / f"{number}.png")
    bad = [tmp_path / "more" / f"{name}.jpg" for name in ("0", "1", "2", "2a", "2b", "9")]
    for file in bad:
        file.write_text("no image")
    os.mkfifo(tmp_path / "more" / "pipe.png")
    lines, code = typed(tmp_path / "more", "nothing.png", "--top", 1)
    alone, fine = typed(*images, "--top", 1)
    assert fine == 0
    assert [line.split()[1:] for line in lines] == [line.split()[1:] for line in alone]
    assert [line.split()[0] for line in lines] == [str(tmp_path / "more" / f"{number}.png") for number in range(8)]
    assert code.splitlines() == [
        f"images={tmp_path}/more/pipe.png: it is no regular file",
        "images=nothing.png: there is no such file",
        *(f"images={file}: cannot be read as an image (cannot identify image file)" for file in bad),
    ]


def test_without_a_command_line_all_bad_images_are_an_error(made, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_module, "at_once", lambda dataset: 3)
    run, folder, images = made
    bad = [tmp_path / "0.png", tmp_path / "1.png"]
    for file in bad:
        file.write_text("no image")
    given = [bad[0], *images[:4], bad[1]]
    config = load_model(run, folder)[1]
    for call in (lambda: predict(run, given, folder), lambda: prepared(given, config)):
        with pytest.raises(BadImages) as raised:
            call()
        assert list(raised.value.files) == list(map(str, bad))
    assert predict(run, images[:4], folder) == pytest.approx(predict(run, images, folder)[:4], abs=1e-6)
    assert predict(run, [], folder).shape == (0, 4)


@pytest.mark.parametrize("top", ["0", "-1"])
def test_no_class_at_all_is_refused(made, typed, top):
    assert typed(made[2][0], "--top", top) == ([], f"--top={top}: must be a whole number of at least 1")


def test_images_of_types_that_are_not_read_are_named(made, typed, tmp_path):
    for name in ("a.HEIC", "b.heic", "c.gif"):
        (tmp_path / name).touch()
    line = f"images={tmp_path}: holds 2 .heic, 1 .gif, which are not read; convert them to .jpg or .png"
    assert typed(tmp_path) == ([], line)
    shutil.copy(made[2][0], tmp_path / "d.png")
    lines, code = typed(tmp_path)
    assert (len(lines), code) == (1, line)
