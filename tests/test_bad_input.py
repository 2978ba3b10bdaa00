"""What people do wrong: each is told in one line that helps, ends with code 2 or 1, and leaves nothing half done."""

import errno
import io
import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import QUICK, SMALL, mistake, names, one_thread, p3d, write_two_classes
from videos import flat, numbered, write_video

import pseudo3d
from pseudo3d import FeatureStore, cli, from_pretrained
from pseudo3d.features.store import StoreWriter
from pseudo3d.files import replacing

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights(trained):
    return trained / "checkpoints" / "best"


@pytest.fixture(scope="module")
def store(two_classes, weights, tmp_path_factory):
    out = tmp_path_factory.mktemp("store") / "features"
    with one_thread():
        assert cli.main(["extract", str(two_classes), "--weights", str(weights), "--out", str(out), *QUICK]) == 0
    return out


def text_file(path):
    path.write_text("this is no video")


def truncated(path):
    whole = write_video(path.with_name("whole.mp4"), numbered(40), codec="libx264", pix_fmt="yuv420p")
    path.write_bytes(whole.read_bytes()[:2000])
    whole.unlink()


def cut_at_the_end(path):
    """The index of an MP4 comes last: most of the file is there, and yet nothing of it can be read."""
    whole = write_video(path.with_name("whole.mp4"), numbered(40), codec="libx264", pix_fmt="yuv420p")
    data = whole.read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - 4])
    whole.unlink()


def sound(path):
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\0" * 8000)
    path.write_bytes(data.getvalue())


BAD_VIDEOS = {
    "text": (text_file, "is not a video that FFmpeg can read"),
    "truncated": (truncated, "was cut off or is still being written; copy or record it again"),
    "cut at the end": (cut_at_the_end, "copy or record it again"),
    "sound": (sound, "has no video stream (only audio); is it a sound file?"),
    "empty": (Path.touch, "the file is empty (0 bytes); copy or download it again"),
}


@pytest.mark.parametrize("kind", BAD_VIDEOS)
@pytest.mark.parametrize("command", ["predict", "extract"])
def test_a_file_that_is_no_video(kind, command, weights, tmp_path, capsys):
    make, message = BAD_VIDEOS[kind]
    path = tmp_path / "bad.mp4"
    make(path)
    out = ("--out", tmp_path / "s") if command == "extract" else ()
    line = mistake(capsys, command, path, "--weights", weights, *QUICK, *out)
    assert line.startswith(f"failed: {path}: ")
    assert message in line
    if command == "extract":
        assert names(tmp_path / "s") == ["failures.jsonl", "store.json"]  # the reason is kept
        assert list(FeatureStore(tmp_path / "s").failures) == ["bad.mp4"]


@pytest.mark.parametrize("kind", BAD_VIDEOS)
def test_training_on_a_file_that_is_no_video(kind, tmp_path, capsys):
    make, message = BAD_VIDEOS[kind]
    data = write_two_classes(tmp_path / "data", 3)
    make(data / "dark" / "bad.mp4")
    line = mistake(capsys, "train", "--data", data, "--out", tmp_path / "run", *SMALL)
    assert line.startswith(f"p3d train: {data / 'dark' / 'bad.mp4'}: ")
    assert message in line
    assert line.endswith("training needs every video, so mend it or take it out")
    assert names(tmp_path) == ["data"]


@pytest.mark.parametrize(("frames", "size"), [(1, (40, 48)), (3, (40, 48)), (20, (1, 1)), (3, (1, 1)), (20, (2, 300))])
def test_short_and_tiny_videos_work(frames, size, weights, tmp_path, capsys):
    """Fewer frames than a clip are looped, small ones are enlarged; a result is always there."""
    path = write_video(tmp_path / "a.mkv", [flat((200, 200, 200), *size)] * frames, pix_fmt="bgr0")
    code, out, err = p3d(capsys, "predict", path, "--weights", weights, *QUICK)
    assert (code, err) == (0, [])
    assert len(out.splitlines()) == 3


