import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pseudo3d import FeatureStore, Pseudo3dError
from pseudo3d.features import rows
from pseudo3d.features import store as store_module
from pseudo3d.features import writer as writer_module
from pseudo3d.features.store import Described, SourceFile, StoreWriter, VideoFeatures, read_info

INFO = {"weights": "sha256:1", "clips": 20, "preprocessing": {"crop": [160, 160]}}


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Nobody cuts the power here, and waiting for a busy disk takes minutes."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def row(video, dim=4, **more):
    values = np.random.default_rng(sum(video.encode())).normal(size=dim).astype(np.float32)
    return VideoFeatures(video, {"pool5": values, "prob": values[:2] ** 2}, (0, 9), 25, **more)


def write(folder, names, **options):
    with StoreWriter(folder, INFO, **options) as writer:
        for name in names:
            writer.add(row(name))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_round_trip_of_every_column(tmp_path):
    rows = [
        row("b/ü.mp4", fps=29.97, undecodable_packets=3, label="b", split="test", group="day 1"),
        row("a.mp4", fps=25.0, label="a", split="train"),
        row("c.mp4"),
    ]
    with StoreWriter(tmp_path / "s", INFO) as writer:
        for each in rows:
            writer.add(each)
    store = FeatureStore(tmp_path / "s")
    assert store.videos == ["a.mp4", "b/ü.mp4", "c.mp4"]
    assert store.labels == ["a", "b", None]
    assert store.splits == ["train", "test", None]
    assert store.groups == [None, "day 1", None]
    assert store.layers == ["pool5", "prob"]
    assert store.info == INFO == read_info(tmp_path / "s")
    for layer in store.layers:
        expected = np.stack([rows[i].layers[layer] for i in (1, 0, 2)])
        assert store.features(layer).dtype == np.float32
        assert np.array_equal(store.features(layer), expected)
    assert len(store) == 3
    assert "3 videos, layers pool5, prob" in repr(store)


def test_plain_parquet(tmp_path):
    """The parts mean the same to a reader that knows nothing of this package."""
    source = SourceFile(1234, 10**18 + 1, "ab" * 32)
    each = row("a.mp4", fps=29.97, undecodable_packets=3, label="x", split="val", group="g", source=source,
               duration=0.9, times=(0.0, 0.3), concealed_frames=2, seeks=1)  # fmt: skip
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.add(each)
    assert names(tmp_path / "s") == ["part-00000.parquet", "store.json"]
    (line,) = pq.read_table(tmp_path / "s" / "part-00000.parquet").to_pylist()
    features = {layer: np.array(line.pop(layer), np.float32) for layer in ("pool5", "prob")}
    assert line == {
        "video": "a.mp4",
        "size": 1234,
        "modified": 10**18 + 1,
        "sha256": "ab" * 32,
        "label": "x",
        "split": "val",
        "group": "g",
        "num_frames": 25,
        "fps": 29.97,
        "duration": 0.9,
        "starts": [0, 9],
        "times": [0.0, 0.3],
        "undecodable_packets": 3,
        "concealed_frames": 2,
        "damaged": True,
        "seeks": 1,
    }
    for layer, values in features.items():
        assert np.array_equal(values, each.layers[layer])
    told = json.loads((tmp_path / "s/store.json").read_text())
    assert (told["store_version"], told["clips"]) == (2, 20)
    assert [part["file"] for part in told["manifest"]["parts"]] == ["part-00000.parquet"]
    store = FeatureStore(tmp_path / "s")
    assert (store.sources, store.damaged) == ([source], [True])
    timeline = store.timeline("a.mp4")
    assert (timeline.starts.tolist(), timeline.times.tolist()) == ([0, 9], [0.0, 0.3])
    assert (timeline.starts.dtype, timeline.times.dtype) == (np.int64, np.float64)


def test_to_pandas(tmp_path):
    pytest.importorskip("pandas")
    write(tmp_path / "s", ["b", "a"])
    frame = FeatureStore(tmp_path / "s").to_pandas()
    assert frame["video"].tolist() == ["a", "b"]
    assert np.array_equal(np.stack(frame["pool5"].tolist()), FeatureStore(tmp_path / "s").features())


