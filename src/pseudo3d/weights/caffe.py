"""Our modules and Caffe's layers: one explicit list of pairs, the same for reading and writing."""

import string

from torch import Tensor, nn

from pseudo3d.models import VideoModel
from pseudo3d.models.blocks import Bottleneck, Stage

_BRANCHES = {"conv_a": "branch2a", "conv_s": "branch2b", "conv_t": "branch2b_t", "conv_c": "branch2c"}
_HEADS = {487: "fc_sports1m", 400: "fc_kinetics"}


def caffe_block_names(stage: int, depth: int) -> list[str]:
    """Caffe's names of the blocks of a stage: res2a, res2b, ... in short stages, res4a, res4b1, ... in long ones.

    Example:
        >>> caffe_block_names(2, 3), caffe_block_names(4, 36)[-1], caffe_block_names(4, 6)[-1]
        (['2a', '2b', '2c'], '4b35', '4f')
    """
    if depth <= 6:
        return [f"{stage}{letter}" for letter in string.ascii_lowercase[:depth]]
    return [f"{stage}a", *(f"{stage}b{i}" for i in range(1, depth))]


def caffe_layers(model: VideoModel) -> dict[str, str]:
    """The Caffe layer of each module of ``model`` that has learned arrays, e.g. res2.0.conv_t -> res2a_branch2b_t."""
    layers = {"stem.conv1": "conv1", "stem.bn_conv1": "bn_conv1"}
    for number in (2, 3, 4, 5):
        stage: Stage = getattr(model, f"res{number}")
        for i, (name, block) in enumerate(zip(caffe_block_names(number, len(stage)), stage, strict=True)):
            assert isinstance(block, Bottleneck)
            branches = {k: v for k, v in _BRANCHES.items() if hasattr(block, k)}
            if block.has_projection:
                branches["conv_shortcut"] = "branch1"
            for conv, branch in branches.items():
                layers[f"res{number}.{i}.{conv}"] = f"res{name}_{branch}"
                layers[f"res{number}.{i}.{conv.replace('conv', 'bn', 1)}"] = f"bn{name}_{branch}"
    layers["fc"] = _HEADS.get(model.fc.out_features, "fc")
    return layers


def caffe_blobs(model: VideoModel) -> dict[str, tuple[Tensor, ...]]:
    """The learned arrays of ``model`` under Caffe's layer names, in Caffe's shapes (views where possible).

    Convolutions outside res5 are (O, I, kt, kh, kw), those of res5 (O, I, kh, kw).
    """
    blobs: dict[str, tuple[Tensor, ...]] = {}
    for path, layer in caffe_layers(model).items():
        module = model.get_submodule(path)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            blobs[layer] = (module.weight, module.bias, module.running_mean, module.running_var)
        elif isinstance(module, nn.Linear):
            blobs[layer] = (module.weight, module.bias)
        else:
            assert isinstance(module, nn.Conv2d)
            weight = module.weight
            if path.endswith("conv_t"):
                weight = weight.unsqueeze(4)  # (O, I, 3, 1) -> (O, I, 3, 1, 1)
            elif not path.startswith("res5"):
                weight = weight.unsqueeze(2)  # (O, I, kh, kw) -> (O, I, 1, kh, kw)
            blobs[layer] = (weight,)
    return blobs
