"""C3D through the whole pipeline: what is subtracted from which pixel, in testing and in training, and the commands."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import p3d, slim_c3d, small_config, write_two_classes
from videos import write_video

import pseudo3d.features.networks as networks_module
from pseudo3d import FeatureStore, Pseudo3dError, VideoEncoder, create_model, from_pretrained, save_pretrained
from pseudo3d.data.annotations import read_samples
from pseudo3d.data.dataset import load
from pseudo3d.evaluation.protocols import score_videos
from pseudo3d.inference import ClipRunner, to_input
from pseudo3d.training.batch_norms import freeze_batch_norms
from pseudo3d.training.build import build_model
from pseudo3d.training.optim import parameter_groups
from pseudo3d.training.sides import split_samples
from pseudo3d.training.trainer import Trainer
from pseudo3d.video.clips import load_clips
from pseudo3d.video.transforms import Window

pytestmark = pytest.mark.usefixtures("one_thread")

FP32 = {"device": "cpu", "dtype": "float32"}
VOLUME = np.random.default_rng(7).uniform(60, 140, (3, 16, 128, 171)).astype(np.float32)


def frames_of(seed, count=16):
    return np.random.default_rng(seed).integers(0, 256, (count, 128, 171, 3), dtype=np.uint8)


def prepared(frames, top=8, left=29, flipped=False, volume=VOLUME):
    """Caffe's way with one clip, step by step: BGR planes, minus the volume, cut out, mirrored."""
    planes = np.stack([frames[..., 2], frames[..., 1], frames[..., 0]]).astype(np.float32)
    planes = planes - volume
    planes = planes[:, :, top : top + 112, left : left + 112]
    return planes[..., ::-1] if flipped else planes


def slim():
    model = slim_c3d().eval()
    model.set_mean_volume(VOLUME)
    return model


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """40 frames of 128x171, so that nothing is resized, without loss."""
    path = tmp_path_factory.mktemp("video") / "noise.mkv"
    return write_video(path, list(frames_of(0, 40)), codec="ffv1", pix_fmt="bgr0")


def test_the_centre_is_rows_8_to_119_and_columns_29_to_140():
    model, frames = slim(), np.stack([frames_of(1), frames_of(2)])
    cropped = torch.from_numpy(frames[:, :, 8:120, 29:141].copy())
    got = to_input(cropped, model.preprocessing, model.mean_volume)
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), np.stack([prepared(each) for each in frames]))
    assert got.permute(0, 2, 3, 4, 1).is_contiguous()  # channels-last, as the convolutions want it


def test_without_a_file_the_channel_means_are_subtracted():
    model, frames = slim_c3d(), frames_of(3)
    cropped = torch.from_numpy(frames[None, :, 8:120, 29:141].copy())
    by_volume = to_input(cropped, model.preprocessing, model.mean_volume)
    means = np.array([90.25, 97.66, 101.41], np.float32)[:, None, None, None]
    assert np.array_equal(by_volume[0].numpy(), prepared(frames, volume=means))
    assert torch.equal(by_volume, to_input(cropped, model.preprocessing))


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize(("top", "left"), [(0, 0), (16, 59), (8, 29), (3, 41)])
def test_what_is_subtracted_moves_and_turns_with_the_window(top, left, flipped):
    model, frames = slim(), [frames_of(4), frames_of(5)]
    windows = [Window(top, left, flipped), Window(8, 29)]
    cropped = []
    for clip, (row, column, turned) in zip(frames, windows, strict=True):
        part = clip[:, row : row + 112, column : column + 112]
        cropped.append(part[:, :, ::-1] if turned else part)
    got = to_input(torch.from_numpy(np.stack(cropped)), model.preprocessing, model.mean_volume, windows).numpy()
    assert np.array_equal(got[0], prepared(frames[0], top, left, flipped))
    assert np.array_equal(got[1], prepared(frames[1]))


def test_a_volume_of_other_frames():
    model = slim_c3d()
    other = replace(model.preprocessing, resize=128)
    with pytest.raises(
        Pseudo3dError, match=r"the mean volume is of frames of 128x171, the preprocessing resizes to 128"
    ):
        to_input(torch.zeros(1, 16, 112, 112, 3, dtype=torch.uint8), other, model.mean_volume)


