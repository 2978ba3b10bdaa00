import copy
import math

import pytest
import torch

from pseudo3d import create_model
from pseudo3d.training.batch_norms import freeze_batch_norms
from pseudo3d.training.config import Optim
from pseudo3d.training.optim import lr_factor, make_optimizer, parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")


def by_name(model, groups):
    """(learning rate, decay) of each parameter."""
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(settings) == sum(len(g["params"]) for g in groups)
    return {name: settings.get(id(p)) for name, p in model.named_parameters()}


def test_decay_on_weights_only():
    model = create_model("p3d_resnet14", num_classes=3)
    found = by_name(model, parameter_groups(model, Optim(lr=0.1, weight_decay=0.01)))
    assert set(found.values()) == {(0.1, 0.01), (0.1, 0.0)}
    for name, (_, decay) in found.items():
        is_norm = ".bn_" in name
        assert decay == (0.0 if is_norm or name.endswith(".bias") else 0.01), name


def test_the_head_is_faster():
    """The release: 10 times for the head's weight, 20 times for its bias."""
    model = create_model("p3d_resnet14", num_classes=3)
    found = by_name(model, parameter_groups(model, Optim(lr=0.1, weight_decay=0.01, head_lr_scale=10.0)))
    assert found.pop("fc.weight") == (1.0, 0.01)
    assert found.pop("fc.bias") == (2.0, 0.0)
    assert {lr for lr, _ in found.values()} == {0.1}


def test_frozen_parameters_are_left_out():
    model = create_model("p3d_resnet14", num_classes=3)
    freeze_batch_norms(model)
    found = by_name(model, parameter_groups(model, Optim()))
    for name, setting in found.items():
        assert (setting is None) == (".bn_" in name and "bn_conv1" not in name), name


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_optimizers(name, kind):
    model = create_model("resnet14", num_classes=3)
    optimizer = make_optimizer(model, Optim(name, lr=0.1, momentum=0.7, weight_decay=0.03))
    assert type(optimizer) is kind
    assert optimizer.defaults["fused"]
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, 0.03}
    if name == "sgd":
        assert {g["momentum"] for g in optimizer.param_groups} == {0.7}


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 1), (10, 0), (50, 5), (101, 10)])
def test_cosine(steps, warmup):
    """Up in equal steps to 1, then half a turn of a circle from 1 at the first step after to 0 at the last."""
    got = [lr_factor(Optim(), step, steps, warmup) for step in range(steps)]
    for step in range(warmup):
        assert got[step] == pytest.approx((step + 1) / warmup)
    fall = steps - warmup
    for step in range(fall):
        angle = 0 if fall == 1 else step * 180 / (fall - 1)
        x = math.cos(math.radians(angle / 2))
        assert got[warmup + step] == pytest.approx(x * x, abs=1e-12)  # cos^2 of half the angle
    assert min(got) >= 0
    assert max(got) <= 1


def test_step_schedule():
    optim = Optim(schedule="step", milestones=(0.4, 0.8))
    assert [lr_factor(optim, step, 10, 0) for step in range(10)] == [1] * 4 + [0.1] * 4 + [0.01] * 2
    assert lr_factor(optim, 0, 10, 2) == 0.5


def test_step_schedule_of_another_factor():
    """Halved at each milestone, as C3D's."""
    optim = Optim(schedule="step", milestones=(0.25, 0.5, 0.75), gamma=0.5)
    assert [lr_factor(optim, step, 4, 0) for step in range(4)] == [1, 0.5, 0.25, 0.125]


def train_once(model):
    before = copy.deepcopy(model.state_dict())
    optimizer = make_optimizer(model, Optim("sgd", lr=0.01))
    generator = torch.Generator().manual_seed(0)
    clips = torch.randn(2, 3, 16, 64, 64, generator=generator) * 50
    torch.nn.functional.cross_entropy(model(clips), torch.tensor([0, 1])).backward()
    optimizer.step()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def test_only_the_first_batch_norm_stays_alive():
    torch.manual_seed(0)
    model = create_model("p3d_resnet14", num_classes=3).train()
    freeze_batch_norms(model)
    changed = train_once(model)
    norms = {name for name in model.state_dict() if ".bn_" in name}
    assert changed & norms == {name for name in norms if name.startswith("stem.bn_conv1.")}
    assert {name for name in model.state_dict() if name not in norms} <= changed | {"layout"}
    model.train()
    assert model.res3[0].bn_s.training
    freeze_batch_norms(model)  # model.train() undoes it: it is called again
    assert not model.res3[0].bn_s.training
    assert model.stem.bn_conv1.training


def test_from_scratch_every_batch_norm_learns():
    torch.manual_seed(0)
    model = create_model("p3d_resnet14", num_classes=3).train()
    assert train_once(model) == set(model.state_dict()) - {"layout"}
