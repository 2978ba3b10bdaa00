"""Our arrays and Caffe's blobs: one explicit map for each of three families, the same for reading and writing.

    "p3d"     the authors' P3D ResNets: BN layers with four blobs (slope, bias, running mean, running variance)
    "resnet"  He et al.'s ResNets: BatchNorm (mean, variance, their common divisor) and Scale (slope, bias)
    "c3d"     Tran et al.'s C3D: convolutions and inner products with biases

A slot ("bn2a_branch2b_t", 3) is the blob of that number in the layer of that name.
"""

import functools
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.weights.arrays import Arrays, Shape
from pseudo3d.weights.caffemodel import CaffeModel
from pseudo3d.weights.layouts import squeezed

Family = Literal["p3d", "resnet", "c3d"]
Slot = tuple[str, int]

_BRANCHES = {
    "conv_a": "branch2a",
    "conv_s": "branch2b",
    "conv_t": "branch2b_t",
    "conv_c": "branch2c",
    "conv_shortcut": "branch1",
}
_BN_BLOBS = {"weight": 0, "bias": 1, "running_mean": 2, "running_var": 3}
_BATCHNORM_BLOBS = {"running_mean": 0, "running_var": 1}  # the third is what both are divided by
_HEADS = {("p3d", 487): "fc_sports1m", ("p3d", 400): "fc_kinetics", ("resnet", 1000): "fc1000"}
_C3D_LAYERS = {"fc6": "fc6-1", "fc7": "fc7-1"}
_BLOCK = re.compile(r"res(\d)(a|b\d+|[b-z])_branch(1|2a|2b_t|2b|2c)")


def caffe_block_names(stage: int, depths: Sequence[int]) -> list[str]:
    """Caffe's names of the blocks of a stage: 2a, 2b, 2c in short networks and stages, 4a, 4b1, 4b2 in long ones.

    Example:
        >>> caffe_block_names(2, (3, 8, 36, 3)), caffe_block_names(4, (3, 8, 36, 3))[-1]
        (['2a', '2b', '2c'], '4b35')
        >>> caffe_block_names(4, (3, 4, 6, 3))[-1], caffe_block_names(3, (3, 4, 23, 3))[-1]
        ('4f', '3b3')
    """
    depth = depths[stage - 2]
    if max(depths) <= 6 or depth <= 3:
        return [f"{stage}{letter}" for letter in string.ascii_lowercase[:depth]]
    return [f"{stage}a", *(f"{stage}b{i}" for i in range(1, depth))]


def depths_of(keys: Sequence[str]) -> tuple[int, ...]:
    """How many blocks res2 to res5 have, by our names of their arrays."""
    blocks = {tuple(key.split(".")[:2]) for key in keys if re.match(r"res[2-5]\.\d+\.", key)}
    return tuple(sum(stage == f"res{number}" for stage, _ in blocks) for number in (2, 3, 4, 5))


def family_of(keys: Sequence[str]) -> Family:
    """The family of Caffe networks that a network with our names ``keys`` belongs to."""
    if any(key.startswith("conv1a.") for key in keys):
        return "c3d"
    return "p3d" if any(".conv_t." in key for key in keys) else "resnet"


