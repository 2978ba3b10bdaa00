import pytest
import torch
from networks import NAMES, network
from reference import relative_error
from torch import nn

from pseudo3d.inference import fold_batch_norms
from pseudo3d.inference.folding import rows_one_by_one

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize(("name", "layer"), [("resnet14", "fc"), ("c3d", "fc7")])
@torch.no_grad()
def test_rows_one_by_one(name, layer):
    model = network(name)
    linear = getattr(model, layer)
    x = torch.randn(7, linear.in_features, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # the second time changes nothing
        rows_one_by_one(model)
        got = getattr(model, layer)(x)
        assert all(torch.equal(got[i], linear(x[i : i + 1])[0]) for i in range(7))
        assert relative_error(got, x @ linear.weight.T + linear.bias) < 1e-5
    assert all(torch.equal(got[i], getattr(model, layer)(x.roll(1, 0))[(i + 1) % 7]) for i in range(7))
