"""Decoding in processes: the same clips as without, and nothing that happens to a process ends the run."""

import contextlib
import gc
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from pools import assert_as_in_process, children, collect, gone, wait_until
from videos import damaged, numbered, write_video, yuv_frame

from pseudo3d.errors import Pseudo3dError
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video import pool as pool_module
from pseudo3d.video import process
from pseudo3d.video.clips import ClipPlan
from pseudo3d.video.pool import Decoded, DecoderPool, Failed, NewClip

SMALL = Preprocessing(num_frames=8, resize=40, crop=(32, 32))
PLAN = ClipPlan(SMALL, clips=5)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, or needs a limit that only Linux keeps")


@pytest.fixture
def odd(monkeypatch):
    """Processes whose files misbehave as their names say (tests/odd_worker.py)."""
    monkeypatch.setattr(process, "_WORKER", "odd_worker")


@pytest.fixture
def make(tmp_path, bars):
    """Copies of one video of 40 numbered frames, by name."""

    def copy(*names):
        return [Path(shutil.copy(bars, tmp_path / name)) for name in names]

    return copy


def test_clips_are_those_of_one_process(make, tmp_path):
    """Also of odd names, of short and of damaged files; and the processes do a second stream, with larger clips."""
    paths = make("a.mp4", "two\nlines: 50%.mp4", os.fsdecode(b"not utf-8 \xff\xfe.mp4"), "-rf.mp4")
    paths.append(write_video(tmp_path / "short.mkv", numbered(5)))
    paths.append(damaged(tmp_path))
    larger = ClipPlan(Preprocessing(num_frames=16, resize=64, crop=(64, 64)), sampler="sliding")
    with DecoderPool(workers=2) as pool:
        for plan in (PLAN, larger):
            clips, last = collect(pool.stream(enumerate(paths), plan))
            assert len(last) == len(paths)
            for key, path in enumerate(paths):
                assert_as_in_process(clips[key], last[key], path, plan)


def test_real_files_are_those_of_one_process(real_data):
    paths = sorted(path for path in (real_data / "odd").iterdir() if path.stat().st_size < 400_000)
    plan = ClipPlan(Preprocessing(), clips=3)
    with DecoderPool(workers=2) as pool:
        clips, last = collect(pool.stream(((path.name, path) for path in paths), plan))
    assert sum(isinstance(event, Decoded) for event in last.values()) >= 8
    for path in paths:
        if path.suffix == ".wav":
            assert last[path.name] == Failed(
                path.name, f"{path}: has no video stream (only audio); is it a sound file?"
            )
        else:
            assert_as_in_process(clips[path.name], last[path.name], path, plan)


def test_what_is_wrong_with_a_file_is_told_as_without_processes(make, tmp_path):
    (tmp_path / "empty.mp4").touch()
    paths = [tmp_path / "empty.mp4", tmp_path / "missing\n.mp4", *make("good.mp4")]
    with DecoderPool(workers=1) as pool:
        clips, last = collect(pool.stream(((path, path) for path in paths), PLAN))
    assert last[paths[0]].reason == f"{paths[0]}: the file is empty (0 bytes); copy or download it again"
    assert last[paths[1]].reason == f"{paths[1]}: there is no such file; check the path"
    assert set(clips) == {paths[2]}


FAILURES = {
    "hang": "the decoder gave no sign of life for 1.5 s and was stopped; .* with a longer timeout",
    "exit": r"the decoder crashed \(exit code 3: assertion failed: a > b\); .* convert it anew",
    "bug": r"the decoder crashed \(exit code 1: KeyError: 'no such thing'\)",
}
if sys.platform == "linux":
    FAILURES["crash"] = r"the decoder crashed \(signal 11, Segmentation fault\); the file may be damaged"
    FAILURES["bomb"] = "decoding it needs more than 0.2 GiB of memory, the limit of one decoder; raise the limit"


