"""What tests of training and of the command line start from: two classes that a glance tells apart, tiny networks."""

import re
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn
from videos import flat, write_video

from pseudo3d import create_model
from pseudo3d.cli import main
from pseudo3d.data.annotations import read_samples
from pseudo3d.training.recipes import get_recipe

# One small network on the processor in float32: fast, and the same everywhere.
SMALL = ("--model", "p3d_resnet14", "--size", "32", "--batch-size", "4", "--epochs", "1", "--val-clips", "1",
         "--test-clips", "1", "--device", "cpu", "--dtype", "float32", "--workers", "0")  # fmt: skip
QUICK = ("--clips", "2", "--device", "cpu", "--dtype", "float32")


@contextmanager
def one_thread():
    """One thread for torch: tiny networks are not faster with more, and far slower beside other processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_two_classes(folder, count=4, *, frames=16, prefix=""):
    """``folder/bright`` and ``folder/dark`` with ``count`` videos each, 40x48, every one of another grey."""
    for label, level in (("bright", 200), ("dark", 20)):
        for number in range(count):
            path = folder / label / f"{prefix}{label}{number}.mkv"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, [flat((level + 4 * number,) * 3, 40, 48)] * frames)
    return folder


def small_config(recipe="scratch", *, optim=None, **changes):
    """A recipe made small, without dropout, in float32 on the processor."""
    config = get_recipe(recipe)
    defaults = {
        "model": "p3d_resnet14", "size": 32, "epochs": 1, "batch_size": 4, "val_clips": 1, "test_clips": 1,
        "dropout": 0.0, "device": "cpu", "dtype": "float32", "workers": 0,
    }  # fmt: skip
    return replace(config, **{**defaults, **changes}, optim=replace(config.optim, **(optim or {})))


def slim_c3d(num_classes=5, *, in_channels=3, share=16, seed=0, **more):
    """C3D with a sixteenth of its channels: the same computation in a hundredth of the time and memory."""
    with torch.device("meta"):
        model = create_model("c3d", num_classes=num_classes, in_channels=in_channels, **more)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, module in list(model.named_children()):
            if isinstance(module, nn.Conv3d):
                inputs = module.in_channels if name == "conv1a" else module.in_channels // share
                setattr(model, name, nn.Conv3d(inputs, module.out_channels // share, 3, padding=1))
            elif isinstance(module, nn.Linear):
                outputs = module.out_features if name == "fc8" else module.out_features // share
                setattr(model, name, nn.Linear(module.in_features // share, outputs))
    means = torch.tensor(model.preprocessing.mean).view(-1, 1, 1, 1)
    model.mean_volume = means.expand(model.mean_volume.shape).clone()
    return model


def p3d(capsys, *args):
    """Run a command line in this process: its exit code, what it printed, and the lines of its error stream."""
    capsys.readouterr()
    code = main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, out, without_progress(err.splitlines())


def without_progress(lines):
    """What a command says on the error stream, but for its lines on how far it is, how it runs and what it trains."""
    return [
        line
        for line in lines
        if not re.match(
            r"p3d: (\d+ videos to do|\w+ on \w+, batches of |\d+ of \d+ videos|recipe |all settings )", line
        )
    ]


def mistake(capsys, *args):
    """Run a command line that must fail as a user's mistake, and return the one line that says so."""
    code, _, err = p3d(capsys, *args)
    assert code == 2, err
    assert len(err) == 1, err
    assert "Traceback" not in err[0]
    return err[0]


def names(folder):
    """What lies in a folder, hidden files too; None when it is not there."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else None


def sides_of(run):
    """The paths on each side of a run, read as anybody would read the list it writes."""
    listed = read_samples(run / "split.csv")
    return {side: {sample.path for sample in listed.split(side).samples} for side in ("train", "val", "test")}
