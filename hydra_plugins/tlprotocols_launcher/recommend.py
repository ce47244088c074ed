"""hydra/sweeper=recommend: searches the settings of one task, on whatever the launcher executes runs on."""

import typing
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from tlprotocols.config.protocols import leaves
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
        self.hydra, self.loader = config.hydra, typing.cast(ConfigLoaderImpl, hydra_context.config_loader)
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
        recommendation.recommend(arguments, self.launcher, options, recommendation.OwnFile(*self._own_file()))

    def _own_file(self) -> tuple[tuple[str, ...], frozenset[str]]:
        """The flags by which Hydra found the user's files, and the keys that the first of them sets itself."""
        folders = [source.path for source in self.hydra.runtime.config_sources if source.provider == "command-line"]
        flags = [text for folder in folders for text in ("-cd", folder)]
        name = self.hydra.job.config_name
        if name == "config":
            return tuple(flags), frozenset()
        loaded = self.loader.repository.load_config(name)  # without the files of its defaults list
        content = OmegaConf.to_container(loaded.config) if loaded else {}
        return (*flags, "-cn", name), frozenset(key for key, _ in leaves(typing.cast(dict[str, Any], content)))
