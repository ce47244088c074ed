"""`python -m tlprotocols.results`: look at finished runs, compare them, delete them, free disk space, move tables."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tlprotocols.errors import until_pipe_closes
from tlprotocols.records import Files, Row, is_running, read_row
from tlprotocols.results import MEASURED, export, import_rows, load, read_rows, selected
from tlprotocols.results.trackers import TRACKERS, NotWritten, check, place_of, track

SHOWN = ("run_id", "sweep", "protocol", "dataset", "layers", "n_per_class", "split", "seed", "val_top1", "date")
KINDS = {"weights": "weights.safetensors", "checkpoints": "checkpoint.safetensors"}


def main() -> None:
    """The command line. Exit code 1 with one line for what cannot be done."""
    until_pipe_closes(_main)


def _main() -> None:
    args = _parser().parse_args(_as_command(sys.argv[1:]))
    try:
        args.does(args)
    except BrokenPipeError:
        raise
    except (OSError, ValueError, NotWritten) as error:
        sys.exit(str(error))


def list_runs(args: argparse.Namespace) -> None:
    """A line per finished run."""
    table = selected(load(args.results, bases=args.bases, sweep=args.sweep, protocol=args.protocol), args.query)
    columns = [key for key in SHOWN if key in table and table[key].notna().any()]
    lines = [[_text(key, value) for key, value in zip(columns, line, strict=True)] for line in table[columns].values]
    _print_lines([columns, *lines])
    print(f"{len(table)} runs in {args.results}")


def show(args: argparse.Namespace) -> None:
    """One run: its row, and its files with their sizes."""
    row = _row(args.results, args.run)
    width = max(map(len, row))
    for key, value in _sorted(row).items():
        print(f"{key:{width}}  {value}")
    folder = Files(Path(args.results), row["run_id"]).folder
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        print(f"{_size(file):>10}  {file}")


def compare(args: argparse.Namespace) -> None:
    """Two runs: what differs."""
    one, two = (_sorted(_row(args.results, id)) for id in (args.run, args.other))
    lines = [["", one["run_id"], two["run_id"]]]
    lines += [
        [key, _brief(one.get(key)), _brief(two.get(key))] for key in {**one, **two} if one.get(key) != two.get(key)
    ]
    _print_lines([line for line in lines if line[0] != "run_id"])


def delete(args: argparse.Namespace) -> None:
    """The rows and the folders of all runs of a query, after a question."""
    rows = selected(load(args.results, bases=True), args.query)
    found = [Files(Path(args.results).expanduser(), id) for id in rows["run_id"]]
    if not found:
        print("no run matches; nothing is deleted")
        return
    if not Path(args.results).is_dir():
        raise ValueError(f"{args.results}: rows of a table are not deleted here; give a results folder")
    busy = [files.id for files in found if is_running(files)]
    if busy:
        raise ValueError(f"run {busy[0]} is executed at this moment; nothing is deleted")
    _print_some(list(rows["run_id"]))
    bases = int((rows["role"] == "base").sum()) if "role" in rows else 0
    note = f", {bases} of them base networks, which new runs that copy from them train again" if bases else ""
    if _agreed(args, f"delete {len(found)} runs with their folders{note}?"):
        for files in found:
            files.row.unlink(missing_ok=True)
            shutil.rmtree(files.folder, ignore_errors=True)
        print(f"{len(found)} runs deleted")


def prune(args: argparse.Namespace) -> None:
    """What takes room, and after a question the kinds that are named are deleted; rows stay."""
    from tlprotocols.images.cache import caches_in  # needs numpy, which other commands do without

    folder = Path(args.results).expanduser()
    found = {
        kind: [path for path in sorted(folder.glob(f"runs/*/{name}")) if _is_ours(path)] for kind, name in KINDS.items()
    }
    cache = Path(args.image_cache or os.environ.get("TLPROTOCOLS_IMAGE_CACHE", "~/.cache/tlprotocols")).expanduser()
    found["caches"] = caches_in(cache)
    for kind, paths in found.items():
        print(f"{kind:12} {len(paths):6} {_size(*paths):>10}")
    print(f"caches are those in {cache}, of every data set and every results folder")
    for kind in [kind for kind in found if getattr(args, kind)]:
        paths = [path for path in found[kind] if kind == "caches" or not _is_busy(path)]
        after = {
            "weights": "a base network whose weights are gone is trained again when a new run copies from it",
            "checkpoints": "interrupted runs start again",
            "caches": "images are decoded again when a run needs them",
        }[kind]
        where = cache if kind == "caches" else folder
        _print_some(paths)
        if paths and _agreed(args, f"delete {_size(*paths)} of {kind} in {where}? ({after})"):
            for path in paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            print(f"{len(paths)} deleted")


def _print_some(found: Sequence[object]) -> None:
    """What a question is about, ten lines at the most."""
    for one in found[:10]:
        print(f"  {one}")
    if len(found) > 10:
        print(f"  and {len(found) - 10} more")


def _run_of(path: Path) -> Files:
    return Files(path.parents[2], path.parent.name)


def _is_ours(path: Path) -> bool:
    """Whether a file belongs to a run: other programs, too, have a folder `runs`."""
    return _run_of(path).config.exists() or _run_of(path).row.exists()


def _is_busy(path: Path) -> bool:
    return is_running(_run_of(path))


def _row(results: str, id: str) -> Row:
    """The row of the run whose id begins so.

    Raises:
        ValueError: there is none, or there are several.
    """
    files = Files(Path(results).expanduser(), id)
    exact = read_row(files.row) if Path(results).is_dir() else None
    found = [exact] if exact else [row for row in read_rows(Path(results)) if row["run_id"].startswith(id)]
    if len(found) != 1:
        raise ValueError(f"run={id}: {len(found)} runs in {results} have an id that begins so; see list --bases")
    return found[0]


def _sorted(row: Row) -> Row:
    """Factors first, then the rest in the order of docs/results.md; without what is absent."""
    last = [key for key in MEASURED if key in row and key != "run_id"]
    keys = ["run_id", *(key for key in row if key not in MEASURED), *last]
    return {key: row[key] for key in keys if row[key] is not None and row[key] == row[key]}


def _agreed(args: argparse.Namespace, question: str) -> bool:
    if args.yes:
        return True
    print(f"{question} [y/N] ", end="", flush=True)
    answer = sys.stdin.readline().strip().lower()
    if answer not in ("y", "yes"):
        print("nothing is deleted" if sys.stdin.isatty() else "nothing is deleted; --yes needs no answer")
        return False
    return True


def _size(*paths: Path) -> str:
    """Disk space of files and folders; sparse files count what they take."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    size = float(sum(file.stat().st_blocks * 512 for file in files if file.is_file()))
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _text(key: str, value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{100 * value:.1f}%" if key.endswith("top1") else str(value)[:16]


def _brief(value: Any) -> str:
    shown = "" if value is None else str(value)
    return shown if len(shown) <= 24 else f"{shown[:21]}..."


def _print_lines(lines: list[list[str]]) -> None:
    """Columns as wide as their widest text."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _as_command(arguments: list[str]) -> list[str]:
    """The former spelling, `RESULTS --export FILE`, as `export FILE RESULTS`."""
    for name in ("export", "import"):
        if f"--{name}" in arguments[:-1]:
            place = arguments.index(f"--{name}")
            return [name, arguments[place + 1], *arguments[:place], *arguments[place + 2 :]]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tlprotocols.results", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, does: Callable[[argparse.Namespace], None], *given: tuple[str, dict[str, Any]]) -> None:
        made = commands.add_parser(name, help=" ".join((does.__doc__ or "").split()), description=does.__doc__)
        for key, options in given:
            made.add_argument(key, **options)
        made.add_argument("results", nargs="?", default="results", help="results folder, or an exported table")
        made.set_defaults(does=does)

    yes = ("--yes", {"action": "store_true", "help": "do not ask"})
    bases = ("--bases", {"action": "store_true", "help": "also base networks"})
    query = {"help": "rows, as in \"layers == 5 and dataset == 'folder'\""}
    labels = [(f"--{name}", {"help": f"rows with this {name}"}) for name in ("sweep", "protocol")]
    command("list", list_runs, ("--query", query), *labels, bases)
    command("show", show, ("run", {"help": "id of the run, or how it begins"}))
    command("compare", compare, ("run", {"help": "id of a run"}), ("other", {"help": "id of another"}))
    command("delete", delete, ("--query", query | {"required": True}), yes)
    kinds = [(f"--{kind}", {"action": "store_true", "help": f"delete {kind}"}) for kind in (*KINDS, "caches")]
    command("prune", prune, *kinds, ("--image-cache", {"help": "folder of the decoded images"}), yes)
    command("import", take_in, ("table", {"help": "exported table, whose runs then count as finished"}))
    tracker = ("tracker", {"choices": list(TRACKERS), "help": "what to write to"})
    command(
        "track", copy_to, tracker, ("--to", {"type": Path, "help": "folder of its files; default: RESULTS/TRACKER"})
    )
    command("export", write, ("to", {"type": Path, "help": "file to write: .csv or .parquet"}), bases)
    return parser


def take_in(args: argparse.Namespace) -> None:
    """Rows of an exported table, which then count as finished."""
    print(f"{import_rows(args.table, args.results)} new rows in {args.results}")


def copy_to(args: argparse.Namespace) -> None:
    """Rows and curves to MLflow, W&B or TensorBoard; a run that is there is not written again."""
    check(args.tracker)
    results = Path(args.results).expanduser().absolute()
    place = (args.to or place_of(args.tracker, results)).expanduser().absolute()
    ids = [row["run_id"] for row in read_rows(results)]
    tracker = TRACKERS[args.tracker](place)
    print(f"{track(tracker, results, ids)} of {len(ids)} runs written -> {place}")


def write(args: argparse.Namespace) -> None:
    """The whole table as a .csv or .parquet file."""
    print(f"{export(args.results, args.to, args.bases)} rows -> {args.to}")


if __name__ == "__main__":
    main()
