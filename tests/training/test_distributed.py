"""Several processes train as one: the same gradients, the same statistics, and they meet again after one is killed."""

import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from pseudo3d.errors import Pseudo3dError
from pseudo3d.training import distributed
from pseudo3d.training.batch_norms import SyncedBatchNorm2d, standing_in, synchronise_batch_norms
from pseudo3d.training.distributed import (
    SINGLE,
    Group,
    agree,
    open_group,
)

WORKER = Path(__file__).with_name("ddp_worker.py")
_SPEC = importlib.util.spec_from_file_location("ddp_worker", WORKER)
ddp_worker = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(ddp_worker)


class Processes:
    """Groups of processes that meet, one group after the other, at one store, as under torchrun --max-restarts."""

    def __init__(self, size, folder):
        self.store = dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
        self.size, self.folder = size, folder

    def run(self, mode):
        """What each process has saved, and the exit codes."""
        folder = self.folder / f"round{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        environ = {
            **os.environ,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.store.port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "WORLD_SIZE": str(self.size),
            "LOCAL_WORLD_SIZE": str(self.size),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        }
        children = [
            subprocess.Popen(
                [sys.executable, WORKER, folder, mode],
                env={**environ, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                cwd=WORKER.parent,
            )
            for rank in range(self.size)
        ]
        codes = [child.wait(timeout=300) for child in children]
        assert set(codes) <= {0, -signal.SIGKILL}, codes
        return [torch.load(folder / f"{rank}.pt") for rank in range(self.size)], codes


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two processes that compute, of which the last one is killed then; and two that meet at the same store after."""
    processes = Processes(2, tmp_path_factory.mktemp("two"))
    return processes.run("kill"), processes.run("join")


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return Processes(3, tmp_path_factory.mktemp("three")).run("compute")[0]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return Processes(4, tmp_path_factory.mktemp("four")).run("compute")[0]


def check_small_talk(told):
    size = len(told)
    for rank, each in enumerate(told):
        assert each["group"] == (rank, size, "cpu", rank == 0)
        assert each["total"] == [size * (size + 1) / 2, pytest.approx(0.1 * size, abs=1e-15)]
        assert each["any"] == (True, False)
        assert each["gather"] == [{"rank": other} for other in range(size)]


def prepared(frames):
    """BGR minus the mean, (N, 3, T, H, W): the release's preprocessing, channel by channel."""
    r, g, b = (frames[..., i].to(torch.float32) for i in range(3))
    return torch.stack([b - 104, g - 117, r - 123], dim=1)


def whole_step(count, parts, *, live_first=False):
    """The step in one process by plain autograd, the clips going through the network in these parts."""
    model = ddp_worker.network(live_first=live_first)
    frames, labels = ddp_worker.frames_and_labels(count)
    loss = torch.zeros(())
    for part in parts:
        logits = model(prepared(frames[part]).double())
        loss = loss + F.cross_entropy(logits, labels[part], reduction="sum", label_smoothing=ddp_worker.SMOOTHING)
    (loss / count).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter -= ddp_worker.RATE * parameter.grad
    return {"loss": [loss.item()], **ddp_worker.state_of(model)}


def check_step(told, whole):
    for each in told:
        assert each.keys() == whole.keys()
        assert each["loss"] == pytest.approx(whole["loss"], rel=1e-5)
        for name in whole.keys() - {"loss"}:
            assert (each[name] - whole[name]).norm() <= 1e-5 * whole[name].norm(), name


def check_steps(told):
    """Of all clips at once: that they were shared out, two at a time, makes no difference."""
    for count in (7, len(told) - 1):
        check_step([each["steps"][count] for each in told], whole_step(count, [list(range(count))]))


def check_synced_steps(told):
    """A first batch norm that learns sees what is in the network on all processes at the same time."""
    size = len(told)
    for micro in ddp_worker.SYNCED_MICRO_BATCHES:
        shares = [list(range(7))[rank::size] for rank in range(size)]
        at_once = micro or 7
        parts = [
            [clip for share in shares for clip in share[start : start + at_once]]
            for start in range(0, len(shares[0]), at_once)
        ]
        assert sorted(itertools.chain(*parts)) == list(range(7))
        whole = whole_step(7, parts, live_first=True)
        assert "grad stem.bn_conv1.weight" in whole
        check_step([each["synced steps"][micro] for each in told], whole)


def check_norm(told, case):
    """Against torch's batch norm of all clips in one batch."""
    sizes = ddp_worker.NORM_SIZES[len(told)]
    norm, x, loss = ddp_worker.norm_and_input(case, sum(sizes))
    told = [each["norms"][case] for each in told]
    if case == "stand-in":
        told = told[:-1]
        x, loss = x[: -sizes[-1]], loss[: -sizes[-1]]
    whole = ddp_worker.run_norm(norm.train(case != "eval"), x, loss, case == "bfloat16")
    tolerance = {"float32": 1e-5, "bfloat16": 1e-2}.get(case, 1e-10)
    close = {"rtol": tolerance, "atol": tolerance}
    for name in ("y", "grad_x"):
        torch.testing.assert_close(torch.cat([each[name] for each in told]), whole[name], **close)
    for name in ("grad_weight", "grad_bias"):
        torch.testing.assert_close(sum(each[name] for each in told), whole[name], **close)
    state = {"float32": 1e-5, "bfloat16": 1e-5}.get(case, 1e-10)  # statistics of bfloat16 are float32
    for each in told:
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(each[name], whole[name], rtol=state, atol=state)


def test_two_processes_talk(two):
    check_small_talk(two[0][0])


def test_two_processes_do_the_step_of_one_batch(two):
    check_steps(two[0][0])


def test_two_processes_with_a_synchronised_norm_do_the_step_of_one_batch(two):
    check_synced_steps(two[0][0])


@pytest.mark.parametrize("case", ddp_worker.NORM_CASES)
def test_norms_of_two_processes_are_those_of_one_batch(two, case):
    check_norm(two[0][0], case)


def test_a_killed_process_is_noticed_in_one_line(two):
    (first, _), codes = two[0]
    assert codes == [0, -signal.SIGKILL]
    assert first["error"].startswith("process 0 of 2 lost the others (")
    assert first["error"].endswith("); the first one that failed says why")
    assert "\n" not in first["error"]
    assert not first["open"]


def test_new_processes_meet_where_killed_ones_have_met(two):
    told, codes = two[1]
    assert codes == [0, 0]
    assert told == [{"end": [2.0], "open": False}] * 2


@pytest.mark.slow
def test_three_processes(three):
    check_small_talk(three)
    check_steps(three)
    for case in ddp_worker.NORM_CASES:
        check_norm(three, case)


@pytest.mark.slow
def test_four_processes(four):
    check_small_talk(four)
    check_steps(four)
    check_synced_steps(four)
    for case in ddp_worker.NORM_CASES:
        check_norm(four, case)


def meet(store, size, **limit):
    """What the processes of a round agree on, each in a thread."""
    names = {}

    def one(rank):
        names[rank] = agree(store, rank, size, **limit)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in reversed(range(size))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [names[rank] for rank in range(size)]


def test_each_round_agrees_on_a_name_of_its_own():
    store = dist.HashStore()
    rounds = [meet(store, size) for size in (3, 3, 2, 4)]
    assert all(len(set(names)) == 1 for names in rounds)
    assert len({names[0] for names in rounds}) == 4


def test_an_offer_of_a_dead_process_is_not_taken():
    """Neither one that was confirmed to others, nor one that was never confirmed."""
    store = dist.HashStore()
    store.set("pseudo3d/offer", "dead")
    store.set("pseudo3d/dead/1", "dead too")
    with pytest.raises(Pseudo3dError, match=r"process 1 of 2 has waited 0 s for the others to start"):
        agree(store, 1, 2, limit=0)
    store.set("pseudo3d/dead/confirmed", "dead,dead too")
    with pytest.raises(Pseudo3dError, match="process 1 of 2 has waited"):
        agree(store, 1, 2, limit=0)
    assert meet(store, 2)[0] != "dead"


def test_process_0_waits_for_all_others():
    with pytest.raises(Pseudo3dError, match="process 0 of 2 has waited 0 s for the others to start"):
        agree(dist.HashStore(), 0, 2, limit=0)


def test_alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    model = nn.Linear(2, 2)
    with open_group("auto") as group:
        assert group is SINGLE
        assert group == Group(0, 1, None)
        assert group.is_main
        assert group.total([1, 2.5]) == [1.0, 2.5]
        assert group.any(True)
        assert not group.any(False)
        assert group.gather("a") == ["a"]
        group.barrier()
        assert group.wrap(model) is model
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with open_group("cpu") as group:
        assert group is SINGLE


@pytest.fixture
def second_of_two(monkeypatch):
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed, "_let_others_speak", lambda seconds: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    return monkeypatch


def refusal(device):
    with pytest.raises(Pseudo3dError) as caught, open_group(device):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_incomplete_environment_is_refused(second_of_two):
    assert "MASTER_ADDR" in refusal("cpu")
    second_of_two.delenv("LOCAL_RANK")
    assert "not all of what torchrun sets ('LOCAL_RANK'); start with torchrun, or unset both" in refusal("cpu")


def test_each_process_has_a_gpu_of_its_own(second_of_two):
    second_of_two.setattr(torch.cuda, "is_available", lambda: True)
    second_of_two.setattr(torch.cuda, "device_count", lambda: 4)
    for name in ("cuda", "auto"):
        assert distributed._own_device(name, 1, 2) == torch.device("cuda:1")
    assert distributed._own_device("cpu", 1, 2) == torch.device("cpu")
    assert "2 processes cannot share the device 'cuda:1'; use --device cuda or cpu" in refusal("cuda:1")
    second_of_two.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("cuda", "auto"):
        assert "2 processes on a machine with 1 GPUs" in refusal(name)


@pytest.mark.parametrize(
    ("said", "processes", "threads"), [("1", 2, [4]), (None, 3, [2]), (None, 16, [1]), ("3", 2, []), (None, 1, [])]
)
def test_cores_are_divided_unless_threads_are_said(monkeypatch, said, processes, threads):
    got = []
    monkeypatch.setattr(torch, "set_num_threads", got.append)
    monkeypatch.setattr(distributed, "available_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    distributed._share_threads(processes)
    assert got == threads


def test_only_norms_that_learn_are_synchronised():
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4).eval(), nn.BatchNorm2d(4).requires_grad_(False))
    before = [*model.parameters(), *model.buffers()]
    names = list(model.state_dict())
    synchronise_batch_norms(model)
    assert [type(module) for module in model] == [SyncedBatchNorm2d, nn.BatchNorm2d, nn.BatchNorm2d]
    assert all(old is new for old, new in zip(before, [*model.parameters(), *model.buffers()], strict=True))
    assert list(model.state_dict()) == names


