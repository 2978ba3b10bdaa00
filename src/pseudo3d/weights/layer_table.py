"""The authors' network as a table of 693 layers, and a plain interpreter of such a table.

``p3d_resnet152_sports1m_layers.csv`` lists every layer of the released Caffe definition of P3D ResNet-152 (Sports-1M):
name, type, bottoms, tops, outputs, kernel, stride and padding (t x h x w) and a note. It was written down from the
public definition in the authors' repository (github.com/ZhaofanQiu/pseudo-3d-residual-networks) and holds facts about
the network, none of its text.

The interpreter runs one layer after the other with PyTorch's 3-D functions and knows nothing of ``pseudo3d.models``,
so that it can judge them.
"""

import csv
import importlib.resources
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

BN_EPS = 1e-5

Blobs = Mapping[str, tuple[Tensor, ...]]
"""Caffe's learned arrays by layer name, vectors in any shape. Convolution: (weight,) or (weight, bias), the weight
(O, I, kt, kh, kw), or (O, I, kh, kw) in a 2-D layer. BN: (slope, bias, running mean, running variance). BatchNorm:
(mean, variance, what both are divided by); Scale: (slope, bias). InnerProduct: (weight, bias)."""


@dataclass(frozen=True)
class Layer:
    """One row of the table; kernel, stride and pad are (t, h, w), or (h, w) for a 2-D layer (res5)."""

    name: str
    type: str
    bottoms: tuple[str, ...]
    top: str
    num_output: int | None
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    note: str


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.removeprefix("-x").split("x")) if text else ()


def read_layer_table() -> list[Layer]:
    """The 693 layers of P3D ResNet-152, in order.

    Example:
        >>> table = read_layer_table()
        >>> len(table), table[4].name, table[4].type, table[4].kernel, table[4].note
        (693, 'pool1', 'Pooling3D', (2, 3, 3), 'max, ceil mode')
    """
    file = importlib.resources.files("pseudo3d.weights") / "p3d_resnet152_sports1m_layers.csv"
    with file.open(encoding="utf-8") as lines:
        return [
            Layer(
                row["name"],
                row["type"],
                tuple(row["bottoms"].split()),
                row["tops"],
                int(row["num_output"]) if row["num_output"] else None,
                _sizes(row["kernel_txhxw"]),
                _sizes(row["stride_txhxw"]),
                _sizes(row["pad_txhxw"]),
                row["note"],
            )
            for row in csv.DictReader(lines)
        ]


def run_layer(layer: Layer, inputs: tuple[Tensor, ...], blobs: Blobs) -> Tensor:
    """The output of one layer in test mode.

    Args:
        layer: its row of the table.
        inputs: one tensor for each bottom.
        blobs: the learned arrays of all layers.

    Raises:
        ValueError: a type of layer that the release does not have.
    """
    x = inputs[0]
    match layer.type:
        case "Input" | "Dropout":
            return x
        case "Convolution":
            weight = blobs[layer.name][0]
            weight = weight.reshape(*weight.shape[:2], *layer.kernel)
            bias = blobs[layer.name][1].flatten() if len(blobs[layer.name]) == 2 else None
            convolve: Callable[..., Tensor] = F.conv2d if len(layer.kernel) == 2 else F.conv3d
            return convolve(x, weight, bias, layer.stride, layer.pad)
        case "BN":
            slope, bias, mean, variance = (each.flatten() for each in blobs[layer.name])
            return F.batch_norm(x, mean, variance, slope, bias, eps=BN_EPS)
        case "BatchNorm":
            mean, variance, divisor = (each.flatten() for each in blobs[layer.name])
            factor = torch.where(divisor == 0, 0.0, 1 / divisor)  # as Caffe takes a count of 0
            return F.batch_norm(x, mean * factor, variance * factor, eps=BN_EPS)
        case "Scale":
            slope, shift = (each.flatten()[:, None, None] for each in blobs[layer.name])
            return x * slope + shift
        case "ReLU":
            return F.relu(x)
        case "Pooling3D":
            pool = F.max_pool2d if len(layer.kernel) == 2 else F.max_pool3d
            return pool(x, layer.kernel, layer.stride, padding=layer.pad, ceil_mode="ceil" in layer.note)
        case "Eltwise":
            scales = [float(scale) for scale in layer.note.removeprefix("sum ").split()]
            return sum((scale * each for scale, each in zip(scales, inputs, strict=True)), start=x.new_zeros(()))
        case "Reshape":
            return x.squeeze(2)
        case "Pooling":
            return x.mean(dim=(2, 3))
        case "InnerProduct":
            weight, bias = blobs[layer.name][0], blobs[layer.name][1].flatten()
            return F.linear(x.flatten(1), weight.reshape(len(bias), -1), bias)
        case "Softmax":
            return x.softmax(dim=1)
    raise ValueError(f"layer {layer.name}: type {layer.type} is not one of the release's")


def run_layer_table(table: list[Layer], blobs: Blobs, clips: Tensor, keep: Collection[str]) -> dict[str, Tensor]:
    """Run the whole table on a batch of clips, in test mode.

    Args:
        table: the layers in order (``read_layer_table``).
        blobs: the learned arrays by layer name.
        clips: (N, 3, 16, H, W) float32, preprocessed; (N, 3, H, W) for the table of a frame network.
        keep: tops to return; a top that a ReLU overwrites in place is returned after it.

    Returns:
        The kept activations by name: (N, C, T, H, W), (N, C, H, W) from res5 on, (N, D) from pool5 on.
    """
    last_use = {bottom: i for i, layer in enumerate(table) for bottom in (*layer.bottoms, layer.top)}
    tops = {"data": clips}
    for i, layer in enumerate(table):
        inputs = tuple(tops[bottom] for bottom in layer.bottoms) or (tops["data"],)
        tops[layer.top] = run_layer(layer, inputs, blobs)
        tops = {name: value for name, value in tops.items() if name in keep or last_use[name] > i}
    return {name: tops[name] for name in keep}
