"""The moving digits: no single frame gives the class away, two do; the motions are what they are called."""

import errno
import json
import re
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from scipy import ndimage, stats
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

from pseudo3d.data import synthetic
from pseudo3d.data.annotations import read_samples
from pseudo3d.data.splits import train_test_split
from pseudo3d.data.synthetic import (
    MOTIONS,
    SCALES,
    Scene,
    draw_scene,
    render_motion,
    trajectory,
    write_moving_digits,
)
from pseudo3d.errors import Pseudo3dError

SMALL = {"train_per_class": 4, "test_per_class": 2, "num_frames": 6, "size": 32, "fps": 10}
TIMES = (0, 7, 15, 31)
SIZE = 32
TRAIN, TEST = 100, 60  # videos of each class


@pytest.fixture(scope="module")
def small_set(tmp_path_factory) -> Path:
    return write_moving_digits(tmp_path_factory.mktemp("set") / "digits", **SMALL)


def decode(path: Path) -> tuple[np.ndarray, str]:
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        return frames, container.streams.video[0].codec_context.name


# --- No single frame gives the class away ------------------------------------------------------------------------


def test_the_state_is_uniform_at_every_frame_in_every_class():
    rng = np.random.default_rng(1)
    p_values = []
    for motion in MOTIONS:
        scenes = [draw_scene(rng) for _ in range(400)]
        states = np.stack([trajectory(scene, motion, 32) for scene in scenes])
        fast = np.array([scene.speed for scene in scenes]) > 0.5
        for time in TIMES:
            for variable in range(4):
                values = states[:, time, variable]
                p_values.append(stats.kstest(values, "uniform").pvalue)
                p_values.append(stats.ks_2samp(values[fast], values[~fast]).pvalue)  # and independent of the speed
                # Jointly too: the sum of two independent uniform shifts is uniform, of two dependent ones it is not.
                p_values.append(stats.kstest((values + states[:, time, variable - 1]) % 1, "uniform").pvalue)
    assert min(p_values) > 0.001 / len(p_values)


def test_a_state_that_depends_on_the_class_would_be_seen():
    rng = np.random.default_rng(1)
    from_the_middle = np.array([0.25 + 0.5 * draw_scene(rng).start[0] for _ in range(400)])
    assert stats.kstest(from_the_middle, "uniform").pvalue < 1e-9


def look(frame: np.ndarray) -> np.ndarray:
    """What a still frame shows: its grey levels and the moments of what stands out from the background."""
    grey = frame.astype(np.float32).mean(axis=2)
    ink = ink_of(frame)
    ramp = np.arange(len(grey))
    x, y = (ink.sum(0) @ ramp) / ink.sum(), (ink.sum(1) @ ramp) / ink.sum()
    dx, dy = ramp - x, (ramp - y)[:, None]
    moments = [x, y, ink.sum(), (ink * dx * dx).mean(), (ink * dy * dy).mean(), (ink * dx * dy).mean()]
    return np.concatenate([ndimage.zoom(grey, 0.5, order=1).ravel(), moments, frame.mean((0, 1)), frame.std((0, 1))])


def ink_of(frame: np.ndarray) -> np.ndarray:
    grey = frame.astype(np.float32).mean(axis=2)
    ink = np.abs(grey - np.median(grey))
    return ink / max(ink.max(), 1)


