"""The 8-bit network in float64 numbers, written from what ``inference/int8.py`` promises about its codes."""

import torch
import torch.nn.functional as F


def rounded_filters(weight):
    """To 255 levels, symmetric about 0, for each output channel."""
    weight = weight.double()
    step = weight.flatten(1).abs().amax(1).view(-1, 1, 1, 1) / 127
    return (weight / step).round() * step


def written(x, largest, signed=False):
    """``x`` after a stay in 8 bits."""
    levels, lowest = (127, -128) if signed else (255, 0)
    step = largest / levels
    return (x / step).round().clamp(lowest, levels) * step


def conv(x, layer):
    return F.conv2d(x, rounded_filters(layer.weight), layer.bias.double(), layer.stride, layer.padding)


def temporal(block, x, steps):
    """3x1x1 with plain indices: x is (N*T, C, H, W)."""
    x = x[:, :, :: block.stride_t, :: block.stride_t].unflatten(0, (-1, steps))
    before, after = torch.zeros_like(x), torch.zeros_like(x)
    before[:, 1:], after[:, :-1] = x[:, :-1], x[:, 1:]
    w = rounded_filters(block.conv_t.weight)[..., 0]
    y = sum(torch.einsum("oc,ntchw->ntohw", w[..., i], part) for i, part in enumerate((before, x, after)))
    return (y + block.conv_t.bias.double().view(-1, 1, 1)).flatten(0, 1)


def simulated_block(block, x, steps, ranges, style):
    def store(name, y):
        return written(y, ranges[name], signed=name == "shortcut")

    added_as_they_are = style == "port" and block.kind in "BC"
    a = store("a", conv(x, block.conv_a).relu())
    s = store("mid" if block.kind == "2D" or added_as_they_are else "s", conv(a, block.conv_s).relu())
    if block.kind == "2D":
        mid = s
    else:
        t = temporal(block, a if block.kind == "B" else s, steps)
        if added_as_they_are:
            mid = (s + store("mid", t.relu())).clamp(max=ranges["mid"])
        else:
            mid = store("mid", (t if block.kind == "A" else s + t).relu())
    shortcut = store("shortcut", conv(x, block.conv_shortcut)) if block.has_projection else x
    half = 0.5 if block.kind == "C" and style != "port" else 1.0
    c = F.conv2d(mid * half, rounded_filters(block.conv_c.weight), block.conv_c.bias.double())
    return store("out", (c + shortcut).relu())


def simulated_conv1(layer, clips, p):
    """Filters in units of grey levels, which are then exact; around a frame lies the mean as a whole grey level."""
    levels = clips.flatten(0, 1).permute(0, 3, 1, 2).double()
    levels = levels.flip(1) if p.channel_order == "BGR" else levels
    spread = (p.value_range[1] - p.value_range[0]) / 255
    zeros = ((torch.tensor(p.mean).double() - p.value_range[0]) / spread).view(1, -1, 1, 1)
    around = zeros.round().repeat(len(levels), 1, levels.shape[2] + 6, levels.shape[3] + 6)
    around[:, :, 3:-3, 3:-3] = levels
    filters = rounded_filters(layer.weight * (spread / torch.tensor(p.std)).view(1, -1, 1, 1))
    return F.conv2d(around - zeros, filters, layer.bias.double(), stride=2)


@torch.no_grad()
def simulated(model, ranges, clips, style="caffe"):
    """The 8-bit network in float64 numbers: every stage and pool5."""
    steps, has_time, out = clips.shape[1], model.has_time, {}
    x = written(simulated_conv1(model.stem.conv1, clips, model.preprocessing).relu(), ranges["stem"])
    if has_time:
        x, steps = x.unflatten(0, (-1, 2)).amax(1), steps // 2
    x = F.max_pool2d(x, 3, 2, ceil_mode=True) if style == "caffe" else F.max_pool2d(x, 3, 2, padding=1)
    for stage in ("res2", "res3", "res4", "res5"):
        for i, block in enumerate(getattr(model, stage)):
            own = {k.removeprefix(f"{stage}.{i}."): v for k, v in ranges.items() if k.startswith(f"{stage}.{i}.")}
            x = simulated_block(block, x, steps, own, style)
        out[stage] = x.unflatten(0, (-1, steps)).transpose(1, 2)
        if has_time and stage != "res5":
            x, steps = x.unflatten(0, (-1, 2)).amax(1), steps // 2
    out["pool5"] = out["res5"].mean(dim=(2, 3, 4))
    return out
