"""What our networks are given, against the steps of the authors' Caffe pipeline written out in NumPy.

RGB frames -> BGR -> float -> minus [104, 117, 123] -> centre crop -> N x C x T x H x W. The videos are stored without
loss and what comes out is compared with the arrays that were written, so that decoding is in the chain too. (C3D's mean
volume is tested with C3D.)
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from videos import write_video

from pseudo3d import create_model, read_video
from pseudo3d.inference import ClipRunner, to_input
from pseudo3d.video.clips import load_clips

LOSSLESS = {"ffv1": "bgr0", "png": "rgb24", "qtrle": "rgb24"}  # codecs that keep RGB as it is
MEAN_BGR = [104, 117, 123]
MEAN_RGB, STD_RGB = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
FRAMES = {
    "uniform": lambda n, clips: [int(Fraction(i * max(0, n - 16), clips - 1)) for i in range(clips)],
    "authors": lambda n, clips: [int(i * max(Fraction(0), Fraction(n - 18, 20))) for i in range(clips)],
}


def noise(count, height, width):
    return np.random.default_rng(count + height + width).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def position_coded(height, width, step=1):
    """Red says the column and green the row, each in units of ``step`` pixels."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = np.arange(width)[None, :] // step
    picture[..., 1] = np.arange(height)[:, None] // step
    return picture


def stored(folder, frames, codec="ffv1"):
    path = folder / ("a.mkv" if codec == "ffv1" else "a.mov")
    return write_video(path, list(frames), codec=codec, pix_fmt=LOSSLESS[codec])


def caffe_blob(frames, starts, crop=(160, 160), length=16):
    """Float N x C x T x H x W of RGB frames at their final size, one step after the other."""
    height, width = frames.shape[1:3]
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    clips = []
    for start in starts:
        clip = []
        for t in range(length):
            rgb = frames[(start + t) % len(frames)]
            bgr = np.stack([rgb[:, :, 2], rgb[:, :, 1], rgb[:, :, 0]], axis=-1)
            centred = bgr.astype(np.float32) - np.array(MEAN_BGR, np.float32)
            clip.append(centred[top : top + crop[0], left : left + crop[1]])
        clips.append(np.stack(clip).transpose(3, 0, 1, 2))
    return np.stack(clips)


def our_input(path, preprocessing, clips, sampler="uniform"):
    loaded = load_clips(path, preprocessing, clips=clips, sampler=sampler)
    return to_input(torch.from_numpy(loaded.frames[loaded.rows]), preprocessing).numpy()


@pytest.fixture(scope="module")
def caffe():
    """The preprocessing of the authors' network."""
    return create_model("p3d_resnet50").preprocessing


class TestAtTheFinalSize:
    """Nothing is resampled, so every number must be equal."""

    @pytest.mark.parametrize("codec", LOSSLESS)
    @pytest.mark.parametrize("size", [(162, 216), (216, 162), (162, 162), (162, 289), (163, 162)])
    def test_every_number_is_caffes(self, tmp_path, caffe, size, codec):
        frames = noise(24, *size)
        path = stored(tmp_path, frames, codec)
        assert np.array_equal(read_video(path).frames, frames)  # or the rest would prove nothing
        got = our_input(path, caffe, 3)
        assert got.dtype == np.float32
        assert got.shape == (3, 3, 16, 160, 160)
        assert np.array_equal(got, caffe_blob(frames, FRAMES["uniform"](24, 3)))

    @pytest.mark.parametrize("sampler", FRAMES)
    @pytest.mark.parametrize("count", [60, 7])  # 7: looped, frame number mod 7
    def test_in_the_sampled_clips(self, tmp_path, caffe, count, sampler):
        frames = noise(count, 162, 170)
        got = our_input(stored(tmp_path, frames), caffe, 20, sampler)
        assert np.array_equal(got, caffe_blob(frames, FRAMES[sampler](count, 20)))

    def test_the_network_itself_sees_these_numbers(self, tmp_path):
        frames = noise(16, 162, 216)
        path = stored(tmp_path, frames)
        runner = ClipRunner(create_model("p3d_resnet14", num_classes=2), device="cpu", dtype="float32", batch_size=1,
                            engine="eager")  # fmt: skip
        seen = []
        runner.model.stem.register_forward_pre_hook(lambda _stem, inputs: seen.append(inputs[0]))
        runner(list(load_clips(path, runner.preprocessing, clips=1).frames), ("res2",))
        # the stem takes the frames of a clip as N*T x C x H x W
        assert np.array_equal(seen[0].numpy(), caffe_blob(frames, [0])[0].transpose(1, 0, 2, 3))

    def test_of_a_frame_network(self, tmp_path):
        frames = noise(5, 240, 320)
        preprocessing = create_model("resnet50").preprocessing
        got = our_input(stored(tmp_path, frames), preprocessing, 5)
        assert np.array_equal(got, caffe_blob(frames, range(5), (224, 224), length=1))


