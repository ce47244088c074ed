"""Whether a folder can be made and written to, and how many bytes it takes; nothing is written to find out."""

import errno
import os
from pathlib import Path

from tlprotocols.errors import ConfigError

NAME_MAX, PATH_MAX = 255, 3800  # bytes, of all file systems in use; the second leaves room for the names below
UNKNOWN = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS)  # a file system that makes no unnamed files


def check_folder(key: str, folder: Path, write: bool) -> None:
    """Refuse a folder, the value of `key`, that can never be one; and if we are to write, one that takes no files.

    Raises:
        ConfigError: a file is in its place or above it, a name is too long, it is read-only or forbidden to us.
    """
    there = existing(folder)
    if not there.is_dir():
        raise ConfigError(key, folder, f"{there} is no folder; give another")
    if max(len(os.fsencode(name)) for name in folder.parts or ("",)) > NAME_MAX or len(os.fsencode(folder)) > PATH_MAX:
        raise ConfigError(key, folder, f"is too long: a name has {NAME_MAX} bytes at most, a path {PATH_MAX}")
    if write and (why := _why_not(there)):
        raise ConfigError(key, folder, f"{there} cannot be written to ({why}); give another folder")


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))


def free_bytes(folder: Path) -> int:
    """What we may still write below a folder, which need not exist yet."""
    room = os.statvfs(existing(folder))
    return room.f_bavail * room.f_frsize


def _why_not(folder: Path) -> str | None:
    """Why no file can be made in a folder; None if one can, as far as can be known without a trace."""
    try:
        if os.statvfs(folder).f_blocks == 0:  # /proc and the like
            return "it keeps no files"
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY, 0o600))  # has no name, and is gone at once
    except OSError as error:
        if error.errno == errno.ENOSPC:  # may have room by the time that something is written
            return None
        if error.errno not in UNKNOWN:
            return error.strerror
        return None if os.access(folder, os.W_OK | os.X_OK) else "permission denied"
    except AttributeError:  # not Linux
        return None if os.access(folder, os.W_OK | os.X_OK) else "permission denied"
    return None
