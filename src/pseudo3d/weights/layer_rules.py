"""The layers of every network here as a table like the release's, made by rules that know nothing of ``models``.

For P3D ResNet-152 the rules give exactly the 693 rows that were written down from the authors' definition; for the
other depths, block orders and styles, for the frame networks and for C3D they are the reference that a model, or the
weights in a file, can be checked against (``layer_table.run_layer_table``).
"""

import itertools
import re
from collections.abc import Sequence

from pseudo3d.weights.caffe import caffe_block_names
from pseudo3d.weights.layer_table import Layer

_DEPTHS = {14: (1, 1, 1, 1), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_C3D_WIDTHS = {"1a": 64, "2a": 128, "3a": 256, "3b": 256, "4a": 512, "4b": 512, "5a": 512, "5b": 512}
_SMALL_WIDTHS = {"1a": 64, "2a": 128, "3a": 256, "4a": 256, "5a": 256}
_KERNELS = {"increasing": (3, 3, 5, 5, 7), "decreasing": (7, 5, 5, 3, 3)}  # of the smaller C3D, else its name's number


def make_layer_table(
    name: str, *, num_classes: int, head: str, blocks: str = "ABC", style: str = "caffe"
) -> list[Layer]:
    """The layers of a network, in order.

    Args:
        name: of the network (``list_models()``).
        num_classes: outputs of the head.
        head: name of the last inner product.
        blocks: of a P3D network.
        style: "caffe", "torchvision" or "port".

    Example:
        >>> from pseudo3d.weights.layer_table import read_layer_table
        >>> make_layer_table("p3d_resnet152", num_classes=487, head="fc_sports1m") == read_layer_table()
        True
    """
    if name == "c3d":
        return _c3d(_C3D_WIDTHS, (3,) * 8, 4096, num_classes, head)
    if name.startswith("c3d_small_"):
        kind = name.removeprefix("c3d_small_")
        kernels = _KERNELS[kind] if kind in _KERNELS else (int(kind),) * 5
        return _c3d(_SMALL_WIDTHS, kernels, 2048, num_classes, head)
    match = re.fullmatch(r"(p3d_)?resnet(\d+)", name)
    assert match is not None
    builder = _Builder(p3d=match[1] is not None, style=style)
    return builder.network(_DEPTHS[int(match[2])], itertools.cycle(blocks), num_classes, head)


def output_names(name: str) -> dict[str, str]:
    """Our layers' names in the table of a network, e.g. res4 -> res4b35.

    Example:
        >>> output_names("p3d_resnet50")["res4"], output_names("c3d")["fc6"]
        ('res4f', 'fc6-1')
    """
    if name.startswith("c3d"):
        last = "conv5b" if name == "c3d" else "conv5a"
        return {last: last, "pool5": "pool5", "fc6": "fc6-1", "fc7": "fc7-1"}
    depths = _DEPTHS[int(name.rpartition("resnet")[2])]
    names = {f"res{stage}": f"res{caffe_block_names(stage, depths)[-1]}" for stage in (2, 3, 4, 5)}
    return {**names, "pool5": "pool5"}


class _Builder:
    """Rows of a ResNet; ``flat`` layers are two-dimensional (res5, and everything in a frame network)."""

    def __init__(self, *, p3d: bool, style: str) -> None:
        self.p3d, self.style, self.flat = p3d, style, not p3d
        self.rows: list[Layer] = []

    def network(self, depths: Sequence[int], kinds: "itertools.cycle[str]", num_classes: int, head: str) -> list[Layer]:
        self.rows.append(Layer("data", "Input", (), "data", None, (), (), (), ""))
        top = self.convolution("conv1", "data", 64, (1, 7, 7), (1, 2, 2), (0, 3, 3))
        top = self.norm("_conv1", top, note="trainable")
        self.relu("conv1_relu", top)
        padded = self.style != "caffe"
        note = "max" if padded else "max, ceil mode"
        top = self.pool("pool1", top, (2, 3, 3), (2, 2, 2), (0, 1, 1) if padded else (0, 0, 0), note)
        for stage in (2, 3, 4, 5):
            if stage > 2 and self.p3d:
                name = "res5a_pool" if stage == 5 else f"{stage}a_pool"
                top = self.pool(name, top, (2, 1, 1), (2, 1, 1), (0, 0, 0), "max, ceil mode")
            if stage == 5 and self.p3d:
                note = "drop the time axis (length 1)"
                self.rows.append(Layer("res5a_reshape", "Reshape", (top,), "res5a_reshape", None, (), (), (), note))
                top, self.flat = "res5a_reshape", True
            for i, block in enumerate(caffe_block_names(stage, depths)):
                kind = "2D" if self.flat else next(kinds)
                stride = 2 if stage > 2 and i == 0 else 1
                top = self.block(block, top, 64 * 2 ** (stage - 2), kind, project=i == 0, stride=stride)
        self.rows.append(Layer("pool5", "Pooling", (top,), "pool5", None, (), (), (), "average, global"))
        if self.p3d:
            self.rows.append(Layer("pool5_drop", "Dropout", ("pool5",), "pool5", None, (), (), (), "ratio 0.1"))
        self.rows.append(Layer(head, "InnerProduct", ("pool5",), head, num_classes, (), (), (), ""))
        self.rows.append(Layer("prob", "Softmax", (head,), "prob", None, (), (), (), ""))
        return self.rows

    def block(self, name: str, bottom: str, width: int, kind: str, *, project: bool, stride: int) -> str:
        """A bottleneck: branch1 (the projection), branch2a (1x1x1), 2b (1x3x3), 2b_t (3x1x1), 2c (1x1x1)."""
        at_first, at_middle = (1, stride) if self.style == "torchvision" else (stride, 1)
        shortcut = bottom
        if project:
            shortcut = self.convolution(f"res{name}_branch1", bottom, 4 * width, (1, 1, 1), (1, stride, stride))
            shortcut = self.norm(f"{name}_branch1", shortcut)
        a = self.unit(f"{name}_branch2a", bottom, width, (1, 1, 1), at_first)
        s = self.unit(f"{name}_branch2b", a, width, (1, 3, 3), at_middle)
        t_name = f"{name}_branch2b_t"
        if kind == "2D":
            mid = s
        elif kind == "A":
            mid = self.unit(t_name, s, width, (3, 1, 1), 1)
        else:
            mid = f"res{name}_branch2b_st"
            port = self.style == "port"
            source, stride_t = (a, at_middle) if kind == "B" else (s, 1)
            t = self.unit(t_name, source, width, (3, 1, 1), stride_t, relu=port)
            self.add(mid, s, t, "sum 1 1" if kind == "B" or port else "sum 0.5 0.5")
        c = self.unit(f"{name}_branch2c", mid, 4 * width, (1, 1, 1), 1, relu=False)
        self.add(f"res{name}", shortcut, c, "sum 1 1")
        return f"res{name}"

    def unit(
        self, branch: str, bottom: str, width: int, kernel: tuple[int, ...], stride: int, *, relu: bool = True
    ) -> str:
        """A convolution that keeps the size but for its stride, its norm, and a ReLU."""
        pad = tuple(k // 2 for k in kernel)
        top = self.convolution(f"res{branch}", bottom, width, kernel, (1, stride, stride), pad)
        top = self.norm(branch, top)
        if relu:
            self.relu(f"res{branch}_relu", top)
        return top

    def convolution(
        self,
        name: str,
        bottom: str,
        width: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        pad: tuple[int, ...] = (0, 0, 0),
    ) -> str:
        kernel, stride, pad = self.sizes(kernel), self.sizes(stride), self.sizes(pad)
        self.rows.append(Layer(name, "Convolution", (bottom,), name, width, kernel, stride, pad, ""))
        return name

    def norm(self, branch: str, bottom: str, note: str = "frozen") -> str:
        """BN in P3D; BatchNorm and Scale in the frame networks."""
        name = f"bn{branch}"
        if self.p3d:
            self.rows.append(Layer(name, "BN", (bottom,), name, None, (), (), (), note))
            return name
        self.rows.append(Layer(name, "BatchNorm", (bottom,), name, None, (), (), (), ""))
        self.rows.append(Layer(f"scale{branch}", "Scale", (name,), f"scale{branch}", None, (), (), (), ""))
        return f"scale{branch}"

    def relu(self, name: str, top: str) -> None:
        self.rows.append(Layer(name, "ReLU", (top,), top, None, (), (), (), ""))

    def add(self, name: str, one: str, other: str, note: str) -> None:
        self.rows.append(Layer(name, "Eltwise", (one, other), name, None, (), (), (), note))
        self.relu(f"{name}_relu", name)

    def pool(
        self,
        name: str,
        bottom: str,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        pad: tuple[int, ...],
        note: str,
    ) -> str:
        kernel, stride, pad = self.sizes(kernel), self.sizes(stride), self.sizes(pad)
        self.rows.append(Layer(name, "Pooling3D", (bottom,), name, None, kernel, stride, pad, note))
        return name

    def sizes(self, each: tuple[int, ...]) -> tuple[int, ...]:
        return each[1:] if self.flat else each


def _c3d(widths: dict[str, int], kernels: tuple[int, ...], full: int, num_classes: int, head: str) -> list[Layer]:
    """Tran et al.'s network as they released it (C3D v1.0, Sports-1M), or their smaller one for UCF101.

    Args:
        widths: filters of each convolution; the last of a stage is pooled.
        kernels: frames that they see.
        full: outputs of fc6 and fc7.
        num_classes: of the head.
        head: its name.
    """
    rows = [Layer("data", "Input", (), "data", None, (), (), (), "")]
    top = "data"
    ones = (1, 1, 1)
    for (name, width), kernel in zip(widths.items(), kernels, strict=True):
        conv = f"conv{name}"
        pad = (kernel // 2, 1, 1)
        rows.append(Layer(conv, "Convolution", (top,), conv, width, (kernel, 3, 3), ones, pad, ""))
        rows.append(Layer(f"relu{name}", "ReLU", (conv,), conv, None, (), (), (), ""))
        top = conv
        if name == max(each for each in widths if each[0] == name[0]):
            window = (1, 2, 2) if name == "1a" else (2, 2, 2)
            pool = f"pool{name[0]}"
            rows.append(Layer(pool, "Pooling3D", (top,), pool, None, window, window, (0, 0, 0), "max, ceil mode"))
            top = pool
    for number in (6, 7):
        fc = f"fc{number}-1"
        rows.append(Layer(fc, "InnerProduct", (top,), fc, full, (), (), (), ""))
        rows.append(Layer(f"relu{number}", "ReLU", (fc,), fc, None, (), (), (), ""))
        rows.append(Layer(f"drop{number}", "Dropout", (fc,), fc, None, (), (), (), "ratio 0.5"))
        top = fc
    rows.append(Layer(head, "InnerProduct", (top,), head, num_classes, (), (), (), ""))
    return [*rows, Layer("prob", "Softmax", (head,), "prob", None, (), (), (), "")]
