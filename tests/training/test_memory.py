import errno
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import small_config
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from pseudo3d import Pseudo3dError, create_model
from pseudo3d.models.blocks import Bottleneck
from pseudo3d.training.loop import train
from pseudo3d.training.memory import (
    MemoryNeed,
    available_memory,
    check_memory,
    host_memory,
    measure_need,
    too_little_beside_explained,
    too_little_explained,
)

GIB = 2**30


def inputs_of_layers(model, batch):
    """Bytes that layers which learn keep of one batch, by what goes into each: what the textbook says is kept."""
    seen = {}

    def note(_module, inputs, _output):
        storage = inputs[0].untyped_storage()
        seen[storage.data_ptr()] = inputs[0]  # held, so that no address is used twice

    hooks = [m.register_forward_hook(note) for m in model if isinstance(m, nn.Linear | nn.Conv2d)]
    model(batch)
    for hook in hooks:
        hook.remove()
    return sum(tensor.numel() * tensor.element_size() for tensor in seen.values())


def network():
    """Convolutions, ReLUs (each output also the next one's input) and a linear layer: no batch norm's own numbers."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * 6 * 6, 5),
    )  # fmt: skip


def need_of(model, shape, *, clips=2, optimizer="adamw", **more):
    return measure_need(model, lambda n: model(torch.ones(n, *shape, **more)).sum(), clips=clips, optimizer=optimizer)


def test_need_is_what_layers_keep():
    model = network()
    need = need_of(model, (3, 6, 6))
    one = inputs_of_layers(model, torch.ones(1, 3, 6, 6))
    assert one == 4 * 36 * (3 + 8 + 4)
    assert need.per_clip == one
    weights = sum(4 * p.numel() for p in model.parameters())
    assert need.fixed == 4 * weights  # themselves, their gradients, AdamW's two moments
    assert need_of(model, (3, 6, 6), optimizer="sgd").fixed == 3 * weights


@pytest.mark.parametrize("clips", [1, 3, 8])
def test_need_of_a_clip_does_not_depend_on_how_many_are_measured(clips):
    model = network()
    assert need_of(model, (3, 6, 6), clips=clips) == need_of(model, (3, 6, 6))


def test_frozen_layers_keep_no_gradient_and_no_input():
    model = network()
    model[0].requires_grad_(False)
    need = need_of(model, (3, 6, 6))
    # the first ReLU has nothing to send back either; its output is the second convolution's input
    assert need.per_clip == 4 * 36 * (8 + 4)
    frozen = sum(4 * p.numel() for p in model[0].parameters())
    assert need.fixed == frozen + 4 * sum(4 * p.numel() for layer in model[1:] for p in layer.parameters())


def test_weights_cast_to_bfloat16_are_fixed():
    """Autocast keeps a copy of the weights, whatever the batch; the activations take half."""
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False))

    def loss_of(count):
        with torch.autocast("cpu", torch.bfloat16):
            return model(torch.ones(count, 64)).sum()

    need = measure_need(model, loss_of, clips=2, optimizer="sgd")
    assert need.per_clip == 2 * (64 + 64)  # both inputs in bfloat16
    assert need.fixed == 3 * 2 * 4 * 64 * 64 + 2 * 64 * 64  # the second layer's copy: it sends a gradient to the first


def test_what_is_recomputed_is_not_kept():
    model = network()
    need = measure_need(
        model, lambda n: checkpoint(model, torch.ones(n, 3, 6, 6), use_reentrant=False).sum(), clips=2, optimizer="sgd"
    )
    assert need.per_clip == 4 * 36 * 3  # the input


def held_by(model, batch):
    """Bytes that a forward pass keeps, everything held, and those that each bottleneck adds."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    tensors, inside = [], []

    def count():
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(size for address, size in storages.items() if address not in own)

    hooks = []
    for module in model.modules():
        if isinstance(module, Bottleneck):
            hooks.append(module.register_forward_pre_hook(lambda *_: inside.append(-count())))
            hooks.append(module.register_forward_hook(lambda *_: inside.append(inside.pop() + count())))
    with saved_tensors_hooks(tensors.append, lambda _: None):
        model(batch)
    for hook in hooks:
        hook.remove()
    return count(), inside


