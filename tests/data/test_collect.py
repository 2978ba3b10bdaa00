from pathlib import Path

import pytest

from pseudo3d import Pseudo3dError
from pseudo3d.data.collect import collect_samples


@pytest.fixture
def folder(tmp_path):
    for name in ("left/a.mp4", "left/b.avi", "right/c.mkv", "right/notes.doc", "other.bin"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "videos"


def paths(samples):
    return [sample.path for sample in samples.samples]


def test_one_folder_has_labels(folder):
    samples = collect_samples([folder])
    assert samples.root == folder
    assert [(s.path, s.label) for s in samples.samples] == [
        ("left/a.mp4", "left"),
        ("left/b.avi", "left"),
        ("right/c.mkv", "right"),
    ]


def test_one_list_has_labels(folder):
    (folder / "some.txt").write_text("right/c.mkv r\nother.bin o\n")
    samples = collect_samples([folder / "some.txt"])
    assert [(s.path, s.label) for s in samples.samples] == [("other.bin", "o"), ("right/c.mkv", "r")]


def test_files_have_none_and_start_from_the_nearest_folder(folder):
    samples = collect_samples([folder / "right/c.mkv", folder / "left/a.mp4"])
    assert samples.root == folder
    assert paths(samples) == ["left/a.mp4", "right/c.mkv"]
    assert {s.label for s in samples.samples} == {None}
    samples = collect_samples([str(folder / "left/a.mp4"), folder / "left/b.avi"])
    assert samples.root == folder / "left"
    assert paths(samples) == ["a.mp4", "b.avi"]


def test_one_file_of_any_suffix(folder):
    samples = collect_samples([folder / "other.bin"])
    assert (samples.root, paths(samples)) == (folder, ["other.bin"])


def test_named_twice_counts_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    samples = collect_samples(["left", "left/a.mp4", "right/../left/a.mp4", folder / "left/a.mp4", "right"])
    assert samples.root == folder
    assert paths(samples) == ["left/a.mp4", "left/b.avi", "right/c.mkv"]


def test_one_relative_folder_starts_from_there(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    samples = collect_samples([Path("videos")])
    assert samples.root.is_absolute()
    assert (samples.root / samples.samples[0].path).samefile(folder / "left/a.mp4")


def test_groups(folder, tmp_path):
    (tmp_path / "groups.txt").write_text("left/a.mp4 day1\nright/c.mkv day2\nleft/b.avi day1\n")
    for named in ([folder], [folder / "left/a.mp4", folder / "left/b.avi", folder / "right/c.mkv"]):
        samples = collect_samples(named, groups=tmp_path / "groups.txt")
        assert [s.group for s in samples.samples] == ["day1", "day1", "day2"]


def test_errors(folder, tmp_path):
    with pytest.raises(Pseudo3dError, match="no videos named: give files, a folder, or a list"):
        collect_samples([])
    with pytest.raises(Pseudo3dError, match=r"gone\.mp4 does not exist: give files"):
        collect_samples([folder / "gone.mp4"])
    with pytest.raises(Pseudo3dError, match=r"gone does not exist \(and 1 more\)"):
        collect_samples([folder / "left/a.mp4", tmp_path / "gone", tmp_path / "gone2"])
    with pytest.raises(Pseudo3dError, match=r"gone\.csv does not exist"):
        collect_samples([tmp_path / "gone.csv"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(Pseudo3dError, match="no videos in"):
        collect_samples([folder / "left", tmp_path / "empty"])
