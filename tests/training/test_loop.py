"""What a step, an epoch and a whole training do to the weights."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import conv3d_network, randomise
from tiny import SMALL, p3d, slim_c3d, small_config, write_two_classes
from torch.nn.functional import cross_entropy

import pseudo3d.training.build as build
from pseudo3d import Pseudo3dError, create_model, from_pretrained, load_model
from pseudo3d.data.annotations import read_samples
from pseudo3d.data.dataset import ClipBatch, load
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.training.build import build_model, with_margin
from pseudo3d.training.loop import train
from pseudo3d.training.sides import split_samples
from pseudo3d.training.step import NotFiniteError, Stepper
from pseudo3d.training.trainer import Trainer, balanced_weights
from pseudo3d.video.transforms import Window

pytestmark = pytest.mark.usefixtures("one_thread")


def make_trainer(samples, out, config):
    config = replace(config, resize=(36, 36))
    torch.manual_seed(config.seed)
    return Trainer(build_model(config, samples.class_names), split_samples(samples, config), config, out)


def batch(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (size, 16, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return as_batch(frames, torch.randint(0, 2, (size,), generator=generator))


def as_batch(frames, labels):
    """Clips from the centre, all of which count."""
    windows = [Window(2, 2, False)] * len(frames)
    return ClipBatch(
        frames, torch.eye(2)[labels], torch.ones(len(frames), dtype=torch.bool), windows, [0] * len(frames), []
    )


def smoothed_cross_entropy(logits, labels, smoothing):
    """Written out: the target is 1 - s + s/K for the true class and s/K for the others."""
    log_prob = logits - torch.log(torch.exp(logits).sum(1, keepdim=True))
    target = torch.full_like(logits, smoothing / logits.shape[1])
    target[range(len(labels)), labels] += 1 - smoothing
    return -(target * log_prob).sum(1).mean()


def prepared(frames):
    """BGR minus the mean, (N, 3, T, H, W): the release's preprocessing, channel by channel."""
    r, g, b = (frames[..., i].to(torch.float32) for i in range(3))
    return torch.stack([b - 104, g - 117, r - 123], dim=-1).permute(0, 4, 1, 2, 3)  # in memory as the frames lie


def learning_rates(steps, warmup):
    """Cosine after a linear rise, of 1."""
    for step in range(steps):
        if step < warmup:
            yield (step + 1) / warmup
        else:
            yield (1 + math.cos(math.pi * (step - warmup) / (steps - 1 - warmup))) / 2


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("recipe", ["scratch", "finetune"])
def test_steps_equal_a_hand_written_formulation(samples, tmp_path, name, recipe, trained):
    """Loss, clipping, decay, head scale, schedule and update, three steps, all batch norms as the recipe says."""
    weights = "random" if recipe == "scratch" else str(trained / "checkpoints" / "best")
    scale = 10.0 if recipe == "finetune" else 1.0
    rate, decay, clip = (0.002, 0.05, 0.5)
    config = small_config(
        recipe, weights=weights, epochs=3, label_smoothing=0.2,
        optim={"name": name, "lr": rate, "weight_decay": decay, "clip_grad_norm": clip, "head_lr_scale": scale},
    )  # fmt: skip
    trainer = make_trainer(samples, tmp_path, config)
    parameters = {k: p for k, p in trainer.model.named_parameters() if p.requires_grad}
    assert bool(len(parameters) < len(list(trainer.model.parameters()))) == (recipe == "finetune")
    first = {k: torch.zeros_like(p) for k, p in parameters.items()}
    second = {k: torch.zeros_like(p) for k, p in parameters.items()}
    rates = learning_rates(trainer.steps_per_epoch * 3, trainer.steps_per_epoch)
    for step in range(1, 4):
        model = copy.deepcopy(trainer.model)
        before = {k: p for k, p in model.named_parameters() if p.requires_grad}
        clips = batch(4, seed=step)
        frames, labels = clips.frames, clips.targets.argmax(1)
        done = trainer.stepper.step(clips, step - 1)
        logits = model(prepared(frames))
        expected = smoothed_cross_entropy(logits, labels, 0.2)
        assert done.loss / done.clips == pytest.approx(expected.item(), rel=1e-6)
        assert done.hits == (logits.argmax(1) == labels).sum()
        gradients = dict(zip(before, torch.autograd.grad(expected, list(before.values())), strict=True))
        norm = math.sqrt(sum((g.double() ** 2).sum().item() for g in gradients.values()))
        assert norm > clip  # or nothing would be tested
        now = next(rates) * rate
        for k, p in before.items():
            g, w = parameters[k].grad, p.detach()  # what the trainer's step has used, clipped
            assert (g - gradients[k] * (clip / norm)).abs().max().item() < 1e-5 * clip, k
            lr = now * {"fc.weight": scale, "fc.bias": 2 * scale if scale > 1 else 1}.get(k, 1)
            wd = decay if w.ndim > 1 else 0.0
            if name == "sgd":
                first[k] = 0.9 * first[k] + (g + wd * w)
                w = w - lr * first[k]
            else:
                first[k] = 0.9 * first[k] + 0.1 * g
                second[k] = 0.999 * second[k] + 0.001 * g * g
                unbiased = (second[k] / (1 - 0.999**step)).sqrt()
                w = w * (1 - lr * wd) - lr * (first[k] / (1 - 0.9**step)) / (unbiased + 1e-8)
            assert (parameters[k].detach() - w).abs().max().item() < 1e-6, k
        for k, running in model.named_buffers():  # the batch norms' statistics, moved by the same clips
            torch.testing.assert_close(trainer.model.get_buffer(k), running, rtol=1e-6, atol=1e-6)


