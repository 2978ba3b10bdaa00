import itertools

import pytest
from tiny import small_config, write_two_classes

from pseudo3d import Pseudo3dError, VideoError
from pseudo3d.data.annotations import Sample, SampleList, read_samples
from pseudo3d.training.sides import check_videos, split_samples


def listed(*rows):
    return SampleList(None, tuple(Sample(path, path[0], split, group) for path, split, group in rows))


def sides_of(samples, **changes):
    sides = split_samples(samples, small_config(**changes))
    return {
        name: [sample.path for sample in side.samples] if side else None
        for name, side in (("train", sides.train), ("val", sides.val), ("test", sides.test))
    }


def test_the_datas_own_splits_are_kept():
    rows = [(f"{c}{i}", split, None) for c in "ab" for i, split in enumerate(["train", "train", "val", "test"])]
    assert sides_of(listed(*rows)) == {
        "train": ["a0", "a1", "b0", "b1"], "val": ["a2", "b2"], "test": ["a3", "b3"],
    }  # fmt: skip


def test_test_videos_never_choose():
    """Without a val split the best epoch is chosen on videos taken from train, test being what the list says."""
    rows = [(f"{c}{i}", "test" if i > 7 else "train", None) for c in "ab" for i in range(10)]
    sides = sides_of(listed(*rows))
    assert sides["test"] == ["a8", "a9", "b8", "b9"]
    assert len(sides["val"]) == 2
    assert sorted(sides["train"] + sides["val"]) == sorted(f"{c}{i}" for c in "ab" for i in range(8))


@pytest.mark.parametrize("seed", range(5))
def test_sides_share_no_group(seed):
    rows = [(f"{c}{i}", None, f"film{i // 2}") for c in "ab" for i in range(20)]
    samples = listed(*rows)
    group = {sample.path: sample.group for sample in samples.samples}
    sides = sides_of(samples, seed=seed)
    groups = [{group[path] for path in side} for side in sides.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10
    assert sorted(itertools.chain(*sides.values())) == sorted(group)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a0", "train", "x"), ("b0", "train", None), ("a1", "val", "x"), ("a2", "test", None), ("b2", "test", None)],
         r"1 groups are both in train and in val \(x\)"),
        ([("a0", "train", None), ("b0", "train", None), ("a1", "val", "x"), ("a2", "test", "x"), ("b2", "test", None)],
         r"1 groups are both in val and in test \(x\)"),
        ([("a0", "train", None), ("b0", "train", None), ("a1", "val", None), ("a2", "test", None), ("b2", None, None)],
         r"1 videos have no split \(b2\) though others have one"),
    ],
)  # fmt: skip
def test_splits_that_leak_or_have_holes(rows, message):
    with pytest.raises(Pseudo3dError, match=message):
        split_samples(listed(*rows), small_config())


def test_a_class_that_cannot_be_divided_means_no_validation(caplog):
    rows = [(f"{c}{i}", None, None) for c in "ab" for i in range(2)]
    assert sides_of(listed(*rows))["val"] is None
    assert "no validation, the last epoch will be the result: class a has one video" in caplog.text
    caplog.clear()
    assert sides_of(listed(*rows), val_fraction=0.0)["val"] is None
    assert caplog.text == ""  # it was asked for


def test_videos_are_looked_at(tmp_path):
    data = write_two_classes(tmp_path / "data")
    check_videos(split_samples(read_samples(data), small_config()))
    (data / "dark" / "bad.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"bad\.mp4: is not a video .*; training needs every video, so mend it"):
        check_videos(split_samples(read_samples(data), small_config()))
