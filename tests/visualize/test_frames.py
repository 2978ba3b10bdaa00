from dataclasses import replace

import numpy as np
import pytest
import torch

from pseudo3d import Preprocessing, Pseudo3dError
from pseudo3d.inference import to_input
from pseudo3d.preprocessing import imagenet_preprocessing
from pseudo3d.video.transforms import Window
from pseudo3d.visualize.frames import undo_preprocessing

SMALL = Preprocessing(resize=(8, 9), crop=(6, 5))


def grey_levels(clips=2):
    """Random frames that hold every grey level in every channel."""
    frames = np.random.default_rng(0).integers(0, 256, (clips, 16, 6, 5, 3), dtype=np.uint8)
    for channel in range(3):
        frames[0, ..., channel].reshape(-1)[:256] = np.arange(256)
    return torch.from_numpy(frames)


@pytest.mark.parametrize(
    "preprocessing",
    [
        SMALL,
        imagenet_preprocessing(SMALL),
        replace(SMALL, channel_order="RGB", value_range=(-1.0, 1.0), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0)),
        replace(imagenet_preprocessing(SMALL), channel_order="BGR"),
    ],
)
def test_the_way_there_and_back(preprocessing):
    frames = grey_levels()
    inputs = to_input(frames, preprocessing)
    back = undo_preprocessing(inputs, preprocessing)
    assert (back.dtype, back.flags.c_contiguous) == (np.uint8, True)
    np.testing.assert_array_equal(back, frames.numpy())


def test_bfloat16_loses_little():
    frames = grey_levels()
    back = undo_preprocessing(to_input(frames, SMALL).bfloat16(), SMALL)
    assert np.abs(back.astype(int) - frames.numpy()).max() <= 1


def test_a_mean_of_every_place():
    frames, windows = grey_levels(), [Window(1, 3), Window(2, 0, flipped=True)]
    volume = torch.rand(3, 16, 8, 9, generator=torch.Generator().manual_seed(0)) * 100
    for at in (windows, None):
        inputs = to_input(frames, SMALL, volume, at)
        np.testing.assert_array_equal(undo_preprocessing(inputs, SMALL, volume, at), frames.numpy())
    assert (undo_preprocessing(inputs, SMALL) != frames.numpy()).any()


def test_what_no_frame_can_be_is_clipped():
    inputs = torch.tensor([-1e4, 1e4, 0.0]).view(1, 3, 1, 1, 1)  # blue, green, red
    assert undo_preprocessing(inputs, SMALL).flatten().tolist() == [123, 255, 0]


def test_flow_is_grey():
    """By the formula itself: ``to_input`` takes frames of three channels only."""
    flow = replace(SMALL, mean=(128.0, 100.0), std=(2.0, 3.0))
    levels = torch.randint(0, 256, (1, 2, 4, 3, 3), generator=torch.Generator().manual_seed(0))
    inputs = (levels - torch.tensor(flow.mean).view(2, 1, 1, 1)) / torch.tensor(flow.std).view(2, 1, 1, 1)
    back = undo_preprocessing(inputs, flow)
    assert back.shape == (1, 4, 3, 3, 3)
    for channel in range(3):
        np.testing.assert_array_equal(back[..., channel], levels[:, 0].numpy())


def test_another_networks_preprocessing():
    with pytest.raises(Pseudo3dError, match="the clips have 2 channels, the preprocessing is of 3"):
        undo_preprocessing(torch.zeros(1, 2, 1, 2, 2), SMALL)
