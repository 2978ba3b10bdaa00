import pytest
import torch
from reference import conv3d_network, randomise, relative_error

import pseudo3d
from pseudo3d.models import MODELS, create_model, list_models


@pytest.mark.parametrize(
    ("name", "num_classes", "parameters"),
    [
        ("resnet50", 101, 23_714_981),
        ("p3d_resnet50", 101, 25_132_581),
        ("p3d_resnet152", 400, 66_492_240),
    ],
)
def test_parameter_counts(name, num_classes, parameters):
    with torch.device("meta"):
        for blocks in ("ABC", "A", "B", "C") if name.startswith("p3d") else ("ABC",):
            model = create_model(name, num_classes=num_classes, blocks=blocks)
            assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_release_has_202_convolutions():
    with torch.device("meta"):
        model = create_model("p3d_resnet152")
    assert sum(isinstance(m, torch.nn.Conv2d) for m in model.modules()) == 202
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()) == 202
    assert not any(isinstance(m, torch.nn.Conv3d) for m in model.modules())


def test_one_counter_runs_over_all_stages():
    with torch.device("meta"):
        model = create_model("p3d_resnet50", blocks="AAB")
    kinds = [block.kind for number in (2, 3, 4) for block in getattr(model, f"res{number}")]
    assert "".join(kinds) == "AABAABAABAABA"
    assert [block.kind for block in model.res5] == ["2D"] * 3


@pytest.mark.parametrize("blocks", ["ABC", "A", "CB"])
@pytest.mark.parametrize("style", ["caffe", "torchvision", "port"])
@pytest.mark.parametrize(("t", "h", "w"), [(16, 32, 32), (32, 48, 70), (16, 65, 33)])
@torch.no_grad()
def test_p3d_equals_a_conv3d_network(blocks, style, t, h, w):
    model = randomise(create_model("p3d_resnet14", num_classes=5, blocks=blocks, style=style)).eval()
    clips = torch.randn(2, 3, t, h, w, generator=torch.Generator().manual_seed(0))
    expected = conv3d_network(model, clips, (1, 1, 1, 1), blocks, style)
    got = model.forward_features(clips, model.layers)
    assert list(expected) == list(got)
    for layer in model.layers:
        assert got[layer].shape == expected[layer].shape
        assert relative_error(got[layer], expected[layer]) < 1e-4, layer
    assert torch.equal(model(clips), got["logits"])


