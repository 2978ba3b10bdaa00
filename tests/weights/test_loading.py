import json
import os
import re

import pytest
import torch
from reference import randomise, relative_error
from safetensors.torch import save_file

import pseudo3d
from pseudo3d import Pseudo3dError, create_model, from_pretrained, load_model, load_weights, save_pretrained
from pseudo3d.preprocessing import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB

TORCHVISION = {"conv_a": "conv1", "conv_s": "conv2", "conv_c": "conv3", "bn_a": "bn1", "bn_s": "bn2", "bn_c": "bn3",
               "conv_shortcut": "downsample.0", "bn_shortcut": "downsample.1"}  # fmt: skip


def torchvision_state(model):
    """The arrays of our 2-D network under torchvision's keys, written down key by key from torchvision's classes."""
    state = {}
    for key, value in model.state_dict().items():
        if key == "layout":  # ours alone
            continue
        parts = key.split(".")
        if parts[0] == "stem":
            key = ".".join([{"conv1": "conv1", "bn_conv1": "bn1"}[parts[1]], *parts[2:]])
        elif parts[0].startswith("res"):
            key = ".".join([f"layer{int(parts[0][3]) - 1}", parts[1], TORCHVISION[parts[2]], *parts[3:]])
        state[key] = value
    return state


def network_2d(depth, num_classes=7):
    return randomise(create_model(f"resnet{depth}", num_classes=num_classes, style="torchvision")).eval()


