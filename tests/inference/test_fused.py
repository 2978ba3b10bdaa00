"""``FusedResNet`` and ``FusedC3D`` against plain 3-D convolutions (``tests/reference.py``), and their poolings."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import CAFFE, CPU, IMAGENET, inputs_of, lowest_cosine, network, random_clips
from reference import batch_norm, c3d_network, conv3d_bottleneck, conv3d_network, randomise, relative_error
from torch import nn

from pseudo3d import Pseudo3dError, create_model, read_video
from pseudo3d.inference import ClipRunner, fold_batch_norms
from pseudo3d.inference import fused as module
from pseudo3d.inference.engines import engines_for
from pseudo3d.inference.fused import (
    FusedC3D,
    FusedConv,
    FusedResNet,
    convolutions_can_be_fused,
    pool_pixels,
    pool_steps,
)
from pseudo3d.video.transforms import center_crop

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not convolutions_can_be_fused(), reason="this PyTorch has no fused oneDNN convolutions"),
]

RESNET_LAYERS = ("res2", "res3", "res4", "res5", "pool5", "logits", "prob")
BGR_STD = CAFFE.__class__(mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0))


def fused(model, clips, layers=RESNET_LAYERS, dtype=torch.float32):
    """From uint8 clips through ``FusedResNet`` in this precision."""
    folded = fold_batch_norms(model)
    for name, part in folded.named_children():
        if name not in folded.full_precision_parts:
            part.to(dtype)
    with torch.inference_mode():
        features = (FusedC3D if hasattr(model, "conv1a") else FusedResNet)(folded)(torch.from_numpy(clips), layers)
    return {name: value.float() for name, value in features.items()}


def frame_network(model, clips, style):
    """The frame baseline with conv3d: as ``reference.conv3d_network``, but no step meets another."""
    x = F.conv3d(clips, model.stem.conv1.weight[:, :, None], stride=(1, 2, 2), padding=(0, 3, 3))
    x = F.relu(batch_norm(x, model.stem.bn_conv1))
    how = {"ceil_mode": True} if style == "caffe" else {"padding": (0, 1, 1)}
    x, out = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), **how), {}
    for number in (2, 3, 4, 5):
        for i, block in enumerate(getattr(model, f"res{number}")):
            x = conv3d_bottleneck(block, x, "2D", 2 if number > 2 and i == 0 else 1, style)
        out[f"res{number}"] = x
    out["pool5"] = x.mean(dim=(2, 3, 4))
    out["logits"] = out["pool5"] @ model.fc.weight.T + model.fc.bias
    return out | {"prob": out["logits"].softmax(1)}


@pytest.mark.parametrize(
    ("style", "blocks", "size", "preprocessing", "count"),
    [
        ("caffe", "ABC", (33, 47), CAFFE, 1),
        ("caffe", "ABC", (64, 96), IMAGENET, 2),
        ("caffe", "BA", (47, 33), BGR_STD, 3),
        ("caffe", "C", (32, 32), CAFFE, 5),
        ("caffe", "A", (33, 33), IMAGENET, 2),
        ("torchvision", "ABC", (47, 33), IMAGENET, 3),
        ("torchvision", "B", (33, 47), BGR_STD, 2),
        ("torchvision", "CAB", (64, 96), IMAGENET, 1),
        ("port", "ABC", (33, 47), IMAGENET, 4),
        ("port", "BA", (47, 47), CAFFE, 2),
        ("port", "BCA", (32, 47), BGR_STD, 1),
    ],
)
@torch.no_grad()
def test_p3d_is_that_of_plain_convolutions(style, blocks, size, preprocessing, count):
    model = network(size=size, preprocessing=preprocessing, style=style, blocks=blocks)
    clips = random_clips(count, model.preprocessing)
    expected = conv3d_network(model, inputs_of(clips, model.preprocessing), (1, 1, 1, 1), blocks, style)
    got = fused(model, clips)
    assert list(got) == list(RESNET_LAYERS)
    for layer in RESNET_LAYERS:
        assert got[layer].shape == expected[layer].shape
        assert relative_error(got[layer], expected[layer]) < 1e-4, layer
    half = fused(model, clips, dtype=torch.bfloat16)
    for layer in RESNET_LAYERS[:-1]:
        assert not torch.equal(half[layer], got[layer])
        assert lowest_cosine(half[layer], got[layer]) >= 0.999, layer


@pytest.mark.parametrize(("style", "size"), [("caffe", (33, 47)), ("torchvision", (64, 33)), ("caffe", (32, 64))])
@torch.no_grad()
def test_frame_networks_are_those_of_plain_convolutions(style, size):
    model = network("resnet14", size=size, style=style)
    clips = np.random.default_rng(0).integers(0, 256, (2, 5, *size, 3), dtype=np.uint8)
    expected = frame_network(model, inputs_of(clips, model.preprocessing), style)
    got = fused(model, clips)
    for layer in RESNET_LAYERS:
        assert relative_error(got[layer], expected[layer]) < 1e-4, layer
    assert lowest_cosine(fused(model, clips, ("pool5",), torch.bfloat16)["pool5"], got["pool5"]) >= 0.999


@torch.no_grad()
def test_blocks_within_a_stage():
    """Blocks without a projection write over their input: it must not be one that somebody still reads."""
    model = randomise(create_model("p3d_resnet50", num_classes=7)).eval()
    model.preprocessing = model.preprocessing.with_size(33)
    clips = random_clips(2, model.preprocessing)
    expected = conv3d_network(model, inputs_of(clips, model.preprocessing), (3, 4, 6, 3), "ABC", "caffe")
    got = fused(model, clips)
    for layer in RESNET_LAYERS:
        assert relative_error(got[layer], expected[layer]) < 1e-4, layer
    for layer in RESNET_LAYERS:  # and the same whatever else is asked for
        assert torch.equal(fused(model, clips, (layer,))[layer], got[layer])


@torch.no_grad()
def test_c3d_is_that_of_sums_of_shifts():
    model = network("c3d")
    rough = torch.rand(model.mean_volume.shape, generator=torch.Generator().manual_seed(0)) * 50 + 80
    model.set_mean_volume(rough)
    clips = random_clips(2, model.preprocessing)
    top, left = (128 - 112) // 2, (171 - 112) // 2
    inputs = torch.from_numpy(clips[..., ::-1].copy()).permute(0, 4, 1, 2, 3).float()
    inputs = inputs - rough[:, :, top : top + 112, left : left + 112]
    expected, got = c3d_network(model, inputs), fused(model, clips, model.layers)
    for layer in model.layers:
        assert relative_error(got[layer], expected[layer]) < 1e-4, layer
        assert torch.equal(fused(model, clips, (layer,))[layer], got[layer])
    half = fused(model, clips, ("conv5b", "fc6"), torch.bfloat16)
    assert all(lowest_cosine(half[layer], got[layer]) >= 0.999 for layer in half)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_poolings_bit_for_bit(dtype):
    generator = torch.Generator().manual_seed(0)
    for size in range(3, 41):
        x = torch.randn(2, 16, size, 43 - size, generator=generator).relu().to(dtype)
        x[0, :, 0, 0] = torch.inf
        x = x.contiguous(memory_format=torch.channels_last)
        assert torch.equal(pool_pixels(x, "caffe"), F.max_pool2d(x, 3, 2, ceil_mode=True))
        for style in ("torchvision", "port"):
            assert torch.equal(pool_pixels(x, style), F.max_pool2d(x, 3, 2, padding=1))
        assert torch.equal(pool_steps(x), torch.stack([x[0::2], x[1::2]]).amax(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_what_is_not_finite(dtype):
    """Infinity passes as in eager mode. NaN does not: oneDNN's ReLU makes it 0, in PyTorch it stays NaN."""
    conv = nn.Conv2d(16, 16, 1).to(dtype)
    x = torch.rand(1, 16, 4, 4).to(dtype).contiguous(memory_format=torch.channels_last)
    other = x.clone(memory_format=torch.preserve_format)
    other[0, 0], other[0, 1], other[0, 2] = torch.inf, -torch.inf, torch.nan
    got, expected = FusedConv(conv)(x, add=other), F.relu(conv(x) + other)
    assert torch.equal(got[0, :2], expected[0, :2])
    assert expected[0, 2].isnan().all()
    assert (got[0, 2] == 0).all()
    pooled = pool_pixels(other.abs(), "caffe")  # poolings hand both on
    assert (pooled[0, 0] == torch.inf).all()
    assert pooled[0, 2].isnan().all()