class TestResized:
    @pytest.mark.parametrize(
        "native",
        [(240, 320), (320, 240), (241, 323), (323, 241), (100, 151), (162, 162), (90, 1000), (720, 1280), (161, 163)],
    )
    def test_sizes(self, tmp_path, caffe, native):
        path = stored(tmp_path, noise(1, *native))
        native = np.array(native, np.float64)
        expected = np.floor(162 * native / native.min()).astype(int)  # of the short edge exactly 162
        got = read_video(path, size=caffe.resize).frames
        assert got.shape == (1, *expected, 3)
        resized = read_video(path, size=tuple(expected.tolist())).frames
        assert np.array_equal(resized, got)
        assert np.array_equal(our_input(path, caffe, 1), caffe_blob(resized, [0]))

    @pytest.mark.parametrize(
        ("resize", "size", "corner"),
        [
            (162, (162, 216), (1, 28)),
            (162, (216, 162), (28, 1)),
            (162, (162, 217), (1, 28)),  # 57 columns to spare: rounded down, as Caffe's integers are
            ((182, 242), (182, 242), (11, 41)),  # the paper's UCF101 frames
        ],
    )
    @pytest.mark.parametrize("factor", [1, 2])
    def test_corner_of_the_crop(self, tmp_path, caffe, resize, size, corner, factor):
        picture = position_coded(size[0] * factor, size[1] * factor, factor)
        path = stored(tmp_path, [picture])
        clip = load_clips(path, replace(caffe, resize=resize), clips=1).frames[0, 0].astype(float)
        rows, columns = clip[..., 1].mean(axis=1), clip[..., 0].mean(axis=0)
        tolerance = 0 if factor == 1 else 0.5  # a neighbouring corner would be one off
        assert np.abs(rows - (corner[0] + np.arange(160))).mean() <= tolerance
        assert np.abs(columns - (corner[1] + np.arange(160))).mean() <= tolerance


class TestOtherNumbers:
    """The arithmetic of the other conventions; allclose, because a division may be done as a multiplication."""

    @pytest.mark.parametrize(("style", "size"), [("torchvision", (162, 216)), ("port", (256, 341))])
    def test_imagenet(self, tmp_path, style, size):
        frames = noise(16, *size)
        preprocessing = create_model("p3d_resnet50", style=style).preprocessing
        top, left = (size[0] - 160) // 2, (size[1] - 160) // 2
        cropped = frames[:, top : top + 160, left : left + 160]
        want = ((cropped / 255 - MEAN_RGB) / STD_RGB).transpose(3, 0, 1, 2)[None]
        got = our_input(stored(tmp_path, frames), preprocessing, 1)
        assert np.allclose(got, want, rtol=0, atol=2e-6)

    def test_flow(self):
        flow = create_model("p3d_resnet50", in_channels=2).preprocessing
        assert (flow.mean, flow.std, flow.value_range) == ((128.0,) * 2, (1.0,) * 2, (0.0, 255.0))
        # ``to_input`` is of RGB frames; the numbers of flow on three channels show its arithmetic
        grey = replace(flow, mean=flow.mean[:1] * 3, std=flow.std[:1] * 3)
        frames = noise(1, 8, 8)[None]
        got = to_input(torch.from_numpy(frames), grey).numpy()
        assert np.array_equal(got, frames.transpose(0, 4, 1, 2, 3).astype(np.float32) - 128)

    def test_flow_of_the_port(self):
        flow = create_model("p3d_resnet50", in_channels=2, style="port").preprocessing
        assert flow.mean == (0.5,) * 2
        assert np.allclose(flow.std, STD_RGB.mean())
        assert flow.value_range == (0.0, 1.0)
