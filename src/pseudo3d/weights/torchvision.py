"""2-D ResNet weights in torchvision's key layout, under our names."""

from collections.abc import Mapping

from torch import Tensor

_IN_BLOCK = {
    "conv1": "conv_a",
    "bn1": "bn_a",
    "conv2": "conv_s",
    "bn2": "bn_s",
    "conv3": "conv_c",
    "bn3": "bn_c",
    "downsample.0": "conv_shortcut",
    "downsample.1": "bn_shortcut",
}
_STEM = {"conv1": "stem.conv1", "bn1": "stem.bn_conv1", "fc": "fc"}


def is_torchvision(state: Mapping[str, Tensor]) -> bool:
    """Whether the keys are those of torchvision's ResNet classes."""
    return "conv1.weight" in state and "layer1.0.conv1.weight" in state


def _rename(key: str) -> str:
    module, _, array = key.rpartition(".")
    if module in _STEM:
        return f"{_STEM[module]}.{array}"
    layer, _, rest = module.partition(".")
    block, _, part = rest.partition(".")
    if layer in ("layer1", "layer2", "layer3", "layer4") and block.isdigit() and part in _IN_BLOCK:
        return f"res{int(layer[-1]) + 1}.{block}.{_IN_BLOCK[part]}.{array}"
    return key  # left as it is, so that the strict check names it


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same arrays under our names; a key that is not torchvision's keeps its name.

    Example:
        >>> import torch
        >>> list(from_torchvision({"layer1.0.downsample.1.running_var": torch.ones(1), "fc.bias": torch.ones(1)}))
        ['res2.0.bn_shortcut.running_var', 'fc.bias']
    """
    return {_rename(key): value for key, value in state.items()}
