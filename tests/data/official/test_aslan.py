"""ASLAN from small sets in its official layout, and from pairs alone."""

import random
from collections import Counter

import numpy as np
import pytest
from official_more_sets import aslan_pairs, write_aslan
from scipy.io import loadmat, savemat

from pseudo3d import Pseudo3dError
from pseudo3d.data.official.aslan import parse_pairs, read_aslan


@pytest.fixture(scope="module")
def aslan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aslan")
    write_aslan(folder)
    return folder


def only_pairs(folder, matrix, name="View2.mat", variable="action_splits_pairs"):
    folder.mkdir(exist_ok=True)
    savemat(folder / name, {variable: matrix})
    return folder


def test_view_2(aslan):
    pairs = read_aslan(aslan)
    raw = loadmat(aslan / "View2.mat")["action_splits_pairs"]
    assert [s.path for s in pairs.samples.samples] == [f"ASLAN_AVI/{i:04}.avi" for i in range(1, 25)]
    assert all(s.label is None and (pairs.samples.root / s.path).is_file() for s in pairs.samples.samples)
    assert len(pairs.first) == 120
    for fold in range(10):
        inside = pairs.fold == fold
        names = [pairs.samples.samples[i].path[-8:-4] for i in pairs.first[inside]]
        assert names == [f"{int(number):04}" for number in raw[:, 0, fold]]
        assert (pairs.second[inside] + 1 == raw[:, 1, fold]).all()  # all are used, so that places are ids
        assert (pairs.same[inside] == raw[:, 2, fold]).all()
    assert pairs.same.dtype == bool
    assert pairs.missing == ()
    assert "10 folds of 600" in pairs.notes[0]
    assert pairs.notes[1:] == ("10 of 10 folds share actions with other folds; ASLAN's share none",)
    assert pairs.mislabelled == ()


def test_view_1(aslan):
    pairs = read_aslan(aslan, view=1)
    assert np.bincount(pairs.fold).tolist() == [24, 12]
    expected = loadmat(aslan / "test_pairs.mat")["test_pairs"]
    tested = [int(pairs.samples.samples[i].path[-8:-4]) for i in pairs.first[pairs.fold == 1]]
    assert tested == expected[:, 0].tolist()
    assert "1,200 to train and 600 to test" in pairs.notes[0]


def test_lists_elsewhere_and_videos_under_other_names(aslan, tmp_path):
    for number in range(1, 25):
        (tmp_path / f"{number}.mp4").touch()
    pairs = read_aslan(tmp_path, lists=aslan)
    assert [s.path for s in pairs.samples.samples] == [f"{i}.mp4" for i in range(1, 25)]
    (tmp_path / "0003.mp4").touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "0003.avi").touch()
    with pytest.raises(Pseudo3dError, match=r"2 files below .* may be 0003\.avi"):
        read_aslan(tmp_path, lists=aslan)


def test_a_video_that_is_not_there_takes_its_pairs_along(aslan, tmp_path):
    for number in sorted(set(range(1, 25)) - {4, 7}):
        (tmp_path / f"{number:04}.avi").touch()
    pairs, whole = read_aslan(tmp_path, lists=aslan), read_aslan(aslan)
    assert pairs.missing == ("0004.avi", "0007.avi")
    kept = ~np.isin(whole.first, (3, 6)) & ~np.isin(whole.second, (3, 6))
    names = [s.path for s in pairs.samples.samples]
    assert [names[i] for i in pairs.second] == [f"{i + 1:04}.avi" for i in whole.second[kept]]
    assert np.array_equal(pairs.fold, whole.fold[kept])
    assert np.array_equal(whole.number, np.tile(np.arange(1, 13), 10))
    assert np.array_equal(pairs.number, whole.number[kept])  # each keeps its own
    assert any(f"{(~kept).sum()} of 120 pairs lack a video" in note for note in pairs.notes)
    for path in sorted(tmp_path.iterdir())[2:]:
        path.unlink()
    with pytest.raises(Pseudo3dError, match=r"fold \d+ of 10 has no pair of which both videos are below"):
        read_aslan(tmp_path, lists=aslan)


