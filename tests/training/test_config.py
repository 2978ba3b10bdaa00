import json
import re
from dataclasses import fields, is_dataclass, replace

import pytest
from tiny import SMALL, p3d

from pseudo3d import Pseudo3dError
from pseudo3d.cli import main
from pseudo3d.commands.train import _GROUPS
from pseudo3d.data.augmentation import Augmentation
from pseudo3d.training.config import Optim, TrainConfig
from pseudo3d.training.recipes import RECIPES, get_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", RECIPES)
def test_round_trip(name):
    config = get_recipe(name)
    assert config.recipe == name
    assert TrainConfig.from_json(config.to_json()) == config
    other = replace(
        config,
        size=64,
        dropout=0.3,
        style="torchvision",
        resize=(70, 80),
        class_weights="balanced",
        checkpoint_every=100,
        optim=Optim("sgd", schedule="step", milestones=(0.5, 0.9), gamma=0.5, momentum=0.8),
        augment=Augmentation(random_crop=False, flip=True, pieces=5, piece_seconds=2.0),
    )
    assert TrainConfig.from_json(other.to_json()) == other


def test_a_micro_batch_of_one_has_no_batch_statistics():
    with pytest.raises(Pseudo3dError, match=r"--micro-batch must be at least 2"):
        replace(get_recipe("scratch"), micro_batch=1)
    assert replace(get_recipe("finetune"), micro_batch=1).micro_batch == 1
    assert replace(get_recipe("c3d_kernels"), micro_batch=1, batch_size=1).micro_batch == 1  # has no batch norms


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(learning=1), r"config has unknown fields \['learning'\]; did you mean 'optim.lr'\?$"),
        (lambda v: v.update(epoch=1), r"config has unknown fields \['epoch'\]; did you mean 'epochs'\?$"),
        (
            lambda v: v["optim"].update(nesterov=True),
            r"optim of the training config has unknown fields \['nesterov'\]; ",
        ),
        (lambda v: v["optim"].update(learning_rate=1), r"unknown fields \['learning_rate'\]; did you mean 'lr'\?$"),
        (lambda v: v["augment"].update(blur=1), r"augment of the training config has unknown fields \['blur'\]"),
        (lambda v: v.pop("optim"), r"config has missing fields \['optim'\]"),
        (lambda v: v.pop("seed"), r"config has missing fields \['seed'\]"),
        (lambda v: v.update(optim=3), "optim of the training config must be a JSON object, got 3"),
        (lambda v: v.update(epochs=0), "--epochs must be at least 1, got 0"),
        (lambda v: v.update(epochs="3"), "^--epochs must be a whole number, got '3'$"),
        (lambda v: v.update(epochs=3.0), r"--epochs must be a whole number, got 3\.0"),
        (lambda v: v.update(epochs=None), "--epochs must be a whole number, got None"),
        (lambda v: v.update(epochs=True), "--epochs must be a whole number, got True"),
        (lambda v: v.update(epochs=[3]), r"--epochs must be a whole number, got \(3,\)"),
        (lambda v: v.update(iterations="all"), "--iterations must be a whole number or None, got 'all'"),
        (lambda v: v.update(dropout="half"), "--dropout must be a number or None, got 'half'"),
        (lambda v: v.update(max_bad=False), "--max-bad must be a number, got False"),
        (lambda v: v.update(freeze_bn=1), "--freeze-bn must be true or false, got 1"),
        (lambda v: v.update(model=50), "--model must be text or None, got 50"),
        (lambda v: v.update(weights=None), "--weights must be text, got None"),
        (lambda v: v.update(dtype="float16"), "--dtype must be 'auto' or 'float32' or 'bfloat16', got 'float16'"),
        (lambda v: v.update(style=["caffe"]), "--style must be 'caffe' or 'torchvision' or 'port' or None, got "),
        (lambda v: v.update(class_weights="some"), "--class-weights must be 'none' or 'balanced', got 'some'"),
        (lambda v: v.update(resize=[182]), r"--resize must be 2 whole numbers or None, got \(182,\)"),
        (lambda v: v.update(resize=[182, "242"]), "--resize must be 2 whole numbers or None, got "),
        (lambda v: v["optim"].update(lr="fast"), r"--optim\.lr must be a number, got 'fast'"),
        (lambda v: v["optim"].update(name="adam"), r"--optim\.name must be 'adamw' or 'sgd', got 'adam'"),
        (lambda v: v["optim"].update(milestones=0.4), r"--optim\.milestones must be numbers, got 0\.4"),
        (lambda v: v["optim"].update(milestones=[0.4, "end"]), r"--optim\.milestones must be numbers, got \("),
        (lambda v: v["augment"].update(pieces="five"), r"--augment\.pieces must be a whole number or None, got 'five'"),
        (lambda v: v["augment"].update(pieces=0), r"--augment\.pieces must be at least 1, got 0"),
    ],
)
def test_a_config_that_does_not_fit(change, message):
    values = json.loads(get_recipe("scratch").to_json())
    change(values)
    with pytest.raises(Pseudo3dError, match=message) as error:
        TrainConfig.from_json(json.dumps(values))
    assert "\n" not in str(error.value)