def test_a_synchronised_norm_alone_is_a_plain_one():
    norm, x, loss = ddp_worker.norm_and_input("float32", 4)
    plain = ddp_worker.run_norm(norm, x, loss)
    norm, x, loss = ddp_worker.norm_and_input("float32", 4)
    synchronise_batch_norms(norm)
    with standing_in(norm):
        assert not norm.counted
    assert norm.counted
    synced = ddp_worker.run_norm(norm, x, loss)
    assert all(torch.equal(plain[name], synced[name]) for name in plain)


RESTARTED = """
import os, signal
from pseudo3d.training.distributed import open_group
restart, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])
dies = restart < 4 and rank == restart % 2
if dies and restart < 2:
    os.kill(os.getpid(), signal.SIGKILL)
with open_group("cpu") as group:
    assert group.total([1.0]) == [2.0]
    if dies:
        os.kill(os.getpid(), signal.SIGKILL)
    group.barrier()
    if group.is_main:
        print("met in round", restart, flush=True)
os._exit(0)  # see cli._end_process
"""


@pytest.mark.slow
def test_torchrun_restarts_after_each_kill(tmp_path):
    """Processes that are killed before they meet, and after, each in turn: every restart works, none is wasted."""
    script = tmp_path / "restarted.py"
    script.write_text(RESTARTED)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, "--max-restarts", "4", script], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "met in round 4\n"