def test_training_on_short_and_tiny_videos(tmp_path, capsys):
    for label, level in (("bright", 220), ("dark", 10)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i, (frames, size) in enumerate([(1, (40, 48)), (3, (40, 48)), (20, (1, 1)), (20, (64, 64))]):
            write_video(tmp_path / "data" / label / f"{i}.mkv", [flat((level,) * 3, *size)] * frames, pix_fmt="bgr0")
    assert p3d(capsys, "train", "--data", tmp_path / "data", "--out", tmp_path / "run", *SMALL)[0] == 0


def one_class(folder):
    data = write_two_classes(folder)
    for path in (data / "dark").iterdir():
        path.unlink()
    (data / "dark").rmdir()


def one_video(folder):
    data = write_two_classes(folder)
    for number in (1, 2, 3):
        (data / "dark" / f"dark{number}.mkv").unlink()


def no_classes(folder):
    data = write_two_classes(folder)
    for path in sorted(data.glob("*/*")):
        path.rename(data / path.name)


def half_split(folder):
    write_two_classes(folder / "train")
    write_two_classes(folder / "test", prefix="t")
    write_video(folder / "train" / "stray.mkv", [flat((1, 2, 3))] * 3)


def other_files(folder):
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "a.txt").write_text("hello")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "does not exist: give a folder of videos or one of .csv .lst .txt"),
        (Path.mkdir, "no videos in "),
        (other_files, "no videos in "),
        (one_class, "there is one class only (bright): at least 2 are needed"),
        (one_video, "class dark has one video (dark/dark0.mkv): at least 2 are needed, one on each side"),
        (no_classes, "8 videos have no class (bright0.mkv, bright1.mkv, bright2.mkv, ...): put each into a folder"),
        (half_split, "for splits, every file must lie in split/class/file"),
        (text_file, "is no list of videos: give a folder or one of .csv .lst .txt"),
    ],
)
def test_data_that_cannot_be_trained_on(make, message, tmp_path, capsys):
    data = tmp_path / "data"
    make(data)
    before = names(tmp_path)
    line = mistake(capsys, "train", "--data", data, "--out", tmp_path / "run", *SMALL)
    assert line.startswith("p3d train: ")
    assert message in line
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "missing.mp4 left\n", "a.txt lists 1 files that do not exist (missing.mp4): paths start from "),
        ("a.txt", "video.mp4\n", "a.txt, line 1: 'video.mp4' has no label: write 'path label'"),
        ("a.txt", "", "lists no videos"),
        ("a.csv", "video,class\na.mp4,left\n", "the first line must name the columns path and label; found: video"),
        ("a.csv", "path,label,split\na.mp4,left,often\n", "unknown split 'often': use train, val or test"),
    ],
)
@pytest.mark.parametrize("command", ["train", "extract"])
def test_lists_with_mistakes(name, text, message, command, weights, tmp_path, capsys):
    (tmp_path / name).write_text(text)
    args = (
        ("--data", tmp_path / name, *SMALL) if command == "train" else (tmp_path / name, "--weights", weights, *QUICK)
    )
    line = mistake(capsys, command, *args, "--out", tmp_path / "out")
    assert message in line
    assert names(tmp_path) == [name]


@pytest.mark.parametrize("command", ["train", "extract"])
def test_groups_that_do_not_fit(command, two_classes, weights, tmp_path, capsys):
    for text, message in (("dark0 film1\n", "11 videos have no group"), ("dark0\n", "line 1: 'dark0' has no group")):
        (tmp_path / "groups.txt").write_text(text)
        args = ("--data", two_classes, *SMALL) if command == "train" else (two_classes, "--weights", weights, *QUICK)
        line = mistake(capsys, command, *args, "--groups", tmp_path / "groups.txt", "--out", tmp_path / "out")
        assert message in line
    assert names(tmp_path) == ["groups.txt"]


