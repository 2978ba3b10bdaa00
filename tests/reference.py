"""Independent formulations that the networks are compared with: plain 3-D convolutions, nothing of our layout."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def randomise(module, seed=0):
    """Random weights and running statistics under which a deep residual network neither explodes nor vanishes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for name, m in module.named_modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                last = name.endswith("bn_c")
                uniform(m.weight, 0.1 if last else 0.6, 0.3 if last else 1.4)
                uniform(m.bias, -0.3, 0.3)
                uniform(m.running_mean, -0.3, 0.3)
                uniform(m.running_var, 0.5, 1.5)
            elif isinstance(m, torch.nn.Conv2d):
                fan_in = m.weight[0].numel()
                m.weight.copy_(torch.randn(m.weight.shape, generator=generator) * fan_in**-0.5)
            elif isinstance(m, torch.nn.Linear):
                m.weight.copy_(torch.randn(m.weight.shape, generator=generator) * 0.2)
                uniform(m.bias, -1, 1)
    return module


def batch_norm(x, bn):
    shape = (1, -1) + (1,) * (x.ndim - 2)
    scale = bn.weight / torch.sqrt(bn.running_var + 1e-5)
    return (x - bn.running_mean.view(shape)) * scale.view(shape) + bn.bias.view(shape)


def conv3d_bottleneck(block, x, kind, stride, style):
    """A P3D block on (N, C, T, H, W) with conv3d, written from the paper's equations and the release's coefficients."""
    first, middle = (1, stride) if style == "torchvision" else (stride, 1)
    a = F.relu(batch_norm(F.conv3d(x, block.conv_a.weight[:, :, None], stride=(1, first, first)), block.bn_a))
    s = F.conv3d(a, block.conv_s.weight[:, :, None], stride=(1, middle, middle), padding=(0, 1, 1))
    s = F.relu(batch_norm(s, block.bn_s))

    def temporal(y, step):
        weight = block.conv_t.weight[..., None]
        t = batch_norm(F.conv3d(y, weight, stride=(1, step, step), padding=(1, 0, 0)), block.bn_t)
        return t.clamp(min=0) if style == "port" else t

    if kind == "A":
        mid = F.relu(temporal(s, 1))
    elif kind == "B":
        mid = F.relu(s + temporal(a, middle))
    elif kind == "C":
        mid = F.relu((s + temporal(s, 1)) / (1 if style == "port" else 2))
    else:
        mid = s
    c = batch_norm(F.conv3d(mid, block.conv_c.weight[:, :, None]), block.bn_c)
    if x.shape[1] != c.shape[1] or stride != 1:
        x = batch_norm(
            F.conv3d(x, block.conv_shortcut.weight[:, :, None], stride=(1, stride, stride)), block.bn_shortcut
        )
    return F.relu(x + c)


def conv3d_network(model, clips, depths, blocks, style):
    """P3D ResNet with conv3d and max_pool3d: the activations of every public layer."""
    out = {}
    x = F.conv3d(clips, model.stem.conv1.weight[:, :, None], stride=(1, 2, 2), padding=(0, 3, 3))
    x = F.relu(batch_norm(x, model.stem.bn_conv1))
    if style == "caffe":
        x = F.max_pool3d(x, (2, 3, 3), 2, ceil_mode=True)
    else:
        x = F.max_pool3d(x, (2, 3, 3), 2, padding=(0, 1, 1))
    counter = 0
    for number, depth in zip((2, 3, 4, 5), depths, strict=True):
        for i, block in enumerate(getattr(model, f"res{number}")):
            kind = "2D" if number == 5 else blocks[counter % len(blocks)]
            counter += 1
            x = conv3d_bottleneck(block, x, kind, 2 if number > 2 and i == 0 else 1, style)
        assert i == depth - 1
        out[f"res{number}"] = x
        if number < 5:
            x = F.max_pool3d(x, (2, 1, 1), (2, 1, 1))
    out["pool5"] = x.mean(dim=(2, 3, 4))
    out["logits"] = out["pool5"] @ model.fc.weight.T + model.fc.bias
    out["prob"] = torch.exp(out["logits"] - out["logits"].logsumexp(dim=1, keepdim=True))
    return out


