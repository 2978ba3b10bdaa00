"""``p3d train``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from pseudo3d.training.config import TrainConfig


def run(args: Sequence[str]) -> int:
    """Parse and run; the recipe, if named, comes first and sets the defaults that the options change."""
    from pseudo3d.cli import parse
    from pseudo3d.training.config import RECIPES, TrainConfig, get_recipe

    rest = list(args)
    if rest and not rest[0].startswith("-"):
        name = rest.pop(0)
    else:
        name = "finetune" if any(arg.split("=")[0] == "--weights" for arg in rest) else "scratch"
    defaults = get_recipe(name)
    options = Annotated[TrainConfig, tyro.conf.arg(name="")]  # --epochs, not --config.epochs

    def train(data: Path, out: Path, groups: Path | None = None, config: options = defaults) -> int:
        return _train(data, out, groups, config)

    train.__doc__ = f"""Train a network on labelled videos, then test it by the paper's protocol.

    p3d train [RECIPE] --data DATA --out RUN [options]

    Recipes: {", ".join(RECIPES)}. Without one it is finetune when --weights are given, else scratch.
    The values below are those of {name}.

    Example: p3d train --data my_videos/ --out runs/first --epochs 40

    Args:
        data: a folder per class, split/class/file, a `path label` list (.txt) or a CSV with a header.
        out: the run's folder: config, metrics, checkpoints.
        groups: file of `path group` lines; videos of one group stay on one side of a split.
        config: the recipe.
    """
    return parse(train, "train", rest)


def _train(data: Path, out: Path, groups: Path | None, config: "TrainConfig") -> int:
    from pseudo3d.data.annotations import read_samples
    from pseudo3d.training.loop import train

    result = train(read_samples(data, groups=groups), config, out)
    print(f"trained in {result.seconds:.0f} s; on the test videos, {config.test_clips} clips each:")
    for name, value in result.test.items():
        print(f"  {name:12} {value:6.1%}")
    print(f"weights: {result.checkpoint}")
    print(f"next: p3d extract {result.run / 'split.csv'} --weights {result.checkpoint} --out STORE")
    return 0
