"""What docs/store.md says that one can do, done."""

import re
from pathlib import Path

import numpy as np
import pytest

from pseudo3d import FeatureStore
from pseudo3d.features.rows import COLUMNS
from pseudo3d.features.store import StoreWriter, VideoFeatures

TEXT = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


@pytest.fixture
def features(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with StoreWriter("features", {}, rows_per_part=3) as writer:
        for video in ("d.mp4", "c.mp4", "a.mp4", "b.mp4"):
            values = rng.normal(size=2048).astype(np.float32)
            writer.add(VideoFeatures(video, {"pool5": values}, (0,), 16, label="x"))
    return FeatureStore("features")


def test_every_column_is_explained():
    for name in COLUMNS.names:
        assert re.search(rf"^\| (\w+, )*{name}(, \w+)* \|", TEXT, re.M), name


def test_the_examples(features):
    pytest.importorskip("pandas")
    names = {}
    for block in BLOCKS:
        if "duckdb" not in block:
            exec(block, names)
    assert FeatureStore("features").layers == ["pool5", "idt"]
    by_video = dict(zip(names["table"]["video"], names["table"]["pool5"], strict=True))
    assert np.array_equal(np.stack([by_video[video] for video in features.videos]), features.features())


def test_the_examples_of_duckdb(features):
    pytest.importorskip("duckdb")
    (block,) = [block for block in BLOCKS if "import duckdb" in block]
    names = {}
    exec(block.replace("duckdb.sql(", "got = duckdb.sql("), names)
    (best, same), *others = names["got"].fetchall()
    assert best == "a.mp4"
    assert abs(same - 1) < 1e-6
    assert len(others) == 3
