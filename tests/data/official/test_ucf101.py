"""UCF101: the official lists, what is odd in the official files, and lists that are not what they are called."""

import shutil

import pytest
from official_sets import UCF_CLASSES, write_hmdb51, write_lines, write_ucf101

from pseudo3d import Pseudo3dError, read_video
from pseudo3d.data.official.ucf101 import parse_class_index, parse_ucf101, read_ucf101

CLASSES = ("Archery", "HandstandPushups")


@pytest.fixture(scope="module")
def ucf101(tmp_path_factory):
    return write_ucf101(tmp_path_factory.mktemp("ucf101"))


@pytest.fixture
def lists(tmp_path):
    """The lists alone; free to be spoilt."""
    return write_ucf101(tmp_path / "lists", videos=False) / "ucfTrainTestlist"


@pytest.mark.parametrize(("split", "group"), [("1", "g01"), ("2", "g08"), ("3", "g15")])
def test_three_splits(ucf101, split, group):
    got = read_ucf101(ucf101, split=split)
    assert (got.name, got.title, got.missing) == ("ucf101", f"UCF101, split {split}", ())
    assert got.samples.class_names == UCF_CLASSES[:3]
    train, test = got.samples.split("train").samples, got.samples.split("test").samples
    assert (len(train), len(test)) == (18, 6)
    assert {sample.group for sample in test} == {f"{name} {group}" for name in UCF_CLASSES[:3]}
    assert not {sample.group for sample in train} & {sample.group for sample in test}
    assert got.notes == ("an excerpt: 24 of 13,320 videos, 3 of 101 classes",)


def test_the_videos_are_real(ucf101):
    got = read_ucf101(ucf101).samples
    assert read_video(got.root / got.samples[0].path).frames.shape == (24, 40, 48, 3)


def test_all_videos_in_one_folder_and_the_lists_elsewhere(tmp_path):
    write_ucf101(tmp_path / "set", 1, groups=(1, 8), clips=1, flat=True)
    shutil.move(tmp_path / "set" / "ucfTrainTestlist", tmp_path / "lists")
    got = read_ucf101(tmp_path / "set" / "UCF-101", tmp_path / "lists")
    paths = [sample.path for sample in got.samples.samples]
    assert paths == ["v_ApplyEyeMakeup_g08_c01.avi", "v_ApplyEyeMakeup_g01_c01.avi"]
    assert got.samples.root == tmp_path / "set" / "UCF-101"


def test_handstand_pushups_as_the_official_files_have_them(tmp_path):
    lists = tmp_path / "lists"
    write_lines(lists / "classInd.txt", ["1 Archery", "2 HandstandPushups"], "\r\n")
    write_lines(lists / "trainlist01.txt", ["HandstandPushups/v_HandStandPushups_g08_c01.avi 2"])
    write_lines(lists / "testlist01.txt", ["HandstandPushups/v_HandstandPushups_g01_c01.avi"])
    for group in ("01", "08"):
        write_lines(tmp_path / "HandstandPushups" / f"v_HandStandPushups_g{group}_c01.avi", [group])
    got = read_ucf101(tmp_path)
    assert [sample.label for sample in got.samples.samples] == ["HandstandPushups"] * 2
    assert got.samples.samples[1].path == "HandstandPushups/v_HandStandPushups_g01_c01.avi"
    assert "1 files differ from the lists in upper and lower case" in got.notes[-1]


def test_missing_videos_are_named_and_left_out(tmp_path):
    write_ucf101(tmp_path, 1, groups=(1, 8))
    (tmp_path / "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi").unlink()
    got = read_ucf101(tmp_path)
    assert got.missing == ("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c02.avi",)
    assert (got.missing_from(("train",)), got.missing_from(("test",))) == (got.missing, ())
    assert len(got.samples) == 3
    assert got.notes[-1] == f"1 of 4 listed videos are not below {tmp_path}"


def test_lists_alone(lists):
    got = read_ucf101(lists)
    assert len(got.samples) == len(got.missing) == 24
    assert got.samples.samples[0].path == "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi"


def test_class_index():
    assert parse_class_index("1 A\r\n2 B\r\n\r\n") == ("A", "B")
    with pytest.raises(Pseudo3dError, match=r"c\.txt, line 1: class number 0 where 1 is due"):
        parse_class_index("0 A\n1 B\n", source="c.txt")
    with pytest.raises(Pseudo3dError, match=r"line 2: 'B' is no line 'number Class'"):
        parse_class_index("1 A\nB\n")
    with pytest.raises(Pseudo3dError, match=r"line 2: the class A is there twice"):
        parse_class_index("1 A\n2 A\n")
    with pytest.raises(Pseudo3dError, match=r"classInd\.txt names no classes"):
        parse_class_index("\n")


