"""The processes that load clips: the same batches for any number, and whatever becomes of them in one line."""

import os
import signal
import threading
import time

import pytest
import torch
from hanging_clips import HangingClips
from training_clips import ALL, steps_of

from pseudo3d import Pseudo3dError, VideoError
from pseudo3d.data import dataset, workers
from pseudo3d.data.annotations import SampleList
from pseudo3d.data.dataset import load, make_loader
from pseudo3d.data.sampler import StepSampler


def assert_same(batches, others):
    for one, other in zip(batches, others, strict=True):
        for field, other_field in zip(one, other, strict=True):
            assert torch.equal(field, other_field) if isinstance(field, torch.Tensor) else field == other_field


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a GPU needs page-locked memory")
def test_batches_in_page_locked_memory(clips):
    sampler = steps_of(StepSampler(3, 2, seed=0), 0, 3)
    pinned = list(load(make_loader(clips(), sampler, workers=1, pin_memory=True)))
    assert all(batch.frames.is_pinned() and batch.targets.is_pinned() for batch in pinned)
    assert_same(pinned, load(make_loader(clips(), sampler, workers=0)))


def test_a_worker_gives_the_same_batches(clips, processes):
    state = torch.get_rng_state()
    videos = clips(ALL, "broken.mp4")
    sampler = steps_of(StepSampler(4, 2, seed=0), 1, 6)
    spawned = list(load(make_loader(videos, sampler, workers=1)))
    assert any(batch.bad for batch in spawned)
    assert_same(spawned, load(make_loader(videos, sampler, workers=0)))
    assert torch.equal(torch.get_rng_state(), state)
    assert processes() == []


@pytest.mark.slow
def test_two_workers_are_deaf_to_interrupts_and_give_the_same_batches(clips, processes):
    videos = clips(ALL, "broken.mp4")
    sampler = steps_of(StepSampler(4, 2, seed=0), 0, 9)
    alone = list(load(make_loader(videos, sampler, workers=0)))
    batches = load(make_loader(videos, sampler, workers=2))
    first, both = next(batches), processes()
    assert len(both) == 2
    for worker in both:
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
    assert_same([first, *batches], alone)
    assert processes() == []


@pytest.mark.slow
def test_closing_early_ends_the_workers(clips, processes):
    before = signal.getsignal(signal.SIGCHLD)
    batches = load(make_loader(clips(), steps_of(StepSampler(3, 2, seed=0), 0, 10**6), workers=1))
    next(batches)
    assert len(processes()) == 1
    batches.close()
    assert processes() == []
    handler = signal.getsignal(signal.SIGCHLD)
    assert handler is before or "torch" in handler.__module__


@pytest.mark.slow
def test_a_killed_worker_is_told_where_a_batch_is_asked_for(clips, processes):
    batches = load(make_loader(clips(), steps_of(StepSampler(3, 1, seed=0), 0, 10**6), workers=1))
    next(batches)
    (worker,) = processes()
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()  # the signal of its death comes here, outside of the loader, and must not raise
    message = r"a process that decodes videos ended with signal 9.*; if memory ran out, use fewer --workers"
    with pytest.raises(Pseudo3dError, match=message) as raised:
        list(batches)
    assert "\n" not in str(raised.value)
    assert processes() == []


@pytest.mark.slow
def test_a_worker_killed_while_it_is_waited_for(clips, processes):
    videos = clips(ALL, "hang.mkv", kind=HangingClips)
    loader = make_loader(videos, steps_of(StepSampler(4, 4, seed=0), 0, 1), workers=1)

    def kill():
        while int(videos.reading[0, 0]) != 3:
            time.sleep(0.01)
        (worker,) = processes()
        os.kill(worker.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(Pseudo3dError, match=r"ended with signal 9 while it read \S*hang\.mkv; if memory ran out"):
        list(load(loader))
    killer.join()


@pytest.fixture
def impatient(monkeypatch):
    """Twelve seconds for a batch, of which workers need some to start; the rest is the video's, if it hangs."""
    monkeypatch.setattr(workers, "GRACE", 1.0)
    monkeypatch.setattr(dataset, "TIME_LIMIT", 12.0)
    monkeypatch.setattr(dataset, "CLIP_TIME_LIMIT", 0.0)
    monkeypatch.setattr(dataset, "HANG_SHARE", 0.3)
    return monkeypatch


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_decoder_that_hangs(clips, processes):
    videos = clips(ALL, "hang.mkv", kind=HangingClips)
    sampler = steps_of(StepSampler(4, 2, seed=0), 0, 5)
    batches = list(load(make_loader(videos, sampler, workers=2)))
    assert processes() == []  # killed, as they do not listen
    (reason,) = {reason for batch in batches for _, reason in batch.bad}
    assert reason.endswith("hang.mkv: reading hangs (given up after 12 s)")
    assert_as_if_unreadable(batches, clips(ALL, "broken.mp4"), sampler)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "given_up"), [(1, 1), (2, 0)], ids=["the only one twice on end", "both at once"])
