"""The network of a run: its head for the data's classes, its frames with room for crops."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.inference import check_takes_rgb
from pseudo3d.models import VideoModel, create_model
from pseudo3d.models.c3d import C3D
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.training.config import DEFAULT_MODEL, TrainConfig
from pseudo3d.weights import load_model
from pseudo3d.weights.sources import Weights, open_weights


def build_model(config: TrainConfig, class_names: Sequence[str]) -> VideoModel:
    """The network that the config describes, with its head for these classes.

    Raises:
        Pseudo3dError: no such network, weights that do not fit, frozen batch norms without trained weights, or a size
            that the network does not take.
    """
    if config.weights == "random":
        if config.freeze_bn:
            raise Pseudo3dError(
                f"recipe {config.recipe} keeps the batch norms of trained weights: give them with --weights, "
                "or use --no-freeze-bn"
            )
        model = create_model(
            config.model or DEFAULT_MODEL,
            num_classes=len(class_names),
            blocks=config.blocks or "ABC",
            style=config.style or "caffe",
            dropout=config.dropout,
        )
    else:
        name = config.model or "p3d"
        source: str | Weights = config.weights
        if config.head == "auto":
            source = open_weights(config.weights, model=name)
            _check_classes(source, class_names)
        model = load_model(
            name,
            source,
            num_classes=len(class_names),
            blocks=config.blocks,
            style=config.style,
            dropout=config.dropout,
            head=config.head,
            temporal_init=config.temporal_init,
        )
        check_takes_rgb(config.weights, model.architecture.in_channels)
    if config.head_std is not None and (config.weights == "random" or config.head == "new"):
        head = model.get_submodule(model.head_name)
        assert isinstance(head, nn.Linear)
        nn.init.normal_(head.weight, std=config.head_std)
    model.preprocessing = _sized(model, config)
    model.class_names = tuple(class_names)
    return model


def _check_classes(weights: Weights, class_names: Sequence[str]) -> None:
    """Refuse to go on with a head that is of other classes than the data, and say which differ."""
    if weights.looks is None:
        return  # who loads them says that they are of no network
    theirs, count = weights.class_names, weights.looks.num_classes
    if count is None:
        raise Pseudo3dError(f"{weights.name}: has no head that --head auto could keep; use --head new")
    if theirs is None and count != len(class_names):
        found = f"its head has {count} classes and the data {len(class_names)}"
    elif theirs is None or theirs == tuple(class_names):
        return
    elif differing := _only_in(theirs, class_names):
        found = f"the classes of its head are not the data's: {differing}"
    else:
        places = [place for place, pair in enumerate(zip(theirs, class_names, strict=True)) if pair[0] != pair[1]]
        found = (
            f"the classes of its head are the data's in another order: number {places[0]} is {theirs[places[0]]!r} "
            f"there and {class_names[places[0]]!r} in the data"
        )
    raise Pseudo3dError(f"{weights.name}: {found}; use --head new for a new head, or data of the same classes")


def _only_in(theirs: Sequence[str], ours: Sequence[str]) -> str:
    """What one of two lists has and the other lacks, in words; nothing when they have the same."""
    sides = (("the weights", [name for name in theirs if name not in set(ours)]),
             ("the data", [name for name in ours if name not in set(theirs)]))  # fmt: skip
    return " and ".join(f"only {where} have {first_few(map(repr, names))}" for where, names in sides if names)


def _sized(model: VideoModel, config: TrainConfig) -> Preprocessing:
    """The model's preprocessing with the frames and crops that the config asks for."""
    p = model.preprocessing
    if isinstance(model, C3D):  # its first fully connected layer and its mean volume are of one size
        if (config.size or p.crop[0], config.resize or p.resize) != (p.crop[0], p.resize):
            raise Pseudo3dError(
                f"{model.architecture.name} takes crops of {p.crop[0]}x{p.crop[1]} out of frames resized to "
                f"{'x'.join(map(str, model.mean_volume.shape[2:]))} only; leave out --size and --resize"
            )
        return p
    return with_margin(p if config.size is None else _scaled(p, config.size), config.resize)


def with_margin(preprocessing: Preprocessing, resize: tuple[int, int] | None) -> Preprocessing:
    """The same crop out of frames resized to (height, width), in training and in testing.

    Without ``resize``, 182x242 for crops of 160x160 and the same margin around others (paper section 3.3), unless the
    network says it itself, as the frame baseline does with 240x320.

    Raises:
        Pseudo3dError: the crop is below 32 pixels or does not fit into the frames.

    Example:
        >>> p = Preprocessing()
        >>> with_margin(p, None).resize, with_margin(p.with_size(80), None).resize, with_margin(p, (170, 226)).resize
        ((182, 242), (91, 121), (170, 226))
    """
    height, width = preprocessing.crop
    if min(height, width) < 32:
        raise Pseudo3dError(f"the weights are for frames of {height}x{width}; give a --size of at least 32")
    if resize is None and (isinstance(preprocessing.resize, int) or preprocessing.resize == preprocessing.crop):
        resize = round(height * 182 / 160), round(width * 242 / 160)
    if resize is not None and (resize[0] < height or resize[1] < width):
        raise Pseudo3dError(
            f"--resize {resize[0]} {resize[1]} leaves no room for crops of {height}x{width}; "
            "make it at least as large, or choose a smaller --size"
        )
    return preprocessing if resize is None else replace(preprocessing, resize=resize)


def _scaled(preprocessing: Preprocessing, size: int) -> Preprocessing:
    """Crops of size x size, with the network's own margin around them where it has one."""
    resize = preprocessing.resize
    if isinstance(resize, int) or resize == preprocessing.crop:
        return preprocessing.with_size(size)
    height, width = (round(edge * size / own) for edge, own in zip(resize, preprocessing.crop, strict=True))
    return replace(preprocessing, resize=(height, width), crop=(size, size))
