"""A network rewritten for inference, exactly: batch norms folded, the layers after pool5 row by row."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pseudo3d.models import VideoModel
from pseudo3d.models.blocks import Bottleneck, Stem
from pseudo3d.models.interface import filters_to_channels_last

_CONV_BN: dict[type[nn.Module], dict[str, str]] = {
    Stem: {"conv1": "bn_conv1"},
    Bottleneck: {f"conv_{part}": f"bn_{part}" for part in ("a", "s", "t", "c", "shortcut")},
}


def fold_batch_norms(model: VideoModel) -> VideoModel:
    """A copy for inference: every batch norm (C3D has none) folded into its convolution, weights channels-last.

    Exact up to rounding, since a batch norm in evaluation mode is a constant scale and shift.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        for conv, bn in _CONV_BN.get(type(module), {}).items():
            if hasattr(module, conv):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, bn)))
                setattr(module, bn, nn.Identity())
    filters_to_channels_last(model)
    return model


class _RowByRow(nn.Module):
    """A fully connected layer that computes every row in a call of its own."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.linear(row) for row in x.split(1)])


def rows_one_by_one(model: VideoModel) -> None:
    """Make the fully connected layers compute each clip by itself (in place).

    The products of matrices that processors' libraries offer treat the last rows of a batch in other ways than the
    first, and their sums differ in the last bits (seen with MKL in batches of 5 and 7): a clip's scores would depend on
    its place in the batch. Of oneDNN's convolutions they do not (``tests/inference/test_engines.py``).
    """
    for name in model.full_precision_parts:
        layer = model.get_submodule(name)
        if isinstance(layer, nn.Linear):  # or it has been done
            model.set_submodule(name, _RowByRow(layer))


def is_finite(model: VideoModel) -> bool:
    """Whether every number of a network is; a folded one also says whether scale and filters together still are."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())
