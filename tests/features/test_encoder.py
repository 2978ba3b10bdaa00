import contextlib
import hashlib
import pickle

import numpy as np
import pytest
import torch
from reference import randomise
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from tiny import QUICK, mistake, p3d
from videos import gradient, numbered, write_video

from pseudo3d import (
    Pseudo3dError,
    VideoEncoder,
    VideoError,
    create_model,
    from_pretrained,
    read_video,
    sample_clips,
    save_pretrained,
)
from pseudo3d.features.encoding import EncodedVideo
from pseudo3d.features.store import FeatureStore, StoreWriter, VideoFeatures
from pseudo3d.weights.export import export_caffemodel

FP32 = {"device": "cpu", "dtype": "float32", "workers": 0}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = randomise(create_model("p3d_resnet14", num_classes=5)).eval()
    model.preprocessing = model.preprocessing.with_size(32)
    return save_pretrained(model, tmp_path_factory.mktemp("weights") / "net")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    frames = [np.roll(gradient(64, 96), 5 * i, axis=1) for i in range(50)]
    write_video(folder / "long.mkv", frames, fps=10)
    write_video(folder / "still.mkv", [frames[0]] * 20)
    write_video(folder / "short.mkv", numbered(5))
    (folder / "broken.mkv").write_bytes(b"no video")
    return folder


def direct(weights, path, layer="pool5", clips=20):
    """The mean over the clips by the network as it was saved, in float32 and with its batch norms."""
    model = from_pretrained(weights)
    p = model.preprocessing
    indices = sample_clips(len(read_video(path)), clips, 16)
    frames = np.stack([read_video(path, indices=row, size=p.resize).frames for row in indices])
    bgr = frames[..., ::-1] - np.array(p.mean, np.float32)
    inputs = torch.from_numpy(np.ascontiguousarray(bgr.transpose(0, 4, 1, 2, 3)))
    with torch.no_grad():
        return model.forward_features(inputs, (layer,))[layer].double().mean(dim=0).numpy()


@pytest.mark.parametrize("name", ["long.mkv", "short.mkv"])
def test_encode_is_the_mean_of_pool5_over_20_clips(weights, videos, name):
    got = VideoEncoder(weights=weights, **FP32).encode(videos / name)
    assert got.dtype == np.float32
    assert got.shape == (2048,)
    expected = direct(weights, videos / name)
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()


def test_other_layers_and_clips(weights, videos):
    encoder = VideoEncoder(weights=weights, layer="res5", clips=3, **FP32)
    got = encoder.encode(str(videos / "long.mkv"))
    expected = direct(weights, videos / "long.mkv", "res5", 3).ravel()
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < 1e-5 * np.abs(expected).max()
    (result,) = encoder.encode_many([videos / "long.mkv"], layers=("prob", "pool5"))
    assert {layer: values.shape for layer, values in result.layers.items()} == {"prob": (5,), "pool5": (2048,)}
    assert abs(result.layers["prob"].sum() - 1) < 1e-5


def test_encode_many_keeps_the_order_and_names_failures(weights, videos):
    encoder = VideoEncoder(weights=weights, clips=3, batch_size=8, **FP32)
    order = ["broken.mkv", "long.mkv", "gone.mkv", "short.mkv", "still.mkv", "broken.mkv"]
    results = list(encoder.encode_many([videos / name for name in order]))
    assert [result.path.name for result in results] == order
    for result in results:
        if result.path.name in ("broken.mkv", "gone.mkv"):
            assert result.error.startswith(str(result.path))
            assert "\n" not in result.error
            assert not result.layers
        else:
            assert result.error is None
            assert np.array_equal(result.layers["pool5"], encoder.encode(result.path))
    long = results[1]
    facts = long.facts
    assert (facts.starts, facts.num_frames, facts.fps, facts.undecodable_packets) == ((0, 17, 34), 50, 10.0, 0)


