"""What a network expects of its clips. Plain data that travels with the weights, so that nobody has to guess it."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from pseudo3d.errors import Pseudo3dError

CAFFE_MEAN_BGR = (104.0, 117.0, 123.0)  # per channel, of values 0..255 (the release's network definition)
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)  # of values 0..1 (torchvision's and timm's ResNets)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How uint8 RGB frames become a network's input: resize, crop, channel order, range, mean, deviation.

    Args:
        num_frames: frames in one clip (16 for P3D, 1 for a frame network).
        resize: the short edge in pixels (aspect kept), or (height, width) (aspect ignored).
        crop: (height, width) of the window the network sees, at the centre when testing.
        mean: subtracted from each channel, in ``channel_order`` and after mapping to ``value_range``.
        std: each channel is divided by it afterwards.
        channel_order: "RGB" or "BGR".
        value_range: what the grey levels 0 and 255 are mapped to: (0, 255) or (0, 1).
        interpolation: of the resizing, one of FFmpeg's scalers: "bilinear", "bicubic", "area", "fast_bilinear".

    Raises:
        Pseudo3dError: a field has a value outside these.

    Example:
        >>> p = Preprocessing(num_frames=16, resize=162, crop=(160, 160))
        >>> p.channel_order, p.mean
        ('BGR', (104.0, 117.0, 123.0))
        >>> Preprocessing.from_dict(p.to_dict()) == p
        True
    """

    num_frames: int = 16
    resize: int | tuple[int, int] = 162
    crop: tuple[int, int] = (160, 160)
    mean: tuple[float, ...] = CAFFE_MEAN_BGR
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channel_order: Literal["RGB", "BGR"] = "BGR"
    value_range: tuple[float, float] = (0.0, 255.0)
    interpolation: Literal["bilinear", "bicubic", "area", "fast_bilinear"] = "bilinear"

    def __post_init__(self) -> None:
        edges = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
        if len(edges) != 2 or len(self.crop) != 2 or min(self.num_frames, *self.crop, *edges) < 1:
            raise Pseudo3dError(
                f"num_frames must be positive, crop (height, width) and resize such a pair or one number, "
                f"got {self.num_frames}, {self.crop} and {self.resize}"
            )
        if self.crop[0] > edges[0] or self.crop[1] > edges[1]:
            raise Pseudo3dError(f"the crop {self.crop} does not fit into frames resized to {self.resize}")
        if self.channel_order not in ("RGB", "BGR"):
            raise Pseudo3dError(f"channel_order must be 'RGB' or 'BGR', got {self.channel_order!r}")
        if self.interpolation not in ("bilinear", "bicubic", "area", "fast_bilinear"):
            raise Pseudo3dError(
                f"interpolation must be bilinear, bicubic, area or fast_bilinear, got {self.interpolation!r}"
            )
        if len(self.value_range) != 2 or not self.value_range[0] < self.value_range[1]:
            raise Pseudo3dError(f"value_range must be (low, high) with low below high, got {self.value_range}")
        if len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise Pseudo3dError(f"mean and std need one number a channel, std above 0, got {self.mean}, {self.std}")

    def with_size(self, size: int) -> "Preprocessing":
        """The same with frames resized to ``size`` x ``size`` and no margin to crop (small networks, tests)."""
        return replace(self, resize=(size, size), crop=(size, size))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, for config.json."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of ``to_dict``; an unknown field raises, naming it."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise Pseudo3dError(
                f"preprocessing has unknown fields {sorted(unknown)}: was it written by a newer pseudo3d?"
            )
        typed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**typed)


def imagenet_preprocessing(preprocessing: Preprocessing) -> Preprocessing:
    """The same geometry in the numbers that torchvision's and timm's ImageNet networks expect: RGB, 0..1, standardised.

    Example:
        >>> imagenet_preprocessing(Preprocessing()).std
        (0.229, 0.224, 0.225)
    """
    return replace(
        preprocessing, mean=IMAGENET_MEAN_RGB, std=IMAGENET_STD_RGB, channel_order="RGB", value_range=(0.0, 1.0)
    )
