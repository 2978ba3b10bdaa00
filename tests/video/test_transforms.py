import numpy as np
import pytest

from pseudo3d.errors import Pseudo3dError
from pseudo3d.video.transforms import center_crop, horizontal_flip, random_crop


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (4, 13, 18, 3), dtype=np.uint8)


def test_center_crop_is_plain_indexing_and_a_view(frames):
    cropped = center_crop(frames, (6, 7))
    assert (cropped == frames[:, 3:9, 5:12]).all()  # (13 - 6) // 2, (18 - 7) // 2
    assert np.shares_memory(cropped, frames)
    assert center_crop(frames, (13, 18)).shape == frames.shape
    assert (center_crop(frames[0], (6, 7)) == cropped[0]).all()  # a single frame
    assert center_crop(frames.reshape(2, 2, 13, 18, 3), (6, 7)).shape == (2, 2, 6, 7, 3)


def test_center_crop_of_c3d_is_at_8_29():
    frames = np.random.default_rng(1).integers(0, 256, (1, 128, 171, 3), dtype=np.uint8)
    assert (center_crop(frames, (112, 112)) == frames[:, 8:120, 29:141]).all()


def test_random_crop_takes_one_window_for_all_frames_and_reaches_every_place(frames):
    positions = np.arange(13 * 18, dtype=np.uint8).reshape(13, 18)  # a frame that knows its places
    clip = np.broadcast_to(positions[None, :, :, None], (5, 13, 18, 3)).copy()
    corners = set()
    rng = np.random.default_rng(0)
    for _ in range(300):
        window = random_crop(clip, (11, 16), rng)
        assert window.shape == (5, 11, 16, 3)
        assert (window == window[0]).all()
        assert np.shares_memory(window, clip)
        top, left = divmod(int(window[0, 0, 0, 0]), 18)
        assert (window == clip[:, top : top + 11, left : left + 16]).all()
        corners.add((top, left))
    assert corners == {(top, left) for top in range(3) for left in range(3)}


def test_horizontal_flip_mirrors_columns_only(frames):
    flipped = horizontal_flip(frames)
    assert (flipped == np.flip(frames, axis=2)).all()
    assert np.shares_memory(flipped, frames)
    assert (horizontal_flip(flipped) == frames).all()


@pytest.mark.parametrize("size", [(14, 7), (6, 19)])
def test_crop_larger_than_the_frame(frames, size):
    words = f"{size[0]} high and {size[1]} wide does not fit into frames 13 high and 18 wide: resize"
    with pytest.raises(Pseudo3dError, match=words):
        center_crop(frames, size)
    with pytest.raises(Pseudo3dError, match=words):
        random_crop(frames, size, np.random.default_rng(0))


def test_empty_crop(frames):
    with pytest.raises(Pseudo3dError, match="at least 1x1, got height 0"):
        center_crop(frames, (0, 5))