def test_decoder_processes_give_the_same(weights, videos):
    names = ["long.mkv", "broken.mkv", "still.mkv", "gone.mkv", "short.mkv"] * 3
    paths = [videos / name for name in names]
    here = list(VideoEncoder(weights=weights, clips=5, **FP32).encode_many(paths))
    encoder = VideoEncoder(weights=weights, clips=5, **{**FP32, "workers": 2})
    with contextlib.closing(encoder):
        elsewhere = list(encoder.encode_many(paths))
        pool = encoder.pool()
        assert np.array_equal(encoder.encode(paths[0]), here[0].layers["pool5"])
        assert encoder.pool() is pool  # warm for the next call
        unordered = dict(encoder.encode_unordered(enumerate(paths)))
    assert [result.path for result in elsewhere] == paths
    for a, b in zip(here, elsewhere, strict=True):
        assert a.error == b.error
        assert a.facts == b.facts
        assert a.layers.keys() == b.layers.keys()
        assert all(np.array_equal(a.layers[name], b.layers[name]) for name in a.layers)
    assert sorted(unordered) == list(range(len(paths)))
    assert all(unordered[i].path == path for i, path in enumerate(paths))


def test_an_encoder_travels_without_its_processes(weights, videos):
    encoder = VideoEncoder(weights=weights, clips=2, **{**FP32, "workers": 1})
    with contextlib.closing(encoder):
        features = encoder.encode(videos / "short.mkv")
        copied = pickle.loads(pickle.dumps(encoder))
    assert copied.get_params() == encoder.get_params()
    assert not hasattr(copied, "runner_")
    with contextlib.closing(copied):
        assert np.array_equal(copied.encode(videos / "short.mkv"), features)


def mirrored_file(folder, frames):
    """A video and its mirror image, in files that lose nothing."""
    lossless = {"codec": "ffv1", "pix_fmt": "bgr0"}
    write_video(folder / "mirrored.mkv", [np.ascontiguousarray(frame[:, ::-1]) for frame in frames], **lossless)
    return write_video(folder / "video.mkv", frames, **lossless), folder / "mirrored.mkv"


@pytest.mark.parametrize(("sampler", "workers"), [("uniform", 0), ("sliding", 1)])
def test_mirror_is_the_mean_over_a_video_and_its_mirror_image(weights, tmp_path, sampler, workers):
    rng = np.random.default_rng(0)
    video, mirrored = mirrored_file(tmp_path, list(rng.integers(0, 256, (40, 32, 48, 3), np.uint8)))
    # frames as they are, of which the network sees 32 columns in the middle: what resizing rounds has no part in it
    options = {**FP32, "clips": 3, "sampler": sampler, "resize": (32, 48), "workers": workers}
    layers = ("pool5", "prob", "res5")
    plain = list(VideoEncoder(weights=weights, **options).encode_many([video, mirrored], layers=layers, per_clip=True))
    with contextlib.closing(VideoEncoder(weights=weights, mirror=True, **options)) as encoder:
        (both,) = encoder.encode_many([video], layers=layers, per_clip=True)
    assert both.facts == plain[0].facts
    for layer in layers:
        for got, (one, other) in (
            (both.layers[layer], [each.layers[layer] for each in plain]),
            (both.clips[layer], [each.clips[layer] for each in plain]),
        ):
            assert got.dtype == np.float32
            assert got.shape == one.shape
            assert np.abs(got - (one.astype(float) + other) / 2).max() < 2e-6 * np.abs(one).max(), layer
            assert layer == "prob" or not np.allclose(one, other, rtol=1e-3)


def test_mirrored_features_do_not_depend_on_neighbours(weights, videos):
    options = {**FP32, "clips": 2, "batch_size": 2, "mirror": True}
    paths = [videos / name for name in ("short.mkv", "still.mkv")]  # three clips, so that one is beside another
    together = list(VideoEncoder(weights=weights, **options).encode_many(paths))
    alone = VideoEncoder(weights=weights, **options)
    for result in together:
        assert np.array_equal(result.layers["pool5"], alone.encode(result.path))
    assert alone.describe()["mirror"] is True
    assert "mirror" not in VideoEncoder(weights=weights, **FP32).describe()


