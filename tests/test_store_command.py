"""``p3d store``: what it says and what it changes."""

import json
import os
import re

import numpy as np
import pytest
from tiny import mistake, names, p3d

from pseudo3d import FeatureStore
from pseudo3d.features.rows import SourceFile
from pseudo3d.features.store import StoreWriter, VideoFeatures
from pseudo3d.files import sha256_of

INFO = {
    "architecture": {"name": "p3d_resnet14", "num_classes": 2, "style": "caffe"}, "weights": "sha256:12",
    "preprocessing": {"num_frames": 16, "crop": [32, 32]}, "sampler": "uniform", "clips": 2, "engine": "eager",
    "device": "cpu", "dtype": "float32", "batch_size": 4, "threads": 1, "layers": ["pool5"],
    "made_with": {"pseudo3d": "0.1.0", "torch": "2.13.0", "why_this_engine": "the only one", "weights_from": "/w/best"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Nobody cuts the power here, and waiting for a busy disk takes minutes."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def row(video, **more):
    clips = np.random.default_rng([*video.encode()]).normal(size=(2, 3)).astype(np.float32)
    return VideoFeatures(video, {"pool5": clips.mean(axis=0)}, (0, 8), 24, 25.0, clips={"pool5": clips},
                         times=(0.0, 0.32), duration=0.96, **more)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Six videos in three small parts, three failures, features from elsewhere."""
    root = tmp_path / "videos"
    root.mkdir()
    with StoreWriter(tmp_path / "s", {**INFO, "root": str(root)}, rows_per_part=2) as writer:
        for i, name in enumerate("abcdef"):
            path = root / f"{name}.mp4"
            path.write_text(name)
            source = SourceFile(1, path.stat().st_mtime_ns, sha256_of(path))
            writer.add(row(path.name, label="xy"[i % 2], split=("train", "test", None)[i % 3], source=source,
                           undecodable_packets=i // 5))  # fmt: skip
        for name, reason in (("g", "empty file"), ("h", "not a video"), ("i", "empty file")):
            writer.add_failure(f"{name}.mp4", f"{root}/{name}.mp4: {reason}")
    store = FeatureStore(tmp_path / "s")
    store.add("idt", store.videos, np.ones((6, 2)))
    return tmp_path / "s"


def test_info(folder, capsys):
    code, out, err = p3d(capsys, "store", "info", folder)
    assert (code, err) == (0, [])
    for words in (
        r"s: 6 videos, 5\.8 s long together$",
        "^network +name p3d_resnet14, num_classes 2, style caffe$",
        "^weights +sha256:12, from /w/best$",
        r"^preprocessing +num_frames 16, crop \[32, 32\]$",
        "^clips +2, sampler uniform$",
        "^engine +eager, float32 on cpu, batches of 4, 1 threads: the only one$",
        "^made with +pseudo3d 0.1.0, torch 2.13.0$",
        f"^videos in +{folder.parent / 'videos'}$",
        r"^parts +3, 3 of them small; \d\.\d kB$",
        "^damaged +1 videos",
        "^failed +3 videos$",
        "^empty file +2\nnot a video +1$",
        "^pool5 +3 +[0-9]+ bytes +[0-9]+ bytes\nidt \\(from elsewhere\\) +2 +48 bytes +0 bytes$",
        "^label +no split +test +train +videos\nx +1 +1 +1 +3\ny +1 +1 +1 +3$",
    ):
        assert re.search(words, out, re.MULTILINE), words


def test_info_as_json(folder, capsys):
    told = json.loads(p3d(capsys, "store", "info", folder, "--json")[1])
    sizes = told["layers"]["pool5"].pop("bytes"), told["layers"]["pool5"].pop("clips_bytes")
    assert all(size > 6 * 3 * 4 for size in sizes)
    assert told.pop("parts").pop("bytes") > 0
    assert told == {
        "store": str(folder),
        "made_with": {**INFO, "root": str(folder.parent / "videos")},
        "videos": 6,
        "failed": 3,
        "damaged": 1,
        "seconds": pytest.approx(6 * 0.96),
        "failures": {"empty file": 2, "not a video": 1},
        "labels": {"x": {"": 1, "test": 1, "train": 1}, "y": {"": 1, "test": 1, "train": 1}},
        "layers": {"pool5": {"shape": [3]}},
        "columns": {"idt": {"shape": [2], "bytes": 48}},
    }


def test_info_of_little(tmp_path, capsys):
    StoreWriter(tmp_path / "s", {"weights": "w"}).close()
    code, out, _ = p3d(capsys, "store", "info", tmp_path / "s")
    assert code == 0
    assert "s: 0 videos" in out
    assert "clips" not in out.splitlines()[1:3]


def test_long_tables_are_cut(tmp_path, capsys):
    with StoreWriter(tmp_path / "s", {}) as writer:
        for i in range(25):
            writer.add(row(f"{i}.mp4", label=f"class {i}"))
    out = p3d(capsys, "store", "info", tmp_path / "s")[1]
    assert "and 5 more (--json has all)" in out
    assert "class 9" not in out  # the last in the order of the alphabet


def test_verify(folder, capsys):
    assert p3d(capsys, "store", "verify", folder) == (0, f"{folder}: 6 videos in 3 parts: all well\n", [])
    out = f"{folder}: 6 videos in 3 parts, and their files: all well\n"
    assert p3d(capsys, "store", "verify", folder, "--videos") == (0, out, [])
    (folder / "part-00009.parquet").touch()
    code, out, _ = p3d(capsys, "store", "verify", folder)
    assert (code, out.splitlines()[-1]) == (0, f"{folder}: 6 videos in 3 parts: all well")
    assert out.startswith("note: part-00009.parquet: does not count; ")
    (folder.parent / "videos" / "a.mp4").unlink()
    code, out, _ = p3d(capsys, "store", "verify", folder, "--videos")
    assert code == 1
    assert "\na.mp4: the file is gone" in f"\n{out}"
    assert out.endswith(": 1 things are wrong\n")
    (folder.parent / "videos").rename(folder.parent / "moved")
    assert "no such folder; say with --root" in mistake(capsys, "store", "verify", folder, "--videos")
    assert p3d(capsys, "store", "verify", folder, "--videos", "--root", folder.parent / "moved")[0] == 1


def test_export(folder, tmp_path, capsys):
    for form, out, count in (
        ("npy", "npy", "12 files"),
        ("csv", "s.csv", "6 rows"),
        ("safetensors", "s.st", "2 tensors"),
    ):
        line = f"{tmp_path / out}: {count}\n"
        assert p3d(capsys, "store", "export", folder, tmp_path / out, "--format", form) == (0, line, [])
    assert names(tmp_path / "npy")[:2] == ["a_idt.npy", "a_pool5.npy"]
    args = ("--format", "csv", "--layers", "pool5", "--per-clip")
    assert p3d(capsys, "store", "export", folder, tmp_path / "c.csv", *args)[1] == f"{tmp_path / 'c.csv'}: 12 rows\n"
    assert "no layer 'x'" in mistake(
        capsys, "store", "export", folder, tmp_path / "o", "--format", "csv", "--layers", "x"
    )
    assert "--format must be given" in mistake(capsys, "store", "export", folder, tmp_path / "o")
    assert "npy, csv, safetensors" in mistake(capsys, "store", "export", folder, tmp_path / "o", "--format", "xls")


def test_compact(folder, capsys):
    before = FeatureStore(folder).features()
    code, out, err = p3d(capsys, "store", "compact", folder)
    assert (code, err) == (0, [])
    assert re.fullmatch(rf"{folder}: 3 parts \(1\.\d kB\) before, 1 parts \(1\.\d kB\) now\n", out)
    assert [name for name in names(folder) if name.startswith("part")] == ["part-00003.parquet"]
    assert np.array_equal(FeatureStore(folder).features(), before)
    assert p3d(capsys, "store", "compact", folder)[1].endswith("1 parts (1.4 kB) now\n")


def test_parts_that_lost_most_of_their_rows_are_small_again(tmp_path):
    """Why ``compact`` needs to do no more than to open and close a writer."""
    with StoreWriter(tmp_path / "s", {}, rows_per_part=4) as writer:
        for i in range(12):
            writer.add(row(f"{i:02}"))
    with StoreWriter(tmp_path / "s", {}, rows_per_part=4) as writer:
        for i in (0, 1, 2, 4, 5, 6):
            writer.remove(f"{i:02}")
    assert FeatureStore(tmp_path / "s").videos == ["03", "07", "08", "09", "10", "11"]
    assert names(tmp_path / "s") == ["part-00002.parquet", "part-00005.parquet", "store.json"]


def test_remove(folder, capsys):
    kept = FeatureStore(folder).features()[[1, 3, 4, 5]]
    code, out, err = p3d(capsys, "store", "remove", folder, "a.mp4", "c.mp4", "g.mp4", "a.mp4")
    assert (code, err) == (0, [])
    assert out.splitlines() == [
        "a.mp4: its features were removed",
        "c.mp4: its features were removed",
        "g.mp4: its failure was removed",
        f"note: idt (from elsewhere) keep rows of these videos; to be rid of them, remove {folder}/columns/idt.parquet",
    ]
    store = FeatureStore(folder)
    assert store.videos == ["b.mp4", "d.mp4", "e.mp4", "f.mp4"]
    assert np.array_equal(store.features(), kept)
    assert list(store.failures) == ["h.mp4", "i.mp4"]
    for path in folder.glob("*"):  # nothing is left of it
        assert path.is_dir() or b"a.mp4" not in path.read_bytes()
    line = mistake(capsys, "store", "remove", folder, "b.mp4", "videos/a.mp4")
    assert (
        f"no video videos/a.mp4 in this store, whose paths are relative to {folder.parent / 'videos'}; nothing" in line
    )
    assert FeatureStore(folder).videos == store.videos
    assert "give the paths of the videos to remove" in mistake(capsys, "store", "remove", folder)


def test_while_another_writes(folder, capsys):
    with StoreWriter(folder, FeatureStore(folder).info):
        for args in (("compact", folder), ("remove", folder, "a.mp4")):
            assert "is being written by process" in mistake(capsys, "store", *args)
        assert p3d(capsys, "store", "info", folder)[0] == p3d(capsys, "store", "verify", folder)[0] == 0


def test_a_store_on_another_system(tmp_path, capsys):
    pytest.importorskip("fsspec")
    url = f"memory://bucket/{tmp_path.name}"
    for name in "abc":
        with StoreWriter(url, {}) as writer:
            writer.add(row(f"{name}.mp4"))
    assert p3d(capsys, "store", "info", url)[1].startswith(f"{url}: 3 videos")
    assert p3d(capsys, "store", "verify", url) == (0, f"{url}: 3 videos in 1 parts: all well\n", [])
    assert p3d(capsys, "store", "export", url, tmp_path / "s.csv", "--format", "csv")[0] == 0
    assert p3d(capsys, "store", "remove", url, "b.mp4") == (0, "b.mp4: its features were removed\n", [])
    assert p3d(capsys, "store", "compact", url)[0] == 0
    assert FeatureStore(url).videos == ["a.mp4", "c.mp4"]


@pytest.mark.parametrize(
    "args", [("info",), ("verify",), ("compact",), ("remove", "a"), ("export", "o", "--format", "npy")]
)
def test_no_store(args, tmp_path, capsys):
    words = "not a feature store (no store.json); make one with `p3d extract`"
    assert words in mistake(capsys, "store", args[0], tmp_path / "none", *args[1:])
    assert names(tmp_path) == []


def test_help_and_mistakes(capsys):
    for args in ((), ("--help",)):
        code, out, _ = p3d(capsys, "store", *args)
        assert code == 0
        assert "Example: p3d store verify" in out
    assert mistake(capsys, "store", "inf") == "p3d store: no command 'inf'; did you mean 'info'? See p3d store --help"
    assert "STORE must be given; see p3d store info --help" in mistake(capsys, "store", "info")
