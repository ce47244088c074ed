"""`python -m benchmarks [NAME ...] [--full] [--root PATH] [--write]`: ratios, measured side by side on this machine."""

import argparse
import importlib
import os
import re
import time
from datetime import UTC, datetime
from itertools import starmap
from pathlib import Path

from rich.console import Console

from benchmarks.tables import Tables, markdown, shown
from benchmarks.timing import machine
from tlprotocols.launching.worker import ONE_THREAD

NAMES = (
    "step",
    "data",
    "plan",
    "load",
    "growth",
    "features",
    "sweep",
    "tiny_sweep",
    "techniques",
    "hybrid",
    "densenet",
    "gpu",
)
REPEATED = ("features", "sweep", "tiny_sweep", "techniques", "hybrid", "densenet")


def main() -> None:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--full", action="store_true", help="the real sizes: much longer")
    parser.add_argument(
        "--root", help="Tiny ImageNet, unpacked: real JPEGs, and tiny_sweep; without it, glyphs kept as JPEGs"
    )
    parser.add_argument(
        "--write", action="store_true", help="also write benchmarks/results_quick.md, or results_full.md"
    )
    parser.add_argument("--repetitions", type=int, help=f"of {', '.join(REPEATED)}, in place of their own number")
    args = parser.parse_args()
    if wrong := set(args.names) - set(NAMES):
        parser.error(f"no benchmark is called {', '.join(wrong)}; there are {', '.join(NAMES)}")
    os.environ |= ONE_THREAD  # as in our workers, and before torch is imported
    console = Console(width=None if os.isatty(1) else 140, highlight=False)
    console.print(machine())
    for name in args.names or NAMES:
        begun = time.monotonic()
        module = importlib.import_module(f"benchmarks.{name}")
        repeated = {"repetitions": args.repetitions} if args.repetitions and name in REPEATED else {}
        tables: Tables = module.measure(args.full, root=args.root, **repeated)
        if not tables:
            console.print(f"{name}: needs --root\n")
            continue
        for title, rows in tables.items():
            console.print(shown(title, rows))
        console.print(f"{name}: {time.monotonic() - begun:.0f} s\n")
        if args.write:
            line = f"python -m benchmarks {name}" + " --root PATH" * bool(args.root) + " --full" * args.full
            line += f" --repetitions {args.repetitions}" * bool(repeated)
            measured = f"{machine()}; {datetime.now(UTC):%Y-%m-%d}; `{line}`"
            head = f"{str(module.__doc__).splitlines()[0]}\n\n{measured}\n"
            write(name, "full" if args.full else "quick", "\n".join([head, *starmap(markdown, tables.items())]))


def write(name: str, kind: str, text: str) -> None:
    """Put one benchmark's section into the file; the others stay as they were measured."""
    file = Path(__file__).with_name(f"results_{kind}.md")
    sections = re.split(r"^## (\w+)\n\n", file.read_text(), flags=re.MULTILINE)[1:] if file.exists() else []
    found = dict(zip(sections[::2], sections[1::2], strict=True)) | {name: text + "\n"}
    ordered = (f"## {name}\n\n{found[name].rstrip()}\n" for name in NAMES if name in found)
    file.write_text("\n".join([f"# Benchmarks, {kind} size\n", *ordered]))


if __name__ == "__main__":
    main()
