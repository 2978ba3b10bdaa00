"""What tests of decoder processes share: events gathered, clips compared, processes looked at."""

import time
from pathlib import Path

import numpy as np

from pseudo3d.video.clips import load_clips
from pseudo3d.video.pool import Decoded, NewClip


def collect(events):
    """By key: the copied clips by number, and the last event. Nothing may follow a video's last event."""
    clips, last = {}, {}
    for event in events:
        assert event.key not in last
        if isinstance(event, NewClip):
            clips.setdefault(event.key, {})[event.number] = event.frames.copy()
        else:
            last[event.key] = event
    return clips, last


def assert_as_in_process(clips, last, path, plan):
    expected = load_clips(path, plan.preprocessing, clips=plan.clips, sampler=plan.sampler)
    assert isinstance(last, Decoded)
    assert last.facts.rows == tuple(expected.rows)
    assert last.facts.starts == tuple(expected.starts)
    assert last.facts.num_frames == expected.num_frames
    assert sorted(clips) == list(range(len(expected.frames)))
    for number, frames in clips.items():
        np.testing.assert_array_equal(frames, expected.frames[number])


def children():
    """Processes that this one started and that have not been reaped."""
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def gone(pid):
    """Whether a process has ended; one that its new parent has not reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
