"""What commands that look into a network share: which classes are meant, and the network in the right precision."""

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from pseudo3d.models import VideoModel

_LONGEST = 60  # characters of a class's name in a file's; file systems take 255 bytes, and a character may be four


def open_to_explain(model: str, weights: str, class_names: "Path | None", device: str) -> "VideoModel":
    """The network on its device, in float32 and evaluation mode; gradients go to its input alone.

    Raises:
        Pseudo3dError: weights that cannot be used, or that come without a head.
    """
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.features.networks import open_network
    from pseudo3d.inference import choose_device

    ready = open_network(model, weights, class_names)
    if not ready.has_head:
        raise Pseudo3dError(f"{weights}: has no classes of its own; fine-tune it first (p3d train --weights)")
    return ready.network.to(choose_device(device)).eval().requires_grad_(False)


def class_number(model: "VideoModel", word: str) -> int:
    """The class that a word means: its name, or its number from 0.

    Raises:
        Pseudo3dError: there is none; the nearest names are told.
    """
    from pseudo3d.errors import Pseudo3dError

    names = model.class_names or ()
    if word in names:
        return names.index(word)
    count = model.architecture.num_classes
    if word.isdecimal() and int(word) < count:
        return int(word)
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.3)
    known = f"did you mean {', '.join(map(repr, near))}?" if near else f"classes are numbered 0 to {count - 1}"
    raise Pseudo3dError(f"no class {word!r}; {known}")


def class_title(model: "VideoModel", number: int) -> str:
    """The name of a class, or "class_7" where the weights carry none."""
    return model.class_names[number] if model.class_names else f"class_{number}"


def file_stem(title: str) -> str:
    """A name as part of a file's: letters, digits, - and _ alone, and no more of them than file systems take."""
    plain = "".join(character if character.isalnum() or character in "-_" else "_" for character in title)
    return plain[:_LONGEST] or "_"


def file_stems(titles: Sequence[str], first: int = 0) -> list[str]:
    """A file name for each title; where two would be the same (on any disk), with its number.

    Args:
        titles: in their order.
        first: number of the first.

    Example:
        >>> file_stems(["a b", "a/b", "c"])
        ['a_b_0', 'a_b_1', 'c']
    """
    plain = [file_stem(title) for title in titles]
    count = Counter(stem.casefold() for stem in plain)  # some disks take Tai and tai for one name
    taken = {stem for stem, times in count.items() if times == 1}
    stems = []
    for number, stem in enumerate(plain, start=first):
        unique = stem if count[stem.casefold()] == 1 else f"{stem}_{number}"
        while count[stem.casefold()] > 1 and unique.casefold() in taken:
            unique += "_"
        taken.add(unique.casefold())
        stems.append(unique)
    return stems


def class_stem(model: "VideoModel", number: int) -> str:
    """What the files of a class are called: always the same, and never as those of another class of the network."""
    return file_stems(model.class_names)[number] if model.class_names else class_title(model, number)


def check_not_taken(out: "Path", names: Sequence[str]) -> None:
    """Refuse names in ``out`` that files of somebody else have, before any work is done.

    Args:
        out: the folder.
        names: of the pictures to come, such as "boxing.gif".

    Raises:
        Pseudo3dError: a file, or the first of these names.
    """
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.visualize.animation import is_ours

    if out.exists() and not out.is_dir():
        raise Pseudo3dError(f"{out}: is a file; give a folder for --out")
    taken = [name for name in names if (out / name).exists() and not is_ours(out / name)]
    if taken:
        raise Pseudo3dError(f"--out {out}: {taken[0]} is there and not of p3d visualize; choose another folder")
