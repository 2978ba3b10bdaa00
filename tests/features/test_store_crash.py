"""Whatever ends a writer, at whatever moment: what was written is whole, is there once, and the next run goes on."""

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pseudo3d import FeatureStore, Pseudo3dError
from pseudo3d.features import writer as writer_module
from pseudo3d.features.store import SourceFile, StoreWriter, VideoFeatures

INFO = {"weights": "sha256:1"}


def row(video, version=0):
    values = np.random.default_rng([version, *video.encode()]).normal(size=4).astype(np.float32)
    return VideoFeatures(video, {"pool5": values}, (0, 9), 25, source=SourceFile(version))


# Each step and what the store then holds: the version of each video, and the failures.
STEPS = (
    (lambda writer: writer.add(row("a")), {"a": 0}, ()),
    (lambda writer: writer.add(row("b")), {"a": 0, "b": 0}, ()),
    (lambda writer: writer.add_failure("x", "x: bad"), {"a": 0, "b": 0}, ("x",)),
    (lambda writer: writer.add(row("c")), {"a": 0, "b": 0, "c": 0}, ("x",)),
    (lambda writer: writer.add(row("d")), {"a": 0, "b": 0, "c": 0, "d": 0}, ("x",)),
    (lambda writer: writer.add(row("b", 1), replace=True), {"a": 0, "b": 1, "c": 0, "d": 0}, ("x",)),
    (lambda writer: writer.add(row("x")), {"a": 0, "b": 1, "c": 0, "d": 0, "x": 0}, ()),
    (lambda writer: writer.remove("a"), {"b": 1, "c": 0, "d": 0, "x": 0}, ()),
    (lambda writer: writer.add(row("e")), {"b": 1, "c": 0, "d": 0, "e": 0, "x": 0}, ()),
    (lambda writer: writer.close(), {"b": 1, "c": 0, "d": 0, "e": 0, "x": 0}, ()),
)
STATES = [({}, ()), *((versions, failures) for _, versions, failures in STEPS)]


def open_writer(folder):
    """Every step is written at once, and three rows are a large part."""
    return StoreWriter(folder, INFO, rows_per_part=3, seconds=0)


def state_of(folder):
    """What a store holds, if each of its rows is right."""
    store = FeatureStore(folder)
    versions = {video: source.size for video, source in zip(store.videos, store.sources, strict=True)}
    expected = [row(video, version).layers["pool5"] for video, version in versions.items()]
    if expected:
        assert np.array_equal(store.features(), np.stack(expected))
    return versions, tuple(store.failures)


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Nobody cuts the power here, and waiting for a busy disk takes minutes."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Watched:
    """Calls ``on_event`` before everything that changes a file, and after each new name."""

    def __init__(self, monkeypatch, on_event):
        self.on_event = on_event
        self.on = False
        for owner, names in ((Path, ("replace", "unlink", "write_bytes", "write_text", "mkdir")), (os, ("fsync",)),
                             (pq.ParquetWriter, ("__init__", "write_table", "close"))):  # fmt: skip
            for name in names:
                monkeypatch.setattr(owner, name, self.wrapped(getattr(owner, name), after=name == "replace"))

    def wrapped(self, real, after):
        def call(*args, **kwargs):
            self.event()
            result = real(*args, **kwargs)
            if after:
                self.event()
            return result

        return call

    def event(self):
        if self.on:
            self.on = False  # what the event does is not watched
            try:
                self.on_event()
            finally:
                self.on = True

    def do(self, step, writer):
        """Do one of ``STEPS``."""
        self.on = True
        try:
            STEPS[step - 1][0](writer)
        finally:
            self.on = False


def content(folder):
    """Which files there are, to see a change."""
    return {(path.name, path.stat().st_size, path.stat().st_ino) for path in folder.iterdir()}


def check_going_on(folder):
    """The next run finds what is there, adds to it, and leaves no file that does not count."""
    versions, failures = state_of(folder) if (folder / "store.json").exists() else ({}, ())
    with open_writer(folder) as writer:
        assert {video: source.size for video, source in writer.sources.items()} == versions
        writer.add(row("z"))
    assert state_of(folder) == ({**versions, "z": 0}, failures)
    parts = json.loads((folder / "store.json").read_text())["manifest"]["parts"]
    left = {path.name for path in folder.iterdir()} - {"failures.jsonl"}
    assert left == {"store.json", *(part["file"] for part in parts)}


