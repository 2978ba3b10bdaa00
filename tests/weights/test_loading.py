import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import randomise, relative_error, torchvision_state
from safetensors.torch import save_file

from pseudo3d import Pseudo3dError, create_model, load_model, load_weights, save_pretrained
from pseudo3d.preprocessing import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from pseudo3d.weights.caffemodel import write_blob


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
        Pseudo3dError,
        match=r"has a head of 7 classes, the model one of 3; pass head='new' \(p3d train --head new\).*num_classes=7",
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
    with pytest.raises(
        Pseudo3dError,
        match=r"has no head, the model one of 3; pass head='new' \(p3d train --head new\) to train a new head$",
    ):
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
    with pytest.raises(
        Pseudo3dError, match=r"looks like resnet14 \(7 classes, 3 input channels\), the model is resnet50"
    ):
        load_weights(create_model("resnet50", num_classes=7, style="torchvision"), torchvision_state(network_2d(14)))


def test_p3d_weights_do_not_go_into_the_frame_network():
    with pytest.raises(
        Pseudo3dError, match=r"looks like p3d_resnet14 .*the model is resnet14; use p3d_resnet14 for them"
    ):
        load_weights(create_model("resnet14"), create_model("p3d_resnet14").state_dict())


def test_a_network_that_is_not_here():
    state = torchvision_state(network_2d(14))
    deeper = {key.replace("layer1.0.", f"layer1.{i}."): value for key, value in state.items() for i in (0, 1)}
    with pytest.raises(
        Pseudo3dError, match=r"a ResNet of bottlenecks with depths 2-1-1-1, which is not among the models"
    ):
        load_weights(create_model("resnet14", num_classes=7, style="torchvision"), deeper)
    basic = {key: value for key, value in state.items() if ".conv3." not in key and ".bn3." not in key}
    basic["layer1.0.conv1.weight"] = torch.zeros(64, 64, 3, 3)
    with pytest.raises(
        Pseudo3dError, match=r"a ResNet of basic blocks with depths 1-1-1-1, which is not among the models"
    ):
        load_model("auto", basic)


def test_other_shapes():
    state = torchvision_state(network_2d(14)) | {"layer3.0.conv2.weight": torch.zeros(256, 8, 3, 3)}
    with pytest.raises(
        Pseudo3dError, match=r"res4\.0\.conv_s\.weight has shape \(256, 8, 3, 3\), the model needs \(256, 2"
    ):
        load_weights(create_model("resnet14", num_classes=7, style="torchvision"), state)


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
    assert "15 initialised, 0 dropped; not in the weights: res2.0.conv_t.weight" in caplog.text


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
    with pytest.raises(Pseudo3dError, match=r"nothing\.pth: no such file or folder; give a \.safeten"):
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


def test_values_that_no_network_has():
    """Everything is checked before the first number is written."""
    state = torchvision_state(network_2d(14))
    model = create_model("resnet14", num_classes=7, style="torchvision")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    last = "layer4.0.bn3.running_var"
    for value, words in [
        (torch.full((2048,), float("nan")), r"res5\.0\.bn_c\.running_var has values that are not finite"),
        (torch.full((2048,), 1e300, dtype=torch.float64), "not finite"),
        (torch.full((2048,), -1.0), "has negative values, which no variance has"),
        (torch.ones(2048, dtype=torch.int8), r"holds torch\.int8, not floating-point numbers"),
    ]:
        with pytest.raises(Pseudo3dError, match=words):
            load_weights(model, {**state, last: value})
    for options in ({"std": -1.0, "temporal_init": "gaussian"}, {"class_names": ["a"]}):
        with pytest.raises(Pseudo3dError):
            load_weights(model, state, **options)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_half_precision_weights():
    state = {key: value.half() if value.is_floating_point() else value for key, value in
             torchvision_state(network_2d(14)).items()}  # fmt: skip
    model = load_model("resnet14", state)
    assert model.fc.weight.dtype == torch.float32
    assert torch.equal(model.fc.weight, state["fc.weight"].float())


def test_class_names_belong_to_the_head():
    """Names of the weights before would stand on another head."""
    state = torchvision_state(network_2d(14))
    names = tuple("abcdefg")
    model = load_model("resnet14", state, class_names=names)
    assert model.class_names == names
    load_weights(model, state)
    assert model.class_names is None
    with pytest.raises(Pseudo3dError, match="class_names are those of the weights' head, which head='new' leaves out"):
        load_weights(model, state, head="new", class_names=names)
    model.class_names = names
    load_weights(model, state, head="new")
    assert model.class_names == names


def test_a_state_dict_that_does_not_say_its_style_is_warned_about():
    state = {key: value for key, value in create_model("p3d_resnet14").state_dict().items() if key != "layout"}
    with pytest.warns(UserWarning, match="does not say what it was trained as; style 'torchvision' and blocks 'CBA'"):
        load_weights(create_model("p3d_resnet14", style="torchvision", blocks="CBA"), state)


def test_p3d_weights_without_any_temporal_filter_are_damaged():
    """They look like a 2-D network, but say that they are none."""
    state = create_model("p3d_resnet14", num_classes=7).state_dict()
    state = {key: value for key, value in state.items() if ".conv_t." not in key and ".bn_t." not in key}
    with pytest.raises(Pseudo3dError, match=r"arrays of the model are not there \(res2\.0\.conv_t\.weight"):
        load_weights(create_model("p3d_resnet14", num_classes=7), state)


def test_not_strict_is_not_another_network():
    with pytest.raises(Pseudo3dError, match=r"looks like p3d_resnet14 .* the model is p3d_resnet50"):
        load_weights(
            create_model("p3d_resnet50", num_classes=7), create_model("p3d_resnet14").state_dict(), strict=False
        )


def test_clips_of_a_saved_network_stay_as_long_as_they_were(tmp_path):
    model = create_model("p3d_resnet14", num_classes=3)
    model.preprocessing = replace(model.preprocessing, num_frames=32)
    folder = save_pretrained(model, tmp_path / "saved")
    assert load_model("auto", folder).preprocessing == model.preprocessing


def test_a_frame_network_gives_p3d_its_numbers_and_not_its_size(tmp_path):
    frames = create_model("resnet14", num_classes=3)
    frames.preprocessing = replace(frames.preprocessing, mean=(1.0, 2.0, 3.0))
    p = load_model("p3d_resnet14", save_pretrained(frames, tmp_path / "saved")).preprocessing
    assert (p.num_frames, p.resize, p.crop, p.mean) == (16, 162, (160, 160), (1.0, 2.0, 3.0))


def test_a_mean_in_grey_levels_is_not_for_standardised_colours(tmp_path):
    write_blob(tmp_path / "mean.binaryproto", np.full((3, 4, 4), 104, np.float32))
    with pytest.raises(Pseudo3dError, match="a mean in grey levels is for style 'caffe', the model has 'torchvision'"):
        load_model("resnet14", torchvision_state(network_2d(14)), mean_file=tmp_path / "mean.binaryproto")


def test_empty_options_are_not_left_out_ones():
    state = create_model("p3d_resnet14").state_dict()
    with pytest.raises(Pseudo3dError, match="blocks must be a string over A, B and C"):
        load_model("p3d_resnet14", state, blocks="")
    with pytest.raises(Pseudo3dError, match="must be at least 1"):
        load_model("p3d_resnet14", state, in_channels=0)
