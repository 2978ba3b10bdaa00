import itertools
import tempfile

import numpy as np
import pytest
import torch
from reference import c3d_network, relative_error, windows_max
from tiny import slim_c3d
from torch import nn

from pseudo3d import Pseudo3dError, create_model, from_pretrained, load_model, save_pretrained
from pseudo3d.inference import ClipRunner
from pseudo3d.models import c3d_preprocessing
from pseudo3d.models.c3d import C3D, SMALL_KERNELS
from pseudo3d.models.cost import count_parameters, model_cost
from pseudo3d.weights.export import export_caffemodel
from pseudo3d.weights.identify import identify
from pseudo3d.weights.verify import verify_weights

pytestmark = pytest.mark.usefixtures("one_thread")

CONVOLUTIONS = {"conv1a": (3, 64), "conv2a": (64, 128), "conv3a": (128, 256), "conv3b": (256, 256),
                "conv4a": (256, 512), "conv4b": (512, 512), "conv5a": (512, 512), "conv5b": (512, 512)}  # fmt: skip
SHAPES = {"conv5b": (512, 2, 7, 7), "pool5": (8192,), "fc6": (4096,), "fc7": (4096,), "logits": (3,), "prob": (3,)}


def random_clips(n=2, channels=3):
    return torch.randn(n, channels, 16, 112, 112, generator=torch.Generator().manual_seed(0))


def scaled(model):
    """Weights under which activations neither grow nor vanish from layer to layer."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.children():
            if isinstance(module, nn.Conv3d | nn.Linear):
                size = (2 / module.weight[0].numel()) ** 0.5
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * size)
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def slim():
    return scaled(slim_c3d())


@pytest.fixture(scope="module")
def real():
    torch.manual_seed(0)
    return create_model("c3d", num_classes=3)


def test_the_counts_of_the_release():
    with torch.device("meta"):
        assert count_parameters(create_model("c3d")) == 79_991_015  # 321 MB published
    by_hand = sum(o * (27 * i + 1) for i, o in CONVOLUTIONS.values()) + 4096 * 8193 + 4096 * 4097 + 487 * 4097
    assert by_hand == 79_991_015


def test_arithmetic():
    outputs = {"1": 16 * 112 * 112, "2": 16 * 56 * 56, "3": 8 * 28 * 28, "4": 4 * 14 * 14, "5": 2 * 7 * 7}
    multiplications = sum(27 * i * o * outputs[name[4]] for name, (i, o) in CONVOLUTIONS.items())
    multiplications += 4096 * 8192 + 4096 * 4096 + 487 * 4096
    cost = model_cost("c3d")
    assert cost.flops == 2 * multiplications
    assert cost.clip == (16, 112, 112)


def test_arrays_have_the_names_of_the_release(real):
    expected = {f"{name}.weight": (o, i, 3, 3, 3) for name, (i, o) in CONVOLUTIONS.items()}
    expected |= {"fc6.weight": (4096, 8192), "fc7.weight": (4096, 4096), "fc8.weight": (3, 4096)}
    expected |= {key.replace("weight", "bias"): shape[:1] for key, shape in expected.items()}
    expected["mean_volume"] = (3, 16, 128, 171)
    assert {key: tuple(value.shape) for key, value in real.state_dict().items()} == expected


def test_random_weights_are_those_of_the_release(real):
    for name, module in real.named_children():
        if name == "dropout":
            continue
        assert module.weight.std().item() == pytest.approx(0.005 if name in ("fc6", "fc7") else 0.01, rel=0.03), name
        assert abs(module.weight.mean().item()) < 0.001, name
        assert (module.bias == (0 if name in ("conv1a", "fc8") else 1)).all(), name


@torch.no_grad()
def test_shapes_of_the_layers(real):
    got = real.eval().forward_features(random_clips(1), real.layers)
    assert {name: tuple(value.shape[1:]) for name, value in got.items()} == SHAPES
    assert list(got) == list(real.layers)


@torch.no_grad()
def test_every_layer_equals_sums_over_shifted_slices(slim):
    clips = random_clips()
    expected = c3d_network(slim, clips)
    for memory in (torch.contiguous_format, torch.channels_last_3d):
        got = slim.forward_features(clips.contiguous(memory_format=memory), slim.layers)
        assert list(got) == list(expected)
        for layer, value in got.items():
            assert value.shape == expected[layer].shape
            assert value.dtype == torch.float32
            assert value.max() > 0
            assert relative_error(value, expected[layer]) < 1e-5, layer
    assert torch.equal(slim(clips), slim.forward_features(clips, ("logits",))["logits"])


@pytest.mark.slow  # 77 GFLOP by sums over slices
@torch.no_grad()
def test_the_real_size_equals_sums_over_shifted_slices():
    model = scaled(create_model("c3d"))
    clips = random_clips(1)
    expected = c3d_network(model, clips)
    for layer, value in model.forward_features(clips, model.layers).items():
        assert relative_error(value, expected[layer]) < 1e-5, layer


@torch.no_grad()
def test_pool5_has_its_windows_at_0_and_is_flattened_c_t_h_w():
    """Every place of conv5b holds its own number, rising by row and column: the maximum tells a window's last place."""
    model = slim_c3d()
    c, t, h, w = np.indices((32, 2, 7, 7))
    places = torch.tensor(c * 1000 + t * 100 + h * 10 + w, dtype=torch.float32)
    model.conv5b.register_forward_hook(lambda *_: places[None])
    got = model.forward_features(random_clips(1), ("pool5", "conv5b"))
    assert torch.equal(got["conv5b"][0], places)
    last = (1, 3, 5, 6)  # {0,1} {2,3} {4,5} {6}
    expected = [1000 * i + 100 + 10 * row + column for i in range(32) for row in last for column in last]
    assert got["pool5"][0].tolist() == expected