def test_several_parts_and_going_on(tmp_path):
    write(tmp_path / "s", ["e", "a", "d", "b", "c"], rows_per_part=2)
    assert names(tmp_path / "s") == [*(f"part-0000{i}.parquet" for i in range(3)), "store.json"]
    with StoreWriter(tmp_path / "s", INFO) as writer:
        assert set(writer.done) == set("abcde")
        writer.add(row("f"))
    store = FeatureStore(tmp_path / "s")
    assert store.videos == list("abcdef")
    assert np.array_equal(store.features(), np.stack([row(name).layers["pool5"] for name in "abcdef"]))


def test_a_part_that_is_gone_is_not_made_up_for_by_overwriting(tmp_path):
    write(tmp_path / "s", "abcdef", rows_per_part=2)
    (tmp_path / "s" / "part-00000.parquet").unlink()
    write(tmp_path / "s", "ab")
    assert FeatureStore(tmp_path / "s").videos == list("abcdef")


def test_nothing_new_writes_nothing(tmp_path):
    write(tmp_path / "s", "a")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").iterdir()}
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.flush()
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "s").iterdir()}


@pytest.mark.parametrize("error", [RuntimeError("lost"), KeyboardInterrupt()])
def test_a_crash_keeps_what_was_added(tmp_path, error):
    def videos():
        yield from "abc"
        raise error

    with pytest.raises(type(error)):
        write(tmp_path / "s", videos(), rows_per_part=2)
    assert FeatureStore(tmp_path / "s").videos == list("abc")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "sha256:2"}, r"another weights \(sha256:1, now sha256:2\); give a new folder for --out"),
        ({"preprocessing": {"crop": [112, 112]}}, r"another preprocessing\.crop \(\[160, 160\], now \[112, 112\]\)"),
        ({"preprocessing": None}, r"another preprocessing \(\{'crop': \[160, 160\]\}, now none\)"),
        ({"weights": "w" * 500}, r"another weights \(sha256:1, now w{200}\.\.\.\)"),
        ({"engine": "new"}, r"another engine \(none, now new\)"),
    ],
)
def test_a_store_made_otherwise_is_refused(tmp_path, change, words):
    write(tmp_path / "s", "a")
    with pytest.raises(Pseudo3dError, match=words):
        StoreWriter(tmp_path / "s", {**INFO, **change})
    assert FeatureStore(tmp_path / "s").videos == ["a"]


def test_the_same_info_in_other_json_types(tmp_path):
    StoreWriter(tmp_path / "s", {"layers": ("a", "b")})
    StoreWriter(tmp_path / "s", {"layers": ["a", "b"]})  # refused, if a tuple were another thing than a list
    assert FeatureStore(tmp_path / "s").info["layers"] == ["a", "b"]


def test_other_folders(tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/holiday.jpg").touch()
    with pytest.raises(Pseudo3dError, match="foreign: holds other files and no store; give a new folder for --out"):
        StoreWriter(tmp_path / "foreign", INFO)
    assert names(tmp_path / "foreign") == ["holiday.jpg"]
    for folder in ("foreign", "nowhere"):
        with pytest.raises(Pseudo3dError, match=r"not a feature store \(no store.json\); make one with `p3d extract`"):
            FeatureStore(tmp_path / folder)
    with pytest.raises(Pseudo3dError, match=r"holiday\.jpg: is a file; give a folder for --out"):
        StoreWriter(tmp_path / "foreign/holiday.jpg", INFO)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"store_version": 3}', "a store of version 3, this pseudo3d reads version 2; upgrade pseudo3d"),
        ('{"store_version": 1}', "a store of version 1, this pseudo3d reads version 2; extract again"),
        ('{"store_version": 2}', "store.json: its list of parts cannot be read .*; restore the file"),
        ("[1]", "a store of version None"),
        ("{", "not valid JSON .*is this a feature store"),
    ],
)
def test_newer_and_damaged_descriptions(tmp_path, text, words):
    write(tmp_path / "s", "a")
    (tmp_path / "s/store.json").write_text(text)
    for use in (FeatureStore, read_info, lambda folder: StoreWriter(folder, INFO)):
        with pytest.raises(Pseudo3dError, match=words):
            use(tmp_path / "s")


