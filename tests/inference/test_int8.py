"""8-bit integers against a simulation in float64 (``int8_simulation.py``) and against float32."""

import copy
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from int8_simulation import rounded_filters, simulated, written
from reference import randomise
from torch import nn

from pseudo3d import Preprocessing, Pseudo3dError, create_model, read_video
from pseudo3d.inference import ClipRunner, choose_dtype, fold_batch_norms, to_input
from pseudo3d.inference import int8 as module
from pseudo3d.inference.engines import choose_int8_engine
from pseudo3d.inference.int8 import Code, Int8Conv, Int8ResNet, calibrate, int8_can_be_fused
from pseudo3d.preprocessing import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from pseudo3d.video.transforms import center_window

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(not int8_can_be_fused(), reason="this PyTorch has no 8-bit oneDNN convolutions"),
]

STAGES = ("res2", "res3", "res4", "res5")
IMAGENET = Preprocessing(
    mean=IMAGENET_MEAN_RGB, std=IMAGENET_STD_RGB, channel_order="RGB", value_range=(0.0, 1.0), crop=(32, 32)
)


def network(name="p3d_resnet14", preprocessing=None, **more):
    model = randomise(create_model(name, num_classes=7, **more)).eval()
    model.preprocessing = preprocessing or model.preprocessing.with_size(32)
    return fold_batch_norms(model)


