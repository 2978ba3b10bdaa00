"""Whole runs on several processes (gloo, on processors), started as a user starts them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import SMALL, write_two_classes

from pseudo3d import from_pretrained

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def train_args(data, out, *more):
    return ["-m", "pseudo3d.cli", "train", "--data", str(data), "--out", str(out), *SMALL, *more]


def reports(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_a_run_of_several_processes(two_classes, weights, tmp_path, processes):
    """One writer; with statistics of all processes' clips the losses of one process."""
    split = ("--weights", str(weights), "--val-fraction", "0.3", "--epochs", "2", "--sync-bn", "--dropout", "0")
    command = [*TORCHRUN, f"--nproc-per-node={processes}", *train_args(two_classes, tmp_path / "run", *split)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("trained in") == 1
    alone = subprocess.run(
        [sys.executable, *train_args(two_classes, tmp_path / "alone", *split)],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr[-3000:]
    lines, of_one = reports(tmp_path / "run"), reports(tmp_path / "alone")
    assert [line.get("step") for line in lines] == [line.get("step") for line in of_one]
    assert (tmp_path / "run" / "split.csv").read_text() == (tmp_path / "alone" / "split.csv").read_text()
    for line, other in zip(lines[:-1], of_one[:-1], strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-3)
    from_pretrained(tmp_path / "run" / "checkpoints" / "best")


def workers_of(launcher):
    """The training processes below torchrun, by process id."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            words = (process / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == launcher and b"pseudo3d.cli" in words:
            found.append(int(process.name))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the processes in /proc")
def test_a_killed_process_costs_the_steps_since_the_last_checkpoint(two_classes, tmp_path):
    """torchrun starts all of them again, and --resume auto goes on."""
    out = tmp_path / "run"
    command = [*TORCHRUN, "--nproc-per-node=2", "--max-restarts=3"]
    command += train_args(two_classes, out, "--epochs", "60", "--resume", "auto")
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / "checkpoints" / "last").exists():
        time.sleep(0.02)
    os.kill(workers_of(process.pid)[1], signal.SIGKILL)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr[-3000:]
    assert "going on from step" in stderr
    assert [line["epoch"] for line in reports(out)[:-1]] == list(range(1, 61))


@pytest.mark.slow
def test_sigterm_to_all_processes_keeps_where_the_run_is(two_classes, tmp_path):
    """A cluster that wants its machine back: torchrun passes the signal on, the run goes on later."""
    out = tmp_path / "run"
    command = [*TORCHRUN, "--nproc-per-node=2", *train_args(two_classes, out, "--epochs", "500")]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / "checkpoints" / "last").exists():
        time.sleep(0.02)
    for worker in workers_of(process.pid):
        os.kill(worker, signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert "SIGTERM: stopped at step" in stderr
    state = json.loads((out / "checkpoints" / "last" / "state.json").read_text())["state"]
    assert f"stopped at step {state['step']} of" in stderr


# p3d train, in which every process keeps the statistics that it scores with, and the last one may send itself a signal
# after its second validation video.
WATCHED = """
import itertools, os, signal, sys
from pathlib import Path
import torch
from pseudo3d.cli import _end_process, main
from pseudo3d.training.trainer import Trainer
notes, signalled = Path(sys.argv[1]), sys.argv[2] == "signalled"
rank, numbers, real = os.environ["RANK"], itertools.count(), Trainer._count
def count(self, model, samples, clips, on_video):
    number, done = next(numbers), itertools.count(1)
    torch.save(dict(model.named_buffers()), notes / f"buffers_{rank}_{number}.pt")
    def scored():
        at = next(done)
        (notes / f"videos_{rank}_{number}").write_text(str(at))
        if signalled and rank == "1" and at == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        on_video()
    return real(self, model, samples, clips, scored)
Trainer._count = count
_end_process(main(sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """Two processes validate eleven videos each, and train on four."""
    folder = write_two_classes(tmp_path_factory.mktemp("data"), 14)
    sides = {0: "train", 1: "train", 2: "test"}
    rows = [
        (path, path.parent.name, sides.get(int(re.sub(r"\D", "", path.stem)), "val")) for path in folder.rglob("*.mkv")
    ]
    table = folder / "list.csv"
    table.write_text("path,label,split\n" + "".join(f"{path},{label},{split}\n" for path, label, split in sorted(rows)))
    return table


def watched(listed, folder, mode, out, *more):
    """The exit code, what was said, and the folder of what the processes noted."""
    notes = folder / f"notes{len(list(folder.iterdir()))}"
    notes.mkdir()
    (folder / "watched.py").write_text(WATCHED)
    command = [*TORCHRUN, "--nproc-per-node=2", folder / "watched.py", notes, mode, *train_args(listed, out)[2:]]
    command += ["--batch-size", "4", "--epochs", "2", "--dropout", "0.5", *more]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stderr, notes


def left_by(out):
    """Scores, losses and weights."""
    timed = ("seconds", "clips/s", "waiting for data")
    lines = [{key: value for key, value in line.items() if key not in timed} for line in reports(out)]
    arrays = load_file(out / "checkpoints" / "last" / "model.safetensors")
    return lines, {key: value.numpy().tobytes() for key, value in arrays.items()}


@pytest.mark.slow
def test_all_processes_score_what_is_saved_and_stop_together(listed, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    code, said, notes = watched(listed, tmp_path, "undisturbed", whole)
    assert code == 0, said[-3000:]
    scored = [[(notes / f"videos_{rank}_{number}").read_text() for rank in (0, 1)] for number in (0, 1, 2)]
    assert scored == [["11", "11"], ["11", "11"], ["1", "1"]]  # of 22 to validate, twice, and 2 to test: each once
    for number in (0, 1):  # the validations; the test is of ``best``
        first, second = (torch.load(notes / f"buffers_{rank}_{number}.pt") for rank in (0, 1))
        assert all(torch.equal(value, second[name]) for name, value in first.items())
        assert not torch.equal(first["stem.bn_conv1.running_mean"], torch.zeros(64))
    saved = dict(from_pretrained(whole / "checkpoints" / "last").named_buffers())
    assert all(torch.equal(value, second[name]) for name, value in saved.items())

    code, said, notes = watched(listed, tmp_path, "signalled", cut)
    assert code != 0
    assert "SIGTERM: stopped at step 1 of 2, which is kept in" in said
    assert [(notes / f"videos_{rank}_0").read_text() for rank in (0, 1)] == ["4", "4"]  # of eleven
    state = json.loads((cut / "checkpoints" / "last" / "state.json").read_text())["state"]
    assert (state["step"], state["reports"]) == (1, [])
    code, said, _ = watched(listed, tmp_path, "undisturbed", cut, "--resume", "auto")
    assert code == 0, said[-3000:]
    assert left_by(cut) == left_by(whole)