# words of a command line -> words of its one line
WRONG_WORDS = {
    "train --data D --out O --epoch 3": "unknown option --epoch, did you mean --epochs?",
    "train --data D --out O --flip": "unknown option --flip, did you mean --augment.flip?",
    "train --data D --out O --lr 3": "unknown option --lr, did you mean --optim.lr?",
    "train --data D --out O --epochs ten": "--epochs takes a whole number, got 'ten'",
    "train --data D --out O --epochs 1.5": "--epochs takes a whole number, got '1.5'",
    "train --data D --out O --epochs": "--epochs takes a whole number, got nothing",
    "train --data D --out O --optim.lr fast": "--optim.lr takes a number, got 'fast'",
    "train --data D --out O --size big": "--size takes a whole number or None, got 'big'",
    "train --data D --out O --resize 3": "--resize takes two whole numbers or None, got '3'",
    "train --data D --out O --optim.milestones a": "--optim.milestones takes numbers, got 'a'",
    "train --data D --out O --optim.name adam": "--optim.name cannot be 'adam'; it takes adamw, sgd",
    "train --data D --out O --style pytorch": "--style cannot be 'pytorch'; it takes ",
    "train --data D --out O --size 16": "--size must be at least 32, got 16",
    "train --data D --out O --size -5": "--size must be at least 32, got -5",
    "train --data D --out O --epochs 0": "--epochs must be at least 1, got 0",
    "train --data D --out O --seed -1": "--seed must be at least 0, got -1",
    "train --data D --out O --batch-size 1": "--batch-size must be at least 2",
    "train --data D --out O --val-fraction 2": "--val-fraction must be at least 0 and below 1, got 2.0",
    "train --data D --out O --model p3d_resnet51": "no model 'p3d_resnet51'; did you mean 'p3d_resnet50'?",
    "train --data D --out O --model c3d": "no model 'c3d'; did you mean",
    "train --data D --out O --blocks ABX": "blocks must be a string over A, B and C such as 'ABC', got 'ABX'",
    "train --data D --out O --weights none": "none: no such file or folder",
    "train --data D --out O --device gpu": "no device 'gpu'; use auto, cpu, cuda",
    "train --data D --out O --freeze-bn": "give them with --weights, or use --no-freeze-bn",
    "train --data D --out O --resize 20 20": "leaves no room for crops of 32x32",
    "train --data D": "--out must be given",
    "train": "--data, --out must be given",
    "train D --out O": "no recipe ",
    "train --data D --out O demo": "one word too many: 'demo'",
    "train finetun --data D --out O": "no recipe 'finetun'; did you mean 'finetune'?",
    "train finetune --data D --out O": "recipe finetune keeps the batch norms of trained weights: give them with",
    "extract D --out O": "--weights must be given",
    "extract D --weights W": "--out must be given",
    "extract --weights W --out O": "no videos named: give files, a folder, or a list (.txt, .csv)",
    "extract D --weigths W --out O": "unknown option --weigths, did you mean --weights?",
    "extract D --weights W --out O --clips 0": "clips must be at least 1, got 0",
    "extract D --weights W --out O --clips few": "--clips takes a whole number, got 'few'",
    "extract D --weights W --out O --batch-size 0": "batch size must be at least 1, got 0",
    "extract D --weights W --out O --layers pool6": "no layer 'pool6'; this network has res2, res3, res4, res5, pool5,",
    "extract D --weights W --out O --layers ,": "layers is empty; ask for at least one of",
    "extract D --weights W --out O --dtype float16": "--dtype cannot be 'float16'; it takes auto, float32, bfloat16",
    "extract D --weights W --out O --sampler random": "--sampler cannot be 'random'; it takes uniform, authors",
    "extract D --weights none --out O": "none: no such file or folder",
    "extract D --weights imagenet --out O": "imagenet: no such file or folder",
    "extract none --weights W --out O": "none does not exist: give files, a folder, or a list (.txt, .csv)",
    "extract D none --weights W --out O": "none does not exist: give files, a folder, or a list (.txt, .csv)",
    "extract D --weights random --model p3d_resnet --out O": "no model 'p3d_resnet'; did you mean",
    "predict --weights W": "no videos named",
    "predict D --weights W --top 0": "--top must be at least 1, got 0",
    "predict D --weights W --clips 0": "clips must be at least 1, got 0",
    "predict D": "--weights must be given",
    "predict none.mp4 --weights W": "none.mp4 does not exist: give files, a folder, or a list (.txt, .csv)",
    "evaluate": "STORE must be given",
    "evaluate none": "none: not a feature store (no store.json); make one with `p3d extract`",
    "evaluate D": "not a feature store (no store.json); make one with `p3d extract`",
    "evaluate S S": "one word too many: ",
    "evaluate S --out O --layer prob": "no layer 'prob'; this store has pool5",
    "evaluate S --out O --c 0": "--c must be above 0 and --folds at least 2",
    "evaluate S --out O --c nan": "--c must be above 0 and --folds at least 2",
    "evaluate S --out O --folds 1": "--c must be above 0 and --folds at least 2",
    "evaluate S --out O --groups none": "none does not exist",
    "visualize S": "--out must be given",
    "visualize --out O": "give at least one store",
    "visualize none --out O": "none: not a feature store",
    "visualize S --out O --layer prob": "no layer 'prob'; this store has pool5",
    "models --num-classes 0": "num_classes and in_channels must be at least 1",
    "models --num-classes many": "--num-classes takes a whole number or None, got 'many'",
    "models p3d_resnet50": "one word too many: 'p3d_resnet50'",
    "demo --epochs x": "--epochs takes a whole number or None, got 'x'",
}


