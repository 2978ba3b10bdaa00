import json
import re
from dataclasses import fields, is_dataclass, replace

import pytest
from tiny import SMALL, p3d

from pseudo3d import Pseudo3dError
from pseudo3d.cli import main
from pseudo3d.data.dataset import Augmentation
from pseudo3d.training.config import RECIPES, Optim, TrainConfig, get_recipe
from pseudo3d.training.optim import lr_factor

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
        optim=Optim("sgd", schedule="step", milestones=(0.5, 0.9), momentum=0.8),
        augment=Augmentation(random_crop=False, flip=True),
    )
    assert TrainConfig.from_json(other.to_json()) == other


def test_recipes_are_the_papers():
    """Section 3.3: all batch norms but the first are frozen when fine-tuning; from scratch they learn."""
    finetune, scratch = get_recipe("finetune"), get_recipe("scratch")
    assert finetune.freeze_bn
    assert finetune.optim.head_lr_scale == 10
    assert not scratch.freeze_bn
    assert scratch.optim.head_lr_scale == 1
    assert not get_recipe("demo").augment.flip  # it would turn left into right


@pytest.mark.parametrize(("name", "clips"), [("ucf101_p3d", 20), ("ucf101_resnet50", 25)])
def test_the_recipes_of_ucf101_are_the_papers(name, clips):
    """Section 3.3 and the authors' answers, number by number."""
    config = get_recipe(name)
    assert (config.batch_size, config.iterations, config.dropout, config.freeze_bn) == (128, 7500, 0.9, True)
    assert config.resize == ((182, 242) if name == "ucf101_p3d" else (240, 320))
    assert (config.weights, config.augment.flip, config.test_clips) == ("imagenet", True, clips)
    optim = config.optim
    assert (optim.name, optim.lr, optim.warmup_epochs, optim.clip_grad_norm) == ("sgd", 0.001, 0, 0)
    rates = [optim.lr * lr_factor(optim, step, 7500, 0) for step in (0, 2999, 3000, 5999, 6000, 7499)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])  # divided by 10 every 3K steps


def test_a_micro_batch_of_one_has_no_batch_statistics():
    with pytest.raises(Pseudo3dError, match=r"--micro-batch must be at least 2"):
        replace(get_recipe("scratch"), micro_batch=1)
    assert replace(get_recipe("finetune"), micro_batch=1).micro_batch == 1


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(Pseudo3dError, match=r"no recipe 'finetunes'; did you mean 'finetune'\? There are scratch, "):
        get_recipe("finetunes")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(learning=1), r"config has unknown fields \['learning'\]"),
        (lambda v: v["optim"].update(nesterov=True), r"optim of the training config has unknown fields \['nesterov'\]"),
        (lambda v: v["augment"].update(blur=1), r"augment of the training config has unknown fields \['blur'\]"),
        (lambda v: v.pop("optim"), r"config has missing fields \['optim'\]"),
        (lambda v: v.pop("seed"), r"config has missing fields \['seed'\]"),
        (lambda v: v.update(optim=3), "optim of the training config must be a JSON object, got 3"),
        (lambda v: v.update(epochs=0), "--epochs must be at least 1, got 0"),
    ],
)
def test_a_config_that_does_not_fit(change, message):
    values = json.loads(get_recipe("scratch").to_json())
    change(values)
    with pytest.raises(Pseudo3dError, match=message):
        TrainConfig.from_json(json.dumps(values))


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
    assert "Example: p3d train --data" in text
    lines = [line.strip("│ ") for line in text.splitlines()]
    blocks = re.split(r" (?=\x00-)", " ".join(f"\x00{line}" if line.startswith("-") else line for line in lines))
    for option in ["--data", "--out", "--groups", *options(TrainConfig)]:
        (block,) = [block for block in blocks if re.match(rf"\x00{re.escape(option)}[ ,]", block)]
        explained = block.split("(default:")[0].split("(required)")[0]
        assert len(re.findall(r"\b[a-z]{2,}\b", re.sub(r"--\S+", "", explained))) >= 3, block


def test_options_override_the_recipe_and_are_kept(two_classes, tmp_path, capsys):
    code, out, _ = p3d(
        capsys, "train", "demo", "--data", two_classes, "--out", tmp_path / "run", *SMALL,
        "--optim.lr", "0.0005", "--optim.name", "sgd", "--optim.milestones", "0.3", "0.6", "--augment.flip",
        "--resize", "None", "--val-fraction", "0", "--seed", "3",
    )  # fmt: skip
    assert code == 0
    assert "video hit@1" in out
    kept = TrainConfig.from_json((tmp_path / "run" / "config.json").read_text())
    demo = get_recipe("demo")
    assert (kept.recipe, kept.dropout, kept.label_smoothing) == ("demo", demo.dropout, demo.label_smoothing)
    assert (kept.epochs, kept.size, kept.seed, kept.val_fraction) == (1, 32, 3, 0.0)
    assert kept.optim == replace(demo.optim, lr=0.0005, name="sgd", milestones=(0.3, 0.6))
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
