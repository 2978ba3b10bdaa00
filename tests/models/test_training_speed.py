"""What makes training fast and small changes nothing: frozen batch norms, poolings, recomputing, kept memory."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from reference import conv3d_bottleneck, randomise, relative_error
from torch import nn

from pseudo3d import create_model
from pseudo3d.models import blocks
from pseudo3d.models.blocks import Bottleneck, Stem, clip_to_frames, frames_to_clip, stem_max_pool, temporal_max_pool
from pseudo3d.training import allocator

pytestmark = pytest.mark.usefixtures("one_thread")


def random(*shape, dtype=torch.float32, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def frozen(module, first=0):
    """Training mode with the batch norms from number ``first`` on as they are."""
    module.train()
    for bn in [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)][first:]:
        bn.eval()
        bn.requires_grad_(False)
    return module


@pytest.fixture
def unfused(monkeypatch):
    """Call it, and batch norms are modules of their own from then on."""
    return lambda: monkeypatch.setattr(blocks, "is_frozen", lambda bn: False)


def small_network(first=0, blocks="ABC", **more):
    model = frozen(randomise(create_model("p3d_resnet14", num_classes=3, dropout=0.0, blocks=blocks, **more)), first)
    return model, random(2, 3, 16, 32, 32)


def gradients(module, out, **more):
    """By name, of a loss that weighs all outputs differently, by the parameters and what else is named."""
    loss = (out * random(*out.shape, seed=7).to(out)).sum()
    named = {name: p for name, p in module.named_parameters() if p.requires_grad} | more
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def saved_bytes(forward):
    """What autograd keeps of a forward pass: the memory of all tensors, each counted once."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    assert out.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("style", "stride"), [("caffe", 2), ("torchvision", 2), ("port", 1)])
@pytest.mark.parametrize("kind", ["2D", "A", "B", "C"])
def test_a_frozen_block_trains_as_convolutions_and_batch_norms(kind, style, stride, dtype):
    """Outputs and gradients are those of 3-D convolutions, each followed by its batch norm, by plain autograd."""
    block = frozen(randomise(Bottleneck(16, 8, kind=kind, stride=stride, style=style))).to(dtype)
    clips = random(2, 16, 4, 6, 6, dtype=dtype).requires_grad_()
    got = frames_to_clip(block(clip_to_frames(clips), 4), 4)
    expected = conv3d_bottleneck(block, clips, kind, stride, style)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert relative_error(got, expected) < tolerance
    wanted = gradients(block, expected, clips=clips)
    for name, gradient in gradients(block, got, clips=clips).items():
        assert relative_error(gradient, wanted[name]) < tolerance, name


@pytest.mark.parametrize(("blocks", "style"), [("ABC", "caffe"), ("CBA", "torchvision"), ("BCA", "port")])
def test_a_network_with_one_live_batch_norm_trains_as_unfused(unfused, blocks, style):
    model, clips = small_network(first=1, blocks=blocks, style=style)
    other = copy.deepcopy(model)
    out = model(clips)
    fused = gradients(model, out)
    unfused()
    expected = other(clips)
    assert relative_error(out, expected) < 1e-5
    assert "stem.bn_conv1.weight" in fused
    for name, gradient in gradients(other, expected).items():
        assert relative_error(fused[name], gradient) < 1e-4, name
    for (name, value), (_, after) in zip(model.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(value, after), name
    assert model.stem.bn_conv1.num_batches_tracked == 1


def test_under_autocast_gradients_stay_close(unfused):
    """bfloat16 has 8 bits: what is compared is how far each way is from float32."""
    model, clips = small_network(first=1)
    expected = gradients(model, model(clips))

    def lowest_cosine():
        with torch.autocast("cpu", torch.bfloat16):
            out = model(clips)
        assert out.dtype == torch.float32
        return min(
            F.cosine_similarity(g.flatten(), expected[name].flatten(), dim=0).item()
            for name, g in gradients(model, out).items()
            if g.ndim > 1
        )

    fused = lowest_cosine()
    unfused()
    assert fused > 0.95
    assert fused > lowest_cosine() - 0.01


def test_evaluation_is_not_touched(monkeypatch):
    """Without gradients, or with batch norms that learn, the modules themselves run."""
    block = frozen(randomise(Bottleneck(16, 8, kind="B")))
    seen = []
    for bn in (block.bn_a, block.bn_s, block.bn_t, block.bn_c, block.bn_shortcut):
        bn.register_forward_hook(lambda m, _i, _o: seen.append(m))
    x = clip_to_frames(random(2, 16, 4, 6, 6))
    block(x, 4)
    assert not seen
    with torch.no_grad():
        block(x, 4)
    assert len(seen) == 5
    block.bn_s.weight.requires_grad_(True)
    block(x, 4)
    assert seen[5:] == [block.bn_s]
    block.train()
    block(x, 4)
    assert len(seen) == 11


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_of_equal_steps_takes_the_gradient(dtype):
    """As in F.max_pool2d: integers, so that many are equal."""
    values = torch.randint(0, 3, (2, 8, 4, 3, 5), generator=torch.Generator().manual_seed(0)).to(dtype)
    ours, theirs = (clip_to_frames(values).clone().requires_grad_() for _ in range(2))
    got = temporal_max_pool(ours)
    expected = F.max_pool2d(blocks.temporal_view(theirs, 2), (2, 1)).permute(0, 2, 3, 1).reshape(4, 3, 5, 8)
    expected = expected.permute(0, 3, 1, 2)
    assert torch.equal(got, expected)
    weights = random(*got.shape).to(dtype)
    for out in (got, expected):
        (out * weights).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)
    assert ours.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("style", ["caffe", "torchvision"])
