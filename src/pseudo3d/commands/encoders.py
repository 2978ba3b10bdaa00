"""Commands that put videos through a network: decoders and network started side by side."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudo3d.features.encoding import Encoder


@contextlib.contextmanager
def started_encoder(
    *, workers: int | None = None, timeout: float = 60.0, memory: float = 2.0, early: bool = True, **options: Any
) -> Iterator["Encoder"]:
    """An ``Encoder`` whose decoders, unless others decode, have been started first; they are gone at the end.

    They import what they need while this process imports PyTorch, which takes seconds.

    Args:
        workers: as for ``Encoder``.
        timeout: as for ``Encoder``.
        memory: as for ``Encoder``.
        early: start them now.
        options: the other arguments of ``Encoder``.

    Raises:
        Pseudo3dError: a number out of range.
    """
    from pseudo3d.features.decoders import Decoders, default_workers

    if "torch" not in sys.modules:
        # A thread that waits for the others sleeps instead of turning: decoders need the cores that it would burn.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    decoders = Decoders(default_workers() if workers is None else workers, timeout, memory)
    with decoders.start() if early and decoders.workers else contextlib.nullcontext() as pool:
        from pseudo3d.features.encoding import Encoder

        encoder = Encoder(workers=workers, timeout=timeout, memory=memory, **options)
        if pool is not None:
            encoder.adopt(decoders, pool)
        with contextlib.closing(encoder):
            yield encoder
