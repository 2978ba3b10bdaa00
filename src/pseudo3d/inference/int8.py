"""ResNets in 8-bit integers on a processor, with ranges of activations measured on real clips.

Half the bytes of bfloat16 and, with VNNI or AMX, twice the products in an instruction. The calls are oneDNN's again
(``fused.py``), this time ``torch.ops.onednn.qconv2d_pointwise``, made for PyTorch's own compiler like the others:

    filters      int8, one scale for each output channel, symmetric
    activations  uint8, one scale for each tensor; 0 stands for 0, but in projections, which have signs, 128 does
    sums         int32, exact; bias, addition, ReLU and rounding follow in float32 in the same call
    conv1        takes the grey levels as they are: the standardisation is part of its filters and its bias, and beyond
                 the border it sees the mean grey level, which is the 0 that a float network sees there
    from pool5   float32

Weights and ranges decide the network entirely: who keeps the ranges gets the same features again.
"""

import copy
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pseudo3d.errors import Pseudo3dError
from pseudo3d.inference.devices import int8_is_native
from pseudo3d.inference.fused import Conv, FusedResNet, fused_parts
from pseudo3d.models.blocks import Bottleneck
from pseudo3d.models.resnet import VideoResNet

Ranges = dict[
    str, float
]  # of each tensor of activations, the largest magnitude that 8 bits write down; more is cut off

_STAGES = ("res2", "res3", "res4", "res5")
_SAMPLE = 4096  # activations of a tensor that are kept of each clip to choose its range by
_CANDIDATES = 0.965 ** torch.arange(40, dtype=torch.float64)  # ranges, as shares of the largest magnitude seen


def calibrate(model: VideoResNet, clips: UInt8[Tensor, "n T H W 3"]) -> Ranges:
    """The ranges of a network's activations on ``clips``: of each tensor the one that loses least.

    A wide range has coarse steps, a narrow one cuts large numbers off; chosen is the one with the least mean squared
    error over a sample of the activations.

    Args:
        model: float32, in evaluation mode, batch norms folded.
        clips: RGB, cropped, as they will come; eight are enough (docs/speed.md).

    Raises:
        Pseudo3dError: no clips, clips that do not fit, or weights or activations that are not finite.

    Example:
        >>> from pseudo3d import create_model
        >>> from pseudo3d.inference.folding import fold_batch_norms
        >>> model = fold_batch_norms(create_model("resnet14", num_classes=3))
        >>> clips = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
        >>> ranges = calibrate(model, clips)
        >>> list(ranges)[:5]
        ['stem', 'res2.0.a', 'res2.0.shortcut', 'res2.0.mid', 'res2.0.out']
        >>> with torch.inference_mode():
        ...     pool5 = Int8ResNet(model, ranges)(clips, ("pool5",))["pool5"]
        >>> pool5.shape
        torch.Size([2, 2048])
    """
    if len(clips) == 0:
        raise Pseudo3dError("no clips to calibrate with; 8-bit integers need a few clips to measure ranges on")
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise Pseudo3dError("a weight is not finite: 8-bit integers cannot be had; check the weights")
    network = _WatchedResNet(model)
    with torch.inference_mode():
        for clip in clips.split(1):
            network(clip, ("pool5",))
    return {name: _best_range(name, torch.cat(samples)) for name, samples in network.samples.items()}


def check_ranges(model: VideoResNet, ranges: Mapping[str, float]) -> None:
    """Raise a Pseudo3dError unless ``ranges`` has a positive number for each tensor of ``model``, and nothing else."""
    expected = {"stem"} | {f"{place}.{name}" for place, block in _blocks(model).items() for name in _tensors(block)}
    for names, what in ((expected - ranges.keys(), "lack"), (ranges.keys() - expected, "also have")):
        if names:
            raise Pseudo3dError(
                f"these 8-bit ranges are of another network: they {what} {min(names)} ({len(names)} such in all); "
                "calibrate with this network"
            )
    for name, value in ranges.items():
        if not (math.isfinite(value) and value > 0):
            raise Pseudo3dError(f"the 8-bit range of {name} must be a positive number, got {value!r}; calibrate again")


@dataclass(frozen=True)
class Code:
    """How 8 bits write activations: a byte b stands for (b - zero) * scale."""

    scale: float
    zero: int = 0