def test_whole_numbers_are_numbers():
    values = json.loads(get_recipe("scratch").to_json())
    values["max_bad"], values["optim"]["lr"], values["optim"]["milestones"] = 0, 1, [0.5]
    config = TrainConfig.from_json(json.dumps(values))
    assert (config.max_bad, config.optim.lr, config.optim.milestones) == (0, 1, (0.5,))


def test_types_are_checked_in_python_too():
    with pytest.raises(Pseudo3dError, match="--epochs must be a whole number, got '3'"):
        replace(get_recipe("scratch"), epochs="3")
    with pytest.raises(Pseudo3dError, match=r"--optim\.gamma must be a number, got None"):
        replace(get_recipe("scratch"), optim=Optim(gamma=None))
    with pytest.raises(Pseudo3dError, match="--optim must be a section of its own, got 3"):
        replace(get_recipe("scratch"), optim=3)


@pytest.mark.parametrize("text", ["{", "[1]", '"text"'])
def test_text_that_is_no_config(text):
    with pytest.raises(Pseudo3dError, match="the training config "):
        TrainConfig.from_json(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"batch_size": 1}, "--batch-size must be at least 2"),
        ({"val_clips": 0}, "--val-clips must be at least 1"),
        ({"test_clips": -3}, "--test-clips must be at least 1, got -3"),
        ({"size": 16}, "--size must be at least 32, got 16"),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"workers": -1}, "--workers must be at least 0"),
        ({"val_fraction": 1.0}, "--val-fraction must be at least 0 and below 1"),
        ({"test_fraction": 0.0}, "--test-fraction must be above 0 and below 1"),
        ({"label_smoothing": 1.0}, "--label-smoothing must be at least 0 and below 1"),
        ({"dropout": 1.0}, "--dropout must be at least 0 and below 1"),
        ({"optim": Optim(lr=0.0)}, "--optim.lr must be above 0"),
        ({"optim": Optim(lr=float("nan"))}, "--optim.lr must be above 0, got nan"),
        ({"optim": Optim(weight_decay=-1.0)}, "--optim.weight-decay must be at least 0"),
        ({"optim": Optim(warmup_epochs=-1.0)}, "--optim.warmup-epochs must be at least 0"),
        ({"optim": Optim(clip_grad_norm=-1.0)}, "--optim.clip-grad-norm must be at least 0"),
        ({"optim": Optim(head_lr_scale=0.0)}, "--optim.head-lr-scale must be above 0"),
        ({"optim": Optim(momentum=1.0)}, "--optim.momentum must be at least 0 and below 1"),
        ({"optim": Optim(lr=float("inf"))}, "--optim.lr must be above 0, got inf"),
        ({"optim": Optim(gamma=0.0)}, "--optim.gamma must be above 0 and below 1"),
        ({"optim": Optim(gamma=1.0)}, "--optim.gamma must be above 0 and below 1"),
        ({"optim": Optim(milestones=(0.4, 1.0))}, "--optim.milestones must be above 0 and below 1, got 1.0"),
        ({"optim": Optim(milestones=(0.8, 0.4))}, "--optim.milestones must rise from one to the next, got 0.8 0.4"),
        ({"optim": Optim(milestones=(0.4, 0.4))}, "--optim.milestones must rise from one to the next"),
        ({"val_every": 0}, "--val-every must be at least 1"),
        ({"keep_last": 0}, "--keep-last must be at least 1"),
        ({"checkpoint_every": 0}, "--checkpoint-every must be at least 1"),
        ({"max_bad": 1.0}, "--max-bad must be at least 0 and below 1"),
        ({"max_bad": -0.1}, "--max-bad must be at least 0"),
    ],
)
def test_values_out_of_range(values, message):
    with pytest.raises(Pseudo3dError, match=message):
        replace(get_recipe("scratch"), **values)


