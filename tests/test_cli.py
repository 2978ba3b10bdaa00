"""The command line from videos to pictures, and what it says."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import QUICK, SMALL, mistake, names, p3d, sides_of, write_two_classes

import pseudo3d
from pseudo3d import FeatureStore, cli
from pseudo3d.data.annotations import read_samples
from pseudo3d.data.synthetic import write_moving_digits

pytestmark = pytest.mark.usefixtures("one_thread")


def test_help(capsys):
    for args in ([], ["-h"], ["--help"], ["help"]):
        code, out, err = p3d(capsys, *args)
        assert (code, err) == (0, [])
        for command in cli.COMMANDS:
            assert re.search(rf"^  {command} +\w", out, re.MULTILINE)
    assert p3d(capsys, "--version") == (0, f"{pseudo3d.__version__}\n", [])


NESTED = [
    "weights inspect",
    "weights convert",
    "weights verify",
    "weights push",
    "store info",
    "store verify",
    "store export",
    "store compact",
    "store remove",
    "evaluate hits",
    "evaluate ucf101",
    "evaluate hmdb51",
    "evaluate activitynet",
    "evaluate sports1m",
    "evaluate kinetics",
    "evaluate aslan",
    "evaluate yupenn",
    "evaluate dynamic-scene",
    "evaluate fuse",
    "visualize deepdraw",
    "visualize gradcam",
    "visualize pca",
    "visualize sizes",
    "bench table1",
    "bench c3d-runtime",
    "bench tables",
    "data check",
    "data list",
]
WITH_COMMANDS = ("weights", "store", "bench", "data")  # their own help is a list  # fmt: skip


@pytest.mark.parametrize("command", [*(name for name in cli.COMMANDS if name not in WITH_COMMANDS), *NESTED])
def test_help_of_every_command_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command.split(), "--help"])
    assert stop.value.code == 0
    out, err = capsys.readouterr()
    assert f"Example: p3d {command}" in out
    assert err == ""


@pytest.mark.parametrize(("typed", "near"), [("predcit", "predict"), ("extrat", "extract"), ("vizualise", "visualize")])
def test_an_unknown_command_names_the_nearest(typed, near, capsys):
    assert mistake(capsys, typed) == f"p3d: no command {typed!r}; did you mean {near!r}? See p3d --help"


def test_real_processes(tmp_path):
    """The installed script and the module agree, and an exit code reaches the shell."""
    script = Path(sys.executable).with_name("p3d")
    for command in ([script], [sys.executable, "-m", "pseudo3d.cli"]):
        done = subprocess.run([*command, "evaluate", tmp_path / "none"], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stdout == ""
        line = f"p3d evaluate: {tmp_path / 'none'}: not a feature store (no store.json); make one with `p3d extract`\n"
        assert done.stderr == line


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a shell's pipe")
def test_a_reader_that_leaves_early_is_no_mistake():
    command = f"{sys.executable} -m pseudo3d.cli models | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.strip() in ("141", "0")  # 0 when the table was written before the reader left


def test_models(capsys):
    code, out, _ = p3d(capsys, "models", "--num-classes", "101")
    assert code == 0
    row, published = [line.split() for line in out.splitlines() if line.startswith("p3d_resnet50 ")]
    assert row == ["p3d_resnet50", "25,132,581", "100.5", "95.9", "16.9", "16x160x160"]
    assert published == ["p3d_resnet50", "101", "100.5", "95.9", "98", "not", "equal", "P3D", "paper,", "Table", "1"]
    c3d = [line.split()[:5] for line in out.splitlines() if line.startswith("c3d ")][1]
    assert c3d == ["c3d", "487", "320.0", "305.1", "321"]
    for name in pseudo3d.list_models():
        assert f"\n{name} " in out


def test_train_says_what_comes_next(two_classes, tmp_path, capsys):
    code, out, err = p3d(capsys, "train", "--data", two_classes, "--out", tmp_path / "run", *SMALL)
    assert code == 0
    assert re.search(r"on the test videos, 1 clips each:\n  clip hit@1 +\d+\.\d%\n  video hit@1 +\d+\.\d%\n", out)
    best = tmp_path / "run" / "checkpoints" / "best"
    assert f"weights: {best}\nnext: p3d extract {tmp_path / 'run' / 'split.csv'} --weights {best} --out STORE" in out
    assert err == [line for line in err if re.match(r"epoch 1/1: loss \d+\.\d+ val video hit@1 ", line)]


def test_extract(two_classes, weights, store, capsys):
    opened = FeatureStore(store)
    assert len(opened) == 12
    assert opened.videos[0] == "bright/bright0.mkv"
    assert set(opened.labels) == {"bright", "dark"}
    assert opened.features().shape == (12, 2048)
    assert opened.info["clips"] == 2
    parts = {path.name: path.read_bytes() for path in store.glob("part-*")}
    code, out, err = p3d(capsys, "extract", two_classes, "--weights", weights, "--out", store, *QUICK)
    assert (code, err) == (0, [])
    assert re.search(r": 0 videos, 0 clips in \d+\.\d s, 12 were there before", out)
    assert {path.name: path.read_bytes() for path in store.glob("part-*")} == parts


def test_extract_goes_on_where_it_stopped(tmp_path, weights, store, two_classes, capsys, monkeypatch):
    """Interrupted after some videos, the same command computes the rest; the features are those of one go."""
    from pseudo3d.features import extract as module

    real = module.StoreWriter.add

    def add(self, row, **more):
        if len(self.done) == 5:
            raise KeyboardInterrupt
        real(self, row, **more)

    args = ("extract", two_classes, "--weights", weights, "--out", tmp_path / "s", *QUICK)
    with monkeypatch.context() as patch:
        patch.setattr(module.StoreWriter, "add", add)
        code, _, err = p3d(capsys, *args)
    assert code == 130
    assert err == ["p3d extract: stopped after 5 of 12 videos; run the same command again to go on"]
    assert len(FeatureStore(tmp_path / "s")) == 5
    code, out, _ = p3d(capsys, *args)
    assert code == 0
    assert ": 7 videos, 14 clips in " in out
    assert "5 were there before" in out
    assert FeatureStore(tmp_path / "s").videos == FeatureStore(store).videos
    assert np.array_equal(FeatureStore(tmp_path / "s").features(), FeatureStore(store).features())


def test_extract_layers(two_classes, weights, tmp_path, capsys):
    code, _, _ = p3d(
        capsys, "extract", two_classes / "dark", "--weights", weights, "--out", tmp_path / "s", *QUICK,
        "--layers", "pool5, prob", "--sampler", "authors",
    )  # fmt: skip
    assert code == 0
    opened = FeatureStore(tmp_path / "s")
    assert opened.layers == ["pool5", "prob"]
    assert opened.features("prob").sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert opened.labels == [None] * 6
    assert opened.info["sampler"] == "authors"


def test_random_weights_are_noted_and_recorded(two_classes, tmp_path, capsys):
    video = two_classes / "dark" / "dark0.mkv"
    args = ("--weights", "random", "--model", "p3d_resnet14", "--clips", "1", "--device", "cpu")
    code, _, err = p3d(capsys, "extract", video, "--out", tmp_path / "s", *args)
    assert code == 0
    assert err == ["p3d: note: p3d_resnet14 has random weights: what it says of a video is noise"]
    assert FeatureStore(tmp_path / "s").info["weights"] == "random"
    code, out, _ = p3d(capsys, "predict", video, *args, "--top", "1")
    assert code == 0
    assert re.search(r"^ +\d+\.\d%  class_\d+$", out, re.MULTILINE)


@pytest.mark.parametrize("form", ["file", "several", "folder", "list", "csv"])
def test_ways_to_name_videos(form, two_classes, weights, tmp_path, capsys):
    first, second = two_classes / "dark" / "dark0.mkv", two_classes / "bright" / "bright0.mkv"
    (tmp_path / "list.txt").write_text(f"# mine\n{first} night\n{second} day\n")
    (tmp_path / "list.csv").write_text(f"path,label,split,group\n{first},night,train,a\n{second},day,test,b\n")
    given = {
        "file": [first], "several": [first, second], "folder": [two_classes / "dark"],
        "list": [tmp_path / "list.txt"], "csv": [tmp_path / "list.csv"],
    }[form]  # fmt: skip
    code, _, _ = p3d(capsys, "extract", *given, "--weights", weights, "--out", tmp_path / "s", *QUICK)
    assert code == 0
    opened = FeatureStore(tmp_path / "s")
    assert len(opened) == {"file": 1, "several": 2, "folder": 6, "list": 2, "csv": 2}[form]
    labelled = form in ("list", "csv")
    assert sorted(map(str, opened.labels)) == (["day", "night"] if labelled else ["None"] * len(opened))
    assert sorted(map(str, opened.groups))[-1] == ("b" if form == "csv" else "None")


def test_predict(two_classes, weights, capsys):
    videos = [two_classes / "dark" / "dark0.mkv", two_classes / "bright" / "bright1.mkv"]
    code, out, err = p3d(capsys, "predict", *videos, "--weights", weights, *QUICK)
    assert (code, err) == (0, [])
    blocks = re.split(r"^(?=\S)", out, flags=re.MULTILINE)[1:]
    assert {block.splitlines()[0] for block in blocks} == {str(video) for video in videos}
    for block in blocks:
        rows = [line.split() for line in block.splitlines()[1:]]
        assert {name for _, name in rows} == {"bright", "dark"}  # both of them, though 5 were asked for
        shares = [float(share.rstrip("%")) for share, _ in rows]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(100, abs=0.11)
    one = p3d(capsys, "predict", videos[0], "--weights", weights, "--top", "1", *QUICK)[1]
    assert len(one.splitlines()) == 2


def test_predict_names_five(two_classes, tmp_path, capsys):
    model = pseudo3d.create_model("p3d_resnet14", num_classes=8)
    model.class_names = tuple("abcdefgh")
    model.preprocessing = model.preprocessing.with_size(32)
    pseudo3d.save_pretrained(model, tmp_path / "w")
    out = p3d(capsys, "predict", two_classes / "dark" / "dark0.mkv", "--weights", tmp_path / "w", *QUICK)[1]
    assert len(out.splitlines()) == 6


def test_evaluate(store, tmp_path, capsys):
    code, out, err = p3d(capsys, "evaluate", store, "--out", tmp_path / "e")
    assert (code, err) == (0, [])
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["videos"] == 12
    assert metrics["class names"] == ["bright", "dark"]
    assert np.sum(metrics["confusion"]) == 12
    assert np.trace(metrics["confusion"]) / 12 == metrics["accuracy"]
    assert f"linear SVM accuracy {metrics['accuracy']:.1%} on 12 videos (5-fold cross-validation, C = 1)" in out
    assert names(tmp_path / "e") == ["confusion.png", "confusion.svg", "metrics.json"]
    assert (tmp_path / "e" / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_evaluate_writes_into_the_store_unless_told(store, two_classes, weights, tmp_path, capsys):
    copy = tmp_path / "s"
    copy.mkdir()
    for path in store.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    assert p3d(capsys, "evaluate", copy)[0] == 0
    assert names(copy / "evaluation") == ["confusion.png", "confusion.svg", "metrics.json"]
    # and the store is still one
    assert p3d(capsys, "extract", two_classes, "--weights", weights, "--out", copy, *QUICK)[0] == 0
    assert len(FeatureStore(copy)) == 12


def test_visualize(store, tmp_path, capsys):
    for out in ("map", "map.png"):  # the suffix is not doubled
        code, text, _ = p3d(capsys, "visualize", store, "--out", tmp_path / out)
        assert code == 0
        assert text.split() == [str(tmp_path / "map.png"), str(tmp_path / "map.svg")]
    assert names(tmp_path) == ["map.png", "map.svg"]
    assert p3d(capsys, "visualize", store, store, "--out", tmp_path / "new" / "two")[0] == 0
    assert names(tmp_path / "new") == ["two.png", "two.svg"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_evaluate_leaves_other_folders_alone(store, tmp_path, capsys):
    command = ("evaluate", store, "--out")
    hits = ("evaluate", "hits", "--features", store, "--out", tmp_path / "hits")
    run, other, own = tmp_path / "run", tmp_path / "other", tmp_path / "own"
    run.mkdir()
    (run / "confusion.png").write_bytes(b"of a protocol")
    (run / "result.json").write_text("{}")
    before = contents(run)
    assert "run: holds other files (result.json); give a folder of its own" in mistake(capsys, *command, run)
    (run / "result.json").unlink()  # a run that was stopped before its result was written
    assert "run: holds other files (confusion.png)" in mistake(capsys, *command, run)
    assert contents(run) == {"confusion.png": before["confusion.png"]}
    other.mkdir()
    (other / "metrics.json").write_text('{"accuracy": 1}')
    assert "metrics.json: is not of p3d evaluate STORE" in mistake(capsys, *command, other)
    (other / "metrics.json").write_text("no JSON")
    assert "metrics.json: is not of p3d evaluate STORE" in mistake(capsys, *command, other)
    assert "is a file" in mistake(capsys, *command, other / "metrics.json")
    assert p3d(capsys, *command, own)[0] == 0
    first = contents(own)
    assert p3d(capsys, *command, own)[0] == 0  # the same again
    assert contents(own) == first
    copy = shutil.copytree(store, tmp_path / "copy")
    assert f"own: holds what was found of {store}; give another folder" in mistake(
        capsys, "evaluate", copy, "--out", own
    )
    assert contents(own) == first
    assert "holds other files (metrics.json)" in mistake(capsys, *hits[:-1], own)
    assert p3d(capsys, "evaluate", copy)[0] == 0
    moved = copy.rename(tmp_path / "moved")
    assert p3d(capsys, "evaluate", moved, "--c", "2")[0] == 0  # the store's own folder goes with it


def test_pictures_do_not_take_the_place_of_other_files(store, tmp_path, tmp_path_factory, capsys):
    """What a command has written under a name it writes again; nothing else, and nothing of another kind."""
    data = tmp_path_factory.mktemp("data")
    np.save(data / "f.npy", np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32))
    (data / "f.csv").write_text("path,label\n" + "".join(f"{i}.mp4,{'ab'[i % 2]}\n" for i in range(12)))
    pictures = {
        "map": ("visualize", store), "sizes": ("visualize", "sizes"),
        "pca": ("visualize", "pca", data / "f.npy", "--dims", "2", "--folds", "2"),
    }  # fmt: skip
    for kind, command in pictures.items():
        for ending in ("png", "svg", "json", "csv")[: {"map": 2, "sizes": 3, "pca": 4}[kind]]:
            name = f"{kind}_{ending}"
            (tmp_path / f"{name}.{ending}").write_text("{}")
            told = mistake(capsys, *command, "--out", tmp_path / name)
            assert f"{name}.{ending} is there and not known to be of p3d visualize" in told
            assert names(tmp_path) == [f"{name}.{ending}"]
            assert (tmp_path / f"{name}.{ending}").read_text() == "{}"
            (tmp_path / f"{name}.{ending}").unlink()
    for kind, command in pictures.items():
        assert p3d(capsys, *command, "--out", tmp_path / "x" / kind)[0] == 0
        assert p3d(capsys, *command, f"--out={tmp_path / 'x' / kind}.png")[0] == 0  # the same again
    before = contents(tmp_path / "x")
    for kind in pictures:
        for other, command in pictures.items():
            if other != kind:
                told = mistake(capsys, *command, "--out", tmp_path / "x" / kind)
                assert "are there and not known to be of p3d visualize" in told
    assert contents(tmp_path / "x") == before


@pytest.fixture
def digits(tmp_path):
    """split/class/file, as the demo's set: 8 classes, 2 train and 1 test videos each."""
    return write_moving_digits(tmp_path / "digits", train_per_class=2, test_per_class=1, num_frames=16, size=32)


