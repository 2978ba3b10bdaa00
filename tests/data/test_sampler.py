"""The steps of a run: the same for any number of processes, every video once an epoch, resumable."""

import subprocess
import sys
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudo3d.data.sampler import StepSampler
from pseudo3d.errors import Pseudo3dError

VIDEOS, BATCH, SEED = st.integers(1, 60), st.integers(1, 20), st.integers(0, 9)


def run_of(sampler, start, stop):
    sampler.start, sampler.stop = start, stop
    steps = list(sampler)
    assert len(steps) == len(sampler) == stop - start
    return steps


@given(VIDEOS, BATCH, SEED, st.booleans())
def test_every_epoch_shows_every_video_once(videos, batch, seed, drop_single):
    if drop_single and videos == 1 and batch > 1:
        return
    sampler = StepSampler(videos, batch, seed=seed, drop_single=drop_single)
    dropped = drop_single and batch > 1 and videos % batch == 1
    for epoch in (1, 2, 5):
        first = (epoch - 1) * sampler.steps_per_epoch
        steps = [sampler.keys(step) for step in range(first, first + sampler.steps_per_epoch)]
        assert [len(keys) for keys in steps[:-1]] == [batch] * (len(steps) - 1)
        shown = [key.video for key in chain(*steps)]
        assert len(set(shown)) == len(shown) == videos - dropped
        assert set(shown) <= set(range(videos))
        assert {key.epoch for key in chain(*steps)} == {epoch}
        assert all(key.counted for key in chain(*steps))


@given(VIDEOS, BATCH, SEED)
def test_spares_come_from_outside_the_batch(videos, batch, seed):
    sampler = StepSampler(videos, batch, seed=seed)
    for step in range(sampler.steps_per_epoch + 1):
        keys = sampler.keys(step)
        batch_videos = {key.video for key in keys}
        for key in keys:
            left_out = batch_videos if len(batch_videos) < videos else {key.video}
            assert len(set(key.spares)) == len(key.spares) == min(3, videos - len(left_out))
            assert set(key.spares) <= set(range(videos)) - left_out


def test_any_other_video_may_be_a_spare():
    sampler = StepSampler(12, 4, seed=0)
    keys = [key for step in range(300) for key in sampler.keys(step)]
    for video in range(12):
        spares = {spare for key in keys if key.video == video for spare in key.spares}
        assert spares == set(range(12)) - {video}


@given(VIDEOS, BATCH, SEED, st.integers(1, 6))
def test_the_shares_of_the_processes_make_up_the_batch(videos, batch, seed, world_size):
    """Whoever trains together trains on what one process alone would train on, whatever their number."""
    alone = StepSampler(videos, batch, seed=seed)
    stop = alone.steps_per_epoch + 2
    shares = [
        run_of(StepSampler(videos, batch, seed=seed, rank=rank, world_size=world_size), 0, stop)
        for rank in range(world_size)
    ]
    for step in range(stop):
        whole = alone.keys(step)
        counted = sorted(key for share in shares for key in share[step] if key.counted)
        assert counted == sorted(whole)
        sizes = [sum(key.counted for key in share[step]) for share in shares]
        assert max(sizes) - min(sizes) <= 1  # nobody waits for long
        for share, size in zip(shares, sizes, strict=True):
            if size == 0:  # a process without a clip has one that does not count
                assert share[step] == [whole[0]._replace(counted=False)]
            else:
                assert all(key.counted for key in share[step])


@given(VIDEOS, BATCH, st.integers(0, 30), st.integers(0, 2))
def test_a_run_goes_on_where_it_stopped(videos, batch, start, rank):
    def sampler():
        return StepSampler(videos, batch, seed=3, rank=rank, world_size=3)

    assert run_of(sampler(), start, 40) == run_of(sampler(), 0, 40)[start:]
    again = sampler()
    assert run_of(again, 35, 40) == run_of(again, 35, 40)  # and it may be asked again


def test_orders_differ_between_epochs_and_seeds():
    def order(seed, epoch):
        sampler = StepSampler(50, 50, seed=seed)
        return [key.video for key in sampler.keys(epoch - 1)]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert order(0, 1) != sorted(order(0, 1))


def test_nothing_to_do():
    sampler = StepSampler(5, 2, seed=0)
    assert (list(sampler), len(sampler)) == ([], 0)
    assert run_of(sampler, 7, 7) == []


@pytest.mark.parametrize(
    ("videos", "batch", "rank", "world"), [(0, 2, 0, 1), (5, 0, 0, 1), (5, 2, 2, 2), (5, 2, -1, 2)]
)
def test_arguments_out_of_range(videos, batch, rank, world):
    with pytest.raises(Pseudo3dError, match="videos and batch_size must be at least 1 and rank below world_size, got"):
        StepSampler(videos, batch, seed=0, rank=rank, world_size=world)


def test_one_video_is_no_batch():
    with pytest.raises(Pseudo3dError, match="there is one video to train on only: batch norms learn from at least 2"):
        StepSampler(1, 4, seed=0, drop_single=True)


def test_planning_a_run_imports_no_torch():
    code = (
        "import sys, pseudo3d.data.sampler, pseudo3d.data.augmentation, pseudo3d.data.splits; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
