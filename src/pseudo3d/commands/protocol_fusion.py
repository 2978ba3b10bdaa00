"""Late fusion as a command: which score files belong together, and what the sum of them is worth."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from pseudo3d.commands.protocol_results import Finished, check_out, confusion_of

if TYPE_CHECKING:
    from pseudo3d.evaluation.classification import Measure
    from pseudo3d.evaluation.results import Result
    from pseudo3d.evaluation.scores import Scores

_SCORES = re.compile(r"scores(?:-(?P<split>\d))?\.parquet")


@dataclass(frozen=True, eq=False)
class _Scored:
    """One source: its score files by split, and the result that they belong to, if it is a run of ours."""

    name: str
    test: Mapping[str, Path]
    train: Mapping[str, Path]
    result: "Result | None"


def fuse_scores(sources: Sequence[str], out: Path, weights: Sequence[float], equal: bool, name: str | None) -> Finished:
    """Fuse the sources' scores, split by split.

    Args:
        sources: runs' folders or score files.
        out: folder of the result.
        weights: one for each source; none to find them on training scores, or else to take equal ones.
        equal: take equal ones in any case.
        name: of the row.

    Raises:
        Pseudo3dError: fewer than two sources, the same one twice, no scores, other splits, videos or classes in one
            than in another.
    """
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.evaluation.classification import measurements_of
    from pseudo3d.evaluation.results import Result

    if len(sources) < 2:
        raise Pseudo3dError("give at least two folders of p3d evaluate, or score files (.parquet, .csv)")
    if weights and (equal or len(weights) != len(sources)):
        raise Pseudo3dError(f"--weights takes one number for each of the {len(sources)} sources, and no --equal")
    asked = {
        "sources": [str(Path(source).absolute()) for source in sources],
        "weights": [float(weight) for weight in weights],
        "equal": equal,
    }
    check_out(out, "fusion", asked)
    scored = [_scored(Path(source)) for source in sources]
    splits = _common_splits(scored)
    measure, data = _measure_of(scored)
    by_split, found, footnotes = {}, {}, dict[str, None]()
    for split in splits:
        by_split[split], found[split], notes = _fuse_split(scored, split, weights, equal)
        footnotes |= dict.fromkeys(notes)
    footnotes |= dict.fromkeys(_weights_footnotes(scored, found, weights, equal))
    values = {split: measure(scores) for split, scores in by_split.items()}
    title = name or " + ".join(each.result.name if each.result is not None else each.name for each in scored)
    facts = {
        "asked": asked,
        "data": data,
        "classes": len(next(iter(by_split.values())).class_names),
        "weights": {split or "all": list(map(float, found[split])) for split in splits},
        "tested videos": {split or "all": len(scores.videos) for split, scores in by_split.items()},
        "fused": [
            {"source": each.name, "protocol": each.result.protocol, "name": each.result.name}
            if each.result is not None
            else {"source": each.name}
            for each in scored
        ],
        **_place_of_videos(scored),
    }
    scores = {f"-{split}" if len(splits) > 1 else "": each for split, each in by_split.items()}
    result = Result("fusion", title, measurements_of(values), facts, (*footnotes, *_footnotes_of(scored)))
    return Finished(out, result, scores, confusion_of(scores, title))


def _scored(place: Path) -> _Scored:
    """The score files of a source.

    Raises:
        Pseudo3dError: nothing is there, or a folder without a result or scores.
    """
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.evaluation.results import read_result

    if not place.exists():
        raise Pseudo3dError(f"{place} does not exist: give a folder of p3d evaluate, or a score file (.parquet, .csv)")
    if not place.is_dir():
        return _Scored(str(place), {"": place}, {}, None)
    result = read_result(place)
    found = {match["split"] or "": path for path in place.iterdir() if (match := _SCORES.fullmatch(path.name))}
    if not found:
        raise Pseudo3dError(f"{place}: has a result of {result.protocol}, but no scores to fuse")
    train = {split: path.with_name(f"{path.stem}-train.parquet") for split, path in found.items()}
    train = {split: path for split, path in train.items() if path.exists()}
    measured = {each.split for each in result.measurements}
    if set(found) == {""} and len(measured) == 1:  # one split alone has no number in its file's name
        (split,) = measured
        found, train = {split: found[""]}, ({split: train[""]} if train else {})
    return _Scored(str(place), found, train, result)


def _common_splits(scored: Sequence[_Scored]) -> list[str]:
    """The splits, which all sources must have; a score file from elsewhere is of the one that there is.

    Raises:
        Pseudo3dError: the sources have other splits, or a single file stands beside several.
    """
    from pseudo3d.errors import Pseudo3dError

    runs = [each for each in scored if each.result is not None]
    if not runs:
        return [""]
    for each in runs[1:]:
        if set(each.test) != set(runs[0].test):
            told = " and ".join(f"{run.name} has {', '.join(sorted(run.test)) or 'one'}" for run in (runs[0], each))
            raise Pseudo3dError(
                f"the sources are of different splits: {told}; evaluate all of them on the same --splits"
            )
    splits = sorted(runs[0].test)
    if len(runs) < len(scored) and len(splits) > 1:
        raise Pseudo3dError(
            f"{runs[0].name} has {len(splits)} splits, a score file is of one: give the files of one split "
            f"({runs[0].name}/scores-{splits[0]}.parquet)"
        )
    return splits


def _measure_of(scored: Sequence[_Scored]) -> "tuple[Measure, str | None]":
    """What is counted, by the data that the runs are of.

    Raises:
        Pseudo3dError: runs of different data.
    """
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.evaluation.classification import accuracy, activitynet_values, video_hits

    of = {each.name: each.result.data for each in scored if each.result is not None}
    if len(set(of.values())) > 1:
        raise Pseudo3dError(f"the sources are of different data: {', '.join(f'{a} of {b}' for a, b in of.items())}")
    data = next(iter(of.values()), None)
    if data == "activitynet":
        return activitynet_values, data
    return (video_hits if data in ("sports1m", "kinetics", "hits") else accuracy), data


def _fuse_split(
    scored: Sequence[_Scored], split: str, weights: Sequence[float], equal: bool
) -> tuple["Scores", Sequence[float], tuple[str, ...]]:
    import numpy as np

    from pseudo3d.errors import Pseudo3dError, first_few
    from pseudo3d.evaluation.fusion import equal_weights, find_weights, fuse, fusion_footnotes, scale_footnotes
    from pseudo3d.evaluation.scores import read_scores

    test = [read_scores(each.test.get(split, each.test.get("", Path()))) for each in scored]
    train = [read_scores(each.train[split]) for each in scored if split in each.train]
    train = train if len(train) == len(scored) else []
    _check_differ([each.name for each in scored], test)
    if weights:
        shares: Sequence[float] = weights
        told = f"weights were given: {', '.join(f'{weight:g}' for weight in weights)}"
        notes: tuple[str, ...] = (told, *scale_footnotes(test, train))
    elif equal:
        shares, notes = list(equal_weights(len(test))), scale_footnotes(test, train)
    else:
        shares = list(find_weights(train) if train else equal_weights(len(test)))
        notes = fusion_footnotes(test, train)
    fused = fuse(test, shares, train=train)
    unknown = [fused.videos[i] for i in np.flatnonzero(fused.truth.sum(axis=1) == 0)]
    if unknown:
        raise Pseudo3dError(
            f"{len(unknown)} videos have no label in any source ({first_few(unknown)}); add a column label to a .csv"
        )
    return fused, shares, notes


def _check_differ(names: Sequence[str], scores: "Sequence[Scores]") -> None:
    """Refuse a source that is there twice, under whatever names: it would count twice in silence.

    Raises:
        Pseudo3dError: it names both.
    """
    import numpy as np

    from pseudo3d.errors import Pseudo3dError

    def content(each: "Scores") -> tuple[list[str], list[str], np.ndarray]:
        videos, classes = np.argsort(each.videos), np.argsort(each.class_names)
        values = each.values[np.ix_(videos, classes)]
        return sorted(each.videos), sorted(each.class_names), values

    told = list(zip(names, map(content, scores), strict=True))
    for (one, first), (other, second) in combinations(told, 2):
        if first[:2] == second[:2] and np.array_equal(first[2], second[2]):
            raise Pseudo3dError(
                f"{one} and {other} have the same scores: name each source once (--weights gives one more weight)"
            )


def _weights_footnotes(
    scored: Sequence[_Scored], found: Mapping[str, Sequence[float]], weights: Sequence[float], equal: bool
) -> list[str]:
    """The weights that training scores gave, by split where they differ."""
    if weights or equal:
        return []
    told = {
        split: "weights found on the training videos' scores: " + ", ".join(f"{share:.3g}" for share in found[split])
        for split in found
        if all(split in each.train for each in scored)
    }
    if len(set(told.values())) == 1 and len(told) == len(found):
        return [next(iter(told.values()))]
    return [f"split {split}: {text}" for split, text in told.items()]


def _footnotes_of(scored: Sequence[_Scored]) -> list[str]:
    """The runs' own footnotes; what is said of some of them only, with their names."""
    runs = [each for each in scored if each.result is not None]
    told = dict.fromkeys(note for each in runs for note in (each.result.footnotes if each.result else ()))
    out = []
    for note in told:
        of = [each.name for each in runs if each.result is not None and note in each.result.footnotes]
        out.append(note if len(of) == len(scored) else f"{', '.join(of)}: {note}")
    return out


def _place_of_videos(scored: Sequence[_Scored]) -> dict[str, object]:
    """Stores, in the order of which splits, and root of the first run that has them, for reports."""
    for each in scored:
        if each.result is not None and each.result.facts.get("root"):
            facts = each.result.facts
            told = {"splits": facts.get("asked", {}).get("splits"), **facts}
            return {key: told[key] for key in ("store", "stores", "splits", "root") if told.get(key)}
    return {}