def windows_max(x, sizes):
    """Maximum over windows that start at 0 and do not overlap; the last one is what is left (Caffe's ceil mode)."""
    for dim, size in zip((2, 3, 4), sizes, strict=True):
        x = torch.stack([part.amax(dim) for part in x.split(size, dim)], dim)
    return x


def convolution_by_shifts(x, weight, bias):
    """3x3x3 with zeros around, as the sum over 27 shifted copies."""
    t, h, w = x.shape[2:]
    padded = F.pad(x, (1,) * 6)
    y = bias.view(1, -1, 1, 1, 1).expand(len(x), -1, t, h, w)
    for i, j, k in np.ndindex(3, 3, 3):
        y = y + torch.einsum("oc,ncthw->nothw", weight[:, :, i, j, k], padded[:, :, i : i + t, j : j + h, k : k + w])
    return y


def c3d_network(model, clips):
    """C3D from the table of its paper: the activations of every public layer."""
    out = {}
    x = clips
    for name in ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b"):
        layer = getattr(model, name)
        x = convolution_by_shifts(x, layer.weight, layer.bias).clamp(min=0)
        if name == "conv5b":
            out["conv5b"] = x
        if name in ("conv1a", "conv2a", "conv3b", "conv4b", "conv5b"):
            x = windows_max(x, (1 if name == "conv1a" else 2, 2, 2))
    c, t, h, w = x.shape[1:]
    out["pool5"] = x = torch.stack([x[:, i, j, k, m] for i, j, k, m in np.ndindex(c, t, h, w)], dim=1)
    out["fc6"] = x = (x @ model.fc6.weight.T + model.fc6.bias).clamp(min=0)
    out["fc7"] = x = (x @ model.fc7.weight.T + model.fc7.bias).clamp(min=0)
    out["logits"] = x @ model.fc8.weight.T + model.fc8.bias
    out["prob"] = torch.exp(out["logits"] - out["logits"].logsumexp(dim=1, keepdim=True))
    return out


def relative_error(a, b):
    """Largest absolute difference as a share of the largest value."""
    return ((a - b).abs().max() / b.abs().max()).item()


def port_shapes(depths, num_classes, in_channels=3):
    """The keys and shapes of the well-known PyTorch port of P3D, written down from its class definitions."""
    shapes = {"conv1_custom.weight": (64, in_channels, 1, 7, 7)}

    def norm(key, width):
        for array in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{key}.{array}"] = (width,)

    norm("bn1", 64)
    inputs = 64
    for stage, (depth, width) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), start=1):
        extra = () if stage == 4 else (1,)  # the last stage is two-dimensional
        for i in range(depth):
            block = f"layer{stage}.{i}"
            shapes[f"{block}.conv1.weight"] = (width, inputs, *extra, 1, 1)
            norm(f"{block}.bn1", width)
            if stage == 4:
                shapes[f"{block}.conv_normal.weight"] = (width, width, 3, 3)
                norm(f"{block}.bn_normal", width)
            else:
                shapes[f"{block}.conv2.weight"] = (width, width, 1, 3, 3)
                norm(f"{block}.bn2", width)
                shapes[f"{block}.conv3.weight"] = (width, width, 3, 1, 1)
                norm(f"{block}.bn3", width)
            shapes[f"{block}.conv4.weight"] = (4 * width, width, *extra, 1, 1)
            norm(f"{block}.bn4", 4 * width)
            if i == 0:
                shapes[f"{block}.downsample.0.weight"] = (4 * width, inputs, *extra, 1, 1)
                norm(f"{block}.downsample.1", 4 * width)
            inputs = 4 * width
    return shapes | {"fc.weight": (num_classes, 2048), "fc.bias": (num_classes,)}