def test_train_on_split_folders(digits, tmp_path, capsys):
    code, out, _ = p3d(capsys, "train", "--data", digits, "--out", tmp_path / "run", *SMALL)
    assert code == 0
    assert "video hit@5" in out  # 8 classes
    found = sides_of(tmp_path / "run")
    assert {path.split("/")[0] for path in found["test"]} == {"test"}
    assert {path.split("/")[0] for path in found["train"] | found["val"]} == {"train"}
    assert len(found["test"]) == 8


def test_train_on_a_list_with_groups(two_classes, tmp_path, capsys):
    videos = read_samples(two_classes)
    (tmp_path / "list.txt").write_text("".join(f"{videos.root / s.path} {s.label}\n" for s in videos.samples))
    groups = {Path(s.path).stem: f"film{int(Path(s.path).stem[-1]) // 2}" for s in videos.samples}
    (tmp_path / "groups.txt").write_text("".join(f"{name} {group}\n" for name, group in groups.items()))
    args = ("--data", tmp_path / "list.txt", "--groups", tmp_path / "groups.txt", "--out", tmp_path / "run")
    assert p3d(capsys, "train", *args, *SMALL)[0] == 0
    found = [{groups[Path(path).stem] for path in side} for side in sides_of(tmp_path / "run").values()]
    assert sum(map(len, found)) == len(set.union(*found)) == 3


