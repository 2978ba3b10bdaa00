import numpy as np
import pytest

from pseudo3d.errors import Pseudo3dError
from pseudo3d.video.transforms import Window, center_crop, center_window, cut_out, random_window


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
    assert center_window((128, 171), (112, 112)) == Window(8, 29, False)


def test_random_windows_reach_every_place(frames):
    rng = np.random.default_rng(0)
    windows = {random_window((13, 18), (11, 16), rng) for _ in range(300)}
    assert windows == {Window(top, left, False) for top in range(3) for left in range(3)}
    assert random_window((13, 18), (13, 18), rng) == (0, 0, False)


def test_a_clip_is_cut_out_at_one_window_of_all_frames(frames):
    part = cut_out(frames, Window(2, 5), (6, 7))
    assert (part == frames[:, 2:8, 5:12]).all()
    assert np.shares_memory(part, frames)


def test_the_mirror_image_has_its_columns_turned_only(frames):
    part = cut_out(frames, Window(2, 5), (6, 7))
    flipped = cut_out(frames, Window(2, 5, flipped=True), (6, 7))
    assert (flipped == np.flip(part, axis=2)).all()
    assert np.shares_memory(flipped, frames)


@pytest.mark.parametrize("size", [(14, 7), (6, 19)])
def test_crop_larger_than_the_frame(frames, size):
    words = f"{size[0]} high and {size[1]} wide does not fit into frames 13 high and 18 wide: resize"
    with pytest.raises(Pseudo3dError, match=words):
        center_crop(frames, size)
    with pytest.raises(Pseudo3dError, match=words):
        random_window((13, 18), size, np.random.default_rng(0))


def test_empty_crop(frames):
    with pytest.raises(Pseudo3dError, match="at least 1x1, got height 0"):
        center_crop(frames, (0, 5))
