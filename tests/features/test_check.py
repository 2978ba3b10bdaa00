"""Stores that are damaged in every way that can be thought of, and what is said of each."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pseudo3d import FeatureStore, Pseudo3dError
from pseudo3d.features.check import check_store
from pseudo3d.features.folders import open_folder
from pseudo3d.features.journal import Failure, write_failures
from pseudo3d.features.rows import SourceFile
from pseudo3d.features.sharding import Shard
from pseudo3d.features.store import StoreWriter, VideoFeatures
from pseudo3d.files import sha256_of


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Nobody cuts the power here, and waiting for a busy disk takes minutes."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def row(video, *, seed=0, **more):
    rng = np.random.default_rng([seed, *video.encode()])
    clips = {"pool5": rng.normal(size=(2, 3)).astype(np.float32), "res5": rng.normal(size=(2, 4)).astype(np.float32)}
    means = {layer: values.mean(axis=0) for layer, values in clips.items()}
    return VideoFeatures(video, means, (0, 8), 24, 25.0, clips=clips, times=(0.0, 0.32), **more)


@pytest.fixture
def folder(tmp_path):
    """A sound store of a.mp4 to f.mp4 in three parts, with the files and with features from elsewhere."""
    (tmp_path / "videos").mkdir()
    with StoreWriter(
        tmp_path / "s", {"root": str(tmp_path / "videos"), "layers": ["pool5", "res5"]}, rows_per_part=2
    ) as w:
        for name in "abcdef":
            path = tmp_path / "videos" / f"{name}.mp4"
            path.write_text(f"this is {name}")
            state = path.stat()
            w.add(row(path.name, source=SourceFile(state.st_size, state.st_mtime_ns, sha256_of(path))))
        w.add_failure("g.mp4", "g.mp4: empty file")
    store = FeatureStore(tmp_path / "s")
    store.add("idt", store.videos, np.ones((6, 2)))
    return tmp_path / "s"


def texts(folder, *, harmless=False, **options):
    found = check_store(folder, **options)
    assert [each.harmless for each in found] == [harmless] * len(found)
    return [each.text for each in found]


def alter(path, **columns):
    """Replace columns of a part, by functions of what they hold as lists; types and names stay."""
    table = pq.read_table(path)
    for name, change in columns.items():
        values = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
    pq.write_table(table, path)


def alter_json(folder, change):
    told = json.loads((folder / "store.json").read_text())
    change(told["manifest"]["parts"])
    (folder / "store.json").write_text(json.dumps(told))


def first(value):
    """In the first row of a part, at the first place, this value."""

    def change(rows):
        inner = rows[0][0] if isinstance(rows[0][0], list) else rows[0]
        inner[0] = value
        return rows

    return change


def test_a_sound_store(folder):
    counted = []
    assert check_store(folder, videos=True, on_rows=counted.append) == []
    assert sum(counted) == 6


def test_a_sound_store_with_shards(folder):
    """What shards say of a video is newer than the store's row: it is not there twice."""
    info = FeatureStore(folder).info
    for index in range(2):
        with StoreWriter(folder, info, shard=Shard(index, 2)) as writer:
            writer.add(row(f"new{index}.mp4"))
            writer.add(row("ab"[index] + ".mp4", seed=1))
        (folder / "shards" / f"{index}-of-2" / "part-00099.parquet").touch()
    store = FeatureStore(folder)
    assert len(store) == 8
    (found,) = texts_of(folder, harmless=False)
    assert found.startswith("columns/idt.parquet: lacks 2 videos (new0.mp4, new1.mp4); remove ")
    left = texts_of(folder, harmless=True)
    assert [text.split(":")[0] for text in left] == [f"shards/{i}-of-2/part-00099.parquet" for i in range(2)]


def texts_of(folder, *, harmless):
    return [each.text for each in check_store(folder) if each.harmless == harmless]


def test_a_flipped_bit(folder):
    path = folder / "part-00001.parquet"
    value = pq.read_table(path)["pool5"].to_pylist()[1][2]
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(value).tobytes())] ^= 1
    path.write_bytes(data)
    (text,) = texts(folder)
    assert "s/part-00001.parquet: not a whole Parquet file" in text
    assert text.endswith("remove it and run the same `p3d extract` again (2 videos)")