@pytest.mark.usefixtures("one_thread")
def test_recomputing_holds_the_inputs_of_blocks_and_one_block():
    model = create_model("p3d_resnet14", num_classes=3, dropout=0.0)
    batches = [torch.ones(count, 3, 16, 64, 64) for count in (1, 2)]
    whole, insides = zip(*(held_by(model, batch) for batch in batches), strict=True)
    without = need_of(model, (3, 16, 64, 64), clips=1).per_clip
    assert without == pytest.approx(whole[1] - whole[0], abs=64)  # the loss's own few bytes
    model.checkpoint_activations = True
    inputs = [held_by(model, batch)[0] for batch in batches]
    need = need_of(model, (3, 16, 64, 64), clips=1).per_clip
    assert model.checkpoint_activations
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert need == pytest.approx(inputs[1] - inputs[0] + max(insides[1]) - max(insides[0]), abs=64)
    assert need < 0.9 * without  # the stem and one block are most of this network


@pytest.mark.usefixtures("one_thread")
def test_the_model_stays_as_it_was():
    model = create_model("p3d_resnet14", num_classes=3, dropout=0.5)
    model.res2.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random, learning = torch.get_rng_state(), [p.requires_grad for p in model.parameters()]

    def loss_of(count):
        return F.cross_entropy(model(torch.randn(count, 3, 16, 32, 32)), torch.zeros(count, dtype=torch.long))

    need = measure_need(model, loss_of, clips=2, optimizer="adamw")
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert [p.requires_grad for p in model.parameters()] == learning
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert need == measure_need(model, loss_of, clips=2, optimizer="adamw")
    loss_of(2).backward()  # and it trains as ever
    assert model.fc.weight.grad is not None


def test_a_failing_forward_leaves_the_model_as_it_was():
    model = nn.BatchNorm1d(2)

    def loss_of(count):
        model(torch.randn(4, 2))
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        measure_need(model, loss_of, clips=2, optimizer="sgd")
    assert model.num_batches_tracked == 0
    assert torch.equal(model.running_mean, torch.zeros(2))


def test_need_of_many_clips():
    need = MemoryNeed(fixed=1000, per_clip=100)
    assert [need.of(count) for count in (0, 1, 10)] == [1000, 1135, 2350]
    assert [need.largest(count) for count in (0, 999, 1000, 1134, 1135, 2349, 2350)] == [0, 0, 0, 0, 1, 9, 10]


@pytest.mark.parametrize(
    ("micro_batch", "free", "smallest", "best"),
    [
        (16, 12, 2, 8),
        (16, 8, 2, 4),  # 5 fit, and 16 is three times five and one left, which has no batch statistics
        (16, 8, 1, 5),
        (15, 4, 2, 2),  # every size that fits leaves one: the largest
    ],
)
def test_too_little_memory_names_the_batch_that_fits(micro_batch, free, smallest, best):
    need = MemoryNeed(GIB, GIB)
    with pytest.raises(
        Pseudo3dError,
        match=rf"^{micro_batch} clips at once need about {1 + 1.35 * micro_batch:.1f} GiB of memory and {free:.1f} GiB "
        rf"are free: use --micro-batch {best} \(the same step in parts, with less memory\)$",
    ):
        check_memory(need, micro_batch, int(free * GIB), smallest=smallest)
    assert need.of(best) <= free * GIB
    check_memory(need, best, int(free * GIB), smallest=smallest)


