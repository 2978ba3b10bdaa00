"""A network made ready to run: device, precision, folded batch norms, batches of one shape.

    uint8 frames (N, T, H, W, 3)  --to_input-->  float clips (N, C, T, H, W)  --network-->  layers

``to_input`` is the only place where grey levels become network input; training uses it too.
"""

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pseudo3d.errors import Pseudo3dError
from pseudo3d.models import VideoModel
from pseudo3d.models.blocks import Bottleneck, Stem
from pseudo3d.models.interface import filters_to_channels_last
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.transforms import Window, center_window

Key = TypeVar("Key")

_CONV_BN: dict[type[nn.Module], dict[str, str]] = {
    Stem: {"conv1": "bn_conv1"},
    Bottleneck: {f"conv_{part}": f"bn_{part}" for part in ("a", "s", "t", "c", "shortcut")},
}

DType = Literal["auto", "float32", "bfloat16"]


def choose_device(name: str = "auto") -> torch.device:
    """The device that ``name`` stands for; "auto" takes CUDA, then MPS, then the processor.

    Raises:
        Pseudo3dError: the device is unknown or not there.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")  # as useless to us as the devices that torch knows and we do not
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if device.type not in present:
        raise Pseudo3dError(f"no device {name!r}; use auto, cpu, cuda, cuda:1, ... or mps")
    if (device.index or 0) >= present[device.type]:
        raise Pseudo3dError(f"device {name!r} is not available on this machine; use --device auto or cpu")
    return device


def bfloat16_is_native(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware (AVX-512 BF16 or AMX on a processor)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def choose_dtype(name: DType, device: torch.device) -> torch.dtype:
    """The precision of the convolutions; "auto" is bfloat16 where it is native, else float32.

    Raises:
        Pseudo3dError: an unknown name.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise Pseudo3dError(f"no dtype {name!r}; use auto, float32 or bfloat16")
    if name == "auto":
        return torch.bfloat16 if bfloat16_is_native(device) else torch.float32
    return torch.float32 if name == "float32" else torch.bfloat16


def forbid_tf32() -> None:
    """Make float32 mean float32 on NVIDIA GPUs, for the whole process.

    By default cuDNN rounds the factors of a float32 convolution to 10 bits (TF32), which moves features by more than
    the 1e-4 that float32 promises here.
    """
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]


def check_takes_rgb(name: str, in_channels: int) -> None:
    """Raise for a network of other input channels than the three that videos have.

    Example:
        >>> check_takes_rgb("p3d_resnet50", 2)
        Traceback (most recent call last):
        pseudo3d.errors.Pseudo3dError: p3d_resnet50: this network takes 2 channels (optical flow, for example), videos
        give 3; use weights of an RGB network
    """
    if in_channels != 3:
        raise Pseudo3dError(
            f"{name}: this network takes {in_channels} channels (optical flow, for example), videos give 3; "
            "use weights of an RGB network"
        )


def to_input(
    frames: UInt8[Tensor, "N T H W 3"],
    preprocessing: Preprocessing,
    mean_volume: Float[Tensor, "3 T _H _W"] | None = None,
    windows: Sequence[Window] | None = None,
) -> Float[Tensor, "N 3 T H W"]:
    """Grey levels as the network expects them: channel order, range, mean, deviation.

    Args:
        frames: RGB, 0..255, cropped.
        preprocessing: of the network; its resizing and cropping have been done.
        mean_volume: of the network, if it has one: the mean of each place of the resized frames, instead of
            ``preprocessing.mean``. What is subtracted from a clip is the part where it was cut out, mirrored if it
            is, as in Caffe, which subtracts before both.
        windows: where each clip was cut out; None for the centre. It matters to a mean volume only.

    Returns:
        float32, a view of (N, T, H, W, 3) memory, which is the layout the networks compute in.

    Example:
        >>> red = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(1, 1, 1, 1, 3)
        >>> to_input(red, Preprocessing()).flatten()  # blue, green, red
        tensor([-104., -117.,  132.])
    """
    low, high = preprocessing.value_range
    x = frames.to(torch.float32)
    if preprocessing.channel_order == "BGR":
        x = x.flip(-1)
    # (low + x (high - low) / 255 - mean) / std, as one multiplication and one addition
    std = torch.tensor(preprocessing.std, device=x.device)
    scale = (high - low) / 255 / std
    if mean_volume is None:
        mean = torch.tensor(preprocessing.mean, device=x.device)
    else:
        mean = _mean_of_windows(mean_volume, preprocessing, windows)
    return (x * scale + (low - mean) / std).permute(0, 4, 1, 2, 3)


