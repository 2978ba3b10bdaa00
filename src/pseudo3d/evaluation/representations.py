"""The features of a list of videos out of a store, whatever folder the store's paths start from."""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.errors import Pseudo3dError, first_few, printable
from pseudo3d.features.mapped import mapped_nameless
from pseudo3d.features.store import MAPPED_FROM, FeatureStore, SourceFile

_NETWORK = ("architecture", "weights", "preprocessing", "sampler", "seed", "clips", "mirror", "class_names")


@dataclass(frozen=True, eq=False)
class Representations:
    """Features of videos, in the order of a list.

    Args:
        samples: the videos of the list that have features.
        features: by layer, float32 (videos, dim), finite; a layer with a shape is flat. Above 1 GiB it is mapped from a
            file.
        left_out: "path: reason" of each video of the list without features.
        videos: what the store calls each of ``samples``.
        sources: the file that each was made of, as far as the store knows it.
    """

    samples: tuple[Sample, ...]
    features: dict[str, Float32[np.ndarray, "videos dim"]]
    left_out: tuple[str, ...]
    videos: tuple[str, ...] = ()
    sources: tuple[SourceFile, ...] = ()


def read_representations(
    store: FeatureStore, samples: SampleList, layers: Sequence[str], *, allow_missing: bool = False
) -> Representations:
    """The features of the videos of a list.

    A store may have been made from another folder than the list starts from: ``match_paths`` says how paths are found.

    Args:
        store: has them.
        samples: the videos, each once.
        layers: names out of ``store.layers``.
        allow_missing: leave out videos without features, and say which.

    Raises:
        Pseudo3dError: no such layer; a video twice in the list; none of the videos is in the store, or their paths fit
            several of its videos; features that are not finite; or, without ``allow_missing``, videos without features.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from pseudo3d.features.store import StoreWriter, VideoFeatures
        >>> samples = SampleList(Path("UCF-101"), (Sample("b.avi", "y"), Sample("a.avi", "x")))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with StoreWriter(folder, {"root": "/data"}) as writer:
        ...         for number, name in enumerate("ab"):
        ...             row = {"pool5": np.full(2, number, np.float32)}
        ...             writer.add(VideoFeatures(f"UCF-101/{name}.avi", row, (0,), 16))
        ...     found = read_representations(FeatureStore(folder), samples, ["pool5"])
        >>> found.features["pool5"].tolist(), found.videos
        ([[1.0, 1.0], [0.0, 0.0]], ('UCF-101/b.avi', 'UCF-101/a.avi'))
    """
    for layer in layers:
        store.check_layer(layer)
    paths = [sample.path for sample in samples.samples]
    _check_paths(paths)
    place = {video: number for number, video in enumerate(store.videos)}
    failures = reasons_of_failure(store)
    fits, doubtful = match_paths(paths, [*place, *failures])
    _check_any(store, paths, fits, doubtful)
    there = [sample for sample in samples.samples if fits.get(sample.path) in place]
    left_out = _left_out(paths, fits, place, failures)
    if left_out and (not allow_missing or not there):
        raise Pseudo3dError(
            f"{store.location}: {len(left_out)} of {len(paths)} videos have no features ({first_few(left_out, 2)}); "
            + ("extract them" if not there else "extract them, or leave them out with --allow-missing, which is told")
        )
    videos = tuple(fits[sample.path] for sample in there)
    row_of = {video: number for number, video in enumerate(videos)}
    features = {layer: _rows(store, layer, row_of) for layer in layers}
    sources = store.sources
    return Representations(tuple(there), features, left_out, videos, tuple(sources[place[video]] for video in videos))


def _check_paths(paths: Sequence[str]) -> None:
    if not paths:
        raise Pseudo3dError("the list names no videos whose features could be read")
    if len(set(paths)) < len(paths):
        twice = next(path for path, count in Counter(paths).items() if count > 1)
        raise Pseudo3dError(f"the list names {printable(twice)} twice: keep one")


def match_paths(paths: Sequence[str], known: Collection[str]) -> tuple[dict[str, str], str | None]:
    """Which known path each path is, where the two may start from different folders.

    Where any path is a known one, those that are not have none. Else the beginnings differ, by the same folders for
    all: every path whose longest known ending belongs to one known path says which beginning stands there for its own,
    and what most of them say holds for all. So ``a/1.avi``, which is not known, is not taken for ``b/1.avi``, which is.

    Args:
        paths: POSIX paths, each once.
        known: POSIX paths, each once.

    Returns:
        The known path of each path that has one; and, when there is none because nothing decides between several, a
        path that fits several, else None.

    Example:
        >>> match_paths(["a/1.avi", "b/1.avi", "c/1.avi"], ["UCF-101/a/1.avi", "UCF-101/b/1.avi"])
        ({'a/1.avi': 'UCF-101/a/1.avi', 'b/1.avi': 'UCF-101/b/1.avi'}, None)
        >>> match_paths(["1.avi"], ["a/1.avi", "b/1.avi"])
        ({}, '1.avi')
    """
    names = set(known)
    if same := {path: path for path in paths if path in names}:
        return same, None
    holder: dict[str, str | None] = {}  # of an ending: the one known path that has it, None for several
    for name in names:
        for ending in _endings(name):
            holder[ending] = None if ending in holder else name
    votes = Counter[tuple[str, str]]()
    doubtful = None
    for path in paths:
        shared = next((ending for ending in _endings(path) if ending in holder), None)
        if shared is None:
            continue
        fitting = holder[shared]
        if fitting is None:
            doubtful = doubtful or path
            continue
        old, new = path.removesuffix(shared), fitting.removesuffix(shared)
        if "/" in shared or not (old and new):  # another folder and the same file name is another video
            votes[old, new] += 1
    if not votes:
        return {}, doubtful
    (old, new), most = votes.most_common(1)[0]
    if 2 * most <= votes.total():
        return {}, doubtful or next(path for path in paths if path.startswith(old))
    exchanged = {path: new + path.removeprefix(old) for path in paths if path.startswith(old)}
    return {path: name for path, name in exchanged.items() if name in names}, None


