"""``p3d data``: the sets, the check and its exit codes."""

import csv
import shutil

import pytest
from official_more_sets import write_activitynet, write_aslan
from official_sets import write_clip, write_hmdb51, write_kinetics, write_lines, write_sports1m, write_ucf101
from scipy.io import loadmat, savemat
from tiny import mistake, p3d

from pseudo3d.data.official import DATASETS

ONE = ("--workers", "1")


def test_list_names_every_set(capsys):
    code, out, _ = p3d(capsys, "data", "list")
    assert code == 0
    for name in (*DATASETS, "aslan", "folder"):
        assert any(line.startswith(f"{name}: ") for line in out.splitlines())
    assert "trainlist01.txt" in out


def test_a_sound_set(capsys, tmp_path):
    write_ucf101(tmp_path, 1, groups=(1, 8, 15, 22), clips=1)
    write_clip(tmp_path / "UCF-101" / "more.avi", 0)
    code, out, err = p3d(capsys, "data", "check", "ucf101", "--data", tmp_path, *ONE)
    assert (code, err) == (0, [])
    lines = out.splitlines()
    assert lines[0] == "UCF101, splits 1, 2, 3: 4 videos"
    assert lines[1] == "note: an excerpt: 4 of 13,320 videos, 1 of 101 classes"
    assert lines[2] == "note: 1 further videos below the folder are in no list, or marked as not used"
    assert [line.split()[-1] for line in lines[3:]] == ["0"] * 6


def test_problems_are_counted_named_and_written(capsys, tmp_path):
    place = write_hmdb51(tmp_path / "set", 1) / "hmdb51_org" / "brush_hair"
    first, second, third, _ = sorted(place.iterdir())
    shutil.copy(first, second)
    third.unlink()
    table = tmp_path / "problems.csv"
    write_lines(table, ["kind,path,reason", "missing,of,before"])  # an earlier one is replaced
    code, out, _ = p3d(
        capsys, "data", "check", "hmdb51", "--data", tmp_path / "set", "--splits", "1", "--out", table, "--decode", *ONE
    )
    assert code == 1
    assert "missing                         1  brush_hair/#20_Film_2_&_Son_(HD);_" in out
    assert "duplicate across splits         1  hmdb51_org/brush_hair/#20_Film_1" in out
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["missing", "duplicate across splits"]
    assert rows[1]["reason"].endswith("this one is in train, the other in test")


@pytest.mark.parametrize(
    ("name", "write", "dead"),
    [("sports1m", write_sports1m, 2), ("kinetics", write_kinetics, 0), ("activitynet", write_activitynet, 0)],
)
def test_other_sets(capsys, tmp_path, name, write, dead):
    write(tmp_path, train=1 + bool(dead), test=1 + bool(dead), classes=1)
    code, out, _ = p3d(capsys, "data", "check", name, "--data", tmp_path, *ONE)
    assert code == (1 if dead else 0), out
    assert f"missing {dead:>25}" in out


def test_pairs_that_are_marked_otherwise_than_their_actions_say(capsys, tmp_path):
    write_aslan(tmp_path)
    command = ("data", "check", "aslan", "--data", tmp_path, *ONE)
    code, out, _ = p3d(capsys, *command)
    assert (code, f"mislabelled {0:>21}" in out) == (0, True)
    matrix = loadmat(tmp_path / "View2.mat")["action_splits_pairs"]
    matrix[[0, 4], 2, 7] = 0  # of the pairs that are the same
    savemat(tmp_path / "View2.mat", {"action_splits_pairs": matrix})
    first, fifth = (" ".join(f"{int(number):04}" for number in matrix[row, :2, 7]) for row in (0, 4))
    code, out, _ = p3d(capsys, *command, "--out", tmp_path / "problems.csv")
    assert code == 1
    assert f"mislabelled {2:>21}  fold 8, pair 1: {first}, fold 8, pair 5: {fifth}" in out
    kind = int(matrix[0, 3, 7])
    assert f"the first: fold 8, pair 1: {first}: marked as not the same, its actions are {kind} and {kind}" in out


def test_ones_own_data(capsys, two_classes, tmp_path):
    assert p3d(capsys, "data", "check", "folder", "--data", two_classes, *ONE)[0] == 0
    rows = [f"{two_classes / 'dark/dark0.mkv'},bright", f"{two_classes / 'dark/dark1.mkv'},dark"]
    write_lines(tmp_path / "own.csv", ["path,label", *rows, f"{two_classes / 'bright/bright0.mkv'},bright"])
    code, out, _ = p3d(capsys, "data", "check", "folder", "--data", tmp_path / "own.csv", *ONE)
    assert code == 1
    assert "mislabelled                     1  dark/dark0.mkv" in out
    assert "the lists say bright, it lies in the folder of dark; --out problems.csv writes all" in out


def test_mistakes(capsys, tmp_path):
    check = ("data", "check")
    assert "no command 'chekc'; did you mean 'check'" in mistake(capsys, "data", "chekc")
    assert "no data set 'ucf'; there are ucf101, hmdb51" in mistake(capsys, *check, "ucf", "--data", tmp_path)
    assert "--data must be given" in mistake(capsys, *check, "ucf101")
    assert "the lists of UCF101" in mistake(capsys, *check, "ucf101", "--data", tmp_path)
    assert "no split '9'" in mistake(capsys, *check, "ucf101", "--data", tmp_path, "--splits", "9,1")
    write_lines(tmp_path / "mine.csv", ["path,label"])
    for out, words in (("mine.csv", "no table of problems"), ("no/a.csv", "there is no folder"), ("", "is a folder")):
        assert words in mistake(capsys, *check, "folder", "--data", tmp_path, "--out", tmp_path / out)
    assert (tmp_path / "mine.csv").read_text() == "path,label\n"
    assert "are for official data sets" in mistake(capsys, *check, "folder", "--data", tmp_path, "--splits", "1")
    write_ucf101(tmp_path, videos=False)
    assert "none of the 24 listed videos is below" in mistake(capsys, *check, "ucf101", "--data", tmp_path, *ONE)