def test_a_step_equals_one_with_plain_3d_convolutions(samples, tmp_path):
    """The whole way from grey levels to new weights, batch norms in evaluation mode, against conv3d."""
    trainer = make_trainer(samples, tmp_path, small_config(optim={"name": "sgd", "lr": 0.01, "clip_grad_norm": 0.0}))
    randomise(trainer.model).eval()
    model = copy.deepcopy(trainer.model)
    clips = batch(3)
    frames, labels = clips.frames, clips.targets.argmax(1)
    done = trainer.stepper.step(clips, 0)
    expected = cross_entropy(
        conv3d_network(model, prepared(frames), (1, 1, 1, 1), "ABC", "caffe")["logits"], labels, label_smoothing=0.1
    )
    assert done.loss / 3 == pytest.approx(expected.item(), rel=1e-5)
    expected.backward()
    warmup = trainer.steps_per_epoch // 2
    for (key, after), p in zip(trainer.model.named_parameters(), model.parameters(), strict=True):
        step = 0.01 / warmup * (p.grad + (0.05 * p.detach() if p.ndim > 1 else 0))
        moved = p.detach() - after.detach()
        assert (moved - step).abs().max() <= 1e-4 * step.abs().max() + 1e-6 * p.detach().abs().max(), key


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_a_step_in_micro_batches_is_the_step_of_all_clips(samples, tmp_path, size):
    """All batch norms frozen, dropout 0, one order: to 1e-5, three steps, also where the last part is smaller."""
    trainers = []
    for micro in (None, size):
        config = small_config("finetune", weights="random", freeze_bn=False, label_smoothing=0.1,
                              optim={"name": "sgd", "lr": 0.01, "clip_grad_norm": 0.5, "momentum": 0.9})  # fmt: skip
        trainer = make_trainer(samples, tmp_path, config)
        trainer.stepper.config = replace(config, micro_batch=micro, freeze_bn=True)
        randomise(trainer.model).eval()
        trainers.append(trainer)
    for step in range(3):
        whole, parts = (trainer.stepper.step(batch(7, seed=step), step) for trainer in trainers)
        assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
        assert (parts.hits, parts.clips) == (whole.hits, whole.clips)
    for (key, p), q in zip(trainers[0].model.named_parameters(), trainers[1].model.parameters(), strict=True):
        scale = p.detach().abs().max().item()
        assert (p - q).abs().max().item() <= 1e-5 * scale, key


@pytest.mark.parametrize("iterations", [1, 3, 4])
def test_a_run_ends_after_its_iterations(samples, tmp_path, iterations):
    config = replace(small_config(epochs=50), iterations=iterations)
    trainer = make_trainer(samples, tmp_path / "unused", config)
    result = train(samples, replace(config, resize=(36, 36)), tmp_path / "run", quiet=True)
    lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) - 1 == math.ceil(iterations / trainer.steps_per_epoch) == trainer.epochs
    assert lines[-2]["step"] == trainer.steps == iterations
    card = (result.checkpoint / "README.md").read_text()
    assert f"of {iterations} steps" in card