def test_a_part_that_was_cut(tmp_path):
    write(tmp_path / "s", "a")
    part = tmp_path / "s/part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    for use in (FeatureStore, lambda folder: StoreWriter(folder, INFO)):
        with pytest.raises(Pseudo3dError, match=r"part-00000\.parquet: not a whole Parquet file .*remove it and run"):
            use(tmp_path / "s")


def test_rows_that_do_not_fit(tmp_path):
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.add(row("a"))
        for value in (np.nan, np.inf):
            with pytest.raises(ValueError, match="b: pool5 must be finite float32"):
                writer.add(VideoFeatures("b", {"pool5": np.full(4, value, np.float32)}, (0,), 9))
        with pytest.raises(ValueError, match=r"b: pool5 must be finite float32 \(dim,\), got float64 \(4,\)"):
            writer.add(VideoFeatures("b", {"pool5": np.ones(4)}, (0,), 9))
        with pytest.raises(ValueError, match="a is in the store already"):
            writer.add(row("a"))
        with pytest.raises(ValueError, match=r"layers pool5 \(4,\), prob \(2,\), this one pool5 \(5,\), prob"):
            writer.add(row("b", dim=5))
        with pytest.raises(ValueError, match="b: the rows before have the layers"):
            writer.add(VideoFeatures("b", {"pool5": np.ones(4, np.float32)}, (0,), 9))
        with pytest.raises(Pseudo3dError, match=r"'b\\udcff': the name is not UTF-8; rename the file"):
            writer.add(VideoFeatures("b\udcff", row("b").layers, (0,), 9))
    with StoreWriter(tmp_path / "s", INFO) as writer, pytest.raises(ValueError, match="a is in the store already"):
        writer.add(row("a"))
    assert FeatureStore(tmp_path / "s").videos == ["a"]  # the good row survived all that


def test_failures(tmp_path):
    tried = SourceFile(10, 20, "ab")
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.add_failure("b.mp4", "b.mp4: line\nbreak")
        writer.add_failure("a.mp4", "a.mp4: first reason", tried)
        writer.add_failure("a.mp4", "a.mp4: no frames", SourceFile(11))
        writer.add_failure("c\udcff", "not UTF-8: a failure has no such rule, or nobody would know of it")
    lines = (tmp_path / "s/failures.jsonl").read_text().splitlines()
    unknown = {"size": None, "modified": None, "sha256": None}
    assert [json.loads(line) for line in lines][:2] == [
        {"video": "a.mp4", "reason": "a.mp4: no frames", **unknown, "size": 11, "attempts": 2},
        {"video": "b.mp4", "reason": "b.mp4: line\nbreak", **unknown, "attempts": 1},
    ]
    assert FeatureStore(tmp_path / "s").failures["b.mp4"] == "b.mp4: line\nbreak"
    assert "0 videos, 3 failed, layers none" in repr(FeatureStore(tmp_path / "s"))
    with StoreWriter(tmp_path / "s", INFO) as writer:
        assert set(writer.failures) == {"a.mp4", "b.mp4", "c\udcff"}
        assert (writer.failed["a.mp4"].source, writer.failed["a.mp4"].attempts) == (SourceFile(11), 2)
        assert not writer.done
        writer.add_failure("a.mp4", "a.mp4: still none", tried)
        assert writer.failed["a.mp4"].attempts == 3
        writer.add(row("a.mp4"))
        writer.remove("c\udcff")
    assert FeatureStore(tmp_path / "s").failures == {"b.mp4": "b.mp4: line\nbreak"}
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.remove("b.mp4")
        with pytest.raises(KeyError, match=r"b.mp4 is not in the store"):
            writer.remove("b.mp4")
    assert names(tmp_path / "s") == ["part-00000.parquet", "store.json"]


def test_a_damaged_list_of_failures(tmp_path):
    write(tmp_path / "s", "a")
    (tmp_path / "s/failures.jsonl").write_text('{"video": "b"\n')
    with pytest.raises(Pseudo3dError, match=r"failures\.jsonl, line 1: cannot be read .*; remove the line"):
        FeatureStore(tmp_path / "s")