@pytest.mark.usefixtures("odd")
def test_a_process_that_fails_costs_one_video(make):
    names = ["a", "hang_1", *(word for name in FAILURES for word in (f"{name}_2", f"plain_{name}"))]
    paths = make(*(f"{name}.mp4" for name in names))
    with DecoderPool(workers=2, timeout=1.5, memory=256 << 20) as pool:
        clips, last = collect(pool.stream(enumerate(paths), PLAN))
    assert len(last) == len(paths)
    for key, path in enumerate(paths):
        reason = FAILURES.get(path.name.split("_")[0])
        if reason:
            assert list(clips[key]) == [0]  # what was decoded before came, and is to be dropped
            assert last[key].reason.startswith(f"{path}: ")
            assert re.search(reason, last[key].reason)
        else:
            assert_as_in_process(clips[key], last[key], path, PLAN)


@pytest.mark.usefixtures("odd")
def test_a_bug_keeps_its_traceback(make, caplog):
    with DecoderPool(workers=1) as pool:
        collect(pool.stream(enumerate(make("bug_1.mp4")), PLAN))
    assert "bug_1.mp4: the decoder wrote as it ended:\nTraceback" in caplog.text
    assert 'raise KeyError("no such thing")' in caplog.text


@pytest.mark.usefixtures("odd")
def test_a_slow_video_that_makes_progress_is_not_stopped(make):
    path = make("slow_1.mp4")[0]  # 2 s without a frame
    with DecoderPool(workers=1, timeout=1) as pool:
        clips, last = collect(pool.stream([(0, path)], PLAN))
    assert_as_in_process(clips[0], last[0], path, PLAN)


@pytest.mark.usefixtures("odd")
def test_what_a_process_prints_and_logs(make, caplog, capfd):
    paths = make("print_1.mp4", "log_1.mp4")
    with caplog.at_level(logging.INFO), DecoderPool(workers=1) as pool:
        clips, last = collect(pool.stream(enumerate(paths), PLAN))
    for key, path in enumerate(paths):
        assert_as_in_process(clips[key], last[key], path, PLAN)
    assert caplog.record_tuples == [("pseudo3d", logging.WARNING, f"{paths[1]}: a line for the log")]
    assert capfd.readouterr() == ("", "")


def test_damage_is_logged_here(tmp_path, caplog):
    path = damaged(tmp_path)
    with DecoderPool(workers=1) as pool:
        _, last = collect(pool.stream([(0, path)], PLAN))
    undecodable = last[0].facts.undecodable_packets
    assert undecodable > 0
    assert f"{path}: FFmpeg could not decode {undecodable} packets" in caplog.text


def test_processes_that_cannot_start(make, monkeypatch):
    monkeypatch.setattr(process, "_WORKER", "no_such_worker")
    for workers in (1, 2):
        with (
            DecoderPool(workers) as pool,
            pytest.raises(
                Pseudo3dError, match=r"before they have decoded anything \(exit code 1: .*no_such_worker.*PyAV"
            ),
        ):
            collect(pool.stream(enumerate(make("a.mp4")), PLAN))