def _mean_of_windows(
    volume: Float[Tensor, "3 T H W"], preprocessing: Preprocessing, windows: Sequence[Window] | None
) -> Float[Tensor, "N T h w 3"]:
    """The parts of a mean volume that belong to clips cut out at ``windows``; one for all of them without."""
    size, (height, width) = tuple(volume.shape[2:]), preprocessing.crop
    if size != preprocessing.resize:
        raise Pseudo3dError(
            f"the mean volume is of frames of {size[0]}x{size[1]}, the preprocessing resizes to "
            f"{preprocessing.resize}; set it to {size}"
        )
    parts = []
    for top, left, flipped in windows or [center_window(size, preprocessing.crop)]:
        part = volume[:, :, top : top + height, left : left + width]
        parts.append(part.flip(-1) if flipped else part)
    return torch.stack(parts).permute(0, 2, 3, 4, 1)


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


@dataclass(eq=False)
class _Waiting:
    """A video some of whose clips are still to be computed."""

    key: Any
    num_clips: int
    rows: list[dict[str, np.ndarray]] = field(default_factory=list)


class ClipRunner:
    """Runs a network on batches of cropped uint8 clips, always in one shape.

    The last, smaller batch is padded: under one engine, precision, batch size and thread count a clip's features are
    then bit-equal whatever its neighbours are.

    Args:
        model: copied; the original is left as it is.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" is bfloat16 where it is native, else float32.
        batch_size: clips in one batch; None for 4 on a processor, 32 on a GPU.

    Raises:
        Pseudo3dError: a device or dtype that is not there, a batch size below 1, a network that does not take RGB.
    """

    def __init__(
        self, model: VideoModel, *, device: str = "auto", dtype: DType = "auto", batch_size: int | None = None
    ) -> None:
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self.batch_size = batch_size if batch_size is not None else (32 if self.device.type == "cuda" else 4)
        if self.batch_size < 1:
            raise Pseudo3dError(f"batch size must be at least 1, got {batch_size}")
        check_takes_rgb(model.architecture.name, model.architecture.in_channels)
        self.preprocessing = model.preprocessing
        self.model = fold_batch_norms(model).to(self.device)
        for name, part in self.model.named_children():
            if name not in self.model.full_precision_parts:
                part.to(self.dtype)
        if self.dtype == torch.float32:
            forbid_tf32()

    def __call__(
        self, clips: Sequence[UInt8[np.ndarray, "T H W 3"]], layers: Sequence[str]
    ) -> dict[str, Float[np.ndarray, "N ..."]]:
        """The layers' activations, float32, one row a clip.

        Args:
            clips: 1 to ``batch_size`` clips, resized and cropped.
            layers: as for ``forward_features``.

        Raises:
            ValueError: no clip or more than ``batch_size``, unknown layers, wrong or different shapes.
        """
        if not 1 <= len(clips) <= self.batch_size:
            raise ValueError(f"a batch has 1 to {self.batch_size} clips, got {len(clips)}")
        batch = np.zeros((self.batch_size, *clips[0].shape), np.uint8)
        np.stack(clips, out=batch[: len(clips)], casting="no")
        frames = torch.from_numpy(batch)
        with torch.inference_mode():
            inputs = to_input(frames.to(self.device), self.preprocessing, self.model.mean_volume)
            features = self.model.forward_features(inputs.to(self.dtype), layers)
        return {layer: value[: len(clips)].float().cpu().numpy() for layer, value in features.items()}

    def run(
        self, videos: Iterable[tuple[Key, UInt8[np.ndarray, "_clips T H W 3"]]], layers: Sequence[str]
    ) -> Iterator[tuple[Key, dict[str, np.ndarray]]]:
        """Each video's activations, (clips, ...) for each layer, in the order of ``videos``.

        Batches are filled across videos; ``videos`` is read only as far as the next batch needs. A video without
        clips comes in its turn, without activations: ``{}``.
        """
        waiting: deque[_Waiting] = deque()
        batch: list[tuple[_Waiting, np.ndarray]] = []

        def compute() -> None:
            features = self([clip for _, clip in batch], layers)
            for row, (video, _) in enumerate(batch):
                video.rows.append({layer: values[row] for layer, values in features.items()})
            batch.clear()

        def finished() -> Iterator[tuple[Key, dict[str, np.ndarray]]]:
            while waiting and len(waiting[0].rows) == waiting[0].num_clips:
                video = waiting.popleft()
                rows = video.rows
                yield video.key, {layer: np.stack([row[layer] for row in rows]) for layer in layers} if rows else {}

        for key, clips in videos:
            waiting.append(_Waiting(key, len(clips)))
            for clip in clips:
                batch.append((waiting[-1], clip))
                if len(batch) == self.batch_size:
                    compute()
            yield from finished()
        if batch:
            compute()
        yield from finished()

    def describe(self) -> dict[str, str | int]:
        """What decides the last bits of the features; recorded in a store."""
        return {
            "engine": f"torch {torch.__version__} eager, batch norms folded",
            "device": self.device.type if self.device.type != "cuda" else torch.cuda.get_device_name(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch_size": self.batch_size,
            "threads": torch.get_num_threads(),
        }
