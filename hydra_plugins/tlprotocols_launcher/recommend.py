"""hydra/sweeper=recommend: searches the settings of one task, on whatever the launcher executes runs on."""

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from tlprotocols.config.validate import read
from tlprotocols.errors import ConfigError


class RecommendSweeper(Sweeper):
    """Its options: the keys of conf/hydra/sweeper/recommend.yaml."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if not hasattr(self.launcher, "rows"):
            name = config.hydra.runtime.choices["hydra/launcher"]
            raise ConfigError("hydra/launcher", name, "must be local, slurm or ray to recommend")

    def sweep(self, arguments: list[str]) -> None:
        """The whole search."""
        try:
            from tlprotocols.searching import recommendation, search
        except ImportError as error:
            legal = f"needs more packages ({error}): pip install 'tlprotocols[recommend]'"
            raise ConfigError("hydra/sweeper", "recommend", legal) from error
        for override in OverridesParser.create().parse_overrides(arguments):
            if override.is_sweep_override():
                key, text = override.key_or_group, str(override.input_line).partition("=")[2]
                raise ConfigError(key, text, "must be one value: what is recommended suits one task")
        options = read(search.Options, self.options, "hydra.sweeper.")
        recommendation.recommend(arguments, self.launcher, options)
