"""A store's features as plain files, and plain arrays as a store's features."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from pseudo3d import FeatureStore, Pseudo3dError
from pseudo3d.features.exports import export_store, file_names
from pseudo3d.features.store import StoreWriter, VideoFeatures


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Nobody cuts the power here, and waiting for a busy disk takes minutes."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def fill(folder, videos, **options):
    rng = np.random.default_rng(0)
    with StoreWriter(folder, {}, **options) as writer:
        for i, video in enumerate(videos):
            clips = {"pool5": rng.normal(size=(2 + i, 3)).astype(np.float32),
                     "res5": rng.normal(size=(2 + i, 2, 1, 2)).astype(np.float32)}  # fmt: skip
            means = {layer: values.mean(axis=0) for layer, values in clips.items()}
            starts = tuple(range(0, 8 * (2 + i), 8))
            label = "x" if i else None
            writer.add(VideoFeatures(video, means, starts, 99, 25.0, label=label, clips=clips,
                                     times=tuple(start / 25 for start in starts)))  # fmt: skip
    return FeatureStore(folder)


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_npy(tmp_path):
    store = fill(tmp_path / "s", ["b/c.mp4", "b/c.d.avi", "b/c.avi", "a, b.mkv"], rows_per_part=2)
    assert export_store(store, tmp_path / "one", "npy", layers=["pool5"]) == 4
    assert files_of(tmp_path / "one") == ["a, b.npy", "b/c.avi.npy", "b/c.d.npy", "b/c.mp4.npy"]
    for video, name in zip(store.videos, ("a, b", "b/c.avi", "b/c.d", "b/c.mp4"), strict=True):
        values = np.load(tmp_path / "one" / f"{name}.npy")
        assert values.dtype == np.float32
        assert np.array_equal(values, store.features()[store.videos.index(video)])
    assert export_store(store, tmp_path / "both", "npy", per_clip=True) == 8
    assert files_of(tmp_path / "both")[-2:] == ["b/c.mp4_pool5.npy", "b/c.mp4_res5.npy"]
    values = np.load(tmp_path / "both" / "a, b_res5.npy")
    assert values.shape == (5, 2, 1, 2)
    assert np.array_equal(values.reshape(5, 4), store.clip_features("a, b.mkv", "res5"))
    assert export_store(store, tmp_path / "both", "npy", per_clip=True) == 8  # again: replaced


@pytest.mark.parametrize(
    ("videos", "layers", "names"),
    [
        (["a.mp4", "b"], ["p"], ["a.npy", "b.npy"]),
        (["x/a.mp4", "x/a.avi", "y/a.avi"], ["p"], ["x/a.mp4.npy", "x/a.avi.npy", "y/a.npy"]),
        (["a.mp4", "a_p.mp4"], ["p", "p_p"], ["a.mp4_p.npy", "a.mp4_p_p.npy", "a_p.mp4_p.npy", "a_p.mp4_p_p.npy"]),
        ([".hidden", "c.tar.mp4"], ["p"], [".hidden.npy", "c.tar.npy"]),
    ],
)
def test_names_never_collide(videos, layers, names):
    assert list(file_names(videos, layers).values()) == names


def test_names_that_cannot_be(tmp_path):
    for video in ("../a.mp4", "/a.mp4"):
        with pytest.raises(Pseudo3dError, match="does not lie below the root of the videos; export as csv"):
            file_names([video], ["p"])
    with pytest.raises(Pseudo3dError, match=r"a\.x\.npy: would be the file of two videos; export one layer at a time"):
        file_names(["a.x", "a.y", "a.x.z"], ["p"])


def test_csv(tmp_path):
    store = fill(tmp_path / "s", ["b.mp4", 'a "q", ü.mp4'])
    assert export_store(store, tmp_path / "s.csv", "csv") == 2
    with (tmp_path / "s.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == store.videos
    assert [row["label"] for row in rows] == ["x", ""]
    assert [(row["num_frames"], row["fps"]) for row in rows] == [("99", "25")] * 2
    for layer, dim in (("pool5", 3), ("res5", 4)):
        values = np.array([[np.float32(row[f"{layer}_{i}"]) for i in range(dim)] for row in rows])
        assert np.array_equal(values, store.features(layer))  # every bit
    assert export_store(store, tmp_path / "clips.csv", "csv", layers=["pool5"], per_clip=True) == 5
    with (tmp_path / "clips.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    mine = [row for row in rows if row["video"] == store.videos[0]]
    assert [(row["start"], float(row["time"])) for row in mine] == [("0", 0.0), ("8", 0.32), ("16", 0.64)]
    values = np.array([[np.float32(row[f"pool5_{i}"]) for i in range(3)] for row in mine])
    assert np.array_equal(values, store.clip_features(store.videos[0]))
    assert "res5_0" not in rows[0]


def test_a_csv_in_several_pieces(tmp_path):
    with StoreWriter(tmp_path / "s", {}) as writer:
        for i in range(600):  # the first piece has no labels at all
            writer.add(
                VideoFeatures(f"{i:03}", {"p": np.full(1, i, np.float32)}, (0,), 1, label="x" if i > 500 else None)
            )
    assert export_store(FeatureStore(tmp_path / "s"), tmp_path / "s.csv", "csv") == 600
    with (tmp_path / "s.csv").open(newline="") as file:
        assert [float(row["p_0"]) for row in csv.DictReader(file)] == list(range(600))


def test_safetensors(tmp_path):
    store = fill(tmp_path / "s", ["b.mp4", 'a "q", ü.mp4'])
    store.add("idt", store.videos, np.ones((2, 3)))
    assert export_store(store, tmp_path / "s.safetensors", "safetensors") == 3
    with safe_open(tmp_path / "s.safetensors", "numpy") as file:
        told = {name: json.loads(text) for name, text in file.metadata().items()}
        assert told == {"videos": store.videos, "labels": ["x", None], "splits": [None, None]}
        assert set(file.keys()) == {"pool5", "res5", "idt"}
        for layer, shape in (("pool5", (3,)), ("res5", (2, 1, 2)), ("idt", (3,))):
            tensor = file.get_tensor(layer)
            assert (tensor.dtype, tensor.shape) == (np.float32, (2, *shape))
            assert np.array_equal(tensor.reshape(2, -1), store.features(layer))
    assert export_store(store, tmp_path / "s.safetensors", "safetensors", layers=["pool5"]) == 1  # again: replaced


def test_safetensors_of_clips(tmp_path):
    store = fill(tmp_path / "s", ["c.mp4", "b.mp4", "a.mp4"], rows_per_part=2)
    assert export_store(store, tmp_path / "s.safetensors", "safetensors", per_clip=True) == 5
    with safe_open(tmp_path / "s.safetensors", "numpy") as file:
        got = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    assert got["offsets"].tolist() == [0, 4, 7, 9]
    assert got["res5"].shape == (9, 2, 1, 2)
    for i, video in enumerate(store.videos):
        here = slice(got["offsets"][i], got["offsets"][i + 1])
        for layer in ("pool5", "res5"):
            assert np.array_equal(got[layer][here].reshape(-1, got[layer][0].size), store.clip_features(video, layer))
        assert np.array_equal(got["starts"][here], store.timeline(video).starts)
        assert np.array_equal(got["times"][here], store.timeline(video).times)


def test_safetensors_of_clips_without_times(tmp_path):
    with StoreWriter(tmp_path / "s", {}) as writer:
        clips = np.ones((2, 3), np.float32)
        writer.add(VideoFeatures("a", {"p": clips[0]}, (0, 8), 24, clips={"p": clips}))
    export_store(FeatureStore(tmp_path / "s"), tmp_path / "s.safetensors", "safetensors", per_clip=True)
    with safe_open(tmp_path / "s.safetensors", "numpy") as file:
        assert np.isnan(file.get_tensor("times")).all()


def test_exports_that_cannot_be(tmp_path, monkeypatch):
    store = fill(tmp_path / "s", ["a.mp4"])
    (tmp_path / "file").touch()
    for out, form, words in (("file", "npy", "is a file; .npy files need a folder"),
                             (".", "csv", "is a folder; a csv needs the name of a file")):  # fmt: skip
        with pytest.raises(Pseudo3dError, match=words):
            export_store(store, tmp_path / out, form)
    with pytest.raises(Pseudo3dError, match="no layer 'x'; this store has pool5, res5"):
        export_store(store, tmp_path / "o", "npy", layers=["x"])
    with pytest.raises(Pseudo3dError, match="no features of single clips of 'x'"):
        export_store(store, tmp_path / "o", "npy", layers=["x"], per_clip=True)
    with pytest.raises(Pseudo3dError, match=r"is a folder; a \.safetensors needs the name of a file"):
        export_store(store, tmp_path, "safetensors")
    monkeypatch.setattr("pseudo3d.features.exports.MOST_HEADER_BYTES", 20)
    with pytest.raises(Pseudo3dError, match=r"s: too many paths for the header of a \.safetensors; export as npy"):
        export_store(store, tmp_path / "o", "safetensors")
    monkeypatch.setattr("pseudo3d.features.exports.MOST_COLUMNS", 6)
    with pytest.raises(Pseudo3dError, match="pool5, res5: 7 columns are too many for a csv; export as npy"):
        export_store(store, tmp_path / "o", "csv")
    StoreWriter(tmp_path / "empty", {}).close()
    with pytest.raises(Pseudo3dError, match="nothing to export; this store has no features of that kind"):
        export_store(FeatureStore(tmp_path / "empty"), tmp_path / "o", "npy")
    assert not (tmp_path / "o").exists()


def test_features_from_elsewhere(tmp_path):
    store = fill(tmp_path / "s", ["c", "a", "b"], rows_per_part=2)
    array = np.arange(6, dtype=np.float64).reshape(3, 2)
    store.add("idt-fv", ["b", "c", "a"], array)
    for each in (store, FeatureStore(tmp_path / "s")):
        assert each.layers == ["pool5", "res5", "idt-fv"]
        assert each.shape("idt-fv") == (2,)
        assert each.features("idt-fv").dtype == np.float32
        assert np.array_equal(each.features("idt-fv"), array[[2, 0, 1]])
    plain = pq.read_table(tmp_path / "s" / "columns" / "idt-fv.parquet").to_pylist()
    assert plain[0] == {"video": "b", "idt-fv": [0.0, 1.0]}
    with StoreWriter(tmp_path / "s", {}) as writer:
        writer.remove("a")
    assert np.array_equal(FeatureStore(tmp_path / "s").features("idt-fv"), array[[0, 1]])
    with pytest.raises(Pseudo3dError, match=r"1 videos have no pool5 \(a\); the store has changed .*; open it again"):
        store.features()
    new = {"pool5": np.ones(3, np.float32), "res5": np.ones((2, 1, 2), np.float32)}
    no_clips = {layer: np.ones((0, *values.shape), np.float32) for layer, values in new.items()}
    with StoreWriter(tmp_path / "s", {}) as writer:
        writer.add(VideoFeatures("z", new, (), 1, clips=no_clips))
    store = FeatureStore(tmp_path / "s")
    with pytest.raises(Pseudo3dError, match=r"1 videos have no idt-fv \(z\); remove .*columns/idt-fv.parquet and add"):
        store.features("idt-fv")
    assert store.clip_features("z").shape == (0, 3)


GOOD = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("name", "videos", "array", "words"),
    [
        ("x", ["a", "d"], GOOD, r"with x, 1 are not in the store \(d\) and 1 of the store are missing \(b\)"),
        ("x", ["a"], GOOD[:1], r"with x, 1 of the store are missing \(b\); give each video's path once"),
        ("x", ["a", "b", "a"], np.ones((3, 3)), r"more than one row of x for a"),
        ("x", ["a", "b"], GOOD[:1], r"x: 2 videos and an array of \(1, 3\); one row each is needed"),
        ("x", ["a", "b"], GOOD[:, :0], r"2 videos and an array of \(2, 0\)"),
        ("x", ["a", "b"], GOOD[:, 0], r"must be finite float32 or float64 \(videos, dim\), got float32 \(2,\)"),
        ("x", ["a", "b"], GOOD.astype(int), "must be finite float32 or float64 .*, got int64"),
        ("x", ["a", "b"], GOOD * np.nan, "must be finite"),
        ("x", ["a", "b"], np.full((2, 3), 1e300), "x: has values too large for float32; scale them"),
        ("pool5", ["a", "b"], GOOD, "pool5 is there already; choose another name"),
        ("pool5_clips", ["a", "b"], GOOD, "pool5_clips is there already"),
        ("label", ["a", "b"], GOOD, "label is there already"),
        ("there", ["a", "b"], GOOD, "there is there already"),
        ("There", ["a", "b"], GOOD, "There is there already"),
        ("../x", ["a", "b"], GOOD, r"'\.\./x' cannot name features; use letters, digits, '_' and '-'"),
    ],
)  # fmt: skip
def test_features_from_elsewhere_that_do_not_fit(tmp_path, name, videos, array, words):
    store = fill(tmp_path / "s", ["a", "b"])
    store.add("there", ["a", "b"], GOOD)
    with pytest.raises(Pseudo3dError, match=words):
        store.add(name, videos, array)
    assert files_of(tmp_path / "s" / "columns") == ["there.parquet"]


def test_nothing_is_added_while_another_writes(tmp_path):
    store = fill(tmp_path / "s", ["a", "b"])
    with StoreWriter(tmp_path / "s", {}), pytest.raises(Pseudo3dError, match="is being written by process"):
        store.add("x", ["a", "b"], GOOD)


MEASURE = """
import sys
import numpy as np
from pseudo3d.features import store as module
from pseudo3d.features.store import FeatureStore

