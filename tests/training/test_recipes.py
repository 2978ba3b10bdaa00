"""Each recipe against the numbers of its source, written down here once more."""

import re

import pytest
import torch

from pseudo3d import Pseudo3dError, create_model
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.recipes import RECIPES, get_recipe


def rate(config, step):
    """The learning rate at a step, counted from the milestones."""
    o = config.optim
    return o.lr * o.gamma ** sum(step >= round(milestone * config.iterations) for milestone in o.milestones)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_itself_and_its_sources(name):
    config = get_recipe(name)
    assert isinstance(config, TrainConfig)
    assert config.recipe == name
    text = RECIPES[name].__doc__
    assert re.search(r"\b[Oo]urs\b", text)  # not every number is published
    if config.optim.name == "sgd":
        assert "omentum 0.9" in text
        assert "decay 5e-" in text
    assert config.model is None or len(text) > 100


@pytest.mark.parametrize("name", [name for name in RECIPES if get_recipe(name).model])
def test_a_recipes_model_can_be_built(name):
    config = get_recipe(name)
    with torch.device("meta"):
        model = create_model(config.model, num_classes=2, dropout=config.dropout)
    height, width = config.resize
    crop = config.size or model.preprocessing.crop[0]
    assert crop <= min(height, width)
    if config.model.startswith("c3d"):  # which takes no other
        assert (model.preprocessing.resize, config.size) == (config.resize, None)


def test_fine_tuning_freezes_and_training_from_scratch_does_not():
    """Section 3.3: all batch norms but the first are frozen when fine-tuning; from scratch they learn."""
    finetune, scratch = get_recipe("finetune"), get_recipe("scratch")
    assert finetune.freeze_bn
    assert finetune.optim.head_lr_scale == 10
    assert not scratch.freeze_bn
    assert scratch.optim.head_lr_scale == 1


@pytest.mark.parametrize("name", ["scratch", "finetune", "demo"])
def test_recipes_for_any_data_do_not_mirror(name):
    assert not get_recipe(name).augment.flip  # it would turn left into right


@pytest.mark.parametrize(("name", "clips"), [("ucf101_p3d", 20), ("ucf101_resnet50", 25)])
def test_ucf101(name, clips):
    """Section 3.3 and the authors' answers, number by number."""
    config = get_recipe(name)
    assert (config.batch_size, config.iterations, config.dropout, config.freeze_bn) == (128, 7500, 0.9, True)
    assert config.resize == ((182, 242) if name == "ucf101_p3d" else (240, 320))
    assert (config.weights, config.augment.flip, config.test_clips) == ("imagenet", True, clips)
    optim = config.optim
    assert (optim.name, optim.warmup_epochs, optim.clip_grad_norm) == ("sgd", 0, 0)
    assert (optim.momentum, optim.weight_decay, optim.head_lr_scale) == (0.9, 5e-4, 10)
    rates = [rate(config, step) for step in (0, 2999, 3000, 5999, 6000, 7499)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])  # divided by 10 every 3K steps
    assert config.temporal_init == ("gaussian" if name == "ucf101_p3d" else "identity")
    assert config.head_std == 0.001


def test_sports1m():
    """Section 4."""
    config = get_recipe("sports1m_p3d")
    assert (config.model, config.weights, config.temporal_init) == ("p3d_resnet152", "imagenet", "gaussian")
    assert (config.augment.pieces, config.augment.piece_seconds, config.augment.flip) == (5, 5.0, True)
    assert (config.dropout, config.batch_size, config.iterations, config.resize) == (0.1, 128, 150_000, (182, 242))
    assert (config.freeze_bn, config.test_clips, config.label_smoothing) == (True, 20, 0)
    rates = [rate(config, step) for step in (0, 59_999, 60_000, 119_999, 120_000, 149_999)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert config.test_fraction == 0.2
    assert (1 - config.test_fraction) * config.val_fraction == pytest.approx(0.1)  # 70/10/20


def test_kinetics():
    config = get_recipe("kinetics_p3d")
    assert (config.model, config.dropout, config.augment.pieces) == ("p3d_resnet152", 0.5, None)
    assert "0.7" in RECIPES["kinetics_p3d"].__doc__
    assert config.optim == get_recipe("sports1m_p3d").optim


def test_c3d_from_scratch():
    """C3D paper, section 3.3."""
    config = get_recipe("c3d_sports1m")
    assert (config.model, config.weights, config.freeze_bn) == ("c3d", "random", False)
    assert (config.augment.pieces, config.augment.piece_seconds, config.augment.flip) == (5, 2.0, True)
    assert (config.batch_size, config.iterations, config.resize) == (30, 1_900_000, (128, 171))
    steps = (0, 149_999, 150_000, 299_999, 300_000, 1_799_999, 1_800_000, 1_899_999)
    assert [rate(config, step) / 3e-3 for step in steps] == pytest.approx(
        [1, 1, 1 / 2, 1 / 2, 1 / 4, 2**-11, 2**-12, 2**-12]
    )


def test_c3d_fine_tuned():
    """The release's solver: 0.0001, divided by 10 every 5K of 20K steps."""
    config = get_recipe("c3d_finetune")
    assert (config.model, config.batch_size, config.dropout) == ("c3d", 30, 0.5)
    assert (config.optim.momentum, config.optim.weight_decay, config.optim.head_lr_scale) == (0.9, 5e-4, 1)
    assert [rate(config, step) for step in (0, 5000, 10_000, 19_999)] == pytest.approx([1e-4, 1e-5, 1e-6, 1e-7])


def test_the_comparison_of_kernels():
    """C3D paper, section 3.2: four equal parts, each at a tenth of the rate before."""
    config = get_recipe("c3d_kernels")
    assert (config.model, config.weights, config.batch_size, config.val_fraction) == ("c3d_small_3", "random", 30, 0)
    quarters = [config.iterations * part // 4 for part in range(4)]
    assert [rate(config, step) for step in quarters] == pytest.approx([3e-3, 3e-4, 3e-5, 3e-6])
    assert rate(config, quarters[1] - 1) == pytest.approx(3e-3)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(Pseudo3dError, match=r"no recipe 'finetunes'; did you mean 'finetune'\? There are scratch, "):
        get_recipe("finetunes")
