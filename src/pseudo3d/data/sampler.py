"""Which videos are in which step of a run: the same batches for every number of processes; no torch here."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pseudo3d.errors import Pseudo3dError

_SPARES = 3


class ClipKey(NamedTuple):
    """One clip to draw (``TrainingClips`` takes these).

    Args:
        epoch: from 1.
        video: its place in the list of training videos.
        spares: videos to show instead, in this order, when it cannot be read.
        counted: False for a stand-in, of a process that has no clip in this step: it takes part in what all processes
            do together, and adds nothing to the gradient.
    """

    epoch: int
    video: int
    spares: tuple[int, ...] = ()
    counted: bool = True


class StepSampler:
    """The clips of every step of a run; an epoch shows each video once, in an order of its own.

    A step's batch depends on ``videos``, ``batch_size`` and ``seed`` alone. Of the processes that train together, each
    takes every ``world_size``-th clip of it::

        batch         7 2 9 4 0
        2 processes   7   9   0
                        2   4

    Iterating gives this process's keys for the steps from ``start`` to before ``stop``, across epochs, so that whoever
    loads ahead need not wait between them. A run that goes on at step s sets ``start`` to s.

    Args:
        videos: how many there are.
        batch_size: clips in a step, over all processes; the last batch of an epoch has what is left.
        seed: of the orders and the spares.
        rank: of this process, 0 to ``world_size`` - 1.
        world_size: processes that train together.
        drop_single: leave out a last batch of one clip, of which a batch norm cannot learn.

    Attributes:
        steps_per_epoch: batches in an epoch.
        start: the first step to iterate over; steps count from 0 over the whole run.
        stop: the step before which to stop.

    Raises:
        Pseudo3dError: an argument is out of range, or an epoch has no batch.

    Example:
        >>> sampler = StepSampler(5, 2, seed=0)
        >>> [[key.video for key in sampler.keys(step)] for step in range(sampler.steps_per_epoch)]
        [[0, 4], [3, 1], [2]]
        >>> sampler.keys(3)[0]
        ClipKey(epoch=2, video=0, spares=(2, 3, 4), counted=True)
        >>> second = StepSampler(5, 2, seed=0, rank=1, world_size=2)
        >>> second.start, second.stop = 1, 3
        >>> [[(key.video, key.counted) for key in keys] for keys in second]
        [[(1, True)], [(2, False)]]
    """

    def __init__(
        self,
        videos: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        drop_single: bool = False,
    ) -> None:
        if min(videos, batch_size) < 1 or not 0 <= rank < world_size:
            raise Pseudo3dError(
                f"videos and batch_size must be at least 1 and rank below world_size, got {videos}, {batch_size}, "
                f"{rank} and {world_size}"
            )
        self.videos, self.batch_size, self.seed = videos, batch_size, seed
        self.rank, self.world_size = rank, world_size
        drop = drop_single and batch_size > 1 and videos % batch_size == 1
        self.steps_per_epoch = -(-videos // batch_size) - drop
        if self.steps_per_epoch == 0:
            raise Pseudo3dError("there is one video to train on only: batch norms learn from at least 2; add videos")
        self.start = 0
        self.stop = 0
        self._order: tuple[int, np.ndarray] = (0, np.empty(0, np.int64))

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def __iter__(self) -> Iterator[list[ClipKey]]:
        for step in range(self.start, self.stop):
            keys = self.keys(step)
            yield keys[self.rank :: self.world_size] or [keys[0]._replace(counted=False)]

    def keys(self, step: int) -> list[ClipKey]:
        """The whole batch of a step, the same for every ``rank`` and ``world_size``; all its videos differ.

        Spares come from outside the batch, so that no video is in it twice, unless the batch is all there is. (Two
        clips of one batch may draw the same spare.)
        """
        epoch, batch = step // self.steps_per_epoch + 1, step % self.steps_per_epoch
        order = self._order_of(epoch)
        first = batch * self.batch_size
        places = range(first, min(first + self.batch_size, self.videos))
        return [ClipKey(epoch, int(order[place]), self._spares(epoch, place, order, places)) for place in places]

    def _order_of(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, 1, epoch)).permutation(self.videos)
        return self._order[1]

    def _spares(self, epoch: int, place: int, order: np.ndarray, batch: range) -> tuple[int, ...]:
        """Videos drawn from all places of the epoch but those of the batch, or but this one if there are no others."""
        left_out = batch if len(batch) < self.videos else range(place, place + 1)
        others = self.videos - len(left_out)
        rng = np.random.default_rng((self.seed, 2, epoch, place))
        drawn = rng.choice(others, min(_SPARES, others), replace=False)
        # numbers from the batch on stand for the places after it
        return tuple(int(order[number + len(left_out) * (number >= left_out.start)]) for number in drawn)
