"""`python -m tlprotocols [-m] layers=4,5,6,7 n_per_class=10,50`: run, or sweep, transfer learning protocols.

The way of a command: Hydra composes conf/config.yaml and calls the sweeper (hydra_plugins/.../grid.py), which expands
the grid to cells; the launcher (launchers.py) composes each cell to a Config (config/compose.py) and hands all of
them to the driver (launching/driver.py) with a backend: local, slurm or ray.
"""

import os
import re
import sys
from importlib.util import find_spec
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlprotocols import __version__
from tlprotocols.config.compose import CONF, check_choice, explained, full_name
from tlprotocols.config.studies import check_no_study
from tlprotocols.config.validate import build
from tlprotocols.errors import ConfigError, RunsFailed, until_pipe_closes


def run(config: DictConfig) -> float | None:
    """One run for launchers that plan nothing (hydra/launcher=basic and other people's): its top-1 accuracy.

    Our own launchers never call this: even a single run is a sweep of one (hydra.mode in conf/config.yaml).
    """
    from tlprotocols.launching.driver import sweep
    from tlprotocols.launching.local import Local

    if HydraConfig.get().runtime.choices.get("protocol"):
        launcher = HydraConfig.get().runtime.choices["hydra/launcher"]
        raise ConfigError("hydra/launcher", launcher, "cannot be used with protocol=; give the protocol's values")
    one = Local(workers=1, gpus=1, per_gpu=1, dry_run=False, retry_failed=False)
    rows = sweep([build(cast(dict[str, Any], OmegaConf.to_container(config, resolve=True)))], one)
    return rows[0]["val_top1"] if rows and rows[0] else None


def main() -> None:
    """The command line. Exit codes: 0 done, 1 some runs failed, 2 the command cannot be run, 130 interrupted."""
    until_pipe_closes(_main)


def _main() -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        from tlprotocols.config.help import text
        from tlprotocols.launching.local import Local

        print(text(Local))
        return
    if "--version" in sys.argv[1:]:
        print(f"tlprotocols {__version__}")
        return
    if "--classes" in sys.argv[1:]:
        sys.argv.remove("--classes")
        sys.argv += ["hydra.launcher.dry_run=true", "classes_shown=true"]
    sys.argv[1:] = [full_name(argument) for argument in sys.argv[1:]]
    whole_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, and leave as one line
    try:
        check_no_study(sys.argv[1:])
        sys.argv[1:] = _with_plugins(sys.argv[1:])
        for override in OverridesParser.create().parse_overrides([text for text in sys.argv[1:] if _is_choice(text)]):
            check_choice(override)
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run)()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if whole_traceback:
            raise
        overrides = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        print(error if isinstance(error, ConfigError) else explained(error, overrides), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        raise
    except OSError as error:  # a disk that is full, a folder that went away: no error of ours
        if whole_traceback:
            raise
        where, why = error.filename or type(error).__name__, error.strerror or error
        print(f"{where}: {why}; finished runs are kept, the same command goes on", file=sys.stderr)
        sys.exit(2)
    except RunsFailed as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except RuntimeError as error:
        foreign = re.match(r"(?:Invalid plugin|Unknown plugin class) ?:? '(.+?)'", str(error))
        if whole_traceback or not foreign:
            raise
        legal = "is no launcher or sweeper in the package hydra_plugins, and is not called; leave it out"
        print(ConfigError("_target_", foreign[1], legal), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _is_choice(argument: str) -> bool:
    """Whether an argument may choose a file of a group of conf/."""
    return "=" in argument and (CONF / argument.lstrip("+").partition("=")[0].partition("@")[0]).is_dir()


def _with_plugins(arguments: list[str]) -> list[str]:
    """The arguments as Hydra's plugins for Optuna and joblib need them.

    Raises:
        ConfigError: the plugin is not installed, or does not work here.
    """
    if "hydra/launcher=joblib" in arguments:  # loky's workers start no processes, and a run is one
        instead = "say hydra.launcher.workers=N: the default launcher, local, executes N runs at a time"
        raise ConfigError("hydra/launcher", "joblib", f"does not work here; {instead}")
    if "hydra/sweeper=optuna" in arguments:
        if find_spec("hydra_plugins.hydra_optuna_sweeper") is None:
            legal = "needs its plugin and Optuna 2: pip install 'tlprotocols[optuna]', without the extra recommend"
            raise ConfigError("hydra/sweeper", "optuna", legal)
        if not any(argument.startswith("hydra.sweeper.direction=") for argument in arguments):
            return [*arguments, "hydra.sweeper.direction=maximize"]  # accuracy; the plugin would look for the worst
    return arguments


if __name__ == "__main__":
    main()
