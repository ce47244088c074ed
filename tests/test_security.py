"""Nothing that comes from outside is executed: no pickle, no YAML with objects, no `_target_` of other packages."""

import ast
import os
import pickle
from pathlib import Path

import pytest
from torchvision.datasets import CIFAR10

from benchmarks.structure import modules
from tlprotocols import images
from tlprotocols.errors import ConfigError

ROOT = Path(__file__).parents[1]
MODULES = modules(ROOT, ("tlprotocols", "hydra_plugins", "analysis", "sweeps", "benchmarks"))
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
UNSAFE_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen"),
    *("pandas.read_pickle", "pd.read_pickle", "torch.hub.load", "hydra.utils.instantiate", "instantiate"),
    *("shutil.unpack_archive", "extractall", "extract"),
}


def unsafe(source: str) -> list[str]:
    """What some code says that may execute the content of a file, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            found += [f"{line}: import {name}" for name in names if name.split(".")[0] in UNSAFE_MODULES]
        if not isinstance(node, ast.Call):
            continue
        name, options = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        is_call = name in UNSAFE_CALLS or name.rpartition(".")[2] in ("extractall", "extract", "read_pickle")
        is_load = name in ("torch.load", "np.load", "numpy.load")
        if (
            is_call
            or options.get("shell", "False") != "False"
            or (is_load and "torch" in name and options.get("weights_only") != "True")
            or (is_load and options.get("allow_pickle", "False") != "False")
        ):
            found.append(f"{line}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_module_executes_what_a_file_holds(module):
    found = unsafe(MODULES[module].read_text())
    if module == "tlprotocols.training.weights_file":  # for the name of an error
        used = {
            ast.unparse(n) for n in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(n, ast.Attribute)
        }
        assert {name for name in used if name.startswith("pickle.")} == {"pickle.UnpicklingError"}
        found = [line for line in found if not line.endswith(": import pickle")]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from yaml import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
        "eval(text)",
        "archive.extractall(path)",
        "pandas.read_pickle(path)",
    ],
)
def test_what_would_execute_a_file_is_seen(line):
    assert len(unsafe(line)) == 1


class Code:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_an_archive_of_pickles_that_is_not_the_published_one_is_not_opened(composed, tmp_path):
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], "")]:
        (folder / name).write_bytes(pickle.dumps(Code(tmp_path / "executed")))
    with pytest.raises(ConfigError, match="must hold an intact cifar-10-batches-py/"):
        images.source(composed("dataset=cifar10", f"dataset.root={tmp_path}").dataset, tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("key", ["hydra.launcher", "hydra.sweeper"])
def test_a_launcher_or_sweeper_of_another_package_is_refused_in_a_line(command, tmp_path, key):
    ended = command("layers=0", f"{key}._target_=shutil.rmtree", f"+{key}.path={tmp_path}")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "_target_=shutil.rmtree: is no launcher or sweeper in the package hydra_plugins" in ended.stderr
    assert tmp_path.exists()
