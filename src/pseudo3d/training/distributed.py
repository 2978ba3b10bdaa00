"""Training by several processes: who they are and what they add up.

``torchrun`` starts the processes and says by environment variables which one each is. Each computes its share of every
batch; DistributedDataParallel averages the gradients, so that a loss multiplied by ``Group.size`` gives the gradient of
the whole batch. On GPUs gradients go by NCCL and small things by gloo; on processors everything goes by gloo.
"""

import os
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from pseudo3d.cpus import available_cpus
from pseudo3d.errors import Pseudo3dError, printable
from pseudo3d.inference import choose_device

LIMIT = timedelta(minutes=30)  # for the slowest process to come to where the others wait for it
_POLL = 0.05  # seconds


@dataclass(frozen=True)
class Group:
    """The processes that train one network, as one of them sees it.

    Every method but ``wrap`` is called by all processes in the same order; each waits for the others.

    Args:
        rank: the number of this process, from 0.
        size: how many there are.
        device: the device of this process ("cuda:1"), where the group decides it.
        on_machine: its number among the processes of its machine, and how many these are.

    Example:
        >>> SINGLE.is_main, SINGLE.total([1, 2.5]), SINGLE.any(False), SINGLE.gather("a")
        (True, [1.0, 2.5], False, ['a'])
    """

    rank: int = 0
    size: int = 1
    device: str | None = None
    on_machine: tuple[int, int] = (0, 1)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """The sums over all processes, in float64; each gives as many values. The same bits on every process."""
        if self.size == 1:
            return [float(value) for value in values]
        return torch.tensor(self.gather(list(values)), dtype=torch.float64).sum(0).tolist()

    def any(self, flag: bool) -> bool:
        """Whether any process says True."""
        return any(self.gather(flag))

    def gather(self, obj: Any) -> list[Any]:
        """A small object that can be pickled from each process, by rank, on every process."""
        if self.size == 1:
            return [obj]
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, obj)
        return gathered

    def decided(self, decide: Callable[[], Any]) -> Any:
        """What process 0 decides, on every process; its Pseudo3dError is raised on every process, too."""
        decision: Any = None
        if self.is_main:
            try:
                decision = decide()
            except Pseudo3dError as error:
                decision = error
        decision = self.gather(decision)[0]
        if isinstance(decision, Pseudo3dError):
            raise decision
        return decision

    def barrier(self) -> None:
        """Go on when all have come here."""
        self.gather(None)  # dist.barrier() would take a GPU for it

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward pass averages the gradients over the processes; alone, the model itself.

        The parameters of process 0 go to all at once. Running statistics of batch norms do not (``share_buffers``).

        Args:
            model: on this process's device, with at least one parameter that learns; each of these takes part in every
                forward pass.
        """
        if self.size == 1:
            return model
        return DistributedDataParallel(
            model, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=False
        )

    def share_buffers(self, model: nn.Module) -> None:
        """Give every process the buffers of process 0, which saves them: the running statistics of batch norms.

        Each process gathers statistics of its own micro-batches. Shared before a validation, they make all processes
        score the one network that is saved, and nothing but its checkpoint decides the scores of a run that goes on.
        """
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer.detach(), 0)


SINGLE = Group()


class FirstAlone(Group):
    """The first of several processes without the others, who are taken to say and do what it does itself.

    What one of them has to load, hold and compute can be seen before any is started.

    Example:
        >>> FirstAlone(0, 4).gather("a")
        ['a', 'a', 'a', 'a']
    """

    def gather(self, obj: Any) -> list[Any]:
        """The object, as often as there are processes."""
        return [obj] * self.size

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model itself."""
        return model

    def share_buffers(self, model: nn.Module) -> None:
        """They are the same."""


def first_alone(device: str, size: int) -> Group:
    """What ``open_group`` would give the first of ``size`` processes of this machine, which is alone here."""
    if size == 1:
        return SINGLE
    chosen = _own_device(device, 0, size)
    _share_threads(size)
    return FirstAlone(0, size, str(chosen), (0, size))


@contextmanager
def open_group(device: str) -> Iterator[Group]:
    """The group that torchrun's environment (RANK, WORLD_SIZE, LOCAL_RANK) puts this process in; else ``SINGLE``.

    It ends with the block, also by an exception and when other processes are dead. An error that process 0 may have
    as well, or that came of another process's end, is held back for some seconds: torchrun ends this process in that
    time, and the user reads the one that matters. Where torchrun sets OMP_NUM_THREADS to 1, the machine's cores are
    divided among its processes; any other number is kept.

    Args:
        device: "auto" and "cuda" give each process of a machine its own GPU, "cpu" shares the processor out.

    Raises:
        Pseudo3dError: more processes than GPUs on a machine, a device that cannot be shared, an incomplete
            environment; or the other processes were lost while the block ran.

    Example:
        >>> with open_group("cpu") as group:
        ...     group
        Group(rank=0, size=1, device=None, on_machine=(0, 1))
    """
    rank, size, local_rank, local_size = _place(os.environ)
    if size == 1:
        yield SINGLE
        return
    chosen = _own_device(device, local_rank, local_size)
    _share_threads(local_size)
    try:
        with warnings.catch_warnings():
            # a new name in PyTorch 2.13 that 2.11 does not know; and the strides of 1x1 filters, which mean nothing
            for told in ("`broadcast_buffers` is deprecated", "Grad strides do not match bucket view"):
                warnings.filterwarnings("ignore", told)
            _join(rank, size, chosen)
            yield Group(rank, size, str(chosen), (local_rank, local_size))
    except Exception as error:
        _leave(failed=True)
        lost = _lost_others(error)
        if lost or (rank > 0 and isinstance(error, Pseudo3dError)):
            _let_others_speak(10 if lost else 3)
        if lost:
            raise Pseudo3dError(
                f"process {rank} of {size} lost the others ({lost}); the first one that failed says why"
            ) from error
        raise
    except BaseException:
        _leave(failed=True)
        raise
    _leave(failed=False)