def test_processes_that_hang_at_the_start(make, tmp_path, monkeypatch):
    (tmp_path / "hanging_worker.py").write_text("import time\ntime.sleep(1000)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(process, "_WORKER", "hanging_worker")
    monkeypatch.setattr(pool_module, "_START", 0.4)
    with (
        DecoderPool(workers=2, timeout=0.4) as pool,
        pytest.raises(Pseudo3dError, match=r"before they have decoded anything \(no sign of life for 0.4 s\)"),
    ):
        collect(pool.stream(enumerate(make("a.mp4")), PLAN))


def test_a_wrong_plan_is_nobodys_fault(make):
    with DecoderPool(workers=1) as pool:
        with pytest.raises(Pseudo3dError, match="stride"):
            collect(pool.stream(enumerate(make("a.mp4")), ClipPlan(SMALL, sampler="sliding", stride=0)))
        _, last = collect(pool.stream(enumerate(make("b.mp4")), PLAN))  # by new processes
    assert isinstance(last[0], Decoded)


def test_the_processes_find_the_package_as_this_one_does(make, tmp_path, monkeypatch):
    """Through a changed sys.path; and not by chance in the current folder."""
    (tmp_path / "av.py").write_text("raise SystemExit('the wrong av')")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "late_worker.py").write_text("from pseudo3d.video.worker import main\nmain()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.setattr(process, "_WORKER", "late_worker")
    path = make("a.mp4")[0]
    with DecoderPool(workers=1) as pool:
        clips, last = collect(pool.stream([(0, path.name)], PLAN))
    assert_as_in_process(clips[0], last[0], path, PLAN)


def test_without_nameless_files(make, monkeypatch, tmp_path):
    """As on macOS and Windows: the shared file has a name, until the process has opened it."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    (tmp_path / "temp").mkdir()
    path = make("a.mp4")[0]
    with DecoderPool(workers=1) as pool:
        assert len(list((tmp_path / "temp").iterdir())) == 1
        clips, last = collect(pool.stream([(0, path)], PLAN))
        assert sys.platform == "win32" or list((tmp_path / "temp").iterdir()) == []
    assert list((tmp_path / "temp").iterdir()) == []
    assert_as_in_process(clips[0], last[0], path, PLAN)


@pytest.mark.usefixtures("odd")
def test_a_slow_consumer_bounds_the_processes_and_is_not_their_fault(make):
    """They decode as far ahead as they have slots, wait longer than the timeout, and go on."""
    sliding = ClipPlan(SMALL, sampler="sliding", stride=1)  # 33 clips
    path = make("a.mp4")[0]
    with DecoderPool(workers=1, slots=2, timeout=0.5) as pool:
        events = pool.stream([(0, path)], sliding)
        first = next(events)
        before = first.frames.copy()
        time.sleep(0.8)
        np.testing.assert_array_equal(first.frames, before)
        assert pool._said.qsize() == 1  # one slot is in our hands, the other one filled
        _, last = collect(events)
    assert isinstance(last[0], Decoded)


def test_frames_may_be_kept_too_long_but_not_changed(make):
    with DecoderPool(workers=1) as pool:
        events = pool.stream(enumerate(make("a.mp4")), PLAN)
        frames = next(events).frames
        with pytest.raises(ValueError, match="read-only"):
            frames[:] = 0
        events.close()
    assert frames.sum() > 0  # still mapped


@linux
@pytest.mark.usefixtures("odd")
def test_stopping_early_ends_all_and_a_new_stream_begins(make):
    paths = make("a.mp4", "hang_1.mp4", "b.mp4", "c.mp4", "d.mp4")
    before = children()
    with DecoderPool(workers=2) as pool:
        started = children() - before
        assert len(started) == 2
        events = pool.stream(enumerate(paths), PLAN)
        assert isinstance(next(events), NewClip)
        events.close()
        assert children() - before == set()
        good = [path for path in paths if "hang" not in path.name]
        clips, last = collect(pool.stream(enumerate(good), PLAN))
        for key, path in enumerate(good):
            assert_as_in_process(clips[key], last[key], path, PLAN)
        events = pool.stream([(0, paths[1])], PLAN)
        next(events)
    assert children() - before == set()


def test_an_error_of_the_list_of_videos_passes_through(make):
    def videos():
        yield 0, make("a.mp4")[0]
        raise LookupError("no more")

    with DecoderPool(workers=1) as pool, pytest.raises(LookupError, match="no more"):
        collect(pool.stream(videos(), PLAN))


def test_videos_are_read_as_they_are_needed(make):
    read = []
    paths = [make("a.mp4")[0]] * 100
    with DecoderPool(workers=1, slots=2) as pool:
        events = pool.stream(((number, read.append(number) or path) for number, path in enumerate(paths)), PLAN)
        for event in events:
            assert len(read) <= event.key + 1 + 1 * (2 + 1)
            if event.key == 20:
                break
        events.close()


def test_one_stream_at_a_time(make):
    pool = DecoderPool(workers=1)
    with pool:
        events = pool.stream(enumerate(make("a.mp4")), PLAN)
        next(events)
        with pytest.raises(RuntimeError, match="one stream at a time"):
            next(pool.stream([], PLAN))
        events.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(pool.stream([], PLAN))


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"slots": 0}, {"threads": -1}, {"timeout": 0.0}, {"memory": 1000}])
def test_numbers_out_of_range(wrong):
    with pytest.raises(Pseudo3dError, match="must be at least"):
        DecoderPool(**wrong)


@linux
def test_an_idle_process_that_dies_is_replaced(make):
    path = make("a.mp4")[0]
    before = children()
    with DecoderPool(workers=1) as pool:
        collect(pool.stream([(0, path)], PLAN))
        os.kill((children() - before).pop(), signal.SIGKILL)
        time.sleep(0.1)
        clips, last = collect(pool.stream([(0, path)], PLAN))
    assert_as_in_process(clips[0], last[0], path, PLAN)


@linux
@pytest.mark.usefixtures("odd")
def test_many_videos_leave_nothing_behind(tmp_path):
    """No descriptor, process or thread, though some processes had to be replaced."""
    tiny = write_video(tmp_path / "tiny.mkv", numbered(8, 32, 48))
    paths = [tmp_path / f"{'crash' if n % 80 == 7 else 'tiny'}_{n}.mkv" for n in range(200)]
    for path in paths:
        path.symlink_to(tiny)

    def held():
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir())), children()

    before = held()
    with DecoderPool(workers=2) as pool:
        _, last = collect(pool.stream(enumerate(paths), PLAN))
    assert held() == before
    assert [key for key, event in last.items() if isinstance(event, Failed)] == [7, 87, 167]
    assert len(last) == 200


_PARENT = """
import signal, sys, time
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video import process
from pseudo3d.video.clips import ClipPlan
from pseudo3d.video.pool import DecoderPool

def interrupted(*_):
    time.sleep(0.3)
    print("interrupted", [worker.process._popen.poll() for worker in pool._workers], flush=True)
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupted)
process._WORKER = "odd_worker"
plan = ClipPlan(Preprocessing(num_frames=8, resize=40, crop=(32, 32)), sampler="sliding", stride=1)
with DecoderPool(workers=2, slots=1) as pool:
    events = pool.stream(enumerate(sys.argv[1:]), plan)
    print({next(events).key, next(events).key}, flush=True)  # with one slot each, both have begun
    time.sleep(1000)