def caffe_slots(shapes: dict[str, Shape], head: str | None = None) -> dict[str, Slot]:
    """Where Caffe keeps each array: its layer and blob.

    Args:
        shapes: of the arrays under our names.
        head: the name of the last inner product; None for the published one of as many classes.

    Example:
        >>> caffe_slots({"res2.0.conv_t.weight": (64, 64, 3, 1), "res2.0.bn_t.running_var": (64,)})
        {'res2.0.conv_t.weight': ('res2a_branch2b_t', 0), 'res2.0.bn_t.running_var': ('bn2a_branch2b_t', 3)}
    """
    keys = list(shapes)
    family, depths = family_of(keys), depths_of(keys)
    head = head or head_name(shapes)
    slots: dict[str, Slot] = {}
    for key in keys:
        module, _, array = key.rpartition(".")
        if array == "num_batches_tracked" or key in ("layout", "mean_volume"):
            continue  # Caffe has no such thing
        if family == "c3d":
            slots[key] = (head if module == "fc8" else _C3D_LAYERS.get(module, module), int(array == "bias"))
        elif module == "fc":
            slots[key] = (head, int(array == "bias"))
        elif module == "stem.conv1":
            slots[key] = ("conv1", 0)
        elif module == "stem.bn_conv1":
            slots[key] = _norm_slot(family, "_conv1", array)
        else:
            stage, number, part = module.split(".")
            name = caffe_block_names(int(stage[3:]), depths)[int(number)]
            branch = f"{name}_{_BRANCHES[part.replace('bn', 'conv', 1)]}"
            slots[key] = (f"res{branch}", 0) if part.startswith("conv") else _norm_slot(family, branch, array)
    return slots


def head_name(shapes: dict[str, Shape]) -> str:
    """The name of the last inner product in the published model of as many classes; else "fc"."""
    family = family_of(list(shapes))
    return "fc8-1" if family == "c3d" else _HEADS.get((family, shapes.get("fc.bias", (0,))[0]), "fc")


def _norm_slot(family: Family, branch: str, array: str) -> Slot:
    if family == "p3d":
        return (f"bn{branch}", _BN_BLOBS[array])
    if array in _BATCHNORM_BLOBS:
        return (f"bn{branch}", _BATCHNORM_BLOBS[array])
    return (f"scale{branch}", int(array == "bias"))


@dataclass(frozen=True)
class CaffeArrays:
    """A Caffe file's arrays under our names.

    Args:
        family: of the network.
        arrays: ours; a blob that has no place among them is there as "layer[blob]", for the strict check to name.
        kinds: the kind (A, B or C) of each P3D block in order, by the file's connections; None when it has none.
        head: the name of the last inner product; None when there is none.
    """

    family: Family
    arrays: Arrays
    kinds: str | None
    head: str | None


def read_caffe(file: CaffeModel) -> CaffeArrays:
    """The arrays of a Caffe file under our names, each read when it is asked for.

    Raises:
        Pseudo3dError: the file is of none of the three families, or its names contradict each other.
    """
    blobs = file.shapes()
    family = _family(file, blobs)
    head = _head(file, blobs, family)
    slots = _c3d_keys(blobs, head) if family == "c3d" else _resnet_keys(file, blobs, family, head)
    entries: dict[str, tuple[Shape, Callable[[], Tensor]]] = {}
    for key, (layer, blob) in slots.items():
        entries[key] = (_our_shape(key, blobs[layer][blob]), functools.partial(_read, file, key, layer, blob))
    arrays = Arrays(entries)
    if family == "resnet":
        arrays = _merged(file, blobs, arrays, slots)
    kinds = _kinds(file, slots) if family == "p3d" else None
    return CaffeArrays(family, arrays, kinds, head)


def _family(file: CaffeModel, blobs: dict[str, tuple[Shape, ...]]) -> Family:
    if "conv1a" in blobs:
        return "c3d"
    if "bn_conv1" in blobs and "conv1" in blobs:
        return "resnet" if "scale_conv1" in blobs else "p3d"
    raise Pseudo3dError(
        f"{file.path}: a Caffe model, but none of P3D ResNet, He et al.'s ResNet and C3D; "
        f"its layers are {first_few(blobs)}"
    )


def _head(file: CaffeModel, blobs: dict[str, tuple[Shape, ...]], family: Family) -> str | None:
    """The name of the last inner product: the one whose name begins with fc (fc8 in C3D)."""
    found = [layer for layer in blobs if layer.startswith("fc8" if family == "c3d" else "fc")]
    if len(found) > 1:
        raise Pseudo3dError(f"{file.path}: has several heads ({', '.join(found)}); keep one")
    return found[0] if found else None


