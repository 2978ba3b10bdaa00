"""Clips seen twice, as they are and as in a mirror."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from pseudo3d.inference import ClipRunner


class MirroredRunner(ClipRunner):
    """A ``ClipRunner`` whose activations are the mean over each clip and its mirror image (left and right changed).

    The clip is turned after it has been decoded, resized and cropped: only the network works twice. Layers with a shape
    are averaged place by place, as they come; the maps of the mirror image are not turned back.

    Example:
        >>> from pseudo3d import create_model
        >>> runner = MirroredRunner(create_model("resnet14", num_classes=3), device="cpu", batch_size=1)
        >>> clip = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
        >>> pair = [runner([each], ("prob",))["prob"] for each in (clip, clip[:, :, ::-1])]
        >>> np.array_equal(*pair)  # a clip and its mirror image have the same
        True
    """

    def compute(
        self, batch: UInt8[np.ndarray, "N T H W 3"], layers: Sequence[str]
    ) -> dict[str, Float32[np.ndarray, "N ..."]]:
        """The layers of one whole batch, (batch_size, ...) float32."""
        seen = {layer: values.copy() for layer, values in super().compute(batch, layers).items()}
        mirrored = super().compute(np.ascontiguousarray(batch[..., ::-1, :]), layers)
        return {layer: (seen[layer] + mirrored[layer]) / 2 for layer in layers}

    def describe(self) -> dict[str, str | int]:
        """As a ``ClipRunner``'s, and that clips are mirrored."""
        return super().describe() | {"mirror": True}
