import hashlib
import importlib.resources
from collections import Counter

import pytest
import torch
from reference import randomise, relative_error

from pseudo3d.models import create_model
from pseudo3d.weights.arrays import Arrays
from pseudo3d.weights.caffe import caffe_blobs
from pseudo3d.weights.layer_table import Layer, read_layer_table, run_layer, run_layer_table


def blobs_of(model):
    return caffe_blobs(Arrays.of(model.state_dict()))


def test_the_table_is_the_release():
    table = read_layer_table()
    assert len(table) == 693
    assert Counter(layer.type for layer in table) == {
        "Convolution": 202, "BN": 202, "ReLU": 198, "Eltwise": 81, "Pooling3D": 4, "Input": 1, "Reshape": 1,
        "Pooling": 1, "Dropout": 1, "InnerProduct": 1, "Softmax": 1,
    }  # fmt: skip
    assert Counter(layer.note for layer in table if layer.type == "Eltwise") == {"sum 1 1": 66, "sum 0.5 0.5": 15}
    assert [layer.name for layer in table if layer.note == "trainable"] == ["bn_conv1"]


def test_the_table_in_the_package_is_the_reference(real_data):
    reference = real_data.parent / "reference" / "p3d_resnet152_sports1m_layers.csv"
    packaged = importlib.resources.files("pseudo3d.weights") / reference.name
    assert hashlib.sha256(packaged.read_bytes()).digest() == hashlib.sha256(reference.read_bytes()).digest()


def test_every_learned_layer_has_one_module():
    with torch.device("meta"):
        model = create_model("p3d_resnet152")
    table = {layer.name: layer for layer in read_layer_table()}
    learned = {name for name, layer in table.items() if layer.type in ("Convolution", "BN", "InnerProduct")}
    found = blobs_of(model)
    assert sorted(found) == sorted(learned)
    for name, blobs in found.items():
        if table[name].type == "Convolution":
            assert blobs[0].shape[0] == table[name].num_output
            assert blobs[0].shape[2:] == table[name].kernel


@pytest.mark.parametrize("size", [160, pytest.param(224, marks=pytest.mark.slow)])
@torch.no_grad()
def test_the_network_equals_the_table(size):
    """The model code against the 693 rows, layer by layer with 3-D functions, on random weights."""
    model = randomise(create_model("p3d_resnet152")).eval()
    clips = torch.randn(1, 3, 16, size, size, generator=torch.Generator().manual_seed(size)) * 60
    # a head under which the classes are neither alike nor decided: a wrong network shows in prob too
    model.fc.weight.mul_(2 / model(clips).std())
    names = {"res4": "res4b35", "res5": "res5c", "pool5": "pool5", "prob": "prob"}
    expected = run_layer_table(read_layer_table(), blobs_of(model), clips, set(names.values()))
    got = model.forward_features(clips, tuple(names))
    assert 0.01 < got["prob"].max() < 0.99
    for layer, name in names.items():
        value = got[layer].squeeze(2) if layer == "res5" else got[layer]
        assert value.shape == expected[name].shape
        assert relative_error(value, expected[name]) < 1e-4, layer


@torch.no_grad()
def test_a_wrong_coefficient_would_show():
    """The comparison above can fail: the C blocks' 0.5 replaced by the paper's 1 moves pool5 by far more."""
    model = randomise(create_model("p3d_resnet152")).eval()
    clips = torch.randn(1, 3, 16, 64, 64, generator=torch.Generator().manual_seed(0)) * 60
    table = read_layer_table()
    paper = [Layer(**{**layer.__dict__, "note": layer.note.replace("sum 0.5 0.5", "sum 1 1")}) for layer in table]
    right = run_layer_table(table, blobs_of(model), clips, {"pool5"})["pool5"]
    wrong = run_layer_table(paper, blobs_of(model), clips, {"pool5"})["pool5"]
    assert relative_error(model.forward_features(clips)["pool5"], right) < 1e-4
    assert relative_error(wrong, right) > 1e-2


def test_unknown_type_of_layer():
    layer = Layer("x", "LRN", ("data",), "x", None, (), (), (), "")
    with pytest.raises(ValueError, match="layer x: type LRN is not one of the release's"):
        run_layer(layer, (torch.zeros(1),), {})
