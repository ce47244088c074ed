"""`python -m tlprotocols --help`, made from the schema and the default configuration: nothing is written twice."""

import dataclasses

from tlprotocols.config.compose import CONF, load
from tlprotocols.config.validate import keys

FILLED_IN = ("dataset.fingerprint", "base.digest")
HEAD = """\
How many layers to transfer and to freeze, with which learning rates and how many epochs, given n images per class?

  python -m tlprotocols -m layers=4,5,6,7 n_per_class=10,50      eight runs and the base network they copy from
  python -m tlprotocols -m layers=5,7 split=0,1,2,3 seed=0,1     replicates to compare in pairs
  python -m tlprotocols -m protocol=scratch split=0,1,2,3        the baseline without transfer
  python -m tlprotocols -m layers=5,7 dataset=tiny_imagenet dataset.root=PATH
  python -m tlprotocols --cfg job                                the whole configuration, as it would run

A comma sweeps. Finished runs are never run again. Rows go to results_dir: from tlprotocols.results import load.
"""


def text() -> str:
    """The help page."""
    conf, defaults = CONF, load()
    lines = [HEAD, "Groups (GROUP=CHOICE):"]
    for group in ("dataset", "model", "recipe", "base", "classes", "protocol", "hydra/launcher"):
        choices = sorted(file.stem for file in (conf / group).glob("*.yaml"))
        lines.append(f"  {group:15} {' | '.join(choices)}")
    lines.append("  base.dataset    one of dataset, with base=dataset; base.dataset.KEY as dataset.KEY")
    for title, wanted in (("Factors: what enters a run's identity", True), ("Settings of the machine", False)):
        lines += ["", f"{title} (KEY=DEFAULT  meaning):"]
        for key, about in keys():
            if about["factor"] is wanted and not (key in FILLED_IN or key.endswith(".name") or about["optional"]):
                shown = f"{key}={_default(defaults, key)}"
                legal = f" ({' | '.join(about['choices'])})" if len(about["choices"]) > 1 else ""
                lines.append(f"  {shown:34} {about['doc']}{legal}")
    return "\n".join(lines)


def _default(config: object, key: str) -> str:
    for name in key.split("."):
        config = getattr(config, name)
    if config is None:
        return "null"
    if isinstance(config, tuple):
        return f"[{','.join(map(str, config))}]"
    if isinstance(config, bool):
        return str(config).lower()
    return "" if dataclasses.is_dataclass(config) or isinstance(config, dict) else str(config)
