"""Videos found by name, lists found anywhere, and the one way into all readers."""

import pytest

from pseudo3d import Pseudo3dError
from pseudo3d.data.annotations import Sample
from pseudo3d.data.official import DATASETS, LAYOUTS, SPLITS, read_official
from pseudo3d.data.official.dataset import VideoFiles, apart, check_once, find_lists, find_videos, placed, read_list


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    return root


def test_every_set_has_splits_and_a_layout():
    assert set(SPLITS) == set(DATASETS)
    assert set(LAYOUTS) == {*DATASETS, "aslan"}


def test_unknown_sets_and_splits(tmp_path):
    with pytest.raises(Pseudo3dError, match="no data set 'ucf11'; there are ucf101, hmdb51, sports1m, kinetics, act"):
        read_official("ucf11", tmp_path)
    with pytest.raises(Pseudo3dError, match="ucf101 has no split '4'; it has the splits 1, 2, 3"):
        read_official("ucf101", tmp_path, split="4")
    with pytest.raises(Pseudo3dError, match="sports1m has no split '2'; it has one split only"):
        read_official("sports1m", tmp_path, split="2")


def test_a_video_is_found_by_name_in_the_listed_folder_first(tmp_path):
    files = VideoFiles(touch(tmp_path, "x/a.avi", "y/a.avi", "y/b.mp4", "notes.txt"))
    assert len(files) == 3
    assert files.find("y/a.avi") == "y/a.avi"
    assert files.find("z/b.avi") == "y/b.mp4"  # converted and moved
    assert files.find("z/c.avi") is None
    with pytest.raises(Pseudo3dError, match=r"2 files below .* may be z/a.avi: x/a.avi, y/a.avi; keep one"):
        files.find("z/a.avi")


def test_case_is_told_and_ids_are_exact(tmp_path):
    files = VideoFiles(touch(tmp_path, "v_Aa.avi"))
    assert files.find("v_aa.avi") == "v_Aa.avi"
    assert files.other_case == ["v_aa.avi"]
    assert VideoFiles(tmp_path, any_case=False).find("v_aa.avi") is None


def test_names_that_differ_in_case_only_are_kept_apart(tmp_path):
    files = VideoFiles(touch(tmp_path, "v_A.avi", "v_a.avi"))
    assert files.find("v_a.avi") == "v_a.avi"
    assert files.find("v_A.avi") == "v_A.avi"


def test_find_videos_knows_links(tmp_path):
    touch(tmp_path, "x/a.mp4")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "a.mp4").symlink_to(tmp_path / "x" / "a.mp4")
    assert find_videos(tmp_path) == {"a": "x/a.mp4"}
    touch(tmp_path, "z/a.mp4")
    with pytest.raises(Pseudo3dError, match=r"3 files below .* may be a: x/a\.mp4, y/a\.mp4, z/a\.mp4"):
        find_videos(tmp_path)


def test_no_folder(tmp_path):
    with pytest.raises(Pseudo3dError, match="gone is no folder: give the one that holds the videos"):
        VideoFiles(tmp_path / "gone")
    with pytest.raises(Pseudo3dError, match="gone is no folder: give the one that holds the lists of X"):
        find_lists(tmp_path / "gone", ("a.txt",), "the lists of X")


def test_placed_keeps_the_listed_paths_when_no_video_is_there(tmp_path):
    listed = [Sample("k/a.avi", "k", "train"), Sample("k/b.avi", "k", "test")]
    assert placed(VideoFiles(tmp_path), listed) == (tuple(listed), tuple(listed))
    touch(tmp_path, "deep/k/b.avi")
    assert placed(VideoFiles(tmp_path), listed) == ((Sample("deep/k/b.avi", "k", "test"),), (listed[0],))


def test_lists_are_found_below_and_told_when_there_are_two(tmp_path):
    touch(tmp_path, "in/here/a.txt", "in/here/b.txt", "in/a.txt")
    assert find_lists(tmp_path, ("a.txt", "b.txt"), "the lists of X") == tmp_path / "in/here"
    with pytest.raises(
        Pseudo3dError, match=r"the lists of X \(a\.txt, c\.txt\) are not below .*--lists, or \['a\.txt', 'b\.txt'\]"
    ):
        find_lists(tmp_path, ("c.txt", "a.txt"), "the lists of X", lambda names: f", or {sorted(names)}")
    touch(tmp_path, "b.txt", "a.txt")
    with pytest.raises(Pseudo3dError, match=r"the lists of X are in 2 folders .*; choose one with --lists"):
        find_lists(tmp_path, ("a.txt", "b.txt"), "the lists of X")


def test_text_of_lists(tmp_path):
    (tmp_path / "utf8.txt").write_bytes(b"\xef\xbb\xbfk\xc3\xa4se\n")
    (tmp_path / "latin.txt").write_bytes(b"k\xe4se\n")
    assert read_list(tmp_path / "utf8.txt") == read_list(tmp_path / "latin.txt") == "käse\n"
    (tmp_path / "binary.txt").write_bytes(b"PK\x03\x04\0\0")
    with pytest.raises(Pseudo3dError, match=r"binary\.txt is no text file"):
        read_list(tmp_path / "binary.txt")
    with pytest.raises(Pseudo3dError, match=r"cannot read .*gone\.txt: No such file"):
        read_list(tmp_path / "gone.txt")


def test_groups_on_two_sides_are_taken_off():
    samples = [Sample("a", None, "train", "x"), Sample("b", None, "test", "x"), Sample("c", None, "test", "y")]
    kept, parted = apart(samples)
    assert [sample.group for sample in kept] == [None, None, "y"]
    assert parted == 1


def test_a_list_names_a_video_once():
    with pytest.raises(Pseudo3dError, match=r"list\.txt, line 4: a is on line 1 already: keep one line of each"):
        check_once([(1, "a"), (2, "b"), (4, "a")], "list.txt")