def test_a_replaced_video(tmp_path):
    """Its row changes place with the new one in one step; the other rows of its part stay."""
    write(tmp_path / "s", "abcdef", rows_per_part=2)
    old, new = SourceFile(1, 2, "old"), SourceFile(1, 3, "new")
    with StoreWriter(tmp_path / "s", INFO, rows_per_part=2) as writer:
        writer.add(row("c", source=old, label="x"), replace=True)
        writer.add(row("c", dim=4, source=new, label="y"), replace=True)  # twice, before either was written
        assert FeatureStore(tmp_path / "s").sources[2] == SourceFile()
        assert writer.sources["c"] == new
        assert writer.done["c"] == ("y", None, None) == Described("y")
        writer.flush()
        assert FeatureStore(tmp_path / "s").sources[2] == new
    store = FeatureStore(tmp_path / "s")
    assert store.videos == list("abcdef")
    assert store.labels == [None, None, "y", None, None, None]
    plain = pq.read_table([tmp_path / "s" / name for name in names(tmp_path / "s") if name.startswith("part-")])
    assert sorted(plain["video"].to_pylist()) == list("abcdef")  # also for who does not look into store.json


def test_a_video_that_now_fails_loses_its_row(tmp_path):
    write(tmp_path / "s", "abc", rows_per_part=2)
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.add_failure("b", "b: truncated")
        writer.remove("c")
        assert set(writer.done) == {"a"}
        writer.flush()
        assert FeatureStore(tmp_path / "s").videos == ["a"]
        writer.add(row("b"))
        writer.add_failure("b", "b: truncated")  # a row that was never written
    store = FeatureStore(tmp_path / "s")
    assert (store.videos, store.failures) == (["a"], {"b": "b: truncated"})
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.remove("a")
    assert FeatureStore(tmp_path / "s").videos == []
    assert names(tmp_path / "s") == ["failures.jsonl", "store.json"]


def test_layers_with_a_shape_and_single_clips(tmp_path):
    rng = np.random.default_rng(0)
    clips = {video: {"pool5": rng.normal(size=(n, 4)).astype(np.float32), "res5": rng.normal(size=(n, 3, 1, 2, 2))
                     .astype(np.float32)} for video, n in (("b", 1), ("a", 3), ("c", 2))}  # fmt: skip
    with StoreWriter(tmp_path / "s", INFO, rows_per_part=2) as writer:
        for video, own in clips.items():
            means = {layer: values.mean(axis=0) for layer, values in own.items()}
            writer.add(VideoFeatures(video, means, tuple(range(len(own["pool5"]))), 25, clips=own,
                                     times=tuple(np.arange(len(own["pool5"])) / 2)))  # fmt: skip
    store = FeatureStore(tmp_path / "s")
    assert (store.layers, store.clip_layers, store.shape("res5"), store.shape()) == (
        ["pool5", "res5"], ["pool5", "res5"], (3, 1, 2, 2), (4,)
    )  # fmt: skip
    for i, video in enumerate("abc"):
        for layer, values in clips[video].items():
            assert np.array_equal(store.features(layer)[i], values.mean(axis=0).reshape(-1))
            assert np.array_equal(store.clip_features(video, layer), values.reshape(len(values), -1))
        assert store.timeline(video).times.tolist() == [i / 2 for i in range(len(values))]
    for video, timeline, values in store.clips("res5"):
        assert np.array_equal(values, clips[video]["res5"].reshape(-1, 12))
        assert len(timeline.starts) == len(values)
    plain = pq.read_table(tmp_path / "s" / "part-00000.parquet").to_pylist()
    assert np.array_equal(np.array(plain[1]["pool5_clips"], np.float32), clips["a"]["pool5"])
    frame = store.to_pandas(["video", "res5_clips"])
    assert np.array_equal(np.stack(frame["res5_clips"][0]), clips["a"]["res5"].reshape(3, 12))
    with pytest.raises(
        Pseudo3dError, match=r"no features of single clips of 'prob'; this store has them of pool5, res5"
    ):
        store.clip_features("a", "prob")
    with pytest.raises(Pseudo3dError, match="no video 'z' in this store"):
        store.timeline("z")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"times": (0.0,)}, "b: 2 clips and 1 times"),
        ({"clips": {"pool5": np.ones((1, 4), np.float32)}}, r"b: pool5 of the clips has the shape \(1, 4\)"),
        ({"clips": {"other": np.ones((2, 4), np.float32)}}, "b: other of the clips has the shape"),
        ({"clips": {"pool5": np.ones((2, 4))}}, r"b: pool5_clips must be finite float32"),
        ({"clips": {"pool5": np.ones((2, 4), np.float32)}}, r"have the layers pool5 \(4,\).*and, of each clip, pool5"),
    ],
)
def test_clips_that_do_not_fit(tmp_path, more, words):
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.add(row("a"))
        with pytest.raises(ValueError, match=words):
            writer.add(row("b", **more))
    with (
        StoreWriter(tmp_path / "s", INFO) as writer,
        pytest.raises(ValueError, match="the rows before have the layers"),
    ):
        writer.add(row("b", dim=5))  # the rows of another run