def test_gradients_are_clipped_to_their_norm(samples, tmp_path):
    moved = {}
    for limit in (0.0, 0.01, 1e9):
        config = small_config(optim={"name": "sgd", "lr": 1.0, "weight_decay": 0.0, "clip_grad_norm": limit})
        trainer = make_trainer(samples, tmp_path, config)
        before = [p.detach().clone() for p in trainer.model.parameters()]
        trainer.stepper.step(batch(4), 0)
        pairs = zip(trainer.model.parameters(), before, strict=True)
        moved[limit] = math.sqrt(sum(((p.detach() - b) ** 2).sum().item() for p, b in pairs))
    first = 1 / (trainer.steps_per_epoch // 2)  # the learning rate of the first step
    assert moved[0.01] == pytest.approx(0.01 * first, rel=1e-3)
    assert moved[0.0] == moved[1e9] > 100 * moved[0.01]


def final_weights(samples, out, **changes):
    result = train(samples, small_config(epochs=2, dropout=0.5, **changes), out, quiet=True)
    return from_pretrained(result.checkpoint.parent / "last").state_dict()


def equal(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_the_seed_decides_everything(samples, tmp_path):
    weights = final_weights(samples, tmp_path / "a")
    torch.rand(7)  # what was drawn before does not count
    assert equal(weights, final_weights(samples, tmp_path / "b"))
    assert not equal(weights, final_weights(samples, tmp_path / "c", seed=1))


@pytest.mark.slow
def test_workers_change_nothing(samples, tmp_path):
    """Neither which clips are drawn nor what dropout draws, in the second epoch too."""
    assert equal(final_weights(samples, tmp_path / "a"), final_weights(samples, tmp_path / "b", workers=1))


def test_a_trivial_set_is_learned(tmp_path):
    samples = read_samples(write_two_classes(tmp_path / "data", 10))
    config = small_config(epochs=8, test_clips=2, label_smoothing=0.0, model="resnet14")
    result = train(samples, config, tmp_path / "run", quiet=True)
    assert result.test == {"clip hit@1": 1.0, "video hit@1": 1.0}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-2]["loss"] < math.log(2)  # of guessing
    assert lines[-2]["train clip hit@1"] > 0.9  # of 14 clips; the last batch has two, and statistics of two are noise


def epoch_of(trainer):
    trainer.sampler.stop = trainer.steps_per_epoch
    return list(load(trainer.loader))


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4, 4]), (3, [3, 3, 2]), (7, [7]), (9, [8])])
def test_only_a_lone_clip_is_left_out(samples, tmp_path, batch_size, sizes):
    trainer = make_trainer(samples, tmp_path, small_config(batch_size=batch_size, val_fraction=0.1, test_fraction=0.2))
    assert len(trainer.sides.train) == 8
    assert [len(each.targets) for each in epoch_of(trainer)] == sizes
    assert trainer.steps_per_epoch == len(sizes)


def test_a_lone_clip_counts_where_there_is_no_batch_norm(samples, tmp_path, monkeypatch):
    config = small_config(model="c3d", batch_size=7, size=None, val_fraction=0.1, test_fraction=0.2)
    sides = split_samples(samples, config)
    assert len(sides.train) == 8
    assert Trainer(slim_c3d(2), sides, config, tmp_path).steps_per_epoch == 2
    monkeypatch.setattr("pseudo3d.training.trainer.has_batch_norm", lambda model: True)
    assert Trainer(slim_c3d(2), sides, config, tmp_path).steps_per_epoch == 1


def test_an_epoch_has_one_clip_of_every_video(samples, tmp_path):
    trainer = make_trainer(samples, tmp_path, small_config())
    batches = epoch_of(trainer)
    assert {each.frames.dtype for each in batches} == {torch.uint8}
    assert batches[0].frames.shape[1:] == (16, 32, 32, 3)
    levels = np.concatenate([each.frames[:, 0, 0, 0, 0].numpy() for each in batches])
    assert len(np.unique(levels)) == len(trainer.sides.train)  # every video is of another grey
    labels = torch.cat([each.targets for each in batches]).argmax(1)
    assert (labels.numpy() == (levels < 100)).all()


@pytest.mark.parametrize(
    ("preprocessing", "expected"),
    [
        (Preprocessing(), (182, 242)),  # the paper's, section 3.3
        (Preprocessing(1, (240, 320), (224, 224)), (240, 320)),
        (Preprocessing().with_size(160), (182, 242)),
        (Preprocessing().with_size(32), (36, 48)),
        (Preprocessing(resize=82, crop=(80, 80)), (91, 121)),
    ],
)
def test_frames_leave_room_for_the_crop(preprocessing, expected):
    assert with_margin(preprocessing, None) == replace(preprocessing, resize=expected)


def test_the_frame_baseline_trains_at_its_own_size(two_classes, tmp_path, capsys):
    args = ("--model", "resnet14", "--size", "None", "--batch-size", "2", "--val-fraction", "0")
    assert p3d(capsys, "train", "--data", two_classes, "--out", tmp_path / "run", *SMALL, *args)[0] == 0
    assert from_pretrained(tmp_path / "run" / "checkpoints" / "best").preprocessing.resize == (240, 320)


