"""DeepDraw: on a network whose gradient is known, and on a real one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import mistake, p3d, slim_c3d
from torch import nn

from pseudo3d import Preprocessing, Pseudo3dError, create_model, read_video, save_pretrained
from pseudo3d.commands.explained import class_stem, file_stems
from pseudo3d.visualize.deepdraw import Octave, deepdraw

QUICK = [Octave(8, 1.0, (1.0, 0.5), (12.0, 8.0)), Octave(4, 1.25, (0.5, 0.5), (8.0, 4.0))]


class Later(nn.Module):
    """The score of class 0 is how much blue there is in the second half of the clip, less that in the first."""

    architecture = SimpleNamespace(num_classes=2)
    preprocessing = Preprocessing(num_frames=8, resize=32, crop=(32, 32))
    mean_volume = None

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, clips):
        blue = clips[:, 0].mean(dim=(2, 3))
        score = blue[:, 4:].mean(dim=1) - blue[:, :4].mean(dim=1)
        return torch.stack([score, -score], dim=1) + 0 * self.anchor


def test_the_picture_follows_the_gradient():
    """Blue appears where it adds to the score and goes where it takes away; red and green stay as they began."""
    frames = deepdraw(Later(), 0, octaves=[Octave(40, 1.0, (1.0, 1.0), (10.0, 10.0))], time_blur=0).astype(float)
    blue = frames[..., 2].mean(axis=(1, 2))
    assert (blue[4:] > 250).all()
    assert (blue[:4] < 5).all()
    assert np.abs(frames[..., 0] - 123).mean() < 20
    other = deepdraw(Later(), 1, octaves=[Octave(40, 1.0, (1.0, 1.0), (10.0, 10.0))], time_blur=0).astype(float)
    assert (other[..., 2].mean(axis=(1, 2))[4:] < 5).all()


def test_smoothing_over_time():
    """The more, the smaller the change from frame to frame."""
    changes = []
    for time_blur in (0.0, 0.5, 2.0):
        frames = deepdraw(Later(), 0, octaves=[Octave(3, 1.0, (0.5, 0.5), (1.0, 1.0))], time_blur=time_blur)
        changes.append(np.abs(np.diff(frames.astype(float), axis=0)).mean())
    assert changes[0] > changes[1] > changes[2]


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = create_model("p3d_resnet14", num_classes=3).eval()
    model.preprocessing = model.preprocessing.with_size(32)
    model.class_names = ("tai chi", "boxing", "<b>/x")
    return model


def test_a_network_becomes_sure(network):
    steps = []
    frames = deepdraw(network, 1, octaves=QUICK, on_step=steps.append)
    assert frames.shape == (16, 40, 40, 3)
    assert [step.done for step in steps] == list(range(1, 13))
    assert steps[-1].total == 12
    assert steps[-1].score > steps[0].score
    assert steps[-1].probability > 2 * steps[0].probability


def test_the_seed_decides(network):
    one, again, other = (deepdraw(network, 0, octaves=QUICK[:1], seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("name", ["resnet14", "c3d"])
def test_other_networks(name):
    model = slim_c3d() if name == "c3d" else create_model(name, num_classes=3)
    frames = deepdraw(model.eval(), 1, octaves=[Octave(1, 1.1, (1.0, 1.0), (4.0, 4.0))])
    p = model.preprocessing
    assert frames.shape == (p.num_frames, *(round(1.1 * edge) for edge in p.crop), 3)


def test_mistakes(network):
    with pytest.raises(Pseudo3dError, match="no class 3; the network has 3, numbered from 0"):
        deepdraw(network, 3)
    with pytest.raises(Pseudo3dError, match="a scale of at least 1"):
        deepdraw(network, 0, octaves=[Octave(1, 0.5, (1, 1), (1, 1))])
    with pytest.raises(Pseudo3dError, match="at least one octave"):
        deepdraw(network, 0, octaves=[])
    broken = create_model("p3d_resnet14", num_classes=2).eval()
    broken.preprocessing = network.preprocessing
    broken.fc.bias.data.fill_(float("nan"))
    with pytest.raises(Pseudo3dError, match="scores are not finite; its weights may be damaged"):
        deepdraw(broken, 0, octaves=QUICK)


def test_command(network, tmp_path, capsys):
    save_pretrained(network, tmp_path / "net")
    code, out, _ = p3d(capsys, "visualize", "deepdraw", "tai chi", "2", "--weights", tmp_path / "net", "--out",
                       tmp_path / "drawn", "--iterations", "0.01", "--device", "cpu")  # fmt: skip
    assert code == 0
    assert "tai chi, probability" in out
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        f"{name}.{kind}" for name in ("_b__x", "tai_chi") for kind in ("gif", "mp4", "png")
    ]
    assert Image.open(tmp_path / "drawn" / "tai_chi.gif").n_frames == 16
    assert read_video(tmp_path / "drawn" / "tai_chi.mp4").frames.shape == (16, 44, 44, 3)  # 32 times 1.4, rounded; even


def test_command_mistakes(network, tmp_path, capsys):
    save_pretrained(network, tmp_path / "net")
    more = ("--weights", tmp_path / "net", "--out", tmp_path / "drawn")
    assert "name at least one class" in mistake(capsys, "visualize", "deepdraw", *more)
    assert "no class 'boxin'; did you mean 'boxing'" in mistake(capsys, "visualize", "deepdraw", "boxin", *more)
    assert "no class '9'; classes are numbered 0 to 2" in mistake(capsys, "visualize", "deepdraw", "9", *more)
    assert "--iterations must be above 0" in mistake(capsys, "visualize", "deepdraw", "0", *more, "--iterations", "-1")
    assert "--fps 1 to 50, got 0" in mistake(capsys, "visualize", "deepdraw", "0", *more, "--fps", "0")
    assert not (tmp_path / "drawn").exists()  # told before any work
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "boxing.mp4").write_text("precious")
    said = mistake(capsys, "visualize", "deepdraw", "boxing", *more)
    assert "boxing.mp4 is there and not of p3d visualize; choose another folder" in said
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["boxing.mp4"]


def test_no_class_takes_the_files_of_another(network, tmp_path, capsys):
    """Names that are one file name, also on a disk without case, have their numbers; a class named twice is one."""
    assert file_stems(["a b", "a/b", "A_b", "a_b_1", "c"]) == ["a_b_0", "a_b_1_", "A_b_2", "a_b_1", "c"]
    assert file_stems(["", "x" * 300, "v1.0"]) == ["_", "x" * 60, "v1_0"]
    assert class_stem(SimpleNamespace(class_names=None), 2) == "class_2"
    names, network.class_names = network.class_names, ("a b", "a/b", "c")
    try:
        assert class_stem(network, 1) == "a_b_1"  # whichever others are drawn with it
        save_pretrained(network, tmp_path / "net")
    finally:
        network.class_names = names
    code, out, _ = p3d(capsys, "visualize", "deepdraw", "a b", "a/b", "0", "--weights", tmp_path / "net", "--out",
                       tmp_path, "--iterations", "0.005", "--device", "cpu", "--formats", "png")  # fmt: skip
    assert (code, out.count("probability")) == (0, 2)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["a_b_0.png", "a_b_1.png"]
