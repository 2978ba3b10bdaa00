"""Several processes write one store, a part of the list each."""

import json
import os
from collections import Counter

import numpy as np
import pytest
from reference import randomise
from videos import gradient, write_video

from pseudo3d import FeatureStore, Pseudo3dError, VideoEncoder, create_model, save_pretrained
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.features import committed, sharding
from pseudo3d.features.extract import extract
from pseudo3d.features.folders import open_folder
from pseudo3d.features.sharding import Shard, parse_shard
from pseudo3d.features.store import StoreWriter, VideoFeatures, read_info

NAMES = [f"v{i}.mkv" for i in range(8)]
PARTS = [Shard(0, 2), Shard(1, 2)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    model = randomise(create_model("resnet14", num_classes=2)).eval()
    model.preprocessing = model.preprocessing.with_size(32)
    folder = save_pretrained(model, tmp_path_factory.mktemp("weights") / "net")
    return VideoEncoder(weights=folder, clips=2, device="cpu", dtype="float32", workers=0)


def write(path, shift):
    write_video(path, [np.roll(gradient(32, 48), shift + t, axis=1) for t in range(6)])


@pytest.fixture
def samples(tmp_path):
    (tmp_path / "videos").mkdir()
    for i, name in enumerate(NAMES):
        write(tmp_path / "videos" / name, 5 * i)
    (tmp_path / "videos/broken.mkv").write_bytes(b"no video")
    return SampleList(tmp_path / "videos", tuple(Sample(name, "x") for name in (*NAMES, "broken.mkv")))


def same(store, other):
    """Whether two stores say the same of the same videos, bit by bit."""
    return (
        store.videos == other.videos
        and np.array_equal(store.features(), other.features())
        and store.failures == other.failures
        and store.labels == other.labels
        and store.to_pandas().astype(str).equals(other.to_pandas().astype(str))
    )


def test_every_video_belongs_to_one_shard_and_about_as_many_to_each():
    names = [f"class {i % 7}/video {i}.mp4" for i in range(4000)]
    counts = Counter(shard.index for name in names for shard in (Shard(i, 16) for i in range(16)) if shard.has(name))
    assert sum(counts.values()) == 4000
    assert set(counts) == set(range(16))
    assert max(counts.values()) < 1.3 * 250  # 5 standard deviations of a binomial count


@pytest.mark.parametrize("text", ["4/4", "9/4"])
def test_shards_count_from_zero(text):
    with pytest.raises(Pseudo3dError, match=r"shards count from 0; the last of 4 is 3"):
        parse_shard(text)


def test_no_shards_at_all():
    with pytest.raises(Pseudo3dError, match="there must be at least one"):
        parse_shard("0/0")


@pytest.mark.parametrize("text", ["", "3", "-1/4", "1/0x", "a/b", "1/2/3"])
def test_what_is_no_shard(text):
    with pytest.raises(Pseudo3dError, match=r"--shard takes i/n such as 0/4, got "):
        parse_shard(text)


def test_shards_together_are_the_store_of_one_process(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "one")
    reports = [extract(encoder, samples, tmp_path / "s", shard=shard) for shard in PARTS]
    assert sum(report.encoded for report in reports) == 8
    assert all(report.encoded > 0 for report in reports)
    assert sum(len(report.failures) for report in reports) == 1
    one, store = FeatureStore(tmp_path / "one"), FeatureStore(tmp_path / "s")
    assert same(store, one)
    assert store.clip_layers == one.clip_layers
    assert not list((tmp_path / "s").glob("part-*"))  # all of it lies in the shards
    again = [extract(encoder, samples, tmp_path / "s", shard=shard) for shard in PARTS]
    assert [report.encoded for report in again] == [0, 0]
    assert sum(report.already_done for report in again) == 8


def test_a_later_run_takes_the_shards_over(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "one")
    for shard in PARTS:
        extract(encoder, samples, tmp_path / "s", shard=shard)
    report = extract(encoder, samples, tmp_path / "s")
    assert (report.encoded, report.already_done, list(report.failures)) == (0, 8, ["broken.mkv"])
    assert same(FeatureStore(tmp_path / "s"), FeatureStore(tmp_path / "one"))
    assert len(list((tmp_path / "s").glob("part-*.parquet"))) == 1  # small ones made one
    assert not list((tmp_path / "s").glob("shards/*/part-*"))
    assert sharding.read_shards(open_folder(tmp_path / "s")) == []
    # and shards go on after that, with new videos only
    write(tmp_path / "videos/new.mkv", 77)
    more = SampleList(samples.root, (*samples.samples, Sample("new.mkv", "x")))
    assert sum(extract(encoder, more, tmp_path / "s", shard=shard).encoded for shard in PARTS) == 1
    assert len(FeatureStore(tmp_path / "s")) == 9
    extract(encoder, more, tmp_path / "s")
    assert len(FeatureStore(tmp_path / "s")) == 9


def test_a_changed_video_of_the_store_is_done_again_by_its_shard(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s")
    old = FeatureStore(tmp_path / "s").features()
    write(tmp_path / "videos/v3.mkv", 91)
    (tmp_path / "videos/v5.mkv").write_bytes(b"no video any more")
    reports = [extract(encoder, samples, tmp_path / "s", shard=shard) for shard in PARTS]
    assert sum(report.encoded for report in reports) == 1
    extract(encoder, samples, tmp_path / "fresh")
    fresh = FeatureStore(tmp_path / "fresh")
    for _ in range(2):  # as shards, then taken over
        store = FeatureStore(tmp_path / "s")
        assert same(store, fresh)
        assert sorted(store.failures) == ["broken.mkv", "v5.mkv"]
        assert not np.array_equal(store.features()[3], old[3])
        batches = dict(zip(*next(store.batches()), strict=True)) if len(list(store.batches())) == 1 else None
        assert batches is None or np.array_equal(batches["v3.mkv"], fresh.features()[3])
        extract(encoder, samples, tmp_path / "s")


def test_a_kill_while_shards_are_taken_over_loses_and_doubles_nothing(encoder, samples, tmp_path, monkeypatch):
    """Cut off before each of the writes of a run that takes over, then done again."""
    extract(encoder, SampleList(samples.root, samples.samples[:4]), tmp_path / "s")
    write(tmp_path / "videos/v2.mkv", 91)
    for shard in PARTS:
        extract(encoder, samples, tmp_path / "s", shard=shard)
    extract(encoder, samples, tmp_path / "fresh")
    fresh = FeatureStore(tmp_path / "fresh")
    kind = type(open_folder(tmp_path))
    inner = {name: getattr(kind, name) for name in ("write", "writing", "delete")}
    cut = 0
    while True:
        left = [cut]

        def counted(name, left=left):
            def call(self, *args):
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return inner[name](self, *args)

            return call

        for name in inner:
            monkeypatch.setattr(kind, name, counted(name))
        try:
            StoreWriter(tmp_path / "s", read_info(tmp_path / "s")).close()
            finished = True
        except KeyboardInterrupt:
            finished = False
        for name, function in inner.items():
            monkeypatch.setattr(kind, name, function)
        assert same(FeatureStore(tmp_path / "s"), fresh), cut
        if finished:
            break
        if cut % 2:  # the shard's process comes back first
            extract(encoder, samples, tmp_path / "s", shard=PARTS[cut % 4 // 2])
            assert same(FeatureStore(tmp_path / "s"), fresh), cut
        cut += 1
    assert cut >= 4
    assert same(FeatureStore(tmp_path / "s"), fresh)


def test_another_number_of_shards_is_refused_until_they_are_taken_over(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s", shard=Shard(0, 2))
    with pytest.raises(Pseudo3dError, match=r"holds what shard 0/2 has done.*let the 2 shards end.*p3d store compact"):
        extract(encoder, samples, tmp_path / "s", shard=Shard(0, 3))
    StoreWriter(tmp_path / "s", read_info(tmp_path / "s")).close()
    for i in range(3):
        extract(encoder, samples, tmp_path / "s", shard=Shard(i, 3))
    assert FeatureStore(tmp_path / "s").videos == NAMES


def test_two_processes_of_one_shard_and_a_run_beside_shards_are_told(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s", shard=PARTS[0])
    info = read_info(tmp_path / "s")
    with StoreWriter(tmp_path / "s", info, shard=PARTS[0]):
        with pytest.raises(Pseudo3dError, match=rf"0-of-2: is being written by process {os.getpid()}"):
            StoreWriter(tmp_path / "s", info, shard=PARTS[0])
        with pytest.raises(Pseudo3dError, match=rf"0-of-2: is being written by process {os.getpid()}"):
            StoreWriter(tmp_path / "s", info)
        with StoreWriter(tmp_path / "s", info, shard=PARTS[1]) as other:
            other.add_failure("late.mkv", "late.mkv: gone")
    assert "late.mkv" in FeatureStore(tmp_path / "s").failures


def test_a_shard_made_in_another_way_is_refused(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s", shard=PARTS[0])
    other = VideoEncoder(weights=encoder.weights, clips=3, device="cpu", dtype="float32", workers=0)
    with pytest.raises(Pseudo3dError, match=r"made with another clips \(2, now 3\)"):
        extract(other, samples, tmp_path / "s", shard=PARTS[1])


def test_a_shard_runs_the_way_the_first_one_does(encoder, samples, tmp_path):
    first = VideoEncoder(weights=encoder.weights, clips=2, device="cpu", dtype="float32", engine="eager", workers=0)
    extract(first, samples, tmp_path / "s", shard=PARTS[0])
    second = VideoEncoder(weights=encoder.weights, clips=2, device="cpu", workers=0)
    extract(second, samples, tmp_path / "s", shard=PARTS[1])
    assert (second.runner_.engine.name, second.describe()["dtype"]) == ("eager", "float32")
    assert len(FeatureStore(tmp_path / "s")) == 8


def test_shards_on_an_object_store(encoder, samples):
    out = "memory://bucket/sharded"
    for shard in PARTS:
        extract(encoder, samples, out, shard=shard)
    assert FeatureStore(out).videos == NAMES
    extract(encoder, samples, out)
    assert FeatureStore(out).videos == NAMES
    assert list(FeatureStore(out).failures) == ["broken.mkv"]


def test_a_shard_leaves_the_rows_of_the_store_alone(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s")
    anew = SampleList(samples.root, tuple(Sample(each.path, "y") for each in samples.samples))
    with pytest.raises(Pseudo3dError, match=r"have another label.*run the same command once without --shard"):
        extract(encoder, anew, tmp_path / "s", shard=Shard(0, 2))
    with pytest.raises(Pseudo3dError, match=r"a shard leaves the store itself alone and cannot prune it"):
        extract(encoder, samples, tmp_path / "s", prune=True, shard=Shard(0, 2))
    assert FeatureStore(tmp_path / "s").labels == ["x"] * 8


def test_a_folder_with_other_files_is_left_alone(encoder, samples, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/part-00000-x.parquet").write_bytes(b"somebody's")
    with pytest.raises(Pseudo3dError, match=r"holds other files and no store; give a new folder for --out"):
        extract(encoder, samples, tmp_path / "theirs", shard=PARTS[0])
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["part-00000-x.parquet"]


def test_a_url_with_a_slash_at_its_end_is_the_same_store(encoder, samples):
    extract(encoder, samples, "memory://bucket/slash/", shard=Shard(0, 1))
    assert FeatureStore("memory://bucket/slash").videos == NAMES
    assert FeatureStore("memory://bucket/slash/").videos == NAMES


def test_a_video_that_fails_after_a_killed_take_over_loses_its_row(encoder, samples, tmp_path, monkeypatch):
    shard = next(shard for shard in PARTS if shard.has("v2.mkv"))
    for each in PARTS:
        extract(encoder, samples, tmp_path / "s", shard=each)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(committed, "empty_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        StoreWriter(tmp_path / "s", read_info(tmp_path / "s"))
    monkeypatch.undo()
    (samples.root / "v2.mkv").write_bytes(b"no video any more")
    extract(encoder, samples, tmp_path / "s", shard=shard)
    for _ in range(2):
        store = FeatureStore(tmp_path / "s")
        assert sorted(store.failures) == ["broken.mkv", "v2.mkv"]
        assert store.videos == [name for name in NAMES if name != "v2.mkv"]
        StoreWriter(tmp_path / "s", read_info(tmp_path / "s")).close()


def test_shards_that_were_made_in_two_ways_are_not_read_as_one(encoder, samples, tmp_path):
    extract(encoder, samples, tmp_path / "s", shard=PARTS[0])
    info = json.loads((tmp_path / "s/store.json").read_text())
    info["engine"] = "another"
    (tmp_path / "s/store.json").write_text(json.dumps(info))
    with pytest.raises(
        Pseudo3dError, match=r"0-of-2: was made with another engine than the store.*run the shard again"
    ):
        FeatureStore(tmp_path / "s")


def test_small_parts_become_parts_of_the_usual_size_not_one_huge_one(tmp_path):
    with StoreWriter(tmp_path / "s", {}, rows_per_part=4, seconds=0.0) as writer:
        for i in range(30):
            writer.add(VideoFeatures(f"{i:02}.mp4", {"pool5": np.ones(3, np.float32)}, (0,), 9))
    rows = [part["rows"] for part in json.loads((tmp_path / "s/store.json").read_text())["manifest"]["parts"]]
    assert sum(rows) == 30
    assert max(rows) <= 8
    assert len(rows) <= 8