def test_train_on_a_table(two_classes, tmp_path, capsys):
    splits = ("train", "train", "train", "val", "test", "test")
    videos = read_samples(two_classes)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "split"))
        for sample in videos.samples:
            split = splits[int(Path(sample.path).stem[-1])]
            table.writerow((videos.root / sample.path, sample.label.upper(), split))
    run = tmp_path / "run"
    assert p3d(capsys, "train", "--data", tmp_path / "table.csv", "--out", run, *SMALL)[0] == 0
    assert {name: len(paths) for name, paths in sides_of(run).items()} == {"train": 6, "val": 2, "test": 4}
    assert pseudo3d.from_pretrained(run / "checkpoints" / "best").class_names == ("BRIGHT", "DARK")


def test_evaluate_with_splits_and_groups(digits, weights, store, tmp_path, capsys):
    assert p3d(capsys, "extract", digits, "--weights", weights, "--out", tmp_path / "s", *QUICK)[0] == 0
    code, out, _ = p3d(capsys, "evaluate", tmp_path / "s")
    assert code == 0
    assert "on 8 videos (the data's own splits, C = 1)" in out
    lines = [f"{name}{i} film{i // 2}\n" for name in ("bright", "dark") for i in range(6)]
    (tmp_path / "groups.txt").write_text("".join(lines))
    args = ("--groups", tmp_path / "groups.txt", "--out", tmp_path / "e", "--c", "10")
    code, out, _ = p3d(capsys, "evaluate", store, *args)
    assert code == 0
    assert "3-fold cross-validation, each group in one fold, C = 10" in out


