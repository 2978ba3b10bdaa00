"""Batch norms in training: which of them learn, their statistics, and norms that look at all processes' clips."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def freeze_batch_norms(model: nn.Module) -> None:
    """Fix every batch norm except the first (paper 3.3; bn_conv1 is the trainable one in the release). C3D has none.

    Its scale, shift and running statistics stay; call it after every ``model.train()``.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms[1:]:
        module.eval()
        module.requires_grad_(False)


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a batch needs more than one clip: of the batch norms that there are, the first one always learns."""
    return any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def running_statistics(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The buffers that a forward pass in training changes, each with a copy of its values."""
    return [
        (buffer, buffer.clone())
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d) and module.training
        for buffer in module.buffers()
    ]


class _Normalise(torch.autograd.Function):
    """(x - mean) * inv_std * weight + bias, where mean and inv_std are those of all processes' x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inv_std: Tensor, share: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, inv_std, share)
        centred = x.to(mean.dtype) - _wide(mean)
        return (centred * _wide(inv_std * weight) + _wide(bias)).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inv_std, share = ctx.saved_tensors
        grad = grads[0].to(mean.dtype)
        normed = (x.to(mean.dtype) - _wide(mean)) * _wide(inv_std)
        own = torch.stack([grad.sum((0, 2, 3)), (grad * normed).sum((0, 2, 3))])
        # what the statistics pass back comes from every process's output
        of_all = own.clone()
        dist.all_reduce(of_all)
        through = _wide(share * of_all[0]) + normed * _wide(share * of_all[1])
        grad_x = (grad - through) * _wide(inv_std * weight)
        # the parameters' gradients stay this process's own: DistributedDataParallel adds them up
        return grad_x.to(x.dtype), own[1].to(weight.dtype), own[0].to(weight.dtype), None, None, None


def _wide(channels: Tensor) -> Tensor:
    return channels.view(1, -1, 1, 1)


def _statistics(x: Tensor, counted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance (of a population) and count of each channel over all processes; the same bits on all."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    var, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
    count = torch.full_like(mean[:1], x.numel() / x.shape[1] if counted else 0)
    own = torch.cat([mean, var, count])
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own)
    means, variances, counts = torch.stack(every).split([len(mean), len(mean), 1], 1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    var = (counts * (variances + (means - mean).square())).sum(0) / total
    return mean, var, total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the micro-batches of all processes, which may differ in size; on GPUs and on processors.

    All processes call it equally often (give one that has no clips a stand-in, see ``standing_in``). In eval mode and
    without other processes it is a plain batch norm. Statistics are float32 under autocast.
    (torch.nn.SyncBatchNorm does the same on GPUs only.)
    """

    counted = True  # False: this process's micro-batch is a stand-in and has no part in the statistics

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) floating point -> the same shape and type."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        with torch.no_grad():
            mean, var, count = _statistics(x, self.counted)
            self._remember(mean, var * count / (count - 1))
        weight = self.weight if self.affine else torch.ones_like(mean)
        bias = self.bias if self.affine else torch.zeros_like(mean)
        share = 1 / count if self.counted else torch.zeros_like(count)
        y: Tensor = _Normalise.apply(x, weight, bias, mean, (var + self.eps).rsqrt(), share)
        return y

    def _remember(self, mean: Tensor, var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype), momentum)


def synchronise_batch_norms(model: nn.Module) -> None:
    """Make the batch norms that learn (in training mode, with parameters that move) ``SyncedBatchNorm2d``, in place.

    Parameters, buffers, hooks and names stay. Call it after ``freeze_batch_norms`` and before ``Group.wrap``.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval())
        >>> synchronise_batch_norms(model)
        >>> [type(module).__name__ for module in model]
        ['SyncedBatchNorm2d', 'BatchNorm2d']
    """
    for module in model.modules():
        if type(module) is nn.BatchNorm2d and module.training and any(p.requires_grad for p in module.parameters()):
            module.__class__ = SyncedBatchNorm2d  # it adds nothing to the state


@contextmanager
def standing_in(model: nn.Module) -> Iterator[None]:
    """While it is entered, what goes through ``model`` here has no part in the statistics of its synchronised norms.

    For a process that has no clips of its own in a micro-step and computes one with weight 0, because the others wait.
    """
    norms = [module for module in model.modules() if isinstance(module, SyncedBatchNorm2d)]
    for norm in norms:
        norm.counted = False
    try:
        yield
    finally:
        for norm in norms:
            del norm.counted  # of the class again