def test_too_large_for_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "MAX_CELL_BYTES", 100)
    with StoreWriter(tmp_path / "s", INFO) as writer, pytest.raises(Pseudo3dError, match="use smaller layers or fewer"):
        writer.add(row("a", dim=26))


def test_small_parts_become_large_ones(tmp_path, monkeypatch):
    """However often rows are written, few files are left; each row is written only a few times."""
    monkeypatch.setattr(writer_module, "_MOST_SMALL_PARTS", 4)
    with StoreWriter(tmp_path / "s", INFO, rows_per_part=10, seconds=0) as writer:
        for i in range(37):
            writer.add(row(f"{i:02}"))
            parts = [name for name in names(tmp_path / "s") if name.startswith("part-")]
            assert len(parts) <= i // 10 + 4
            assert FeatureStore(tmp_path / "s").videos == [f"{j:02}" for j in range(i + 1)]
    store = FeatureStore(tmp_path / "s")
    assert len([name for name in names(tmp_path / "s") if name.startswith("part-")]) == 4
    assert np.array_equal(store.features(), np.stack([row(video).layers["pool5"] for video in store.videos]))
    with StoreWriter(tmp_path / "s", INFO, rows_per_part=100):
        pass  # another run with another idea of large
    assert len([name for name in names(tmp_path / "s") if name.startswith("part-")]) == 1
    assert np.array_equal(FeatureStore(tmp_path / "s").features(), store.features())


def test_rows_are_written_after_some_seconds_or_bytes(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: clock[0])
    writer = StoreWriter(tmp_path / "s", INFO, seconds=10)
    writer.add(row("a"))
    clock[0] = 9.9
    writer.add_failure("x", "x: bad")
    assert names(tmp_path / "s") == [".lock", ".lock.json", "store.json"]
    clock[0] = 10.1
    writer.add(row("b"))
    assert (FeatureStore(tmp_path / "s").videos, FeatureStore(tmp_path / "s").failures) == (["a", "b"], {"x": "x: bad"})
    writer.add(row("c"))
    assert FeatureStore(tmp_path / "s").videos == ["a", "b"]
    monkeypatch.setattr(writer_module.shards, "PART_BYTES", 40)
    writer.add(row("d"))
    assert FeatureStore(tmp_path / "s").videos == list("abcd")
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="this writer is closed"):
        writer.add(row("e"))


def test_row_groups_are_small(tmp_path, monkeypatch):
    """Reading one of them bounds the memory."""
    monkeypatch.setattr(writer_module.shards, "GROUP_BYTES", 1000)
    write(tmp_path / "s", [f"{i:02}" for i in range(40)], rows_per_part=100, seconds=0)
    with pq.ParquetFile(tmp_path / "s" / names(tmp_path / "s")[0]) as file:
        assert 6 < file.num_row_groups < 40
    store = FeatureStore(tmp_path / "s")
    assert np.array_equal(store.features(), np.stack([row(video).layers["pool5"] for video in store.videos]))
    assert store.timeline("31").starts.tolist() == [0, 9]
    assert [len(values) == len(videos) for videos, values in store.batches("prob")].count(True) > 6


