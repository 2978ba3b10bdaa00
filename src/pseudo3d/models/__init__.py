"""The networks by name: ``MODELS`` is the whole list, ``create_model`` builds one with random weights."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from pseudo3d.choices import Style
from pseudo3d.errors import Pseudo3dError
from pseudo3d.models.c3d import (
    C3D,
    CLIP,
    CONVOLUTIONS,
    FRAME,
    MEAN_BGR,
    SMALL_CONVOLUTIONS,
    SMALL_KERNELS,
    Convolutions,
)
from pseudo3d.models.resnet import VideoResNet
from pseudo3d.preprocessing import IMAGENET_STD_RGB, Preprocessing, imagenet_preprocessing

# What ``create_model`` gives. Every kind has ``architecture``, ``class_names``, ``preprocessing``, ``mean_volume`` (or
# None), ``layers`` and ``forward_features``, and says which of its modules is the head (``head_name``) and which stay
# float32 when the others run in less (``full_precision_parts``).
VideoModel = VideoResNet | C3D


@dataclass(frozen=True)
class Architecture:
    """The arguments that ``create_model`` needs to build the same network again; saved in config.json."""

    name: str
    num_classes: int
    blocks: str
    in_channels: int
    style: Style
    dropout: float


def _preprocessing(style: Style, in_channels: int, preprocessing: Preprocessing) -> Preprocessing:
    """The same geometry in the numbers that weights of this style were trained with."""
    if in_channels != 3:
        # Flow and other grey levels. caffe: mean 128, as the release's flow network. The others expect numbers
        # of deviation 1; the port's flow network subtracts 0.5 and divides by the mean of ImageNet's deviations.
        mean, std = (128.0, 1.0) if style == "caffe" else (0.5, sum(IMAGENET_STD_RGB) / 3)
        return replace(
            preprocessing,
            mean=(mean,) * in_channels,
            std=(std,) * in_channels,
            channel_order="RGB",
            value_range=(0.0, 255.0) if style == "caffe" else (0.0, 1.0),
        )
    if style == "caffe":
        return preprocessing
    return imagenet_preprocessing(preprocessing)


def _build(
    depths: tuple[int, int, int, int], blocks: str | None, preprocessing: Preprocessing, arch: Architecture
) -> VideoResNet:
    return VideoResNet(
        depths,
        arch.num_classes,
        blocks=blocks,
        in_channels=arch.in_channels,
        style=arch.style,
        dropout=arch.dropout,
        preprocessing=_preprocessing(arch.style, arch.in_channels, preprocessing),
    )


def _p3d(depths: tuple[int, int, int, int], arch: Architecture) -> VideoResNet:
    # The authors' feature extraction: short edge to 162, crop 160 (their repository's issue 7); the port's: 256.
    resize = 256 if arch.style == "port" else 162
    return _build(depths, arch.blocks, Preprocessing(num_frames=16, resize=resize, crop=(160, 160)), arch)


def _frames(depths: tuple[int, int, int, int], arch: Architecture) -> VideoResNet:
    _check_no_blocks(arch)
    if arch.style == "port":
        raise Pseudo3dError(f"{arch.name}: style 'port' is of P3D networks; use 'caffe' or 'torchvision'")
    # 224x224 of 240x320 frames (paper 3.3)
    return _build(depths, None, Preprocessing(num_frames=1, resize=(240, 320), crop=(224, 224)), arch)


def _c3d(convolutions: Convolutions, kernels: tuple[int, ...], hidden: int, arch: Architecture) -> C3D:
    _check_no_blocks(arch)
    if arch.style != "caffe":
        raise Pseudo3dError(f"{arch.name}: style {arch.style!r} is of ResNets; leave it out, or use 'caffe'")
    return C3D(
        arch.num_classes,
        in_channels=arch.in_channels,
        dropout=arch.dropout,
        preprocessing=c3d_preprocessing(arch.in_channels),
        convolutions=convolutions,
        kernels=kernels,
        hidden=hidden,
    )


def c3d_preprocessing(in_channels: int) -> Preprocessing:
    """What the C3D release expects of its clips, with the channel means of its mean volume.

    Example:
        >>> c3d_preprocessing(3).mean, c3d_preprocessing(2).mean
        ((90.25, 97.66, 101.41), (128.0, 128.0))
    """
    preprocessing = Preprocessing(num_frames=CLIP[0], resize=FRAME, crop=CLIP[1:], mean=MEAN_BGR)
    return _preprocessing("caffe", in_channels, preprocessing)


def _check_no_blocks(arch: Architecture) -> None:
    if arch.blocks != "ABC":
        raise Pseudo3dError(f"{arch.name} has no P3D blocks to choose; leave out blocks={arch.blocks!r}")


@dataclass(frozen=True)
class ModelEntry:
    """One line of ``MODELS``: how a network is built, and the head it has unless told otherwise.

    Args:
        build: from an ``Architecture`` to the network.
        num_classes: 487 for Sports-1M, 1000 for ImageNet, 101 for UCF101.
        dropout: before the head: 0.1 on Sports-1M (paper 4), none in the 2-D ResNet, 0.5 in C3D (after fc6 too).
    """

    build: Callable[[Architecture], VideoModel]
    num_classes: int
    dropout: float


DEPTHS = {14: (1, 1, 1, 1), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # blocks of res2 to res5

MODELS: dict[str, ModelEntry] = {
    "p3d_resnet14": ModelEntry(partial(_p3d, DEPTHS[14]), 487, 0.1),
    "p3d_resnet50": ModelEntry(partial(_p3d, DEPTHS[50]), 487, 0.1),
    "p3d_resnet101": ModelEntry(partial(_p3d, DEPTHS[101]), 487, 0.1),
    "p3d_resnet152": ModelEntry(partial(_p3d, DEPTHS[152]), 487, 0.1),
    "resnet14": ModelEntry(partial(_frames, DEPTHS[14]), 1000, 0.0),
    "resnet50": ModelEntry(partial(_frames, DEPTHS[50]), 1000, 0.0),
    "resnet101": ModelEntry(partial(_frames, DEPTHS[101]), 1000, 0.0),
    "resnet152": ModelEntry(partial(_frames, DEPTHS[152]), 1000, 0.0),
    "c3d": ModelEntry(partial(_c3d, CONVOLUTIONS, (3,) * 8, 4096), 487, 0.5),
    **{
        name: ModelEntry(partial(_c3d, SMALL_CONVOLUTIONS, kernels, 2048), 101, 0.5)
        for name, kernels in SMALL_KERNELS.items()
    },
}


def list_models() -> list[str]:
    """The names that ``create_model`` takes."""
    return list(MODELS)


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    blocks: str = "ABC",
    in_channels: int = 3,
    style: Style = "caffe",
    dropout: float | None = None,
) -> VideoModel:
    """A network with random weights, in training mode.

    Args:
        name: one of ``list_models()``; p3d_resnet14 and resnet14 are for tests and the demo. c3d is Tran et al.'s,
            c3d_small_* the smaller networks of their comparison of kernels.
        num_classes: outputs of the head; None for the published one (487, 1000 for the frame networks, 101 for
            c3d_small_*).
        blocks: of P3D, any string over A, B and C, cycled over the whole network by one counter.
        in_channels: 3, or 2 for flow.
        style: "caffe" is the authors' network; "torchvision" the one that torchvision's and timm's ResNet weights
            fit: pool1 padded by 1, the stage's stride on the 3x3 convolution; "port" what the well-known PyTorch port
            of P3D computes, for weights that were trained with it: pool1 padded by 1, a ReLU on T, no 0.5 in C.
            c3d has "caffe" only, the frame networks have no "port".
        dropout: rate before the head, in c3d after fc6 and after fc7; None for the published one.

    Raises:
        Pseudo3dError: an unknown name (the nearest is named), block, style or a count below 1; blocks or a style for
            a network that has none to choose.

    Example:
        >>> model = create_model("p3d_resnet50", num_classes=101)
        >>> sum(p.numel() for p in model.parameters())
        25132581
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.0)[0]
        raise Pseudo3dError(f"no model {name!r}; did you mean {near!r}? There are {', '.join(MODELS)}")
    if not blocks or set(blocks) - set("ABC"):
        raise Pseudo3dError(f"blocks must be a string over A, B and C such as 'ABC', got {blocks!r}")
    if style not in ("caffe", "torchvision", "port"):
        raise Pseudo3dError(f"style must be 'caffe', 'torchvision' or 'port', got {style!r}")
    entry = MODELS[name]
    num_classes = entry.num_classes if num_classes is None else num_classes
    dropout = entry.dropout if dropout is None else dropout
    if num_classes < 1 or in_channels < 1 or not 0 <= dropout < 1:
        raise Pseudo3dError(
            f"num_classes and in_channels must be at least 1 and dropout in [0, 1), "
            f"got {num_classes}, {in_channels} and {dropout}"
        )
    architecture = Architecture(name, num_classes, blocks, in_channels, style, dropout)
    model = entry.build(architecture)
    model.architecture = architecture
    return model
