"""Which network a set of arrays belongs to, by their names and shapes alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from pseudo3d.models import DEPTHS
from pseudo3d.models.c3d import SMALL_KERNELS
from pseudo3d.weights.arrays import Shape
from pseudo3d.weights.caffe import depths_of, family_of


@dataclass(frozen=True)
class Looks:
    """What arrays under our names look like.

    Args:
        name: the network they fit, as ``create_model`` knows it; None when it is none of ours.
        num_classes: outputs of the head; None without one.
        in_channels: channels of the first convolution.
        what: in words, for messages.
    """

    name: str | None
    num_classes: int | None
    in_channels: int
    what: str

    def __str__(self) -> str:
        classes = "no head" if self.num_classes is None else f"{self.num_classes} classes"
        return f"{self.what} ({classes}, {self.in_channels} input channels)"


def identify(shapes: Mapping[str, Shape]) -> Looks | None:
    """The network that arrays of these shapes, under our names, belong to; None when they are of no kind known here.

    Example:
        >>> import pseudo3d
        >>> model = pseudo3d.create_model("p3d_resnet14", num_classes=5)
        >>> print(identify({key: tuple(value.shape) for key, value in model.state_dict().items()}))
        p3d_resnet14 (5 classes, 3 input channels)
    """
    if family_of(list(shapes)) == "c3d":
        first = shapes.get("conv1a.weight", (64, 3))
        c3d = _c3d_name(shapes)
        return Looks(c3d, _length(shapes, "fc8.bias"), first[1] if len(first) > 1 else 0, c3d)
    depths = depths_of(list(shapes))
    first = shapes.get("stem.conv1.weight", ())
    if len(first) < 2 or min(depths) == 0:
        return None
    has_time = any(".conv_t." in key for key in shapes)
    found = [layers for layers, each in DEPTHS.items() if each == depths]
    basic = shapes.get("res2.0.conv_a.weight", ())[2:] == (3, 3)  # the first convolution of ResNet-18 and 34
    if basic or not found:
        blocks = "basic blocks" if basic else "bottlenecks"
        kind = "P3D ResNet" if has_time else "ResNet"
        name, what = (
            None,
            f"a {kind} of {blocks} with depths {'-'.join(map(str, depths))}, which is not among the models",
        )
    else:
        name = what = f"{'p3d_' if has_time else ''}resnet{found[0]}"
    return Looks(name, _length(shapes, "fc.bias"), first[1], what)


def _c3d_name(shapes: Mapping[str, Shape]) -> str:
    """One of the smaller networks, which have no second convolution in a stage and kernels of their own; else c3d."""
    stages = [shapes.get(f"conv{number}a.weight", ()) for number in range(1, 6)]
    kernels = tuple(shape[2] if len(shape) == 5 else 0 for shape in stages)
    if any(key.startswith(("conv3b.", "conv4b.", "conv5b.")) for key in shapes):
        return "c3d"
    return next((name for name, each in SMALL_KERNELS.items() if each == kernels), "c3d")


def _length(shapes: Mapping[str, Shape], key: str) -> int | None:
    return shapes[key][0] if shapes.get(key) else None
