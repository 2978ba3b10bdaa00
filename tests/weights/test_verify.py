"""p3d weights and what is behind it: inspect, convert, verify."""

import contextlib
import json
import shutil

import pytest
import torch
from reference import port_shapes, random_state, randomise, torchvision_state
from safetensors.torch import save_file
from tiny import mistake, p3d

from pseudo3d import create_model, from_pretrained, load_model, save_pretrained
from pseudo3d.models.blocks import Bottleneck
from pseudo3d.weights import verify as verify_module
from pseudo3d.weights.export import export_caffemodel
from pseudo3d.weights.layer_rules import make_layer_table
from pseudo3d.weights.verify import verify_weights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model():
    return randomise(create_model("p3d_resnet14", num_classes=3)).eval()


@pytest.fixture(scope="module")
def caffemodel(model, tmp_path_factory):
    return export_caffemodel(model, tmp_path_factory.mktemp("weights") / "p3d.caffemodel")


def test_every_kind_is_verified(model, caffemodel, tmp_path):
    torch.save(random_state(port_shapes((1, 1, 1, 1), 4)), tmp_path / "port.pth.tar")
    frames = randomise(create_model("resnet14", num_classes=3, style="torchvision"))
    torch.save(torchvision_state(frames), tmp_path / "resnet.pth")
    export_caffemodel(randomise(create_model("resnet14", num_classes=3)), tmp_path / "he.caffemodel")
    save_pretrained(
        randomise(create_model("p3d_resnet14", num_classes=3, blocks="CB", style="torchvision")), tmp_path / "f"
    )
    layers = ["res2", "res3", "res4", "res5", "pool5", "logits", "prob"]
    for source, options in [
        (caffemodel, {}),
        (tmp_path / "resnet.pth", {}),
        (tmp_path / "he.caffemodel", {}),
        (tmp_path / "f", {}),
    ]:
        result = verify_weights(source, **options)
        assert result.passed, result
        assert list(result.differences) == layers
    for style in ("caffe", "port"):
        with pytest.warns(UserWarning, match="port") if style == "caffe" else contextlib.nullcontext():
            assert verify_weights(tmp_path / "port.pth.tar", style=style).passed


@pytest.mark.slow
def test_c3d_is_verified(tmp_path):
    model = create_model("c3d", num_classes=3)
    assert verify_weights(export_caffemodel(model, tmp_path / "c3d.caffemodel")).passed


@pytest.mark.parametrize("wrong", ["table", "model"])
def test_a_difference_is_found(capsys, caffemodel, monkeypatch, wrong):
    """The comparison can fail, whichever side computes something else: the paper's coefficients in C."""
    if wrong == "table":
        paper = make_layer_table("p3d_resnet14", num_classes=3, head="fc", style="port")
        monkeypatch.setattr(verify_module, "make_layer_table", lambda *_, **__: paper)
    else:
        init = Bottleneck.__init__

        def with_ones(self, *args, **kwargs):
            init(self, *args, **kwargs)
            self.share = 1.0

        monkeypatch.setattr(Bottleneck, "__init__", with_ones)
    code, out, err = p3d(capsys, "weights", "verify", caffemodel)
    assert (code, err) == (1, [])
    assert "DIFFERENT: relative to the largest value, the limit is 1e-04" in out


def test_verify(capsys, caffemodel):
    code, out, _ = p3d(capsys, "weights", "verify", caffemodel)
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "p3d_resnet14, style caffe, a random clip of 1x3x16x160x160, against a table of 72 layers"
    assert [line.split()[0] for line in lines[2:9]] == ["res2", "res3", "res4", "res5", "pool5", "logits", "prob"]
    assert lines[9] == "equal: relative to the largest value, the limit is 1e-04"