def test_some_videos_fail(tmp_path, weights, capsys):
    """Code 1; every failure is named; the rest is done; mended, the same command does the missing one alone."""
    data = write_two_classes(tmp_path / "data", 3)
    (data / "dark" / "text.mp4").write_text("no video")
    (data / "bright" / "empty.mkv").write_bytes(b"")
    args = ("extract", data, "--weights", weights, "--out", tmp_path / "s", *QUICK)
    code, out, err = p3d(capsys, *args)
    assert code == 1
    assert ": 6 videos, 12 clips in " in out
    assert sorted(re.findall(r"(\w+\.\w+): ", " ".join(err))) == ["empty.mkv", "text.mp4"]
    assert all(line.startswith("failed: ") for line in err[:2])
    assert err[2:] == ["2 of 8 videos failed"]
    assert set(FeatureStore(tmp_path / "s").failures) == {"bright/empty.mkv", "dark/text.mp4"}
    assert "2 videos failed in extraction" in p3d(capsys, "evaluate", tmp_path / "s")[1]
    (data / "dark" / "text.mp4").unlink()
    (data / "bright" / "empty.mkv").write_bytes((data / "bright" / "bright0.mkv").read_bytes())
    code, out, err = p3d(capsys, *args)
    assert (code, err) == (0, [])
    assert ": 1 videos, 2 clips" in out
    code, out, err = p3d(capsys, "predict", data / "dark" / "dark0.mkv", data / "none.txt.mp4", "--weights", weights)
    assert code == 2  # nothing was begun: a path that does not exist is a typing mistake
    (data / "bad.mp4").write_text("no video")
    code, out, err = p3d(capsys, "predict", data / "bad.mp4", data / "dark" / "dark0.mkv", "--weights", weights, *QUICK)
    assert code == 1
    assert "dark0.mkv" in out
    assert err[0].startswith(f"failed: {data / 'bad.mp4'}: is not a video")
    assert err[1:] == ["1 of 2 videos failed"]