def test_pairs_alone_when_no_video_is_there(aslan, tmp_path):
    pairs = read_aslan(tmp_path, lists=aslan)
    assert len(pairs.missing) == 24
    assert len(pairs.first) == 120
    assert pairs.samples.samples[0].path == "0001.avi"


def test_what_is_odd_is_told(aslan, tmp_path):
    matrix = aslan_pairs(12, 2)
    matrix[0, 2] = 1 - matrix[0, 2]
    matrix[3, 1, 0] = matrix[3, 0, 0]  # a video and itself, which stays marked as not the same
    found = read_aslan(aslan, lists=only_pairs(tmp_path, matrix))
    notes = found.notes
    assert any("not half of the pairs are the same: fold 1 has 5 of 12, fold 2 has 5 of 12" in note for note in notes)
    assert any(note.startswith("2 pairs are marked otherwise than their actions say") for note in notes)
    assert "1 pairs are of a video and itself, 1 of them marked as not the same" in notes
    one, other, _, kind, _ = matrix[0, :, 1].astype(int)
    assert found.mislabelled[1] == (
        f"fold 2, pair 1: {one:04} {other:04}", f"marked as not the same, its actions are {kind} and {kind}",
    )  # fmt: skip
    matrix[3, 2:5, 0] = (1, 2, 2)
    notes = read_aslan(aslan, lists=only_pairs(tmp_path, matrix)).notes
    assert "1 pairs are of a video and itself" in notes


def test_a_pair_in_two_folds(aslan, tmp_path):
    """In either order; twice in one fold is no harm to the test."""
    matrix = aslan_pairs(12, 3)
    matrix[1, :, 0] = matrix[0, :, 0]
    read_aslan(aslan, lists=only_pairs(tmp_path, matrix))
    matrix[5, :, 2] = matrix[0, [1, 0, 2, 4, 3], 0]
    one, other = sorted(matrix[0, :2, 0].astype(int))
    words = rf": 1 pairs are in several folds \({one:04} and {other:04} in folds 1 and 3\), so that test pairs would be"
    with pytest.raises(Pseudo3dError, match=words):
        read_aslan(aslan, lists=only_pairs(tmp_path, matrix))
    only_pairs(tmp_path, matrix[:, :, 0], "train_pairs.mat", "train_pairs")
    only_pairs(tmp_path, matrix[:, :, 2], "test_pairs.mat", "test_pairs")
    with pytest.raises(Pseudo3dError, match="1 pairs are in several folds"):
        read_aslan(aslan, lists=tmp_path, view=1)


def test_the_official_counts_need_no_note(tmp_path):
    """Ten folds of 600, each with videos and actions of its own."""
    folds = [aslan_pairs(600, videos=60, classes=2, first=60 * fold + 1) for fold in range(10)]
    splits = np.concatenate(folds, axis=2)
    splits[:, 3:] += 2 * np.arange(10)
    for number in range(1, 601):
        (tmp_path / f"{number:04}.avi").touch()
    assert read_aslan(tmp_path, lists=only_pairs(tmp_path, splits)).notes == ()
    splits[0, 3:, 4] = splits[0, 3:, 5]
    shared = "2 of 10 folds share actions with other folds; ASLAN's share none"
    assert read_aslan(tmp_path, lists=only_pairs(tmp_path, splits)).notes == (shared,)


def test_errors(aslan, tmp_path):
    with pytest.raises(Pseudo3dError, match="no view 3"):
        read_aslan(aslan, view=3)
    with pytest.raises(Pseudo3dError, match=r"pairs of ASLAN's View-2 \(View2\.mat\) are not below .*--lists"):
        read_aslan(tmp_path)
    with pytest.raises(
        Pseudo3dError, match=r"View2\.mat must have the variable action_splits_pairs, of numbers; it has pairs"
    ):
        read_aslan(aslan, lists=only_pairs(tmp_path / "a", np.ones((4, 5, 2)), variable="pairs"))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "View2.mat").write_bytes(b"text")
    with pytest.raises(Pseudo3dError, match="is no MATLAB file, or it is cut off"):
        read_aslan(aslan, lists=tmp_path / "b")