@pytest.mark.parametrize(
    ("depth", "blocks"), [*((14, b) for b in ("ABC", "A", "B", "C")), (50, "ABC"), (101, "ABC"), (152, "ABC")]
)
@torch.no_grad()
def test_inflation_preserves_the_function(depth, blocks):
    """On a clip of one repeated frame the P3D network gives what the 2-D network gives on the frame."""
    source = network_2d(depth)
    model = create_model(f"p3d_resnet{depth}", num_classes=7, blocks=blocks, style="torchvision")
    report = load_weights(model, torchvision_state(source))
    assert report.initialised
    assert all(".conv_t." in key or ".bn_t." in key for key in report.initialised)
    assert not report.dropped
    frame = torch.randn(2, 3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = source.forward_features(frame, ("pool5", "logits"))
    got = model.eval().forward_features(frame.expand(-1, -1, 16, -1, -1), ("pool5", "logits"))
    for layer, value in got.items():
        assert relative_error(value, expected[layer]) < 1e-4, layer


@torch.no_grad()
def test_gaussian_temporal_init():
    model = create_model("p3d_resnet14", num_classes=7, style="torchvision")
    torch.manual_seed(0)
    load_weights(model, torchvision_state(network_2d(14)), temporal_init="gaussian", std=0.02)
    weights = torch.cat([b.conv_t.weight.flatten() for b in (model.res2[0], model.res3[0], model.res4[0])])
    assert abs(weights.mean()) < 1e-4
    assert abs(weights.std() - 0.02) < 1e-4
    bn = model.res3[0].bn_t
    for value, expected in ((bn.weight, 1), (bn.bias, 0), (bn.running_mean, 0), (bn.running_var, 1)):
        assert torch.equal(value, torch.full_like(value, expected))


def test_torchvision_keys_need_their_style():
    state = torchvision_state(network_2d(14))
    before = create_model("p3d_resnet14", num_classes=7)
    first = before.stem.conv1.weight.clone()
    with pytest.raises(ValueError, match="need style 'torchvision', the model has style 'caffe'"):
        load_weights(before, state)
    assert torch.equal(before.stem.conv1.weight, first)


def test_preprocessing_becomes_imagenets_and_keeps_the_clip():
    model = load_model("p3d_resnet14", torchvision_state(network_2d(14)))
    p = model.preprocessing
    assert (p.mean, p.std, p.channel_order) == (IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, "RGB")
    assert (p.value_range, p.num_frames, p.crop) == ((0.0, 1.0), 16, (160, 160))
    assert model.architecture.style == "torchvision"
    assert model.architecture.num_classes == 7


def test_a_head_of_other_classes():
    state = torchvision_state(network_2d(14))
    model = create_model("p3d_resnet14", num_classes=3, style="torchvision")
    with pytest.raises(
        Pseudo3dError, match=r"has a head of 7 classes, the model one of 3; pass head='new'.*num_classes=7"
    ):
        load_weights(model, state)
    own = model.fc.weight.clone()
    report = load_weights(model, state, head="new")
    assert report.dropped == ("fc.weight", "fc.bias")
    assert {"fc.weight", "fc.bias"} <= set(report.initialised)
    assert torch.equal(model.fc.weight, own)


def test_no_head_at_all():
    state = {key: value for key, value in torchvision_state(network_2d(14)).items() if not key.startswith("fc.")}
    model = create_model("p3d_resnet14", num_classes=3, style="torchvision")
    with pytest.raises(Pseudo3dError, match=r"has no head, the model one of 3; pass head='new' to train a new head$"):
        load_weights(model, state)
    assert {"fc.weight", "fc.bias"} <= set(load_weights(model, state, head="new").initialised)


def test_left_over_and_missing_arrays_are_named():
    state = torchvision_state(network_2d(14))
    model = create_model("p3d_resnet14", num_classes=7, style="torchvision")
    with pytest.raises(Pseudo3dError, match=r"1 arrays are not the model's \(layer1\.0\.se\.weight"):
        load_weights(model, {**state, "layer1.0.se.weight": torch.zeros(1)})
    report = load_weights(model, {**state, "layer1.0.se.weight": torch.zeros(1)}, strict=False)
    assert report.dropped == ("layer1.0.se.weight",)
    lacking = {k: v for k, v in state.items() if k != "layer2.0.conv2.weight"}
    with pytest.raises(Pseudo3dError, match=r"1 arrays of the model are not there \(res3\.0\.conv_s\.weight"):
        load_weights(model, lacking)


def test_half_the_temporal_filters_missing_is_not_a_2d_network():
    model = create_model("p3d_resnet14", num_classes=7)
    state = {k: v for k, v in model.state_dict().items() if k != "res3.0.conv_t.weight"}
    with pytest.raises(Pseudo3dError, match=r"res3\.0\.conv_t\.weight"):
        load_weights(model, state)


def test_another_depth():
    with pytest.raises(Pseudo3dError, match="is it another depth or network"):
        load_weights(create_model("resnet50", num_classes=7, style="torchvision"), torchvision_state(network_2d(14)))


def test_other_shapes():
    model = create_model("resnet14", num_classes=7, in_channels=2, style="torchvision")
    with pytest.raises(Pseudo3dError, match=r"stem\.conv1\.weight has shape \(64, 3, 7, 7\), the model needs \(64, 2"):
        load_weights(model, torchvision_state(network_2d(14)))


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ({"style": "torchvision"}, "need style 'torchvision', the model has style 'caffe'"),
        ({"blocks": "A"}, "for blocks 'A', the model has 'ABC'"),
        ({"blocks": "CAB"}, "for blocks 'CAB', the model has 'ABC'"),
    ],
)
def test_a_plain_state_dict_of_ours_says_what_it_is_for(of, words):
    """The names and shapes are the same: without this, such weights would load and compute nonsense."""
    state = create_model("p3d_resnet14", num_classes=4, **of).state_dict()
    with pytest.raises(ValueError, match=words):
        load_weights(create_model("p3d_resnet14", num_classes=4), state)


def test_load_model_takes_the_style_of_a_plain_state_dict():
    state = create_model("p3d_resnet14", num_classes=4, style="torchvision").state_dict()
    assert load_model("p3d_resnet14", state).architecture.style == "torchvision"


def test_what_was_not_in_the_weights_is_said(caplog):
    load_model("p3d_resnet14", torchvision_state(network_2d(14)))
    assert "18 initialised, 0 dropped; not in the weights: res2.0.conv_t.weight" in caplog.text


def test_our_frame_baseline_becomes_p3d():
    source = randomise(create_model("resnet14", num_classes=4)).eval()
    model = load_model("p3d_resnet14", source.state_dict())
    assert torch.equal(model.res3[0].conv_s.weight, source.res3[0].conv_s.weight)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_pytorch_files(tmp_path, wrap):
    state = torchvision_state(network_2d(14))
    torch.save(wrap(state), tmp_path / "r.pth")
    model = load_model("resnet14", tmp_path / "r.pth")
    assert torch.equal(model.res2[0].conv_s.weight, state["layer1.0.conv2.weight"])