@torch.no_grad()
def test_windows_of_every_pool():
    """What each convolution gets is the maximum over 1x2x2 or 2x2x2 of what the one before it gave, or just that."""
    model = scaled(slim_c3d())
    inputs, outputs = {}, {}

    def remember(name, given, out):  # copies: the ReLU that follows works in place
        inputs[name], outputs[name] = given[0].clone(), out.clone()

    for name in CONVOLUTIONS:
        getattr(model, name).register_forward_hook(lambda _m, given, out, name=name: remember(name, given, out))
    model(random_clips(1))
    pools = {"conv1a": (1, 2, 2), "conv2a": (2, 2, 2), "conv3b": (2, 2, 2), "conv4b": (2, 2, 2)}
    for before, after in itertools.pairwise(CONVOLUTIONS):
        expected = windows_max(outputs[before].clamp(min=0), pools.get(before, (1, 1, 1)))
        assert torch.equal(inputs[after], expected), after


@torch.no_grad()
def test_features_stop_at_the_layer_asked_for():
    model = slim_c3d().eval()
    clips = random_clips(1)
    for layer, removed in {"logits": (), "fc7": ("fc8",), "fc6": ("fc7",), "pool5": ("fc6",), "conv5b": ()}.items():
        for name in removed:
            setattr(model, name, None)  # would fail if it were run
        assert list(model.forward_features(clips, (layer,))) == [layer]
    assert list(model.forward_features(clips)) == ["pool5"]


@pytest.mark.parametrize(
    "shape",
    [
        (1, 3, 16, 160, 160),
        (1, 3, 8, 112, 112),
        (1, 3, 32, 112, 112),
        (1, 3, 16, 112, 111),
        (1, 2, 16, 112, 112),
        (0, 3, 16, 112, 112),
        (3, 16, 112, 112),
        (1, 3, 112, 112, 16),
    ],
)
def test_other_shapes_are_named(slim, shape):
    with pytest.raises(ValueError, match=r"do not fit: this network takes floating-point \(N, 3, 16, 112, 112\)") as e:
        slim(torch.zeros(shape))
    assert f"clips of shape {shape} (torch.float32)" in str(e.value)
    with pytest.raises(Pseudo3dError, match="do not fit"):
        slim.forward_features(torch.zeros(shape), ("fc6",))


def test_bytes_and_unknown_layers(slim):
    with pytest.raises(Pseudo3dError, match=r"torch\.uint8.*floating-point"):
        slim(torch.zeros(1, 3, 16, 112, 112, dtype=torch.uint8))
    with pytest.raises(Pseudo3dError, match="no layer 'res5'; this network has conv5b, pool5, fc6, fc7, logits, prob"):
        slim.forward_features(random_clips(1), ("res5",))


@torch.no_grad()
def test_from_pool5_on_float32_under_autocast(slim):
    with torch.autocast("cpu", torch.bfloat16):
        got = slim.forward_features(random_clips(), slim.layers)
    assert [value.dtype for value in got.values()] == [torch.bfloat16, *[torch.float32] * 5]
    torch.testing.assert_close(got["prob"].sum(1), torch.ones(2), rtol=0, atol=1e-6)
    full = got["pool5"] @ slim.fc6.weight.T + slim.fc6.bias
    torch.testing.assert_close(got["fc6"], full.clamp(min=0), rtol=1e-5, atol=1e-5)
    assert relative_error(got["fc6"], slim.forward_features(random_clips(), ("fc6",))["fc6"]) < 0.05