def test_inspect(capsys, caffemodel, model, tmp_path):
    code, out, _ = p3d(capsys, "weights", "inspect", caffemodel)
    assert code == 0
    assert "p3d.caffemodel: the P3D authors' Caffe model" in out
    assert "fits        p3d_resnet14 (3 classes, 3 input channels)" in out
    assert "style       caffe" in out
    parameters = sum(p.numel() for p in model.parameters())
    assert f"parameters  {parameters:,} in 102 arrays: {parameters * 4 / 1e6:.1f} MB" in out
    assert "res3.0.conv_t.weight" in out
    assert "128x128x3x1" in out
    assert len(out.split("sha256 ")[1].split()[0]) == 64
    code, out, _ = p3d(capsys, "weights", "inspect", caffemodel, "--no-arrays")
    assert "res3.0" not in out
    save_file({"stem.conv1.weight": torch.zeros(1)}, tmp_path / "odd.safetensors")
    assert "neither this project's names nor those of torchvision's" in mistake(
        capsys, "weights", "inspect", tmp_path / "odd.safetensors"
    )


def test_inspect_a_checkpoint_of_the_port(capsys, tmp_path):
    torch.save({"state_dict": random_state(port_shapes((1, 1, 1, 1), 4, in_channels=2))}, tmp_path / "port.pth.tar")
    _, out, _ = p3d(capsys, "weights", "inspect", tmp_path / "port.pth.tar")
    assert "the well-known PyTorch port of P3D" in out
    assert "fits        p3d_resnet14 (4 classes, 2 input channels)" in out
    assert "style       caffe (converted from the authors' weights) or port (trained with the port)" in out


def test_convert(capsys, caffemodel, model, tmp_path):
    (tmp_path / "labels.txt").write_text("walk\nrun\nfall\n")
    code, out, _ = p3d(
        capsys, "weights", "convert", caffemodel, tmp_path / "f", "--class-names", tmp_path / "labels.txt"
    )
    assert code == 0
    assert out.endswith("f: p3d_resnet14, style caffe, 3 classes\n")
    again = from_pretrained(tmp_path / "f")
    assert again.class_names == ("walk", "run", "fall")
    assert json.loads((tmp_path / "f" / "config.json").read_text())["class_names"] == ["walk", "run", "fall"]
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    p3d(capsys, "weights", "convert", tmp_path / "f", tmp_path / "lone.safetensors")
    assert load_model("auto", tmp_path / "lone.safetensors").class_names == ("walk", "run", "fall")
    p3d(capsys, "weights", "convert", tmp_path / "lone.safetensors", tmp_path / "back.caffemodel")
    assert (tmp_path / "back.caffemodel").read_bytes() == caffemodel.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "back.caffemodel",
        "f",
        "labels.txt",
        "lone.safetensors",
    ]


def test_convert_says_that_classes_have_no_names(capsys, caffemodel, tmp_path):
    _, out, _ = p3d(capsys, "weights", "convert", caffemodel, tmp_path / "f")
    assert "3 classes without names: they will be called class_0, class_1, ..." in out


def test_convert_in_the_style_that_the_weights_were_trained_in(capsys, tmp_path):
    torch.save(random_state(port_shapes((1, 1, 1, 1), 4)), tmp_path / "mine.pth")
    p3d(capsys, "weights", "convert", tmp_path / "mine.pth", tmp_path / "f", "--style", "port")
    model = from_pretrained(tmp_path / "f")
    assert (model.architecture.style, model.preprocessing.channel_order) == ("port", "RGB")


def test_mistakes(capsys, caffemodel, tmp_path):
    assert "did you mean 'inspect'? See p3d weights --help" in mistake(capsys, "weights", "inspct", caffemodel)
    near = caffemodel.with_name("p3d.cafemodel")
    assert "no such file or folder; did you mean " in (line := mistake(capsys, "weights", "inspect", near))
    assert line.endswith("p3d.caffemodel?")
    assert "out.onnx: written are a folder" in mistake(capsys, "weights", "convert", caffemodel, tmp_path / "out.onnx")
    shutil.copy(caffemodel, tmp_path / "there.caffemodel")
    there = mistake(capsys, "weights", "convert", caffemodel, tmp_path / "there.caffemodel")
    assert "is there already; choose another name or remove it" in there
    (tmp_path / "page.caffemodel").write_text("<!DOCTYPE html><html>Sign in</html>")
    assert "web page" in mistake(capsys, "weights", "inspect", tmp_path / "page.caffemodel")
    (tmp_path / "cut.caffemodel").write_bytes(caffemodel.read_bytes()[:1_000_000])
    assert "download it again" in mistake(capsys, "weights", "verify", tmp_path / "cut.caffemodel")
    assert "p3d weights" in p3d(capsys, "weights")[1]
