import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudo3d.errors import Pseudo3dError
from pseudo3d.video.sampling import (
    SAMPLERS,
    draw_of,
    sample_clips,
    sample_clips_authors,
    sample_clips_random,
    sample_clips_sliding,
    sample_pieces,
)

FRAMES, CLIPS, LENGTH = st.integers(1, 5000), st.integers(1, 40), st.integers(1, 64)


def check_common(indices, num_frames, length):
    assert indices.dtype == np.int64
    assert indices.ndim == 2
    assert indices.shape[1] == length
    assert indices.min() >= 0
    assert indices.max() < num_frames
    if num_frames >= length:
        assert (np.diff(indices, axis=1) == 1).all()
    else:  # looped: every clip starts at 0 and shows every frame
        assert (indices == np.arange(length) % num_frames).all()


@given(FRAMES, CLIPS, LENGTH)
def test_uniform_is_the_formula_in_exact_fractions(num_frames, clips, length):
    indices = sample_clips(num_frames, clips, length)
    check_common(indices, num_frames, length)
    assert indices.shape == (clips, length)
    room = max(0, num_frames - length)
    starts = [math.floor(Fraction(i, clips - 1) * room) if clips > 1 else 0 for i in range(clips)]
    assert indices[:, 0].tolist() == starts
    assert indices[0, 0] == 0
    assert (np.diff(indices[:, 0]) >= 0).all()
    if clips > 1 and num_frames >= length:
        assert indices[-1, -1] == num_frames - 1


@given(FRAMES, CLIPS, LENGTH)
def test_authors_is_the_formula_in_exact_fractions(num_frames, clips, length):
    indices = sample_clips_authors(num_frames, clips, length)
    check_common(indices, num_frames, length)
    stride = max(Fraction(0), Fraction(num_frames - (length + 2), clips))
    assert indices[:, 0].tolist() == [math.floor(i * stride) for i in range(clips)]


def test_authors_with_their_own_numbers():
    # 18 and 20 as in their answer: 218 frames, stride 10
    assert sample_clips_authors(218)[:, 0].tolist() == list(range(0, 200, 10))
    assert sample_clips_authors(17)[:, 0].tolist() == [0] * 20


@given(FRAMES, CLIPS, LENGTH, st.integers(0, 2**32))
def test_random_stays_inside_and_follows_its_seed(num_frames, clips, length, seed):
    indices = sample_clips_random(num_frames, clips, length, np.random.default_rng(seed))
    check_common(indices, num_frames, length)
    assert indices.shape == (clips, length)
    again = sample_clips_random(num_frames, clips, length, np.random.default_rng(seed))
    assert (indices == again).all()


def test_random_reaches_every_start_equally():
    starts = sample_clips_random(20, 20_000, 16, np.random.default_rng(0))[:, 0]
    counts = np.bincount(starts, minlength=5)
    assert len(counts) == 5  # 0..n - length, both ends
    assert (abs(counts - 4000) < 300).all()  # five standard deviations


@given(FRAMES, LENGTH, st.integers(1, 80))
def test_sliding_covers_the_tail(num_frames, length, stride):
    indices = sample_clips_sliding(num_frames, length, stride)
    check_common(indices, num_frames, length)
    starts = indices[:, 0]
    if num_frames <= length:
        assert starts.tolist() == [0]
        return
    assert starts[0] == 0
    assert indices[-1, -1] == num_frames - 1
    assert (np.diff(starts)[:-1] == stride).all()
    assert 1 <= starts[-1] - starts[-2] <= stride
    if stride <= length:
        assert np.unique(indices).tolist() == list(range(num_frames))


def test_sliding_adds_no_clip_when_the_strides_fit():
    assert sample_clips_sliding(32)[:, 0].tolist() == [0, 8, 16]
    assert sample_clips_sliding(33)[:, 0].tolist() == [0, 8, 16, 17]


def test_short_videos_are_looped_in_order():
    assert sample_clips(3, 2, 8).tolist() == [[0, 1, 2, 0, 1, 2, 0, 1]] * 2
    assert sample_clips(1, 1, 16).tolist() == [[0] * 16]
    assert sample_clips_sliding(5, 8).tolist() == [[0, 1, 2, 3, 4, 0, 1, 2]]


def test_registry_names_samplers_of_one_signature():
    assert set(SAMPLERS) == {"uniform", "authors", "sliding", "random"}
    for name in ("uniform", "authors", "random"):
        assert SAMPLERS[name](100, 3, 16, 8, np.random.default_rng(0)).shape == (3, 16)


@given(FRAMES, CLIPS, st.integers(0, 9))
def test_the_registered_random_sampler_draws_from_its_source_alone(num_frames, clips, seed):
    indices = SAMPLERS["random"](num_frames, clips, 16, 8, np.random.default_rng(seed))
    assert np.array_equal(indices, sample_clips_random(num_frames, clips, 16, np.random.default_rng(seed)))