@pytest.mark.parametrize(("smallest", "few"), [(1, "1 clip needs about 2.3"), (2, "2 clips at once need about 3.7")])
def test_too_little_memory_for_any_batch(smallest, few):
    message = f"even {few} GiB of memory and 1.5 GiB are free: use a smaller --size, a smaller --model or --checkpoint"
    with pytest.raises(Pseudo3dError, match=f"^{re.escape(message)}"):
        check_memory(MemoryNeed(GIB, GIB), 16, GIB * 3 // 2, smallest=smallest)


def test_enough_memory_or_nobody_knows():
    check_memory(MemoryNeed(GIB, GIB), 16, 23 * GIB, smallest=2)
    check_memory(MemoryNeed(GIB, GIB), 16, None, smallest=2)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def linux(tmp_path):
    """A /proc with 8 GiB to give and no control groups yet."""
    write(
        tmp_path / "proc" / "meminfo", f"MemTotal: {16 * 2**20} kB\nMemAvailable: {8 * 2**20} kB\nHugePages_Total: 0\n"
    )
    return SimpleNamespace(proc=tmp_path / "proc", cgroups=tmp_path / "cgroup")


def free(linux):
    return host_memory(linux.proc, linux.cgroups) / GIB


def limit_v2(folder, most, used, cache):
    write(folder / "memory.max", f"{most if most == 'max' else int(most * GIB)}\n")
    write(folder / "memory.current", f"{int(used * GIB)}\n")
    write(folder / "memory.stat", f"anon 5\ninactive_file {int(cache * GIB)}\n")


def test_what_the_system_can_give(linux):
    assert free(linux) == 8
    write(linux.proc / "self" / "cgroup", "0::/\n")
    assert free(linux) == 8  # the root has no limit


def test_limits_of_cgroup_2(linux):
    write(linux.proc / "self" / "cgroup", "0::/jobs/17\n")
    limit_v2(linux.cgroups / "jobs" / "17", 6, 4, 1)
    assert free(linux) == 3  # cached files can be given back
    limit_v2(linux.cgroups / "jobs", 5, 4.5, 0)
    assert free(linux) == 0.5  # the group above has less left
    limit_v2(linux.cgroups / "jobs", "max", 7, 0)
    assert free(linux) == 3
    limit_v2(linux.cgroups / "jobs" / "17", 4, 4.5, 0)
    assert free(linux) == 0


def test_a_container_sees_its_group_as_the_root(linux):
    write(linux.proc / "self" / "cgroup", "0::/docker/3f2a\n")
    limit_v2(linux.cgroups, 2, 0.5, 0)
    assert free(linux) == 1.5


def test_limits_of_cgroup_1(linux):
    write(linux.proc / "self" / "cgroup", "9:name=systemd:/\n7:cpu,cpuacct:/job\n4:hugetlb,memory:/job\n0::/\n")
    job = linux.cgroups / "memory" / "job"
    write(job / "memory.limit_in_bytes", f"{4 * GIB}\n")
    write(job / "memory.usage_in_bytes", f"{3 * GIB}\n")
    write(job / "memory.stat", f"cache 7\ntotal_inactive_file {GIB // 2}\n")
    assert free(linux) == 1.5
    write(job / "memory.limit_in_bytes", "9223372036854771712\n")  # version 1's word for no limit
    assert free(linux) == 8


def test_without_proc_the_free_pages_or_nothing(tmp_path, monkeypatch):
    known = {"SC_AVPHYS_PAGES": 1, "SC_PAGE_SIZE": 2}
    monkeypatch.setattr("os.sysconf_names", known, raising=False)
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_AVPHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}[name], raising=False)
    assert host_memory(tmp_path / "proc", tmp_path / "cgroup") == 4_096_000
    monkeypatch.setattr("os.sysconf_names", {}, raising=False)
    assert host_memory(tmp_path / "proc", tmp_path / "cgroup") is None


def test_memory_of_devices(monkeypatch):
    here = available_memory(torch.device("cpu"))
    assert here is None or 0 < here < 2**50
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (5 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: GIB)
    assert available_memory(torch.device("cuda:1")) == 7 * GIB  # what PyTorch holds and does not use counts
    assert available_memory(torch.device("mps")) is None