def smooth_clips(count, frames=16, height=32, width=32, seed=0):
    """Soft shapes that drift, rather than noise, which no network tells apart."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 3, 5, 5, generator=generator) * 255
    clips = F.interpolate(coarse, (frames, height, width), mode="trilinear")
    return clips.round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def cosine(a, b):
    return F.cosine_similarity(a.float(), b.float()).min().item()


def int8_features(model, ranges, clips, layers=("pool5",)):
    with torch.inference_mode():
        return Int8ResNet(model, ranges)(clips, layers)


# --- one convolution ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("add", [None, Code(0.011), Code(0.017, 128)], ids=["alone", "add", "add signed"])
@pytest.mark.parametrize(("kernel", "stride"), [((1, 1), 1), ((1, 1), 2), ((3, 3), 1), ((3, 3), 2), ((3, 1), 1)])
def test_a_convolution_is_the_one_of_the_codes_to_one_step(kernel, stride, add, relu, factor):
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 40, kernel, stride, (kernel[0] // 2, kernel[1] // 2)).requires_grad_(False)
    x = torch.randint(0, 256, (2, 9, 7, 24), dtype=torch.uint8).permute(0, 3, 1, 2)
    x_code, y_code = Code(0.01), Code(0.013, 0 if relu else 100)
    real = F.conv2d(
        x.double() * 0.01, rounded_filters(layer.weight) * factor, layer.bias.double(), stride, layer.padding
    )
    other = None
    if add is not None:
        other = torch.randint(0, 256, (2, *real.shape[2:], 40), dtype=torch.uint8).permute(0, 3, 1, 2)
        real = real + (other.double() - add.zero) * add.scale
    if relu:
        real = real.relu()
    expected = (real / 0.013 + y_code.zero).round().clamp(0, 255)
    got = Int8Conv(layer, x_code, y_code, add=add, factor=factor)(x, relu=relu, add=other)
    assert got.dtype == torch.uint8
    assert got.is_contiguous(memory_format=torch.channels_last)
    difference = (got.double() - expected).abs()
    assert difference.max() <= 1  # float32 rounds some sums that lie half-way to the other side
    assert difference.mean() < 0.001


def test_what_is_added_stays_and_what_is_added_onto_holds_the_sum():
    torch.manual_seed(0)
    layer = nn.Conv2d(16, 16, (3, 1), padding=(1, 0)).requires_grad_(False)
    x = torch.randint(0, 256, (2, 4, 9, 16), dtype=torch.uint8).permute(0, 3, 1, 2)
    before, other = x.clone(), x.clone()
    conv = Int8Conv(layer, Code(1.0), Code(2.0), add=Code(1.0))
    added = conv(x, add=x)
    assert torch.equal(x, before)
    assert torch.equal(conv(x, onto=other), added)
    assert torch.equal(other, added)


def test_filters_of_zeros():
    layer = nn.Conv2d(16, 16, 1).requires_grad_(False)
    layer.weight[3], layer.bias[3] = 0, 0.5
    x = torch.full((1, 2, 2, 16), 255, dtype=torch.uint8).permute(0, 3, 1, 2)
    assert (Int8Conv(layer, Code(1.0), Code(0.25))(x)[:, 3] == 2).all()


@pytest.mark.slow
def test_without_vnni_sums_of_16_bits_do_not_overflow():
    """OneDNN is told to leave VNNI out; with 127 levels the largest sums would end at 32767 there."""
    program = """
        import torch
        from pseudo3d.inference import int8
        int8.int8_is_native = lambda: False
        torch.manual_seed(0)
        conv = torch.nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False)
        conv.weight.abs_()
        x = torch.randint(200, 256, (2, 9, 9, 64), dtype=torch.uint8).permute(0, 3, 1, 2)
        y = int8.Int8Conv(conv, int8.Code(1 / 255), int8.Code(30 / 255))(x) * (30 / 255)
        assert (y - conv(x / 255).relu().clamp(max=30)).abs().max() < 2 * 30 / 255
        assert int8.int8_can_be_fused()
    """
    environment = {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, env=environment)


# --- whole networks -------------------------------------------------------------------------------------------------

NETWORKS = [("p3d_resnet14", {"blocks": blocks, "style": style}) for style in ("caffe", "torchvision", "port")
            for blocks in ("ABC", "BCA", "CAB")] + [("resnet14", {})]  # fmt: skip


@pytest.mark.parametrize(("name", "more"), NETWORKS, ids=str)
def test_networks_equal_their_simulation(name, more):
    model = network(name, **more)
    clips = smooth_clips(2, 16 if model.has_time else 3, 33, 47)
    ranges = calibrate(model, clips)
    got = int8_features(model, ranges, clips, (*STAGES, "pool5"))
    expected = simulated(model, ranges, clips, more.get("style", "caffe"))
    for stage in STAGES:
        step = ranges[f"{stage}.0.out"] / 255
        difference = (got[stage] - expected[stage]).abs() / step
        # one number half-way between two codes moves what comes after it by a step here and there
        assert difference.mean() < 0.1, stage
        assert difference.max() <= 6, stage
    assert cosine(got["pool5"], expected["pool5"]) > 0.9999


@pytest.mark.parametrize("preprocessing", [Preprocessing().with_size(32), IMAGENET], ids=["caffe", "imagenet"])
@pytest.mark.parametrize("name", ["p3d_resnet14", "resnet14"])
def test_close_to_float32(name, preprocessing):
    model = network(name, preprocessing)
    clips = smooth_clips(12, 16, 40, 36)
    ranges = calibrate(model, clips[:6])
    got = int8_features(model, ranges, clips[6:], ("res2", "pool5", "prob"))
    with torch.inference_mode():
        expected = model.forward_features(to_input(clips[6:], preprocessing), ("res2", "pool5", "prob"))
    assert all(got[layer].shape == expected[layer].shape for layer in got)
    assert all(value.dtype == torch.float32 for value in got.values())
    assert cosine(got["pool5"], expected["pool5"]) > 0.99
    assert (got["res2"] - expected["res2"]).abs().mean() < 0.03 * expected["res2"].abs().mean()
    torch.testing.assert_close(got["prob"].sum(1), torch.ones(6))


def test_clips_of_two_output_steps():
    model = network()
    clips = smooth_clips(2, 32)
    features = int8_features(model, calibrate(model, clips), clips, ("res5", "pool5"))
    assert features["res5"].shape[2] == 2
    assert features["pool5"].shape == (2, 2048)


@pytest.mark.parametrize("name", ["p3d_resnet14", "resnet14"])
def test_the_same_bits_wherever_a_clip_stands_and_whenever(name):
    model = network(name)
    clips = smooth_clips(5)
    ranges = calibrate(model, clips[:2])
    layers = ("res3", "pool5")
    whole = int8_features(model, ranges, clips, layers)
    turned = int8_features(model, json.loads(json.dumps(ranges)), clips.flip(0), layers)
    for layer in layers:
        assert torch.equal(whole[layer], turned[layer].flip(0))
        for i in range(5):
            assert torch.equal(int8_features(model, ranges, clips[i : i + 1], layers)[layer][0], whole[layer][i])


def test_a_network_can_be_called_again_with_other_shapes_and_layers():
    model = network()
    clips = smooth_clips(2)
    net = Int8ResNet(model, calibrate(model, clips))
    with torch.inference_mode():
        first = net(clips, ("res2", "pool5"))
        net(smooth_clips(3, 16, 48, 48), ("res5",))
        again = net(clips, ("res2", "pool5"))
    assert all(torch.equal(first[layer], again[layer]) for layer in first)


# --- calibration ----------------------------------------------------------------------------------------------------


def test_a_range_loses_no_more_than_the_best_of_a_fine_grid():
    model = network()
    clips = smooth_clips(4)
    seen = []
    hook = model.res3[0].conv_a.register_forward_hook(lambda _, __, y: seen.append(y.relu().flatten()))
    with torch.inference_mode():
        model.forward_features(to_input(clips, model.preprocessing), ("pool5",))
    hook.remove()
    values = torch.cat(seen).double()
    largest = values.max().item()

    def loss(limit):
        return (written(values, limit) - values).square().mean().item()

    chosen = calibrate(model, clips)["res3.0.a"]
    assert 0 < chosen <= largest * (1 + 1e-5)
    assert loss(chosen) <= 1.1 * min(loss(share * largest) for share in np.linspace(0.3, 1, 141))


def test_calibration_is_repeatable_and_leaves_the_random_numbers_alone():
    model = network()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    int8_can_be_fused.cache_clear()
    assert int8_can_be_fused()
    first = calibrate(model, smooth_clips(3))
    assert first == calibrate(model, smooth_clips(3))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_dead_tensors_have_a_range():
    model = network()
    model.res2[0].conv_a.weight.data.zero_()
    model.res2[0].conv_a.bias.data.fill_(-1)
    clips = smooth_clips(2)
    ranges = calibrate(model, clips)
    assert ranges["res2.0.a"] == 1.0
    assert int8_features(model, ranges, clips)["pool5"].isfinite().all()


def test_what_cannot_be_calibrated():
    model = network()
    with pytest.raises(Pseudo3dError, match="no clips to calibrate with"):
        calibrate(model, smooth_clips(2)[:0])
    with pytest.raises(Pseudo3dError, match="do not fit"):
        calibrate(model, smooth_clips(2, frames=15))
    model.res3[0].conv_s.bias.data[5] = 3e38
    model.res3[0].conv_c.weight.data.abs_().mul_(100)
    with pytest.raises(Pseudo3dError, match=r"activations res3.0.out are not finite.*check the weights"):
        calibrate(model, smooth_clips(2))
    model.res3[0].conv_s.bias.data[5] = float("nan")
    with pytest.raises(Pseudo3dError, match=r"a weight is not finite.*check the weights"):
        calibrate(model, smooth_clips(2))


def test_ranges_of_another_network_are_refused():
    model, frames = network(), network("resnet14")
    ranges = calibrate(model, smooth_clips(1))
    with pytest.raises(Pseudo3dError, match=r"of another network: they lack res2.0.s \(3 such in all\); calibrate"):
        Int8ResNet(model, calibrate(frames, smooth_clips(1)))
    with pytest.raises(Pseudo3dError, match=r"of another network: they also have res2.0.s \(3 such"):
        Int8ResNet(frames, ranges)
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(Pseudo3dError, match=r"range of res4.0.out must be a positive number.*calibrate again"):
            Int8ResNet(model, ranges | {"res4.0.out": wrong})


# --- ClipRunner -----------------------------------------------------------------------------------------------------


def test_a_runner_is_calibrated_once_and_goes_on_with_the_same_bits():
    model = randomise(create_model("p3d_resnet14", num_classes=7)).eval()
    clips = smooth_clips(3).numpy()
    two = list(clips[:2])
    runner = ClipRunner(model, device="cpu", dtype="int8", batch_size=2)
    with pytest.raises(Pseudo3dError, match=r"int8 needs ranges of activations: give ranges=, or call calibrate"):
        runner(two, ("pool5",))
    ranges = runner.calibrate(clips)
    got = runner(two, ("pool5", "prob"))
    assert runner.describe()["dtype"] == "int8"
    assert runner.describe()["engine"] == "fused"
    resumed = ClipRunner(model, device="cpu", dtype="int8", batch_size=2, ranges=json.loads(json.dumps(ranges)))
    again = resumed([clips[2], clips[0]], ("pool5", "prob"))
    assert all(np.array_equal(got[layer][0], again[layer][1]) for layer in got)
    plain = ClipRunner(model, device="cpu", dtype="float32", batch_size=2)
    assert cosine(*(torch.from_numpy(r(two, ("pool5",))["pool5"]) for r in (runner, plain))) > 0.99


def test_where_int8_is_not():
    model = create_model("resnet14", num_classes=2)
    with pytest.raises(Pseudo3dError, match="computed by the engine fused only, got 'compile'; use --engine auto"):
        ClipRunner(model, device="cpu", dtype="int8", engine="compile")
    with pytest.raises(Pseudo3dError, match="int8 is for processors, the device is cuda; use --device cpu or"):
        choose_dtype("int8", torch.device("cuda"))
    with torch.device("meta"):
        c3d = create_model("c3d")
    with pytest.raises(
        Pseudo3dError, match="int8 cannot be used: the engine fused computes only P3D and frame ResNets in 8-bit"
    ):
        choose_int8_engine("auto", c3d, torch.device("cpu"))
    with pytest.raises(Pseudo3dError, match=r"ranges are for int8, the dtype is torch.float32; leave them out"):
        ClipRunner(model, device="cpu", dtype="float32", ranges={"stem": 1.0})
    with pytest.raises(ValueError, match=r"only int8 is calibrated, the dtype is torch.float32"):
        ClipRunner(model, device="cpu", dtype="float32").calibrate(smooth_clips(1).numpy())


def test_a_pytorch_without_these_calls(monkeypatch):
    monkeypatch.setattr("pseudo3d.inference.engines.int8_can_be_fused", lambda: False)
    with pytest.raises(Pseudo3dError, match="this PyTorch has no oneDNN convolutions of 8-bit integers; use --dtype"):
        ClipRunner(create_model("resnet14", num_classes=2), device="cpu", dtype="int8")


def test_calls_that_are_not_there_are_noticed(monkeypatch):
    def gone(*_, **__):
        raise AttributeError("'_OpNamespace' 'onednn' object has no attribute 'qconv_prepack'")

    for where, name, value in ((torch.backends.mkldnn, "is_available", lambda: False), (Int8Conv, "__call__", gone)):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            assert not int8_can_be_fused.__wrapped__()


def test_fewer_levels_without_vnni(monkeypatch):
    monkeypatch.setattr(module, "int8_is_native", lambda: False)
    model = network()
    clips = smooth_clips(2)
    with torch.inference_mode():
        expected = model.forward_features(to_input(clips, model.preprocessing), ("pool5",))["pool5"]
    net = Int8ResNet(model, calibrate(model, clips))
    assert net._conv1._filters.abs().max() == 63
    with torch.inference_mode():
        assert cosine(net(clips, ("pool5",))["pool5"], expected) > 0.99


# --- real clips -----------------------------------------------------------------------------------------------------


def real_clips(folder, size, count):
    """Clips of ``count`` of the 300 surveillance videos, uint8 (count, 16, size, size, 3), fights first."""
    files = sorted((folder / "fight_surv").glob("*/*.mp4"))
    resized = (size, size * 4 // 3)
    top, left, _ = center_window(resized, (size, size))
    clips = []
    for path in files[:: len(files) // count][:count]:
        frames = read_video(path, size=resized, indices=range(16)).frames
        clips.append(frames[:, top : top + size, left : left + size])
    return torch.from_numpy(np.stack(clips))


@pytest.mark.slow
def test_a_trained_network_on_real_clips(real_data):
    """Trained on half of the clips until it knows them, calibrated with eight of those, compared on the other half."""
    torch.manual_seed(0)
    clips = real_clips(real_data, 64, 48)
    labels = torch.arange(48) // 24
    model = create_model("p3d_resnet14", num_classes=2)
    model.preprocessing = model.preprocessing.with_size(64)
    seen, held_out = torch.arange(0, 48, 2), torch.arange(1, 48, 2)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(12):
        for batch in seen[torch.randperm(24)].split(8):
            loss = F.cross_entropy(model.train()(to_input(clips[batch], model.preprocessing)), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model = fold_batch_norms(model)
    layers = ("pool5", "logits", "prob")
    got = int8_features(model, calibrate(model, clips[seen[::3]]), clips[held_out], layers)
    with torch.inference_mode():
        expected = model.forward_features(to_input(clips[held_out], model.preprocessing), layers)
    assert cosine(got["pool5"], expected["pool5"]) > 0.99
    # Logits of so short a training reach 60: at a doubtful clip a hundredth of that is a tenth of its probability.
    assert (got["logits"] - expected["logits"]).norm() < 0.1 * expected["logits"].norm()
    clear = (expected["prob"][:, 0] - expected["prob"][:, 1]).abs() > 0.5
    assert clear.sum() > 12
    assert (got["prob"].argmax(1) == expected["prob"].argmax(1))[clear].all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p3d_resnet50", "p3d_resnet152"])
def test_deep_networks_on_real_clips(real_data, name):
    """Random numbers under which a deep network neither explodes nor vanishes (trained ones are not at hand)."""
    model = network(name, Preprocessing())
    clips = real_clips(real_data, 160, 8)
    got = int8_features(model, calibrate(model, clips[::2]), clips[1::2])["pool5"]
    with torch.inference_mode():
        expected = model.forward_features(to_input(clips[1::2], model.preprocessing), ("pool5",))["pool5"]
    assert cosine(got, expected) > 0.99
    alone = int8_features(model, calibrate(model, clips[::2]), clips[1::2].flip(0)[2:3])["pool5"]
    assert torch.equal(alone[0], got[1])