def test_a_kill_between_any_two_changes_of_files(tmp_path, monkeypatch):
    """The folder as it was at each moment of a run is what a killed run would have left."""
    moments, known = [], set()

    def copy():
        target = tmp_path / f"{len(moments):04}"
        if (tmp_path / "s").exists() and frozenset(content(tmp_path / "s")) not in known:
            known.add(frozenset(content(tmp_path / "s")))
            shutil.copytree(tmp_path / "s", target)
            moments.append((target, step))

    with monkeypatch.context() as patch:
        watched, step = Watched(patch, copy), 0
        watched.on = True
        writer = open_writer(tmp_path / "s")
        for step in range(1, len(STATES)):
            watched.do(step, writer)
    assert len(moments) > 60
    for folder, step in moments:
        if (folder / "store.json").exists():
            assert state_of(folder) in STATES[max(0, step - 1) : step + 1], folder
        check_going_on(folder)


def step_with_error(folder, step, event, again, monkeypatch):
    """Do a step of a run with an error at its ``event``-th change of a file; whether there was such a change."""
    left = event

    def fail():
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    writer = open_writer(folder)
    with monkeypatch.context() as patch:
        watched = Watched(patch, fail)
        try:
            watched.do(step, writer)
        except OSError as error:
            failed = error.errno == errno.ENOSPC
        else:
            failed = False
    assert state_of(folder) in STATES[step - failed : step + 1], (step, event)
    if again:
        writer.flush() if step < len(STEPS) else writer.close()
        assert state_of(folder) == STATES[step], (step, event)
    writer._committed.release()  # as the end of a process does
    if failed and not again:
        check_going_on(folder)
    return failed


@pytest.mark.parametrize(
    "again",
    [pytest.param(True, id="the call is repeated"), pytest.param(False, id="the run ends", marks=pytest.mark.slow)],
)
def test_an_error_at_any_change_of_a_file(tmp_path, monkeypatch, again):
    """A full disk, say: the store is as before the step or as after it, and, space made, all goes on."""
    events = 0
    open_writer(tmp_path / "0").close()
    for step in range(1, len(STATES)):
        for event in range(100):
            folder = tmp_path / f"{step}-{event}"
            shutil.copytree(tmp_path / f"{step - 1}", folder)
            if not step_with_error(folder, step, event, again, monkeypatch):
                break
            events += 1
        folder.rename(tmp_path / f"{step}")  # the step went well: the next one starts here
    assert events > 60


