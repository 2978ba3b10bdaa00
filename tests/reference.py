"""Independent formulations that the networks are compared with: plain 3-D convolutions, nothing of our layout."""

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


def relative_error(a, b):
    """Largest absolute difference as a share of the largest value."""
    return ((a - b).abs().max() / b.abs().max()).item()
