"""The words that several parts take as arguments, here so that to name them nothing heavy needs to be imported.

Style: "caffe" is the authors' network, "torchvision" the one that torchvision's and timm's ResNet weights fit, "port"
what the well-known PyTorch port of P3D computes (``models.create_model``).
Head: "auto" takes the head of the weights, "new" leaves the model's own (``weights.load_weights``).
TemporalInit: what the temporal filters become that a 2-D network's weights lack (``weights.load_weights``).
"""

from typing import Literal

Style = Literal["caffe", "torchvision", "port"]
Head = Literal["auto", "new"]
TemporalInit = Literal["identity", "gaussian"]
