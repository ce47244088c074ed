"""Whether locks of files work where the results are: they keep two processes from executing one run."""

import fcntl
import os
import re
from pathlib import Path

from tlprotocols.errors import ConfigError

MOUNTS = Path("/proc/self/mountinfo")
LOCAL = {"nfs": r"nolock|local_lock=(all|flock)", "nfs4": r"local_lock=(all|flock)", "lustre": r"localflock"}
ADVICE = "mount it with locks (NFS without nolock and local_lock, Lustre with flock), or give another results_dir"


def check_locks(results: Path) -> str | None:
    """Try a lock in the folder of the results. Returns a line for the user where other machines do not see it.

    Raises:
        ConfigError: there are no locks, or two can be had at a time.
    """
    folder = results / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".locks.{os.uname().nodename}.{os.getpid()}"
    try:
        with open(path, "w") as first, open(path, "w") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return seen_by_none_else(results, MOUNTS.read_text() if MOUNTS.exists() else "")
    except OSError as error:
        raise ConfigError("results_dir", results, f"has no file locks there ({error.strerror}); {ADVICE}") from error
    finally:
        path.unlink(missing_ok=True)
    raise ConfigError("results_dir", results, f"has file locks that do not exclude each other; {ADVICE}")


def seen_by_none_else(folder: Path, mounts: str) -> str | None:
    """A line for the user if the file system of a folder is shared and its locks are not; `mounts` is the content of
    /proc/self/mountinfo."""
    best, found = "", None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        where, (kind, _, options) = before.split()[4], (*after.split(), "", "", "")[:3]
        above = where == "/" or str(folder.absolute()) == where or str(folder.absolute()).startswith(f"{where}/")
        if above and len(where) >= len(best):
            best, found = where, (kind, f"{before.split()[5]},{options}")
    if found and found[0] in LOCAL and (local := re.search(rf"(?:^|,)({LOCAL[found[0]]})(?:,|$)", found[1])):
        return (
            f"note: {best} ({found[0]}) is mounted with {local[1]}: machines do not see each other's locks, and two"
            f" may execute one run; the results stay right. {ADVICE}"
        )
    return None
