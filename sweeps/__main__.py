"""`python -m sweeps NAME [overrides]`: a whole study, planned as one.

python -m sweeps plested2019 dataset.root=/data/ilsvrc hydra.launcher.dry_run=true
python -m sweeps plested2019 dataset.root=/data/ilsvrc hydra/launcher=slurm
python -m sweeps mine/study.yaml    # a file of your own, which may name sweeps beside it, and these
"""

import sys
from pathlib import Path

from tlprotocols.__main__ import main as run
from tlprotocols.config import studies
from tlprotocols.errors import until_pipe_closes

HERE = Path(__file__).parent


def main() -> None:
    """The command line: a name, then whatever `python -m tlprotocols` takes."""
    until_pipe_closes(_main)


def _main() -> None:
    names = sorted(file.stem for file in HERE.glob("*.yaml"))
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(f"{__doc__}\nstudies and sweeps:")
        for name in names:
            first = (HERE / f"{name}.yaml").read_text().splitlines()[0].removeprefix("# ")
            print(f"  {name:20} {first}")
        sys.exit(0 if len(sys.argv) > 1 else 2)
    given = sys.argv.pop(1)
    is_path = "/" in given or given.endswith(".yaml")
    studies.ours, studies.requested = HERE, Path(given).with_suffix(".yaml") if is_path else HERE / f"{given}.yaml"
    run()


if __name__ == "__main__":
    main()
