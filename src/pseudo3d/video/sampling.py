"""Which frames make the clips of a video: index arithmetic alone, no files and no pixels.

A video of n frames gives ``clips`` rows of ``length`` consecutive frame numbers. With n = 12, 3 clips, length 4::

    frame          0  1  2  3  4  5  6  7  8  9 10 11
    uniform        [--0-----]  [--1-----]  [--2-----]     first clip at 0, last clip ends on the last frame
    authors        [--0-----]                             starts 0, 2, 4: equal strides, the tail is left out
                         [--1-----]
                               [--2-----]
    random            [--1-----]     [--0,2-----]         any start from 0 to n - length, repeats allowed
    sliding, 2     [--0-----]                             every 2nd frame starts a clip,
                         [--1-----]                       the last one always ends on the last frame
                               [--2-----] ...

A video shorter than a clip is looped: with n = 3 and length 8 every clip is ``0 1 2 0 1 2 0 1`` (frame number mod n).
No sampler drops a video, pads with black, or skips frames inside a clip.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Int64

from pseudo3d.errors import Pseudo3dError


def sample_clips(num_frames: int, clips: int = 20, length: int = 16) -> Int64[np.ndarray, "clips length"]:
    """Clips spread evenly from the first frame to the last (20 of them in the paper's section 4; the spacing is ours).

    Clip i starts at floor(i * (num_frames - length) / (clips - 1)); a single clip starts at 0. A video shorter than
    ``length`` is looped: every clip starts at 0 and frame numbers are taken modulo ``num_frames``. Clips overlap when
    the video has fewer than clips * length frames.

    Args:
        num_frames: frames in the video, at least 1.
        clips: rows of the result, at least 1.
        length: frames in one clip, at least 1.

    Returns:
        (clips, length) frame numbers, 0 to num_frames - 1.

    Raises:
        Pseudo3dError: an argument is below 1.

    Example:
        >>> sample_clips(12, clips=3, length=4)
        array([[ 0,  1,  2,  3],
               [ 4,  5,  6,  7],
               [ 8,  9, 10, 11]])
        >>> sample_clips(3, clips=1, length=8)
        array([[0, 1, 2, 0, 1, 2, 0, 1]])
    """
    _check_positive(num_frames=num_frames, clips=clips, length=length)
    room = max(0, num_frames - length)
    starts = [i * room // (clips - 1) for i in range(clips)] if clips > 1 else [0]
    return _consecutive(starts, length, num_frames)


def sample_clips_authors(num_frames: int, clips: int = 20, length: int = 16) -> Int64[np.ndarray, "clips length"]:
    """Clips at the equal strides of the P3D authors' feature extraction (issue 7 of their repository).

    Clip i starts at floor(i * stride), stride = max(0, (num_frames - 18) / 20). Their 18 and 20 are, for other clip
    lengths and counts, taken as length + 2 and ``clips`` (our generalisation; the rounding is ours too). The last
    clip ends before the last frame: ``sample_clips`` covers the whole video. Shorter videos are looped.

    Args:
        num_frames: frames in the video, at least 1.
        clips: rows of the result, at least 1.
        length: frames in one clip, at least 1.

    Returns:
        (clips, length) frame numbers, 0 to num_frames - 1.

    Raises:
        Pseudo3dError: an argument is below 1.

    Example:
        >>> sample_clips_authors(118)[:4, 0]  # stride 5
        array([ 0,  5, 10, 15])
    """
    _check_positive(num_frames=num_frames, clips=clips, length=length)
    room = max(0, num_frames - (length + 2))
    return _consecutive([i * room // clips for i in range(clips)], length, num_frames)


def sample_clips_random(
    num_frames: int, clips: int, length: int, rng: np.random.Generator
) -> Int64[np.ndarray, "clips length"]:
    """Clips that start anywhere with equal chance (training draws, and the Sports-1M test of the paper's section 4).

    Args:
        num_frames: frames in the video, at least 1. A video shorter than ``length`` is looped.
        clips: rows of the result, at least 1, drawn independently and in no order.
        length: frames in one clip, at least 1.
        rng: the source of chance; the same state gives the same clips.

    Returns:
        (clips, length) frame numbers, 0 to num_frames - 1.

    Raises:
        Pseudo3dError: an argument is below 1.

    Example:
        >>> sample_clips_random(100, 2, 16, np.random.default_rng(0)).shape
        (2, 16)
    """
    _check_positive(num_frames=num_frames, clips=clips, length=length)
    starts = rng.integers(0, max(0, num_frames - length), size=clips, endpoint=True)
    return _consecutive(starts.tolist(), length, num_frames)


def sample_clips_sliding(num_frames: int, length: int = 16, stride: int = 8) -> Int64[np.ndarray, "clips length"]:
    """Clips at every ``stride`` frames over the whole video: C3D's clips of 16 with 8 overlap (Tran et al., ICCV 2015).

    When the strides do not end on the last frame, one more clip that does is added (it overlaps its neighbour by
    more), so that no tail is dropped. A video of up to ``length`` frames gives one clip, looped if need be.

    Args:
        num_frames: frames in the video, at least 1.
        length: frames in one clip, at least 1.
        stride: frames from one start to the next, at least 1.

    Returns:
        (clips, length) frame numbers, 0 to num_frames - 1; the number of clips follows from the video.

    Raises:
        Pseudo3dError: an argument is below 1.

    Example:
        >>> sample_clips_sliding(35)[:, 0]  # the clip at 16 ends on frame 31, so one more is added
        array([ 0,  8, 16, 19])
    """
    _check_positive(num_frames=num_frames, length=length, stride=stride)
    room = max(0, num_frames - length)
    starts = list(range(0, room + 1, stride))
    if starts[-1] != room:
        starts.append(room)
    return _consecutive(starts, length, num_frames)


def sample_pieces(
    times: Float64[np.ndarray, "frames"], pieces: int, seconds: float, rng: np.random.Generator
) -> Int64[np.ndarray, "pieces 2"]:
    """Pieces of equal duration that start anywhere with equal chance (five of 5 seconds in the paper's section 4).

    Args:
        times: of the frames, seconds. Where they run backwards, the latest so far counts.
        pieces: how many, at least 1, drawn independently and in no order; they may overlap.
        seconds: duration of a piece, above 0. A video that does not last longer is the only piece, as often as asked.
        rng: the source of chance; the same state gives the same pieces.

    Returns:
        (pieces, 2), the first frame of each piece and the one after its last. Where a video stands still for longer
        than a piece lasts, a piece may hold no frame: both numbers are then that of the next one, at most the last.

    Raises:
        Pseudo3dError: ``pieces`` is below 1, or there is no frame.

    Example:
        >>> sample_pieces(np.arange(100) / 10, 2, 5.0, np.random.default_rng(0))  # 10 frames/s
        array([[32, 82],
               [13, 63]])
        >>> sample_pieces(np.arange(20) / 10, 1, 5.0, np.random.default_rng(0))
        array([[ 0, 20]])
    """
    _check_positive(pieces=pieces, frames=len(times))
    times = np.maximum.accumulate(times)
    step = (times[-1] - times[0]) / max(1, len(times) - 1)  # the last frame is shown for some time, too
    room = times[-1] + step - times[0] - seconds
    if room <= 0:
        return np.tile(np.array([0, len(times)], np.int64), (pieces, 1))
    # A frame is inside when its time is: from one step before the first frame on, all frames have the same chance.
    starts = times[0] - step + rng.uniform(0, room + step, size=pieces)
    bounds = np.searchsorted(times, np.stack([starts, starts + seconds], axis=1))
    bounds[:, 0] = np.minimum(bounds[:, 0], len(times) - 1)
    return bounds.astype(np.int64)


SLIDING_STRIDE = 8  # C3D's

Sampler = Callable[[int, int, int, int, np.random.Generator], np.ndarray]

# By the name that a config stores: (frames, clips, length of a clip, stride, chance) -> indices. Only "sliding" looks
# at the stride, and it does not look at the number of clips; only "random" draws.
SAMPLERS: dict[str, Sampler] = {
    "uniform": lambda num_frames, clips, length, stride, rng: sample_clips(num_frames, clips, length),
    "authors": lambda num_frames, clips, length, stride, rng: sample_clips_authors(num_frames, clips, length),
    "sliding": lambda num_frames, clips, length, stride, rng: sample_clips_sliding(num_frames, length, stride),
    "random": lambda num_frames, clips, length, stride, rng: sample_clips_random(num_frames, clips, length, rng),
}


def draw_of(seed: int, num_frames: int, name: str) -> np.random.Generator:
    """The source of chance for the test clips of one video: the same in every process, run and order of videos.

    Args:
        seed: of all videos, at least 0; another one draws other clips of each.
        num_frames: of the video.
        name: of its file, without its folder, so that a copy elsewhere has the same clips, and videos of the same
            number of frames have different ones.

    Raises:
        Pseudo3dError: the seed is negative.

    Example:
        >>> first, second = (sample_clips_random(100, 20, 16, draw_of(0, 100, "a.mp4")) for _ in range(2))
        >>> np.array_equal(first, second)
        True
    """
    if seed < 0:
        raise Pseudo3dError(f"the seed of the sampler must be 0 or more, got {seed}")
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).digest()
    return np.random.default_rng((seed, num_frames, int.from_bytes(digest[:8], "little")))


def _consecutive(starts: list[int], length: int, num_frames: int) -> np.ndarray:
    """Rows of consecutive frame numbers; the modulus only acts on videos shorter than a clip."""
    return (np.asarray(starts, dtype=np.int64)[:, None] + np.arange(length, dtype=np.int64)) % num_frames


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise Pseudo3dError(f"{name} must be at least 1, got {value}")