@pytest.mark.parametrize("words", WRONG_WORDS)
def test_wrong_words(words, two_classes, weights, store, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"D": two_classes, "W": weights, "S": store, "O": tmp_path / "out"}
    command, *rest = [places.get(word, word) for word in words.split()]
    small = SMALL if command == "train" else ()
    if command == "train" and rest and not str(rest[0]).startswith("-"):
        small, rest = (), [rest[0], *SMALL, *rest[1:]]
    line = mistake(capsys, command, *small, *rest)
    assert line.startswith(f"p3d {command}: ")
    assert WRONG_WORDS[words] in line
    assert names(tmp_path) == []
    assert len(line) < 300 + len(str(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("command", ["train", "extract", "predict"])
def test_a_device_that_is_not_there(command, two_classes, weights, tmp_path, capsys):
    args = ("--data", two_classes, *SMALL) if command == "train" else (two_classes, "--weights", weights)
    out = () if command == "predict" else ("--out", tmp_path / "out")
    line = mistake(capsys, command, *args, *out, "--device", "cuda")
    assert line == (f"p3d {command}: device 'cuda' is not available on this machine; use --device auto or cpu")
    assert names(tmp_path) == []


def test_out_is_a_file(two_classes, weights, store, tmp_path, capsys):
    out = tmp_path / "out"
    out.write_text("precious")
    for command in (
        ("train", "--data", two_classes, "--out", out, *SMALL),
        ("extract", two_classes, "--weights", weights, "--out", out, *QUICK),
        ("evaluate", store, "--out", out),
        ("demo", "--out", out),
    ):
        assert mistake(capsys, *command).endswith(f"{out}: is a file; give a folder for --out")
    line = mistake(capsys, "train", "--data", two_classes, "--out", out / "run", *SMALL)
    assert "a file is where a folder is needed: choose another name" in line
    assert "a file is where a folder is needed" in mistake(capsys, "visualize", store, "--out", out / "map")
    assert out.read_text() == "precious"
    assert names(tmp_path) == ["out"]


def test_out_holds_something_else(two_classes, weights, trained, store, tmp_path, capsys):
    train = ("train", "--data", two_classes, *SMALL, "--out")
    extract = ("extract", two_classes, "--weights", weights, *QUICK, "--out")
    line = mistake(capsys, *train, trained)
    assert line == f"p3d train: {trained}: holds a training run already; choose another folder for --out or remove it"
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("precious")
    for command in (train, extract, ("demo", "--out")):
        assert mistake(capsys, *command, other).endswith("holds other files and no store; give a new folder for --out"
                                                         if command is extract else
                                                         "holds other files; give a new folder for --out")  # fmt: skip
    assert (other / "config.json").read_text() == "precious"
    assert names(other) == ["config.json"]
    assert "holds other files" in mistake(capsys, *train, store)
    line = mistake(capsys, "extract", two_classes, "--weights", weights, "--out", store, *QUICK, "--clips", "3")
    assert f"{store}: this store was made with another clips (2, now 3); give a new folder for --out" in line


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("command", ["train", "extract", "evaluate", "visualize"])
def test_a_folder_that_cannot_be_written(command, code, two_classes, weights, store, tmp_path, capsys, monkeypatch):
    out = tmp_path / "deep" / "out"
    line = {
        "train": ("train", "--data", two_classes, *SMALL),
        "extract": ("extract", two_classes, "--weights", weights, *QUICK),
        "evaluate": ("evaluate", store),
        "visualize": ("visualize", store),
    }[command]
    real = os.mkdir

    def mkdir(path, *args, **kwargs):
        if str(path).startswith(str(tmp_path)):
            raise OSError(code, os.strerror(code), str(path))
        real(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", mkdir)
    advice = "make space and run the same command again" if code == errno.ENOSPC else "a folder that you may write to"
    text = mistake(capsys, *line, "--out", out)
    assert str(tmp_path / "deep") in text
    assert os.strerror(code) in text
    assert advice in text
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_without_permission(two_classes, weights, tmp_path, capsys):
    tmp_path.chmod(0o500)
    for command in (
        ("train", "--data", two_classes, *SMALL),
        ("extract", two_classes, "--weights", weights, *QUICK),
    ):
        assert "choose a folder that you may write to" in mistake(capsys, *command, "--out", tmp_path / "out")
    tmp_path.chmod(0o700)
    assert names(tmp_path) == []


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FULL_LINE = "No space left on device; make space and run the same command again (what was written before is whole)"


def test_a_full_disk_while_extracting(two_classes, weights, tmp_path, capsys, monkeypatch):
    """The parts that were written stay whole, no temporary file is left, and the same command goes on."""
    from pseudo3d.features import store as module

    real, calls = module.pq.write_table, []

    def write_table(table, path):
        calls.append(path)
        if len(calls) > 1:
            Path(path).write_bytes(b"half")
            full()
        real(table, path)

    args = ("extract", two_classes, "--weights", weights, "--out", tmp_path / "s", *QUICK)
    initialise = StoreWriter.__init__
    with monkeypatch.context() as patch:
        patch.setattr(module.pq, "write_table", write_table)
        patch.setattr(StoreWriter, "__init__", lambda self, *a, **k: initialise(self, *a, **{**k, "rows_per_part": 4}))
        assert mistake(capsys, *args) == f"p3d extract: {FULL_LINE}"
    assert names(tmp_path / "s") == ["part-00000.parquet", "store.json"]
    assert len(FeatureStore(tmp_path / "s")) == 4
    code, out, _ = p3d(capsys, *args)
    assert code == 0
    assert "8 videos" in out
    assert "4 were there before" in out


def test_a_full_disk_at_a_checkpoint(two_classes, tmp_path, capsys, monkeypatch):
    from pseudo3d.weights import pretrained

    real, calls = pretrained.save_file, []

    def save_file(state, path, metadata):
        calls.append(path)
        if len(calls) > 2:  # last and best of the first epoch
            Path(path).write_bytes(b"half")
            full()
        real(state, path, metadata=metadata)

    monkeypatch.setattr(pretrained, "save_file", save_file)
    run = tmp_path / "run"
    code, _, err = p3d(capsys, "train", "--data", two_classes, "--out", run, *SMALL, "--epochs", "3")
    assert code == 2
    assert err[-1] == f"p3d train: {FULL_LINE}"
    assert "Traceback" not in "".join(err)
    assert names(run / "checkpoints") == ["best", "last"]
    for name in ("best", "last"):
        assert names(run / "checkpoints" / name) == ["README.md", "config.json", "model.safetensors"]
        assert from_pretrained(run / "checkpoints" / name).class_names == ("bright", "dark")


def test_a_full_disk_at_the_first_checkpoint(two_classes, tmp_path, capsys, monkeypatch):
    from pseudo3d.weights import pretrained

    monkeypatch.setattr(pretrained, "save_file", full)
    code, _, err = p3d(capsys, "train", "--data", two_classes, "--out", tmp_path / "deep" / "run", *SMALL)
    assert (code, err[-1]) == (2, f"p3d train: {FULL_LINE}")
    assert names(tmp_path) == []  # nothing of use was there: the name is free again


@pytest.mark.parametrize("file", ["metrics.json", "confusion.png", "confusion.svg"])
def test_a_full_disk_while_evaluating(file, store, tmp_path, capsys, monkeypatch):
    real = os.replace

    def replace(source, target, **kwargs):
        if Path(target).name == file:
            full()
        real(source, target, **kwargs)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Path, "replace", lambda self, target: replace(self, target))
    assert mistake(capsys, "evaluate", store, "--out", tmp_path / "e") == f"p3d evaluate: {FULL_LINE}"
    order = ["metrics.json", "confusion.png", "confusion.svg"]
    assert names(tmp_path / "e") == sorted(order[: order.index(file)])


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_real_limit_in_a_real_process(two_classes, tmp_path):
    """The operating system's own refusal, through safetensors' own error: still one line."""
    code = f"""
import resource, signal, sys
import pseudo3d.training.loop
from pseudo3d.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.exit(main({["train", "--data", str(two_classes), "--out", str(tmp_path / "run"), *SMALL]!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert names(tmp_path) == []


def damaged(folder, **files):
    """A copy of a pretrained folder with some files replaced (None: removed)."""
    model = pseudo3d.create_model("resnet14", num_classes=2)
    model.preprocessing = model.preprocessing.with_size(32)
    pseudo3d.save_pretrained(model, folder)
    for name, content in files.items():
        path = folder / {"weights": "model.safetensors", "config": "config.json"}[name]
        path.unlink() if content is None else path.write_bytes(content)
    return folder


def with_config(**changes):
    def change(folder):
        damaged(folder)
        config = json.loads((folder / "config.json").read_text())
        config["architecture"].update(changes)
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: damaged(f, weights=None), "model.safetensors: no such file"),
        (lambda f: damaged(f, weights=b"half"), "model.safetensors: not a whole safetensors file"),
        (lambda f: damaged(f, weights=b""), "model.safetensors: not a whole safetensors file"),
        (lambda f: damaged(f, config=None), "has no config.json; give a folder that save_pretrained or `p3d train`"),
        (lambda f: damaged(f, config=b"{"), "config.json: not valid JSON"),
        (lambda f: damaged(f, config=b"\xff\xfe\x00"), "config.json: not valid JSON"),
        (lambda f: damaged(f, config=b"[]"), "config.json: format_version None"),
        (with_config(name="p3d_resnet14"), "model.safetensors and config.json do not belong together"),
        (with_config(name="resnet50"), "model.safetensors and config.json do not belong together"),
        (with_config(num_classes=3), "model.safetensors and config.json do not belong together"),
        (with_config(name="resnet15"), "no model 'resnet15'; did you mean"),
        (Path.mkdir, "has no config.json; give a folder that save_pretrained or `p3d train` wrote"),
        (lambda f: f.with_suffix(".bin").write_bytes(b"x"), "weights: no such file or folder"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "extract"])
def test_weights_that_cannot_be_used(make, message, command, two_classes, tmp_path, capsys):
    make(tmp_path / "weights")
    before = names(tmp_path)
    out = ("--out", tmp_path / "s") if command == "extract" else ()
    line = mistake(capsys, command, two_classes, "--weights", tmp_path / "weights", *QUICK, *out)
    assert line.startswith(f"p3d {command}: ")
    assert message in line
    assert names(tmp_path) == before


def test_weights_of_another_network(two_classes, weights, tmp_path, capsys):
    args = ("train", "finetune", "--data", two_classes, "--out", tmp_path / "run", *SMALL, "--weights", weights)
    line = mistake(capsys, *args, "--model", "p3d_resnet50")
    assert "arrays of the model are not there" in line
    line = mistake(capsys, *args, "--blocks", "A")
    assert "these weights are for blocks 'ABC', the model has 'A'" in line
    line = mistake(capsys, *args, "--style", "torchvision")
    assert "these weights need style 'caffe', the model has style 'torchvision'" in line
    assert mistake(capsys, *args, "--model", "resnet14")
    assert names(tmp_path) == []


def test_a_file_of_weights_that_is_none(two_classes, tmp_path, capsys):
    for name, message in (("a.pth", "not a PyTorch file"), ("a.safetensors", "not a whole safetensors file"),
                          ("a.txt", "unknown kind of weights; known are .safetensors")):  # fmt: skip
        (tmp_path / name).write_text("no weights")
        assert message in mistake(capsys, "predict", two_classes, "--weights", tmp_path / name, *QUICK)


def write_store(folder, rows):
    """``rows``: (video, label)."""
    from pseudo3d.features.store import VideoFeatures

    rng = np.random.default_rng(0)
    with StoreWriter(folder, {"model": "test"}) as writer:
        for video, label in rows:
            features = {"pool5": rng.normal(size=8).astype(np.float32)}
            writer.add(VideoFeatures(video, features, starts=(0,), num_frames=16, label=label))
    return folder


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no features (0 videos failed); extract some first"),
        ([("a", None), ("b", None)], "2 videos have no label (a, b); extract from a folder per class"),
        ([("a", "left"), ("b", "left")], "need at least two classes to tell apart, got ['left']"),
        ([("a", "left"), ("b", "left"), ("c", "right")], "class right has "),
    ],
)
def test_stores_that_cannot_be_evaluated(rows, message, tmp_path, capsys):
    folder = write_store(tmp_path / "s", rows)
    before = names(folder)
    assert message in mistake(capsys, "evaluate", folder)
    assert names(folder) == before


def test_stores_that_cannot_be_drawn(store, tmp_path, capsys):
    folder = write_store(tmp_path / "s", [("a", "left"), ("b", "right")])
    assert "2 videos; a map needs at least 3" in mistake(capsys, "visualize", folder, "--out", tmp_path / "map")
    line = mistake(capsys, "visualize", store, folder, "--out", tmp_path / "map")
    assert "hold different videos; draw them one by one" in line
    assert names(tmp_path) == ["s"]


@pytest.mark.parametrize("content", [b"", b"half a part"])
@pytest.mark.parametrize("command", ["evaluate", "visualize", "extract"])
def test_a_damaged_store(content, command, two_classes, weights, tmp_path, capsys):
    folder = tmp_path / "s"
    assert p3d(capsys, "extract", two_classes, "--weights", weights, "--out", folder, *QUICK)[0] == 0
    (folder / "part-00000.parquet").write_bytes(content)
    line = {
        "evaluate": ("evaluate", folder),
        "visualize": ("visualize", folder, "--out", tmp_path / "map"),
        "extract": ("extract", two_classes, "--weights", weights, "--out", folder, *QUICK),
    }[command]
    assert "part-00000.parquet" in mistake(capsys, *line)
    assert names(tmp_path) == ["s"]


def test_a_store_of_something_else(tmp_path, capsys):
    (tmp_path / "store.json").write_text("{")
    assert "not valid JSON" in mistake(capsys, "evaluate", tmp_path)
    (tmp_path / "store.json").write_text("[1]")
    assert mistake(capsys, "evaluate", tmp_path)
    (tmp_path / "store.json").write_text('{"store_version": 99}')
    assert "a store of version 99" in mistake(capsys, "evaluate", tmp_path)


def test_names_with_spaces_and_other_letters(two_classes, weights, tmp_path, capsys):
    """Nobody should have to rename files."""
    for name in ("my video.mkv", "vidéo 映像.mkv", "100%.mkv", "[a].mkv", "-first.mkv"):
        (tmp_path / "v").mkdir(exist_ok=True)
        (tmp_path / "v" / name).write_bytes((two_classes / "dark" / "dark0.mkv").read_bytes())
    code, _, err = p3d(capsys, "extract", tmp_path / "v", "--weights", weights, "--out", tmp_path / "s", *QUICK)
    assert (code, err) == (0, [])
    assert len(FeatureStore(tmp_path / "s")) == 5


def test_replacing_leaves_nothing_behind(tmp_path):
    (tmp_path / "a").write_text("old")

    def write():
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            full()

    with pytest.raises(OSError, match="No space"):
        write()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"