def _c3d_keys(blobs: dict[str, tuple[Shape, ...]], head: str | None) -> dict[str, Slot]:
    modules = {caffe: ours for ours, caffe in _C3D_LAYERS.items()}
    slots = {}
    for layer, shapes in blobs.items():
        module = "fc8" if layer == head else modules.get(layer, layer)
        for blob in range(len(shapes)):
            known = re.fullmatch(r"conv\d[ab]|fc[678]", module) and blob < 2
            slots[f"{module}.{('weight', 'bias')[blob]}" if known else f"{layer}[{blob}]"] = (layer, blob)
    return slots


def _resnet_keys(
    file: CaffeModel, blobs: dict[str, tuple[Shape, ...]], family: Family, head: str | None
) -> dict[str, Slot]:
    """Our key of every blob of a ResNet."""
    slots: dict[str, Slot] = {}
    for layer, shapes in blobs.items():
        for blob in range(len(shapes)):
            key = _resnet_key(layer, blob, family, head) or f"{layer}[{blob}]"
            if key in slots:
                raise Pseudo3dError(f"{file.path}: the layers {slots[key][0]} and {layer} are the same to us ({key})")
            slots[key] = (layer, blob)
    return slots


def _resnet_key(layer: str, blob: int, family: Family, head: str | None) -> str | None:
    """Our key of one blob; None when it has no place."""
    if layer == head:
        return ("fc.weight", "fc.bias")[blob] if blob < 2 else None
    if layer == "conv1":
        return "stem.conv1.weight" if blob == 0 else None
    kind = next((kind for kind in ("res", "bn", "scale") if layer.startswith(kind)), None)
    if kind is None:
        return None
    if layer in ("bn_conv1", "scale_conv1"):
        module = "stem.bn_conv1"
    else:
        match = _BLOCK.fullmatch("res" + layer.removeprefix(kind))
        if match is None:
            return None
        part = next(ours for ours, branch in _BRANCHES.items() if branch == f"branch{match[3]}")
        module = f"res{match[1]}.{_block_number(match[2])}.{part if kind == 'res' else part.replace('conv', 'bn', 1)}"
    if kind == "res":
        return f"{module}.weight" if blob == 0 else None
    blobs = {"bn": _BN_BLOBS if family == "p3d" else _BATCHNORM_BLOBS, "scale": {"weight": 0, "bias": 1}}[kind]
    array = next((array for array, number in blobs.items() if number == blob), None)
    return array and f"{module}.{array}"


def _block_number(name: str) -> int:
    """0 for a; 1, 2, ... for b, c, ... as for b1, b2, ..."""
    return string.ascii_lowercase.index(name) if len(name) == 1 else int(name[1:])


def _our_shape(key: str, shape: Shape) -> Shape:
    """The shape of an array of ours that Caffe keeps as ``shape``: vectors and matrices have ones before them there."""
    if not key.endswith(".weight") or (".bn_" in key):
        return (int(np.prod(shape)),)
    if key.startswith("fc"):
        while len(shape) > 2 and shape[0] == 1:
            shape = shape[1:]
        return shape
    return squeezed(key, shape)


def _read(file: CaffeModel, key: str, layer: str, blob: int) -> Tensor:
    array = file.blob(layer, blob)
    return torch.from_numpy(array.reshape(_our_shape(key, array.shape)))


def _merged(file: CaffeModel, blobs: dict[str, tuple[Shape, ...]], arrays: Arrays, slots: dict[str, Slot]) -> Arrays:
    """He et al.'s BatchNorm: its sums divided by their count; a bias of conv1 (their ResNet-50's) off the mean."""
    used = set()
    for key, (layer, _) in slots.items():
        if not key.endswith((".running_mean", ".running_var")) or len(blobs[layer]) < 3:
            continue
        used.add(f"{layer}[2]")
        third = file.blob(layer, 2).ravel()
        if third.shape != (1,) or not np.isfinite(third[0]):
            raise Pseudo3dError(f"{file.path}: layer {layer}: its third blob is {third[:3]}, not one finite number")
        divisor = float(third[0])
        if divisor != 1:  # Caffe takes 0 for "no statistics": everything is 0 then
            factor = 0.0 if divisor == 0 else 1 / divisor
            arrays = arrays.changed(key, arrays.shapes[key], lambda value, factor=factor: value * factor)  # type: ignore[misc]
    if len(blobs["conv1"]) == 2:
        used.add("conv1[1]")
        bias = torch.from_numpy(file.blob("conv1", 1).ravel())
        mean = "stem.bn_conv1.running_mean"
        if mean not in arrays or tuple(bias.shape) != arrays.shapes[mean]:
            raise Pseudo3dError(f"{file.path}: layer conv1: a bias of {len(bias)} numbers does not fit its batch norm")
        arrays = arrays.changed(mean, arrays.shapes[mean], lambda value: value - bias)
    return arrays.without(used)


