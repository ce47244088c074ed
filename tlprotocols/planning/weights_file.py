"""Which file of weights a base is (`base=weights`), and the digest of its content. Nothing is downloaded."""

import functools
import re
from pathlib import Path

from tlprotocols.config.identity import DIGEST
from tlprotocols.errors import ConfigError
from tlprotocols.records import file_digest

NAME = re.compile(r"\w+_Weights\.\w+")  # of torchvision
PUBLISHED = re.compile(r"-([0-9a-f]{8,})\.\w+$")  # the file name of published weights begins their SHA-256


def find(name: str) -> tuple[Path, str]:
    """The file that `base.weights` means, a path or a name of torchvision's, and the digest of its content.

    Raises:
        ConfigError: there is no such file, or it is not what was published.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path.absolute(), _digest(path, *_version(path))
    if not NAME.fullmatch(name):
        raise ConfigError(
            "base.weights", name, "is no file, and no name as ResNet18_Weights.IMAGENET1K_V1 of torchvision's weights"
        )
    path, url = _cached(name)
    if not path.is_file():
        raise ConfigError("base.weights", name, f"{path} is missing; get it: curl --create-dirs -Lo {path} {url}")
    digest, published = _digest(path, *_version(path)), PUBLISHED.search(path.name)
    if published and not digest.startswith(published[1][:DIGEST]):
        raise ConfigError(
            "base.weights",
            name,
            f"{path} is damaged: its SHA-256 does not begin with {published[1]}; get it again: curl -Lo {path} {url}",
        )
    return path, digest


@functools.cache
def _cached(name: str) -> tuple[Path, str]:
    """Where torchvision keeps these weights, and where they come from."""
    from torch.hub import get_dir  # takes seconds: only where a name is given
    from torchvision.models import get_weight

    try:
        url = get_weight(name).url
    except (ValueError, KeyError) as error:
        legal = "is no weights of the torchvision that is installed; see pytorch.org/vision/stable/models"
        raise ConfigError("base.weights", name, legal) from error
    return Path(get_dir()).absolute() / "checkpoints" / url.rpartition("/")[2], url


def _version(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> str:
    """Read once for all runs of a sweep, and again when the file has changed."""
    return str(file_digest(path))