def test_frames_are_resized_as_asked(weights, videos):
    p = from_pretrained(weights).preprocessing
    for resize in (40, (50, 36)):
        encoder = VideoEncoder(weights=weights, clips=2, batch_size=2, resize=resize, **FP32)
        got = encoder.encode(videos / "long.mkv")
        frames = [read_video(videos / "long.mkv", indices=range(s, s + 16), size=resize).frames for s in (0, 34)]
        top, left = ((size - 32) // 2 for size in frames[0].shape[1:3])
        clips = [clip[:, top : top + 32, left : left + 32] for clip in frames]
        expected = encoder.runner_(clips, ("pool5",))["pool5"].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
        described = encoder.describe()["preprocessing"]
        assert described == {**p.to_dict(), "resize": resize if isinstance(resize, int) else list(resize)}
    encoder.set_params(resize=None, mirror=True)
    assert encoder.describe()["preprocessing"] == p.to_dict()
    assert encoder.describe()["mirror"] is True


@pytest.mark.parametrize("per_clip", [False, True])
def test_sliding_clips_are_averaged_with_equal_weights(weights, videos, per_clip):
    encoder = VideoEncoder(weights=weights, sampler="sliding", stride=5, **FP32)
    (result,) = encoder.encode_many([videos / "long.mkv"], per_clip=per_clip)
    starts = [0, 5, 10, 15, 20, 25, 30, 34]
    assert result.facts.starts == tuple(starts)
    p = encoder.runner_.preprocessing
    one = [read_video(videos / "long.mkv", indices=range(start, start + 16), size=p.resize).frames for start in starts]
    each = np.concatenate([encoder.runner_([clip], ("pool5",))["pool5"] for clip in one])
    assert np.allclose(result.layers["pool5"], each.mean(axis=0, dtype=np.float64), rtol=1e-6, atol=1e-7)
    assert result.clips.keys() == ({"pool5"} if per_clip else set())
    if per_clip:
        assert np.array_equal(result.clips["pool5"], each)


def test_int8_calibrates_itself_on_what_comes_first(weights, videos):
    encoder = VideoEncoder(weights=weights, clips=4, **{**FP32, "dtype": "int8"})
    paths = [videos / "long.mkv", videos / "broken.mkv", videos / "short.mkv"]
    results = list(encoder.encode_many(paths))
    assert [result.error is None for result in results] == [True, False, True]
    expected = VideoEncoder(weights=weights, clips=4, **FP32).encode(paths[0])
    got = results[0].layers["pool5"]
    assert got @ expected / np.linalg.norm(got) / np.linalg.norm(expected) > 0.99
    ranges = encoder.describe()["ranges"]
    again = VideoEncoder(weights=weights, clips=4, **FP32 | {"dtype": "auto"}).run_as(
        {"dtype": "int8", "ranges": ranges}
    )
    assert np.array_equal(again.encode(paths[0]), got)
    lost = VideoEncoder(weights=weights, clips=4, **{**FP32, "dtype": "int8"})
    with pytest.raises(Pseudo3dError, match=r"int8 measures ranges .* none of them can be decoded"):
        lost.encode(videos / "broken.mkv")


def test_failures_come_without_waiting_for_a_full_batch(weights, videos):
    read = []

    def paths():
        for name in ["broken.mkv", "gone.mkv"] * 500:
            read.append(name)
            yield videos / name

    first = next(VideoEncoder(weights=weights, **FP32).encode_many(paths()))
    assert isinstance(first, EncodedVideo)
    assert len(read) < 50


def test_encode_a_bad_file(weights, videos):
    with pytest.raises(VideoError, match=r"broken\.mkv"):
        VideoEncoder(weights=weights, **FP32).encode(videos / "broken.mkv")


def test_random_weights_must_be_asked_for():
    with pytest.raises(TypeError, match="weights"):
        VideoEncoder("p3d_resnet14")
    with pytest.raises(TypeError):
        VideoEncoder("p3d_resnet14", "random")


def test_random_weights_warn_and_are_the_same_every_time(videos):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    features = []
    for _ in range(2):
        encoder = VideoEncoder("resnet14", weights="random", clips=1, **FP32)
        with pytest.warns(UserWarning, match="resnet14 has random weights: what it says of a video is noise"):
            features.append(encoder.encode(videos / "short.mkv"))
        assert encoder.describe()["weights"] == "random"
    assert np.array_equal(*features)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's own random numbers are not touched


def test_a_scikit_learn_transformer(weights, videos):
    encoder = VideoEncoder(weights=weights, clips=2, **FP32)
    parameters = encoder.get_params()
    assert parameters == {
        "model": "p3d_resnet50",
        "weights": weights,
        "class_names": None,
        "clips": 2,
        "layer": "pool5",
        "sampler": "uniform",
        "stride": 8,
        "seed": 0,
        "resize": None,
        "mirror": False,
        "device": "cpu",
        "dtype": "float32",
        "engine": "auto",
        "batch_size": None,
        "workers": 0,
        "timeout": 60.0,
        "memory": 2.0,
    }
    encoder.load()
    again = clone(encoder)
    assert again.get_params() == parameters
    assert not hasattr(again, "runner_")
    paths = np.array([[str(videos / "long.mkv")], [str(videos / "short.mkv")]])  # a column of a table
    features = again.fit_transform(paths)
    assert features.dtype == np.float32
    assert features.shape == (2, 2048)
    assert np.array_equal(features[1], encoder.encode(videos / "short.mkv"))


def test_in_a_pipeline(weights, tmp_path):
    rng = np.random.default_rng(0)
    paths, labels = [], []
    for i in range(8):
        grey = rng.integers(0, 60, (16, 32, 48, 3)).astype(np.uint8)
        frames = [frame + (160 if i % 2 else 0) for frame in grey]
        paths.append(str(write_video(tmp_path / f"{i}.mkv", frames)))
        labels.append("light" if i % 2 else "dark")
    pipeline = make_pipeline(VideoEncoder(weights=weights, clips=1, **FP32), StandardScaler(), LinearSVC())
    pipeline.fit(paths[:4], labels[:4])
    assert pipeline.predict(paths[4:]).tolist() == labels[4:]


def test_transform_names_a_bad_file(weights, videos):
    encoder = VideoEncoder(weights=weights, clips=1, **FP32)
    with pytest.raises(VideoError, match=r"gone\.mkv"):
        encoder.transform([videos / "short.mkv", videos / "gone.mkv"])


def test_set_params_takes_effect_after_first_use(weights, videos):
    encoder = VideoEncoder(weights=weights, clips=1, **FP32)
    encoder.encode(videos / "short.mkv")
    runner = encoder.runner_
    assert encoder.load().runner_ is runner
    encoder.set_params(clips=2, layer="prob")
    assert encoder.encode(videos / "short.mkv").shape == (5,)
    assert encoder.runner_ is runner  # the network is the same
    encoder.set_params(dtype="bfloat16")
    assert encoder.describe()["dtype"] == "bfloat16"
    encoder.set_params(layer="pool6")
    with pytest.raises(Pseudo3dError, match="no layer 'pool6'"):
        encoder.encode(videos / "short.mkv")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clips": 0}, "clips must be at least 1, got 0"),
        ({"sampler": "even"}, "no sampler 'even'; there are uniform, authors, sliding"),
        ({"resize": 20}, r"the crop \(32, 32\) does not fit into frames resized to 20"),
        ({"resize": (40, 31)}, r"the crop \(32, 32\) does not fit into frames resized to \(40, 31\)"),
        ({"resize": 0}, "resize such a pair or one number"),
        ({"layer": "pool6"}, "no layer 'pool6'; this network has"),
        ({"batch_size": 0}, "batch size must be at least 1"),
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"weights": "nowhere.pth"}, r"nowhere\.pth: no such file"),
    ],
)
def test_wrong_options_show_on_loading(weights, options, words):
    with pytest.raises(Pseudo3dError, match=words):
        VideoEncoder(**{"weights": weights, "device": "cpu", **options}).load()