def connections(file: CaffeModel) -> dict[str, tuple[str, ...]]:
    """What each layer reads, by layer and by the tops it makes.

    Names are those from before the Split layers that Caffe puts in where a top has several readers.
    """
    origin: dict[str, str] = {}
    reads: dict[str, tuple[str, ...]] = {}
    for layer in file.graph():
        bottoms = tuple(origin.get(bottom, bottom) for bottom in layer.bottoms)
        if layer.type == "Split" and bottoms:
            origin |= dict.fromkeys(layer.tops, bottoms[0])
        reads |= {top: bottoms for top in layer.tops if top not in layer.bottoms}
        reads[layer.name] = bottoms
    return reads


def _kinds(file: CaffeModel, slots: dict[str, Slot]) -> str | None:
    """What the connections say of each block: T after S (A, C) or beside it (B), and whether both are added (B, C).

    None when the file has no connections.

    Raises:
        Pseudo3dError: a block is connected in another way.
    """
    reads = connections(file)
    kinds = {}
    for key, (layer, _) in slots.items():
        if not key.endswith(".conv_t.weight"):
            continue
        stage, number, *_ = key.split(".")
        block = layer.removeprefix("res").removesuffix("_branch2b_t")
        into_t, into_c = reads.get(layer), reads.get(f"res{block}_branch2c")
        if not into_t or not into_c:
            return None
        a, s, t = ({f"{kind}{block}_branch2{part}" for kind in ("res", "bn")} for part in ("a", "b", "b_t"))
        # c reads a layer that reads S and T; a file of learned layers alone lacks it
        added = into_c[0] not in t and (into_c[0] not in reads or len(set(reads[into_c[0]]) & (s | t)) == 2)
        if into_t[0] in s and (added or into_c[0] in t):
            kinds[int(stage[3:]), int(number)] = "C" if added else "A"
        elif into_t[0] in a and added:
            kinds[int(stage[3:]), int(number)] = "B"
        else:
            raise Pseudo3dError(
                f"{file.path}: block {block} is none of A, B and C: {layer} reads {into_t[0]}, "
                f"res{block}_branch2c reads {into_c[0]}"
            )
    return "".join(kinds[place] for place in sorted(kinds))


def caffe_blobs(state: Arrays, head: str | None = None) -> dict[str, tuple[Tensor, ...]]:
    """The arrays under Caffe's layer names, in Caffe's shapes; ``head`` as for ``caffe_slots``.

    Filters outside res5 of a P3D network are (O, I, kt, kh, kw), BN's blobs (1, C); He et al.'s BatchNorm gets its
    third blob, 1.
    """
    five = family_of(list(state)) == "p3d"
    blobs: dict[str, dict[int, Tensor]] = {}
    for key, (layer, blob) in caffe_slots(state.shapes, head).items():
        value = state[key].detach().float()
        if value.ndim == 4 and five and not key.startswith("res5"):
            value = value.unsqueeze(4 if key.endswith("conv_t.weight") else 2)
        if five and ".bn_" in key:
            value = value.unsqueeze(0)
        blobs.setdefault(layer, {})[blob] = value
        if key.endswith(".running_var") and not five:
            blobs[layer][2] = torch.ones(1)
    return {layer: tuple(values[i] for i in sorted(values)) for layer, values in blobs.items()}
