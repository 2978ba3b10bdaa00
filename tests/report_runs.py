"""Runs for the tests of the report: small videos whose colour says which they are, their features and scores."""

import colorsys
from pathlib import Path

import numpy as np
from videos import flat, write_video

from pseudo3d.evaluation.results import Measurement, Result, save_result
from pseudo3d.evaluation.scores import Scores, save_scores
from pseudo3d.features.store import StoreWriter, VideoFeatures


def colours(count):
    """RGB of each video, all of them well apart."""
    return [
        tuple(round(255 * c) for c in colorsys.hsv_to_rgb(i / count, 0.9, 0.5 + 0.4 * (i % 2))) for i in range(count)
    ]


def write_videos(root, names, *, frames=20, codec="mpeg4", fps=20):
    """Videos of one colour each, in the order of ``colours``."""
    for name, colour in zip(names, colours(len(names)), strict=True):
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, [flat(colour, 48, 64)] * frames, codec=codec, pix_fmt="yuv420p", fps=fps)


def make_scores(videos, class_names, *, wrong=(), seed=0, kind="probability"):
    """Scores of videos whose class is their number modulo the classes; those of ``wrong`` go to the next class."""
    rng, n = np.random.default_rng(seed), len(class_names)
    true = np.arange(len(videos)) % n
    said = np.where(np.isin(np.arange(len(videos)), list(wrong)), (true + 1) % n, true)
    values = rng.uniform(0, 1, (len(videos), n))
    values[np.arange(len(videos)), said] = 2 + 2 * rng.uniform(size=len(videos))
    if kind == "probability":
        values = np.exp(2 * values) / np.exp(2 * values).sum(axis=1, keepdims=True)
    return Scores(tuple(videos), tuple(class_names), np.eye(n, dtype=bool)[true], values.astype(np.float32), kind)


def write_store(folder, videos, class_names, root, *, seed=0, dim=16):
    """A store whose features lie around their class."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(len(class_names), dim))
    with StoreWriter(str(folder), {"root": str(root)}) as writer:
        for i, video in enumerate(videos):
            row = (middles[i % len(class_names)] + 0.3 * rng.normal(size=dim)).astype(np.float32)
            writer.add(VideoFeatures(video, {"pool5": row}, starts=(0,), num_frames=20))


def write_run(folder, name, videos, class_names, root, *, wrong=(), seed=0, store=True, splits=("",), **result):
    """A run's folder as ``p3d evaluate`` leaves it."""
    folder.mkdir(parents=True)
    measurements = []
    for number, split in enumerate(splits):
        scores = make_scores(videos, class_names, wrong=wrong, seed=seed + number)
        save_scores(scores, folder / (f"scores-{split}.parquet" if split else "scores.parquet"))
        right = (scores.values.argmax(axis=1) == scores.truth.argmax(axis=1)).mean()
        measurements.append(Measurement("video hit@1", float(right), split))
    if store:
        write_store(folder / "features", videos, class_names, root, seed=seed)
    facts = {"root": str(root), "layer": "pool5", **({"store": "features"} if store else {}), **result.pop("facts", {})}
    save_result(Result(result.pop("protocol", "hits"), name, tuple(measurements), facts, **result), folder)
    return folder