"""


@contextlib.contextmanager
def started_parent(*paths):
    """A process with a pool, and the pool's processes; killed at the end, should a test fail before."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    line = [sys.executable, "-c", _PARENT, *map(str, paths)]
    parent = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True, start_new_session=True
    )
    try:
        assert parent.stdout.readline() in ("{0}\n", "{1}\n", "{0, 1}\n")
        workers = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
        assert len(workers) == 2
        yield parent, workers
    finally:
        parent.kill()  # its processes notice
        parent.communicate()


@linux
@pytest.mark.parametrize("word", ["hang", "busy", "plain"])
def test_a_killed_run_leaves_nothing_behind(word, make):
    """Whether its processes hang, decode, or wait for a free slot."""
    folders = [Path("/dev/shm"), Path(tempfile.gettempdir())]
    before = {path for folder in folders for path in folder.glob("pseudo3d-*")}
    with started_parent(*make(f"{word}_1.mp4", f"{word}_2.mp4")) as (_, workers):
        assert not any(map(gone, workers))
    wait_until(lambda: all(map(gone, workers)), seconds=30)
    assert {path for folder in folders for path in folder.glob("pseudo3d-*")} <= before


@linux
def test_an_interrupt_reaches_the_parent_only(make):
    """Ctrl-C goes to the whole process group; it is the parent that decides what ends, and when."""
    with started_parent(*make("busy_1.mp4", "busy_2.mp4")) as (parent, workers):
        os.killpg(parent.pid, signal.SIGINT)
        output, _ = parent.communicate(timeout=60)
    assert output == "interrupted [None, None]\n"  # neither process has ended before its parent wanted it
    assert all(map(gone, workers))


@linux
def test_h264_that_needs_too_much_memory_fails_whole(tmp_path):
    """Its decoder would go on without the frames for which there was no memory, as if the file were damaged."""
    frames = [yuv_frame((level, level, level), "bt709", "full", "yuv420p", (4096, 4096)) for level in (0.2, 0.8) * 4]
    options = {"preset": "ultrafast", "refs": "4"}
    path = write_video(tmp_path / "big.mp4", frames, codec="libx264", pix_fmt="yuv420p", options=options)
    with DecoderPool(workers=1, memory=256 << 20) as pool:
        _, last = collect(pool.stream([(0, path)], PLAN))
    assert re.search("decoding it needs more than 0.2 GiB of memory, .* raise the limit", last[0].reason)