def _place(environ: Mapping[str, str]) -> tuple[int, int, int, int]:
    """Rank, processes, rank on this machine, processes on this machine."""
    if "RANK" not in environ or "WORLD_SIZE" not in environ:
        return 0, 1, 0, 1
    try:
        rank, size = int(environ["RANK"]), int(environ["WORLD_SIZE"])
        if size == 1:
            return 0, 1, 0, 1
        return rank, size, int(environ["LOCAL_RANK"]), int(environ["LOCAL_WORLD_SIZE"])
    except (KeyError, ValueError) as error:
        raise Pseudo3dError(
            f"RANK and WORLD_SIZE are set as for one of several processes, but not all of what torchrun sets "
            f"({printable(error)}); start with torchrun, or unset both"
        ) from error


def _own_device(name: str, local_rank: int, local_size: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = choose_device(name)
    if device.type == "cpu":
        return device
    if device.type != "cuda" or device.index is not None:
        raise Pseudo3dError(f"{local_size} processes cannot share the device {name!r}; use --device cuda or cpu")
    if local_rank >= torch.cuda.device_count():
        raise Pseudo3dError(
            f"{local_size} processes on a machine with {torch.cuda.device_count()} GPUs; "
            "start as many as there are GPUs, or use --device cpu"
        )
    return torch.device("cuda", local_rank)


def _share_threads(local_size: int) -> None:
    """Divide the processor's cores among this machine's processes, unless OMP_NUM_THREADS says otherwise."""
    # torchrun sets OMP_NUM_THREADS to 1 where it is not set, which leaves most cores idle; so 1 is not taken as said.
    if local_size > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(max(1, available_cpus() // local_size))


def _join(rank: int, size: int, device: torch.device) -> None:
    """Meet the other processes.

    After a failure, ``torchrun --max-restarts`` starts new processes but keeps its key-value store, in which they
    would find the keys that the dead ones left: gloo reads the addresses of dead processes there ("connectFullMesh
    failed ... Connection refused"), NCCL an old id. (torch's ``_create_c10d_store`` holds the store for a new one on
    every restart; ``DynamicRendezvousHandler.next_rendezvous`` keeps the first.) Nor does TORCHELASTIC_RESTART_COUNT
    tell the rounds apart: machines that come late count from 0, and machines that join restart everybody uncounted.
    So the processes agree on a name under which the store is still empty.
    """
    try:
        store, _, _ = next(rendezvous("env://", timeout=LIMIT))
        store.set_timeout(LIMIT)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore(agree(store, rank, size), store),
            rank=rank,
            world_size=size,
            timeout=LIMIT,
            device_id=device if device.type == "cuda" else None,
        )
    except ValueError as error:  # of an environment without MASTER_ADDR or MASTER_PORT
        raise Pseudo3dError(printable(error)) from error
    if device.type == "cuda":
        torch.cuda.set_device(device)


def agree(store: dist.Store, rank: int, size: int, limit: float = LIMIT.total_seconds()) -> str:
    """A name that the processes of this round, and no others before or after, agree on.

    Process 0 offers a new name, the others sign below it with one of their own, and process 0 confirms the signatures.
    Whoever meets an old offer finds no confirmation with its own signature, and waits for the next offer.

    Args:
        store: shared by all rounds; it may hold anything of former ones.
        rank: the number of this process in the round.
        size: how many there are in the round.
        limit: seconds to wait for the others.

    Raises:
        Pseudo3dError: not all have come in time.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + limit

    def wait() -> None:
        if time.monotonic() > deadline:
            raise Pseudo3dError(f"process {rank} of {size} has waited {limit:.0f} s for the others to start")
        time.sleep(_POLL)

    if rank == 0:
        store.set("pseudo3d/offer", own)
        signatures = [own]
        for other in range(1, size):
            while not store.check([f"pseudo3d/{own}/{other}"]):
                wait()
            signatures.append(store.get(f"pseudo3d/{own}/{other}").decode())
        store.set(f"pseudo3d/{own}/confirmed", ",".join(signatures))
        return own
    while True:
        if store.check(["pseudo3d/offer"]):
            offer = store.get("pseudo3d/offer").decode()
            store.set(f"pseudo3d/{offer}/{rank}", own)
            confirmed = f"pseudo3d/{offer}/confirmed"
            if store.check([confirmed]) and own in store.get(confirmed).decode().split(","):
                return offer
        wait()


def _leave(*, failed: bool) -> None:
    """End the group; after a failure without waiting for processes that may be dead."""
    if not dist.is_initialized():
        return
    if failed:  # an orderly end of NCCL waits for the others, and for work on the GPU that will never be done
        dist.distributed_c10d._abort_process_group()
    else:
        dist.destroy_process_group()


def _lost_others(error: Exception) -> str:
    """What a failed communication says, or "" for other errors."""
    text = str(error).strip()
    if not isinstance(error, dist.DistError) and not (type(error) is RuntimeError and "gloo/transport" in text):
        return ""  # gloo's errors are known by the place in its source
    first = text.splitlines()[0] if text else type(error).__name__
    return printable(first.split("] ", 1)[-1] if first.startswith("[") else first)  # not the place in torch's source


def _let_others_speak(seconds: float) -> None:
    """Wait for torchrun to end this process, as it does when another one has failed: that one says why."""
    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(seconds)
    signal.signal(signal.SIGTERM, before)
