"""A run that is killed at any moment: the same command finishes it, and nobody can tell from the result."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from reference import randomise
from videos import gradient, write_video

from pseudo3d import FeatureStore, create_model, save_pretrained

VIDEOS = 100
# p3d, but every row is made durable by itself: the work of a few seconds is killed at many stages.
RUN = """
import functools, sys
from pseudo3d.features import extract, store
extract.StoreWriter = functools.partial(store.StoreWriter, seconds=0.0)
from pseudo3d.cli import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = randomise(create_model("p3d_resnet14", num_classes=2)).eval()
    model.preprocessing = model.preprocessing.with_size(64)
    return save_pretrained(model, tmp_path_factory.mktemp("weights") / "net")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for i in range(VIDEOS):
        frames = [np.roll(gradient(48, 64), 3 * i + 2 * t, axis=1) for t in range(20 + i % 7)]
        write_video(folder / f"{i:02}.mkv", frames)
    (folder / "broken.mkv").write_bytes(b"no video")
    return folder


def command(videos, weights, out):
    options = ["--clips", "3", "--layers", "pool5,res5", "--per-clip", "--dtype", "float32", "--device", "cpu"]
    return [
        sys.executable,
        "-c",
        RUN,
        "extract",
        str(videos),
        "--weights",
        str(weights),
        "--out",
        str(out),
        *options,
    ]


def start(*args):
    # a session of its own, so that whatever the run starts can be found (and ended, should a test fail)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command(*args), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=environment, start_new_session=True)  # fmt: skip


def finish(*args):
    with start(*args) as process:
        output = process.communicate(timeout=300)[0]
    return process.returncode, output


def of_session(leader):
    """Processes that still belong to a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == leader:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


def wait_for(file, seconds):
    deadline = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file}"
        time.sleep(0.02)


def written(out):
    """When the store was last changed."""
    try:
        return (out / "store.json").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def check_equal(store, whole):
    assert store.videos == whole.videos
    assert store.failures.keys() == whole.failures.keys() == {"broken.mkv"}
    for layer in ("pool5", "res5"):
        assert np.array_equal(store.features(layer), whole.features(layer))
    for video in whole.videos[::7]:
        assert np.array_equal(store.clip_features(video), whole.clip_features(video))


@pytest.fixture(scope="module")
def whole(videos, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "store"
    began = time.monotonic()
    code, output = finish(videos, weights, out)
    assert code == 1, output  # one broken video
    store = FeatureStore(out)
    assert len(store) == VIDEOS
    return store, time.monotonic() - began


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks for left-over processes in /proc")
def test_killed_at_twenty_random_moments(videos, weights, whole, tmp_path):
    expected, seconds = whole
    chance = random.Random(0)
    out = tmp_path / "store"
    sizes = []
    for _ in range(20):
        process = start(videos, weights, out)
        if chance.random() < 0.2:
            time.sleep(chance.uniform(0, 0.6) * seconds)  # while it starts
        else:
            commits = chance.randint(1, 12)
            while commits and process.poll() is None:  # that many times rows are made durable
                before = written(out)
                time.sleep(0.002)
                commits -= written(out) != before
        time.sleep(chance.uniform(0, 0.1))
        process.kill()  # the run alone: its decoders have to notice by themselves
        process.communicate()
        deadline = time.monotonic() + 10
        while of_session(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert of_session(process.pid) == []
        sizes.append(len(FeatureStore(out)) if (out / "store.json").exists() else 0)
        if sizes[-1] == VIDEOS:  # all is done: the next kills begin anew
            check_equal(FeatureStore(out), expected)
            out = tmp_path / f"store{len(sizes)}"
    code, output = finish(videos, weights, out)
    assert code == 1, output
    check_equal(FeatureStore(out), expected)
    assert len(set(sizes)) > 3, sizes  # the kills came at different stages


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(videos, weights, whole, tmp_path):
    expected, seconds = whole
    out = tmp_path / "store"
    process = start(videos, weights, out)
    wait_for(out / "store.json", 3 * seconds)  # the network is loaded, the work begins
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "run the same command again to go on" in output
    assert "Traceback" not in output
    code, _ = finish(videos, weights, out)
    assert code == 1
    check_equal(FeatureStore(out), expected)


@pytest.mark.slow
def test_a_second_process_is_told(videos, weights, whole, tmp_path):
    _, seconds = whole
    out = tmp_path / "store"
    process = start(videos, weights, out)
    wait_for(out / "store.json", 3 * seconds)
    os.kill(process.pid, signal.SIGSTOP)  # in the middle of its work, for as long as the other one takes
    code, output = finish(videos, weights, out)
    assert code == 2
    assert f"is being written by process {process.pid}" in output
    os.kill(process.pid, signal.SIGCONT)
    process.communicate(timeout=300)
    assert process.returncode == 1
