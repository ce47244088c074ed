"""`python -m tlprotocols [-m] layers=4,5,6,7 n_per_class=10,50`: run, or sweep, transfer learning protocols."""

import os
import sys
from typing import Any, cast

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tlprotocols.config.compose import CONF, build, explained
from tlprotocols.errors import ConfigError, RunsFailed


def run(config: DictConfig) -> float | None:
    """One run for launchers that plan nothing (hydra/launcher=basic and other people's): its top-1 accuracy.

    Our own launchers never call this: even a single run is a sweep of one (hydra.mode in conf/config.yaml).
    """
    from tlprotocols.launching.driver import sweep

    (row,) = sweep([build(cast(dict[str, Any], OmegaConf.to_container(config, resolve=True)))], [None])
    return row["val_top1"] if row else None


def main() -> None:
    """The command line. Exit codes: 0 done, 1 some runs failed, 2 the command cannot be run, 130 interrupted."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        from tlprotocols.config.help import text

        print(text())
        return
    whole_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us, and leave as one line
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run)()
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        if whole_traceback:
            raise
        asked = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
        print(error if isinstance(error, ConfigError) else explained(error, asked), file=sys.stderr)
        sys.exit(2)
    except RunsFailed as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
