import pytest
import torch
from reference import conv3d_bottleneck, randomise, relative_error

from pseudo3d.models.blocks import (
    Bottleneck,
    Stem,
    clip_to_frames,
    frames_to_clip,
    spatial_view,
    temporal_max_pool,
    temporal_view,
)


def frames(n=2, t=4, c=8, h=6, w=5):
    clips = torch.randn(n, c, t, h, w, generator=torch.Generator().manual_seed(1))
    return clips, clip_to_frames(clips)


def test_frames_are_channels_last_and_hold_the_clips_in_order():
    clips, x = frames()
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x[4 + 3], clips[1, :, 3])
    assert torch.equal(frames_to_clip(x, 4), clips)


def test_a_clip_already_in_that_memory_is_not_copied():
    clips = torch.randn(2, 4, 6, 5, 8).permute(0, 4, 1, 2, 3)
    assert clip_to_frames(clips).data_ptr() == clips.data_ptr()


@pytest.mark.parametrize("shape", [(2, 4, 8, 6, 5), (1, 2, 64, 1, 1), (3, 8, 2, 7, 1)])
def test_the_temporal_view_copies_nothing_in_either_direction(shape):
    n, t, c, h, w = shape
    _, x = frames(n, t, c, h, w)
    view = temporal_view(x, t)
    assert view.shape == (n, c, t, h * w)
    assert view.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert view.is_contiguous(memory_format=torch.channels_last)
    back = spatial_view(view, h, w)
    assert back.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert torch.equal(back, x)


@pytest.mark.parametrize("kind", ["A", "B", "C"])
def test_the_block_itself_gives_the_temporal_convolution_a_view(kind):
    block = randomise(Bottleneck(32, 8, kind=kind)).eval()
    seen = {}
    block.bn_a.register_forward_hook(lambda _m, _i, out: seen.update(a=out))
    block.bn_s.register_forward_hook(lambda _m, _i, out: seen.update(s=out))
    block.conv_t.register_forward_hook(lambda _m, inputs, out: seen.update(t=inputs[0], out=out))
    with torch.no_grad():
        block(frames(c=32)[1], 4)
    assert seen["t"].is_contiguous(memory_format=torch.channels_last)
    assert seen["out"].is_contiguous(memory_format=torch.channels_last)
    assert seen["t"]._base is not None  # a view: no memory of its own


def test_temporal_max_pool_takes_pairs_of_steps_of_one_clip():
    clips, x = frames()
    expected = torch.nn.functional.max_pool3d(clips, (2, 1, 1), (2, 1, 1))
    assert torch.equal(frames_to_clip(temporal_max_pool(x), 2), expected)


@pytest.mark.parametrize("style", ["caffe", "torchvision", "port"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["2D", "A", "B", "C"])
@pytest.mark.parametrize("in_channels", [32, 16])
@torch.no_grad()
def test_block_equals_conv3d(kind, stride, style, in_channels):
    block = randomise(Bottleneck(in_channels, 8, kind=kind, stride=stride, style=style)).eval()
    clips, x = frames(c=in_channels)
    expected = conv3d_bottleneck(block, clips, kind, stride, style)
    assert relative_error(frames_to_clip(block(x, 4), 4), expected) < 1e-5


@torch.no_grad()
def test_c_has_the_coefficients_of_the_release():
    """With T = 0 the middle of C is S / 2, of B it is S, and of A it is nothing (equations 3 to 5)."""
    middles = {}
    for kind in "ABC":
        block = randomise(Bottleneck(32, 8, kind=kind)).eval()
        block.conv_t.weight.zero_()
        block.bn_t.reset_parameters()
        a = torch.relu(frames(c=8)[1])
        s = torch.relu(block.bn_s(block.conv_s(a)))
        middles[kind] = (block.middle(a, 4), s)
    assert torch.equal(middles["A"][0], torch.zeros_like(middles["A"][1]))
    assert torch.equal(*middles["B"])
    assert torch.equal(middles["C"][0], middles["C"][1] / 2)


@torch.no_grad()
def test_the_temporal_branch_has_no_relu_of_its_own():
    block = randomise(Bottleneck(32, 8, kind="B")).eval()
    block.conv_t.weight.copy_(-torch.eye(8)[:, :, None, None] * torch.tensor([0.0, 1, 0])[:, None])
    block.bn_t.reset_parameters()
    a = torch.relu(frames(c=8)[1])
    s = torch.relu(block.bn_s(block.conv_s(a)))
    torch.testing.assert_close(block.middle(a, 4), torch.relu(s - a), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [32, 33, 35, 160])
@torch.no_grad()
def test_pool1_windows(size):
    """Caffe's windows start at 0 and reach over the edge (ceil mode); torchvision's are shifted by the padding."""
    ramp = torch.arange(size * size, dtype=torch.float32).reshape(1, 1, size, size)
    x = ramp.expand(2, 64, -1, -1)
    for style in ("caffe", "torchvision"):
        stem = Stem(3, style).eval()
        stem.conv1 = torch.nn.Identity()
        stem.bn_conv1 = torch.nn.Identity()
        pooled = stem(x, pool_time=False)
        start = 0 if style == "caffe" else -1
        side = -(-(size - 3) // 2) + 1 if style == "caffe" else (size - 1) // 2 + 1
        assert pooled.shape == (2, 64, side, side)
        for i, j in ((0, 0), (1, 2), (side - 1, side - 1)):
            rows = slice(max(0, 2 * i + start), 2 * i + start + 3)
            columns = slice(max(0, 2 * j + start), 2 * j + start + 3)
            assert pooled[0, 0, i, j] == ramp[0, 0, rows, columns].max()