@pytest.mark.parametrize("blocks", ["ABC", "B"])
@torch.no_grad()
def test_p3d_resnet50_equals_a_conv3d_network(blocks):
    model = randomise(create_model("p3d_resnet50", num_classes=5, blocks=blocks)).eval()
    clips = torch.randn(1, 3, 16, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = conv3d_network(model, clips, (3, 4, 6, 3), blocks, "caffe")
    for layer, value in model.forward_features(clips, model.layers).items():
        assert relative_error(value, expected[layer]) < 1e-4, layer


@pytest.mark.parametrize("style", ["caffe", "torchvision"])
@torch.no_grad()
def test_frame_network_averages_independent_frames(style):
    model = randomise(create_model("resnet14", num_classes=5, style=style)).eval()
    clips = torch.randn(2, 3, 3, 40, 36, generator=torch.Generator().manual_seed(0))
    got = model.forward_features(clips, model.layers)
    frames = [model.forward_features(clips[:, :, i : i + 1], model.layers) for i in range(3)]
    for layer in ("res2", "res3", "res4", "res5"):
        torch.testing.assert_close(got[layer], torch.cat([f[layer] for f in frames], dim=2), rtol=1e-4, atol=1e-5)
    for layer in ("pool5", "logits"):
        torch.testing.assert_close(got[layer], sum(f[layer] for f in frames) / 3, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got["prob"], got["logits"].softmax(1))
    reordered = model(clips[:, :, [2, 0, 1]])
    torch.testing.assert_close(reordered, model(clips), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_p3d_sees_the_order_of_frames():
    model = randomise(create_model("p3d_resnet14", num_classes=5)).eval()
    clips = torch.randn(1, 3, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    assert relative_error(model(clips.flip(2)), model(clips)) > 1e-3


@torch.no_grad()
def test_features_stop_at_the_layer_asked_for():
    model = create_model("p3d_resnet14", num_classes=5).eval()
    model.res5 = None  # would fail if it were run
    assert set(model.forward_features(torch.zeros(1, 3, 16, 32, 32), ("res4", "res2"))) == {"res2", "res4"}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("p3d_resnet14", (1, 3, 8, 64, 64)),
        ("p3d_resnet14", (1, 3, 0, 64, 64)),
        ("p3d_resnet14", (1, 3, 16, 31, 64)),
        ("p3d_resnet14", (1, 2, 16, 64, 64)),
        ("p3d_resnet14", (3, 16, 64, 64)),
        ("p3d_resnet14", (0, 3, 16, 64, 64)),
        ("resnet14", (1, 3, 0, 64, 64)),
        ("resnet14", (1, 3, 1, 64, 8)),
        ("resnet14", (3, 64, 64)),
    ],
)
def test_other_shapes_are_named(name, shape):
    model = create_model(name, num_classes=2)
    with pytest.raises(ValueError, match=r"clips of shape \(.*\) .* do not fit: .*\(N, 3, T, H, W\).*at least 32") as e:
        model(torch.zeros(shape))
    assert str(shape) in str(e.value)
    with pytest.raises(ValueError, match="do not fit"):
        model.forward_features(torch.zeros(shape))


def test_bytes_are_not_clips():
    with pytest.raises(ValueError, match=r"torch\.uint8.*floating-point"):
        create_model("resnet14", num_classes=2)(torch.zeros(1, 3, 1, 32, 32, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "p3d_resnet51"}, "no model 'p3d_resnet51'; did you mean 'p3d_resnet50'"),
        ({"name": "p3d_resnet50", "blocks": "ABD"}, "blocks must be a string over A, B and C.*'ABD'"),
        ({"name": "p3d_resnet50", "blocks": ""}, "blocks must be"),
        ({"name": "resnet50", "blocks": "A"}, "resnet50 has no P3D blocks"),
        (
            {"name": "resnet50", "style": "port"},
            "resnet50: style 'port' is of P3D networks; use 'caffe' or 'torchvision'",
        ),
        ({"name": "resnet50", "style": "keras"}, "style must be 'caffe', 'torchvision' or 'port', got 'keras'"),
        ({"name": "resnet50", "num_classes": 0}, "at least 1"),
        ({"name": "resnet50", "dropout": 1.0}, r"dropout in \[0, 1\)"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(pseudo3d.Pseudo3dError, match=words):
        create_model(**arguments)


def test_unknown_layer():
    model = create_model("resnet14", num_classes=2)
    with pytest.raises(ValueError, match="no layer 'res6'; this network has res2, res3"):
        model.forward_features(torch.zeros(1, 3, 1, 32, 32), ("res6",))
    with pytest.raises(ValueError, match="empty"):
        model.forward_features(torch.zeros(1, 3, 1, 32, 32), ())


def test_list_models():
    assert list_models() == list(MODELS)
    assert {"p3d_resnet14", "p3d_resnet50", "p3d_resnet101", "p3d_resnet152", "resnet14", "resnet152"} <= set(MODELS)


def test_preprocessing_follows_the_style():
    caffe = create_model("p3d_resnet14").preprocessing
    assert (caffe.channel_order, caffe.mean, caffe.std, caffe.value_range) == (
        "BGR",
        (104, 117, 123),
        (1, 1, 1),
        (0, 255),
    )
    assert (caffe.num_frames, caffe.resize, caffe.crop) == (16, 162, (160, 160))
    ours = create_model("resnet14", style="torchvision").preprocessing
    assert (ours.channel_order, ours.value_range, ours.num_frames) == ("RGB", (0, 1), 1)


def test_flow_has_its_own_grey_level():
    """Two channels of optical flow as grey levels around 128 (the release's flow network)."""
    p = create_model("p3d_resnet14", in_channels=2).preprocessing
    assert (p.mean, p.std, p.value_range) == ((128.0, 128.0), (1.0, 1.0), (0.0, 255.0))


@torch.no_grad()
def test_pool5_and_prob_are_float32_under_autocast():
    model = randomise(create_model("p3d_resnet14", num_classes=50)).eval()
    with torch.autocast("cpu", torch.bfloat16):
        got = model.forward_features(torch.randn(2, 3, 16, 32, 32), ("res5", "pool5", "logits", "prob"))
    assert [got[layer].dtype for layer in got] == [torch.bfloat16, *[torch.float32] * 3]
    torch.testing.assert_close(got["prob"].sum(1), torch.ones(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(got["pool5"], got["res5"].float().mean((2, 3, 4)))


def test_dropout_acts_only_in_training():
    model = create_model("p3d_resnet14", num_classes=3, dropout=0.9)
    clips = torch.randn(2, 3, 16, 32, 32)
    model.eval()
    assert torch.equal(model(clips), model(clips))
    model.train()
    assert not torch.equal(model(clips), model(clips))


def test_preprocessing_of_the_port():
    """The port resizes to 256, crops 160 and standardises RGB; its flow network takes (x - 0.5) / 0.226."""
    p = create_model("p3d_resnet14", style="port").preprocessing
    assert (p.resize, p.crop, p.channel_order, p.value_range) == (256, (160, 160), "RGB", (0, 1))
    assert (p.mean, p.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    flow = create_model("p3d_resnet14", style="port", in_channels=2).preprocessing
    assert (flow.mean, flow.value_range) == ((0.5, 0.5), (0, 1))
    assert flow.std == pytest.approx((0.226, 0.226))