@torch.inference_mode()
def test_what_is_added_to_is_kept_or_reused():
    conv, generator = nn.Conv2d(16, 16, 3, padding=1), torch.Generator().manual_seed(0)
    x, other = (torch.randn(2, 5, 5, 16, generator=generator).permute(0, 3, 1, 2) for _ in range(2))
    before = other.clone()
    expected = F.relu(conv(x) + other)
    kept = FusedConv(conv)(x, add=other)
    assert torch.equal(other, before)
    onto = FusedConv(conv)(x, onto=other)
    assert onto.data_ptr() == other.data_ptr()
    assert torch.equal(kept, onto)
    assert relative_error(kept, expected) < 1e-6


def test_wrong_clips_and_layers_are_refused_as_by_the_network():
    model = network()
    with pytest.raises(Pseudo3dError, match=r"clips of shape \(1, 3, 8, 32, 32\).*T a multiple of 16"):
        fused(model, np.zeros((1, 8, 32, 32, 3), np.uint8))
    with pytest.raises(Pseudo3dError, match="no layer 'pool6'"):
        fused(model, np.zeros((1, 16, 32, 32, 3), np.uint8), ("pool6",))
    with pytest.raises(Pseudo3dError, match=r"clips of shape \(1, 3, 16, 32, 32\).*112, 112"):
        fused(network("c3d"), np.zeros((1, 16, 32, 32, 3), np.uint8), ("fc6",))


