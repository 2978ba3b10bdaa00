"""How much memory a step of training needs and how much there is, so that too little is told before the first step."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from pseudo3d.errors import Pseudo3dError
from pseudo3d.models.blocks import Bottleneck
from pseudo3d.models.resnet import VideoResNet

# A step needs more than what it keeps: the gradients of the layers that it is just at, and what the convolutions and
# the allocator take for themselves. With this share the sum was within 15 % of the growth of the process's peak memory
# over two steps, for P3D-14, P3D-50, P3D-152, ResNet-50 and C3D, in float32 and bfloat16, with and without recomputing.
WORKING_SHARE = 0.35
# What torch and its libraries say when memory runs out, in small letters.
_NO_MEMORY = ("allocate memory", "not enough memory", "out of memory", "bad_alloc", "alloc_failed", "create a memory")
_STATES = {"adamw": 2, "sgd": 1}  # numbers that an optimizer keeps for each one that it moves


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a step of training takes, as ``measure_need`` finds them.

    Args:
        fixed: whatever the batch: weights, their gradients, the optimizer's state, weights cast to another precision.
        per_clip: kept of every clip from the forward to the backward pass, its input included, and with
            ``checkpoint_activations`` the inside of the block that is largest.

    Example:
        >>> MemoryNeed(fixed=100, per_clip=40).of(2)
        208
    """

    fixed: int
    per_clip: int

    def of(self, clips: int) -> int:
        """Bytes for so many clips at once, with ``WORKING_SHARE`` on what is kept of them."""
        return self.fixed + round(clips * self.per_clip * (1 + WORKING_SHARE))

    def largest(self, available: int) -> int:
        """How many clips at once fit into so many bytes; 0 when none do."""
        clips = int((available - self.fixed) / (self.per_clip * (1 + WORKING_SHARE)))
        return max(0, clips)


def measure_need(
    model: nn.Module, loss_of: Callable[[int], Tensor], *, clips: int, optimizer: Literal["adamw", "sgd"]
) -> MemoryNeed:
    """Count what a step keeps, by a forward pass of ``clips`` clips and one of one more.

    What autograd saves for the backward pass is counted and let go at once, so that a network is measured in less
    memory than it would train in. The model is left as it was: no gradients, and its buffers and the random state as
    before.

    Args:
        model: in training mode, frozen and placed as it will train.
        loss_of: the loss of a batch of so many clips, from their input on, as the step computes it (with its
            autocast). It runs the model itself and not a wrapper that talks to other processes.
        clips: at least as many as the network's batch norms need.
        optimizer: of the run; "sgd" is with momentum.

    Returns:
        The need; ``per_clip`` is the difference of the two passes.

    Raises:
        RuntimeError: not even the forward passes fit (torch says so).

    Example:
        >>> linear = nn.Linear(8, 2)
        >>> measure_need(linear, lambda n: linear(torch.ones(n, 8)).sum(), clips=2, optimizer="sgd")
        MemoryNeed(fixed=216, per_clip=32)
    """
    with _left_as_it_was(model):
        kept, kept_of_more = (_kept(model, loss_of, count) for count in (clips, clips + 1))
    per_clip = max(1, kept_of_more - kept)
    learning = sum(_size(p) for p in model.parameters() if p.requires_grad)
    there = sum(_size(tensor) for tensor in (*model.parameters(), *model.buffers()))
    constant = max(0, kept - clips * per_clip)
    return MemoryNeed(there + (1 + _STATES[optimizer]) * learning + constant, per_clip)


def check_memory(need: MemoryNeed, micro_batch: int, available: int | None, *, smallest: int) -> None:
    """Refuse a batch that does not fit, and say which one does.

    Args:
        need: of a step.
        micro_batch: clips that go through the network at once.
        available: bytes (``available_memory``); None is enough, since nobody knows better.
        smallest: the fewest clips at once that the network learns from: 2 where a batch norm learns, else 1.

    Raises:
        Pseudo3dError: too little memory. It names the largest micro-batch that fits and leaves no rest below
            ``smallest``, or says that none fits.

    Example:
        >>> check_memory(MemoryNeed(2**30, 2**30), 16, 12 * 2**30, smallest=2)
        Traceback (most recent call last):
        pseudo3d.errors.Pseudo3dError: 16 clips at once need about 22.6 GiB of memory and 12.0 GiB are free: use
        --micro-batch 8 (the same step in parts, with less memory)
    """
    if available is None or need.of(micro_batch) <= available:
        return
    fits = need.largest(available)
    few = micro_batch if fits >= smallest else smallest
    lack = f"about {_gib(need.of(few))} of memory and {_gib(available)} are free"
    raise Pseudo3dError(_smaller(micro_batch, fits, smallest, lack))


@contextmanager
def too_little_explained(clips: int, *, smallest: int) -> Iterator[None]:
    """What is raised within when memory runs out all the same, as one line that says which batch to try.

    Args:
        clips: that go through the network at once.
        smallest: as for ``check_memory``.

    Raises:
        Pseudo3dError: memory ran out; it names half of ``clips``, or says what else there is to do.

    Example:
        >>> with too_little_explained(16, smallest=2):
        ...     raise MemoryError
        Traceback (most recent call last):
        pseudo3d.errors.Pseudo3dError: 16 clips at once need more memory than there is: use --micro-batch 8 (the same
        step in parts, with less memory)
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not _ran_out(error):
            raise
        raise Pseudo3dError(_smaller(clips, clips // 2, smallest, "more memory than there is")) from error


@contextmanager
def too_little_beside_explained() -> Iterator[None]:
    """The same for what a run does beside its steps: making the network, loading clips, scoring videos.

    Raises:
        Pseudo3dError: memory ran out; it says what to do.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not _ran_out(error):
            raise
        raise Pseudo3dError(
            "memory ran out while making the network, loading clips or scoring videos: use a smaller --batch-size, "
            "--size or --model or fewer --workers, or end what else runs here"
        ) from error


