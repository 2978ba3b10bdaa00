"""ASLAN (Kliper-Gross et al., TPAMI 2012): pairs of videos, of the same action or not, in MATLAB files.

View-2, on which results are reported, is ``View2.mat``: ``action_splits_pairs``, 600 x 5 x 10, ten folds of 600 pairs.
View-1, to develop on, is ``train_pairs.mat`` (1200 x 5) and ``test_pairs.mat`` (600 x 5). The five columns are the ids
of both videos, whether they are the same (1 or 0), and the actions of both. Ids begin with 1 and are the videos' file
names: ``0001.avi`` to ``3697.avi``, also without the zeros and with another extension. (All this is in the readme of
the data set; how the matrices of View-1 are called is not, so each is the only one of five columns in its file.)
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.official.dataset import VideoFiles, disk_notes, find_lists
from pseudo3d.data.official.matlab import is_version_5, parse_matrices
from pseudo3d.errors import Pseudo3dError, first_few

_VIEW1 = ("train_pairs.mat", "test_pairs.mat")
_VIEW2, _MATRIX = "View2.mat", "action_splits_pairs"
_OFFICIAL = {1: (1200, 600), 2: (600,) * 10}  # pairs of each fold


@dataclass(frozen=True, eq=False)
class PairSet:
    """Videos in pairs.

    Args:
        samples: the videos, without labels, in the order of their ids. Those that are not on the disk are left out,
            with their pairs; if none is there at all, all are here under the names ``0001.avi``, so that the pairs
            alone serve features that were made elsewhere.
        first: (pairs,) place of one video in ``samples``.
        second: (pairs,) place of the other.
        same: (pairs,) whether both show the same action.
        fold: (pairs,) View-2: 0 to 9; View-1: 0 for training, 1 for testing.
        number: (pairs,) place in the official list of its fold, from 1, whatever other pairs are left out.
        missing: names of videos that pairs have and the disk has not.
        notes: what was recognised and what is odd, one line each.
        mislabelled: pairs that are marked otherwise than their actions say, each with what is wrong with it.
    """

    samples: SampleList
    first: Int64[np.ndarray, "pairs"]
    second: Int64[np.ndarray, "pairs"]
    same: Bool[np.ndarray, "pairs"]
    fold: Int64[np.ndarray, "pairs"]
    number: Int64[np.ndarray, "pairs"]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    mislabelled: tuple[tuple[str, str], ...] = ()


def parse_pairs(matrix: np.ndarray, *, source: str = "the matrix") -> list[Int64[np.ndarray, "pairs 5"]]:
    """The pairs of each fold: id1, id2, same, action1, action2.

    Args:
        matrix: (pairs, 5) for one fold, or (pairs, 5, folds).
        source: the file's name, for errors.

    Raises:
        Pseudo3dError: another shape, numbers that are not whole, ids below 1, or a mark other than 0 and 1.

    Example:
        >>> parse_pairs(np.array([[1.0, 2.0, 1.0, 9.0, 9.0]]))[0].tolist()
        [[1, 2, 1, 9, 9]]
    """
    numeric = isinstance(matrix, np.ndarray) and matrix.dtype.kind in "iufb"
    if not numeric or matrix.ndim not in (2, 3) or matrix.shape[1] != 5 or 0 in matrix.shape:
        shape = " x ".join(map(str, matrix.shape)) if numeric else "no numbers"
        raise Pseudo3dError(f"{source}: its matrix must be pairs x 5 x folds, 600 x 5 x 10 in ASLAN; it is {shape}")
    if not (np.abs(matrix) < 1e9).all() or not np.array_equal(matrix, np.round(matrix)):  # NaN is below nothing
        raise Pseudo3dError(f"{source}: ids and actions must be whole numbers; the file is damaged, or not ASLAN's")
    folds: list[Int64[np.ndarray, "pairs 5"]] = list(np.moveaxis(np.atleast_3d(matrix).astype(np.int64), 2, 0))
    for number, fold in enumerate(folds, start=1):
        where = f"{source}, fold {number}" if len(folds) > 1 else source
        wrong = np.flatnonzero(fold[:, :2].min(axis=1) < 1)
        if len(wrong):
            raise Pseudo3dError(
                f"{where}, pair {wrong[0] + 1}: has the id {fold[wrong[0], :2].min()}; ids of videos begin with 1"
            )
        wrong = np.flatnonzero((fold[:, 2] != 0) & (fold[:, 2] != 1))
        if len(wrong):
            raise Pseudo3dError(
                f"{where}, pair {wrong[0] + 1}: is marked {fold[wrong[0], 2]}; it must be 1 (same) or 0 (not)"
            )
    return folds


def read_aslan(folder: str | Path, lists: str | Path | None = None, view: Literal[1, 2] = 2) -> PairSet:
    """The videos and pairs of one view of ASLAN.

    Args:
        folder: holds the videos, however deep, and the .mat files if ``lists`` is None.
        lists: holds the .mat files, in itself or in a folder below.
        view: 2 to report, 1 to develop on.

    Returns:
        The pairs of which both videos are on the disk. Notes tell other counts than the official ones, folds whose
        halves are not equal, folds that share actions (View-2's official ones share none), videos paired with
        themselves, and pairs whose mark is not what their actions say (the mark counts).

    Raises:
        Pseudo3dError: no .mat files, malformed ones, a pair in two folds, a fold without a pair, or another view.
    """
    if view not in (1, 2):
        raise Pseudo3dError(f"ASLAN has View-1 (to develop) and View-2 (to report), no view {view}")
    names = (_VIEW2,) if view == 2 else _VIEW1
    place = find_lists(folder if lists is None else lists, names, f"the pairs of ASLAN's View-{view}")
    folds = [fold for name in names for fold in parse_pairs(_matrix(place / name), source=name)]
    if view == 1 and len(folds) != 2:
        raise Pseudo3dError(f"{place}: train_pairs.mat and test_pairs.mat must hold one list of pairs each")
    _check_apart(folds, place)
    pairs = np.concatenate(folds)
    fold = np.repeat(np.arange(len(folds)), [len(one) for one in folds])
    number = np.concatenate([np.arange(1, len(one) + 1) for one in folds])
    ids = np.unique(pairs[:, :2]).tolist()
    files = VideoFiles(folder)
    found = {each: _file_of(files, each) for each in ids}
    missing = tuple(f"{each:04}.avi" for each, path in found.items() if path is None)
    if len(missing) == len(ids):
        found = {each: f"{each:04}.avi" for each in ids}
    paths = {each: path for each, path in found.items() if path is not None}
    kept = np.isin(pairs[:, 0], list(paths)) & np.isin(pairs[:, 1], list(paths))
    for i in range(len(folds)):
        if not kept[fold == i].any():
            raise Pseudo3dError(
                f"fold {i + 1} of {len(folds)} has no pair of which both videos are below {files.folder} (without "
                f"{first_few(missing)}); bring the videos there"
            )
    mislabelled = tuple(_mislabelled(folds))
    notes = [*_count_notes(folds, len(mislabelled), view), *disk_notes(files, missing, len(ids))]
    if not kept.all():
        notes.append(f"{(~kept).sum():,} of {len(kept):,} pairs lack a video and are left out")
    place_of = {each: i for i, each in enumerate(paths)}
    first, second = (np.array([place_of[each] for each in pairs[kept, side].tolist()], np.int64) for side in (0, 1))
    samples = SampleList(files.folder, tuple(Sample(path) for path in paths.values()))
    same = pairs[kept, 2] == 1
    return PairSet(samples, first, second, same, fold[kept], number[kept], missing, tuple(notes), mislabelled)


def _matrix(path: Path) -> np.ndarray:
    """``action_splits_pairs``, or else the only matrix of five columns in a MATLAB file."""
    content = _variables(path)
    matrix = content.get(_MATRIX)
    if matrix is not None:
        return matrix
    fitting = [each for each in content.values() if each is not None and each.ndim >= 2 and each.shape[1] == 5]
    if len(fitting) != 1 or path.name == _VIEW2:
        wanted = f"the variable {_MATRIX}" if path.name == _VIEW2 else "one matrix of five columns"
        raise Pseudo3dError(f"{path} must have {wanted}, of numbers; it has {first_few(content) or 'nothing'}")
    return fitting[0]


def _variables(path: Path) -> dict[str, np.ndarray | None]:
    """What is in a MATLAB file; None for what is no matrix of numbers."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Pseudo3dError(f"cannot read {path}: {error.strerror}") from error
    if data[124:128] in (b"\x00\x02IM", b"\x02\x00MI"):
        raise Pseudo3dError(f"{path} is of MATLAB 7.3: save it with -v7, as the official one is")
    try:
        return parse_matrices(data) if is_version_5(data) else _of_version_4(data)
    except ValueError as error:
        raise Pseudo3dError(f"{path} is no MATLAB file, or it is cut off or damaged; download it again") from error


def _of_version_4(data: bytes) -> dict[str, np.ndarray | None]:
    """What is in a file of before 1996, or what has another form; that is a ValueError."""
    from scipy.io import loadmat  # takes as long to import as all the rest

    if not data or 0 not in data[:4]:  # by which SciPy tells version 4; it must not come to its reader of version 5
        raise ValueError("no MATLAB file")
    try:
        content = loadmat(io.BytesIO(data))
    except Exception as error:  # what damage comes to there is many things
        raise ValueError("damaged") from error
    numeric = {name: each for name, each in content.items() if not name.startswith("__")}
    return {
        name: each if isinstance(each, np.ndarray) and each.dtype.kind in "iufb" else None
        for name, each in numeric.items()
    }


def _file_of(files: VideoFiles, number: int) -> str | None:
    return files.find(f"{number:04}.avi") or files.find(f"{number}.avi")


def _check_apart(folds: Sequence[np.ndarray], place: Path) -> None:
    """Refuse a pair, in either order, that is in two folds: what is tested would be trained on.

    Raises:
        Pseudo3dError: it names the first few.
    """
    seen: dict[tuple[int, int], int] = {}
    twice: dict[tuple[int, int], str] = {}
    for number, fold in enumerate(folds, start=1):
        for one, other in np.sort(fold[:, :2], axis=1).tolist():
            before = seen.setdefault((one, other), number)
            if before != number:
                twice.setdefault((one, other), f"{one:04} and {other:04} in folds {before} and {number}")
    if twice:
        raise Pseudo3dError(
            f"{place}: {len(twice)} pairs are in several folds ({first_few(twice.values())}), so that test pairs would "
            "be trained on; bring the official lists"
        )


def _mislabelled(folds: Sequence[np.ndarray]) -> Iterator[tuple[str, str]]:
    """The pairs that are marked otherwise than their actions say, and how."""
    for number, fold in enumerate(folds, start=1):
        for pair, (one, other, mark, *actions) in enumerate(fold.tolist(), start=1):
            if (actions[0] == actions[1]) != (mark == 1):
                said = "the same" if mark else "not the same"
                yield (
                    f"fold {number}, pair {pair}: {one:04} {other:04}",
                    f"marked as {said}, its actions are {actions[0]} and {actions[1]}",
                )


def _action_notes(folds: Sequence[np.ndarray], view: Literal[1, 2]) -> list[str]:
    """Folds of View-2 with an action of another fold, and videos paired with themselves."""
    notes = []
    actions = [set(fold[:, 3:].ravel().tolist()) for fold in folds]
    others = [set().union(*actions[:i], *actions[i + 1 :]) for i in range(len(actions))]
    shared = sum(bool(own & other) for own, other in zip(actions, others, strict=True))
    if view == 2 and shared:
        notes.append(f"{shared} of {len(folds)} folds share actions with other folds; ASLAN's share none")
    pairs = np.concatenate(folds)
    alone = pairs[:, 0] == pairs[:, 1]
    if alone.any():
        not_same = int((alone & (pairs[:, 2] == 0)).sum())
        marked = f", {not_same} of them marked as not the same" if not_same else ""
        notes.append(f"{alone.sum()} pairs are of a video and itself{marked}")
    return notes


def _count_notes(folds: list[np.ndarray], mislabelled: int, view: Literal[1, 2]) -> list[str]:
    notes = []
    counts = tuple(len(fold) for fold in folds)
    if counts != _OFFICIAL[view]:
        official = "1,200 to train and 600 to test" if view == 1 else "10 folds of 600"
        found = f"{counts[0]:,}" if len(set(counts)) == 1 else first_few(counts, 10)
        notes.append(f"an excerpt: {len(folds)} folds of {found} pairs; ASLAN has {official}")
    uneven = [f"fold {n} has {int(fold[:, 2].sum())} of {len(fold)}" for n, fold in enumerate(folds, start=1)
              if 2 * fold[:, 2].sum() != len(fold)]  # fmt: skip
    if uneven:
        notes.append(f"not half of the pairs are the same: {first_few(uneven)}")
    if mislabelled:
        notes.append(f"{mislabelled} pairs are marked otherwise than their actions say; the mark counts")
    return notes + _action_notes(folds, view)
