"""What a network costs: parameters and arithmetic, counted and not estimated."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pseudo3d.models import create_model


@dataclass(frozen=True)
class PublishedSize:
    """A network's size as it was published.

    Args:
        megabytes: the figure; whether 10^6 or 2^20 bytes, its source does not say.
        num_classes: of the network that it was given for.
        source: where it stands.
    """

    megabytes: int
    num_classes: int
    source: str


PUBLISHED_SIZES = {
    "resnet50": PublishedSize(92, 101, "P3D paper, Table 1"),
    "p3d_resnet50": PublishedSize(98, 101, "P3D paper, Table 1"),
    "resnet152": PublishedSize(235, 1000, "P3D paper, section 1"),  # whose classes it does not say; ImageNet's here
    "c3d": PublishedSize(321, 487, "P3D paper, section 1"),
}


@dataclass(frozen=True)
class Cost:
    """Counts for one network.

    Args:
        parameters: learned numbers (running statistics are not among them).
        flops: floating-point operations for one clip, a multiply-add counted as 2.
        clip: (T, H, W) of that clip.
    """

    parameters: int
    flops: int
    clip: tuple[int, int, int]

    @property
    def megabytes(self) -> float:
        """Size as float32 in MB, 10^6 bytes."""
        return self.parameters * 4 / 1e6

    @property
    def mebibytes(self) -> float:
        """Size as float32 in MiB, 2^20 bytes."""
        return self.parameters * 4 / 2**20

    def compared(self, published: PublishedSize) -> str:
        """Whether the count, rounded, gives the published figure in one of the two units.

        Example:
            >>> Cost(25_132_581, 0, (16, 160, 160)).compared(PUBLISHED_SIZES["p3d_resnet50"])
            'not equal'
        """
        units = {"equal in MB": self.megabytes, "equal in MiB": self.mebibytes}
        return next((words for words, size in units.items() if round(size) == published.megabytes), "not equal")


def count_parameters(model: nn.Module) -> int:
    """Number of learned numbers."""
    return sum(p.numel() for p in model.parameters())


def model_cost(name: str, *, num_classes: int | None = None) -> Cost:
    """Parameters and arithmetic of a network on a clip of its own preprocessing; nothing is computed.

    Example:
        >>> cost = model_cost("p3d_resnet50", num_classes=101)
        >>> cost.parameters, round(cost.flops / 1e9, 1), cost.clip
        (25132581, 16.9, (16, 160, 160))
    """
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes).eval()
        shape = (model.preprocessing.num_frames, *model.preprocessing.crop)
        clips = torch.zeros(1, model.architecture.in_channels, *shape)
    with FlopCounterMode(display=False) as counter:
        model(clips)
    return Cost(count_parameters(model), counter.get_total_flops(), shape)