def test_wrong_layers(weights, videos):
    encoder = VideoEncoder(weights=weights, **FP32)
    with pytest.raises(Pseudo3dError, match="no layer 'pool6'"):
        list(encoder.encode_many([videos / "short.mkv"], layers=("pool5", "pool6")))
    with pytest.raises(Pseudo3dError, match="layers is empty"):
        list(encoder.encode_many([videos / "short.mkv"], layers=()))


def test_describe_tells_what_decides_the_features(weights, tmp_path):
    encoder = VideoEncoder(weights=weights, clips=7, sampler="authors", batch_size=3, **FP32)
    told = encoder.describe()
    assert told["architecture"]["name"] == "p3d_resnet14"  # the folder's, not the encoder's default
    assert told["weights"] == f"sha256:{hashlib.sha256((weights / 'model.safetensors').read_bytes()).hexdigest()}"
    assert (told["clips"], told["sampler"], told["batch_size"], told["dtype"]) == (7, "authors", 3, "float32")
    assert told["preprocessing"]["crop"] == [32, 32]
    with StoreWriter(tmp_path / "s", told) as writer:
        writer.add(VideoFeatures("a", {"pool5": np.ones(4, np.float32)}, (0,), 16))
    assert FeatureStore(tmp_path / "s").info == told  # JSON all through


