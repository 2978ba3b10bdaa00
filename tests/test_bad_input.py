"""Unusable files and folders: told in one line that helps, with code 2 or 1, and nothing is left half done."""

import io
import json
import wave
from pathlib import Path

import numpy as np
import pytest
from tiny import QUICK, SMALL, mistake, names, p3d, write_two_classes
from videos import flat, numbered, write_video

import pseudo3d
from pseudo3d import FeatureStore
from pseudo3d.features.store import StoreWriter

pytestmark = pytest.mark.usefixtures("one_thread")


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
    line = mistake(capsys, "train", "--data", data, "--out", tmp_path / "run", *SMALL, "--seed", "0")
    assert f"{data / 'dark' / 'bad.mp4'}: " in line
    assert message[:20] in line
    assert "--max-bad" in line or "--skip-bad" in line  # it may be on any side
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
    assert "looks like p3d_resnet14 (2 classes, 3 input channels), the model is p3d_resnet50; use p3d_resnet14" in line
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
