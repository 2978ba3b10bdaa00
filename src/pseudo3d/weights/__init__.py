"""Numbers in and out: our own format, PyTorch files, and 2-D networks made three-dimensional."""

from pseudo3d.weights.loading import LoadReport, load_model, load_weights
from pseudo3d.weights.pretrained import from_pretrained, save_pretrained

__all__ = ["LoadReport", "from_pretrained", "load_model", "load_weights", "save_pretrained"]
