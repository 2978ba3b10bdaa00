"""The engine ``openvino``: the network as a graph of OpenVINO's operations, compiled for this processor.

The graph has plain 3-D convolutions and pools, which OpenVINO runs faster than our 2-D convolutions on views (0.7 of
the time of P3D ResNet-50). It is built operation by operation, in a second: conversion of the PyTorch network, which
traces it, took fifteen. Grey levels go in; what comes after pool5 is a few numbers and stays with PyTorch.
"""

import functools
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pseudo3d.inference.inputs import mean_of_windows
from pseudo3d.models import VideoModel
from pseudo3d.models.blocks import Bottleneck
from pseudo3d.models.c3d import C3D, CLIP
from pseudo3d.models.interface import check_clips, check_clips_of_size, check_layers, classify
from pseudo3d.models.resnet import STEPS_PER_OUTPUT, VideoResNet

Node = Any  # OpenVINO's types are not for type checkers
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
_STAGES = ("res2", "res3", "res4", "res5")


class OpenVinoEngine:
    """A network compiled by OpenVINO, once for each choice of convolutional layers and shape of clips.

    Args:
        model: a ``VideoResNet`` with folded batch norms, or ``C3D``, in evaluation mode on the processor.
        dtype: float32, or bfloat16 where the processor has it; OpenVINO computes in float32 elsewhere.
    """

    def __init__(self, model: VideoModel, dtype: torch.dtype) -> None:
        self._model, self._hint = model, _HINTS[dtype]
        self._deepest = model.layers[0] if isinstance(model, C3D) else "pool5"
        self._compiled: dict[tuple, Any] = {}

    def __call__(self, frames: UInt8[Tensor, "N T H W 3"], layers: Sequence[str]) -> dict[str, Float[Tensor, "N ..."]]:
        """As ``forward_features``, of uint8 RGB frames.

        Raises:
            Pseudo3dError: unknown layers, or clips of a shape that the network does not take.
        """
        check_layers(layers, self._model.layers)
        self._check(tuple(frames.shape))
        wanted = tuple(sorted({name if name.startswith(("res", "conv")) else self._deepest for name in layers}))
        key = (wanted, tuple(frames.shape))
        if key not in self._compiled:
            self._compiled[key] = self._compile(wanted, tuple(frames.shape))
        outputs = self._compiled[key].infer({0: frames.numpy()}, share_inputs=True)
        found = {name: torch.from_numpy(array) for name, array in zip(wanted, outputs.values(), strict=True)}
        if isinstance(self._model, C3D):
            if set(layers) != {self._deepest}:
                self._model.classify(found[self._deepest], found, layers)
        elif "pool5" in found:
            model = self._model
            assert isinstance(model, VideoResNet)
            classify(found["pool5"][:, :, None, None, None], model.dropout, model.fc, found, layers)
        return {name: found[name] for name in layers}

    def _check(self, shape: tuple[int, ...]) -> None:
        n, steps, height, width, channels = shape
        clips = torch.empty(n, channels, steps, height, width, device="meta")
        if isinstance(self._model, VideoResNet):
            check_clips(clips, 3, STEPS_PER_OUTPUT if self._model.has_time else 1)
        else:
            check_clips_of_size(clips, 3, CLIP)

    def _compile(self, wanted: tuple[str, ...], shape: tuple[int, ...]) -> Any:
        ov = load_openvino()
        graph = build_graph(self._model, wanted, shape)
        options = {
            "INFERENCE_PRECISION_HINT": self._hint,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        return ov.Core().compile_model(graph, "CPU", options).create_infer_request()


@functools.cache
def load_openvino() -> ModuleType:
    """OpenVINO, without the package by which each import reports itself to its makers over the network."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # then it cannot be imported
    import openvino  # type: ignore[import-untyped]

    return openvino


def build_graph(model: VideoModel, wanted: Sequence[str], shape: tuple[int, ...]) -> Any:
    """An ``openvino.Model`` from uint8 (N, T, H, W, 3) to the convolutional layers ``wanted`` and to pool5."""
    ov, ops = load_openvino(), _ops()
    frames = ops.parameter(list(shape), np.uint8)
    x = _standardised(frames, model)
    found = _c3d(x, model) if isinstance(model, C3D) else _resnet(x, model, wanted)
    return ov.Model([found[name] for name in wanted], [frames])


def _ops() -> Any:
    load_openvino()
    from openvino import opset14

    return opset14


def _standardised(frames: Node, model: VideoModel) -> Node:
    """``inputs.to_input`` as operations."""
    ops, p = _ops(), model.preprocessing
    x = ops.convert(frames, np.float32)
    if p.channel_order == "BGR":
        x = ops.gather(x, np.array([2, 1, 0]), np.array(4))
    low, high = p.value_range
    std = np.array(p.std)
    mean = np.array(p.mean)
    if model.mean_volume is not None:
        mean = mean_of_windows(model.mean_volume, p, None).double().numpy()
    x = ops.multiply(x, ((high - low) / 255 / std).astype(np.float32))
    x = ops.add(x, ((low - mean) / std).astype(np.float32))
    return ops.transpose(x, np.array([0, 4, 1, 2, 3]))


def _conv(x: Node, conv: nn.Module, *, temporal: bool = False, stride: int | None = None) -> Node:
    """A folded 2-D convolution on frames, or ``temporal`` on steps, or a 3-D one: always in 3-D, with its bias."""
    assert isinstance(conv, nn.Conv2d | nn.Conv3d)
    assert conv.bias is not None
    ops = _ops()
    filters, strides, pads = conv.weight.detach().float(), list(conv.stride), [int(p) for p in conv.padding]
    if temporal:
        filters, strides, pads = filters[..., None], [1, stride or 1, stride or 1], [pads[0], 0, 0]
    elif filters.ndim == 4:
        filters, strides, pads = filters[:, :, None], [1, *strides], [0, *pads]
    y = ops.convolution(x, filters.contiguous().numpy(), strides, pads, pads, [1, 1, 1])
    return ops.add(y, conv.bias.detach().float().view(1, -1, 1, 1, 1).numpy())


def _pool(x: Node, window: Sequence[int], stride: Sequence[int], *, padding: int = 0) -> Node:
    """A maximum over windows, which reach over the end without padding (Caffe's ceil mode)."""
    pads = [0, padding, padding]
    rounding = "floor" if padding else "ceil"
    return _ops().max_pool(x, list(stride), [1, 1, 1], pads, pads, list(window), rounding).output(0)


def _resnet(x: Node, model: VideoModel, wanted: Sequence[str]) -> dict[str, Node]:
    assert isinstance(model, VideoResNet)
    ops, found = _ops(), {}
    steps = 2 if model.has_time else 1
    x = ops.relu(_conv(x, model.stem.conv1))
    x = _pool(x, (steps, 3, 3), (steps, 2, 2), padding=0 if model.stem.style == "caffe" else 1)
    for name in _STAGES:
        for block in getattr(model, name):
            x = _bottleneck(x, block)
        found[name] = x
        if set(wanted) <= set(found):
            return found
        if model.has_time and name != "res5":
            x = _pool(x, (2, 1, 1), (2, 1, 1))
    return found | {"pool5": ops.reduce_mean(x, np.array([2, 3, 4]))}


def _bottleneck(x: Node, block: Bottleneck) -> Node:
    """As ``models.blocks.Bottleneck``, batch norms folded."""
    ops = _ops()
    a = ops.relu(_conv(x, block.conv_a))
    y = ops.relu(_conv(a, block.conv_s))
    if block.kind != "2D":
        t = _conv(a if block.kind == "B" else y, block.conv_t, temporal=True, stride=block.stride_t)
        if block.rectify_t:
            t = ops.relu(t)
        if block.kind == "B":
            t = ops.add(y, t)
        elif block.kind == "C":
            t = ops.multiply(ops.add(y, t), np.float32(block.share))
        y = ops.relu(t)
    shortcut = _conv(x, block.conv_shortcut) if block.has_projection else x
    return ops.relu(ops.add(_conv(y, block.conv_c), shortcut))


def _c3d(x: Node, model: C3D) -> dict[str, Node]:
    for name, _, window in model.convolutions:
        x = _ops().relu(_conv(x, model.get_submodule(name)))
        if window is not None:
            x = _pool(x, window, window)
    return {model.layers[0]: x}
