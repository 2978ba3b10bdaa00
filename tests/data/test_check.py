"""What ``p3d data check`` finds in the files of a set."""

import shutil

import pytest
from official_sets import write_clip, write_ucf101
from videos import damaged

from pseudo3d import Pseudo3dError
from pseudo3d.data.annotations import Sample, SampleList, read_samples
from pseudo3d.data.check import (
    KINDS,
    Listed,
    Problem,
    check_videos,
    duplicates,
    files_of,
    leading_class,
    mislabelled,
    unreadable,
)
from pseudo3d.data.official import read_official
from pseudo3d.files import sha256_of
from pseudo3d.video.pool import DecoderPool


@pytest.fixture(scope="module")
def pool():
    with DecoderPool(1) as pool:
        yield pool


@pytest.fixture
def ucf101(tmp_path):
    return write_ucf101(tmp_path, 2, groups=(1, 8), clips=1)


def listed(*paths, labels=("run",), sides=(("train",),)):
    return [Listed(path, labels, sides) for path in paths]


def test_a_sound_set_has_no_problems(ucf101, pool):
    seen = []
    splits = [read_official("ucf101", ucf101).samples]
    assert check_videos(splits, pool, on_video=lambda: seen.append(1)) == []
    assert check_videos(splits, pool, decode=True) == []
    assert len(seen) == 4


def test_every_kind_in_one_set(ucf101, pool):
    place = ucf101 / "UCF-101"
    eyes, lips = place / "ApplyEyeMakeup", place / "ApplyLipstick"
    shutil.copy(eyes / "v_ApplyEyeMakeup_g08_c01.avi", eyes / "v_ApplyEyeMakeup_g01_c01.avi")
    (lips / "v_ApplyLipstick_g01_c01.avi").rename(eyes / "v_ApplyLipstick_g01_c01.avi")
    (lips / "v_ApplyLipstick_g08_c01.avi").write_bytes(b"")
    got = read_official("ucf101", ucf101)
    problems = check_videos([got.samples], pool, missing=("ApplyLipstick/v_ApplyLipstick_g08_c02.avi",))
    assert [(problem.kind, problem.path.rpartition("/")[2]) for problem in problems] == [
        ("missing", "v_ApplyLipstick_g08_c02.avi"),
        ("unreadable", "v_ApplyLipstick_g08_c01.avi"),
        ("duplicate across splits", "v_ApplyEyeMakeup_g01_c01.avi"),
        ("mislabelled", "v_ApplyLipstick_g01_c01.avi"),
    ]
    assert problems[1].reason == "the file is empty (0 bytes); copy or download it again"
    assert problems[2].reason.endswith("v_ApplyEyeMakeup_g08_c01.avi; this one is in test, the other in train")
    assert problems[3].reason == "the lists say ApplyLipstick, it lies in the folder of ApplyEyeMakeup"
    assert [KINDS.index(problem.kind) for problem in problems] == sorted(KINDS.index(p.kind) for p in problems)


def test_a_set_of_which_nothing_is_there(ucf101, pool):
    shutil.rmtree(ucf101 / "UCF-101")
    got = read_official("ucf101", ucf101)
    with pytest.raises(Pseudo3dError, match=r"none of the 4 listed videos is below .*; check the folder"):
        check_videos([got.samples], pool, missing=got.missing)
    with pytest.raises(Pseudo3dError, match="no split to check"):
        check_videos([], pool)


def test_damage_in_the_middle_shows_when_all_is_decoded(tmp_path, pool):
    path = damaged(tmp_path)
    files = listed(path.name, "good.mp4", "gone.mp4")
    found = unreadable(tmp_path, files, pool, decode=True)
    assert [(problem.kind, problem.path) for problem in found] == [("damaged", path.name), ("unreadable", "gone.mp4")]
    assert "of its packets" in found[0].reason
    assert found[1].reason == "there is no such file; check the path"


def test_a_video_that_is_cut_off(tmp_path, pool):
    path = write_clip(tmp_path / "a.mp4", 0)
    path.write_bytes(path.read_bytes()[:200])
    assert unreadable(tmp_path, listed("a.mp4"), pool)[0].kind == "unreadable"


