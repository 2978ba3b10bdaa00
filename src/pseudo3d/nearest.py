"""The name that was probably meant by one that does not exist."""

import difflib
import re
from collections.abc import Iterable

_ALIKE = 0.55  # below it two names have little in common

# What others call the options of this package.
_OTHER_WORDS = {
    "learning-rate": "lr",
    "base-lr": "lr",
    "max-lr": "lr",
    "wd": "weight-decay",
    "decay": "weight-decay",
    "optimizer": "optim.name",
    "scheduler": "schedule",
    "lr-schedule": "schedule",
    "lr-scheduler": "schedule",
    "warmup": "warmup-epochs",
    "grad-clip": "clip-grad-norm",
    "max-grad-norm": "clip-grad-norm",
    "bs": "batch-size",
    "accumulate": "micro-batch",
    "grad-accum": "micro-batch",
    "gradient-accumulation-steps": "micro-batch",
    "max-steps": "iterations",
    "steps": "iterations",
    "num-workers": "workers",
    "pretrained": "weights",
    "precision": "dtype",
    "amp": "dtype",
    "crop-size": "size",
    "image-size": "size",
    "arch": "model",
    "output-dir": "out",
    "gradient-checkpointing": "checkpoint-activations",
    "clip-len": "model",  # which decides how many frames a clip has
    "clip-length": "model",
    "frames": "model",
    "num-frames": "model",
}


def nearest(typed: str, names: Iterable[str]) -> tuple[str, bool]:
    """The name that is most like what was typed, and whether it is like it at all.

    Names of sections ("optim.lr") are found by their last part too, and by what the field calls them elsewhere.

    Args:
        typed: without dashes before it.
        names: those that there are, at least one; of equally near ones the first.

    Example:
        >>> names = ["model", "micro-batch", "optim.lr", "optim.momentum", "augment.flip"]
        >>> [nearest(typed, names)[0] for typed in ("flip", "optim.momentun", "learning_rate", "microbatch")]
        ['augment.flip', 'optim.momentum', 'optim.lr', 'micro-batch']
        >>> nearest("mixup", names)
        ('augment.flip', False)
    """
    there = list(names)
    word = typed.lower().replace("_", "-")
    called = dict[str, str]()
    for short in (_plain, _last):
        for name in there:
            called.setdefault(short(name), name)
    for other, ours in _OTHER_WORDS.items():
        if ours in called:
            called.setdefault(other, called[ours])
    # what stands before a dot makes names long and says little of them
    alike = {name: 1.0 if name == word else _likeness(_last(word), name) for name in called}
    best = max(alike, key=alike.__getitem__)
    return called[best], alike[best] >= _ALIKE


def _plain(name: str) -> str:
    return name.replace("_", "-")


def _last(name: str) -> str:
    return _plain(name).rpartition(".")[2]


def _likeness(one: str, other: str) -> float:
    """0..1: by the letters, and by the words in any order."""
    mine, theirs = (re.split("[.-]", name) for name in (one, other))
    shared = [max(_ratio(word, each) for each in theirs) ** 3 for word in mine]
    shared += [max(_ratio(word, each) for each in mine) ** 3 for word in theirs]
    return (_ratio(one, other) + sum(shared) / len(shared)) / 2


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