def test_an_array_in_a_file(tmp_path, monkeypatch):
    write(tmp_path / "s", "cab", rows_per_part=2)
    store = FeatureStore(tmp_path / "s")
    expected = store.features()
    mapped = store.features(file=tmp_path / "pool5.npy")
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, expected)
    assert np.array_equal(np.load(tmp_path / "pool5.npy"), expected)
    monkeypatch.setattr(store_module, "MAPPED_FROM", 40)
    nameless = store.features()
    assert isinstance(nameless, np.memmap)
    assert np.array_equal(nameless, expected)


def test_an_empty_store(tmp_path):
    with StoreWriter(tmp_path / "s", INFO):
        pass
    store = FeatureStore(tmp_path / "s")
    assert (len(store), store.videos, store.layers, store.failures) == (0, [], [], {})
    with pytest.raises(Pseudo3dError, match="no layer 'pool5'; this store has none"):
        store.features()


def test_unknown_layer(tmp_path):
    write(tmp_path / "s", "a")
    with pytest.raises(Pseudo3dError, match="no layer 'res5'; this store has pool5, prob"):
        FeatureStore(tmp_path / "s").features("res5")
    with pytest.raises(Pseudo3dError, match="no layer 'label'"):
        FeatureStore(tmp_path / "s").features("label")


def test_columns_of_pandas(tmp_path):
    pytest.importorskip("pandas")
    write(tmp_path / "s", "ba")
    store = FeatureStore(tmp_path / "s")
    store.add("idt", ["a", "b"], np.array([[1.0], [2.0]]))
    frame = store.to_pandas(["prob", "idt", "video"])
    assert list(frame.columns) == ["prob", "idt", "video"]
    assert [value.tolist() for value in frame["idt"]] == [[1.0], [2.0]]
    assert set(store.to_pandas().columns) >= {"video", "starts", "times", "pool5", "idt"}
    with pytest.raises(Pseudo3dError, match="no column 'res5'; this store has video, size"):
        store.to_pandas(["res5"])


def test_a_part_that_is_gone(tmp_path):
    write(tmp_path / "s", "abcd", rows_per_part=2)
    (tmp_path / "s" / "part-00001.parquet").unlink()
    with pytest.raises(Pseudo3dError, match=r"part-00001\.parquet is gone; run the same `p3d extract` again"):
        FeatureStore(tmp_path / "s")


def test_a_damaged_page_is_found(tmp_path):
    """Every page has a checksum: a flipped bit does not become a feature."""
    write(tmp_path / "s", "abcd")
    part = tmp_path / "s" / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    where = data.index(row("c").layers["pool5"].tobytes())
    data[where] ^= 1
    part.write_bytes(data)
    with pytest.raises(Pseudo3dError, match=r"part-00000\.parquet: not a whole Parquet file .*; remove it and run"):
        FeatureStore(tmp_path / "s").features()


def test_another_parquet_file_in_the_place_of_a_part(tmp_path):
    write(tmp_path / "s", "ab")
    part = tmp_path / "s" / "part-00000.parquet"
    pq.write_table(pq.read_table(part).slice(1), part)
    with pytest.raises(Pseudo3dError, match="1 rows, 2 were written"):
        FeatureStore(tmp_path / "s")
    pq.write_table(pa.table({"x": [1, 2]}), part)
    with pytest.raises(Pseudo3dError, match="no column concealed_frames"):
        FeatureStore(tmp_path / "s")


def test_reserved_keys(tmp_path):
    with pytest.raises(ValueError, match="info may not have the key manifest"):
        StoreWriter(tmp_path / "s", {"manifest": 1})
    assert not (tmp_path / "s").exists()


def test_a_row_that_waits_is_described_anew_too(tmp_path):
    with StoreWriter(tmp_path / "s", {}) as writer:
        writer.add(VideoFeatures("a.mp4", {"pool5": np.ones(3, np.float32)}, (0,), 9, label="x"))
        writer.describe({"a.mp4": Described("y", "val", "g")})
        with pytest.raises(KeyError, match=r"b\.mp4 is not in the store"):
            writer.describe({"b.mp4": Described("y")})
    store = FeatureStore(tmp_path / "s")
    assert (store.labels, store.splits, store.groups) == (["y"], ["val"], ["g"])