def test_the_draw_of_a_video_depends_on_seed_frames_and_name():
    def drawn(*key):
        return draw_of(*key).integers(0, 1 << 40)

    assert drawn(1, 50, "a.mp4") == drawn(1, 50, "a.mp4")
    assert len({drawn(1, 50, "a.mp4"), drawn(2, 50, "a.mp4"), drawn(1, 51, "a.mp4"), drawn(1, 50, "b.mp4")}) == 4
    assert drawn(0, 5, "\udcff.mp4") != drawn(0, 5, "\ufffd.mp4")  # names need not be UTF-8
    with pytest.raises(Pseudo3dError, match="seed of the sampler must be 0 or more, got -1"):
        draw_of(-1, 5, "a.mp4")


@given(FRAMES, CLIPS)
def test_the_registered_sliding_sampler_is_c3ds_whatever_the_number_of_clips(num_frames, clips):
    indices = SAMPLERS["sliding"](num_frames, clips, 16, 8, np.random.default_rng(0))
    check_common(indices, num_frames, 16)
    last = max(0, num_frames - 16)
    assert indices[:, 0].tolist() == [*range(0, last, 8), last]


@pytest.mark.parametrize("name", ["num_frames", "clips", "length"])
@pytest.mark.parametrize("sampler", [sample_clips, sample_clips_authors])
def test_errors_name_the_value(sampler, name):
    with pytest.raises(Pseudo3dError, match=f"{name} must be at least 1, got 0"):
        sampler(**{"num_frames": 10, "clips": 2, "length": 4, name: 0})


def test_errors_of_the_other_samplers():
    with pytest.raises(Pseudo3dError, match="stride must be at least 1, got -3"):
        sample_clips_sliding(10, stride=-3)
    with pytest.raises(Pseudo3dError, match="num_frames must be at least 1, got 0"):
        sample_clips_random(0, 1, 16, np.random.default_rng(0))


@given(st.integers(2, 400), st.sampled_from([5, 24, 25, 30]), st.floats(0.2, 20), st.integers(1, 6), st.integers(0, 9))
def test_pieces_last_as_long_as_asked(num_frames, fps, seconds, count, seed):
    times = 3 + np.arange(num_frames) / fps
    pieces = sample_pieces(times, count, seconds, np.random.default_rng(seed))
    assert pieces.shape == (count, 2)
    assert pieces.min() >= 0
    assert pieces.max() <= num_frames
    if num_frames / fps <= seconds:
        assert (pieces == [0, num_frames]).all()
    else:
        assert (abs((pieces[:, 1] - pieces[:, 0]) / fps - seconds) <= 1 / fps + 1e-6).all()


def test_pieces_lie_anywhere_with_equal_chance():
    first, stop = sample_pieces(np.arange(1000) / 25, 40_000, 5.0, np.random.default_rng(0)).T
    assert (first.min(), stop.max()) == (0, 1000)
    counts = np.histogram(first, bins=8, range=(0, 876))[0]
    assert abs(counts / 5000 - 1).max() < 0.06  # four deviations of a count of 5000


def test_pieces_of_a_video_whose_rate_varies():
    times = np.concatenate([np.arange(0, 10, 0.1), np.arange(10, 20, 1.0)])  # 100 frames, then 10 frames
    for first, stop in sample_pieces(times, 200, 5.0, np.random.default_rng(0)):
        inside = times[first:stop]
        assert inside[-1] - inside[0] <= 5
        assert first == 0 or inside[0] - times[first - 1] <= 1
        assert stop == len(times) or times[stop] - inside[0] >= 4


def test_pieces_of_odd_videos():
    rng = np.random.default_rng(0)
    assert sample_pieces(np.zeros(1), 2, 5.0, rng).tolist() == [[0, 1]] * 2
    assert sample_pieces(np.zeros(9), 1, 5.0, rng).tolist() == [[0, 9]]  # no times at all
    backwards = np.concatenate([np.arange(100), np.arange(50)]) / 10
    assert (np.diff(sample_pieces(backwards, 50, 2.0, rng), axis=1) > 0).all()
    still = np.array([0.0, 0.1, 100.0])
    first, stop = sample_pieces(still, 50, 2.0, rng).T
    assert (first <= stop).all()
    assert first.max() == 2
    with pytest.raises(Pseudo3dError, match="pieces must be at least 1, got 0"):
        sample_pieces(still, 0, 2.0, rng)
    with pytest.raises(Pseudo3dError, match="frames must be at least 1, got 0"):
        sample_pieces(np.zeros(0), 1, 2.0, rng)
