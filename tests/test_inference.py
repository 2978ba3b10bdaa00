import inspect

import numpy as np
import pytest
import torch
from reference import randomise, relative_error
from torch import nn

from pseudo3d import Preprocessing, Pseudo3dError, create_model
from pseudo3d.inference import (
    ClipRunner,
    bfloat16_is_native,
    choose_device,
    choose_dtype,
    fold_batch_norms,
    to_input,
)
from pseudo3d.models.blocks import clip_to_frames
from pseudo3d.preprocessing import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB

NAMES = ("p3d_resnet14", "resnet14")
CAFFE = Preprocessing()
IMAGENET = Preprocessing(
    mean=IMAGENET_MEAN_RGB, std=IMAGENET_STD_RGB, channel_order="RGB", value_range=(0.0, 1.0), crop=(32, 32)
)


def network(name="p3d_resnet14", size=32, **more):
    model = randomise(create_model(name, num_classes=7, **more)).eval()
    model.preprocessing = model.preprocessing.with_size(size)
    return model


def random_clips(count, preprocessing, seed=0):
    shape = (count, preprocessing.num_frames, *preprocessing.crop, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return network(request.param)


@pytest.mark.parametrize("p", [CAFFE, IMAGENET], ids=["caffe", "imagenet"])
def test_to_input_step_by_step(p):
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 7, 3), dtype=np.uint8)
    expected = np.empty((2, 3, 3, 5, 7))
    for channel, source in enumerate({"RGB": (0, 1, 2), "BGR": (2, 1, 0)}[p.channel_order]):
        values = frames[..., source].astype(np.float64)
        values = values / 255 * (p.value_range[1] - p.value_range[0]) + p.value_range[0]
        expected[:, channel] = (values - p.mean[channel]) / p.std[channel]
    got = to_input(torch.from_numpy(frames), p)
    assert got.dtype == torch.float32
    assert got.shape == expected.shape
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6, atol=1e-5 * abs(expected).max())


def test_to_input_is_laid_out_for_the_networks():
    frames = torch.zeros(2, 3, 5, 7, 3, dtype=torch.uint8)
    for p in (CAFFE, IMAGENET):
        inputs = to_input(frames, p)
        seen = clip_to_frames(inputs)
        assert seen.data_ptr() == inputs.data_ptr()
        assert seen.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("style", ["caffe", "torchvision"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_folding_changes_nothing_but_rounding(name, style):
    model = network(name, style=style)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_batch_norms(model.train())
    assert model.training
    assert not folded.training
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    clips = torch.randn(2, 3, 16, 48, 48, generator=torch.Generator().manual_seed(0))
    layers = ("res2", "res5", "pool5", "logits")
    expected, got = model.eval().forward_features(clips, layers), folded.forward_features(clips, layers)
    for layer in layers:
        assert relative_error(got[layer], expected[layer]) < 1e-5, layer


def test_features_are_those_of_the_network_itself(model):
    clips = random_clips(3, model.preprocessing)
    got = ClipRunner(model, device="cpu", dtype="float32", batch_size=3)(list(clips), ("pool5", "res5"))
    with torch.no_grad():
        inputs = to_input(torch.from_numpy(clips), model.preprocessing).contiguous()
        expected = model.forward_features(inputs, ("pool5", "res5"))
    for layer, value in got.items():
        assert value.dtype == np.float32
        assert relative_error(torch.from_numpy(value), expected[layer]) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bit_equal_whatever_the_neighbours_and_the_place(model, dtype):
    runner = ClipRunner(model, device="cpu", dtype=dtype, batch_size=4)
    clips = random_clips(6, model.preprocessing)
    alone = runner([clips[0]], ("pool5",))["pool5"]
    assert alone.shape == (1, 2048)
    for place in range(4):
        others = list(clips[1:4])
        others.insert(place, clips[0])
        assert np.array_equal(runner(others, ("pool5",))["pool5"][place], alone[0]), place
    assert np.array_equal(runner([clips[0], clips[5]], ("pool5",))["pool5"][0], alone[0])


def test_every_batch_has_one_shape(monkeypatch):
    model = network("resnet14")
    runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=3)
    shapes = []
    inner = runner.model.forward_features

    def spy(inputs, layers):
        shapes.append(tuple(inputs.shape))
        return inner(inputs, layers)

    monkeypatch.setattr(runner.model, "forward_features", spy)
    clips = random_clips(5, model.preprocessing)
    out = list(runner.run([("a", clips[:4]), ("b", clips[4:])], ("pool5",)))
    assert shapes == [(3, 3, 1, 32, 32)] * 2
    assert [(key, values["pool5"].shape) for key, values in out] == [("a", (4, 2048)), ("b", (1, 2048))]


def test_run_fills_batches_across_videos_in_order():
    model = network("resnet14")
    runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=4)
    counts = [3, 1, 0, 6, 2, 0, 5]
    clips = random_clips(sum(counts), model.preprocessing)
    parts = np.split(clips, np.cumsum(counts)[:-1])
    out = list(runner.run(enumerate(parts), ("pool5", "prob")))
    assert [key for key, _ in out] == list(range(len(counts)))
    for (_, values), part in zip(out, parts, strict=True):
        if not len(part):
            assert values == {}
            continue
        assert sorted(values) == ["pool5", "prob"]
        for row, clip in enumerate(part):
            alone = runner([clip], ("pool5", "prob"))
            assert np.array_equal(values["pool5"][row], alone["pool5"][0])
            assert np.array_equal(values["prob"][row], alone["prob"][0])