def test_dropout_after_fc6_and_fc7_only_in_training():
    model = slim_c3d(dropout=0.75).train()
    seen = {}
    for name in ("fc7", "fc8"):
        getattr(model, name).register_forward_hook(lambda _m, given, _o, name=name: seen.update({name: given[0]}))
    torch.manual_seed(0)
    features = model.forward_features(random_clips(), ("fc6", "fc7", "logits"))
    for layer, after in (("fc6", "fc7"), ("fc7", "fc8")):
        alive = features[layer] > 0  # what is returned is from before the dropout
        kept = seen[after][alive]
        assert torch.equal(kept[kept > 0], 4 * features[layer][alive][kept > 0])
        assert 0.15 < (kept > 0).float().mean() < 0.35
    model.eval()
    assert torch.equal(model(random_clips()), model(random_clips()))


def test_every_parameter_learns():
    model = slim_c3d()
    model(random_clips()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"blocks": "A"}, "c3d has no P3D blocks to choose; leave out blocks='A'"),
        ({"style": "torchvision"}, "c3d: style 'torchvision' is of ResNets; leave it out, or use 'caffe'"),
        ({"style": "port"}, "c3d: style 'port' is of ResNets"),
        ({"style": "keras"}, "style must be"),
        ({"dropout": 1.0}, r"dropout in \[0, 1\)"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(Pseudo3dError, match=words), torch.device("meta"):
        create_model("c3d", **arguments)


def test_preprocessing_is_the_releases():
    with torch.device("meta"):
        p = create_model("c3d").preprocessing
    assert (p.num_frames, p.resize, p.crop) == (16, (128, 171), (112, 112))
    assert (p.channel_order, p.value_range, p.mean, p.std) == ("BGR", (0, 255), (90.25, 97.66, 101.41), (1, 1, 1))


def test_the_mean_volume_starts_as_the_channel_means(real):
    assert real.mean_volume.dtype == torch.float32
    for channel, mean in enumerate((90.25, 97.66, 101.41)):  # B, G, R
        assert (real.mean_volume[channel] == np.float32(mean)).all()


def test_flow_has_its_own_channels_and_grey_level():
    with torch.device("meta"):
        model = create_model("c3d", in_channels=2)
    assert model.preprocessing.mean == (128.0, 128.0)
    assert tuple(model.mean_volume.shape) == (2, 16, 128, 171)
    assert slim_c3d(in_channels=2)(random_clips(1, 2)).shape == (1, 5)


def test_a_mean_volume_is_taken_as_it_is():
    model = slim_c3d()
    volume = np.random.default_rng(0).uniform(0, 255, (3, 16, 128, 171))
    model.set_mean_volume(volume[::-1])  # a view with a negative stride, in float64
    assert np.array_equal(model.mean_volume.numpy(), volume[::-1].astype(np.float32))
    model.set_mean_volume(torch.ones(3, 16, 128, 171))
    assert (model.mean_volume == 1).all()


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (np.zeros((1, 3, 16, 128, 171)), r"a mean volume of shape \(1, 3, 16, 128, 171\) does not fit: this network "),
        (np.zeros((3, 16, 112, 112)), r"takes \(3, 16, 128, 171\): BGR, frames, rows, columns"),
        (np.zeros(3), r"a mean volume of shape \(3,\) does not fit"),
        (np.full((3, 16, 128, 171), np.nan), "the mean volume has values that are not finite"),
    ],
)
def test_a_wrong_mean_volume_changes_nothing(volume, words):
    model = slim_c3d()
    before = model.mean_volume.clone()
    with pytest.raises(Pseudo3dError, match=words):
        model.set_mean_volume(volume)
    assert torch.equal(model.mean_volume, before)


def test_a_saved_network_comes_back_with_its_mean_volume(real):
    volume = np.random.default_rng(1).uniform(0, 255, (3, 16, 128, 171)).astype(np.float32)
    real.set_mean_volume(volume)
    real.class_names = ("a", "b", "c")
    try:
        with tempfile.TemporaryDirectory() as folder:  # 320 MB: not left behind
            again = from_pretrained(save_pretrained(real, folder))
    finally:
        real.set_mean_volume(np.broadcast_to(np.array([90.25, 97.66, 101.41])[:, None, None, None], volume.shape))
    assert isinstance(again, C3D)
    assert again.architecture == real.architecture
    assert again.preprocessing == real.preprocessing
    assert again.class_names == ("a", "b", "c")
    assert np.array_equal(again.mean_volume.numpy(), volume)
    assert torch.equal(again.fc8.weight, real.fc8.weight)