@pytest.mark.parametrize(
    ("line", "split", "words"),
    [
        (
            "Archery/v_Archery_g08_c01.avi",
            "train",
            r"list, line 1: .* has no class number; lists of the action detection",
        ),
        ("Archery/v_Archery_g08_c01.avi 3", "train", r"line 1: class number 3; the class file has 1 to 2"),
        ("Archery/v_Archery_g08_c01.avi 0", "train", r"line 1: class number 0; the class file has 1 to 2"),
        (
            "Archery/v_Archery_g08_c01.avi 2",
            "train",
            r"has class number 2, which is HandstandPushups in the class file",
        ),
        ("Archery/v_Archery_g08_c01.avi one", "train", r"line 1: .* is no line 'Class/video.avi number'"),
        ("Bowls/v_Bowls_g01_c01.avi", "test", r"line 1: the class Bowls of .* is not in the class file"),
        ("a.avi", "test", r"line 1: neither folder nor name of a.avi tells a class"),
        ("Arch\x1b[31mery/v_a.avi 1", "train", r"line 1: 'Arch\\x1b\[31mery/v_a\.avi' has class number 1"),
        ("Archery/v_Archery_g08_c01.avi " + "9" * 5000, "train", r"line 1: .* is no line"),
        ("biking/v_biking_01_01.avi 1", "train", r"named as in UCF11"),
        ("video_validation_0000051.mp4 1", "train", r"named as in THUMOS"),
        ("April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1", "train", r"looks like a line of HMDB51's lists"),
    ],
)
def test_malformed_lines(line, split, words):
    with pytest.raises(Pseudo3dError, match=words):
        parse_ucf101(line, CLASSES, split=split)


def test_a_video_listed_twice():
    with pytest.raises(Pseudo3dError, match=r"the list, line 2: .*_g08_c01\.avi is on line 1 already: keep"):
        parse_ucf101("Archery/v_Archery_g08_c01.avi 1\n" * 2, CLASSES, split="train")


def test_lists_of_two_splits(lists):
    shutil.copy(lists / "testlist02.txt", lists / "testlist01.txt")
    with pytest.raises(
        Pseudo3dError, match=r"trainlist01\.txt and testlist01\.txt share 6 videos .* two different splits"
    ):
        read_ucf101(lists)


def test_a_group_on_both_sides(lists):
    text = (lists / "trainlist01.txt").read_text()
    (lists / "trainlist01.txt").write_text("Archery/v_Archery_g01_c07.avi 3\n" + text)
    with pytest.raises(Pseudo3dError, match=r"share 1 groups \(Archery g01\)"):
        read_ucf101(lists)


def test_lists_of_another_split_by_name(lists):
    for side in ("train", "test"):
        shutil.copy(lists / f"{side}list02.txt", lists / f"{side}list01.txt")
    with pytest.raises(
        Pseudo3dError, match=r"trainlist01\.txt and testlist01\.txt hold split 2: its test groups are 8 to"
    ):
        read_ucf101(lists)


def test_other_division_and_class_order_are_noted(tmp_path):
    lists = write_ucf101(tmp_path, 2, groups=(1, 8), videos=False) / "ucfTrainTestlist"
    write_lines(lists / "classInd.txt", ["1 ApplyLipstick", "2 ApplyEyeMakeup"])
    write_lines(lists / "trainlist01.txt", ["ApplyLipstick/v_ApplyLipstick_g01_c01.avi 1"])
    write_lines(lists / "testlist01.txt", ["ApplyEyeMakeup/v_ApplyEyeMakeup_g23_c01.avi"])
    notes = read_ucf101(lists).notes
    assert notes[0] == "not the official division: testlist01.txt has groups 23"
    assert "not in alphabetical order" in notes[1]


def test_ucf50_is_recognised(tmp_path):
    lists = tmp_path
    write_lines(lists / "classInd.txt", [f"{i + 1} C{i:02}" for i in range(50)])
    write_lines(lists / "trainlist01.txt", ["C00/v_C00_g08_c01.avi 1"])
    write_lines(lists / "testlist01.txt", ["C00/v_C00_g01_c01.avi"])
    assert "50 classes, as many as UCF50 has; UCF101 has 101" in read_ucf101(lists).notes


def test_no_lists_and_empty_ones(lists):
    (lists / "classInd.txt").unlink()
    with pytest.raises(Pseudo3dError, match=r"the lists of UCF101 .* are not below .* as the action detection task ha"):
        read_ucf101(lists)
    write_lines(lists / "classInd.txt", [f"{i} {name}" for i, name in enumerate(UCF_CLASSES, 1)])
    write_lines(lists / "testlist01.txt", [])
    with pytest.raises(Pseudo3dError, match=r"testlist01\.txt lists no videos"):
        read_ucf101(lists)


def test_lists_of_hmdb51(tmp_path):
    with pytest.raises(Pseudo3dError, match=r"brush_hair_test_split1\.txt is a list of HMDB51"):
        read_ucf101(write_hmdb51(tmp_path, videos=False))