def own():  # not what is mapped from files: the system takes that back when it needs to
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

store = FeatureStore(sys.argv[1])
store.features("prob")
before, peak, total = own(), 0, 0
for _, values in store.batches("res4"):
    total += values.sum(dtype=np.float64)
    peak = max(peak, own())
print(peak - before)
module.MAPPED_FROM = 1 << 20
array = store.features("res4")
assert abs(array.sum(dtype=np.float64) - total) < 1e-6 * abs(total)
print(own() - before)
"""


EXPORT = """
import sys
import threading
from pseudo3d.features.exports import export_store
from pseudo3d.features.store import FeatureStore

def own():
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

def watch():
    while not done.wait(0.002):
        seen.append(own())

store = FeatureStore(sys.argv[1])
before, seen, done = own(), [], threading.Event()
watching = threading.Thread(target=watch)
watching.start()
for per_clip in (False, True):
    export_store(store, f"{sys.argv[1]}{per_clip}", "safetensors", per_clip=per_clip)
done.set()
watching.join()
print(max(seen) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_safetensors_larger_than_what_it_may_take(tmp_path, monkeypatch):
    """Writing 80 MB takes a few row groups of memory."""
    monkeypatch.setattr("pseudo3d.features.shards.GROUP_BYTES", 2 << 20)
    values = np.random.default_rng(0).normal(size=(1, 200_000)).astype(np.float32)
    with StoreWriter(tmp_path / "s", {}) as writer:
        for i in range(100):
            each = values + np.float32(i)
            writer.add(VideoFeatures(f"{i:03}", {"res4": each[0]}, (0,), 16, clips={"res4": each}))
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, str(tmp_path / "s")], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 40
    for per_clip in (False, True):
        with safe_open(tmp_path / f"s{per_clip}", "numpy") as file:
            assert np.array_equal(file.get_tensor("res4")[99], values[0] + np.float32(99))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_layer_larger_than_what_it_may_take(tmp_path, monkeypatch):
    """Reading 160 MB takes a few row groups of memory: what is mapped from files is not the process's own."""
    monkeypatch.setattr("pseudo3d.features.shards.GROUP_BYTES", 2 << 20)
    values = np.random.default_rng(0).normal(size=(1, 400_000)).astype(np.float32)
    with StoreWriter(tmp_path / "s", {}) as writer:
        for i in range(100):
            layers = {"prob": values[0, :4], "res4": values[0] + np.float32(i)}
            writer.add(VideoFeatures(f"{i:03}", layers, (0,), 16))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "s")], capture_output=True, text=True, check=True
    )
    batches, mapped = map(float, done.stdout.split())
    assert batches < 80
    assert mapped < 80
