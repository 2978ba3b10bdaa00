"""``p3d train``."""

import inspect
import itertools
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import field, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro

if TYPE_CHECKING:
    from pseudo3d.training.config import TrainConfig

_marked: Any = Annotated  # of types that are made at run time, which no type checker can follow

# How --help groups the options that are in no section of their own: what a group is about, and its fields.
_GROUPS = {
    "network": (
        "What is trained, from which weights, on which frames.",
        (
            "model",
            "weights",
            "head",
            "head_std",
            "temporal_init",
            "blocks",
            "style",
            "dropout",
            "freeze_bn",
            "size",
            "resize",
        ),
    ),
    "training": (
        "How long, how many clips at once, towards what.",
        ("epochs", "iterations", "batch_size", "micro_batch", "label_smoothing", "class_weights", "seed"),
    ),
    "optim": ("How the weights move.", ()),
    "augment": ("How a training clip differs from a test clip; the same for every frame of a clip.", ()),
    "testing": (
        "Which videos are held out, and how many clips of each are scored.",
        ("val_fraction", "val_clips", "val_every", "test_fraction", "test_clips", "skip_bad", "max_bad"),
    ),
    "keeping": ("What is written besides the best weights.", ("checkpoint_every", "keep_last", "license")),
    "machine": (
        "How it is computed; the result is the same up to rounding, but for sync-bn.",
        ("device", "dtype", "workers", "sync_bn", "checkpoint_activations", "compile"),
    ),
}

_HELP = """Train a network on labelled videos, then test it by the paper's protocol.

    p3d train [RECIPE] --data DATA --out RUN [options]

    A recipe is a set of values for the options below; options change it. Without one it is finetune when --weights
    (other than random) are given, else scratch. The config.json of an earlier run is one too. The values below are
    those of {name}.

    {recipes}

    Example: p3d train --data my_videos/ --out runs/first --epochs 40

    Example: p3d train ucf101_p3d --data ucf101.csv --out runs/p3d --gpus 4 --micro-batch 16

    Example: p3d train --data my_videos/ --out runs/first --epochs 40 --resume auto

    Args:
        data: a folder per class, split/class/file, a `path label` list (.txt) or a CSV with a header.
        out: the run's folder: config, metrics, curves, checkpoints. A dry run needs none.
        groups: file of `path group` lines; videos of one group stay on one side of a split.
        resume: "auto" goes on from the newest checkpoint in the run's folder, or begins when there is none; the
            folder of a checkpoint goes on from that one; "never" wants a new run.
        gpus: processes of this machine that share each step's clips, one a GPU, or with device cpu on its processors.
            A dry run is the first of them.
        dry_run: load one batch (16 clips of a larger one), run one step, say shapes, memory and about how long the
            run will take; write no run.
        tensorboard: write scalars, sample clips and the confusion matrix to RUN/tensorboard.
        wandb: report to this project of Weights & Biases (pip install "pseudo3d[wandb]").
"""


def run(args: Sequence[str]) -> int:
    """Parse and run; the recipe, if named, comes first and sets the defaults that the options change."""
    from pseudo3d.cli import parse

    rest = list(args)
    named = rest.pop(0) if rest and not rest[0].startswith("-") else None
    given = _given(rest)
    if named is None:
        named = "finetune" if given.get("--weights", "random") != "random" else "scratch"
    start = _starting_config(named)
    sections = _sections(start)
    unprefixed = _marked[sections, tyro.conf.arg(name="")]  # --epochs, not --options.epochs
    defaults = sections()
    no_out: Any = Path() if "--dry-run" in given else tyro.MISSING

    def train(
        data: Path,
        out: Path = no_out,
        groups: Path | None = None,
        resume: str = "never",
        gpus: int | None = None,
        dry_run: tyro.conf.FlagCreatePairsOff[bool] = False,
        tensorboard: tyro.conf.FlagCreatePairsOff[bool] = False,
        wandb: str | None = None,
        options: unprefixed = defaults,  # type: ignore[valid-type]
    ) -> int:
        config = _config(start, options, given)
        if dry_run:
            return _dry_run(data, groups, config, gpus)
        if gpus is not None and os.environ.get("WORLD_SIZE", "1") == "1":  # which torchrun sets, and some schedulers
            return _launch(gpus, args, data, groups, config)
        said = _said(named, start, config)
        return _train(data, out, groups, config, said, resume=resume, tensorboard=tensorboard, wandb=wandb)

    text = _HELP.format(name=named, recipes=_recipes())
    train.__doc__ = re.sub(r"\n {12,}", " ", text)  # tyro keeps the line breaks within an argument's text
    return parse(train, "train", rest)


