"""Kinetics: tables of several releases, cut and whole videos, and versions that must not be mixed."""

import shutil

import pytest
from official_sets import KINETICS_CLASSES, write_kinetics, write_lines, youtube_id

from pseudo3d import Pseudo3dError, read_video
from pseudo3d.data.official.kinetics import Piece, parse_kinetics, read_kinetics

HEAD = "label,youtube_id,time_start,time_end,split\n"
ROW = "yoga,AAAAAAAAAAA,12,22,train\n"


def write_table(path, classes, *, split="train", prefix="c", first=0):
    """A table with one video for each of so many classes."""
    rows = [f"{prefix}{i:03},{youtube_id(path.name, i)},0,10,{split}" for i in range(first, first + classes)]
    return write_lines(path, [HEAD.strip(), *rows])


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory):
    return write_kinetics(tmp_path_factory.mktemp("kinetics"))


def test_cut_videos_in_class_folders(kinetics):
    got = read_kinetics(kinetics)
    assert (got.name, got.title, got.missing) == ("kinetics", "Kinetics", ())
    assert got.samples.class_names == KINETICS_CLASSES[:3]
    assert [len(got.samples.split(side)) for side in ("train", "val", "test")] == [9, 6, 6]
    sample = got.samples.split("train").samples[0]
    video = youtube_id("train", "abseiling", 0)
    assert (sample.path, sample.label, sample.group) == (
        f"train/abseiling/{video}_000000_000001.mp4", "abseiling", video
    )  # fmt: skip
    assert read_video(got.samples.root / sample.path).frames.shape == (24, 40, 48, 3)
    assert "an excerpt: 3 classes; Kinetics has 400, 600 or 700" in got.notes


@pytest.mark.parametrize("layout", [{"flat": True}, {"underscores": True}])
def test_other_folders(tmp_path, layout):
    got = read_kinetics(write_kinetics(tmp_path, 2, train=1, test=1, **layout))
    assert (len(got.samples), got.missing) == (6, ())


def test_segments_of_whole_videos(tmp_path):
    got = read_kinetics(write_kinetics(tmp_path, 1, train=1, test=1, whole=True))
    video = youtube_id("train", "abseiling", 0)
    assert got.samples.split("train").samples[0].path == f"train/abseiling/{video}.mp4#t=1,2"
    # A piece that is there too comes first.
    shutil.copy(tmp_path / f"train/abseiling/{video}.mp4", tmp_path / f"train/{video}_000001_000002.mp4")
    assert read_kinetics(tmp_path).samples.split("train").samples[0].path == f"train/{video}_000001_000002.mp4"


def test_a_test_table_without_labels(tmp_path):
    got = read_kinetics(write_kinetics(tmp_path, 2, train=1, test=1, labelled_test=False, videos=False))
    assert [sample.label for sample in got.samples.split("test").samples] == [None, None]
    assert "2 test videos have no label: they are held back" in got.notes
    assert len(got.missing) == 6


def test_columns_and_quotes():
    text = '\ufefflabel,youtube_id,time_start,time_end,split,is_cc\n"playing, loud",-A,0.0,10.0,val,1\n'
    assert parse_kinetics(text) == [Piece("-A", 0.0, 10.0, "playing, loud", "val")]
    assert parse_kinetics("youtube_id,time_start,time_end\nA,1,2\n", split="test") == [Piece("A", 1, 2, None, "test")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\na,b\n", r"t\.csv: the first line lacks the columns youtube_id, time_start, time_end"),
        (HEAD + "yoga,A,1,2\n", r"t\.csv, line 2: 4 cells for 5 columns"),
        (HEAD + ROW + "yoga,A,9,2,train\n", r"line 3: from '?9 to 2'? is no piece of a video"),
        (HEAD + "yoga,A,x,2,train\n", r"line 2: from x to 2 is no piece"),
        (HEAD + "yoga,A,0,nan,train\n", r"line 2: from 0 to nan is no piece"),
        (HEAD + "yoga,A,1,2,holdout\n", r"line 2: unknown split 'holdout'"),
        (HEAD + "yoga,,1,2,train\n", r"line 2: '' is no YouTube id"),
        (HEAD + ",A,1,2,train\n", r"line 2: no label; only a test table may go without"),
        (HEAD + 'yo"ga,A,1,2,"train"x\n', r"t\.csv, line 2: not a comma-separated table"),
    ],
)
def test_malformed_tables(text, words):
    with pytest.raises(Pseudo3dError, match=words):
        parse_kinetics(text, source="t.csv")