@pytest.mark.parametrize("file", ["part-00000.parquet", "columns/idt.parquet"])
def test_no_flipped_bit_changes_what_is_read(folder, file):
    """Footers have no checksum: where a bit of them is not told, it makes no difference to a reader."""
    rng = np.random.default_rng(0)
    sound = FeatureStore(folder)
    expected = [sound.features(layer) for layer in sound.layers]
    clips = sound.clip_features("a.mp4")
    data = (folder / file).read_bytes()
    told = 0
    for place in rng.choice(len(data), 150, replace=False):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        (folder / file).write_bytes(flipped)
        if texts_of(folder, harmless=False):
            told += 1
            continue
        store = FeatureStore(folder)
        assert store.table.equals(sound.table)
        assert all(
            np.array_equal(store.features(name), each) for name, each in zip(sound.layers, expected, strict=True)
        )
        assert np.array_equal(store.clip_features("a.mp4"), clips)
    assert told > 60


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "not a whole Parquet file .*; remove it and run"),
        (lambda path: path.unlink(), "part-00001.parquet: is gone, with 2 videos; run the same `p3d extract` again"),
    ],
)
def test_a_part_that_is_not_there(folder, change, words):
    change(folder / "part-00001.parquet")
    (text,) = texts(folder)
    assert re.search(words, text)
    with pytest.raises(Pseudo3dError):
        FeatureStore(folder)


def test_rows_that_were_not_counted(folder):
    alter_json(folder, lambda parts: parts[0].update(rows=3))
    (text,) = texts(folder)
    assert "part-00000.parquet: not a whole Parquet file (2 rows, 3 were written)" in text


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"pool5": first(np.nan)}, "c.mp4: pool5 is not finite; `p3d store remove S c.mp4`, and extract it again"),
        ({"res5": first(np.inf)}, "c.mp4: res5 is not finite; `p3d store remove S c.mp4`, and extract it again"),
        ({"res5_clips": first(-np.inf)}, "c.mp4: res5 of a clip is not finite; `p3d store remove S c.mp4`"),
        ({"pool5": lambda rows: [rows[0], [0.0] * 3]}, "d.mp4: pool5 is all zeros; compare it with nothing, and look"),
        ({"times": lambda rows: [rows[0], [0.0]]}, "d.mp4: has clips without a time, or times without a clip; `p3d"),
        ({"starts": lambda rows: [[0], rows[1]], "times": lambda rows: [[], rows[1]]},
         "c.mp4: has clips without pool5, or pool5 without a clip; `p3d store remove"),
    ],
)  # fmt: skip
def test_values_that_cannot_be(folder, columns, words):
    alter(folder / "part-00001.parquet", **columns)
    found = texts(folder)
    assert found[0].replace(str(folder), "S").startswith(words)
    assert all(text.startswith(words[:5]) for text in found)


def test_a_name_that_a_shell_would_take_apart(tmp_path):
    with StoreWriter(tmp_path / "s", {}) as writer:
        writer.add(row("a b.mp4"))
    alter(tmp_path / "s/part-00000.parquet", pool5=first(np.nan))
    assert f"`p3d store remove {tmp_path / 's'} 'a b.mp4'`" in texts(tmp_path / "s")[0]


def test_a_video_that_is_there_twice(folder):
    alter(folder / "part-00001.parquet", video=lambda rows: ["a.mp4", rows[1]])
    alter(folder / "part-00002.parquet", video=lambda rows: ["e.mp4", "e.mp4"])
    found = texts_of(folder, harmless=False)
    assert [text.split("; remove")[0] for text in found] == [
        "a.mp4: is in part-00000.parquet and in part-00001.parquet",
        "e.mp4: is in part-00002.parquet and in part-00002.parquet",
    ]


def test_other_layers(folder):
    table = pq.read_table(folder / "part-00002.parquet").drop_columns(["res5", "res5_clips"])
    pq.write_table(table, folder / "part-00002.parquet")
    one, other = texts(folder)
    assert one.startswith(
        "part-00002.parquet: has pool5 (3,) and, of each clip, pool5, part-00000.parquet has pool5 (3,), "
    )
    assert other.startswith("part-00002.parquet: has pool5, store.json tells of pool5, res5; remove the part and run ")


def test_a_failure_of_a_video_that_has_features(folder):
    write_failures(open_folder(folder), {"a.mp4": Failure("a.mp4: of before"), "z.mp4": Failure("z.mp4: empty file")})
    (text,) = texts(folder, harmless=True)
    assert text == "a.mp4: has features; its line in failures.jsonl is of an earlier try and does not count"


def test_files_that_nobody_names(folder):
    left = {"part-00077.parquet", ".store.json.123.part", ".part-00078.parquet.9.part", "columns/.x.parquet.9.part"}
    for name in left:
        (folder / name).touch()
    for name in ("notes.txt", "columns/part-00099.parquet.txt", ".lock"):
        (folder / name).touch()
    found = texts(folder, harmless=True)
    assert {text.split(": does not count; ")[0] for text in found} == left
    StoreWriter(folder, FeatureStore(folder).info).close()
    assert texts(folder, harmless=True) == []  # as the line says