@pytest.fixture
def asked_anew():
    convolutions_can_be_fused.cache_clear()
    yield
    convolutions_can_be_fused.cache_clear()


def broken_call(self, x, *, relu=True, add=None, onto=None):
    raise RuntimeError("mkldnn::_convolution_pointwise() expected at most 9 arguments")


def wrong_call(self, x, *, relu=True, add=None, onto=None):
    return torch.zeros_like(x)


@pytest.mark.parametrize("call", [broken_call, wrong_call])
def test_a_pytorch_without_fused_convolutions(monkeypatch, asked_anew, call):
    model = network("resnet14")
    with monkeypatch.context() as patch:
        patch.setattr(module.FusedConv, "__call__", call)
        assert not convolutions_can_be_fused()
        assert (
            engines_for(model, CPU)["fused"]
            == "needs oneDNN convolutions with fused additions, which this PyTorch lacks"
        )
        runner = ClipRunner(model, device="cpu", batch_size=1, expected_clips=1)
        assert runner.engine.name == "eager"
        assert runner(list(random_clips(1, model.preprocessing)), ("pool5",))["pool5"].shape == (1, 2048)
        with pytest.raises(Pseudo3dError, match="engine fused cannot be used: it needs oneDNN convolutions"):
            ClipRunner(model, device="cpu", engine="fused")


def test_a_pytorch_without_onednn(monkeypatch, asked_anew):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not convolutions_can_be_fused()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p3d_resnet50", "p3d_resnet152"])
def test_bfloat16_on_real_clips(name, real_data):
    model = randomise(create_model(name, num_classes=101)).eval()
    p = model.preprocessing
    clips = []
    for path in sorted((real_data / "fight_surv").glob("*/*.mp4"))[:4]:
        frames = read_video(path, indices=range(16), size=(p.crop[0] + 2, p.crop[1] + 40)).frames
        clips.append(center_crop(frames, p.crop))
    clips = np.stack(clips)
    full, half = (fused(model, clips, ("pool5",), dtype)["pool5"] for dtype in (torch.float32, torch.bfloat16))
    assert lowest_cosine(half, full) >= 0.999
