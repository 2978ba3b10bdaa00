"""Where cells look, beside what their gradients reach: the middle of all inputs that a cell depends on."""

import numpy as np
import pytest
import torch
from torch import nn

from pseudo3d import Pseudo3dError, create_model
from pseudo3d.models.c3d import C3D, SMALL_CONVOLUTIONS
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.visualize.cells import cell_centres


def all_positive(model):
    """Every input that a cell's window covers counts: weights are positive, and no ReLU is closed."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    return model.eval()


def middle_of_what_it_sees(model, layer, cell, size):
    """Of time, height and width: the middle between the first and the last place with a gradient of the cell.

    A pooling passes the gradient to the largest of its window: the first one where the inputs fall, the last where they
    rise.
    """
    reached = torch.zeros(size, dtype=torch.bool)
    rising = sum(torch.meshgrid(*(torch.arange(1.0, length + 1) for length in size), indexing="ij"))
    for values in (rising, rising.flip(0, 1, 2)):
        inputs = values.expand(1, 3, *size).clone().requires_grad_()
        seen = model.forward_features(inputs, (layer,))[layer][0, :, cell[0], cell[1], cell[2]].sum()
        reached |= torch.autograd.grad(seen, inputs)[0][0].abs().sum(dim=0) > 0
    along = [np.flatnonzero(reached.any(dim=tuple({0, 1, 2} - {axis})).numpy()) for axis in range(3)]
    return [(places[0] + places[-1]) / 2 for places in along]


def said(model, layer, cell):
    return [first + step * i for (first, step), i in zip(cell_centres(model, layer), cell, strict=True)]


@pytest.mark.parametrize("style", ["caffe", "torchvision", "port"])
@pytest.mark.parametrize(
    ("layer", "cell", "size"),
    [
        ("res2", (9, 5, 7), (48, 64, 64)),
        ("res3", (5, 4, 3), (48, 64, 64)),
        ("res4", (5, 3, 4), (80, 96, 112)),
    ],
)
def test_p3d(style, layer, cell, size):
    model = all_positive(create_model("p3d_resnet14", num_classes=2, style=style))
    assert said(model, layer, cell) == middle_of_what_it_sees(model, layer, cell, size)


@pytest.mark.parametrize("style", ["caffe", "torchvision"])
@pytest.mark.parametrize("blocks", ["A", "B", "C"])
def test_every_kind_of_block(style, blocks):
    model = all_positive(create_model("p3d_resnet14", num_classes=2, style=style, blocks=blocks))
    assert said(model, "res3", (6, 3, 4)) == middle_of_what_it_sees(model, "res3", (6, 3, 4), (48, 64, 64))


def test_the_steps_of_res5():
    model = all_positive(create_model("p3d_resnet14", num_classes=2))
    assert said(model, "res5", (3, 0, 0))[0] == middle_of_what_it_sees(model, "res5", (3, 0, 0), (112, 32, 32))[0]


@pytest.mark.parametrize("style", ["caffe", "torchvision"])
@pytest.mark.parametrize("layer", ["res2", "res3", "res4", "res5"])
def test_the_frame_network(style, layer):
    model = all_positive(create_model("resnet14", num_classes=2, style=style))
    cell = (1, 3, 4) if layer == "res5" else (1, 5, 6)
    assert said(model, layer, cell) == middle_of_what_it_sees(model, layer, cell, (3, 256, 256))


@pytest.mark.parametrize("cell", [(0, 2, 3), (1, 3, 2)])
def test_c3d(cell):
    """The smaller network with filters of one frame: with longer ones a step sees all of the clip."""
    slim = tuple((name, 2, window) for name, _, window in SMALL_CONVOLUTIONS)
    sizes = Preprocessing(16, (128, 171), (112, 112), (90.0, 97.0, 101.0))
    model = C3D(2, in_channels=3, dropout=0.0, preprocessing=sizes, convolutions=slim, kernels=(1,) * 5, hidden=4)
    middle = middle_of_what_it_sees(all_positive(model), "conv5a", cell, (16, 112, 112))
    assert said(model, "conv5a", cell) == middle


def test_the_release_of_c3d():
    with torch.device("meta"):
        model = create_model("c3d", num_classes=2)
    assert cell_centres(model, "conv5b") == ((3.5, 8.0), (7.5, 16.0), (7.5, 16.0))  # evenly in 16 x 112 x 112


def test_a_network_of_another_kind():
    with pytest.raises(Pseudo3dError, match="where the cells of Linear look is not known"):
        cell_centres(nn.Linear(1, 1), "res5")
