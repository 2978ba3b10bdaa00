"""Lists of videos: each format, what a walk finds, and every way in which a list can be wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudo3d.data.annotations import (
    VIDEO_EXTENSIONS,
    Sample,
    SampleList,
    assign_groups,
    label_text,
    parse_csv,
    parse_folder,
    parse_groups,
    parse_list,
    read_samples,
)
from pseudo3d.errors import Pseudo3dError

ROOT = Path(__file__).parents[2]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


# --- The parsers ----------------------------------------------------------------------------------------------------


def test_folder_per_class():
    samples = parse_folder(["left/a.mp4", "right/b.mp4", "right/day/1/c.mp4", "d.mp4"])
    assert [(s.label, s.split) for s in samples] == [("left", None), ("right", None), ("right", None), (None, None)]


def test_folder_with_splits():
    names = ["train", "Val", "VALID", "validation", "test"]
    samples = parse_folder([f"{name}/left/sub/a.mp4" for name in names])
    assert [s.split for s in samples] == ["train", "val", "val", "val", "test"]
    assert {s.label for s in samples} == {"left"}


@pytest.mark.parametrize("stray", ["a.mp4", "train/a.mp4", "other/left/a.mp4"])
def test_one_file_outside_makes_the_first_folder_the_class(stray):
    samples = parse_folder(["train/left/a.mp4", "test/right/b.mp4", stray])
    assert [s.label for s in samples[:2]] == ["train", "test"]
    assert {s.split for s in samples} == {None}


def test_no_paths_are_no_samples():
    assert parse_folder([]) == parse_list([]) == []


def test_list_lines():
    lines = ["\ufeff# a comment", "", "a.mp4 left\r\n", "  two words/b c.avi \t 3  "]
    assert parse_list(lines) == [Sample("a.mp4", "left"), Sample("two words/b c.avi", "3")]


@pytest.mark.parametrize("line", ["a.mp4", "my video.mp4"])
def test_a_line_without_label(line):
    with pytest.raises(Pseudo3dError, match=rf"x.txt, line 2: '{line}' has no label: write 'path label'"):
        parse_list(["a.mp4 left", line], source="x.txt")


@given(
    st.lists(st.tuples(st.from_regex(r"[a-z][a-z ]{0,8}\.mp4", fullmatch=True), st.from_regex(r"\w+", fullmatch=True)))
)
def test_a_list_reads_back_what_was_written(rows):
    samples = parse_list([f"{path} {label}" for path, label in rows])
    assert [(s.path, s.label) for s in samples] == rows


def test_csv_columns_in_any_order():
    text = '\ufeffGroup,label,seconds,path,split\nfilm1,left,1,"a, b.mp4",valid\n\n,right,2,c.mp4,\n'
    assert parse_csv(text) == [Sample("a, b.mp4", "left", "val", "film1"), Sample("c.mp4", "right")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.csv: the first line must name the columns path and label; found: none"),
        ("path;label\na;b\n", "must name the columns path and label; found: path;label"),
        ("file,class\na,b\n", "found: file, class"),
        ("path,label\n\na.mp4,\n", "x.csv, line 3: the label is empty"),
        ("path,label\n,left\n", "x.csv, line 2: the path is empty"),
        ("path,label\na,b.mp4,left\n", "line 2: 3 cells for 2 columns"),
        ("path,label\na.mp4\n", "line 2: 1 cells for 2 columns"),
        ("path,label,split\na,l,dev\n", "line 2: unknown split 'dev': use train, val or test"),
        ('path,label\na,"l\n', "line 2: not a comma-separated table"),
    ],
)
def test_csv_errors(text, message):
    with pytest.raises(Pseudo3dError, match=re.escape(message)):
        parse_csv(text, source="x.csv")


def test_several_labels_of_a_video():
    table = parse_csv("path,label,split\na.mp4,run|walk,val\nb.mp4, run | jump ,\nc.mp4,10,\n")
    assert table == [
        Sample("a.mp4", "run", "val", more_labels=("walk",)),
        Sample("b.mp4", "run", more_labels=("jump",)),
        Sample("c.mp4", "10"),
    ]
    assert parse_list(["a.mp4 run|walk"]) == [Sample("a.mp4", "run", more_labels=("walk",))]
    assert [sample.labels for sample in (*table, Sample("d.mp4"))] == [("run", "walk"), ("run", "jump"), ("10",), ()]
    assert SampleList(Path("r"), tuple(table)).class_names == ("10", "jump", "run", "walk")


LABELS = st.lists(st.from_regex(r"[^\W_]+", fullmatch=True), min_size=1, max_size=4, unique=True)


@given(st.lists(LABELS, max_size=5))
def test_labels_read_back_as_they_were_written(rows):
    samples = [Sample(f"{i}.mp4", row[0], more_labels=tuple(row[1:])) for i, row in enumerate(rows)]
    lines = [f"{sample.path} {label_text(sample)}" for sample in samples]
    assert parse_list(lines) == samples
    assert parse_csv("path,label\n" + "".join(line.replace(" ", ",") + "\n" for line in lines)) == samples


@pytest.mark.parametrize("label", ["a|", "|a", "a||b", "|"])
def test_empty_labels(label):
    message = re.escape(f"line 2: '{label}' has an empty label: write 'a|b' for a video with the labels a and b")
    with pytest.raises(Pseudo3dError, match=f"x.txt, {message}"):
        parse_list(["1.mp4 a", f"2.mp4 {label}"], source="x.txt")
    with pytest.raises(Pseudo3dError, match=f"x.csv, {message}"):
        parse_csv(f"path,label\n2.mp4,{label}\n", source="x.csv")


def test_one_label_twice():
    with pytest.raises(Pseudo3dError, match=r"line 1: 'a\|b\|a' names a label twice: keep one"):
        parse_list(["1.mp4 a|b|a"])


def test_a_class_that_reads_as_two_cannot_be_written():
    (sample,) = parse_folder(["up|down/a.mp4"])
    assert sample.labels == ("up|down",)
    with pytest.raises(Pseudo3dError, match=r"a.mp4: the class 'up\|down' cannot be written to a list, where | stands"):
        label_text(sample)
    assert label_text(Sample("a.mp4")) is None


def test_groups_by_path_then_name_then_stem():
    samples = [
        Sample("x/a.mp4", "l"),
        Sample("y/a.mp4", "l"),
        Sample("y/b.mp4", "l"),
        Sample("c.avi", "l", group="old"),
    ]
    groups = parse_groups(["# groups", "x/a.mp4 1", "y/a.mp4 2", "a.mp4 9", "b.mp4 3", "b 9", "c 4", "unused 5"])
    assert [s.group for s in assign_groups(samples, groups)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("key", ["a", "a.mp4"])
def test_a_name_that_fits_two_videos(key):
    with pytest.raises(Pseudo3dError, match=rf"the group of '{key}' fits both x/a.mp4 and y/a.mp4: write their paths"):
        assign_groups([Sample("x/a.mp4"), Sample("y/a.mp4")], {key: "1"})


def test_videos_without_a_group_are_named():
    with pytest.raises(Pseudo3dError, match=re.escape("5 videos have no group (0.mp4, 1.mp4, 2.mp4, ...): add a line")):
        assign_groups([Sample(f"{i}.mp4") for i in range(5)], {})


def test_group_lines_that_are_wrong():
    with pytest.raises(Pseudo3dError, match=r"g.txt, line 1: 'a.mp4' has no group"):
        parse_groups(["a.mp4"], source="g.txt")
    with pytest.raises(Pseudo3dError, match=r"line 2: a has a group already \(1\)"):
        parse_groups(["a 1", "a 2"])


def test_class_names_are_in_order_and_kept_by_a_split():
    samples = (Sample("a", "10", "train"), Sample("b", "9", "train"), Sample("c", "9", "test"))
    videos = SampleList(Path("r"), samples)
    assert videos.class_names == ("9", "10")
    assert videos.split("test") == SampleList(Path("r"), samples[2:], ("9", "10"))
    assert len(videos.split("val")) == 0
    assert SampleList(Path("r"), (*samples, Sample("d", "x"))).class_names == ("10", "9", "x")


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_walked_in_order(tmp_path):
    touch(tmp_path, "b/2.MP4", "b/1.avi", "a/x/3.webm", "a/notes.txt", "a/.hidden.mp4", ".cache/4.mp4", "a/._5.mp4")
    videos = read_samples(tmp_path)
    assert [s.path for s in videos.samples] == ["a/x/3.webm", "b/1.avi", "b/2.MP4"]
    assert (videos.root, videos.class_names, len(videos)) == (tmp_path, ("a", "b"), 3)


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path, "data/a/1.mp4", "elsewhere/2.mp4")
    (tmp_path / "data/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/a/back").symlink_to(tmp_path / "data")
    (tmp_path / "data/a/gone.mp4").symlink_to(tmp_path / "nothing")
    assert [s.path for s in read_samples(tmp_path / "data").samples] == ["a/1.mp4", "a/gone.mp4", "b/2.mp4"]


def test_the_extensions_are_sorted_and_lower_case():
    assert list(VIDEO_EXTENSIONS) == sorted({e.lower() for e in VIDEO_EXTENSIONS})


def test_a_relative_folder_gives_an_absolute_root(tmp_path, monkeypatch):
    touch(tmp_path, "data/a/1.mp4")
    monkeypatch.chdir(tmp_path)
    assert read_samples("data") == read_samples(tmp_path / "data")


def test_a_list_starts_from_its_own_folder(tmp_path):
    touch(tmp_path, "lists/in side/1.mp4", "outside/2.mp4", "lists/3.xyz")
    text = f"./in side/1.mp4 l\n../outside/2.mp4 r\n{tmp_path}/lists/3.xyz r\n"
    videos = read_samples(write(tmp_path / "lists/all.lst", text))
    outside = (tmp_path / "outside/2.mp4").as_posix()
    assert {s.path: s.label for s in videos.samples} == {"in side/1.mp4": "l", outside: "r", "3.xyz": "r"}
    assert all((videos.root / s.path).is_file() for s in videos.samples)


def test_a_table_with_groups_from_a_file(tmp_path):
    touch(tmp_path, "1.mp4", "2.mp4")
    table = write(tmp_path / "all.csv", "path,label,group\n2.mp4,r,old\n1.mp4,l,old\n", "utf-8-sig")
    groups = write(tmp_path / "groups", "1 film1\n2 film2\n", "utf-8-sig")
    assert [s.group for s in read_samples(table).samples] == ["old", "old"]
    assert [s.group for s in read_samples(table, groups=groups).samples] == ["film1", "film2"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.txt", "a.mp4 l\n./a.mp4 r\n", "x.txt lists a.mp4 twice, as l and as r: keep one"),
        ("x.txt", "a.mp4 l\nsub/../a.mp4 l\n", "x.txt lists a.mp4 twice, both as l: keep one"),
        ("x.txt", "a.mp4 l\n./a.mp4 l|r\n", "x.txt lists a.mp4 twice, as l and as l|r: keep one"),
        ("x.txt", "\n# nothing\n", "lists no videos"),
        ("x.csv", "path,label\n", "lists no videos"),
        ("x.csv", "path,label\na,\n", "x.csv, line 2: the label is empty"),
        (
            "x.txt",
            "a.mp4 l\n" + "".join(f"{i}.mp4 l\n" for i in range(4)),
            "x.txt lists 4 files that do not exist (0.mp4, ",
        ),
        ("x.json", "{}", "x.json is no list of videos: give a folder or one of .csv .lst .txt"),
    ],
)
def test_lists_that_are_wrong(tmp_path, name, text, message):
    touch(tmp_path, "a.mp4")
    with pytest.raises(Pseudo3dError, match=re.escape(message)) as error:
        read_samples(write(tmp_path / name, text))
    assert "\n" not in str(error.value)


def test_a_list_that_is_not_text(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"a.mp4 l\nsch\xf6n.mp4 l\n")
    with pytest.raises(Pseudo3dError, match=r"x.txt is not UTF-8 text \(byte 11\)"):
        read_samples(tmp_path / "x.txt")


def test_nothing_there(tmp_path):
    with pytest.raises(Pseudo3dError, match=r"nowhere does not exist: give a folder of videos or one of .csv"):
        read_samples(tmp_path / "nowhere")
    with pytest.raises(Pseudo3dError, match=r"list.txt does not exist"):
        read_samples(tmp_path / "list.txt")
    with pytest.raises(Pseudo3dError, match=r"no videos in .*: looked for .3gp .asf"):
        read_samples(tmp_path)
    with pytest.raises(Pseudo3dError, match=r"groups.txt does not exist"):
        read_samples(touch(tmp_path, "l/a.mp4"), groups=tmp_path / "groups.txt")


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(Pseudo3dError, match=r"cannot read the folder .*b: Permission denied"):
        read_samples(tmp_path)


def test_reading_a_list_imports_nothing_heavy():
    code = (
        "import sys, pseudo3d.data.annotations; print(sorted({'torch', 'sklearn', 'numpy', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_list_that_lies_elsewhere(tmp_path):
    """Paths are then relative to the videos, so that the list may move."""
    for name in ("videos/a/1.mp4", "videos/b/2.mp4", "lists/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "lists/split.csv").write_text(
        f"path,label,split\n{tmp_path}/videos/a/1.mp4,a,train\n../videos/b/2.mp4,b,test\n"
    )
    listed = read_samples(tmp_path / "lists/split.csv")
    assert listed.root == tmp_path / "videos"
    assert [sample.path for sample in listed.samples] == ["a/1.mp4", "b/2.mp4"]
