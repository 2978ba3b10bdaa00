import errno
import subprocess
import sys
import types
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudo3d import Pseudo3dError
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.sinks import TensorBoard, as_gif, open_sinks

CONFIG = TrainConfig("test", epochs=7)


def clip(frames=16):
    """A bright square that moves to the right."""
    pictures = np.zeros((frames, 24, 40, 3), np.uint8)
    for t in range(frames):
        pictures[t, 8:16, t : t + 8] = (255, 128, 0)
    return pictures


def read(folder):
    """What TensorBoard would show of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def scalars(folder, name):
    return [(event.step, event.value) for event in read(folder).Scalars(name)]


def served(folder, name):
    """Steps as the web server reads them, which it does in another way."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return [event.step for event in events.Tensors(name)]


def test_nothing_asked_for(tmp_path):
    assert open_sinks(tmp_path, CONFIG, tensorboard=False, wandb=None) == []
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_shows_numbers_clips_and_confusion(tmp_path):
    (sink,) = open_sinks(tmp_path / "new" / "run", CONFIG, tensorboard=True, wandb=None)
    for step in (1, 2):
        sink.scalars(step, {"loss": 0.5 / step, "val video hit@1": 0.25 * step})
    sink.clip(2, "training clip", clip())
    sink.confusion(2, np.array([[3, 1], [0, 4]]), ["bright", "dark"])
    folder = tmp_path / "new" / "run" / "tensorboard"
    assert scalars(folder, "loss") == [(1, 0.5), (2, 0.25)]  # before it is closed
    sink.close()
    sink.close()
    assert scalars(folder, "val video hit@1") == [(1, 0.25), (2, 0.5)]
    (shown,) = read(folder).Images("training clip")
    assert (shown.step, shown.width, shown.height) == (2, 40, 24)
    assert shown.encoded_image_string == as_gif(clip())
    (matrix,) = read(folder).Images("confusion matrix")
    with Image.open(BytesIO(matrix.encoded_image_string)) as image:
        assert image.format == "PNG"
        assert image.size == (matrix.width, matrix.height)
        assert np.ptp(np.asarray(image.convert("L"))) > 100


def test_tensorboard_knows_a_number_that_is_none(tmp_path):
    sink = TensorBoard(tmp_path)
    sink.scalars(1, {"loss": float("nan")})
    sink.close()
    assert np.isnan(scalars(tmp_path, "loss")[0][1])


def test_steps_done_again_do_not_show_twice(tmp_path):
    for first, last, value in ((1, 6, 0.1), (4, 9, 0.2), (8, 8, 0.3)):  # killed and resumed, twice
        sink = TensorBoard(tmp_path, step=first)
        for step in range(first, last + 1):
            sink.scalars(step, {"loss": value})
        sink.close()
    assert len(list(tmp_path.iterdir())) == 3
    expected = [(step, 0.1) for step in (1, 2, 3)] + [(step, 0.2) for step in (4, 5, 6, 7)] + [(8, 0.3)]
    assert scalars(tmp_path, "loss") == [(step, pytest.approx(value)) for step, value in expected]
    assert served(tmp_path, "loss") == list(range(1, 9))


def test_what_is_not_told_again_is_taken_back_too(tmp_path):
    for step, name in ((2, "loss"), (5, "other")):
        sink = TensorBoard(tmp_path)
        sink.scalars(step, {name: 1.0})
        sink.close()
    assert (scalars(tmp_path, "loss"), scalars(tmp_path, "other")) == ([], [(5, 1.0)])


def test_a_file_is_behind_those_of_other_writers(tmp_path):
    (tmp_path / "events.out.tfevents.1700000000.host.1.0").write_bytes(b"")
    TensorBoard(tmp_path).close()
    assert "events.out.tfevents.1700000001" in sorted(path.name for path in tmp_path.iterdir())[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_an_error_at_once(tmp_path):
    from tensorboard.summary.writer.record_writer import RecordWriter

    sink = TensorBoard(tmp_path)
    sink.close()
    sink._file = Path("/dev/full").open("wb")  # noqa: SIM115 (the sink closes it)
    sink._records = RecordWriter(sink._file)
    with pytest.raises(OSError, match="No space left") as caught:
        sink.scalars(1, {"loss": 1.0})
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(sink.path))
    sink.close()  # and not the same error again, which would keep others from being closed