def test_files_that_cannot_be_read(tmp_path):
    model = create_model("resnet14", num_classes=2)
    with pytest.raises(Pseudo3dError, match=r"nothing\.pth: no such file or folder"):
        load_weights(model, tmp_path / "nothing.pth")
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(Pseudo3dError, match=r"a\.onnx: unknown kind of weights; known are \.safetensors"):
        load_weights(model, tmp_path / "a.onnx")
    (tmp_path / "a.pth").write_bytes(b"not a pickle")
    with pytest.raises(Pseudo3dError, match=r"a\.pth: not a PyTorch file"):
        load_weights(model, tmp_path / "a.pth")
    (tmp_path / "a.safetensors").write_bytes(b"12345678 not it")
    with pytest.raises(Pseudo3dError, match=r"a\.safetensors: not a whole safetensors file"):
        load_weights(model, tmp_path / "a.safetensors")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(Pseudo3dError, match=r"list\.pt: holds no state dict"):
        load_weights(model, tmp_path / "list.pt")
    save_file({"a.weight": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(Pseudo3dError, match=r"neither this project's names nor those of torchvision"):
        load_weights(model, tmp_path / "b.safetensors")


def test_pickled_code_is_not_run(tmp_path):
    torch.save({"state": os.path.join}, tmp_path / "evil.pth")
    with pytest.raises(Pseudo3dError, match="not a PyTorch file of plain weights"):
        load_weights(create_model("resnet14"), tmp_path / "evil.pth")


@pytest.fixture
def saved(tmp_path):
    model = randomise(create_model("p3d_resnet14", num_classes=3, blocks="CA", dropout=0.4)).eval()
    model.class_names = ("b", "a", "c")
    model.preprocessing = model.preprocessing.with_size(48)
    return model, save_pretrained(model, tmp_path / "saved", facts={"video hit@1": "not measured"})


def test_round_trip(saved):
    model, folder = saved
    again = from_pretrained(folder)
    assert not again.training
    assert again.architecture == model.architecture
    assert again.preprocessing == model.preprocessing
    assert again.class_names == ("b", "a", "c")
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card = (folder / "README.md").read_text()
    assert "| video hit@1 | not measured |" in card
    assert "b, a, c" in card


def test_a_folder_and_its_lone_file_load_into_a_model(saved):
    model, folder = saved
    for source in (folder, folder / "model.safetensors"):
        again = load_model("p3d_resnet14", source, blocks="CA")
        assert again.preprocessing == model.preprocessing
        assert again.class_names == ("b", "a", "c")
        with pytest.raises(Pseudo3dError, match="for blocks 'CA', the model has 'ABC'"):
            load_weights(create_model("p3d_resnet14", num_classes=3), source)
        with pytest.raises(Pseudo3dError, match="need style 'caffe', the model has style 'torchvision'"):
            load_weights(create_model("p3d_resnet14", num_classes=3, blocks="CA", style="torchvision"), source)


def test_damaged_folders(saved, tmp_path):
    _, folder = saved
    with pytest.raises(Pseudo3dError, match="no such folder"):
        from_pretrained(tmp_path / "nowhere")
    config = json.loads((folder / "config.json").read_text())

    def with_config(**changes):
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return folder

    with pytest.raises(Pseudo3dError, match=re.escape("format_version 2, this pseudo3d reads 1; upgrade pseudo3d")):
        from_pretrained(with_config(format_version=2))
    with pytest.raises(Pseudo3dError, match="2 class names for 3 classes"):
        from_pretrained(with_config(class_names=["a", "b"]))
    with pytest.raises(Pseudo3dError, match=r"preprocessing has unknown fields \['flip'\]"):
        from_pretrained(with_config(preprocessing={"flip": True}))
    with pytest.raises(Pseudo3dError, match="lacks or adds a field"):
        from_pretrained(with_config(architecture={"name": "resnet14"}))
    (folder / "config.json").write_text("{")
    with pytest.raises(Pseudo3dError, match="not valid JSON"):
        from_pretrained(folder)
    with_config()
    (folder / "model.safetensors").unlink()
    with pytest.raises(Pseudo3dError, match=r"model\.safetensors: no such file"):
        from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(Pseudo3dError, match=r"has no config\.json"):
        from_pretrained(folder)


def test_a_full_disk_leaves_the_old_weights_whole(saved, monkeypatch):
    model, folder = saved
    before = (folder / "model.safetensors").read_bytes()

    def full(_state, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pseudo3d.weights.pretrained, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_pretrained(model, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert len(list(folder.iterdir())) == 3