def random_state(shapes, seed=0):
    """Random arrays of these shapes under which a deep residual network neither explodes nor vanishes."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        if len(shape) > 2:
            state[key] = torch.randn(shape, generator=generator) * math.prod(shape[1:]) ** -0.5
        elif len(shape) == 2:
            state[key] = torch.randn(shape, generator=generator) * 0.2
        else:
            low, high = {"running_var": (0.5, 1.5), "weight": (0.5, 1.0)}.get(key.rpartition(".")[2], (-0.3, 0.3))
            state[key] = torch.rand(shape, generator=generator) * (high - low) + low
    return state


def port_network(state, clips, depths):
    """What the PyTorch port computes from its own keys: logits (N, classes). Clips are (N, C, 16, 160, 160)."""

    def norm(x, key):
        arrays = (state[f"{key}.{array}"] for array in ("running_mean", "running_var", "weight", "bias"))
        mean, var, weight, bias = (each.view(1, -1, *(1,) * (x.ndim - 2)) for each in arrays)
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def unit(x, conv, bn, **how):
        convolve = F.conv3d if x.ndim == 5 else F.conv2d
        return norm(convolve(x, state[f"{conv}.weight"], **how), bn)

    x = unit(clips, "conv1_custom", "bn1", stride=(1, 2, 2), padding=(0, 3, 3)).relu()
    x = F.max_pool3d(x, (2, 3, 3), stride=2, padding=(0, 1, 1))
    counter = 0
    for stage, depth in enumerate(depths, start=1):
        if stage == 4:
            n, c, t, h, w = x.shape
            x = x.view(n * t, c, h, w)
        for i in range(depth):
            block = f"layer{stage}.{i}"
            step = 1 if i or stage == 1 else 2 if stage == 4 else (1, 2, 2)
            y = unit(x, f"{block}.conv1", f"{block}.bn1", stride=step).relu()
            if stage == 4:
                y = unit(y, f"{block}.conv_normal", f"{block}.bn_normal", padding=1).relu()
            else:
                s = unit(y, f"{block}.conv2", f"{block}.bn2", padding=(0, 1, 1)).relu()
                kind = "ABC"[counter % 3]
                t = unit(y if kind == "B" else s, f"{block}.conv3", f"{block}.bn3", padding=(1, 0, 0)).relu()
                y = t if kind == "A" else s + t
            y = unit(y, f"{block}.conv4", f"{block}.bn4")
            if i == 0:
                x = unit(x, f"{block}.downsample.0", f"{block}.downsample.1", stride=step)
            x = (x + y).relu()
            counter += 1
        if stage < 4:
            x = F.max_pool3d(x, (2, 1, 1), stride=(2, 1, 1))
    return F.avg_pool2d(x, 5, stride=1).flatten(1) @ state["fc.weight"].T + state["fc.bias"]


TORCHVISION = {"conv_a": "conv1", "conv_s": "conv2", "conv_c": "conv3", "bn_a": "bn1", "bn_s": "bn2", "bn_c": "bn3",
               "conv_shortcut": "downsample.0", "bn_shortcut": "downsample.1"}  # fmt: skip


def torchvision_state(model):
    """The arrays of our 2-D network under torchvision's keys, written down key by key from torchvision's classes."""
    state = {}
    for key, value in model.state_dict().items():
        if key == "layout":  # ours alone
            continue
        parts = key.split(".")
        if parts[0] == "stem":
            key = ".".join([{"conv1": "conv1", "bn_conv1": "bn1"}[parts[1]], *parts[2:]])
        elif parts[0].startswith("res"):
            key = ".".join([f"layer{int(parts[0][3]) - 1}", parts[1], TORCHVISION[parts[2]], *parts[3:]])
        state[key] = value
    return state