def test_tensorboard_comes_late_and_light():
    code = """
import sys, tempfile
from pathlib import Path
from pseudo3d.training.sinks import TensorBoard
assert "tensorboard" not in sys.modules
TensorBoard(Path(tempfile.mkdtemp())).close()
assert "tensorboard" in sys.modules
assert not {"torch", "tensorflow", "grpc", "matplotlib.pyplot"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_gif_moves():
    frames = clip()
    with Image.open(BytesIO(as_gif(frames))) as image:
        assert (image.n_frames, image.info["duration"], image.info["loop"]) == (16, 100, 0)
        for t in (0, 7, 15):
            image.seek(t)
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), frames[t])


def test_a_gif_of_one_frame():
    with Image.open(BytesIO(as_gif(clip(1)))) as image:
        assert (image.n_frames, image.size) == (1, (40, 24))


class FakeWandb(types.ModuleType):
    """Keeps what it is told, as W&B's client would."""

    class Error(Exception):
        pass

    def __init__(self, problem=None):
        super().__init__("wandb")
        self.problem, self.runs, self.logged, self.finished = problem, [], [], 0

    def init(self, *, project, id, resume, dir, config):
        if self.problem:
            raise self.Error(self.problem)
        self.runs.append({"project": project, "id": id, "resume": resume, "dir": dir, "config": config})
        return self

    def log(self, values, *, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1

    def Video(self, data, *, format):  # noqa: N802
        return format, data.read()

    def Image(self, picture):  # noqa: N802
        return picture.format, picture.size


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_is_told_the_same(tmp_path, wandb):
    (sink,) = open_sinks(tmp_path / "run", CONFIG, tensorboard=False, wandb="digits")
    sink.scalars(1, {"loss": 0.5})
    sink.clip(1, "training clip", clip())
    sink.confusion(2, np.eye(2, dtype=int), ["bright", "dark"])
    sink.close()
    (run,) = wandb.runs
    assert (run["project"], run["resume"], run["dir"]) == ("digits", "allow", str(tmp_path / "run"))
    assert (run["config"]["epochs"], run["config"]["optim"]["lr"]) == (7, CONFIG.optim.lr)
    assert wandb.logged[:2] == [(1, {"loss": 0.5}), (1, {"training clip": ("gif", as_gif(clip()))})]
    step, values = wandb.logged[2]
    assert (step, values["confusion matrix"][0]) == (2, "PNG")
    assert wandb.finished == 1


def test_wandb_goes_on_with_the_same_run(tmp_path, wandb):
    for folder in ("a", "a", "b"):
        for sink in open_sinks(tmp_path / folder, CONFIG, tensorboard=True, wandb="digits"):
            sink.close()
    first, again, other = (run["id"] for run in wandb.runs)
    assert first == again != other
    assert (tmp_path / "a" / "wandb_id.txt").read_text() == first + "\n"


@pytest.mark.parametrize("module", [None, types.ModuleType("wandb")], ids=["missing", "an empty folder wandb"])
def test_wandb_is_not_installed(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "wandb", module)
    with pytest.raises(Pseudo3dError, match=r"^--wandb needs Weights & Biases: pip install 'pseudo3d\[wandb\]'"):
        open_sinks(tmp_path / "run", CONFIG, tensorboard=True, wandb="digits")
    assert list(tmp_path.iterdir()) == []


def test_wandb_that_is_broken_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / "wandb.py").write_text("import no_such_module_of_wandb\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ModuleNotFoundError, match="no_such_module_of_wandb"):
        open_sinks(tmp_path / "run", CONFIG, tensorboard=False, wandb="digits")


def test_wandb_does_not_take_the_run(tmp_path, wandb):
    wandb.problem = "api_key not configured (no-tty).\ncall wandb.login(key=[your_api_key])."
    with pytest.raises(Pseudo3dError) as caught:
        open_sinks(tmp_path / "run", CONFIG, tensorboard=True, wandb="digits")
    assert str(caught.value) == (
        "--wandb digits: api_key not configured (no-tty). call wandb.login(key=[your_api_key]); "
        "run `wandb login` once, or set WANDB_MODE=offline"
    )
    assert list((tmp_path / "run").iterdir()) == []


def test_wandb_is_closed_when_tensorboard_cannot_be_opened(tmp_path, wandb):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("a file")
    with pytest.raises(FileExistsError):
        open_sinks(tmp_path / "run", CONFIG, tensorboard=True, wandb="digits")
    assert wandb.finished == 1
