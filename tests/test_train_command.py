"""``p3d train``: what its options become, what it says, how it ends. The training itself is another test's matter."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import mistake

import pseudo3d.commands.launch
import pseudo3d.training.dry_run
import pseudo3d.training.loop
from pseudo3d.cli import main
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.recipes import get_recipe
from pseudo3d.training.stopping import Interrupted
from pseudo3d.training.trainer import TrainResult


@pytest.fixture
def calls(monkeypatch):
    """The arguments that ``training.loop.train``, ``dry_run`` and ``launch`` were called with; nothing is trained."""
    seen = {}

    def train(samples, config, out, **more):
        seen["train"] = (config, out, more)
        return TrainResult(out, out / "checkpoints" / "best", {"video hit@1": 0.5}, 12.0)

    def dry_run(samples, config, processes):
        seen["dry_run"] = (len(samples), config, processes)
        return "clips 4 x 3"

    def launch(gpus, args):
        seen["launch"] = (gpus, args)
        return 3

    monkeypatch.setattr(pseudo3d.training.loop, "train", train)
    monkeypatch.setattr(pseudo3d.training.dry_run, "dry_run", dry_run)
    monkeypatch.setattr(pseudo3d.commands.launch, "launch", launch)
    monkeypatch.setattr(pseudo3d.commands.launch, "check_gpus", lambda *asked: seen.setdefault("gpus", asked))
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return seen


def p3d_train(*args):
    return main(["train", *map(str, args)])


def test_defaults(calls, two_classes, tmp_path, capsys):
    out = tmp_path / "run"
    assert p3d_train("--data", two_classes, "--out", out) == 0
    config, where, more = calls["train"]
    assert (config, where) == (get_recipe("scratch"), out)
    assert more == {"resume": "never", "tensorboard": False, "wandb": None, "quiet": False}
    said = capsys.readouterr()
    assert said.err == "p3d: recipe scratch: as it is\n"
    assert said.out.splitlines()[1:3] == ["  video hit@1   50.0%", f"weights: {out}/checkpoints/best"]


def test_every_option_reaches_the_config(calls, two_classes, tmp_path, capsys):
    assert p3d_train(
        "finetune", "--data", two_classes, "--out", tmp_path / "run", "--epochs", 3, "--no-freeze-bn", "--optim.lr",
        "0.5", "--augment.flip", "--augment.pieces", 5, "--class-weights", "balanced", "--resize", 40, 50,
        "--resume", "auto", "--tensorboard", "--wandb", "project",
    ) == 0  # fmt: skip
    config, _, more = calls["train"]
    start = get_recipe("finetune")
    assert config == replace(
        start,
        epochs=3,
        freeze_bn=False,
        class_weights="balanced",
        resize=(40, 50),
        optim=replace(start.optim, lr=0.5),
        augment=replace(start.augment, flip=True, pieces=5),
    )
    assert more == {"resume": "auto", "tensorboard": True, "wandb": "project", "quiet": False}
    assert capsys.readouterr().err == (
        "p3d: recipe finetune: freeze-bn False, resize 40 50, epochs 3, class-weights balanced, optim.lr 0.5, "
        "augment.flip True, augment.pieces 5\n"
    )


@pytest.mark.parametrize("form", [["--weights", "imagenet"], ["--weights=imagenet"]])
def test_weights_without_a_recipe_are_fine_tuned(calls, two_classes, tmp_path, form):
    assert p3d_train("--data", two_classes, "--out", tmp_path / "run", *form) == 0
    assert calls["train"][0] == replace(get_recipe("finetune"), weights="imagenet")


@pytest.mark.parametrize("form", [["--weights", "random"], ["--weights=random"]])
def test_random_weights_are_trained_from_scratch(calls, two_classes, tmp_path, form):
    assert p3d_train("--data", two_classes, "--out", tmp_path / "run", *form) == 0
    assert calls["train"][0] == get_recipe("scratch")


def test_epochs_take_the_place_of_a_recipes_steps(calls, two_classes, tmp_path, capsys):
    assert p3d_train("ucf101_p3d", "--data", two_classes, "--out", tmp_path / "run", "--epochs", 30) == 0
    assert calls["train"][0] == replace(get_recipe("ucf101_p3d"), epochs=30, iterations=None)
    assert capsys.readouterr().err == "p3d: recipe ucf101_p3d: iterations None\n"
    assert p3d_train("scratch", "--data", two_classes, "--out", tmp_path / "run", "--iterations", 9) == 0
    assert calls["train"][0] == replace(get_recipe("scratch"), iterations=9)


def test_the_config_of_a_run_is_a_recipe(calls, two_classes, tmp_path, capsys):
    kept = replace(get_recipe("ucf101_p3d"), blocks="A", seed=7)
    path = tmp_path / "config.json"
    path.write_text(kept.to_json())
    assert p3d_train(path, "--data", two_classes, "--out", tmp_path / "run") == 0
    assert calls["train"][0] == kept
    assert p3d_train(path, "--data", two_classes, "--out", tmp_path / "run", "--seed", 8) == 0
    assert calls["train"][0] == replace(kept, seed=8)
    assert f"recipe {path}: seed 8\n" in capsys.readouterr().err


def test_a_file_named_as_a_recipe_hides_it_not(calls, two_classes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("demo").write_text("mine")
    assert p3d_train("demo", "--data", two_classes, "--out", "run") == 0
    assert calls["train"][0] == get_recipe("demo")


def changed(**values):
    return json.dumps({**json.loads(get_recipe("scratch").to_json()), **values})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(epochs="3"), "config.json: --epochs must be a whole number, got '3'"),
        (changed(nesterov=True), "config.json: the training config has unknown fields ['nesterov']"),
        ("{", "config.json: the training config is not valid JSON"),
        ("\udcff", "config.json: 'utf-8' codec can't decode"),
        (None, "config.json: no such file; give a run's config.json, or one of scratch, "),
    ],
)
def test_a_file_that_is_no_config(calls, two_classes, tmp_path, capsys, text, message):
    path = tmp_path / "config.json"
    if text is not None:
        path.write_text(text, encoding="utf-8", errors="surrogateescape")
    line = mistake(capsys, "train", path, "--data", two_classes, "--out", tmp_path / "run")
    assert line.startswith("p3d train: ")
    assert message in line
    assert not calls


@pytest.mark.parametrize("form", [["--gpus", "2"], ["--gpus=2"]])
def test_gpus_start_processes(calls, two_classes, tmp_path, form):
    args = ["ucf101_p3d", "--data", str(two_classes), "--out", str(tmp_path / "run"), "--epochs", "2"]
    assert p3d_train(*args[:3], *form, *args[3:]) == 3
    assert calls == {"launch": (2, args), "gpus": (2, "auto")}


def test_the_device_of_a_config_counts(calls, two_classes, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(replace(get_recipe("scratch"), device="cpu").to_json())
    args = [str(path), "--data", str(two_classes), "--out", str(tmp_path / "run")]
    assert p3d_train(*args, "--gpus", 2) == 3
    assert calls == {"launch": (2, [*args, "--device", "cpu"]), "gpus": (2, "cpu")}


def test_a_scheduler_that_speaks_of_one_process(calls, two_classes, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    args = ["--data", str(two_classes), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert p3d_train(*args, "--gpus", 2) == 3
    assert calls["launch"][0] == 2


def test_wrong_options_are_told_before_processes_start(calls, two_classes, tmp_path, capsys):
    args = ("train", "--data", two_classes, "--out", tmp_path / "run", "--gpus", 2)
    assert "--epochs must be at least 1" in mistake(capsys, *args, "--epochs", 0)
    nowhere = ("train", "--data", tmp_path / "nothing", "--out", tmp_path / "run", "--gpus", 2)
    assert "does not exist" in mistake(capsys, *nowhere)
    assert "launch" not in calls


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_the_first_one_speaks(calls, two_classes, tmp_path, capsys, monkeypatch, rank):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert p3d_train("--data", two_classes, "--out", tmp_path / "run", "--gpus", 2) == 0
    assert calls.keys() == {"train"}
    assert calls["train"][2]["quiet"] == (rank == "1")
    said = capsys.readouterr()
    assert bool(said.out) == bool(said.err) == (rank == "0")


def test_a_dry_run_needs_no_out(calls, two_classes, capsys):
    assert p3d_train("demo", "--data", two_classes, "--dry-run", "--epochs", 2) == 0
    assert calls == {"dry_run": (12, replace(get_recipe("demo"), epochs=2), 1)}
    said = capsys.readouterr()
    assert (said.out, said.err) == ("clips 4 x 3\n", "")


def test_a_dry_run_is_of_one_of_the_processes(calls, two_classes):
    assert p3d_train("demo", "--data", two_classes, "--dry-run", "--gpus", 2) == 0
    assert calls == {"dry_run": (12, get_recipe("demo"), 2), "gpus": (2, "auto")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_asked_to_stop(calls, two_classes, tmp_path, capsys, monkeypatch, number):
    def stopped(*args, **more):
        raise Interrupted(number, "stopped after step 7; go on with --resume auto")

    monkeypatch.setattr(pseudo3d.training.loop, "train", stopped)
    assert p3d_train("--data", two_classes, "--out", tmp_path / "run") == 128 + number
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "p3d train: stopped after step 7; go on with --resume auto"
    assert said.out == ""


def test_help_names_the_recipes_and_their_values(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        p3d_train("c3d_kernels", "--help")
    text = capsys.readouterr().out
    assert "The values below are those of c3d_kernels." in text
    for words in ("  sports1m_p3d     P3D ResNet-152 on Sports-1M (paper 4)\n", "(default: c3d_small_3)",
                  "network options ", "optim options ", "machine options "):  # fmt: skip
        assert words in text
    assert "``" not in text


def test_the_config_that_is_trained_can_be_read_again(calls, two_classes, tmp_path):
    p3d_train(
        "--data",
        two_classes,
        "--out",
        tmp_path / "run",
        "--augment.pieces",
        3,
        "--optim.schedule",
        "step",
        "--optim.milestones",
        0.2,
        0.7,
    )
    config = calls["train"][0]
    assert TrainConfig.from_json(config.to_json()) == config