def test_an_unexpected_error_shows_its_traceback(two_classes, monkeypatch):
    """Only mistakes of the user are told in one line; a defect of the program must be seen."""
    from pseudo3d.models import cost

    def broken(*_args, **_kwargs):
        raise ValueError("a defect")

    monkeypatch.setattr(cost, "model_cost", broken)
    with pytest.raises(ValueError, match="a defect"):
        cli.main(["models"])
    code = "import pseudo3d.models.cost as c, pseudo3d.cli as m\nc.model_cost = None\nm.main(['models'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "TypeError" in done.stderr


def test_an_oserror_without_a_number_is_unexpected(monkeypatch):
    from pseudo3d.models import cost

    def broken(*_args, **_kwargs):
        raise OSError("no number")

    monkeypatch.setattr(cost, "model_cost", broken)
    with pytest.raises(OSError, match="no number"):
        cli.main(["models"])


def test_log_lines_and_warnings_are_one_line(capsys, monkeypatch):
    import logging
    import warnings

    from pseudo3d.commands import models

    def run(_args):
        logging.getLogger("pseudo3d.video").warning("a frame is damaged")
        warnings.warn("take care", stacklevel=1)
        return 0

    monkeypatch.setattr(models, "run", run)
    assert p3d(capsys, "models") == (0, "", ["p3d: a frame is damaged", "p3d: note: take care"])
    assert logging.getLogger("pseudo3d").handlers == []


