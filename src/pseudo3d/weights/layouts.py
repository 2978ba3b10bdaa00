"""Other projects' names of a ResNet's arrays, one explicit map for each, to ours.

    torchvision, timm   conv1, bn1, layer1.0.conv1 .. conv3, bn1 .. bn3, downsample.0/1, fc
    Hugging Face        resnet.embedder.embedder.{convolution, normalization}, resnet.encoder.stages.0.layers.0.layer.0
                        .. 2, shortcut, classifier.1
    the PyTorch port    conv1_custom, bn1, layer1.0.conv1 .. conv4 (a, S, T, c), bn1 .. bn4, conv_normal and bn_normal
    of P3D              (the 3x3 of res5), downsample.0/1, fc; 5-D filters outside layer4

A name that is on no map stays as it is, so that the strict check of ``load_weights`` names it.
"""

import re
from collections.abc import Mapping

from pseudo3d.weights.arrays import Arrays, Shape

_STEM_TORCHVISION = {"conv1": "stem.conv1", "bn1": "stem.bn_conv1", "fc": "fc"}
_BLOCK_TORCHVISION = {
    "conv1": "conv_a",
    "bn1": "bn_a",
    "conv2": "conv_s",
    "bn2": "bn_s",
    "conv3": "conv_c",
    "bn3": "bn_c",
    "downsample.0": "conv_shortcut",
    "downsample.1": "bn_shortcut",
}
_STEM_PORT = {"conv1_custom": "stem.conv1", "bn1": "stem.bn_conv1", "fc": "fc"}
_BLOCK_PORT = {
    "conv1": "conv_a",
    "bn1": "bn_a",
    "conv2": "conv_s",
    "bn2": "bn_s",
    "conv3": "conv_t",
    "bn3": "bn_t",
    "conv4": "conv_c",
    "bn4": "bn_c",
    "conv_normal": "conv_s",
    "bn_normal": "bn_s",
    "downsample.0": "conv_shortcut",
    "downsample.1": "bn_shortcut",
}
_STEM_HUGGINGFACE = {
    "embedder.embedder.convolution": "stem.conv1",
    "embedder.embedder.normalization": "stem.bn_conv1",
    "classifier.1": "fc",
}
_BLOCK_HUGGINGFACE = {
    "layer.0.convolution": "conv_a",
    "layer.0.normalization": "bn_a",
    "layer.1.convolution": "conv_s",
    "layer.1.normalization": "bn_s",
    "layer.2.convolution": "conv_c",
    "layer.2.normalization": "bn_c",
    "shortcut.convolution": "conv_shortcut",
    "shortcut.normalization": "bn_shortcut",
}
_LAYER = re.compile(r"layer([1-4])\.(\d+)\.(.+)")
_STAGE = re.compile(r"encoder\.stages\.([0-3])\.layers\.(\d+)\.(.+)")


def layout_of(keys: Mapping[str, object]) -> str | None:
    """Whose names these are: "torchvision", "huggingface" or "port"; None when they are of none of these."""
    if "conv1_custom.weight" in keys:
        return "port"
    if "conv1.weight" in keys and "layer1.0.conv1.weight" in keys:
        return "torchvision"
    if any(key.removeprefix("resnet.") == "embedder.embedder.convolution.weight" for key in keys):
        return "huggingface"
    return None


def rename(key: str, layout: str) -> str:
    """Our name of an array.

    Example:
        >>> rename("layer1.0.downsample.1.running_var", "torchvision"), rename("layer4.0.conv_normal.weight", "port")
        ('res2.0.bn_shortcut.running_var', 'res5.0.conv_s.weight')
        >>> rename("resnet.encoder.stages.0.layers.2.layer.1.convolution.weight", "huggingface")
        'res2.2.conv_s.weight'
    """
    module, _, array = key.rpartition(".")
    if layout == "huggingface":
        module = module.removeprefix("resnet.")
        stem, blocks, pattern, first = _STEM_HUGGINGFACE, _BLOCK_HUGGINGFACE, _STAGE, 0
    elif layout == "port":
        stem, blocks, pattern, first = _STEM_PORT, _BLOCK_PORT, _LAYER, 1
    else:
        stem, blocks, pattern, first = _STEM_TORCHVISION, _BLOCK_TORCHVISION, _LAYER, 1
    if module in stem:
        return f"{stem[module]}.{array}"
    match = pattern.fullmatch(module)
    if match and match[3] in blocks:
        return f"res{int(match[1]) - first + 2}.{match[2]}.{blocks[match[3]]}.{array}"
    return key


def to_our_names(arrays: Arrays, layout: str) -> Arrays:
    """The arrays under our names; the port's 5-D filters in our 4-D shapes."""
    arrays = arrays.renamed(lambda key: rename(key, layout))
    for key, shape in arrays.shapes.items():
        flat = squeezed(key, shape)
        if flat != shape:
            arrays = arrays.reshaped(key, flat)
    return arrays


def squeezed(key: str, shape: Shape) -> Shape:
    """The 4-D shape of a 5-D filter with one window of extent 1 in time (or, for T, in width); others as they are.

    Example:
        >>> squeezed("res2.0.conv_s.weight", (64, 64, 1, 3, 3)), squeezed("res2.0.conv_t.weight", (64, 64, 3, 1, 1))
        ((64, 64, 3, 3), (64, 64, 3, 1))
    """
    axis = 4 if key.endswith("conv_t.weight") else 2
    if len(shape) == 5 and shape[axis] == 1:
        return shape[:axis] + shape[axis + 1 :]
    return shape