# The smaller network of the comparison of kernels (C3D paper, section 3.2): frames that conv1a to conv5a see.
SMALL = {"c3d_small_1": (1, 1, 1, 1, 1), "c3d_small_3": (3, 3, 3, 3, 3), "c3d_small_5": (5, 5, 5, 5, 5),
         "c3d_small_7": (7, 7, 7, 7, 7), "c3d_small_increasing": (3, 3, 5, 5, 7),
         "c3d_small_decreasing": (7, 5, 5, 3, 3)}  # fmt: skip


def slim_small(name, num_classes=3):
    """A smaller network with a sixteenth of its channels: the same computation in a hundredth of the time."""
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes)
    for key, module in list(model.named_children()):
        if isinstance(module, nn.Conv3d):
            inputs = 3 if key == "conv1a" else module.in_channels // 16
            kernel, padding = module.kernel_size, module.padding
            setattr(model, key, nn.Conv3d(inputs, module.out_channels // 16, kernel, padding=padding))
        elif isinstance(module, nn.Linear):
            outputs = module.out_features if key == "fc8" else module.out_features // 16
            setattr(model, key, nn.Linear(module.in_features // 16, outputs))
    model.mean_volume = torch.tensor(model.preprocessing.mean).view(-1, 1, 1, 1).repeat(1, 16, 128, 171)
    return scaled(model)


def plain_small(kernels, num_classes, share=16):
    """The smaller network written down as a sequence of PyTorch's layers, and where in it each public layer ends."""
    layers, inputs = [], 3
    for i, (width, kernel) in enumerate(zip((64, 128, 256, 256, 256), kernels, strict=True)):
        window = (1, 2, 2) if i == 0 else (2, 2, 2)
        padding = ((kernel - 1) // 2, 1, 1)
        layers += [nn.Conv3d(inputs, width // share, (kernel, 3, 3), padding=padding), nn.ReLU()]
        layers += [nn.MaxPool3d(window, window, ceil_mode=True)]
        inputs = width // share
    full = 2048 // share
    layers += [nn.Flatten(), nn.Linear(inputs * 1 * 4 * 4, full), nn.ReLU(), nn.Linear(full, full), nn.ReLU()]
    layers += [nn.Linear(full, num_classes), nn.Softmax(dim=1)]
    return nn.Sequential(*layers), {"conv5a": 13, "pool5": 15, "fc6": 17, "fc7": 19, "logits": 20, "prob": 21}


@pytest.mark.parametrize("name", SMALL)
def test_the_counts_of_the_smaller_networks(name):
    assert SMALL_KERNELS == SMALL
    k1, k2, k3, k4, k5 = SMALL[name]
    convolutions = 64 * (27 * k1 + 1) + 128 * (64 * 9 * k2 + 1) + 256 * (128 * 9 * k3 + 1)
    convolutions += 256 * (256 * 9 * k4 + 1) + 256 * (256 * 9 * k5 + 1)
    full = 2048 * (4096 + 1) + 2048 * (2048 + 1) + 101 * (2048 + 1)
    with torch.device("meta"):
        model = create_model(name)
    assert count_parameters(model) == convolutions + full
    if name == "c3d_small_3":
        assert convolutions + full == 17_444_965
    assert (model.architecture.num_classes, model.architecture.dropout) == (101, 0.5)
    assert model.preprocessing == c3d_preprocessing(3)
    assert model_cost(name).clip == (16, 112, 112)


def test_larger_kernels_have_more_parameters():
    counts = {name: model_cost(name).parameters for name in SMALL}
    assert counts["c3d_small_1"] < counts["c3d_small_3"] < counts["c3d_small_5"] < counts["c3d_small_7"]
    assert counts["c3d_small_decreasing"] < counts["c3d_small_increasing"]


@torch.no_grad()
@pytest.mark.parametrize("name", SMALL)
def test_the_smaller_network_is_a_plain_sequence(name):
    model = slim_small(name)
    plain, ends = plain_small(SMALL[name], 3)
    ours = [m for m in model.children() if isinstance(m, nn.Conv3d | nn.Linear)]
    theirs = [m for m in plain if isinstance(m, nn.Conv3d | nn.Linear)]
    for one, other in zip(ours, theirs, strict=True):
        other.load_state_dict(one.state_dict())
    x = clips = random_clips()
    got = model.forward_features(clips, model.layers)
    assert list(got) == list(model.layers) == list(ends)
    after = [x := module(x) for module in plain]
    for layer, end in ends.items():
        expected = after[end]
        assert got[layer].shape == expected.shape
        assert relative_error(got[layer], expected) < 1e-5, layer
    assert torch.equal(model(clips), got["logits"])


@torch.no_grad()
def test_frames_stay_apart_with_kernels_of_one_frame_until_they_are_pooled():
    """Depth 1 is a 2-D network on each frame: what the first pools let through of two frames is the larger one."""
    model = slim_small("c3d_small_1")
    clips = random_clips(1)
    other = clips.clone()
    other[:, :, 0] += 1
    outputs = []
    model.conv2a.register_forward_hook(lambda _m, _i, out: outputs.append(out.clone()))
    model(clips), model(other)
    differs = (outputs[0] != outputs[1]).flatten(3).any(3).any(1)[0]
    assert differs.tolist() == [True] + [False] * 15


def test_the_smaller_network_says_what_it_takes():
    with torch.device("meta"):
        model = create_model("c3d_small_3", num_classes=2)
        with pytest.raises(Pseudo3dError, match=r"takes floating-point \(N, 3, 16, 112, 112\)"):
            model(torch.zeros(1, 3, 16, 160, 160))
        with pytest.raises(Pseudo3dError, match="no layer 'conv5b'; this network has conv5a, pool5, fc6, fc7, logits"):
            model.forward_features(torch.zeros(1, 3, 16, 112, 112), ("conv5b",))
        with pytest.raises(Pseudo3dError, match="c3d_small_3 has no P3D blocks to choose; leave out blocks='A'"):
            create_model("c3d_small_3", blocks="A")


def test_every_parameter_of_the_smaller_network_learns():
    model = slim_small("c3d_small_decreasing").train()
    model(random_clips()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def gradients(model, clips, dtype):
    """Of every parameter, of a loss that no ReLU or pooling decides differently in another precision."""
    model.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        conv = model.forward_features(clips, model.layers[:1])[model.layers[0]]
    conv.float().square().sum().backward()
    return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["c3d_small_3", "c3d_small_5", "c3d_small_7", "c3d_small_decreasing"])
def test_bfloat16_gradients_where_the_filters_see_more_frames_than_there_are(name):
    """oneDNN adds foreign memory there (seen: relative errors of 0.9, infinities, a damaged heap)."""
    model = slim_small(name).train()
    expected, got = (gradients(model, random_clips(4), dtype) for dtype in (torch.float32, torch.bfloat16))
    assert len(expected) == 10
    for key, gradient in expected.items():
        assert relative_error(got[key], gradient) < 0.1, key


@pytest.mark.parametrize("name", SMALL)
def test_the_smaller_networks_are_told_apart_by_their_arrays(name):
    with torch.device("meta"):
        arrays = {key: tuple(value.shape) for key, value in create_model(name, num_classes=4).state_dict().items()}
    assert str(identify(arrays)) == f"{name} (4 classes, 3 input channels)"
    assert identify({**arrays, "conv3b.weight": (256, 256, 3, 3, 3)}).name == "c3d"


def test_a_saved_smaller_network_comes_back(tmp_path):
    model = create_model("c3d_small_1", num_classes=2)
    model.class_names = ("a", "b")
    folder = save_pretrained(model, tmp_path / "net")
    again = from_pretrained(folder)
    assert again.architecture == model.architecture
    assert again.class_names == ("a", "b")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    assert "smaller C3D" in (folder / "README.md").read_text()
    assert load_model("auto", folder).architecture.name == "c3d_small_1"
    with pytest.raises(Pseudo3dError, match=r"looks like c3d_small_1 .* the model is c3d_small_3; use c3d_small_1"):
        load_model("c3d_small_3", folder)


@pytest.mark.slow  # at real size, by the table of layers
def test_a_smaller_network_as_a_caffe_file_is_verified(tmp_path):
    model = scaled(create_model("c3d_small_increasing", num_classes=2))
    assert verify_weights(export_caffemodel(model, tmp_path / "net.caffemodel")).passed


@pytest.mark.parametrize("name", ["c3d_small_1", "c3d_small_decreasing"])
def test_the_smaller_network_runs_on_every_engine_of_the_processor(name):
    model = slim_small(name)
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 112, 112, 3), np.uint8)
    layers = ("conv5a", "fc6", "prob")
    eager = ClipRunner(model, device="cpu", dtype="float32", engine="eager")(list(frames), layers)
    for engine in ("auto", "fused"):
        got = ClipRunner(model, device="cpu", dtype="float32", engine=engine)(list(frames), layers)
        for layer in layers:
            assert relative_error(torch.from_numpy(got[layer]), torch.from_numpy(eager[layer])) < 1e-5, layer