@pytest.mark.usefixtures("impatient")
def test_workers_that_all_hang_tell_of_the_disk(clips, processes, number, given_up):
    videos = clips(ALL, "hang.mkv", "hang.mkv", "hang.mkv", kind=HangingClips)
    videos.samples = SampleList(videos.samples.root, videos.samples.samples[3:], videos.samples.class_names)
    assert_the_disk_is_told(videos, number, 12)
    assert len(videos.given_up) == given_up
    assert processes() == []


@pytest.mark.slow
def test_a_disk_that_is_slow(clips, processes, impatient):
    """No video has taken long when the time is over."""
    impatient.setattr(dataset, "TIME_LIMIT", 2.0)
    impatient.setattr(dataset, "HANG_SHARE", 100)
    videos = clips(ALL, "hang.mkv", kind=HangingClips)
    videos.samples = SampleList(videos.samples.root, videos.samples.samples[3:], videos.samples.class_names)
    assert_the_disk_is_told(videos, 1, 2)
    assert (videos.given_up, processes()) == ({}, [])


def assert_the_disk_is_told(videos, number, seconds):
    sampler = steps_of(StepSampler(len(videos), 1, seed=0), 0, 2)
    message = (
        rf"no clips came for {seconds} s: reading hangs or is far too slow, at \S*hang\.mkv.*; copy the videos to a"
    )
    with pytest.raises(Pseudo3dError, match=message):
        list(load(make_loader(videos, sampler, workers=number)))
    assert (sampler.start, sampler.stop) == (0, 2)


def assert_as_if_unreadable(batches, others, sampler):
    """The batches of a set whose last video cannot be opened, but for the reason; none is missing."""
    expected = list(load(make_loader(others, steps_of(sampler, 0, sampler.stop), workers=0)))
    assert any(batch.bad for batch in expected)
    told = [[(video, "") for video, _ in batch.bad] for batch in expected]
    assert told == [[(video, "") for video, _ in batch.bad] for batch in batches]
    assert_same([batch._replace(bad=[]) for batch in batches], [batch._replace(bad=[]) for batch in expected])


@pytest.mark.slow
def test_a_decoder_that_crashes(clips, processes):
    videos = clips(ALL, "crash.mkv", kind=HangingClips)
    sampler = steps_of(StepSampler(4, 2, seed=0), 0, 5)
    batches = list(load(make_loader(videos, sampler, workers=2)))
    assert processes() == []
    (reason,) = {reason for batch in batches for _, reason in batch.bad}
    assert reason.endswith("crash.mkv: crashes the process that decodes it")
    assert_as_if_unreadable(batches, clips(ALL, "broken.mp4"), sampler)


@pytest.mark.slow
def test_a_bad_video_of_a_worker_is_one_line(clips):
    only = clips(ALL, "broken.mp4")
    only.samples = SampleList(only.samples.root, only.samples.samples[3:], only.samples.class_names)
    with pytest.raises(VideoError, match=r"broken\.mp4: ") as raised:
        list(load(make_loader(only, steps_of(StepSampler(1, 1, seed=0), 0, 2), workers=1)))
    assert "\n" not in str(raised.value)


def test_large_batches_have_more_time(clips):
    loader = make_loader(clips(), StepSampler(3, 128, seed=0, world_size=2), workers=1)
    assert loader.timeout == 640
    assert make_loader(clips(), StepSampler(3, 16, seed=0), workers=1).timeout == 300