@pytest.mark.slow
def test_the_whole_way_in_real_processes(tmp_path):
    """train, extract, evaluate, predict, visualize as a person types them, with relative paths."""
    write_two_classes(tmp_path / "my videos", 4)
    commands = [
        ["train", "--data", "my videos", "--out", "runs/first", *SMALL],
        ["extract", "my videos", "--weights", "runs/first/checkpoints/best", "--out", "features", *QUICK],
        ["evaluate", "features"],
        ["predict", "my videos/dark/dark0.mkv", "--weights", "runs/first/checkpoints/best", *QUICK],
        ["visualize", "features", "--out", "map"],
    ]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "pseudo3d.cli", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert names(tmp_path) == ["features", "map.png", "map.svg", "my videos", "runs"]


def test_the_runs_own_list_keeps_trained_videos_out_of_the_evaluation(two_classes, tmp_path, capsys):
    """The next step that `p3d train` names: the SVM is tested on videos that the network has not seen either."""
    run = tmp_path / "run"
    assert p3d(capsys, "train", "--data", two_classes, "--out", run, *SMALL)[0] == 0
    args = ("--weights", run / "checkpoints" / "best", "--out", tmp_path / "s", *QUICK)
    assert p3d(capsys, "extract", run / "split.csv", *args)[0] == 0
    assert p3d(capsys, "evaluate", tmp_path / "s")[0] == 0
    metrics = json.loads((tmp_path / "s" / "evaluation" / "metrics.json").read_text())
    assert metrics["protocol"] == "the data's own splits"
    assert metrics["videos"] == len(sides_of(run)["test"])


def test_training_goes_on_from_a_run_without_naming_its_network(trained, two_classes, tmp_path, capsys):
    args = ("--weights", trained / "checkpoints" / "best", *SMALL, "--model", "None")
    assert p3d(capsys, "train", "--data", two_classes, "--out", tmp_path / "run", *args)[0] == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"] == "p3d_resnet14"