class Int8Conv:
    """A convolution of uint8 activations, prepared for one shape of input, fused with what follows.

    Args:
        conv: float32, with a bias.
        x: the code of its input.
        y: of its output.
        add: of the tensor that is added, if there will be one.
        factor: of the filters; the bias stays.
        zeros: bytes that stand for 0 in each input channel, instead of ``x.zero``, for a convolution without padding.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        x: Code,
        y: Code,
        *,
        add: Code | None = None,
        factor: float = 1.0,
        zeros: Float[Tensor, "C"] | None = None,
    ) -> None:
        assert conv.bias is not None
        filters, self._bias = conv.weight.detach() * factor, conv.bias.detach()
        largest = filters.abs().amax(dim=(1, 2, 3)).clamp_min(1e-30)  # a filter may be all zeros
        # Without VNNI oneDNN adds pairs of products in 16 bits, which end at 32767: 2 * 255 * 63 fits, 127 does not.
        self._scales = largest / (127 if int8_is_native() else 63)
        self._filters = (filters / self._scales[:, None, None, None]).round().to(torch.int8)
        if zeros is not None:  # what they add up to is the same everywhere: it goes into the bias
            written = self._filters.sum(dim=(2, 3)) * self._scales[:, None]
            self._bias = self._bias - written @ (zeros * x.scale)
        self._zeros = torch.zeros(len(filters), dtype=torch.int32)
        self._x, self._y, self._add = x, y, add
        self._where = (list(conv.stride), [int(p) for p in conv.padding], [1, 1], 1)
        self._prepared: dict[tuple[int, ...], Tensor] = {}  # the best layout of filters depends on the input's shape

    def __call__(
        self, x: Tensor, *, relu: bool = True, add: Tensor | None = None, onto: Tensor | None = None
    ) -> Tensor:
        """conv(x), plus ``add`` or ``onto``, rectified if so wished; as ``FusedConv``."""
        shape, after = tuple(x.shape), "relu" if relu else "none"
        if shape not in self._prepared:
            self._prepared[shape] = torch.ops.onednn.qconv_prepack(
                self._filters, self._scales, self._x.scale, self._x.zero, *self._where, list(shape)
            )
        factors = (x, self._x.scale, self._x.zero, self._prepared[shape], self._scales, self._zeros)
        result = (*self._where, self._y.scale, self._y.zero, torch.uint8)
        if add is not None:
            onto = add.clone()  # this addition is in place (and what PyTorch 2.13 returns is a copy of the place)
        if onto is None:
            return torch.ops.onednn.qconv_pointwise(*factors, self._bias, *result, after, [], "")
        assert self._add is not None
        return torch.ops.onednn.qconv2d_pointwise.binary(
            *factors, onto, self._bias, *result, self._add.scale, self._add.zero, "sum", 1.0, after, [], ""
        )


class Int8ResNet(FusedResNet):
    """A ``VideoResNet`` in 8-bit integers, for uint8 clips on a processor; an example stands at ``calibrate``.

    Args:
        model: float32, in evaluation mode, batch norms folded.
        ranges: what ``calibrate`` gave for it.

    Raises:
        Pseudo3dError: ranges of another network, or no ranges at all.
    """

    def __init__(self, model: VideoResNet, ranges: Mapping[str, float]) -> None:
        check_ranges(model, ranges)
        self._ranges = dict(ranges)
        places = list(_blocks(model))
        self._inputs = dict(zip(places, ["stem", *(f"{place}.out" for place in places)], strict=False))
        self._outputs = {place.split(".")[0]: f"{place}.out" for place in places}  # the last block of a stage stays
        super().__init__(model)

    def _code(self, name: str) -> Code:
        largest = self._ranges[name]
        return Code(largest / 127, 128) if name.endswith(".shortcut") else Code(largest / 255)

    def _prepare(self, place: str, block: Bottleneck) -> Mapping[str, Conv]:
        code = {name: self._code(f"{place}.{name}") for name in _tensors(block)}
        code["in"] = self._code(self._inputs[place])
        if block.kind == "2D" or (block.rectify_t and block.kind != "A"):
            code["s"] = code["mid"]  # S is the middle; or S and T are added as they are
        wires = {  # what each convolution reads, writes and adds
            "a": ("in", "a", None),
            "s": ("a", "s", None),
            "t": ("a" if block.kind == "B" else "s", "mid", "s"),
            "c": ("mid", "out", "shortcut" if block.has_projection else "in"),
            "shortcut": ("in", "shortcut", None),
        }
        convs: dict[str, Conv] = {}
        for part, (conv, factor) in fused_parts(block).items():
            x, y, add = wires[part]
            convs[part] = Int8Conv(conv, code[x], code[y], add=None if add is None else code[add], factor=factor)
        return convs

    def _prepare_conv1(self, conv1: nn.Conv2d) -> Conv:
        p = self._preprocessing
        low, high = p.value_range
        zeros = (torch.tensor(p.mean) - low) * 255 / (high - low)
        self._border, self._margin = zeros.round().clamp(0, 255).to(torch.uint8), int(conv1.padding[0])
        of_levels = copy.deepcopy(conv1)
        of_levels.padding = (0, 0)  # ``_stem_input`` pads
        of_levels.weight.data *= ((high - low) / 255 / torch.tensor(p.std))[:, None, None]
        return Int8Conv(of_levels, Code(1.0), self._code("stem"), zeros=zeros)

    def _stem_input(self, frames: UInt8[Tensor, "F H W 3"]) -> UInt8[Tensor, "F 3 h w"]:
        count, height, width, _ = frames.shape
        margin = self._margin
        padded = self._border.repeat(count, height + 2 * margin, width + 2 * margin, 1)
        padded[:, margin : margin + height, margin : margin + width] = frames
        return padded.permute(0, 3, 1, 2)

    def _floats(self, x: Tensor, stage: str) -> Float[Tensor, "NT C H W"]:
        return x.float().mul_(self._code(self._outputs[stage]).scale)


class _WatchedResNet(FusedResNet):
    """The float network, which keeps a sample of each tensor that the integer network writes in 8 bits."""

    def __init__(self, model: VideoResNet) -> None:
        self.samples: dict[str, list[Tensor]] = {}
        super().__init__(model)

    def _prepare_conv1(self, conv1: nn.Conv2d) -> Conv:
        return self._watch(super()._prepare_conv1(conv1), writes="stem")

    def _prepare(self, place: str, block: Bottleneck) -> Mapping[str, Conv]:
        names = _tensors(block)
        return {
            part: self._watch(
                conv,
                reads=f"{place}.mid" if part == "c" else None,
                writes=f"{place}.{'out' if part == 'c' else part}" if part in (*names, "c") else None,
            )
            for part, conv in super()._prepare(place, block).items()
        }

    def _watch(self, conv: Conv, reads: str | None = None, writes: str | None = None) -> Conv:
        def keep(name: str | None, x: Tensor) -> None:
            if name is not None:
                self.samples.setdefault(name, []).append(_sample(x))

        def watched(x: Tensor, *, relu: bool = True, add: Tensor | None = None, onto: Tensor | None = None) -> Tensor:
            keep(reads, x)
            y = conv(x, relu=relu, add=add, onto=onto)
            keep(writes, y)
            return y

        return watched


def _sample(x: Float[Tensor, "N C H W"]) -> Float[Tensor, "values"]:
    """The largest magnitude of ``x``, and others from everywhere in it: an odd step in memory meets every channel."""
    magnitudes = x.permute(0, 2, 3, 1).flatten()
    step = magnitudes.numel() // _SAMPLE | 1
    return torch.cat([x.abs().amax()[None], magnitudes[::step].abs()])


def _best_range(name: str, magnitudes: Float[Tensor, "values"]) -> float:
    largest = magnitudes.max().item()
    if not math.isfinite(largest):
        raise Pseudo3dError(f"the activations {name} are not finite: 8-bit integers cannot be had; check the weights")
    if largest == 0:
        return 1.0  # never seen at work: any range will do
    ranges = (largest * _CANDIDATES).float()
    steps = (ranges / (127 if name.endswith(".shortcut") else 255))[:, None]
    written = (magnitudes / steps).round_().mul_(steps).minimum(ranges[:, None])
    return float(ranges[(written - magnitudes).square().mean(dim=1).argmin()])


def _blocks(model: VideoResNet) -> dict[str, Bottleneck]:
    """Every block by its place in the network, such as "res3.0", in the order in which they run."""
    return {f"{stage}.{i}": block for stage in _STAGES for i, block in enumerate(getattr(model, stage))}


def _tensors(block: Bottleneck) -> list[str]:
    """What a block computes and 8 bits write; what conv_c reads is "mid"."""
    names = ["a", "mid", "out"] if block.kind == "2D" else ["a", "s", "mid", "out"]
    return [*names, "shortcut"] if block.has_projection else names


@functools.cache
def int8_can_be_fused() -> bool:
    """Whether this PyTorch has oneDNN's 8-bit convolutions, with the arguments that are used here.

    They are made for PyTorch's own compiler and are not promised to stay; one small convolution with an addition,
    compared with the plain one, tells.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    with torch.random.fork_rng(devices=[]):
        conv = nn.Conv2d(16, 16, 3, padding=1)
        x, other = (torch.randint(0, 256, (2, 5, 5, 16), dtype=torch.uint8).permute(0, 3, 1, 2) for _ in range(2))
    code, other_code, y_code = Code(1 / 255), Code(2 / 127, 128), Code(3 / 255)
    with torch.inference_mode():
        expected = torch.relu(conv(x * code.scale) + (other.float() - other_code.zero) * other_code.scale)
        try:
            y = Int8Conv(conv, code, y_code, add=other_code)(x, add=other)
        except (AttributeError, RuntimeError, TypeError):  # no such operator, or with other arguments
            return False
        return torch.allclose(y * y_code.scale, expected.clamp(max=3), atol=0.05)
