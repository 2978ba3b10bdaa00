"""Batches of one shape, filled across videos."""

import logging
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pseudo3d.errors import Pseudo3dError
from pseudo3d.inference.devices import DType, choose_device, choose_dtype, forbid_tf32, int8_is_native
from pseudo3d.inference.engines import Engine, choose_engine, choose_int8_engine, make_engine
from pseudo3d.inference.folding import fold_batch_norms, is_finite
from pseudo3d.inference.inputs import check_takes_rgb
from pseudo3d.inference.int8 import Ranges, calibrate
from pseudo3d.models import VideoModel
from pseudo3d.models.resnet import VideoResNet

Key = TypeVar("Key")

_log = logging.getLogger("pseudo3d")


class ClipRunner:
    """Runs a network on batches of cropped uint8 clips, always in one shape.

    The last, smaller batch is padded: under one engine, precision, batch size and thread count a clip's features are
    then bit-equal whatever its neighbours are.

    Args:
        model: copied; the original is left as it is.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        dtype: "auto" is bfloat16 where it is native, else float32.
        batch_size: clips in one batch; None for 4 on a processor, 32 on a GPU.
        engine: how the network runs, see ``pseudo3d.inference.engines``; "auto" is the one that is done first.
        expected_clips: how many there will be, for "auto"; None for very many.
        ranges: for dtype "int8": what ``calibrate`` gave before. Without, ``calibrate`` comes before the first clip.

    Raises:
        Pseudo3dError: a device, dtype or engine that is not there, a batch size below 1, a network that does not take
            RGB, ranges of another network.

    Example:
        >>> from pseudo3d import create_model
        >>> runner = ClipRunner(create_model("resnet14", num_classes=3), device="cpu", batch_size=2)
        >>> runner([np.zeros((4, 32, 32, 3), np.uint8)], ("prob",))["prob"].shape
        (1, 3)
    """

    def __init__(
        self,
        model: VideoModel,
        *,
        device: str = "auto",
        dtype: DType = "auto",
        batch_size: int | None = None,
        engine: str = "auto",
        expected_clips: int | None = None,
        ranges: Mapping[str, float] | None = None,
    ) -> None:
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self.batch_size = batch_size if batch_size is not None else (32 if self.device.type == "cuda" else 4)
        if self.batch_size < 1:
            raise Pseudo3dError(f"batch size must be at least 1, got {batch_size}")
        check_takes_rgb(model.architecture.name, model.architecture.in_channels)
        self.preprocessing = model.preprocessing
        self.model = fold_batch_norms(model).to(self.device)
        if not is_finite(self.model):  # said here: a ReLU fused into a convolution may make 0 of a NaN
            raise Pseudo3dError(
                f"{model.architecture.name}: a weight is not finite, and so no feature would be; use other weights"
            )
        if ranges is not None and self.dtype != torch.int8:
            raise Pseudo3dError(f"ranges are for int8, the dtype is {self.dtype}; leave them out")
        if self.dtype == torch.int8:
            self.engine = choose_int8_engine(engine, self.model, self.device)
            if not int8_is_native():
                _log.warning("this processor has no 8-bit dot products (VNNI or AMX): int8 is slow here; use float32")
        else:
            for name, part in self.model.named_children():
                if name not in self.model.full_precision_parts:
                    part.to(self.dtype)
            self.engine = choose_engine(engine, self.model, self.device, expected_clips)
        if self.dtype == torch.float32:
            forbid_tf32()
        self._compute: Engine = _not_calibrated
        if self.dtype != torch.int8 or ranges is not None:
            self._compute = make_engine(self.engine, self.model, self.device, self.dtype, ranges)

    def calibrate(self, clips: UInt8[np.ndarray, "n T H W 3"]) -> Ranges:
        """Measure, for dtype "int8", the ranges of activations that 8 bits have to hold, and use them from now on.

        Args:
            clips: as they will come, resized and cropped; eight of different videos are enough.

        Returns:
            Numbers by tensor, for JSON: ``ClipRunner(..., ranges=...)`` computes the same bits with them.

        Raises:
            Pseudo3dError: no clips, or activations that are not finite.
            ValueError: the dtype is not int8.
        """
        if self.dtype != torch.int8 or not isinstance(self.model, VideoResNet):
            raise ValueError(f"only int8 is calibrated, the dtype is {self.dtype}")
        ranges = calibrate(self.model, torch.from_numpy(clips))
        self._compute = make_engine(self.engine, self.model, self.device, self.dtype, ranges)
        return ranges

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
        return {layer: values[: len(clips)] for layer, values in self.compute(batch, layers).items()}

    def compute(self, batch: UInt8[np.ndarray, "N T H W 3"], layers: Sequence[str]) -> dict[str, np.ndarray]:
        """The layers of one whole batch, (batch_size, ...) float32."""
        with torch.inference_mode():
            features = self._compute(torch.from_numpy(batch), layers)
            return {layer: features[layer].float().cpu().numpy() for layer in layers}

    def describe(self) -> dict[str, str | int]:
        """How the network runs, which decides the last bits; recorded in a store, so that a later run does the same."""
        return {
            "engine": self.engine.name,
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch_size": self.batch_size,
            "threads": torch.get_num_threads(),
        }


def _not_calibrated(frames: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    raise Pseudo3dError("int8 needs ranges of activations: give ranges=, or call calibrate with a few clips first")


class ClipBatches(Generic[Key]):
    """Clips one by one to the layers' activations, computed a batch at a time, whatever videos they are of.

    Args:
        runner: the network.
        layers: as for ``forward_features``.

    Example:
        >>> from pseudo3d import create_model
        >>> batches = ClipBatches(ClipRunner(create_model("resnet14"), device="cpu", batch_size=2), ("pool5",))
        >>> clip = np.zeros((4, 32, 32, 3), np.uint8)
        >>> [len(batches.add(key, clip)) for key in "abc"], [key for key, _ in batches.flush()]
        ([0, 2, 0], ['c'])
    """

    def __init__(self, runner: ClipRunner, layers: Sequence[str]) -> None:
        self._runner, self._layers = runner, tuple(layers)
        self._keys: list[Key] = []
        self._batch: np.ndarray | None = None  # one for all: what is computed from it is finished when the next begins

    def add(self, key: Key, clip: UInt8[np.ndarray, "T H W 3"]) -> list[tuple[Key, dict[str, np.ndarray]]]:
        """Copy a clip into the batch; when that fills it, the (...) float32 activations of all its clips by layer.

        Raises:
            ValueError: a clip of another shape than the one before.
        """
        if self._batch is None:
            self._batch = np.zeros((self._runner.batch_size, *clip.shape), np.uint8)
        np.copyto(self._batch[len(self._keys)], clip, casting="no")
        self._keys.append(key)
        return self.flush() if len(self._keys) == self._runner.batch_size else []

    def flush(self) -> list[tuple[Key, dict[str, np.ndarray]]]:
        """Compute the clips that wait; the rest of the batch is what was there before, which changes nothing."""
        if self._batch is None or not self._keys:
            return []
        features = self._runner.compute(self._batch, self._layers)
        keys, self._keys = self._keys, []
        return [(key, {name: values[row] for name, values in features.items()}) for row, key in enumerate(keys)]