@pytest.mark.parametrize("classes", [400, 600, 700])
def test_versions_are_recognised(tmp_path, classes):
    write_table(tmp_path / "train.csv", classes)
    got = read_kinetics(tmp_path)
    assert got.title == f"Kinetics-{classes}"
    assert f"Kinetics-{classes}, by its number of classes" in got.notes


def test_versions_that_are_mixed(tmp_path):
    write_table(tmp_path / "train.csv", 400)
    write_table(tmp_path / "val.csv", 600, split="val")
    with pytest.raises(Pseudo3dError, match=r"train\.csv has 400 classes \(Kinetics-400\), val\.csv has 600 \(Kin"):
        read_kinetics(tmp_path)
    write_table(tmp_path / "val.csv", 3, split="val", first=399)
    with pytest.raises(
        Pseudo3dError, match=r"val\.csv has 3 classes, train\.csv has 400 .* which has not c400, c401; take"
    ):
        read_kinetics(tmp_path)


def test_a_piece_on_two_sides(tmp_path):
    write_lines(tmp_path / "train.csv", [(HEAD + ROW).strip()])
    write_lines(tmp_path / "val.csv", [(HEAD + ROW.replace("train", "val")).strip()])
    with pytest.raises(Pseudo3dError, match=r"AAAAAAAAAAA_000012_000022 is train in train\.csv and val in val\.csv"):
        read_kinetics(tmp_path)
    write_lines(tmp_path / "val.csv", [(HEAD + ROW).strip()])
    with pytest.raises(Pseudo3dError, match=r"train\.csv and val\.csv both list AAAAAAAAAAA_000012_000022: keep one"):
        read_kinetics(tmp_path)


def test_a_piece_twice_in_a_table(tmp_path):
    """Word for word, it counts once; with two labels, it is a mistake."""
    write_lines(tmp_path / "train.csv", [(HEAD + ROW + ROW).strip()])
    got = read_kinetics(tmp_path)
    assert len(got.samples) == len(got.missing) == 1
    assert "1 lines are there twice, word for word: taken once" in got.notes
    assert any(note.startswith("1 of 1 listed videos are not below") for note in got.notes)
    write_lines(tmp_path / "train.csv", [(HEAD + ROW + ROW.replace("yoga", "boxing")).strip()])
    with pytest.raises(
        Pseudo3dError, match=r"train\.csv lists AAAAAAAAAAA_000012_000022 twice, with yoga, boxing: keep"
    ):
        read_kinetics(tmp_path)


def test_videos_with_pieces_on_two_sides_are_no_group(tmp_path):
    write_lines(tmp_path / "train.csv", [(HEAD + ROW).strip()])
    write_lines(tmp_path / "val.csv", [(HEAD + "yoga,AAAAAAAAAAA,40,50,val").strip()])
    got = read_kinetics(tmp_path)
    assert [sample.group for sample in got.samples.samples] == [None, None]
    assert any(note.startswith("1 YouTube videos have pieces in several") for note in got.notes)


def test_names_of_another_version_are_noted(tmp_path):
    rows = ["hugging,AAAAAAAAAAA,0,10,train", "yoga,BBBBBBBBBBB,0,10,train"]
    write_lines(tmp_path / "train.csv", [HEAD.strip(), *rows])
    assert "the class 'hugging' is of Kinetics-400" in read_kinetics(tmp_path).notes


def test_replacements_of_corrupted_videos(tmp_path):
    write_kinetics(tmp_path, 1, train=1, test=1, flat=True)
    name = f"{youtube_id('train', 'abseiling', 0)}_000000_000001.mp4"
    (tmp_path / "replacement").mkdir()
    (tmp_path / "replacement" / name).write_bytes(b"better")
    got = read_kinetics(tmp_path)
    assert got.samples.split("train").samples[0].path == f"replacement/{name}"
    assert any(note.startswith("1 videos are taken from a replacement folder") for note in got.notes)


def test_no_tables(tmp_path):
    write_lines(tmp_path / "other.csv", ["a,b", "1,2"])
    with pytest.raises(Pseudo3dError, match=r"no table of Kinetics \(\.csv with the columns youtube_id, .*--lists"):
        read_kinetics(tmp_path)
    with pytest.raises(Pseudo3dError, match=r"gone is no folder: give the one that holds the tables"):
        read_kinetics(tmp_path / "gone")
    write_lines(tmp_path / "test.csv", ["youtube_id,time_start,time_end", "A,1,2"])
    with pytest.raises(Pseudo3dError, match="have no labels at all"):
        read_kinetics(tmp_path)
