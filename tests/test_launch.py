"""``p3d train --gpus N``: what is started, which signals go on to it, and what a user reads when a process fails."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from pseudo3d.commands import launch as module
from pseudo3d.commands.launch import check_gpus, launch, run_forwarding
from pseudo3d.errors import Pseudo3dError

TORCHRUN = (sys.executable, "-m", "pseudo3d.commands.launch", "--standalone", "--nproc-per-node", "2")
LINE = "p3d train: the learning rate is not a number; give another"
# What a process of a run does; torch is not needed for it.
ROLES = {
    "fine": "",
    "mistake": f"if rank == 0:\n    print({LINE!r}, file=sys.stderr)\n    sys.exit(2)\nwait()",
    "killed": "if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\nwait()",
    "stopped": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))\nos.write(1, b'ready\\n')\nwait()"
    ),
    "both": (
        "from pseudo3d.errors import Pseudo3dError\n"
        "from pseudo3d.training.distributed import open_group\n"
        "try:\n"
        "    with open_group('cpu') as group:\n"
        "        group.barrier()\n"
        f"        raise Pseudo3dError({LINE!r})\n"
        "except Pseudo3dError as error:\n"
        "    print(error, file=sys.stderr, flush=True)\n"
        "    os._exit(2)"  # see cli._end_process
    ),
}


@pytest.fixture
def started(monkeypatch):
    """What ``launch`` would have started."""
    calls = []
    monkeypatch.setattr(module, "run_forwarding", lambda command, environ: calls.append((command, environ)) or 7)
    return calls


def test_the_same_command_is_started_once_a_gpu(started, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert launch(4, ["ucf101_p3d", "--data", "d", "--out", "o"]) == 7
    [(command, environ)] = started
    assert command == [
        *(sys.executable, "-m", "pseudo3d.commands.launch", "--standalone", "--nproc-per-node", "4"),
        *("-m", "pseudo3d.cli", "train", "ucf101_p3d", "--data", "d", "--out", "o"),
    ]
    assert "OMP_NUM_THREADS" not in environ  # each process takes its share of the cores (training.distributed)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    launch(2, [])
    assert started[1][1]["OMP_NUM_THREADS"] == "3"


def test_processors_need_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_gpus(2, "cpu")


@pytest.mark.parametrize(
    ("gpus", "present", "line"),
    [
        (2, 0, "--gpus 2, but this machine has no GPU; with --device cpu 2 processes run on its processors"),
        (4, 1, "--gpus 4, but this machine has 1 GPU; with --device cpu"),
        (4, 3, "--gpus 4, but this machine has 3 GPUs; with --device cpu"),
        (0, 3, "--gpus must be at least 1, got 0"),
    ],
)
def test_more_processes_than_gpus(monkeypatch, gpus, present, line):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: present)
    for device in ("cuda", "auto"):
        with pytest.raises(Pseudo3dError, match=line):
            check_gpus(gpus, device)


def run_child(code):
    return run_forwarding([sys.executable, "-c", f"import os, signal, sys, time\n{code}"], dict(os.environ))


def test_exit_codes_are_those_of_a_shell():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    assert run_child("") == 0
    assert run_child("sys.exit(3)") == 3
    assert run_child("os.kill(os.getpid(), signal.SIGKILL)") == 128 + 9
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before


@pytest.mark.parametrize(("sent", "got"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT"), ("SIGHUP", "SIGTERM")])
def test_signals_go_on(sent, got):
    """The child sends its parent a signal, and waits for it to come back."""
    code = f"signal.signal(signal.{got}, lambda *_: sys.exit(42))\nos.kill(os.getppid(), signal.{sent})\ntime.sleep(60)"
    assert run_child(code) == 42


def test_a_signal_that_comes_before_the_child_is_not_lost(monkeypatch):
    popen = subprocess.Popen

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)
        return popen(*args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    assert run_child("time.sleep(60)") == 128 + signal.SIGTERM


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_child("os.kill(os.getppid(), signal.SIGHUP)") == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def start(tmp_path, role):
    """Two processes in a role, under torchrun as ``launch`` starts it."""
    script = tmp_path / f"{role}.py"
    script.write_text(
        "import os, signal, sys, time\nrank = int(os.environ['RANK'])\n"
        f"def wait():\n    while True:\n        time.sleep(60)\n{ROLES[role]}\n"
    )
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*TORCHRUN, script], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_mistake_is_one_line_and_its_exit_code(tmp_path):
    process = start(tmp_path, "mistake")
    out, err = process.communicate(timeout=280)
    assert (process.returncode, out, err.splitlines()) == (2, "", [LINE])


@pytest.mark.slow
def test_all_fine(tmp_path):
    process = start(tmp_path, "fine")
    assert process.communicate(timeout=280) == ("", "")
    assert process.returncode == 0


@pytest.mark.slow
def test_a_killed_process_is_told(tmp_path):
    process = start(tmp_path, "killed")
    out, err = process.communicate(timeout=280)
    assert (process.returncode, out) == (128 + 9, "")
    assert err == (
        "p3d train: process 1 was ended by SIGKILL; "
        "the same command with --resume auto goes on from the last checkpoint\n"
    )


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_signal(tmp_path):
    process = start(tmp_path, "stopped")
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
    process.terminate()
    assert process.communicate(timeout=280) == ("", "")
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_mistake_of_all_processes(tmp_path):
    """Process 0 tells it; the others wait to be ended (on a machine that is too slow for that they may tell it too)."""
    process = start(tmp_path, "both")
    _, err = process.communicate(timeout=280)
    assert process.returncode == 2
    assert set(err.splitlines()) == {LINE}
