"""Scene recognition as a command: every video is left out once (YUPENN, Dynamic Scene; paper section 5, Table 6)."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from pseudo3d.commands.protocol_classify import Constant, check_constant, facts_of
from pseudo3d.commands.protocol_results import Finished, check_out, confusion_of
from pseudo3d.commands.protocol_sets import Data, check_weights, notes_of
from pseudo3d.commands.protocol_source import Source, Wanted, departures, open_store

if TYPE_CHECKING:
    from pseudo3d.data.official import OfficialSet
    from pseudo3d.evaluation.representations import Representations
    from pseudo3d.evaluation.scores import Scores
    from pseudo3d.features.store import FeatureStore

Variant = Literal["plain", "authors"]
_SHORT_EDGE = 160  # the authors' answer on Dynamic Scene
_AUTHORS = Wanted(("pool5",), resize=_SHORT_EDGE, mirror=True)


def leave_one_out(
    name: Literal["yupenn", "dynamic-scene"],
    read: "Callable[[str], OfficialSet]",
    data: Data,
    source: Source,
    c: Constant,
    variant: Variant,
) -> Finished:
    """Classify each video by an SVM that was trained on all others.

    Args:
        name: of the set.
        read: the set.
        data: where it is.
        source: where the features come from.
        c: the SVM's constant.
        variant: "plain": L2-normalised pool5; "authors": of frames of short edge 160, averaged with the mirror image,
            signed square root, then L2.

    Raises:
        Pseudo3dError: options, lists, videos or features that cannot be used.
    """
    from pseudo3d.evaluation.classification import accuracy, measurements_of
    from pseudo3d.evaluation.honesty import check_copies, check_not_trained_on, left_out_footnote
    from pseudo3d.evaluation.representations import read_representations
    from pseudo3d.evaluation.results import Result
    from pseudo3d.evaluation.svm_solver import chosen_footnote, given_footnote

    source.check()
    check_constant(c)
    asked = {**data.asked(), **source.asked(), "c": c, "variant": variant}
    check_out(source.out, name, asked)
    official = read("")
    names = official.samples.class_names
    notes = notes_of(official, from_store=bool(source.features), allow_missing=source.allow_missing)
    check_weights(source, official.samples)
    wanted = _AUTHORS if variant == "authors" else Wanted(("pool5",))
    store = open_store(source, official.samples, wanted)
    notes += (*_told_of(store, variant), *departures(store, wanted))
    found = read_representations(store, official.samples, ("pool5",), allow_missing=source.allow_missing)
    notes += check_not_trained_on(store.info, found.samples, root=official.samples.root, sources=found.sources)
    notes += check_copies(found.samples, found.sources)
    said, chosen = _scored(found, names, variant, c)
    scores = {"": said}
    notes += (*given_footnote(c), *chosen_footnote(chosen, "videos"))
    facts = {
        "asked": asked,
        "classifier": "linear SVM, one video left out at a time",
        "layer": "pool5",
        "svm C": c,
        **({"svm C chosen": chosen} if chosen else {}),
        "variant": variant,
        "classes": len(names),
        "tested videos": {"all": len(found.samples)},
        "sets": [official.title],
        **facts_of([store]),
    }
    row, notes = source.called(store), (*notes, *left_out_footnote(found.left_out))
    result = Result(name, row, measurements_of({"": accuracy(said)}), facts, tuple(dict.fromkeys(notes)))
    return Finished(source.out, result, scores, confusion_of(scores, row))


def _scored(
    found: "Representations", names: tuple[str, ...], variant: Variant, c: Constant
) -> "tuple[Scores, list[float]]":
    """The scores of every video; and, where cross-validation chose the constant, that of each one's SVM."""
    from pseudo3d.evaluation.classification import truth_of
    from pseudo3d.evaluation.scenes import evaluate_scenes
    from pseudo3d.evaluation.scores import Scores

    truth, constants = truth_of(found.samples, names), list[float]()
    _check_classes(names, truth.sum(axis=0))
    values = evaluate_scenes(
        found.features["pool5"], truth.argmax(axis=1), plain=variant == "plain", c=c, on_constant=constants.append
    )
    scores = Scores(tuple(each.path for each in found.samples), names, truth, values, "decision")
    return scores, constants if c == "cv" else []


def _check_classes(names: Sequence[str], counts: Iterable[int]) -> None:
    """Raise for a class that has no other video to train on when one is left out."""
    from pseudo3d.errors import Pseudo3dError, first_few, printable

    few = [f"{printable(name)}: {count}" for name, count in zip(names, counts, strict=True) if count < 2]
    if few:
        raise Pseudo3dError(
            f"{len(few)} classes have fewer than two videos with features ({first_few(few)}): when one is left out, "
            "another must be there to train on"
        )


def _told_of(store: "FeatureStore", variant: Variant) -> tuple[str, ...]:
    """Which variant it is, and what of the authors' way a store that is there was not made in."""
    if variant == "plain":
        return ("variant plain: L2-normalised features, without the authors' signed square root",)
    notes = ["variant authors: signed square root of the features, then L2"]
    if not store.info.get("mirror"):
        notes.append("features of the mirror image are not averaged in, as the authors did (p3d extract --mirror)")
    resize = store.info.get("preprocessing", {}).get("resize")
    if resize != _SHORT_EDGE:
        notes.append(
            f"frames were resized to {resize}, the authors' have a short edge of 160 (p3d extract --resize 160)"
        )
    return tuple(notes)