def shift_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How well the second frame fits the first after shifts of up to 3 pixels: the sight of a motion."""
    spectra = np.fft.fft2(ink_of(first)).conj() * np.fft.fft2(ink_of(second))
    return np.fft.fftshift(np.fft.ifft2(spectra).real)[
        SIZE // 2 - 3 : SIZE // 2 + 4, SIZE // 2 - 3 : SIZE // 2 + 4
    ].ravel()


@pytest.fixture(scope="module")
def videos() -> dict[str, list[tuple[int, np.ndarray]]]:
    """(class, frames at TIMES and one frame after each) for train and test, from the same digits in every class."""
    digits, rng = load_digits().images, np.random.default_rng(2)
    chosen = {"train": range(TRAIN), "test": range(TRAIN, TRAIN + TEST)}
    moments = np.array([(time, time + 1) for time in TIMES])
    return {
        split: [
            (label, render_motion(digits[index], motion, draw_scene(rng), num_frames=33, size=SIZE)[moments])
            for label, motion in enumerate(MOTIONS)
            for index in indices
        ]
        for split, indices in chosen.items()
    }


def accuracy_of_forest(train, test, describe) -> float:
    forest = RandomForestClassifier(100, random_state=0, n_jobs=1)
    forest.fit([describe(frames) for _, frames in train], [label for label, _ in train])
    return forest.score([describe(frames) for _, frames in test], [label for label, _ in test])


@pytest.mark.parametrize("place", range(len(TIMES)), ids=[f"frame{time}" for time in TIMES])
def test_a_classifier_of_single_frames_is_at_chance(videos, place):
    accuracy = accuracy_of_forest(videos["train"], videos["test"], lambda frames: look(frames[place, 0]))
    low, high = stats.binom.interval(0.999, TEST * len(MOTIONS), 1 / len(MOTIONS))
    assert low <= accuracy * TEST * len(MOTIONS) <= high


def test_the_same_classifier_tells_left_from_right_with_two_frames(videos):
    sides = [MOTIONS.index("left"), MOTIONS.index("right")]
    train, test = ([(label, frames) for label, frames in videos[split] if label in sides] for split in videos)
    assert accuracy_of_forest(train, test, lambda frames: shift_between(*frames[1])) > 0.9
    assert accuracy_of_forest(train, test, lambda frames: look(frames[1, 0])) < 0.65


@pytest.mark.parametrize("coding", synthetic._CODINGS, ids=["h264", "mpeg4"])
def test_the_coding_of_a_frame_does_not_depend_on_its_neighbours(coding, tmp_path):
    # Played backwards, left is right: were coding noise to trail behind the digit, these would differ.
    frames = render_motion(load_digits().images[3], "left", draw_scene(np.random.default_rng(5)), num_frames=12)
    for name, order in (("forwards", frames), ("backwards", frames[::-1])):
        (tmp_path / name).write_bytes(synthetic._encode(order, *coding, 16))
    np.testing.assert_array_equal(decode(tmp_path / "forwards")[0], decode(tmp_path / "backwards")[0][::-1])


# --- The motions are what they are called -------------------------------------------------------------------------


def white_on_black(**start: float) -> Scene:
    state = [{"x": 0.5, "y": 0.5, "angle": 0.0, "scale": 0.0, **start}[k] for k in ("x", "y", "angle", "scale")]
    return Scene(np.array(state), 0.0, np.array([[255.0] * 3, [0.0] * 3]), np.zeros((0, 3)))


@pytest.fixture(scope="module")
def seven() -> np.ndarray:
    return load_digits().images[7]


@pytest.mark.parametrize(
    ("motion", "start", "direction"),
    [
        ("left", {"x": 0.7}, (-1, 0)),
        ("right", {"x": 0.3}, (1, 0)),
        ("up", {"y": 0.7}, (0, -1)),
        ("down", {"y": 0.3}, (0, 1)),
    ],
)
def test_the_centre_moves_at_the_slowest_speed(seven, motion, start, direction):
    frames = render_motion(seven, motion, white_on_black(**start), num_frames=17)[..., 0]
    first, last = (np.array(ndimage.center_of_mass(frame.astype(float)))[::-1] for frame in frames[[0, 16]])
    np.testing.assert_allclose(last - first, np.array(direction) * 16 * 0.03 * 64, atol=0.3)


@pytest.mark.parametrize(("motion", "turns"), [("rotate_left", 1), ("rotate_right", -1)])
def test_a_quarter_turn(seven, motion, turns):
    frames = render_motion(seven, motion, white_on_black(scale=0.5), num_frames=11)[..., 0]
    np.testing.assert_allclose(frames[10].astype(int), np.rot90(frames[0], turns).astype(int), atol=2)


@pytest.mark.parametrize(("motion", "start", "sign"), [("grow", 0.0, 1), ("shrink", 0.9, -1)])
def test_the_side_changes_by_the_slowest_speeds_factor(seven, motion, start, sign):
    ratio = (SCALES[1] / SCALES[0]) ** (sign * 16 * 0.012)
    frames = render_motion(seven, motion, white_on_black(scale=start), num_frames=17).astype(float)
    assert frames[16].sum() / frames[0].sum() == pytest.approx(ratio**2, rel=0.02)


def test_a_digit_that_leaves_comes_back_on_the_other_side(seven):
    middle, edge = (render_motion(seven, "left", white_on_black(x=x), num_frames=2)[0] for x in (0.5, 0.0))
    np.testing.assert_allclose(np.roll(middle.astype(int), 32, axis=1), edge, atol=1)


def test_the_digit_is_lighter_than_the_background_in_every_scene():
    rng = np.random.default_rng(3)
    colours = np.array([draw_scene(rng).colours for _ in range(200)])
    assert (colours[:, 0] - colours[:, 1]).min() >= 70
    assert colours.min() >= 0
    assert colours.max() <= 255


def test_an_unknown_motion_is_refused(seven):
    with pytest.raises(Pseudo3dError, match=r"unknown motion 'sideways': it is one of down, grow"):
        render_motion(seven, "sideways", white_on_black())


# --- The files ----------------------------------------------------------------------------------------------------


def test_the_files_decode_to_what_was_rendered(small_set):
    kinds = Counter()
    for path in sorted(small_set.glob("*/*/digit*")):
        frames, codec = decode(path)
        assert frames.shape == (6, 32, 32, 3)
        kinds[path.suffix, codec] += 1
    assert kinds == {(".mp4", "h264"): 24, (".avi", "mpeg4"): 24}


@pytest.mark.parametrize("coding", synthetic._CODINGS, ids=["h264", "mpeg4"])
def test_the_coding_keeps_the_picture(coding, tmp_path):
    grey = Scene(np.array([0.5, 0.5, 0.1, 0.5]), 0.03, np.array([[230.0] * 3, [40.0] * 3]), np.zeros((0, 3)))
    frames = render_motion(load_digits().images[3], "grow", grey, num_frames=8)
    (tmp_path / "a").write_bytes(synthetic._encode(frames, *coding, 16))
    assert np.abs(decode(tmp_path / "a")[0].astype(int) - frames).mean() < 1.5


def test_every_class_shows_the_same_digits_and_codings(small_set):
    files = {
        split: [{path.name for path in (small_set / split / motion).iterdir()} for motion in MOTIONS]
        for split in ("train", "test")
    }
    for split, count in (("train", 4), ("test", 2)):
        assert all(names == files[split][0] for names in files[split])
        assert len(files[split][0]) == count
    assert not files["train"][0] & files["test"][0]


def test_the_ten_digits_are_equally_frequent():
    target = load_digits().target
    chosen = list(synthetic._choose_digits({"train": 60, "test": 20}, seed=4))
    assert len({index for _, _, index in chosen}) == 80
    for split, times in (("train", 6), ("test", 2)):
        assert Counter(target[index] for name, _, index in chosen if name == split) == dict.fromkeys(range(10), times)


def test_the_set_reads_as_a_split_list(small_set):
    train, test = train_test_split(read_samples(small_set))
    assert (len(train), len(test), train.class_names) == (32, 16, MOTIONS)


def test_the_same_arguments_give_the_same_bytes(small_set, tmp_path):
    again = write_moving_digits(tmp_path / "again", **SMALL)
    other = write_moving_digits(tmp_path / "other", **SMALL, seed=1)
    contents = [{p.relative_to(f): p.read_bytes() for p in f.rglob("*.*")} for f in (small_set, again, other)]
    assert contents[0] == contents[1]
    assert contents[0].keys() != contents[2].keys()


def test_a_finished_set_is_kept(small_set):
    before = {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}
    assert write_moving_digits(small_set, **SMALL) == small_set
    assert before == {path: path.stat().st_mtime_ns for path in small_set.rglob("*")}


def test_other_parameters_are_refused(small_set):
    with pytest.raises(Pseudo3dError, match=r"holds a set with other parameters .*: remove it or give another folder"):
        write_moving_digits(small_set, **{**SMALL, "seed": 9})


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(Pseudo3dError, match="is not empty and holds no moving digits"):
        write_moving_digits(tmp_path, **SMALL)
    with pytest.raises(Pseudo3dError, match="is a file: give a folder"):
        write_moving_digits(tmp_path / "thesis.txt", **SMALL)
    (tmp_path / "set.json").write_text("{", encoding="utf-8")
    with pytest.raises(Pseudo3dError, match="is damaged"):
        write_moving_digits(tmp_path, **SMALL)


def test_a_full_disk_leaves_no_half_file_and_the_set_can_be_finished(small_set, tmp_path, monkeypatch):
    write_bytes, calls = Path.write_bytes, []

    def full_after_five(self: Path, content: bytes) -> int:
        calls.append(self)
        if len(calls) > 5:
            write_bytes(self, content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, content)

    folder = tmp_path / "digits"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_after_five)
        with pytest.raises(Pseudo3dError, match=r"cannot write .*: No space left on device"):
            write_moving_digits(folder, **SMALL)
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert [path.name for path in left if path.suffix == ".partial"] == []
    assert len(left) == 5  # the note of the parameters and four videos
    assert all(len(decode(path)[0]) == 6 for path in left if path.suffix == ".mp4")
    assert not (folder / "set.json").exists()
    write_moving_digits(folder, **SMALL)
    assert json.loads((folder / "set.json").read_text(encoding="utf-8"))["size"] == 32
    assert len(list(folder.glob("*/*/digit*"))) == len(list(small_set.glob("*/*/digit*")))


def test_a_missing_encoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    with pytest.raises(Pseudo3dError, match="this PyAV has no libx264 encoder: install"):
        write_moving_digits(tmp_path / "digits", **SMALL)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train_per_class": 0}, "must be at least 1 and together at most 1797"),
        (
            {"train_per_class": 1700, "test_per_class": 200},
            "together at most 1797, the digits there are, got 1700 and 200",
        ),
        ({"num_frames": 1}, "num_frames must be at least 2"),
        ({"fps": 0}, "fps at least 1, got 32 and 0"),
        ({"size": 33}, "size must be even and at least 16, got 33"),
    ],
)
def test_arguments_out_of_range(tmp_path, wrong, message):
    with pytest.raises(Pseudo3dError, match=re.escape(message)):
        write_moving_digits(tmp_path, **wrong)