@pytest.mark.parametrize("layer", ["conv5b", "pool5", "fc6", "fc7", "logits", "prob"])
def test_a_video_becomes_the_features_of_its_stored_frames(video, layer):
    model = slim()
    runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=2)
    loaded = load_clips(video, model.preprocessing, clips=2)
    assert loaded.starts.tolist() == [0, 24]
    got = runner(list(loaded.frames), (layer,))[layer]
    frames = frames_of(0, 40)
    inputs = np.stack([prepared(frames[:16]), prepared(frames[24:])])
    with torch.no_grad():
        expected = model.forward_features(torch.from_numpy(inputs), (layer,))[layer].numpy()
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_bfloat16_reaches_the_convolutions_only(video):
    model = slim()
    runner = ClipRunner(model, device="cpu", dtype="bfloat16", batch_size=2)
    kinds = {name: tensor.dtype for name, tensor in runner.model.state_dict().items()}
    assert {kinds[name] for name in kinds if name.startswith("conv")} == {torch.bfloat16}
    assert {kinds[name] for name in kinds if not name.startswith("conv")} == {torch.float32}
    clips = list(load_clips(video, model.preprocessing, clips=2).frames)
    got = runner(clips, ("fc6", "prob"))
    full = ClipRunner(model, device="cpu", dtype="float32", batch_size=2)(clips, ("fc6",))["fc6"]
    cosine = (got["fc6"] * full).sum(1) / np.linalg.norm(got["fc6"], axis=1) / np.linalg.norm(full, axis=1)
    assert cosine.min() > 0.999
    assert np.abs(got["prob"].sum(1) - 1).max() < 1e-6


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_bit_equal_whatever_the_neighbours_and_the_place(dtype):
    model = slim()
    runner = ClipRunner(model, device="cpu", dtype=dtype, batch_size=4)
    clips = [frames_of(seed)[:, :112, :112] for seed in range(5)]
    alone = runner(clips[:1], ("fc6",))["fc6"][0]
    for place in range(4):
        others = clips[1:4]
        others.insert(place, clips[0])
        assert np.array_equal(runner(others, ("fc6",))["fc6"][place], alone), place


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Two classes of lossless videos of 128x171, every one of its own seed."""
    folder = tmp_path_factory.mktemp("noise")
    for number in range(6):
        path = folder / ("even" if number % 2 == 0 else "odd") / f"{number}.mkv"
        path.parent.mkdir(exist_ok=True)
        write_video(path, list(frames_of(number, 18)), codec="ffv1", pix_fmt="bgr0")
    return read_samples(folder)


def make_trainer(samples, out, **changes):
    config = small_config(model="c3d", size=None, resize=None, val_fraction=0.0, **changes)
    config = replace(config, augment=replace(config.augment, flip=True))
    model = slim_c3d(2).train()
    model.set_mean_volume(VOLUME)
    return Trainer(model, split_samples(samples, config), config, out)


def test_training_subtracts_the_mean_of_each_clips_own_window(noise, tmp_path):
    """Every clip that the network gets in training is some window of some frames, prepared as Caffe does it."""
    trainer = make_trainer(noise, tmp_path)
    seen = []
    trainer.model.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].detach().numpy().copy()))
    order, windows = [], []
    trainer.sampler.stop = 2 * trainer.steps_per_epoch
    for number, batch in enumerate(load(trainer.loader)):
        trainer.stepper.step(batch, number)
        order += [trainer.sides.train.samples[video].path for video in batch.videos]
        windows += batch.windows
    inputs = np.concatenate(seen)
    assert len(inputs) == len(windows) >= 8
    assert len(set(windows)) > 4
    assert {window.flipped for window in windows} == {True, False}
    for path, window, got in zip(order, windows, inputs, strict=False):
        frames = frames_of(int(path.split("/")[1].split(".")[0]), 18)
        candidates = [prepared(frames[start : start + 16], *window) for start in range(3)]
        assert any(np.array_equal(got, each) for each in candidates), (path, window)


def test_a_step_moves_every_weight_and_leaves_the_volume(noise, tmp_path):
    trainer = make_trainer(noise, tmp_path, freeze_bn=True, optim={"name": "sgd", "lr": 1e-4})
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.sampler.stop = trainer.steps_per_epoch
    for number, batch in enumerate(load(trainer.loader)):
        assert np.isfinite(trainer.stepper.step(batch, number).loss)
    moved = {key for key, value in trainer.model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == before.keys() - {"mean_volume"}


def test_scores_of_a_test_set(noise):
    model = slim_c3d(2).eval()
    scores = score_videos(ClipRunner(model, **FP32), noise, clips=2)
    assert scores.prob.shape == (6, 2, 2)
    with pytest.raises(ValueError, match="the network has 5 classes, the data 2"):
        score_videos(ClipRunner(slim_c3d(5), **FP32), noise, clips=2)


def test_the_head_is_fc8():
    model = slim_c3d(2)
    groups = parameter_groups(model, replace(small_config().optim, lr=0.1, weight_decay=0.01, head_lr_scale=10.0))
    settings = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    found = {name: settings[id(p)] for name, p in model.named_parameters()}
    assert found.pop("fc8.weight") == (1.0, 0.01)
    assert found.pop("fc8.bias") == (2.0, 0.0)
    assert set(found.values()) == {(0.1, 0.01), (0.1, 0.0)}


def test_there_are_no_batch_norms_to_freeze():
    model = slim_c3d(2).train()
    freeze_batch_norms(model)
    assert all(p.requires_grad for p in model.parameters())
    assert all(module.training for module in model.modules())


def test_the_config_leaves_c3d_its_size():
    config = replace(small_config(model="c3d"), size=112, resize=(128, 171))
    assert build_model(config, ["a", "b"]).preprocessing.resize == (128, 171)
    for change in ({"size": 96}, {"resize": (140, 180)}):
        with pytest.raises(Pseudo3dError, match="c3d takes crops of 112x112 out of frames resized to 128x171 only"):
            build_model(replace(config, **change), ["a", "b"])


@pytest.fixture
def slim_everywhere(monkeypatch):
    """``--model c3d --weights random`` is the slim network: the commands do the same with it."""
    monkeypatch.setattr(networks_module, "create_model", lambda name: slim_c3d(5))


def test_sliding_clips_and_what_the_record_says(slim_everywhere, video):
    encoder = VideoEncoder("c3d", weights="random", layer="fc6", sampler="sliding", clips=3, **FP32)
    with pytest.warns(UserWarning, match="c3d has random weights"):
        told = encoder.describe()
    assert (told["sampler"], told["clips"]) == ("sliding", "every 8 frames")
    (result,) = encoder.encode_many([video])
    assert result.facts.starts == (0, 8, 16, 24)
    loaded = load_clips(video, encoder.network.preprocessing, sampler="sliding")
    each = ClipRunner(slim_c3d(5), **FP32)(list(loaded.frames), ("fc6",))["fc6"]
    assert result.layers["fc6"].shape == (256,)
    assert np.allclose(result.layers["fc6"], each.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_extract_with_sliding_clips(slim_everywhere, video, tmp_path, capsys):
    args = ("extract", video, "--model", "c3d", "--weights", "random", "--layers", "fc6,pool5", "--sampler", "sliding",
            "--device", "cpu", "--dtype", "float32")  # fmt: skip
    code, out, _ = p3d(capsys, *args, "--out", tmp_path / "s")
    assert code == 0
    assert "1 videos, 4 clips in" in out
    store = FeatureStore(tmp_path / "s")
    assert store.layers == ["fc6", "pool5"]
    assert store.features("fc6").shape == (1, 256)
    assert json.loads((tmp_path / "s" / "store.json").read_text())["clips"] == "every 8 frames"
    assert p3d(capsys, *args, "--out", tmp_path / "s", "--clips", "7")[0] == 0  # the same, as its record says


@pytest.fixture(scope="module")
def flow_weights(tmp_path_factory):
    model = create_model("p3d_resnet14", num_classes=2, in_channels=2).eval()
    return save_pretrained(model, tmp_path_factory.mktemp("flow") / "net")


@pytest.mark.parametrize("command", ["predict", "extract", "train"])
def test_networks_of_other_channels_say_so(flow_weights, two_classes, tmp_path, capsys, command):
    data = ("--data", two_classes) if command == "train" else (two_classes,)
    out = () if command == "predict" else ("--out", tmp_path / "out")
    code, _, err = p3d(capsys, command, *data, "--weights", flow_weights, *out)
    assert code == 2
    assert "takes 2 channels (optical flow, for example), videos give 3; use weights of an RGB network" in err[-1]
    assert "Traceback" not in "".join(err)
    assert not (tmp_path / "out").exists()


def test_an_encoder_of_other_channels(flow_weights):
    with pytest.raises(Pseudo3dError, match="p3d_resnet14: this network takes 2 channels"):
        VideoEncoder(weights=flow_weights).load()
    with pytest.raises(Pseudo3dError, match="c3d: this network takes 2 channels"):
        ClipRunner(slim_c3d(in_channels=2))


@pytest.mark.slow  # 320 MB of weights, written twice
def test_train_and_extract_at_real_size(tmp_path, capsys):
    """The real network from files to files: one epoch of a few clips, then features of the weights it wrote."""
    data = write_two_classes(tmp_path / "data", 2)
    run, store = tmp_path / "run", tmp_path / "store"
    small = ("--epochs", "1", "--batch-size", "2", "--val-fraction", "0", "--test-fraction", "0.5", "--test-clips", "1",
             "--optim.lr", "1e-5", "--device", "cpu", "--dtype", "float32", "--workers", "0")  # fmt: skip
    try:
        assert p3d(capsys, "train", "--data", data, "--out", run, "--model", "c3d", *small)[0] == 0
        weights = run / "checkpoints" / "best"
        model = from_pretrained(weights)
        assert model.architecture.name == "c3d"
        assert model.preprocessing.resize == (128, 171)
        assert json.loads((run / "config.json").read_text())["resize"] == [128, 171]
        args = ("--weights", weights, "--clips", "1", "--device", "cpu", "--dtype", "float32")
        assert p3d(capsys, "extract", data, *args, "--out", store, "--layers", "fc6,conv5b")[0] == 0
        assert FeatureStore(store).features("fc6").shape == (4, 4096)
        assert FeatureStore(store).features("conv5b").shape == (4, 512 * 2 * 7 * 7)
        code, out, _ = p3d(capsys, "predict", data / "dark", *args)
        assert code == 0
        assert out.count("dark") >= 2
    finally:
        shutil.rmtree(run, ignore_errors=True)