def test_a_full_disk_ends_the_with_block_with_its_own_error(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(OSError, match="No space left"), StoreWriter(tmp_path / "s", INFO) as writer:
            writer.add(row("a"))
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["store.json"]
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.add(row("a"))


WRITE = """
import os, sys
os.fsync = lambda handle: None
from pseudo3d.features import writer as module
from pseudo3d.features.store import StoreWriter
sys.path.insert(0, {tests!r})
from test_store_crash import INFO, row
module._MOST_SMALL_PARTS = 4
writer = StoreWriter({folder!r}, INFO, rows_per_part=16, seconds={seconds})
print("open", flush=True)
for i in range(len(writer.done), 100000):
    writer.add(row(f"{{i:06}}"))
    if {seconds} == 0:
        print(i, flush=True)
"""


def start(folder, seconds=0.0):
    """A process that adds rows to a store; it says the number of each when it is written."""
    code = WRITE.format(tests=str(Path(__file__).parent), folder=str(folder), seconds=seconds)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "open\n"
    return process


def kill_at_random(folder, times, seed):
    rng = random.Random(seed)
    for _ in range(times):
        process = start(folder)
        said = [process.stdout.readline() for _ in range(rng.randrange(12))]
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        said = [int(line) for line in said if line.endswith("\n")]
        store = FeatureStore(folder)
        assert store.videos == [f"{i:06}" for i in range(len(store))]  # each once, none missing
        assert len(store) > max(said, default=-1)
        if len(store):
            assert np.array_equal(store.features(), np.stack([row(video).layers["pool5"] for video in store.videos]))
    with StoreWriter(folder, INFO) as writer:
        writer.add(row("last"))
    parts = json.loads((folder / "store.json").read_text())["manifest"]["parts"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([part["file"] for part in parts] + ["store.json"])
    return len(FeatureStore(folder))


needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


@needs_kill
def test_killed_at_some_moments(tmp_path):
    assert kill_at_random(tmp_path / "s", 4, seed=0) > 10


@needs_kill
@pytest.mark.slow
def test_killed_at_many_moments(tmp_path):
    assert kill_at_random(tmp_path / "s", 25, seed=1) > 100


@needs_kill
def test_two_processes(tmp_path, caplog):
    """The second is told who writes, or waits; the lock of a killed one is none."""
    process = start(tmp_path / "s", seconds=1e9)
    words = (
        rf"s: is being written by process {process.pid} on .+ since 20..-..-..T.*; wait until it ends, or give another"
    )
    with pytest.raises(Pseudo3dError, match=words):
        StoreWriter(tmp_path / "s", INFO)
    with pytest.raises(Pseudo3dError, match="is being written by process"):
        FeatureStore(tmp_path / "s")._place.lock(wait=False)
    got = []
    waiting = threading.Thread(target=lambda: got.append(StoreWriter(tmp_path / "s", INFO, wait=True)))
    waiting.start()
    time.sleep(0.2)
    assert not got
    assert "waiting until it ends" in caplog.text
    process.kill()
    process.wait()
    process.stdout.close()
    waiting.join(timeout=10)
    (writer,) = got
    with pytest.raises(Pseudo3dError, match=f"is being written by process {os.getpid()} on"):
        StoreWriter(tmp_path / "s", INFO)  # nor twice in one process
    writer.close()
    StoreWriter(tmp_path / "s", INFO).close()
    left = {path.name for path in (tmp_path / "s").iterdir()}  # the killed one may have written parts
    assert {name for name in left if not name.startswith("part-")} == {"store.json"}


def test_halves_of_files_are_removed_and_nothing_else(tmp_path):
    with StoreWriter(tmp_path / "s", INFO) as writer:
        writer.add(row("a"))
    FeatureStore(tmp_path / "s").add("idt", ["a"], np.ones((1, 1)))
    halves = (
        ".store.json.12.part",
        ".failures.jsonl.12.part",
        ".part-00001.parquet.12.part",
        "columns/.x.parquet.1.part",
    )
    others = (".hidden", "notes.txt", "evaluation/metrics.json", "npy/part-00000.parquet", ".x.12.part")
    for name in (*halves, "part-00007.parquet", *others):
        (tmp_path / "s" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "s" / name).write_bytes(b"PAR1 half")
    assert state_of(tmp_path / "s") == ({"a": 0}, ())
    StoreWriter(tmp_path / "s", INFO).close()
    left = {path.relative_to(tmp_path / "s").as_posix() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    assert left == {"store.json", "part-00000.parquet", "columns/idt.parquet", *others}


def test_a_lock_without_a_name(tmp_path):
    writer = StoreWriter(tmp_path / "s", INFO)
    (tmp_path / "s" / ".lock.json").write_text("")  # it has just been made
    with pytest.raises(Pseudo3dError, match="is being written by another process; wait"):
        StoreWriter(tmp_path / "s", INFO)
    writer.close()


def test_a_refused_writer_keeps_no_lock(tmp_path):
    StoreWriter(tmp_path / "s", INFO).close()
    with pytest.raises(Pseudo3dError, match="another weights"):
        StoreWriter(tmp_path / "s", {"weights": "sha256:2"})
    StoreWriter(tmp_path / "s", INFO).close()


def test_a_store_that_changed_under_a_writer(tmp_path):
    """Where there is no lock, nobody's rows are overwritten: who finds another's stops."""
    writer = StoreWriter(tmp_path / "s", INFO)
    (tmp_path / "s" / ".lock").unlink()  # as on a disk that has no locks
    with StoreWriter(tmp_path / "s", INFO) as other:
        other.add(row("b"))
    writer.add(row("a"))
    with pytest.raises(Pseudo3dError, match="another process has written to this store; end it, and run the same"):
        writer.flush()
    assert state_of(tmp_path / "s") == ({"b": 0}, ())


@pytest.mark.parametrize("error", [RuntimeError("lost"), KeyboardInterrupt()])
def test_an_exception_keeps_what_was_added(tmp_path, error):
    def end():
        with StoreWriter(tmp_path / "s", INFO, rows_per_part=2) as writer:
            for video in "abc":
                writer.add(row(video))
            writer.add_failure("x", "x: bad")
            raise error

    with pytest.raises(type(error)):
        end()
    assert state_of(tmp_path / "s") == ({"a": 0, "b": 0, "c": 0}, ("x",))


def test_reading_while_another_writes(tmp_path, monkeypatch):
    """A reader sees one state, and its features are there although parts are being made one."""
    monkeypatch.setattr(writer_module, "_MOST_SMALL_PARTS", 3)
    stop, errors = threading.Event(), []

    def write():
        with contextlib.ExitStack() as stack:
            try:
                writer = stack.enter_context(StoreWriter(tmp_path / "s", INFO, rows_per_part=8, seconds=0))
                for i in range(100000):
                    writer.add(row(f"{i:06}"))
                    if stop.is_set():
                        return
            except BaseException as error:
                errors.append(error)
                raise

    thread = threading.Thread(target=write)
    thread.start()
    seen, until = 0, time.monotonic() + 2
    while time.monotonic() < until or seen == 0:
        if not (tmp_path / "s" / "store.json").exists():
            continue
        store = FeatureStore(tmp_path / "s")
        assert store.videos == [f"{i:06}" for i in range(len(store))]
        assert len(store) >= seen
        seen = len(store)
        if seen:
            time.sleep(0.01)  # for a part to go
            assert np.array_equal(store.features(), np.stack([row(video).layers["pool5"] for video in store.videos]))
            assert store.timeline(store.videos[0]).starts.tolist() == [0, 9]
    stop.set()
    thread.join()
    assert errors == []
    assert seen > 10
