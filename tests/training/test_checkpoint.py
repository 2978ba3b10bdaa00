import errno
import os
import subprocess
import sys

import pytest
import torch
from reference import randomise
from tiny import names

import pseudo3d
from pseudo3d import create_model, from_pretrained
from pseudo3d.training.checkpoint import save_checkpoint

WHOLE = ["README.md", "config.json", "model.safetensors"]

pytestmark = pytest.mark.usefixtures("one_thread")


def network(seed):
    model = randomise(create_model("resnet14", num_classes=2), seed).eval()
    model.class_names = ("left", "right")
    return model


def same(a, b):
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


def test_a_checkpoint_is_a_pretrained_folder(tmp_path):
    save_checkpoint(network(0), tmp_path / "last", facts={"trained": "epoch 1"})
    assert names(tmp_path) == ["last"]
    assert names(tmp_path / "last") == WHOLE
    model = from_pretrained(tmp_path / "last")
    assert same(model, network(0))
    assert model.class_names == ("left", "right")
    assert "| trained | epoch 1 |" in (tmp_path / "last" / "README.md").read_text()
    save_checkpoint(network(1), tmp_path / "last", facts={"trained": "epoch 2"})
    assert names(tmp_path) == ["last"]
    assert names(tmp_path / "last") == WHOLE
    assert same(from_pretrained(tmp_path / "last"), network(1))
    assert "| trained | epoch 2 |" in (tmp_path / "last" / "README.md").read_text()


@pytest.mark.parametrize("place", ["save_file", "write_text"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("existed", [False, True])
def test_whatever_stops_the_writing_leaves_a_whole_one(tmp_path, monkeypatch, place, error, existed):
    if existed:
        save_checkpoint(network(0), tmp_path / "last", facts={})

    def stop(*args, **_):
        for arg in args:
            if isinstance(arg, os.PathLike):
                arg.write_bytes(b"half")
        raise error

    owner = pseudo3d.weights.pretrained if place == "save_file" else pseudo3d.files.Path
    with monkeypatch.context() as patch:
        patch.setattr(owner, place, stop if place == "save_file" else lambda *_a, **_k: stop())
        with pytest.raises(type(error)):
            save_checkpoint(network(1), tmp_path / "last", facts={})
    if not existed:
        assert names(tmp_path) == []
        return
    assert names(tmp_path) == ["last"]
    assert names(tmp_path / "last") == WHOLE
    # The numbers come first: stopped after them, the new ones are there and whole.
    assert same(from_pretrained(tmp_path / "last"), network(0 if place == "save_file" else 1))
    save_checkpoint(network(2), tmp_path / "last", facts={})
    assert same(from_pretrained(tmp_path / "last"), network(2))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_real_limit_is_an_oserror(tmp_path):
    """safetensors reports what the system says in an error of its own; here it is an OSError with its number."""
    code = f"""
import resource, signal
from pathlib import Path
from pseudo3d import create_model
from pseudo3d.training.checkpoint import save_checkpoint
model = create_model("resnet14", num_classes=2)
folder = Path({str(tmp_path)!r}) / "last"
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_checkpoint(model, folder, facts={{}})
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG)]
    assert names(tmp_path) == []


@pytest.mark.slow
def test_killed_while_writing(tmp_path):
    """After a kill (no clean-up at all) the last checkpoint loads and the next one can be written."""
    code = f"""
import os
from pathlib import Path
import pseudo3d.weights.pretrained as pretrained
from pseudo3d import create_model
from pseudo3d.training.checkpoint import save_checkpoint
folder = Path({str(tmp_path)!r}) / "last"
save_checkpoint(create_model("resnet14", num_classes=2), folder, facts={{}})
def half(state, path, metadata):
    Path(path).write_bytes(b"half")
    os._exit(9)
pretrained.save_file = half
save_checkpoint(create_model("resnet14", num_classes=2), folder, facts={{}})
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    from_pretrained(tmp_path / "last")
    save_checkpoint(network(3), tmp_path / "last", facts={})
    assert same(from_pretrained(tmp_path / "last"), network(3))