def test_a_caffe_model_with_class_names(videos, tmp_path, capsys):
    """The network is read off the file; names come from a file beside it."""
    model = randomise(create_model("p3d_resnet14", num_classes=3))
    path = export_caffemodel(model, tmp_path / "p3d.caffemodel")
    (tmp_path / "labels.txt").write_text("walk\nrun\nfall\n")
    command = ("predict", videos / "short.mkv", "--weights", path, *QUICK)
    code, out, err = p3d(capsys, *command, "--class-names", tmp_path / "labels.txt")
    assert (code, err) == (0, [])
    assert {line.split()[1] for line in out.splitlines()[1:]} == {"walk", "run", "fall"}
    code, out, err = p3d(capsys, *command)
    assert err == ["p3d: note: the weights carry no class names; give them with --class-names"]
    assert {line.split()[1] for line in out.splitlines()[1:]} == {"class_0", "class_1", "class_2"}
    (tmp_path / "labels.txt").write_text("walk\nrun\n")
    line = mistake(capsys, *command, "--class-names", tmp_path / "labels.txt")
    assert "labels.txt: 2 class names, but" in line
    assert "has 3 classes" in line
    encoder = VideoEncoder(weights=path, clips=1, **FP32)
    with pytest.raises(Pseudo3dError, match=r"looks like p3d_resnet14 .* the model is p3d_resnet50; use p3d_resnet14"):
        encoder.load()
    assert VideoEncoder("auto", weights=path, clips=1, **FP32).encode(videos / "short.mkv").shape == (2048,)


def test_weights_without_a_head_give_features(videos, tmp_path, capsys):
    state = randomise(create_model("p3d_resnet14", num_classes=3)).state_dict()
    torch.save({key: value for key, value in state.items() if not key.startswith("fc.")}, tmp_path / "backbone.pth")
    command = (videos / "short.mkv", "--weights", tmp_path / "backbone.pth", *QUICK)
    assert p3d(capsys, "extract", *command, "--out", tmp_path / "store")[0] == 0
    assert FeatureStore(tmp_path / "store").features().shape == (1, 2048)
    for other in (("predict", *command), ("extract", *command, "--layers", "pool5,prob", "--out", tmp_path / "other")):
        code, _, err = p3d(capsys, *other)
        assert code == 2
        assert err[-1].endswith("backbone.pth: has no head, so it gives features but no classes")


def test_the_model_option_and_a_folder_that_says_otherwise(weights, videos, capsys):
    line = mistake(capsys, "predict", videos / "short.mkv", "--weights", weights, "--model", "resnet50", *QUICK)
    assert "is of p3d_resnet14, not of resnet50; leave the model out" in line
