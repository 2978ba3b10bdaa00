import errno
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from pseudo3d import FeatureStore, Pseudo3dError
from pseudo3d.features.store import StoreWriter, VideoFeatures

INFO = {"weights": "sha256:1", "clips": 20, "preprocessing": {"crop": [160, 160]}}


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
    assert store.info == {"store_version": 1, **INFO}
    for layer in store.layers:
        expected = np.stack([rows[i].layers[layer] for i in (1, 0, 2)])
        assert store.features(layer).dtype == np.float32
        assert np.array_equal(store.features(layer), expected)
    assert len(store) == 3
    assert "3 videos, layers pool5, prob" in repr(store)


def test_plain_parquet(tmp_path):
    """The parts mean the same to a reader that knows nothing of this package."""
    each = row("a.mp4", fps=29.97, undecodable_packets=3, label="x", split="val", group="g")
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.add(each)
    assert names(tmp_path / "s") == ["part-00000.parquet", "store.json"]
    (line,) = pq.read_table(tmp_path / "s" / "part-00000.parquet").to_pylist()
    features = {layer: np.array(line.pop(layer), np.float32) for layer in ("pool5", "prob")}
    assert line == {
        "video": "a.mp4",
        "label": "x",
        "split": "val",
        "group": "g",
        "num_frames": 25,
        "fps": 29.97,
        "starts": [0, 9],
        "undecodable_packets": 3,
    }
    for layer, values in features.items():
        assert np.array_equal(values, each.layers[layer])
    assert json.loads((tmp_path / "s/store.json").read_text())["clips"] == 20


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


def test_a_killed_run_keeps_the_parts(tmp_path):
    writer = StoreWriter(tmp_path / "s", INFO, rows_per_part=2)
    for name in "abc":
        writer.add(row(name))
    del writer  # no flush
    (tmp_path / "s" / ".part-00001.parquet.1.part").write_bytes(b"PAR1 half")
    assert FeatureStore(tmp_path / "s").videos == ["a", "b"]
    write(tmp_path / "s", "c")
    assert FeatureStore(tmp_path / "s").videos == list("abc")


def test_a_full_disk(tmp_path, monkeypatch):
    writer = StoreWriter(tmp_path / "s", INFO, rows_per_part=2)
    writer.add(row("a"))
    writer.add(row("b"))
    before = (tmp_path / "s/part-00000.parquet").read_bytes()

    def full(table, path):
        path.write_bytes(b"PAR1 half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq, "write_table", full)
        writer.add(row("c"))
        for _ in range(2):
            with pytest.raises(OSError, match="No space left on device"):
                writer.add(row("d")) if "d" not in writer.done else writer.flush()
            assert names(tmp_path / "s") == ["part-00000.parquet", "store.json"]
        assert (tmp_path / "s/part-00000.parquet").read_bytes() == before
        assert FeatureStore(tmp_path / "s").videos == ["a", "b"]
    writer.flush()  # there is room again
    assert FeatureStore(tmp_path / "s").videos == list("abcd")
    assert np.array_equal(FeatureStore(tmp_path / "s").features()[3], row("d").layers["pool5"])


def test_a_full_disk_ends_the_with_block_with_its_own_error(tmp_path, monkeypatch):
    def full(table, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"), StoreWriter(tmp_path / "s", INFO) as writer:
        writer.add(row("a"))
    assert names(tmp_path / "s") == ["store.json"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": "sha256:2"}, r"another weights \(sha256:1, now sha256:2\); give a new folder for --out"),
        ({"preprocessing": {"crop": [112, 112]}}, "another preprocessing"),
        ({"engine": "new"}, r"another engine \(None, now new\)"),
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
        ('{"store_version": 2}', "a store of version 2, this pseudo3d reads version 1; upgrade pseudo3d"),
        ("[1]", "a store of version None"),
        ("{", "not valid JSON .*is this a feature store"),
    ],
)
def test_newer_and_damaged_descriptions(tmp_path, text, words):
    write(tmp_path / "s", "a")
    (tmp_path / "s/store.json").write_text(text)
    for use in (FeatureStore, lambda folder: StoreWriter(folder, INFO)):
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
        with pytest.raises(ValueError, match=r"layers \{'pool5': 4, 'prob': 2\}, this one \{'pool5': 5, 'prob': 2\}"):
            writer.add(row("b", dim=5))
        with pytest.raises(ValueError, match="b: the rows before have the layers"):
            writer.add(VideoFeatures("b", {"pool5": np.ones(4, np.float32)}, (0,), 9))
        with pytest.raises(Pseudo3dError, match=r"'b\\udcff': the name is not UTF-8; rename the file"):
            writer.add(VideoFeatures("b\udcff", row("b").layers, (0,), 9))
    with StoreWriter(tmp_path / "s", INFO) as writer, pytest.raises(ValueError, match="a is in the store already"):
        writer.add(row("a"))
    assert FeatureStore(tmp_path / "s").videos == ["a"]  # the good row survived all that


def test_failures(tmp_path):
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.add_failure("b.mp4", "b.mp4: line\nbreak")
        writer.add_failure("a.mp4", "a.mp4: first reason")
        writer.add_failure("a.mp4", "a.mp4: no frames")
    lines = (tmp_path / "s/failures.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"video": "a.mp4", "reason": "a.mp4: no frames"},
        {"video": "b.mp4", "reason": "b.mp4: line\nbreak"},
    ]
    assert FeatureStore(tmp_path / "s").failures == {"a.mp4": "a.mp4: no frames", "b.mp4": "b.mp4: line\nbreak"}
    with StoreWriter(tmp_path / "s", INFO) as writer:
        assert set(writer.failures) == {"a.mp4", "b.mp4"}
        assert not writer.done
        writer.add(row("a.mp4"))
    assert FeatureStore(tmp_path / "s").failures == {"b.mp4": "b.mp4: line\nbreak"}


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
