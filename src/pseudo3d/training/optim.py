"""Which weights move, how fast, and which stay: parameter groups, the schedule, frozen batch norms."""

import math

import torch
from torch import nn

from pseudo3d.models import VideoModel
from pseudo3d.training.config import Optim


def parameter_groups(model: VideoModel, optim: Optim) -> list[dict]:
    """Groups for an optimizer: decay on convolution and head weights only, the head faster (the release).

    Frozen parameters are left out.
    """
    head = f"{model.head_name}."
    scaled: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_weight = parameter.ndim > 1  # batch norms and biases are vectors
        scale = optim.head_lr_scale * (1 if is_weight else 2) if name.startswith(head) else 1.0
        scale = scale if optim.head_lr_scale != 1 else 1.0
        scaled.setdefault((scale, optim.weight_decay if is_weight else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr": optim.lr * scale, "weight_decay": decay}
        for (scale, decay), parameters in scaled.items()
    ]


def make_optimizer(model: VideoModel, optim: Optim) -> torch.optim.Optimizer:
    """The optimizer that ``optim`` names over ``parameter_groups``."""
    groups = parameter_groups(model, optim)
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=optim.lr, fused=True)


def lr_factor(optim: Optim, step: int, steps: int, warmup_steps: int) -> float:
    """The learning rate at a step as a share of its highest.

    Example:
        >>> [round(lr_factor(Optim(), step, 101, 10), 2) for step in (0, 9, 10, 100)]
        [0.1, 1.0, 1.0, 0.0]
        >>> [lr_factor(Optim(schedule="step"), step, 10, 0) for step in (3, 4, 8)]
        [1.0, 0.1, 0.01]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if optim.schedule == "step":
        return round(optim.gamma ** sum(step >= milestone * steps for milestone in optim.milestones), 12)
    progress = (step - warmup_steps) / max(1, steps - 1 - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