@pytest.mark.parametrize("pool_time", [True, False])
@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 9), (130, 127)])  # the last: places need more than 16 bits
def test_pool1_has_the_gradient_of_a_pooling(style, pool_time, height, width):
    """The stem is 1x7x7, batch norm, ReLU and max pooling, whatever it computes first."""
    clips = random(2, 3, 4, 2 * height, 2 * width) if height < 100 else random(1, 3, 2, 2 * height, 2 * width)
    stem = randomise(Stem(3, style)).eval()
    steps = 2 if pool_time else 1
    got = frames_to_clip(stem(clip_to_frames(clips), pool_time), clips.shape[2] // steps)
    x = F.conv3d(clips, stem.conv1.weight[:, :, None], stride=(1, 2, 2), padding=(0, 3, 3))
    x = F.relu(F.batch_norm(x, *(getattr(stem.bn_conv1, n) for n in ("running_mean", "running_var", "weight", "bias"))))
    pad = (0, 1, 1) if style == "torchvision" else 0
    expected = F.max_pool3d(x, (steps, 3, 3), (steps, 2, 2), pad, ceil_mode=style == "caffe")
    assert relative_error(got, expected) < 1e-5
    for_weights = gradients(stem, expected)
    for name, gradient in gradients(stem, got).items():
        assert relative_error(gradient, for_weights[name]) < 1e-4, name


@pytest.mark.parametrize("pool_time", [True, False])
def test_pool1_is_the_same_with_and_without_gradients(pool_time):
    frames = clip_to_frames(random(2, 8, 4, 9, 12))
    with_gradients = stem_max_pool(frames.clone().requires_grad_(), "caffe", pool_time)
    assert with_gradients.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(with_gradients, stem_max_pool(frames, "caffe", pool_time))


@pytest.mark.parametrize("live", [False, True])
def test_recomputing_changes_nothing_but_memory(live):
    """Not even running statistics, when batch norms learn: they count a batch once."""
    model, clips = small_network(first=10**6 if live else 1)
    other = copy.deepcopy(model)
    other.checkpoint_activations = True
    for _ in range(2):
        expected, got = model(clips), other(clips)
        assert torch.equal(got, expected)
        wanted = gradients(model, expected)
        assert all(torch.equal(g, wanted[name]) for name, g in gradients(other, got).items())
    for (name, value), (_, after) in zip(model.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(value, after), name
    assert other.res3[0].bn_s.num_batches_tracked == (2 if live else 0)
    assert saved_bytes(lambda: other(clips)) < 0.8 * saved_bytes(lambda: model(clips))


def test_less_is_kept_for_the_backward_pass(unfused):
    """Of a frozen block: its input, the results of its ReLUs, and the filters."""
    block = frozen(randomise(Bottleneck(32, 8, kind="A")))
    x = clip_to_frames(random(2, 32, 4, 16, 16)).requires_grad_()
    filters = sum(p.nbytes for p in block.parameters())
    results = x.nbytes * (1 + 3 * 8 / 32 + 1)
    fused = saved_bytes(lambda: block(x, 4))
    assert results <= fused <= results + 2 * filters
    unfused()
    assert fused < 0.8 * saved_bytes(lambda: block(x, 4))


FAULTS = """
import resource
from pseudo3d.training.allocator import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        b"x" * (64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
assert keep_memory()
faults()  # taken from the system once
print(faults() < first / 10)
"""


@pytest.mark.skipif(allocator.platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_large_buffers_are_reused():
    """The system clears no pages again: no page faults."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_other_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    assert allocator.keep_memory() is False
