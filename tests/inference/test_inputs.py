import numpy as np
import pytest
import torch
from networks import CAFFE, IMAGENET, inputs_of

from pseudo3d.inference import to_input
from pseudo3d.models.blocks import clip_to_frames

both = pytest.mark.parametrize("p", [CAFFE, IMAGENET], ids=["caffe", "imagenet"])


@both
def test_to_input_step_by_step(p):
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7, 3), dtype=np.uint8)
    expected = inputs_of(frames, p)
    got = to_input(torch.from_numpy(frames), p)
    assert got.dtype == torch.float32
    assert got.shape == expected.shape
    np.testing.assert_allclose(got.numpy(), expected.numpy(), rtol=1e-6, atol=1e-5 * abs(expected).max().item())


@both
def test_to_input_is_laid_out_for_the_networks(p):
    inputs = to_input(torch.zeros(2, 3, 5, 7, 3, dtype=torch.uint8), p)
    seen = clip_to_frames(inputs)
    assert seen.data_ptr() == inputs.data_ptr()
    assert seen.is_contiguous(memory_format=torch.channels_last)