def test_features_from_elsewhere(folder):
    path = folder / "columns" / "idt.parquet"
    alter(path, idt=first(np.nan), video=lambda rows: [*rows[:5], "other.mp4"])
    again = f"remove {folder}/columns/idt.parquet and add features of all videos"
    found = check_store(folder)
    assert [(each.text, each.harmless) for each in found] == [
        (f"a.mp4: idt is not finite; {again}", False),
        (f"columns/idt.parquet: lacks 1 videos (f.mp4); {again}", False),
        ("columns/idt.parquet: has 1 rows that nobody reads, of videos that are not in the store; to be rid of them, "
         + again, True),
    ]  # fmt: skip
    path.write_bytes(path.read_bytes()[:-9])
    (text,) = texts(folder)
    assert text.startswith("columns/idt.parquet: not a whole Parquet file (")
    assert text.endswith(again)


def test_the_videos_themselves(folder, monkeypatch):
    videos = folder.parent / "videos"
    (videos / "a.mp4").unlink()
    (videos / "b.mp4").write_text("this is more of b")
    (videos / "c.mp4").write_text("this is d")
    os.utime(videos / "d.mp4", (1, 1))  # a copy: the same content
    assert texts(folder) == []
    assert texts(folder, videos=True) == [
        "a.mp4: the file is gone; bring it back, or take its features out with `p3d store remove`",
        "b.mp4: the file has 17 bytes, 9 when it was read; run the same `p3d extract` again",
        "c.mp4: the file has other content than when it was read; run the same `p3d extract` again",
    ]

    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pseudo3d.features.digests.sha256_of", denied)
    assert "e.mp4: the file cannot be read (Permission denied); see who may read it" in texts(folder, videos=True)


def test_a_file_with_many_segments_is_read_once(tmp_path, monkeypatch):
    from_one = [f"long.mp4#t={start},{start + 5}" for start in range(0, 50, 5)]
    (tmp_path / "long.mp4").write_text("long")
    source = SourceFile(4, None, sha256_of(tmp_path / "long.mp4"))
    with StoreWriter(tmp_path / "store", {"layers": ["pool5"], "root": str(tmp_path)}) as writer:
        for video in from_one:
            writer.add(VideoFeatures(video, {"pool5": np.ones(4, np.float32)}, (0,), 25, source=source))
    read = []
    monkeypatch.setattr("pseudo3d.features.digests.sha256_of", lambda path: read.append(path.name) or sha256_of(path))
    assert texts(tmp_path / "store", videos=True) == []
    assert read == ["long.mp4"]


def test_videos_that_have_moved(folder):
    videos = folder.parent / "videos"
    videos.rename(folder.parent / "moved")
    with pytest.raises(Pseudo3dError, match="videos: no such folder; say with --root where the videos lie now"):
        check_store(folder, videos=True)
    assert check_store(folder, videos=True, root=folder.parent / "moved") == []


def test_videos_that_nothing_is_known_of(tmp_path):
    with StoreWriter(tmp_path / "s", {}) as writer:
        writer.add(row("a.mp4"))
    with pytest.raises(Pseudo3dError, match="s: does not say where its videos lie; give --root"):
        check_store(tmp_path / "s", videos=True)
    (tmp_path / "a.mp4").touch()
    (text,) = texts(tmp_path / "s", harmless=True, videos=True, root=tmp_path)
    assert text == "1 videos were stored without the hash of their file; it was not compared"


def test_no_store(tmp_path):
    with pytest.raises(Pseudo3dError, match=r"not a feature store \(no store.json\); make one with `p3d extract`"):
        check_store(tmp_path)
    (tmp_path / "store.json").write_text('{"store_version": 1}')
    with pytest.raises(Pseudo3dError, match="a store of version 1, this pseudo3d reads version 2; extract again"):
        check_store(tmp_path)


def test_an_empty_store(tmp_path):
    StoreWriter(tmp_path / "s", {"layers": ["pool5"]}).close()
    assert check_store(tmp_path / "s") == []


def test_a_store_that_is_written_meanwhile(folder):
    def compact(rows):
        StoreWriter(folder, FeatureStore(folder).info).close()

    with pytest.raises(Pseudo3dError, match="s: is being written; verify it when that has ended"):
        check_store(folder, on_rows=compact)


MEASURE = """
import sys
from pseudo3d.features.check import check_store

def own():  # not what is mapped from files: the system takes that back when it needs to
    return sum(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

before, peak = own(), []
assert check_store(sys.argv[1], on_rows=lambda rows: peak.append(own())) == []
print(max(peak) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_store(tmp_path, monkeypatch):
    """120 MB, read in row groups of 2 MB."""
    monkeypatch.setattr("pseudo3d.features.shards.GROUP_BYTES", 2 << 20)
    values = np.random.default_rng(0).normal(size=300_000).astype(np.float32)
    with StoreWriter(tmp_path / "s", {}) as writer:
        for i in range(100):
            writer.add(VideoFeatures(f"{i:03}", {"res4": values + np.float32(i)}, (0,), 16))
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # Arrow's, too: each keeps some memory
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "s")],
        capture_output=True, text=True, check=True, env=one_thread,
    )  # fmt: skip
    assert float(done.stdout) < 50