def test_run_reads_no_further_than_needed():
    model = network("resnet14")
    runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=4)
    read = []

    def videos():
        for key, count in enumerate((2, 2, 0, 5, 1, 2)):
            read.append(key)
            yield key, random_clips(count, model.preprocessing)

    results = runner.run(videos(), ("pool5",))
    assert read == []
    seen = []
    for key, _ in results:
        seen.append((key, len(read)))
    # 0 and 1 fill the first batch, 2 is empty, 3 has one clip left over that waits for 4 and 5
    assert seen == [(0, 2), (1, 2), (2, 3), (3, 6), (4, 6), (5, 6)]


def test_bfloat16_is_near_float32(model):
    clips = random_clips(2, model.preprocessing)
    full = ClipRunner(model, device="cpu", dtype="float32", batch_size=2)(list(clips), ("pool5",))["pool5"]
    half = ClipRunner(model, device="cpu", dtype="bfloat16", batch_size=2)(list(clips), ("pool5",))["pool5"]
    assert half.dtype == np.float32
    assert not np.array_equal(full, half)
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() >= 0.999


def test_wrong_batches():
    model = network("resnet14")
    runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=2)
    clips = random_clips(3, model.preprocessing)
    with pytest.raises(ValueError, match="a batch has 1 to 2 clips, got 3"):
        runner(list(clips), ("pool5",))
    with pytest.raises(ValueError, match="a batch has 1 to 2 clips, got 0"):
        runner([], ("pool5",))
    with pytest.raises(ValueError, match="no layer 'pool6'"):
        runner([clips[0]], ("pool6",))
    with pytest.raises(ValueError, match="same shape"):
        runner([clips[0], clips[0, :, :1]], ("pool5",))  # one row would fit by broadcasting
    with pytest.raises(ValueError, match="H and W at least 32"):
        runner([clips[0, :, :16]], ("pool5",))


def test_devices():
    for name in ("gpu", "cpu:x", "meta", "xla", ""):
        with pytest.raises(Pseudo3dError, match=f"no device '{name}'; use auto, cpu, cuda"):
            choose_device(name)
    for name in ("cuda:99", "mps:9", "cpu:1"):
        with pytest.raises(Pseudo3dError, match=f"device '{name}' is not available on this machine; use .* cpu"):
            choose_device(name)
    with pytest.raises(Pseudo3dError, match="no device 'tpu'"):
        ClipRunner(network("resnet14"), device="tpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_device(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == expected


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bfloat16_where_it_is_native(monkeypatch, native):
    cpu = torch.device("cpu")
    assert isinstance(bfloat16_is_native(cpu), bool)
    monkeypatch.setattr("pseudo3d.inference.bfloat16_is_native", lambda device: native)
    assert choose_dtype("auto", cpu) == (torch.bfloat16 if native else torch.float32)
    assert choose_dtype("float32", cpu) == torch.float32
    assert choose_dtype("bfloat16", cpu) == torch.bfloat16
    assert not bfloat16_is_native(torch.device("meta"))


def test_wrong_options():
    model = network("resnet14")
    with pytest.raises(Pseudo3dError, match="batch size must be at least 1, got 0"):
        ClipRunner(model, device="cpu", batch_size=0)
    with pytest.raises(Pseudo3dError, match="no dtype 'float16'; use auto, float32 or bfloat16"):
        inspect.unwrap(choose_dtype)("float16", torch.device("cpu"))  # without the tests' own check of types


def test_describe():
    runner = ClipRunner(network("resnet14"), device="cpu", dtype="bfloat16", batch_size=5)
    assert runner.describe() == {
        "engine": f"torch {torch.__version__} eager, batch norms folded",
        "device": "cpu",
        "dtype": "bfloat16",
        "batch_size": 5,
        "threads": torch.get_num_threads(),
    }
    assert ClipRunner(network("resnet14"), device="cpu").batch_size == 4
