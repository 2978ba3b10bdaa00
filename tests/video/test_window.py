"""Clips cut out of a stream of frames."""

import random

import numpy as np
import pytest

from pseudo3d.video.window import ClipWindow


def frame(number):
    return np.full((2, 3, 3), number % 256, np.uint8)


def given(starts, length, num_frames):
    """The clips as lists of grey levels, with the most frames that were held."""
    window = ClipWindow(starts, length, num_frames)
    clips = []
    for number in range(num_frames):
        if window.wants(number):
            clips += [(i, clip[:, 0, 0, 0].tolist()) for i, clip in window.add(number, frame(number))]
    return clips, len(window._frames)


def expected(starts, length, num_frames):
    return [
        (i, [(start + j) % num_frames if num_frames < length else start + j for j in range(length)])
        for i, start in enumerate(starts)
    ]


@pytest.mark.parametrize(
    ("starts", "length", "num_frames"),
    [
        ([0, 4, 8], 4, 12),  # end to end
        ([0, 1, 2, 3], 16, 19),  # overlapping
        ([0, 50, 100], 16, 116),  # apart
        ([0], 8, 3),  # looped
        ([0], 1, 1),
        (list(range(85)), 16, 100),  # more than the window has room for
        (list(range(0, 201, 8)), 1, 201),
        ([0, 8, 14], 16, 30),
    ],
)
def test_clips_are_the_frames_from_their_starts(starts, length, num_frames):
    assert given(starts, length, num_frames)[0] == expected(starts, length, num_frames)


def test_any_clips():
    chance = random.Random(0)
    for _ in range(50):
        length = chance.randint(1, 20)
        num_frames = chance.randint(length, 250)
        starts = sorted(chance.sample(range(num_frames - length + 1), chance.randint(1, num_frames - length + 1)))
        assert given(starts, length, num_frames)[0] == expected(starts, length, num_frames)


def test_memory_does_not_grow_with_the_video():
    assert given(list(range(0, 240, 4)), 16, 256)[1] <= 16 + 64
    assert given([0], 16, 256)[1] <= 32


def test_frames_of_no_clip_are_not_wanted():
    window = ClipWindow([2, 10], 2, 12)
    wanted = []
    for number in range(12):
        if window.wants(number):
            wanted.append(number)
            list(window.add(number, frame(number)))
    assert wanted == [2, 3, 10, 11]


def test_a_clip_cannot_be_changed():
    ((_, clip),) = ClipWindow([0], 1, 1).add(0, frame(0))
    with pytest.raises(ValueError, match="read-only"):
        clip[0] = 1
