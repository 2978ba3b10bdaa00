"""Weights under other projects' names: the PyTorch port of P3D, Hugging Face's and timm's ResNets."""

import json

import pytest
import torch
from reference import (
    conv3d_network,
    port_network,
    port_shapes,
    random_state,
    randomise,
    relative_error,
    torchvision_state,
)
from safetensors.torch import save_file

from pseudo3d import Pseudo3dError, create_model, load_model, load_weights
from pseudo3d.preprocessing import CAFFE_MEAN_BGR, IMAGENET_MEAN_RGB

DEPTHS = {"p3d_resnet14": (1, 1, 1, 1), "p3d_resnet50": (3, 4, 6, 3), "p3d_resnet101": (3, 4, 23, 3)}


@pytest.fixture(scope="module")
def port_state():
    return random_state(port_shapes((1, 1, 1, 1), 7))


@torch.no_grad()
def test_style_port_equals_the_port(port_state):
    model = load_model("auto", port_state, style="port")
    assert (model.architecture.name, model.architecture.style) == ("p3d_resnet14", "port")
    clips = torch.randn(2, 3, 16, 160, 160, generator=torch.Generator().manual_seed(1))
    assert relative_error(model(clips), port_network(port_state, clips, (1, 1, 1, 1))) < 1e-5


@pytest.mark.slow
@torch.no_grad()
def test_style_port_equals_the_port_at_its_own_depth():
    """P3D63, the port's name for what the paper calls P3D ResNet-50."""
    state = random_state(port_shapes((3, 4, 6, 3), 400))
    clips = torch.randn(1, 3, 16, 160, 160, generator=torch.Generator().manual_seed(1))
    expected = port_network(state, clips, (3, 4, 6, 3))
    assert relative_error(load_model("auto", state, style="port")(clips), expected) < 1e-5


@torch.no_grad()
def test_the_ports_weights_go_into_the_authors_network_with_a_warning(port_state):
    """The default: the same numbers, computed as the authors do, with the authors' preprocessing."""
    with pytest.warns(
        UserWarning, match=r"ReLU on the temporal branch.*leaves out C's 0\.5 and shifts pool1's windows"
    ):
        model = load_model("p3d_resnet14", port_state)
    assert model.architecture.style == "caffe"
    p = model.preprocessing
    assert (p.mean, p.channel_order, p.value_range, p.resize) == (CAFFE_MEAN_BGR, "BGR", (0, 255), 162)
    clips = torch.randn(1, 3, 16, 160, 160, generator=torch.Generator().manual_seed(1))
    logits = model(clips)
    assert relative_error(logits, conv3d_network(model, clips, (1, 1, 1, 1), "ABC", "caffe")["logits"]) < 1e-5
    assert relative_error(logits, port_network(port_state, clips, (1, 1, 1, 1))) > 1e-2


def test_the_ports_weights_do_not_fit_torchvisions_style(port_state):
    with pytest.raises(Pseudo3dError, match="need style 'caffe', the model has style 'torchvision'"):
        load_weights(create_model("p3d_resnet14", num_classes=7, style="torchvision"), port_state)


@pytest.mark.parametrize("protocol", ["zip", "legacy"])
def test_a_checkpoint_file_of_the_port(port_state, tmp_path, protocol):
    """As it was published: a legacy PyTorch file, wrapped, from nn.DataParallel."""
    path = tmp_path / "p3d_flow_199.checkpoint.pth.tar"
    state = random_state(port_shapes((1, 1, 1, 1), 7, in_channels=2))
    content = {"epoch": 3, "arch": "P3D", "state_dict": {f"module.{key}": value for key, value in state.items()}}
    torch.save(content, path, _use_new_zipfile_serialization=protocol == "zip")
    with pytest.warns(UserWarning, match="PyTorch port of P3D"):
        model = load_model("auto", path)
    assert model.architecture.in_channels == 2
    assert model.preprocessing.mean == (128.0, 128.0)
    assert torch.equal(model.res5[0].conv_s.weight, state["layer4.0.conv_normal.weight"])
    assert torch.equal(model.res2[0].conv_t.weight, state["layer1.0.conv3.weight"].squeeze(4))


@pytest.mark.parametrize("name", ["p3d_resnet50", "p3d_resnet101", "p3d_resnet152"])
def test_every_array_of_the_ports_networks_has_its_place(name):
    depths = {**DEPTHS, "p3d_resnet152": (3, 8, 36, 3)}[name]
    from pseudo3d.weights.arrays import Arrays
    from pseudo3d.weights.layouts import to_our_names

    shapes = port_shapes(depths, 400)
    arrays = Arrays({key: (shape, lambda: torch.empty(0)) for key, shape in shapes.items()})
    with torch.device("meta"):
        own = create_model(name, num_classes=400).state_dict()
    expected = {k: tuple(v.shape) for k, v in own.items() if k != "layout" and not k.endswith("num_batches_tracked")}
    assert to_our_names(arrays, "port").shapes == expected