def test_damaged_files(aslan, tmp_path):
    """Whatever is cut off or changed: pairs, or one line that says what is wrong."""
    rng, outcomes = random.Random(0), Counter[str]()
    for compressed in (False, True):
        matrix = loadmat(aslan / "View2.mat")["action_splits_pairs"]
        savemat(tmp_path / "good", {"action_splits_pairs": matrix}, do_compression=compressed, appendmat=False)
        good = (tmp_path / "good").read_bytes()
        for number in range(60):
            content = bytearray(good if number % 2 else good[: rng.randrange(len(good))])
            for _ in range(rng.randrange(6) if content else 0):
                content[rng.randrange(len(content))] = rng.randrange(256)
            (tmp_path / "View2.mat").write_bytes(content)
            try:
                read_aslan(aslan, lists=tmp_path)
                outcomes["pairs"] += 1
            except Pseudo3dError:
                outcomes["refused"] += 1
    assert min(outcomes["pairs"], outcomes["refused"]) > 5, outcomes  # both were tried


@pytest.mark.parametrize("kind", ["f8", "f4", "i4", "u1", "i8"])
def test_pairs_of_any_type_and_beside_other_variables(aslan, tmp_path, kind):
    matrix = aslan_pairs(12, 2).astype(kind)
    for compressed in (False, True):
        savemat(
            tmp_path / "View2.mat",
            {"note": "text", "info": {"a": 1}, "cells": np.array([[1], "a"], object), "action_splits_pairs": matrix},
            do_compression=compressed,
        )
        assert (read_aslan(aslan, lists=tmp_path).same == (matrix[:, 2] == 1).T.ravel()).all()


def test_an_old_file_and_one_without_numbers(aslan, tmp_path):
    matrix = aslan_pairs(12)[..., 0]
    savemat(tmp_path / "View2.mat", {"action_splits_pairs": matrix.astype(float)}, format="4")
    assert len(read_aslan(aslan, lists=tmp_path).first) == 12
    with pytest.raises(Pseudo3dError, match="of numbers; it has action_splits_pairs"):
        read_aslan(aslan, lists=only_pairs(tmp_path, np.array([[1 + 2j] * 5])))
    (tmp_path / "View2.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(Pseudo3dError, match=r"is of MATLAB 7\.3: save it with -v7"):
        read_aslan(aslan, lists=tmp_path)


def test_damage_at_which_other_readers_end_the_process(aslan, tmp_path):
    savemat(tmp_path / "View2.mat", {"action_splits_pairs": np.ones((6, 5, 2))})
    content = bytearray((tmp_path / "View2.mat").read_bytes())
    content[209] = 0xDD  # the type of the numbers; SciPy 1.17 crashes
    (tmp_path / "View2.mat").write_bytes(content)
    with pytest.raises(Pseudo3dError, match=r"View2\.mat is no MATLAB file, or it is cut off or damaged"):
        read_aslan(aslan, lists=tmp_path)


def test_malformed_pairs():
    good = aslan_pairs(4)[..., 0]
    with pytest.raises(Pseudo3dError, match="it is 4 x 4"):
        parse_pairs(good[:, :4])
    with pytest.raises(Pseudo3dError, match="no numbers"):
        parse_pairs(np.array([["a"] * 5]))
    with pytest.raises(Pseudo3dError, match="whole numbers"):
        parse_pairs(good + 0.5)
    with pytest.raises(Pseudo3dError, match="whole numbers"):
        parse_pairs(good * np.nan)
    wrong = np.stack([good, good], axis=2)
    wrong[2, 1, 1] = 0
    with pytest.raises(Pseudo3dError, match=r"v, fold 2, pair 3: has the id 0; ids of videos begin with 1"):
        parse_pairs(wrong, source="v")
    good[0, 2] = 2
    with pytest.raises(Pseudo3dError, match=r"v, pair 1: is marked 2; it must be 1"):
        parse_pairs(good, source="v")