def _starting_config(name: str) -> "TrainConfig":
    """The config of a recipe, or of a file that ``TrainConfig.to_json`` wrote."""
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.training.config import TrainConfig
    from pseudo3d.training.recipes import RECIPES, get_recipe

    path = Path(name)
    if name in RECIPES or not (path.suffix == ".json" or path.is_file()):
        return get_recipe(name)
    if not path.is_file():
        raise Pseudo3dError(f"{name}: no such file; give a run's config.json, or one of {', '.join(RECIPES)}")
    try:
        return TrainConfig.from_json(path.read_text(encoding="utf-8"))
    except (Pseudo3dError, UnicodeDecodeError) as error:
        raise Pseudo3dError(f"{name}: {error}") from error


def _sections(start: "TrainConfig") -> type:
    """The fields of a config in the groups of --help, as a dataclass with its values as defaults."""
    from pseudo3d.training.config import TrainConfig

    kinds, texts = get_type_hints(TrainConfig), _field_texts(TrainConfig)
    sections = []
    for group, (about, names) in _GROUPS.items():
        if not names:  # it is one field, a section of its own: --optim.lr
            kind = _marked[kinds[group], tyro.conf.arg(help=about)]
            sections.append((group, kind, field(default=getattr(start, group))))
            continue
        columns = [
            (name, _marked[kinds[name], tyro.conf.arg(help=texts[name])], field(default=getattr(start, name)))
            for name in names
        ]
        options = make_dataclass(group, columns, frozen=True, namespace={"__doc__": about})
        sections.append((group, _marked[options, tyro.conf.OmitArgPrefixes], field(default=options())))
    return make_dataclass("Options", sections, frozen=True)


def _field_texts(kind: type) -> dict[str, str]:
    """What the docstring of a dataclass says of each field, on one line."""
    arguments = inspect.cleandoc(kind.__doc__ or "").partition("Args:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", arguments, re.MULTILINE)
    return {name: " ".join(text.replace("``", "").split()) for name, text in entries}


def _recipes() -> str:
    """Each recipe with the first sentence of what it says."""
    from pseudo3d.training.recipes import RECIPES

    width = max(map(len, RECIPES))
    first = {name: (recipe.__doc__ or "").split("\n")[0].partition(". ")[0] for name, recipe in RECIPES.items()}
    return "\n    ".join(
        f"  {name:{width}}  {text.removesuffix('.').replace('``', '')}" for name, text in first.items()
    )


def _given(args: Sequence[str]) -> dict[str, str]:
    """The options on the command line, by their names with hyphens, each with the word after it."""
    found = {}
    for arg, after in itertools.zip_longest(args, args[1:], fillvalue=""):
        if arg.startswith("--"):
            name, equals, value = arg.partition("=")
            found[name.replace("_", "-")] = value if equals else after
    return found


def _config(start: "TrainConfig", options: Any, given: Mapping[str, str]) -> "TrainConfig":
    """The recipe with the options.

    Raises:
        Pseudo3dError: an option out of range, or one that nothing comes of.
    """
    from pseudo3d.errors import Pseudo3dError

    values: dict[str, Any] = {}
    for group, (_, names) in _GROUPS.items():
        section = getattr(options, group)
        values |= {name: getattr(section, name) for name in names} if names else {group: section}
    if "--epochs" in given:
        if given.get("--iterations", "None") != "None":
            raise Pseudo3dError("--epochs and --iterations both say how long to train: leave one of them out")
        values["iterations"] = None
    config = replace(start, **values)
    random, schedule = config.weights == "random", config.optim.schedule
    for option, idle, use in (
        ("--temporal-init", random, "without --weights"),
        ("--head", random and config.head == "auto", "without --weights"),
        ("--head-std", config.head == "auto" and not random, "with --head auto"),
        ("--optim.milestones", schedule != "step", f"with --optim.schedule {schedule}"),
        ("--optim.gamma", schedule != "step", f"with --optim.schedule {schedule}"),
        ("--optim.momentum", config.optim.name != "sgd", f"with --optim.name {config.optim.name}"),
        ("--augment.piece-seconds", config.augment.pieces is None, "without --augment.pieces"),
    ):
        if option in given and idle:
            raise Pseudo3dError(f"{option} changes nothing {use}: leave it out, or change that")
    return config


