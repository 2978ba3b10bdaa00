"""What load_weights and the commands take from the hub: "imagenet", hf:owner/name, other projects' models."""

import hashlib
import json

import pytest
import torch
from hub_server import hub_fixture  # noqa: F401
from reference import randomise, torchvision_state
from safetensors.torch import save
from tiny import QUICK, mistake, p3d

from pseudo3d import Pseudo3dError, create_model, load_model, load_weights, save_pretrained
from pseudo3d.preprocessing import IMAGENET_MEAN_RGB
from pseudo3d.weights import hub as hub_module
from pseudo3d.weights.hub import HubFile


@pytest.fixture(scope="module")
def frames():
    return randomise(create_model("resnet14", num_classes=3, style="torchvision")).eval()


@pytest.fixture
def imagenet(hub, frames, monkeypatch):
    """A ResNet-14 where "imagenet" looks for ResNets."""
    content = save({key: value.contiguous() for key, value in torchvision_state(frames).items()})
    commit = hub.add("timm/resnet14.tv_in1k", {"model.safetensors": content})
    file = HubFile(
        "timm/resnet14.tv_in1k", "model.safetensors", commit, hashlib.sha256(content).hexdigest(), len(content)
    )
    monkeypatch.setitem(hub_module.IMAGENET, 14, file)
    return hub


def test_imagenet(imagenet, frames):
    model = create_model("p3d_resnet14", num_classes=3, style="torchvision")
    report = load_weights(model, "imagenet")
    assert str(report) == "imagenet (ResNet-14): 104 arrays loaded, 15 initialised, 0 dropped"
    assert torch.equal(model.res4[0].conv_s.weight, frames.res4[0].conv_s.weight)
    p = model.preprocessing
    assert (p.mean, p.channel_order, p.value_range) == (IMAGENET_MEAN_RGB, "RGB", (0.0, 1.0))
    assert load_model("p3d_resnet14", "imagenet").architecture.style == "torchvision"
    with pytest.raises(Pseudo3dError, match="need style 'torchvision', the model has style 'caffe'"):
        load_weights(create_model("p3d_resnet14", num_classes=3), "imagenet")


def test_imagenet_has_no_c3d():
    with pytest.raises(Pseudo3dError, match='"imagenet" has ResNets of 50, 101, 152 layers, not c3d'):
        load_weights(create_model("c3d", num_classes=2), "imagenet")


def test_imagenet_with_another_digest(imagenet, monkeypatch):
    file = hub_module.IMAGENET[14]
    wrong = HubFile(file.repo, file.filename, file.revision, "0" * 64, file.size)
    monkeypatch.setitem(hub_module.IMAGENET, 14, wrong)
    with pytest.raises(Pseudo3dError, match="0000000000"):
        load_model("resnet14", "imagenet")


def test_a_timm_model_of_the_hub(hub, frames):
    content = save({key: value.contiguous() for key, value in torchvision_state(frames).items()})
    config = {"architecture": "resnet14", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    hub.add("timm/resnet14.mine", {"model.safetensors": content, "config.json": json.dumps(config).encode()})
    model = load_model("auto", "hf:timm/resnet14.mine")
    assert model.preprocessing.mean == (0.5, 0.5, 0.5)
    assert torch.equal(model.fc.weight, frames.fc.weight)


def test_commands_take_models_of_the_hub(hub, two_classes, tmp_path, capsys):
    """predict and extract from a repository; its weights are what the store records."""
    model = randomise(create_model("p3d_resnet14", num_classes=2))
    model.class_names, model.preprocessing = ("cat", "dog"), model.preprocessing.with_size(32)
    folder = save_pretrained(model, tmp_path / "model")
    commit = hub.add("me/nets", {path.name: path.read_bytes() for path in folder.iterdir()})
    video = next(two_classes.glob("*/*.mkv"))
    code, out, err = p3d(capsys, "predict", video, "--weights", f"hf:me/nets@{commit}", *QUICK)
    assert (code, err) == (0, [])
    assert {line.split()[1] for line in out.splitlines()[1:]} == {"cat", "dog"}
    assert p3d(capsys, "extract", video, "--weights", "hf:me/nets", "--out", tmp_path / "store", *QUICK)[0] == 0
    record = (tmp_path / "store" / "store.json").read_text()
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() in record
    assert "me/nothing" in mistake(capsys, "predict", video, "--weights", "hf:me/nothing", *QUICK)
