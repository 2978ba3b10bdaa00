"""How many decoder processes, and starting them before PyTorch is imported (which this file does not do)."""

from typing import NamedTuple

from pseudo3d.cpus import available_cpus
from pseudo3d.video.pool import DecoderPool


class Decoders(NamedTuple):
    """What decoder processes are started with.

    Args:
        workers: their number; 0: decode in the process that asks.
        timeout: seconds without a sign of life after which one is stopped.
        memory: limit for each, GiB.
    """

    workers: int
    timeout: float
    memory: float

    def start(self) -> DecoderPool:
        """Start them; at least one.

        Raises:
            Pseudo3dError: a number out of range.
        """
        return DecoderPool(self.workers, timeout=self.timeout, memory=int(self.memory * (1 << 30)))


def default_workers(gpu: bool = False) -> int:
    """Decoder processes for this machine: one a core for a GPU; few beside a network that needs the cores itself.

    Example:
        >>> 1 <= default_workers() <= default_workers(gpu=True)
        True
    """
    cores = available_cpus()
    return cores if gpu else min(cores, max(2, cores // 8))