def _endings(path: str) -> Iterator[str]:
    """The path, then what is left of it without its first folder, the first two, and so on."""
    yield path
    for place, letter in enumerate(path):
        if letter == "/":
            yield path[place + 1 :]


def _check_any(store: FeatureStore, paths: Sequence[str], fits: Mapping[str, str], doubtful: str | None) -> None:
    if fits:
        return
    root = f" ({printable(store.info['root'])})" if store.info.get("root") else ""
    if doubtful is not None:
        raise Pseudo3dError(
            f"{store.location}: {printable(doubtful)} fits several of its videos, and nothing says which; give the "
            f"folder that the store was made from{root}"
        )
    known = [*store.videos, *store.failures]
    if not known:
        raise Pseudo3dError(f"{store.location}: holds no videos yet; run `p3d extract` first")
    raise Pseudo3dError(
        f"{store.location}: has none of the {len(paths)} videos; the first is called {printable(paths[0])}, the "
        f"store's {printable(known[0])}: it was made from other videos{root}"
    )


def _left_out(
    paths: Sequence[str],
    fits: Mapping[str, str],
    place: Mapping[str, int],
    failures: Mapping[str, str],
) -> tuple[str, ...]:
    """Each video without features, as "path: reason"."""
    told = []
    for path in paths:
        video = fits.get(path)
        if video in place:
            continue
        reason = failures.get(video, "not in the store") if video is not None else "not in the store"
        told.append(f"{path}: {reason}")
    return tuple(told)


def reasons_of_failure(store: FeatureStore) -> dict[str, str]:
    """Why videos of a store have no features, without the path of the file that an extraction's reason begins with."""
    root = store.info.get("root", "")
    return {video: reason.removeprefix(f"{root}/{video}: ") for video, reason in store.failures.items()}


def _rows(store: FeatureStore, layer: str, row_of: Mapping[str, int]) -> Float32[np.ndarray, "videos dim"]:
    """The features of some videos, each at its row."""
    bad: list[str] = []

    def pieces() -> Iterator[tuple[list[int], Float32[np.ndarray, "n dim"]]]:
        for videos, values in store.batches(layer):
            wanted = [number for number, video in enumerate(videos) if video in row_of]
            if wanted:
                part = values[wanted]
                finite = np.isfinite(part).all(axis=1)
                bad.extend(videos[number] for number, good in zip(wanted, finite, strict=True) if not good)
                yield [row_of[videos[number]] for number in wanted], part

    shape = (len(row_of), math.prod(store.shape(layer)))
    if 4 * math.prod(shape) > MAPPED_FROM:
        found = mapped_nameless(shape, pieces())
    else:
        found = np.empty(shape, np.float32)
        for rows, values in pieces():
            found[rows] = values
    if bad:
        raise Pseudo3dError(
            f"{store.location}: {layer} of {len(bad)} videos is NaN or infinite ({first_few(sorted(bad))}); extract "
            "them again, in float32 if it was another --dtype"
        )
    return found


def check_same_network(
    stores_or_facts: Sequence[FeatureStore | Mapping[str, Any]], *, same_weights: bool = True
) -> None:
    """Refuse features of different networks, or of clips taken in different ways, as if they were of one kind.

    Args:
        stores_or_facts: stores, or what ``FeatureStore.info`` or ``Result.facts`` say of them.
        same_weights: False where each split has a network of its own, trained on its training side.

    Raises:
        Pseudo3dError: it names every field that differs from the first's, with both values.

    Example:
        >>> check_same_network([{"clips": 20}, {"clips": 20}])
    """
    fields = [key for key in _NETWORK if same_weights or key != "weights"]
    told = [
        _Told(
            str(each.location if isinstance(each, FeatureStore) else each.get("store", f"store {number}")),
            _flat({key: info[key] for key in fields if key in info}),
        )
        for number, each in enumerate(stores_or_facts, start=1)
        for info in [_complete(each.info if isinstance(each, FeatureStore) else each)]
    ]
    for other in told[1:]:
        first = told[0]
        shared = [key for key in first.fields if key in other.fields]
        # what a store does not say (features from elsewhere) cannot contradict
        differing = [key for key in shared if first.fields[key] != other.fields[key]]
        if differing:
            few = "; ".join(
                f"{key} {printable(first.fields[key], 60)} and {printable(other.fields[key], 60)}"
                for key in differing[:4]
            )
            raise Pseudo3dError(
                f"{first.name} and {other.name} are of different networks or clips ({few}"
                f"{'; ...' if len(differing) > 4 else ''}): use stores that were made in the same way"
            )


def _complete(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """With what a store says by silence: one that tells how its clips were chosen names mirror images if there are."""
    return {"mirror": False, **info} if "sampler" in info else info


@dataclass(frozen=True)
class _Told:
    name: str
    fields: dict[str, Any]


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested names joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return flat
