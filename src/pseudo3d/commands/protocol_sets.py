"""The labelled videos of a protocol as they lie on the disk: what is there, what is not, and what may be tested."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudo3d.commands.protocol_source import Source
    from pseudo3d.data.annotations import SampleList
    from pseudo3d.data.official import OfficialSet
    from pseudo3d.data.official.aslan import PairSet


@dataclass(frozen=True)
class Data:
    """The official data set.

    Args:
        data: folder of the videos, in the official layout.
        lists: folder of the official lists or annotations, if they are not in there.
    """

    data: Path
    lists: Path | None = None

    def asked(self) -> dict[str, Any]:
        """What of this decides the result, in JSON types."""
        return {"data": str(self.data.absolute()), "lists": None if self.lists is None else str(self.lists.absolute())}


def labelled_set(source: "Source", data: Path | None, groups: Path | None, split: str) -> "OfficialSet":
    """A person's own labelled videos: those of the split "test", else "val", else (no splits) all of them.

    Args:
        source: a store that knows its labels, where no data are named.
        data: a folder or list.
        groups: file of groups.
        split: has no name here.

    Raises:
        Pseudo3dError: neither data nor a store, or what ``read_samples`` raises.
    """
    from pseudo3d.data.annotations import read_samples
    from pseudo3d.data.official import OfficialSet
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.evaluation.honesty import left_out_footnote
    from pseudo3d.evaluation.own_labels import own_samples
    from pseudo3d.evaluation.representations import reasons_of_failure
    from pseudo3d.features.store import FeatureStore

    notes: tuple[str, ...] = ()
    if data is not None:
        samples = read_samples(data, groups=groups)
    elif source.features:
        store = FeatureStore(source.features[0])
        samples = own_samples(store, groups)
        notes = left_out_footnote([f"{video}: {why}" for video, why in reasons_of_failure(store).items()])
    else:
        raise Pseudo3dError("--data must be given with --weights: a folder of labelled videos or a list")
    sides = {sample.split for sample in samples.samples}
    judged = next((side for side in ("test", "val") if side in sides), None)
    if judged != "test":
        told = (replace(each, split="test" if each.split == judged else each.split) for each in samples.samples)
        samples = replace(samples, samples=tuple(told))
    title = f"{data if data is not None else source.features[0]}, {judged + ' split' if judged else 'all videos'}"
    return OfficialSet("hits", title, samples, notes=notes)


def check_weights(source: "Source", tested: "SampleList", number: int = 0) -> None:
    """Refuse weights of a run that was trained on videos to test on.

    Args:
        source: the weights, if it has any.
        tested: the videos.
        number: which of the weights.

    Raises:
        Pseudo3dError: it was; or none of the videos is there to extract.
    """
    from pseudo3d.errors import Pseudo3dError, first_few
    from pseudo3d.evaluation.honesty import check_not_trained_on
    from pseudo3d.video.segments import split_segment

    if not source.weights:
        return
    files = {sample.path: tested.root / split_segment(sample.path)[0] for sample in tested.samples}
    gone = [path for path, file in files.items() if not file.is_file()]
    if gone:
        raise Pseudo3dError(
            f"{tested.root}: {len(gone)} of {len(files)} videos are not there ({first_few(gone)}); --weights needs the "
            "videos, --features a store of them"
        )
    if Path(source.weights[number]).exists():
        check_not_trained_on(source.weights[number], tested.samples, root=tested.root)


def check_weights_differ(source: "Source") -> None:
    """Refuse one network for several splits under several names, before anything is extracted.

    Raises:
        Pseudo3dError: two of the weights are the same, or some are not there.
    """
    from pseudo3d.files import sha256_of

    if len(source.weights) < 2:
        return
    files = {weights: _weights_file(weights, source.model) for weights in source.weights}
    refuse_same_weights((name, sha256_of(file)) for name, file in files.items() if file is not None and file.is_file())


def _weights_file(weights: str, model: str) -> Path | None:
    """The file with the numbers that weights stand for; None for random ones."""
    from pseudo3d.weights.pretrained import WEIGHTS_NAME
    from pseudo3d.weights.sources import open_weights

    path = Path(weights)
    if path.exists():
        return path / WEIGHTS_NAME if path.is_dir() else path
    return None if weights == "random" else open_weights(weights, model=model).file


def refuse_same_weights(named: Iterable[tuple[str, str | None]]) -> None:
    """Refuse one network for several splits: it has seen test videos of the others.

    Args:
        named: what has weights, and which ones (their hash); None for what does not say.

    Raises:
        Pseudo3dError: it names the first two that are the same.
    """
    from pseudo3d.errors import Pseudo3dError

    seen: dict[str, str] = {}
    for name, weights in named:
        if weights is not None and weights in seen:
            raise Pseudo3dError(
                f"{seen[weights]} and {name} are of the same weights: a network that was trained on one split has seen "
                "test videos of the others; give each split its own, or fewer --splits"
            )
        if weights is not None:
            seen[weights] = name


def check_class_orders(named: Iterable[tuple[str, Sequence[str] | None]]) -> None:
    """Refuse networks of several splits that have the same classes in different orders.

    Args:
        named: what has classes, and which ones in order; none for what does not say.

    Raises:
        Pseudo3dError: it names the first two that differ, and the first class in which they do.
    """
    from pseudo3d.errors import Pseudo3dError, printable

    told = [(name, list(classes)) for name, classes in named if classes]
    for name, classes in told[1:]:
        first, others = told[0]
        if classes != others and set(classes) == set(others) and len(classes) == len(others):
            place = next(i for i, (a, b) in enumerate(zip(others, classes, strict=True)) if a != b)
            raise Pseudo3dError(
                f"{first} and {name} have the same classes in different orders (class {place} is "
                f"{printable(others[place])!r} and {printable(classes[place])!r}): one of them was trained on another "
                "class list; train the networks of all splits on the same one"
            )


def notes_of(
    official: "OfficialSet | PairSet",
    *,
    from_store: bool,
    allow_missing: bool,
    dead_links: bool = False,
    missing: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """What is to be said of a set as it lies on the disk.

    Args:
        official: the set.
        from_store: features are there in the place of videos.
        allow_missing: somebody has allowed that videos are missing.
        dead_links: they may be in any case, since nobody has them any more.
        missing: those of ``official.missing`` that would be used; None: all of them.

    Raises:
        Pseudo3dError: videos of the lists are not there, and nobody has allowed that.
    """
    from pseudo3d.errors import Pseudo3dError, first_few
    from pseudo3d.video.segments import split_segment

    counted = f"{len(official.missing):,} of "  # in all splits
    others = tuple(note for note in official.notes if not (official.missing and note.startswith(counted)))
    missing = official.missing if missing is None else missing
    lists_alone = {split_segment(sample.path)[0] for sample in official.samples.samples} & set(official.missing)
    # with the lists alone the features were made elsewhere; the store says which are lacking
    if not missing or (from_store and lists_alone):
        return others
    what = f"{len(missing):,} videos of the official lists are not there"
    if not (dead_links or allow_missing):
        hint = "; or give the lists alone as --data, since a store needs no videos" if from_store else ""
        raise Pseudo3dError(
            f"{what} ({first_few(missing)}); get them, or leave them out with --allow-missing, which is told{hint}"
        )
    return (f"{what} and are left out", *others)