def _launch(gpus: int, args: Sequence[str], data: Path, groups: Path | None, config: "TrainConfig") -> int:
    """The same command in so many processes, once the data have been read: a mistake in them is told once."""
    from pseudo3d.commands.launch import check_gpus, launch
    from pseudo3d.data.annotations import read_samples

    check_gpus(gpus, config.device)
    read_samples(data, groups=groups)
    words = _without_gpus(args)
    if config.device == "cpu" and not any(word.split("=")[0] == "--device" for word in words):
        words += ["--device", "cpu"]  # it stands in the recipe's config.json
    return launch(gpus, words)


def _without_gpus(args: Sequence[str]) -> list[str]:
    """The same options for the processes that are to be started."""
    kept = list(args)
    while "--gpus" in kept:
        place = kept.index("--gpus")
        del kept[place : place + 2]
    return [arg for arg in kept if not arg.startswith("--gpus=")]


def _said(name: str, start: "TrainConfig", config: "TrainConfig") -> str:
    """One line on what differs from the recipe."""
    changes = ", ".join(_changes(start, config)) or "as it is"
    return f"p3d: recipe {name}: {changes}"


def _changes(start: Any, config: Any, prefix: str = "") -> list[str]:
    found = []
    for each in fields(start):
        old, new, name = getattr(start, each.name), getattr(config, each.name), prefix + each.name.replace("_", "-")
        if is_dataclass(new):
            found += _changes(old, new, f"{name}.")
        elif new != old:
            found.append(f"{name} {' '.join(map(str, new)) if isinstance(new, tuple) else new}")
    return found


def _dry_run(data: Path, groups: Path | None, config: "TrainConfig", gpus: int | None) -> int:
    from pseudo3d.commands.launch import check_gpus
    from pseudo3d.data.annotations import read_samples
    from pseudo3d.training.dry_run import dry_run

    if gpus is not None:
        check_gpus(gpus, config.device)
    print(dry_run(read_samples(data, groups=groups), config, gpus or 1))
    return 0


def _train(
    data: Path,
    out: Path,
    groups: Path | None,
    config: "TrainConfig",
    said: str,
    *,
    resume: str,
    tensorboard: bool,
    wandb: str | None,
) -> int:
    """Train and say what came of it; ``said`` comes first, on the error stream."""
    from pseudo3d.training.stopping import Interrupted, ended_by_sigterm

    quiet = os.environ.get("RANK", "0") != "0"  # of the processes that torchrun started, the first one speaks
    try:
        with ended_by_sigterm():  # while torch is imported and the data are read, too
            from pseudo3d.data.annotations import read_samples
            from pseudo3d.training.loop import train

            samples = read_samples(data, groups=groups)
            if not quiet:
                print(said, file=sys.stderr)
            result = train(samples, config, out, resume=resume, tensorboard=tensorboard, wandb=wandb, quiet=quiet)
    except Interrupted as stop:
        if not quiet:
            print(f"p3d train: {stop.text}", file=sys.stderr)
        return 128 + stop.signal
    if not quiet:
        print(f"trained in {result.seconds:.0f} s; on the test videos, {config.test_clips} clips each:")
        for name, value in result.test.items():
            print(f"  {name:12} {value:6.1%}")
        for name, number in result.left_out.items():
            print(
                f"left out of {name}, unreadable: {number} (scores are of the others; {result.run / 'metrics.jsonl'})"
            )
        if result.replaced:
            print(f"unreadable training videos, in whose place others were shown: {result.replaced}")
        print(f"weights: {result.checkpoint}")
        print(f"next: p3d extract {result.run / 'split.csv'} --weights {result.checkpoint} --out STORE")
    return 0