def _ran_out(error: Exception) -> bool:
    """Whether it says that there is too little memory; torch has no class for that on a processor."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return any(words in str(error).lower() for words in _NO_MEMORY)


def _smaller(clips: int, fits: int, smallest: int, lack: str) -> str:
    """That so many clips need what ``lack`` says, and the largest micro-batch up to ``fits`` if there is one."""
    if fits < smallest:
        few = "1 clip needs" if smallest == 1 else f"{smallest} clips at once need"
        return (
            f"even {few} {lack}: use a smaller --size, a smaller --model or --checkpoint-activations, or end what else "
            "runs here"
        )
    parts = [count for count in range(fits, smallest - 1, -1) if not 0 < clips % count < smallest]
    return (
        f"{clips} clips at once need {lack}: use --micro-batch {parts[0] if parts else fits} (the same step in parts, "
        "with less memory)"
    )


def available_memory(device: torch.device) -> int | None:
    """Bytes that this process may still take on a device; None where nobody knows.

    On a processor what the system can give without swapping, and no more than the limits of the process (``ulimit``)
    and of the control groups that it is in (containers, Slurm). On a CUDA device what is free, with what PyTorch holds
    and does not use.

    Example:
        >>> available_memory(torch.device("meta")) is None
        True
    """
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    return host_memory() if device.type == "cpu" else None


def host_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """``available_memory`` of a processor; None where the system does not tell.

    Args:
        proc: where Linux tells of its processes.
        cgroups: where its control groups are, version 1 or 2.
    """
    system = _meminfo(proc / "meminfo")
    limits = [*_cgroup_rests(proc / "self" / "cgroup", cgroups), *_own_rests(proc / "self")]
    return min([*limits, *([] if system is None else [system])], default=None)


def _meminfo(path: Path) -> int | None:
    """MemAvailable; elsewhere than on Linux the free pages, which a system may not count."""
    if path.exists():
        fields = dict(line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line)
        if "MemAvailable" in fields:
            return 1024 * int(fields["MemAvailable"].split()[0])
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" in names and "SC_PAGE_SIZE" in names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _own_rests(process: Path) -> Iterator[int]:
    """What is left of the process's own limits: ``ulimit -v`` and ``ulimit -d``."""
    if not ((process / "limits").exists() and (process / "status").exists()):
        return
    limits, status = ((process / name).read_text(encoding="utf-8") for name in ("limits", "status"))
    for limit, use in (("Max address space", "VmSize"), ("Max data size", "VmData")):
        most = re.search(rf"^{limit} +(\d+) ", limits, re.MULTILINE)  # not "unlimited"
        used = re.search(rf"^{use}:\s+(\d+) kB", status, re.MULTILINE)
        if most and used:
            yield max(0, int(most[1]) - 1024 * int(used[1]))


def _cgroup_rests(membership: Path, root: Path) -> Iterator[int]:
    """What is left of the limit of each control group that the process is in, and of those above it.

    A container often sees its own group as the root while its membership names the path on the host: folders that are
    not there have no say.
    """
    lines = membership.read_text(encoding="utf-8").splitlines() if membership.exists() else []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "":
            top, limit, used, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            top, limit, used, cache = (
                root / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        else:
            continue
        group = top / path.strip("/")
        for folder in (group, *group.parents):
            if folder == top.parent:
                break
            if (folder / limit).exists() and (most := (folder / limit).read_text().strip()) != "max":
                # pages of files that were read and are not in use any more are given back when memory is short
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield max(0, int(most) - int((folder / used).read_text()) + int(stat.get(cache, 0)))


@contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Buffers (batch norms count their batches) and random states as before."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


class _Saved:
    """Counts the bytes of the storages that autograd saves, each once, without the model's own; keeps none of them."""

    def __init__(self, model: nn.Module) -> None:
        self.total = 0
        self._own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        self._alive: dict[int, StorageWeakRef] = {}

    def __call__(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        # An address counts again when what was there is gone: nothing is kept, so that addresses are used again.
        if address not in self._own and (address not in self._alive or self._alive[address].expired()):
            self._alive[address] = StorageWeakRef(storage)
            self.total += storage.nbytes()


def _kept(model: nn.Module, loss_of: Callable[[int], Tensor], clips: int) -> int:
    """Bytes that a step holds at once; of blocks that are recomputed, their inputs and the largest block's inside."""
    total = _saved_bytes(_Saved(model), loss_of, clips)
    if not (isinstance(model, VideoResNet) and model.checkpoint_activations):
        return total
    saved, sizes = _Saved(model), [0]
    blocks = [module for module in model.modules() if isinstance(module, Bottleneck)]
    before = [block.register_forward_pre_hook(lambda *_: sizes.append(-saved.total)) for block in blocks]
    after = [block.register_forward_hook(lambda *_: sizes.append(saved.total + sizes.pop())) for block in blocks]
    model.checkpoint_activations = False
    try:
        _saved_bytes(saved, loss_of, clips)
    finally:
        model.checkpoint_activations = True
        for hook in (*before, *after):
            hook.remove()
    return total + max(sizes)


def _saved_bytes(saved: _Saved, loss_of: Callable[[int], Tensor], clips: int) -> int:
    def never(_: None) -> Tensor:
        raise AssertionError("this graph is counted and never walked")

    with torch.enable_grad(), saved_tensors_hooks(saved, never):
        loss_of(clips)
    return saved.total


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
