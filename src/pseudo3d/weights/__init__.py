"""Numbers in and out: our own format, the hub, Caffe, PyTorch files, and 2-D networks made three-dimensional."""

from pseudo3d.weights.hub import push_to_hub
from pseudo3d.weights.loading import LoadReport, load_model, load_weights
from pseudo3d.weights.pretrained import from_pretrained, save_pretrained

__all__ = ["LoadReport", "from_pretrained", "load_model", "load_weights", "push_to_hub", "save_pretrained"]
