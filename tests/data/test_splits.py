"""Two sides that share nothing, with every class on both."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.splits import check_no_leak, train_test_split
from pseudo3d.errors import Pseudo3dError


def make(*samples: Sample) -> SampleList:
    return SampleList(Path("videos"), samples)


def many(*counts: int) -> list[Sample]:
    return [Sample(f"{label}/{i}.mp4", str(label)) for label, count in enumerate(counts) for i in range(count)]


def test_listed_splits_decide():
    samples = make(*(Sample(f"{i}", label, split) for i, (label, split) in enumerate(
        [("l", "train"), ("r", "train"), ("l", "val"), ("r", "test")])))  # fmt: skip
    train, test = train_test_split(samples)
    assert [s.path for s in train.samples] == ["0", "1"]
    assert [s.path for s in test.samples] == ["3"]
    assert test.class_names == ("l", "r")


def test_val_stands_in_for_test():
    _, test = train_test_split(make(Sample("0", "l", "train"), Sample("1", "r", "train"), Sample("2", "l", "val")))
    assert [s.path for s in test.samples] == ["2"]


@given(st.lists(st.integers(2, 40), min_size=2, max_size=5), st.floats(0.05, 0.95), st.integers(0, 99))
def test_every_class_is_cut_at_the_fraction(counts, fraction, seed):
    samples = make(*many(*counts))
    train, test = train_test_split(samples, test_fraction=fraction, seed=seed)
    assert sorted(s.path for s in (*train.samples, *test.samples)) == sorted(s.path for s in samples.samples)
    check_no_leak(train.samples, test.samples)
    for label, total in enumerate(counts):
        tested = sum(s.label == str(label) for s in test.samples)
        assert 1 <= tested <= total - 1
        assert abs(tested - min(max(fraction * total, 1), total - 1)) <= 0.5 + 1e-6


def test_a_video_with_several_labels_counts_as_one_of_its_first():
    plain = many(20, 20)
    several = [replace(sample, more_labels=("also",) if i % 3 else ()) for i, sample in enumerate(plain)]
    for one, other in zip(train_test_split(make(*plain)), train_test_split(make(*several)), strict=True):
        assert [s.path for s in one.samples] == [s.path for s in other.samples]
    # One first label only, yet two classes
    train, test = train_test_split(make(*(Sample(f"{i}", "a", more_labels=("b",) * (i % 2)) for i in range(8))))
    assert (len(train), len(test)) == (6, 2)
    assert train.class_names == ("a", "b")


def test_further_labels_must_have_been_trained_on():
    both = Sample("2", "l", "test", more_labels=("r", "new"))
    with pytest.raises(Pseudo3dError, match=r"classes to test on have no video in train \(new\): add some"):
        train_test_split(make(Sample("0", "l", "train", more_labels=("r",)), Sample("1", "l", "train"), both))


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole(seed):
    samples = make(*(Sample(f"{i}", "lr"[i % 2], group=f"g{i // 7}") for i in range(200)))
    train, test = train_test_split(samples, seed=seed)
    check_no_leak(train.samples, test.samples)
    tested = Counter(s.label for s in test.samples)
    assert all(22 <= tested[label] <= 28 for label in "lr")


def test_the_seed_decides():
    samples = make(*many(20, 20))
    assert train_test_split(samples, seed=3) == train_test_split(samples, seed=3)
    assert train_test_split(samples, seed=3) != train_test_split(samples, seed=4)


def test_two_videos_of_a_class_go_to_both_sides():
    samples = make(*(Sample(f"{label}{i}", label, group=f"{i}") for label in "abc" for i in range(2)))
    train, test = train_test_split(samples)
    assert (len(train), len(test)) == (3, 3)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([*many(3, 3), Sample("x/a.mp4")], "1 videos have no class (x/a.mp4): put each into a folder"),
        (many(3), "there is one class only (0): at least 2 are needed"),
        ([], "there is one class only (none)"),
        (many(3, 1), "class 1 has one video (1/0.mp4): at least 2 are needed, one on each side; add videos or remove"),
        (
            [*many(3), Sample("a", "l", group="g"), Sample("b", "l", group="g")],
            "all 2 videos of class l are in the group g: at least 2 groups are needed",
        ),
        (
            [*many(3), Sample("a.mp4#t=0,1", "l"), Sample("a.mp4#t=2,3", "l")],
            "all 2 videos of class l are parts of a.mp4: at least 2 groups are needed",
        ),
        (
            [Sample("train/l/a", "train"), Sample("test/l/b", "test")],
            "the classes would be test, train: for splits, every",
        ),
        ([Sample("a", "l", "train"), Sample("b", "r")], "1 videos have no split (b) though others have one"),
        ([Sample("a", "l", "train"), Sample("b", "r", "train")], "no video is in the split test or val: add some"),
        ([Sample("a", "l", "test"), Sample("b", "r", "test")], "no video is in the split train: add some"),
        (
            [Sample("a", "l", "train"), Sample("b", "r", "test")],
            "classes to test on have no video in train (r): add some",
        ),
        (
            [Sample(p, c, s, "g") for p, c, s in [("a", "l", "train"), ("b", "r", "train"), ("c", "l", "test")]],
            "1 groups are both in train and in test (g): keep them on one side",
        ),
        (
            # a links groups 1 and 2, b 2 and 3, c 1 and 3: two of the three groups are on one side, with all of a class
            [Sample(f"{c}{g}", c, group=g) for c, gs in (("a", "12"), ("b", "23"), ("c", "13")) for g in gs],
            "no split by group has every class on both sides",
        ),
    ],
)
def test_what_cannot_be_split(samples, message):
    with pytest.raises(Pseudo3dError, match=re.escape(message)):
        train_test_split(make(*samples))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1.0, 25.0])
def test_fractions_out_of_range(fraction):
    with pytest.raises(Pseudo3dError, match="test_fraction must be between 0 and 1"):
        train_test_split(make(*many(3, 3)), test_fraction=fraction)


def test_leaks_are_named():
    one, two = Sample("a", "l", group="g"), Sample("b", "l", group="g")
    with pytest.raises(Pseudo3dError, match=r"1 videos are both in train and in test \(a\)"):
        check_no_leak([one], [one])
    with pytest.raises(Pseudo3dError, match=r"1 groups are both in train and in test \(g\)"):
        check_no_leak([one], [two])
    check_no_leak([Sample("a", "l")], [Sample("b", "l")])
