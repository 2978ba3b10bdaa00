"""C3D (Tran et al., ICCV 2015) as its authors released it: eight 3x3x3 convolutions and three fully connected layers.

    clip 3 x 16 x 112 x 112
      conv1a           64 x 16 x 112 x 112   pool1 1x2x2
      conv2a          128 x 16 x  56 x  56   pool2 2x2x2, as all that follow
      conv3a conv3b   256 x  8 x  28 x  28   pool3
      conv4a conv4b   512 x  4 x  14 x  14   pool4
      conv5a conv5b   512 x  2 x   7 x   7   pool5
      pool5          8192                    = 512 x 1 x 4 x 4, in this order
      fc6            4096                    the representation of the C3D paper
      fc7            4096
      fc8, softmax    classes

A ReLU follows every layer but fc8. Pools are not padded; their windows start at 0 and reach over the edge (Caffe's ceil
mode): at pool5 seven rows become four, {0,1} {2,3} {4,5} {6}. The first fully connected layer fixes the clip's size.

The smaller network that the C3D paper compares kernels with (its section 3.2; the release has its definition for
UCF101) has one convolution before each pool, conv1a to conv5a with 64, 128, 256, 256 and 256 filters of k x 3 x 3, and
fully connected layers of 2048. Its k is the same everywhere, or grows or shrinks with depth (``SMALL_KERNELS``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pseudo3d.errors import Pseudo3dError
from pseudo3d.models.interface import check_clips_of_size, check_layers, full_precision
from pseudo3d.preprocessing import Preprocessing

if TYPE_CHECKING:
    from pseudo3d.models import Architecture

CLIP = (16, 112, 112)  # frames, height, width of what the network takes
FRAME = (128, 171)  # height and width of the resized frames that it is cut out of, and of the mean volume
MEAN_BGR = (90.25, 97.66, 101.41)  # of the release's mean volume (Sports-1M), channel by channel

# name, filters, window (T, H, W) of the pooling that follows
Convolutions = tuple[tuple[str, int, tuple[int, int, int] | None], ...]
CONVOLUTIONS: Convolutions = (
    ("conv1a", 64, (1, 2, 2)),
    ("conv2a", 128, (2, 2, 2)),
    ("conv3a", 256, None),
    ("conv3b", 256, (2, 2, 2)),
    ("conv4a", 512, None),
    ("conv4b", 512, (2, 2, 2)),
    ("conv5a", 512, None),
    ("conv5b", 512, None),  # pool5 is a layer of its own
)
SMALL_CONVOLUTIONS: Convolutions = (
    ("conv1a", 64, (1, 2, 2)),
    ("conv2a", 128, (2, 2, 2)),
    ("conv3a", 256, (2, 2, 2)),
    ("conv4a", 256, (2, 2, 2)),
    ("conv5a", 256, None),
)
SMALL_KERNELS = {  # frames that the filters of conv1a to conv5a see
    "c3d_small_1": (1, 1, 1, 1, 1),
    "c3d_small_3": (3, 3, 3, 3, 3),
    "c3d_small_5": (5, 5, 5, 5, 5),
    "c3d_small_7": (7, 7, 7, 7, 7),
    "c3d_small_increasing": (3, 3, 5, 5, 7),
    "c3d_small_decreasing": (7, 5, 5, 3, 3),
}


class C3D(nn.Module):
    """3-D convolutions and three fully connected layers over clips of 16 frames: class scores, representations.

    Convolutions run on channels-last memory, (N, T, H, W, C), which ``inference.to_input`` already gives. It took 0.7
    to 0.8 of the time of (N, C, T, H, W) memory or of sums of three 2-D convolutions (2 cores with AVX-512 BF16,
    ``benchmarks/c3d_convolutions.py``).

    Args:
        num_classes: outputs of ``fc8``; 487 in the release (Sports-1M).
        in_channels: 3, or 2 for flow.
        dropout: rate after fc6 and after fc7; only in training.
        preprocessing: what the weights expect of their clips. Its ``mean`` fills ``mean_volume``.
        convolutions: the release's eight, or ``SMALL_CONVOLUTIONS``.
        kernels: frames that the filters of each see, odd; clips are padded so that their length stays.
        hidden: outputs of fc6 and of fc7.

    Attributes:
        convolutions: as given.
        layers: what ``forward_features`` gives, from the last convolution on.
        mean_volume: float32 (C, 16, 128, 171) in the preprocessing's channel order, what is subtracted from the resized
            frames before the crop. The release has one number for each place and time, of all its training clips;
            until ``set_mean_volume`` or a weights file gives it, every place has its channel's mean. It is a buffer,
            so that it travels with the weights.

    Example:
        >>> with torch.device("meta"):  # 320 MB of numbers otherwise
        ...     model = C3D(487, in_channels=3, dropout=0.5, preprocessing=Preprocessing(16, FRAME, CLIP[1:], MEAN_BGR))
        ...     features = model.forward_features(torch.zeros(2, 3, 16, 112, 112), ("conv5b", "fc6"))
        >>> sum(p.numel() for p in model.parameters())
        79991015
        >>> {name: tuple(value.shape) for name, value in features.items()}
        {'conv5b': (2, 512, 2, 7, 7), 'fc6': (2, 4096)}
    """

    head_name = "fc8"
    full_precision_parts = ("fc6", "fc7", "fc8")
    architecture: "Architecture"
    class_names: tuple[str, ...] | None = None
    mean_volume: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int,
        dropout: float,
        preprocessing: Preprocessing,
        convolutions: Convolutions = CONVOLUTIONS,
        kernels: tuple[int, ...] = (3,) * 8,
        hidden: int = 4096,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.convolutions = convolutions
        self.layers = (convolutions[-1][0], "pool5", "fc6", "fc7", "logits", "prob")
        channels = in_channels
        for (name, filters, _), kernel in zip(convolutions, kernels, strict=True):
            self.add_module(name, nn.Conv3d(channels, filters, (kernel, 3, 3), padding=(kernel // 2, 1, 1)))
            channels = filters
        self.fc6 = nn.Linear(channels * 1 * 4 * 4, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.dropout = nn.Dropout(dropout)
        mean = torch.tensor(preprocessing.mean).view(in_channels, 1, 1, 1)
        self.register_buffer("mean_volume", mean.repeat(1, CLIP[0], *FRAME))
        self._initialise()

    def _initialise(self) -> None:
        """Random weights as in the release's network definition: Gaussians, and a bias of 1 before most ReLUs."""
        for name, module in self.named_children():
            if isinstance(module, nn.Conv3d | nn.Linear):
                nn.init.normal_(module.weight, std=0.005 if name in ("fc6", "fc7") else 0.01)
                nn.init.constant_(module.bias, 0.0 if name in ("conv1a", "fc8") else 1.0)  # type: ignore[arg-type]

    def set_mean_volume(self, volume: np.ndarray | Tensor) -> None:
        """Take the mean volume of the training clips, as the release's mean file holds it.

        Args:
            volume: (C, 16, 128, 171), grey levels, in the preprocessing's channel order.

        Raises:
            Pseudo3dError: another shape, or values that are not finite; the volume is then as before.
        """
        array = volume.numpy(force=True) if isinstance(volume, Tensor) else volume
        values = np.array(array, np.float32)  # a copy: views with negative strides are no tensors
        if values.shape != tuple(self.mean_volume.shape):
            raise Pseudo3dError(
                f"a mean volume of shape {values.shape} does not fit: this network takes "
                f"{tuple(self.mean_volume.shape)}: {self.preprocessing.channel_order}, frames, rows, columns"
            )
        if not np.isfinite(values).all():
            raise Pseudo3dError("the mean volume has values that are not finite; read it again from its file")
        self.mean_volume.copy_(torch.from_numpy(values))

    def forward(self, clips: Tensor) -> Float[Tensor, "N classes"]:
        """Class scores before the softmax, float32.

        Args:
            clips: (N, C, 16, 112, 112), floating point, preprocessed.

        Raises:
            Pseudo3dError: (a ValueError) another shape; the message says which one fits.
        """
        return self.forward_features(clips, ("logits",))["logits"]

    def forward_features(self, clips: Tensor, layers: Sequence[str] = ("pool5",)) -> dict[str, Float[Tensor, "N ..."]]:
        """The activations of the named layers, computed no deeper than they ask for.

        From pool5 on they are float32 whatever the precision of the convolutions: the fully connected layers are a
        thousandth of the arithmetic, fc6 is the representation that is stored, and in bfloat16 probabilities would
        tie and not add up to 1.

        Args:
            clips: as for ``forward``.
            layers: out of conv5b (N, 512, 2, 7, 7), pool5 (N, 8192), fc6 and fc7 (N, 4096), each after its ReLU as in
                the files of the release's extractor and before the dropout; logits and prob (N, classes). The smaller
                network has conv5a (N, 256, 2, 7, 7), pool5 (N, 4096), fc6 and fc7 (N, 2048) instead.

        Raises:
            Pseudo3dError: (a ValueError) an unknown layer, or clips of another shape.
        """
        check_layers(layers, self.layers)
        check_clips_of_size(clips, self.mean_volume.shape[0], CLIP)
        features: dict[str, Tensor] = {}
        x = clips.contiguous(memory_format=torch.channels_last_3d)
        for name, _, window in self.convolutions:
            x = F.relu(_convolve(getattr(self, name), x), inplace=True)
            if window is not None:
                x = F.max_pool3d(x, window, window, ceil_mode=True)
        features[name] = x
        if set(layers) != {name}:
            with full_precision(x.device):
                self.classify(x, features, layers)
        return {name: value for name, value in features.items() if name in layers}

    def classify(self, x: Float[Tensor, "N C 2 7 7"], features: dict[str, Tensor], layers: Sequence[str]) -> None:
        """Add what comes after the convolutions to ``features``, at least as far as ``layers`` asks for it.

        Args:
            x: of the last convolution, after its ReLU.
            features: by layer.
            layers: as for ``forward_features``.
        """
        deepest = max(self.layers.index(name) for name in layers)
        x = F.max_pool3d(x.float(), 2, 2, ceil_mode=True).flatten(1)  # Caffe's order: C, T, H, W
        features["pool5"] = x
        for name in ("fc6", "fc7"):
            if self.layers.index(name) > deepest:
                return
            x = features[name] = F.relu(getattr(self, name)(x), inplace=True)
            x = self.dropout(x)
        if deepest >= self.layers.index("logits"):
            features["logits"] = self.fc8(x)
            features["prob"] = features["logits"].softmax(dim=1)


def _convolve(conv: nn.Conv3d, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N O T H W"]:
    """``conv(x)``; when it trains, clips shorter than its filters get their zeros in time before it.

    oneDNN's bfloat16 kernel for the weights' gradient (PyTorch 2.13, AVX-512 BF16) adds memory that is not the clip's
    where the filters see more frames than there are (conv5a and conv5b: three of two), and writes outside of its result
    where they see many more. With the zeros in the clip its result is right; the outputs are the same numbers.
    """
    frames, around = conv.kernel_size[0], conv.kernel_size[0] // 2
    if x.shape[2] >= frames or not torch.is_grad_enabled():
        output: Tensor = conv(x)
        return output
    return F.conv3d(F.pad(x, (0, 0, 0, 0, around, around)), conv.weight, conv.bias, padding=(0, 1, 1))