def test_a_batch_of_one_is_fine_with_frozen_batch_norms():
    assert replace(get_recipe("finetune"), batch_size=1).batch_size == 1


def options(config_class, prefix=""):
    for field in fields(config_class):
        if is_dataclass(field.type):
            yield from options(field.type, f"{prefix}{field.name}.")
        elif field.name != "recipe":
            yield f"--{prefix}{field.name}".replace("_", "-")


def test_every_option_is_documented(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # wide ones get two columns
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.count("Example: p3d train ") == 3
    lines = [line.strip("│ ") for line in text.splitlines()]
    blocks = re.split(r" (?=\x00-)", " ".join(f"\x00{line}" if line.startswith("-") else line for line in lines))
    own = ("--data", "--out", "--groups", "--resume", "--gpus", "--dry-run", "--tensorboard", "--wandb")
    for option in [*own, *options(TrainConfig)]:
        (block,) = [block for block in blocks if re.match(rf"\x00{re.escape(option)}[ ,]", block)]
        explained = block.split("(default:")[0].split("(required)")[0]
        assert len(re.findall(r"\b[a-z]{2,}\b", re.sub(r"--\S+", "", explained))) >= 3, block


def test_the_groups_of_the_help_hold_every_option_once():
    grouped = [name for group, (_, names) in _GROUPS.items() for name in (names or (group,))]
    assert sorted(grouped) == sorted(field.name for field in fields(TrainConfig) if field.name != "recipe")


def test_options_override_the_recipe_and_are_kept(two_classes, tmp_path, capsys):
    code, out, _ = p3d(
        capsys, "train", "demo", "--data", two_classes, "--out", tmp_path / "run", *SMALL,
        "--optim.lr", "0.0005", "--optim.name", "sgd", "--optim.schedule", "step", "--optim.milestones", "0.3",
        "0.6", "--augment.flip",
        "--resize", "None", "--val-fraction", "0", "--seed", "3",
    )  # fmt: skip
    assert code == 0
    assert "video hit@1" in out
    kept = TrainConfig.from_json((tmp_path / "run" / "config.json").read_text())
    demo = get_recipe("demo")
    assert (kept.recipe, kept.dropout, kept.label_smoothing) == ("demo", demo.dropout, demo.label_smoothing)
    assert (kept.epochs, kept.size, kept.seed, kept.val_fraction) == (1, 32, 3, 0.0)
    assert kept.optim == replace(demo.optim, lr=0.0005, name="sgd", schedule="step", milestones=(0.3, 0.6))
    assert kept.augment == Augmentation(flip=True)
    assert kept.resize == (36, 48)  # 32 * 182 / 160, 32 * 242 / 160
    assert kept.weights == "random"


def test_the_recipe_without_a_name(two_classes, trained, tmp_path, capsys):
    """Weights call for fine-tuning; without them it is training from scratch."""
    assert json.loads((trained / "config.json").read_text())["recipe"] == "scratch"
    for form in (["--weights", trained / "checkpoints" / "best"], [f"--weights={trained / 'checkpoints' / 'best'}"]):
        out = tmp_path / f"run{len(form)}"
        assert p3d(capsys, "train", "--data", two_classes, "--out", out, *SMALL, *form)[0] == 0
        kept = TrainConfig.from_json((out / "config.json").read_text())
        assert (kept.recipe, kept.freeze_bn) == ("finetune", True)
