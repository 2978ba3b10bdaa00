import numpy as np
import pytest

from pseudo3d import Clip


def clip(frames=4, **more):
    pixels = np.arange(frames * 2 * 3 * 3, dtype=np.uint8).reshape(frames, 2, 3, 3)
    return Clip(pixels, np.arange(frames) / 10, **more)


def test_repr_says_what_is_in_it():
    assert repr(clip()) == "Clip(4 frames of 3x2, 0.000 s to 0.300 s)"
    assert repr(clip(1, source="a.mp4", undecodable_packets=2)) == (
        "Clip(1 frame of 3x2, 0.000 s to 0.000 s, 'a.mp4', 2 undecodable packets)"
    )


def test_parts():
    whole = clip(source="a.mp4", undecodable_packets=1)
    part = whole[1:3]
    assert np.shares_memory(part.frames, whole.frames)
    assert part.timestamps.tolist() == [0.1, 0.2]
    assert (part.source, part.undecodable_packets, len(part)) == ("a.mp4", 1, 2)
    assert (part.height, part.width) == (2, 3)
    chosen = whole[np.array([3, 0, 0])]
    assert chosen.timestamps.tolist() == [0.3, 0.0, 0.0]
    assert np.array_equal(chosen.frames, whole.frames[[3, 0, 0]])
    assert not np.shares_memory(chosen.frames, whole.frames)


@pytest.mark.parametrize(
    ("frames", "timestamps", "words"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2), r"frames must be uint8 .* got float32 \(2, 4, 4, 3\)"),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2), r"got uint8 \(2, 3, 4, 4\)"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros(4), r"got uint8 \(4, 4, 3\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0), "with T >= 1"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3), r"float64 \(2,\), one for each frame, got float64 \(3,\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.float32), "got float32"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.array([0, np.nan]), "must be finite"),
    ],
)
def test_wrong_arrays(frames, timestamps, words):
    with pytest.raises(ValueError, match=words):
        Clip(frames, timestamps)


def test_no_empty_clip():
    with pytest.raises(ValueError, match="T >= 1"):
        clip()[4:]
