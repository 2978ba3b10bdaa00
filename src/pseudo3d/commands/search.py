"""``p3d search``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from pseudo3d.commands.stored import Moment, StoredVideos, write_sheet
from pseudo3d.video.segments import split_segment

if TYPE_CHECKING:
    import numpy as np

    from pseudo3d.features.encoding import Encoder

# What of a store's description decides its features, the layers and the way the network runs apart.
_DECISIVE = ("weights", "architecture", "preprocessing", "sampler", "clips")


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(search, "search", args)


def search(
    store: tyro.conf.Positional[str],
    /,
    *,
    video: tuple[Path, ...] = (),
    like: tuple[str, ...] = (),
    weights: str | None = None,
    top: int = 10,
    layer: str = "pool5",
    index: Literal["auto", "exact", "faiss"] = "auto",
    sheet: Path | None = None,
    root: Path | None = None,
    json: tyro.conf.FlagCreatePairsOff[bool] = False,
    device: str = "auto",
) -> int:
    """Find the videos of a store that are most like a video: highest cosine between their features.

    The time is that of the clip that is most like the query when the store has features of each clip (p3d extract
    --per-clip), else the whole video. A new video is put through the network as the store's were.

    Example: p3d search features --video new.mp4 --top 5

    Args:
        store: a folder that p3d extract wrote, or its URL.
        video: files to search for.
        like: videos of the store to search for, by their paths there; they are not among their own results.
        weights: those that the store was made with, for --video, if they have moved since.
        top: how many to find for each.
        layer: which features.
        index: exact: every video counts; faiss: faster for millions, and may miss some (needs
            pip install 'pseudo3d[faiss]'); auto: exact up to a million videos, or where faiss is not installed.
        sheet: write a contact sheet of the results (.png).
        root: the folder of the store's videos, if they have moved.
        json: print JSON, not a table.
        device: for --video: auto (as the store's), cpu, cuda, mps.
    """
    from pseudo3d.commands.output import report_failures
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.visualize.contact_sheet import check_png

    if top < 1:
        raise Pseudo3dError(f"--top must be at least 1, got {top}")
    if not video and not like:
        raise Pseudo3dError("give what to search for: --video FILE, or --like PATH for a video of the store")
    if sheet is not None:
        check_png(sheet)
    stored = StoredVideos.open(store, layer, root)
    queries = [_stored_query(stored, path) for path in like]
    failures: dict[str, str] = {}
    if video:
        new, failures = _encode(stored, video, weights, device)
        queries = new + queries
    if queries:
        how, found = _answer(stored, queries, top, index)
        _print(stored, how, found, as_json=json)
        if sheet is not None:
            _draw(stored, found, sheet)
    return report_failures(failures, len(queries))


@dataclass(frozen=True, eq=False)
class _Query:
    """What is searched for.

    Args:
        name: as it was given.
        file: where it is.
        features: float32 (dim,), not zero.
        frame: the one to show.
        row: of the store; None for a new video.
    """

    name: str
    file: Path
    features: "np.ndarray"
    frame: int
    row: int | None = None


@dataclass(frozen=True)
class _Hit:
    """One result."""

    rank: int
    score: float
    row: int
    moment: Moment


def _stored_query(stored: StoredVideos, path: str) -> _Query:
    from pseudo3d.errors import Pseudo3dError, printable

    videos = stored.store.videos
    if path not in videos:
        raise Pseudo3dError(
            f"--like {printable(path)}: no such video in {stored.store.location}, whose paths are like "
            f"{printable(videos[0])}; for another file use --video"
        )
    row = videos.index(path)
    features = next(values[names.index(path)] for names, values in stored.store.batches(stored.layer) if path in names)
    return _Query(path, stored.file(path), features, stored.whole(row).frame, row)


def _encode(
    stored: StoredVideos, paths: Sequence[Path], weights: str | None, device: str
) -> tuple[list[_Query], dict[str, str]]:
    """Features of new videos, made as the store's were; and why some have none."""
    from pseudo3d.commands.encoders import started_encoder
    from pseudo3d.commands.stored import LATEST_FRAME
    from pseudo3d.data.collect import collect_samples

    samples = collect_samples(paths)
    options = _encoder_options(stored, weights)
    queries, failures = [], {}
    with started_encoder(**options, layer=stored.layer, device=device) as encoder:
        _run_as_the_store(encoder, stored, device)
        for result in encoder.encode_many([samples.root / sample.path for sample in samples.samples]):
            if result.error is not None or result.facts is None:
                failures[str(result.path)] = result.error or ""
                continue
            features = result.layers[stored.layer].ravel()
            if not features.any():
                failures[str(result.path)] = f"{result.path}: its features are all zero, so that nothing is like it"
                continue
            starts = sorted(result.facts.starts)
            part = split_segment(result.path)[1] is not None
            frame = starts[len(starts) // 2] if part else min(result.facts.num_frames // 2, LATEST_FRAME)
            queries.append(_Query(str(result.path), result.path, features, frame))
    return queries, failures


def _encoder_options(stored: StoredVideos, weights: str | None) -> dict[str, Any]:
    """Arguments of the ``Encoder`` that made the store."""
    from pseudo3d.errors import Pseudo3dError

    info, where = stored.store.info, stored.store.location
    if missing := [key for key in _DECISIVE if key not in info]:
        raise Pseudo3dError(f"{where}: does not say what made it (no {missing[0]}); search with --like")
    if stored.layer not in info.get("layers", [stored.layer]):
        raise Pseudo3dError(f"{where}: {stored.layer} is not of the network, but added later; search with --like")
    name = info["architecture"]["name"]
    weights = weights or info.get("made_with", {}).get("weights_from")
    if weights is None or (Path(weights).is_absolute() and not Path(weights).exists()):
        where = "it does not say where they were" if weights is None else f"they are no more at {weights}"
        raise Pseudo3dError(
            f"--video needs the weights that the store was made with ({name}, {info['weights']}), and {where}; "
            "give --weights"
        )
    sliding = re.fullmatch(r"every (\d+) frames", str(info["clips"]))
    how_many = {"stride": int(sliding[1])} if sliding else {"clips": info["clips"]}
    size = info.get("resize")
    more = {"seed": info.get("seed", 0), "mirror": info.get("mirror", False)}
    more["resize"] = tuple(size) if isinstance(size, list) else size
    return {"model": name, "weights": weights, "sampler": info["sampler"], **how_many, **more}


def _run_as_the_store(encoder: "Encoder", stored: StoredVideos, device: str) -> None:
    """Load the network the way the store's ran, on another device at least in its precision; see that it is the same.

    Raises:
        Pseudo3dError: it is another one; what differs is named.
    """
    from pseudo3d.errors import Pseudo3dError, printable
    from pseudo3d.features.extract import HOW
    from pseudo3d.features.shards import first_difference

    info = stored.store.info
    how = {key: info[key] for key in (HOW if device == "auto" else ("dtype", "ranges")) if key in info}
    if device != "auto" and how.get("dtype") == ("float16" if device == "cpu" else "int8"):
        how = {"dtype": "float32"}  # this device does not have that
    now = encoder.run_as(how).load().describe()
    found = (first_difference({key: info[key]}, {key: now[key]}) for key in _DECISIVE)
    different = next((each for each in found if each is not None), None)
    if different is not None:
        key, old, new = different
        raise Pseudo3dError(
            f"{stored.store.location}: was made with another {key} ({printable(old)}, now {printable(new)}); "
            "give --weights those that it was made with"
        )


def _answer(
    stored: StoredVideos, queries: Sequence[_Query], top: int, kind: Literal["auto", "exact", "faiss"]
) -> tuple[str, list[tuple[_Query, list[_Hit]]]]:
    """How it was searched, and the results of each query."""
    import numpy as np

    from pseudo3d.features.search import open_index

    opened = open_index(stored.store.features(stored.layer), stored.store.videos, kind=kind)
    answers = []
    for query in queries:
        own = query.row is not None
        scores, rows = opened.search(query.features[None], top + own)
        kept = [(s, r) for s, r in zip(scores[0].tolist(), rows[0].tolist(), strict=True) if r not in (query.row, -1)]
        unit = query.features / np.linalg.norm(query.features.astype(np.float64))
        hits = [_Hit(i + 1, s, r, stored.best_clip(r, unit)) for i, (s, r) in enumerate(kept[:top])]
        answers.append((query, hits))
    return opened.how, answers


def _print(stored: StoredVideos, how: str, answers: Sequence[tuple[_Query, Sequence[_Hit]]], *, as_json: bool) -> None:
    import json

    from pseudo3d.commands.output import print_table

    videos, labels = stored.store.videos, stored.store.labels
    if as_json:
        told = [
            {
                "query": query.name,
                "results": [
                    {
                        "rank": hit.rank, "score": hit.score, "path": videos[hit.row], "start": hit.moment.start,
                        "end": hit.moment.end, "label": labels[hit.row],
                    }
                    for hit in hits
                ],
            }
            for query, hits in answers
        ]  # fmt: skip
        print(
            json.dumps({"store": stored.store.location, "layer": stored.layer, "index": how, "queries": told}, indent=1)
        )
        return
    for i, (query, hits) in enumerate(answers):
        print(f"{chr(10) if i else ''}most like {query.name}:")
        rows = [
            (f"{hit.rank:>3}  {videos[hit.row]}", f"{hit.score:.4f}", str(hit.moment), labels[hit.row] or "-")
            for hit in hits
        ]
        print_table(("     path", "score", "time", "label"), rows)


def _draw(stored: StoredVideos, answers: Sequence[tuple[_Query, Sequence[_Hit]]], sheet: Path) -> None:
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.visualize.contact_sheet import MOST_TILES, Section, Tile

    sections = []
    for query, hits in answers:
        tiles = [
            stored.tile(hit.row, hit.moment, score=hit.score, note=stored.store.labels[hit.row] or "") for hit in hits
        ]
        sections.append(Section("searched for", [Tile(query.file, query.name, query.frame)]))
        sections.append(Section(f"most like {query.name}", tiles))
    count = sum(len(section.tiles) for section in sections)
    if count > MOST_TILES:
        raise Pseudo3dError(f"--sheet would show {count} videos, it can show {MOST_TILES}; lower --top")
    write_sheet(sections, sheet)
