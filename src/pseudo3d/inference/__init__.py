"""A network made ready to run: device, precision, folded batch norms, batches of one shape.

uint8 frames (N, T, H, W, 3)  --to_input-->  float clips (N, C, T, H, W)  --network-->  layers
"""

from pseudo3d.inference.devices import DType, bfloat16_is_native, choose_device, choose_dtype, forbid_tf32
from pseudo3d.inference.folding import fold_batch_norms, is_finite
from pseudo3d.inference.inputs import check_takes_rgb, to_input
from pseudo3d.inference.runner import ClipBatches, ClipRunner

__all__ = [
    "ClipBatches", "ClipRunner", "DType", "bfloat16_is_native", "check_takes_rgb", "choose_device", "choose_dtype",
    "fold_batch_norms", "forbid_tf32", "is_finite", "to_input",
]  # fmt: skip
