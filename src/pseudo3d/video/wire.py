"""What a decoder process (``worker``) and its parent (``process``, ``pool``) say to each other.

Messages are pickles, one after the other, over the two pipes of the process; pixels go through memory that both map.
Nothing is locked between the two, so that either may be killed at any moment.
"""

import os
import pickle
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

from pseudo3d.video.clips import ClipFacts, ClipPlan


@dataclass(frozen=True)
class Begin:
    """To the process, first: where the shared file is (an inherited descriptor or a path), and its limits."""

    place: int | str
    memory: int | None  # bytes
    threads: int
    beat: float  # seconds from one sign of life to the next, while it decodes


@dataclass(frozen=True)
class Prepare:
    """To the process, before the first ``Job``: what the jobs ask for. The shared file has room for ``slots`` clips."""

    plan: ClipPlan
    slots: int


@dataclass(frozen=True)
class Job:
    """To the process: decode this file."""

    path: str


@dataclass(frozen=True)
class Free:
    """To the process: the clip in this slot has been used."""

    slot: int


@dataclass(frozen=True)
class Ready:
    """From the process, once: imports are done."""


@dataclass(frozen=True)
class Alive:
    """From the process: it makes progress."""


@dataclass(frozen=True)
class Filled:
    """From the process: clip ``number`` of its video is in this slot, until ``Free``."""

    number: int
    slot: int


@dataclass(frozen=True)
class Done:
    """From the process: its video is decoded."""

    facts: ClipFacts


@dataclass(frozen=True)
class Unusable:
    """From the process: why its video fails; ``last``: the process ends itself afterwards, its state is doubtful."""

    reason: str
    last: bool = False


@dataclass(frozen=True)
class Mistake:
    """From the process: the plan or an option is wrong, whatever the video."""

    text: str


@dataclass(frozen=True)
class Log:
    """From the process: a line for the logger "pseudo3d"."""

    level: int
    text: str


Reply = Ready | Alive | Filled | Done | Unusable | Mistake | Log


def send(pipe: BinaryIO, message: object) -> None:
    """Write one message.

    Raises:
        OSError: nobody reads any more.
    """
    pickle.dump(message, pipe)
    pipe.flush()


def receive(pipe: BinaryIO) -> Iterator[Any]:
    """The messages until the other side closes its end, on purpose or by dying in the middle of one."""
    while True:
        try:
            message = pickle.load(pipe)
        except (EOFError, pickle.UnpicklingError):
            return
        yield message


def clip_shape(plan: ClipPlan) -> tuple[int, int, int, int]:
    """(T, h, w, 3) of every clip of a plan.

    Example:
        >>> from pseudo3d.preprocessing import Preprocessing
        >>> clip_shape(ClipPlan(Preprocessing(num_frames=16, crop=(160, 160))))
        (16, 160, 160, 3)
    """
    return plan.preprocessing.num_frames, *plan.preprocessing.crop, 3


def shared_bytes(plan: ClipPlan, slots: int) -> int:
    """Bytes of the shared file."""
    return slots * prod(clip_shape(plan))


def create_shared_file() -> tuple[int, int | str]:
    """An empty file to share with a new process: its descriptor, and what ``Begin`` says of it.

    On Linux it has no name, so that nothing can be left behind, and it is not in /dev/shm, of which containers often
    have 64 MB only. Elsewhere it is a file in the temporary folder, which the process unlinks when it has opened it
    (on Windows, the parent when the process has ended).
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pseudo3d-clips")
        return descriptor, descriptor
    return tempfile.mkstemp(prefix="pseudo3d-clips-")