def test_duplicates(tmp_path):
    for name, content in (("a", b"1234"), ("b", b"4321"), ("c", b"1234"), ("d", b""), ("e", b""), ("f", b"1234")):
        (tmp_path / name).write_bytes(content)
    files = [
        Listed("a", ("run",), (("train",), ("train",))),
        Listed("b", ("run",), (("test",), ("train",))),
        Listed("c", ("sit",), ((), ("train",))),
        Listed("d", ("sit",), (("train",), ("train",))),
        Listed("e", ("sit",), (("train",), ("train",))),
        Listed("f", ("sit",), (("train",), ("test",))),
    ]
    assert duplicates(tmp_path, files) == [
        Problem("duplicate", "c", "the same content as a, which is of the class run"),
        Problem(
            "duplicate across splits",
            "f",
            "the same content as a, which is of the class run; this one is in test, the other in train",
        ),
    ]


def test_a_file_that_cannot_be_read_is_no_duplicate(tmp_path, monkeypatch):
    """Such a file is told as unreadable, and the others are compared nevertheless."""
    files = [Listed(name, ("run",), (("train",),)) for name in "abc"]
    for file in files:
        (tmp_path / file.path).write_bytes(b"1234")

    def denied(path):
        if path.name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return sha256_of(path)

    monkeypatch.setattr("pseudo3d.data.check.sha256_of", denied)
    assert duplicates(tmp_path, files) == [Problem("duplicate", "c", "the same content as b")]


def test_segments_of_one_file_are_looked_at_once(tmp_path, pool):
    write_clip(tmp_path / "a.mp4", 0)
    samples = (Sample("a.mp4#t=0,0.5", "run", "train"), Sample("a.mp4#t=0.5,1", "sit", "train"))
    seen = []
    assert check_videos([SampleList(tmp_path, samples)], pool, on_video=lambda: seen.append(1)) == []
    assert len(seen) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_parts_of_one_file_on_two_sides(tmp_path, pool, order):
    write_clip(tmp_path / "a.mp4", 0)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "b.mp4")
    parts = (Sample("a.mp4#t=0,0.5", "run", "train"), Sample("a.mp4#t=0.5,1", "run", "test"))[::order]
    splits = [SampleList(tmp_path, (*parts, Sample("b.mp4", "run", "train"))), SampleList(tmp_path, parts[:1])]
    first, second = ("train", "test")[::order]
    assert check_videos(splits, pool) == [
        Problem("duplicate across splits", "a.mp4", f"parts of it are in {first} and in {second}"),
        Problem(
            "duplicate across splits", "b.mp4", "the same content as a.mp4; this one is in train, the other in test"
        ),
    ]


def test_a_file_whose_name_looks_like_a_segment(tmp_path, pool):
    write_clip(tmp_path / "a.mp4", 0).rename(tmp_path / "a.mp4#t=1,2")
    samples = SampleList(tmp_path, (Sample("a.mp4#t=1,2", "run"),))
    assert [file.path for file in files_of([samples])] == ["a.mp4#t=1,2"]
    assert check_videos([samples], pool) == []


def test_mislabelled():
    classes = ("air drumming", "yoga")
    files = [
        *listed("train/air_drumming/a.mp4", labels=("air drumming",)),
        *listed("Air Drumming/yoga/a.mp4", labels=("yoga",)),  # the nearest folder counts
        *listed("yoga/b.mp4", labels=()),
        *listed("c.mp4", labels=("yoga",)),
        *listed("yoga/d.mp4", labels=("air drumming", "yoga")),
    ]
    assert mislabelled(files, classes) == []
    pushups = listed("HandstandPushups/v_HandStandPushups_g01_c01.avi", labels=("HandstandPushups",))
    assert mislabelled(pushups, ("HandstandPushups",), lambda path, classes: ("HandStandPushups",)) == []
    wrong = listed("air-drumming/e.mp4", labels=("yoga",))
    assert mislabelled(wrong, classes)[0].reason == "the lists say yoga, it lies in the folder of air drumming"
    named = listed("x/yoga_1.mp4", labels=("air drumming",))
    reason = "the lists say air drumming, its name says yoga"
    assert mislabelled(named, classes, leading_class) == [Problem("mislabelled", "x/yoga_1.mp4", reason)]


def test_what_a_name_begins_with():
    classes = ("run", "run fast", "9")
    assert leading_class("a/run.mp4", classes) == ("run",)
    assert leading_class("a/run_fast.mp4", classes) == ()  # two classes fit
    assert leading_class("a/my_run.mp4", classes) == ()
    assert leading_class("a/9_03.mp4", classes) == ()  # a number may count anything


def test_a_folder_of_ones_own(two_classes, pool):
    samples = read_samples(two_classes)
    assert check_videos([samples], pool, classes_in_name=leading_class) == []