@pytest.mark.parametrize(
    "run_out",
    [
        lambda: torch.empty(2**60, dtype=torch.uint8),  # "DefaultCPUAllocator: can't allocate memory", a RuntimeError
        lambda: np.empty(2**60, np.uint8),
        lambda: raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")),
        lambda: raising(RuntimeError("could not create a memory object")),
        lambda: raising(RuntimeError("std::bad_alloc")),
        lambda: raising(OSError(errno.ENOMEM, "Cannot allocate memory")),
    ],
)
def test_memory_that_runs_out_all_the_same(run_out):
    step = "16 clips at once need more memory than there is: use --micro-batch 8 (the same step in parts, with less "
    step += "memory)"
    with pytest.raises(Pseudo3dError, match=f"^{re.escape(step)}$"), too_little_explained(16, smallest=2):
        run_out()
    few = "even 2 clips at once need more memory than there is: use a smaller --size, a smaller --model or "
    with pytest.raises(Pseudo3dError, match=f"^{re.escape(few)}"), too_little_explained(3, smallest=2):
        run_out()
    with pytest.raises(Pseudo3dError, match=r"^even 1 clip needs more"), too_little_explained(1, smallest=1):
        run_out()
    beside = "^memory ran out while making the network, loading clips or scoring videos: use a smaller --batch-size"
    with pytest.raises(Pseudo3dError, match=beside), too_little_beside_explained():
        run_out()


def raising(error):
    raise error


@pytest.mark.parametrize("error", [RuntimeError("a shape is wrong"), OSError(errno.ENOSPC, "full"), KeyError("x")])
@pytest.mark.parametrize("explained", [lambda: too_little_explained(4, smallest=2), too_little_beside_explained])
def test_other_errors_stay_what_they_are(error, explained):
    with pytest.raises(type(error)) as found, explained():
        raise error
    assert found.value is error


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("pseudo3d.training.step.F.cross_entropy", "^even 2 clips at once need more memory than there is: use"),
        ("pseudo3d.training.step.Stepper.accumulate", "^4 clips at once need more memory than there is: use --micro-b"),
        ("pseudo3d.training.trainer.count_hits", "^memory ran out while making the network, loading clips or scoring"),
        ("pseudo3d.data.dataset.read_frames", "^memory ran out while making the network, loading clips or scoring"),
        ("pseudo3d.training.loop.build_model", "^memory ran out while making the network, loading clips or scoring"),
    ],
)
def test_a_run_that_runs_out_of_memory_ends_in_one_line(samples, tmp_path, monkeypatch, place, message):
    monkeypatch.setattr(place, lambda *_, **__: torch.empty(2**60, dtype=torch.uint8))
    with pytest.raises(Pseudo3dError, match=message):
        train(samples, small_config(), tmp_path / "run", quiet=True)


def test_limits_of_the_process(linux):
    text = "Limit                     Soft Limit           Hard Limit           Units     \n"
    line = "{:<25} {:<20} unlimited            bytes     \n"
    write(
        linux.proc / "self" / "status", "Name:\tp3d\nVmPeak:\t 9999999 kB\nVmSize:\t 2097152 kB\nVmData:\t 1048576 kB\n"
    )
    write(
        linux.proc / "self" / "limits",
        text + line.format("Max data size", "unlimited") + line.format("Max address space", "unlimited"),
    )
    assert free(linux) == 8
    write(
        linux.proc / "self" / "limits",
        text + line.format("Max data size", "unlimited") + line.format("Max address space", 5 * GIB),
    )
    assert free(linux) == 3
    write(
        linux.proc / "self" / "limits",
        text + line.format("Max data size", 2 * GIB) + line.format("Max address space", 5 * GIB),
    )
    assert free(linux) == 1
    write(linux.proc / "self" / "limits", text + line.format("Max address space", GIB))
    assert free(linux) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="where the system tells the limits of a process")
def test_a_real_limit_is_regarded():
    code = (
        "import resource; from pseudo3d.training.memory import host_memory; "
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, 2**42)); print(host_memory() <= 2**27)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