def test_a_frame_baseline_becomes_p3d(two_classes, tmp_path, capsys):
    """Train the frames, inflate, fine-tune: the paper's order, from files to files."""
    frames, video = tmp_path / "frames", tmp_path / "video"
    args = ("--data", two_classes, *SMALL)
    assert p3d(capsys, "train", *args, "--out", frames, "--model", "resnet14")[0] == 0
    weights = frames / "checkpoints" / "best"
    assert p3d(capsys, "train", "finetune", *args, "--out", video, "--weights", weights)[0] == 0
    source, model = from_pretrained(weights), from_pretrained(video / "checkpoints" / "last")
    assert model.architecture.name == "p3d_resnet14"
    assert model.preprocessing.num_frames == 16
    assert model.class_names == ("bright", "dark")
    # frozen: exactly as in the frame network; the convolutions have moved a little from there
    assert torch.equal(model.res3[0].bn_s.running_mean, source.res3[0].bn_s.running_mean)
    assert torch.equal(model.res3[0].bn_s.weight, source.res3[0].bn_s.weight)
    assert not torch.equal(model.stem.bn_conv1.running_mean, source.stem.bn_conv1.running_mean)
    moved = (model.res3[0].conv_s.weight - source.res3[0].conv_s.weight).abs().max()
    assert 0 < moved < 1e-3


def test_gaussian_temporal_init_reaches_the_weights(trained):
    frames = create_model("resnet14", num_classes=2)
    config = small_config("finetune", weights="x", temporal_init="gaussian")
    seen = {}
    torch.manual_seed(0)
    try:
        original, build.load_model = (
            build.load_model,
            lambda name, _w, **k: seen.update(k) or load_model(name, frames.state_dict(), **k),
        )
        model = build_model(config, ["a", "b", "c"])
    finally:
        build.load_model = original
    assert seen["temporal_init"] == "gaussian"
    assert 0 < model.res2[0].conv_t.weight.std() < 0.002
    assert model.architecture.num_classes == 3


def test_classes_of_few_videos_count_as_much(samples, tmp_path):
    """With balanced weights the gradient is that of the mean of the classes' mean losses."""
    trainer = make_trainer(samples, tmp_path, small_config(label_smoothing=0.0, optim={"clip_grad_norm": 0.0}))
    randomise(trainer.model).eval()
    clips = batch(6, seed=3)
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    clips = as_batch(clips.frames, labels)
    weights = balanced_weights(torch.eye(2, dtype=torch.bool)[labels].numpy())
    trainer.stepper.class_weights = torch.tensor(weights, dtype=torch.float32)
    trainer.stepper.accumulate(clips, 6)
    losses = cross_entropy(trainer.model(prepared(clips.frames)), labels, reduction="none")
    expected = torch.autograd.grad((losses[:4].mean() + losses[4:].mean()) / 2, trainer.model.fc.weight)[0]
    torch.testing.assert_close(trainer.model.fc.weight.grad, expected, rtol=1e-4, atol=1e-6)


def test_several_labels_share_the_target(samples, tmp_path):
    trainer = make_trainer(samples, tmp_path, small_config(label_smoothing=0.0))
    randomise(trainer.model).eval()
    clips = batch(2)._replace(targets=torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    loss, hits = trainer.stepper.loss(clips)
    log_prob = torch.log_softmax(trainer.model(prepared(clips.frames)), 1)
    expected = -(log_prob[0].mean() + log_prob[1, 0])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert hits == 1 + int(log_prob[1].argmax() == 0)  # either class of the first is right


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_moves_nothing(samples, tmp_path, where):
    trainer = make_trainer(samples, tmp_path, small_config())
    before = [p.detach().clone() for p in trainer.model.parameters()]
    if where == "loss":
        trainer.stepper.class_weights = torch.tensor([math.inf, math.inf])
    else:
        trainer.model.fc.weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(NotFiniteError, match=f"the {where} became (nan|infinite)"):
        trainer.stepper.step(batch(4), 0)
    assert all(torch.equal(p, b) for p, b in zip(trainer.model.parameters(), before, strict=True))


def test_a_lone_clip_has_no_statistics(samples, tmp_path):
    trainer = make_trainer(samples, tmp_path, small_config())
    with pytest.raises(Pseudo3dError, match=r"got one clip alone, .*: use a larger --batch-size"):
        trainer.stepper.step(batch(1), 0)


def test_recomputing_activations_changes_no_step(samples, tmp_path):
    steppers = []
    for recompute in (False, True):
        config = replace(small_config(optim={"name": "sgd", "lr": 0.01}), checkpoint_activations=recompute)
        config = replace(config, resize=(36, 36))
        torch.manual_seed(0)
        steppers.append(Stepper(build_model(config, samples.class_names), config, steps=3))
    for number in range(3):
        results = [stepper.step(batch(4, seed=number), number) for stepper in steppers]
        assert results[0] == pytest.approx(results[1], rel=1e-5)
    for (key, p), q in zip(
        steppers[0].model.state_dict().items(), steppers[1].model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=key)
