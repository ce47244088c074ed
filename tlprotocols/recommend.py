"""Which protocol suits my images? A search within a budget of time, and a comparison on images held out from it.

python -m tlprotocols.recommend dataset=folder dataset.root=photos model=resnet18 base=weights \\
    base.weights=ResNet18_Weights.IMAGENET1K_V1 budget=30m

It searches layers, freeze, high_lr_layers, decay_epochs, lr.high and lr.low: those that you do not give. Settings are
compared by cross-validation on the training images. At the end the best one, the commonly used protocol, a linear probe
and training from scratch are trained on all training images, with three seeds each, and compared on the images of val/
(or test/, or the last dataset.val_per_class images of each class), which nothing was chosen by.

budget=30m         time to search; a base network is trained before it begins
sampler=random     settings by chance, to see what the search brings
n_per_class=25     training images per class; without it, all

All other overrides are those of python -m tlprotocols, as hydra/launcher=slurm and hydra.launcher.dry_run=true. The
same command again trains nothing; with a larger budget it goes on. An interrupted one resumes.
"""

import sys

from tlprotocols.__main__ import main as run

OWN = ("budget", "sampler")  # options of the search


def main() -> None:
    """The command line."""
    given = sys.argv[1:]
    if not given or {"-h", "--help"} & set(given):
        print(__doc__)
        sys.exit(0 if given else 2)
    arguments = [f"hydra.sweeper.{text}" if text.split("=", 1)[0] in OWN else text for text in given]
    own = ["hydra/sweeper=recommend"]  # beside the other overrides, for a flag of Hydra's must not part them
    sys.argv[1:] = [*arguments, *own] if "=" in arguments[-1] else [*own, *arguments]
    run()


if __name__ == "__main__":
    main()
