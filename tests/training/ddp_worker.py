"""One of several processes: computes what the tests of training.distributed compare, and saves it.

    ddp_worker.py FOLDER compute|kill|join

"kill": after computing, the last process is killed and the others save what they are told. "join": only meet.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from pseudo3d import create_model
from pseudo3d.data.dataset import ClipBatch
from pseudo3d.errors import Pseudo3dError
from pseudo3d.training import distributed
from pseudo3d.training.batch_norms import SyncedBatchNorm2d, freeze_batch_norms, standing_in, synchronise_batch_norms
from pseudo3d.training.config import Optim, TrainConfig
from pseudo3d.training.distributed import open_group
from pseudo3d.training.step import Stepper
from pseudo3d.video.transforms import Window

CLASSES, SMOOTHING, RATE = 3, 0.1, 0.01
SYNCED_MICRO_BATCHES = (None, 2, 3)
NORM_SIZES = {2: (5, 2), 3: (4, 1, 2), 4: (1, 2, 3, 1)}  # clips of each process
NORM_CASES = ("float64", "float32", "bfloat16", "average", "stand-in", "eval")


def frames_and_labels(count):
    """uint8 (count, 16, 32, 32, 3) and the classes."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (count, 16, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return frames, torch.arange(count) % CLASSES


def network(*, live_first=False):
    """A small P3D without dropout whose batch norms are frozen, the first one perhaps not.

    In float64 up to pool5: in float32 rounding decides on which side of zero some activations are, and gradients jump
    there.
    """
    torch.manual_seed(0)
    model = create_model("p3d_resnet14", num_classes=CLASSES, dropout=0.0).double().train()
    model.fc.float()
    freeze_batch_norms(model)
    if not live_first:
        model.stem.bn_conv1.eval().requires_grad_(False)
    return model


class SteadyStepper(Stepper):
    """Of a network of float64 whose batch norms are frozen, or not, as it came."""

    def loss(self, batch, network=None):
        return super().loss(batch, lambda inputs: (network or self.wrapped)(inputs.double()))

    def train_mode(self):
        """They stay so."""


def stepped(group, count, *, live_first=False, micro_batch=2):
    """Gradients, weights and statistics after a step with ``count`` clips, of which this process has its share."""
    optim = Optim("sgd", lr=RATE, weight_decay=0.0, momentum=0.0, schedule="step", clip_grad_norm=0.0)
    config = TrainConfig(
        "mine", device="cpu", dtype="float32", micro_batch=micro_batch, label_smoothing=SMOOTHING, sync_bn=live_first,
        optim=optim,
    )  # fmt: skip
    model = network(live_first=live_first)
    names = list(model.state_dict())
    stepper = SteadyStepper(model, config, steps=10, group=group)
    assert list(model.state_dict()) == names
    frames, labels = frames_and_labels(count)
    own = torch.arange(count)[group.rank :: group.size]
    counted = torch.ones(max(1, len(own)), dtype=torch.bool)
    if not len(own):
        own, counted[0] = torch.tensor([0]), False  # a stand-in
    windows = [Window(0, 0, False)] * len(own)
    batch = ClipBatch(frames[own], torch.eye(CLASSES)[labels[own]], counted, windows, own.tolist(), [])
    result = stepper.step(batch, 0, count)
    assert result.clips == int(counted.sum())
    return {"loss": group.total([result.loss]), **state_of(model)}


def state_of(model):
    """Copies of its gradients, weights and first running statistics."""
    gradients = {f"grad {name}": p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    running = {name: getattr(model.stem.bn_conv1, name).clone() for name in ("running_mean", "running_var")}
    return gradients | {name: p.detach().clone() for name, p in model.named_parameters()} | running


def norm_and_input(case, clips):
    """A batch norm with some history, its input for all processes, and the weights of a loss over its output."""
    dtype = torch.float32 if case in ("float32", "bfloat16") else torch.float64
    generator = torch.Generator().manual_seed(2)
    x = 3 + 2 * torch.randn(clips, 6, 5, 4, generator=generator, dtype=torch.float64)
    loss = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(dtype)
    norm = nn.BatchNorm2d(6, momentum=None if case == "average" else 0.1).to(dtype)
    with torch.no_grad():
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            value.copy_(torch.rand(6, generator=generator, dtype=torch.float64) + 0.5)
    return norm, x.to(torch.bfloat16 if case == "bfloat16" else dtype), loss


def run_norm(norm, x, loss, bfloat16=False):
    """Two steps; the second one's output and gradients, and the state that is left."""
    for _ in range(2):
        norm.zero_grad()
        x = x.detach().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            y = norm(x)
        (y * loss).sum().backward()
    grads = {"grad_x": x.grad, "grad_weight": norm.weight.grad, "grad_bias": norm.bias.grad}
    return {"y": y.detach(), **grads, **norm.state_dict()}


def shared_norm(group, case):
    sizes = NORM_SIZES[group.size]
    norm, x, loss = norm_and_input(case, sum(sizes))
    synchronise_batch_norms(norm)
    assert type(norm) is SyncedBatchNorm2d
    norm.train(case != "eval")
    x, loss = x.split(sizes)[group.rank], loss.split(sizes)[group.rank]
    if case == "stand-in" and group.rank == group.size - 1:
        with standing_in(norm):
            return run_norm(norm, x, 0 * loss)
    return run_norm(norm, x, loss, case == "bfloat16")


def compute(group):
    return {
        "group": (group.rank, group.size, group.device, group.is_main),
        "total": group.total([group.rank + 1, 0.1]),
        "any": (group.any(group.rank == 1), group.any(False)),
        "gather": group.gather({"rank": group.rank}),
        "steps": {count: stepped(group, count) for count in (7, group.size - 1)},
        "synced steps": {
            micro: stepped(group, 7, live_first=True, micro_batch=micro) for micro in SYNCED_MICRO_BATCHES
        },
        "norms": {case: shared_norm(group, case) for case in NORM_CASES},
    }


def main(folder, mode):
    rank = int(os.environ["RANK"])
    distributed._let_others_speak = lambda seconds: None  # nobody is there to end this process
    told = {}
    try:
        with open_group("cpu") as group:
            if mode != "join":
                told = compute(group)
            group.barrier()
            if mode == "kill" and rank == group.size - 1:
                torch.save(told, folder / f"{rank}.pt")
                os.kill(os.getpid(), signal.SIGKILL)
            told["end"] = group.total([1])
    except Pseudo3dError as error:
        told["error"] = str(error)
    told["open"] = torch.distributed.is_initialized()
    torch.save(told, folder / f"{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
    os._exit(0)  # see cli._end_process