def huggingface_state(model):
    """The arrays of our 2-D network under the names of transformers' ResNetForImageClassification."""
    parts = {"a": 0, "s": 1, "c": 2}
    kinds = {"conv": "convolution", "bn": "normalization"}
    state = {}
    for key, value in model.state_dict().items():
        module, _, array = key.rpartition(".")
        if key == "layout":
            continue
        if module == "fc":
            name = "classifier.1"
        elif module == "stem.conv1":
            name = "resnet.embedder.embedder.convolution"
        elif module == "stem.bn_conv1":
            name = "resnet.embedder.embedder.normalization"
        else:
            stage, block, part = module.split(".")
            kind, _, place = part.partition("_")
            where = "shortcut" if place == "shortcut" else f"layer.{parts[place]}"
            name = f"resnet.encoder.stages.{int(stage[3]) - 2}.layers.{block}.{where}.{kinds[kind]}"
        state[f"{name}.{array}"] = value.contiguous()
    return state


@pytest.fixture
def frames():
    return randomise(create_model("resnet14", num_classes=3, style="torchvision")).eval()


@torch.no_grad()
def test_a_hugging_face_folder(frames, tmp_path):
    """As microsoft/resnet-50 is laid out: config.json with labels, preprocessor_config.json with mean and deviation."""
    save_file(huggingface_state(frames), tmp_path / "model.safetensors")
    labels = {"0": "tench", "2": "great white shark", "1": "goldfish"}
    config = {"model_type": "resnet", "downsample_in_bottleneck": False, "embedding_size": 64, "id2label": labels}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5, 0.4, 0.3], "image_std": [1, 2, 3]})
    )
    model = load_model("auto", tmp_path)
    assert model.architecture.name == "resnet14"
    assert model.class_names == ("tench", "goldfish", "great white shark")
    assert (model.preprocessing.mean, model.preprocessing.std) == ((0.5, 0.4, 0.3), (1, 2, 3))
    assert (model.preprocessing.channel_order, model.preprocessing.value_range) == ("RGB", (0, 1))
    x = torch.randn(1, 3, 1, 64, 64)
    assert torch.equal(model(x), frames(x))


def test_a_hugging_face_resnet_of_another_kind_is_refused(frames, tmp_path):
    save_file(huggingface_state(frames), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet", "downsample_in_bottleneck": True}))
    with pytest.raises(Pseudo3dError, match="strides in the first 1x1 convolution or has another stem; no style fits"):
        load_model("auto", tmp_path)


def test_a_timm_folder(frames, tmp_path):
    """As timm/resnet50.tv_in1k is laid out: torchvision's names, the mean and deviation in pretrained_cfg."""
    save_file({k: v.contiguous() for k, v in torchvision_state(frames).items()}, tmp_path / "model.safetensors")
    config = {
        "architecture": "resnet50",
        "num_classes": 3,
        "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load_model("p3d_resnet14", tmp_path)
    assert model.preprocessing.mean == (0.1, 0.2, 0.3)
    assert model.class_names is None
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet50", "pretrained_cfg": {}}))
    assert load_model("p3d_resnet14", tmp_path).preprocessing.mean == IMAGENET_MEAN_RGB


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("style", ["caffe", "torchvision"])
@torch.no_grad()
def test_stems_of_other_channels(channels, style):
    """Equal planes give the response that a grey picture gives the RGB network; nothing else changes."""
    source = randomise(create_model("resnet14", num_classes=3, style=style)).eval()
    model = create_model("resnet14", num_classes=3, in_channels=channels, style=style).eval()
    report = load_weights(model, source.state_dict())
    assert report.adapted == ("stem.conv1.weight",)
    assert "1 adapted" in str(report)
    grey = torch.randn(1, 1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = source(grey.expand(-1, 3, -1, -1, -1))
    assert relative_error(model(grey.expand(-1, channels, -1, -1, -1)), expected) < 1e-5
    assert len(model.preprocessing.mean) == channels


def test_flow_weights_do_not_become_rgb():
    flow = create_model("p3d_resnet14", num_classes=3, in_channels=2)
    with pytest.raises(Pseudo3dError, match=r"take 2 input channels, the model 3; only those of RGB.*in_channels=2"):
        load_weights(create_model("p3d_resnet14", num_classes=3), flow.state_dict())
