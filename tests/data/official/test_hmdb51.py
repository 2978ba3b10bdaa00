"""HMDB51: lists of 0, 1 and 2 per class, names with odd characters, films as groups, the stabilised version."""

import shutil

import pytest
from official_sets import HMDB_CLASSES, write_hmdb51, write_lines, write_ucf101

from pseudo3d import Pseudo3dError, read_video
from pseudo3d.data.official.hmdb51 import classes_in_name, film_of, parse_hmdb51, read_hmdb51

CLIP = "_clap_u_nm_np1_fr_goo_0.avi"


@pytest.fixture(scope="module")
def hmdb51(tmp_path_factory):
    return write_hmdb51(tmp_path_factory.mktemp("hmdb51"))


@pytest.fixture
def lists(tmp_path):
    return write_hmdb51(tmp_path / "lists", videos=False) / "testTrainMulti_7030_splits"


@pytest.mark.parametrize(("split", "tested"), [("1", "Film_0"), ("2", "Film_1"), ("3", "Film_2")])
def test_three_splits(hmdb51, split, tested):
    got = read_hmdb51(hmdb51, split=split)
    assert (got.name, got.title, got.missing) == ("hmdb51", f"HMDB51, split {split}", ())
    assert got.samples.class_names == HMDB_CLASSES[:3]
    test = got.samples.split("test").samples
    assert {sample.group for sample in test} == {f"{name} #20_{tested}_&_Son_(HD);" for name in HMDB_CLASSES[:3]}
    assert len(got.samples.split("train")) == 6
    assert len(got.samples) == 9  # those marked 0 are left out
    assert "3 videos are marked 0: neither training nor test in split" in got.notes[1]
    assert got.notes[-1] == "an excerpt: 9 of 5,100 videos, 3 of 51 classes"


def test_names_with_odd_characters_are_read(hmdb51):
    got = read_hmdb51(hmdb51).samples
    assert "#20_Film_0_&_Son_(HD);" in got.samples[0].path
    assert read_video(got.root / got.samples[0].path).frames.shape == (24, 40, 48, 3)


def test_lines():
    names = [f"{film}{CLIP}" for film in ("A", "[b]_!!", "name with spaces")]
    text = "\r\n".join(f"{name} {mark} " for name, mark in zip(names, "120", strict=True))
    samples = parse_hmdb51(text, "clap")
    assert [sample.split for sample in samples] == ["train", "test", None]
    assert [sample.path for sample in samples] == [f"clap/{name}" for name in names]
    assert [sample.group for sample in samples] == ["clap A", "clap [b]_!!", "clap name with spaces"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.avi 3", r"x\.txt, line 2: the mark '3'; HMDB51 has 1 \(training\), 2 \(test\), 0 \(neither\)"),
        ("a.avi", r"x\.txt, line 2: 'a.avi' is no line 'name.avi 0|1|2'"),
        ("1", r"line 2: '1' is no line"),
        ("first.avi 2", r"x\.txt, line 2: clap/first\.avi is on line 1 already: keep"),
    ],
)
def test_malformed_lines(line, words):
    with pytest.raises(Pseudo3dError, match=words):
        parse_hmdb51(f"first.avi 1\n{line}\n", "clap", source="x.txt")


def test_films_and_classes_of_names():
    assert film_of("Two_draw_sword_f_cm_np1_fr_med_0.avi", "draw_sword") == "Two"
    assert film_of("Two_draw_sword_f_cm_np1_fr_med_0.avi", "hit") is None
    assert film_of("brushing_hair_2_brush_hair_h_nm_np1_ba_med_2_stab.avi", "brush_hair") == "brushing_hair_2"
    assert film_of("_clap_u_nm_np1_fr_goo_0.avi", "clap") is None
    assert classes_in_name("Two_draw_sword_f_cm_np1_fr_med_0.avi", HMDB_CLASSES) == ()


def test_films_that_the_lists_part_are_no_group(lists):
    write_lines(lists / "catch_test_split1.txt", [f"A_catch_f_cm_np1_fr_med_{i}.avi {i + 1}" for i in (0, 1)])
    got = read_hmdb51(lists)
    assert [sample.group for sample in got.samples.samples if sample.label == "catch"] == [None, None]
    assert "1 films have clips of one class in training and test by the official lists: no group" in got.notes


def test_names_without_a_film_are_counted(lists):
    write_lines(lists / "catch_test_split1.txt", ["a.avi 1", "b.avi 2"])
    assert "2 names do not tell their film: no group is known for them" in read_hmdb51(lists).notes


def test_the_official_counts_need_no_note(tmp_path):
    for number in range(51):
        marks = [1] * 70 + [2] * 30 + [0] * 7
        lines = [f"f{i}_c{number}_f_cm_np1_fr_med_0.avi {mark}" for i, mark in enumerate(marks)]
        write_lines(tmp_path / f"c{number}_test_split2.txt", lines)
    notes = read_hmdb51(tmp_path, split="2").notes
    assert [note.partition(":")[0] for note in notes] == [
        "classes in alphabetical order",
        "357 videos are marked 0",
        f"5,100 of 5,100 listed videos are not below {tmp_path}",
    ]


def test_the_stabilised_version(tmp_path):
    write_hmdb51(tmp_path, 1)
    for path in sorted((tmp_path / "hmdb51_org").rglob("*.avi")):
        path.rename(path.with_name(f"{path.stem}_stab.avi"))
    got = read_hmdb51(tmp_path)
    assert got.missing == ()
    assert all(sample.path.endswith("_stab.avi") for sample in got.samples.samples)
    assert "the stabilised version of the videos" in got.notes


def test_the_stabilised_version_by_its_folder(tmp_path):
    write_hmdb51(tmp_path, 1)
    shutil.move(tmp_path / "hmdb51_org", tmp_path / "hmdb51_sta")
    assert "the stabilised version of the videos" in read_hmdb51(tmp_path).notes


def test_lists_that_are_not_there(tmp_path, lists):
    with pytest.raises(Pseudo3dError, match=r"lists of HMDB51 .* are not below .*list0\d\.txt is a list of UCF101"):
        read_hmdb51(write_ucf101(tmp_path / "other", videos=False))
    (lists / "catch_test_split3.txt").unlink()
    with pytest.raises(Pseudo3dError, match=r"no list of split 3 for 1 classes \(catch\)"):
        read_hmdb51(lists, split="3")
    shutil.copytree(lists, lists.parent / "copy")
    with pytest.raises(Pseudo3dError, match=r"lists of HMDB51 are in 2 folders .*; choose one with --lists"):
        read_hmdb51(lists.parent)


def test_no_test_videos(lists):
    for name in HMDB_CLASSES[:3]:
        write_lines(lists / f"{name}_test_split1.txt", [f"A_{name}_f_cm_np1_fr_med_0.avi 1"])
    with pytest.raises(Pseudo3dError, match="mark no video for test: take the official ones"):
        read_hmdb51(lists)


def test_jhmdb_is_recognised(tmp_path):
    for number in range(21):
        write_lines(tmp_path / f"c{number}_test_split1.txt", ["a.avi 1", "b.avi 2"])
    assert "21 classes, as many as JHMDB has; HMDB51 has 51" in read_hmdb51(tmp_path).notes
