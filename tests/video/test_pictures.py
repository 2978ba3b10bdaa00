"""Right colours, sizes and the right way up."""

import numpy as np
import pytest
from videos import MATRICES, RANGE_CODES, ffmpeg, flat, gradient, write_video, yuv_frame

from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.video.decode import probe, read_video


class TestColour:
    COLOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.5, 0.5, 0.5), (0.2, 0.6, 0.9))

    @pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
    @pytest.mark.parametrize("colour_range", RANGE_CODES)
    @pytest.mark.parametrize("matrix", MATRICES)
    def test_matrix_and_range_are_respected(self, tmp_path, matrix, colour_range, pix_fmt):
        frames = [yuv_frame(rgb, matrix, colour_range, pix_fmt, (32, 48)) for rgb in self.COLOURS]
        # x264 -qp 0 is lossless, and its stream carries matrix and range (FFV1's does not in every container)
        path = write_video(
            tmp_path / "c.mp4",
            frames,
            codec="libx264",
            pix_fmt=pix_fmt,
            options={"qp": "0"},
            colour=(matrix, colour_range),
        )
        # 8-bit chroma steps are worth up to 2.2 levels, so a rounded input is off by up to 1.2, and the result by 0.5
        for size in (None, (24, 20)):
            got = read_video(path, size=size).frames.astype(int)
            assert np.abs(got - np.array(self.COLOURS)[:, None, None] * 255).max() <= 2

    def test_without_tags_it_is_limited_bt601(self, tmp_path):
        frame = yuv_frame((0.9, 0.1, 0.2), "bt601", "limited", "yuv420p", (32, 48))
        path = write_video(tmp_path / "c.mp4", [frame], codec="libx264", pix_fmt="yuv420p", options={"qp": "0"})
        assert np.abs(read_video(path).frames - np.array([0.9, 0.1, 0.2]) * 255).max() <= 2

    def test_flat_colours_do_not_depend_on_resizing(self, tmp_path):
        frame = yuv_frame((0.3, 0.5, 0.8), "bt709", "limited", "yuv420p", (64, 64))
        path = write_video(tmp_path / "c.mp4", [frame], codec="libx264", pix_fmt="yuv420p", options={"qp": "0"})
        colours = {tuple(read_video(path, size=s).frames[0, 5, 5]) for s in (None, 32, 63, 128, (40, 90))}
        assert len(colours) == 1

    def test_gray_is_full_range(self, tmp_path):
        levels = [0, 1, 100, 254, 255]
        grays = [np.full((16, 24), level, np.uint8) for level in levels]
        path = write_video(tmp_path / "g.mkv", grays, source="gray", pix_fmt="gray")
        got = read_video(path).frames
        assert (got == np.array(levels)[:, None, None, None]).all()

    @pytest.mark.parametrize(
        ("name", "codec", "pix_fmt"),
        [
            ("a.mov", "qtrle", "argb"),
            ("p.mov", "png", "rgba"),
            ("y.mkv", "ffv1", "yuva444p"),
            ("b.avi", "ffv1", "bgra"),
        ],
    )
    def test_alpha_is_dropped_not_blended(self, tmp_path, name, codec, pix_fmt):
        rgba = np.dstack([gradient(32, 48), np.full((32, 48), 40, np.uint8)])
        path = write_video(tmp_path / name, [rgba] * 2, codec=codec, pix_fmt=pix_fmt, source="rgba")
        got = read_video(path).frames
        assert np.abs(got.astype(int) - gradient(32, 48)).max() <= 3

    @pytest.mark.parametrize("codec", ["rawvideo", "qtrle", "png"])
    def test_rgb_is_exact(self, tmp_path, codec):
        picture = np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)
        path = write_video(tmp_path / "r.mov", [picture], codec=codec, pix_fmt="rgb24")
        assert (read_video(path).frames[0] == picture).all()
        upside_down = write_video(tmp_path / "u.mov", [picture], codec=codec, pix_fmt="rgb24", rotation=180)
        assert (read_video(upside_down).frames[0] == picture[::-1, ::-1]).all()

    def test_unconvertible_matrix_is_one_line(self, tmp_path):
        frame = yuv_frame((0.5, 0.5, 0.5), "bt709", "limited", "yuv420p", (32, 48))
        path = tmp_path / "ictcp.mp4"
        write_video(path, [frame], codec="libx264", pix_fmt="yuv420p", options={"qp": "0", "colorspace": "ictcp"})
        with pytest.raises(VideoError, match=r"ictcp\.mp4: FFmpeg cannot turn .*colour matrix 14.*convert the video"):
            read_video(path)


class TestSize:
    @pytest.mark.parametrize(
        ("native", "size", "expected"),
        [
            ((240, 320), 162, (162, 216)),
            ((320, 240), 162, (216, 162)),
            ((100, 150), 33, (33, 49)),  # int(33 * 150 / 100), truncated
            ((64, 64), 10, (10, 10)),
            ((240, 320), (182, 242), (182, 242)),
            ((50, 60), None, (50, 60)),
            ((1000, 2), 1, (500, 1)),
        ],
    )
    def test_short_edge_pair_and_native(self, tmp_path, native, size, expected):
        path = write_video(tmp_path / "s.mkv", [gradient(*native)])
        assert read_video(path, size=size).frames.shape == (1, *expected, 3)

    def test_resizing_is_a_bilinear_average(self, tmp_path):
        picture = gradient(64, 96)
        path = write_video(tmp_path / "s.mkv", [picture])
        got = read_video(path, size=(32, 48)).frames[0, 4:-4, 14:-4].astype(float)  # away from the blue corner
        want = picture.reshape(32, 2, 48, 2, 3).mean((1, 3))[4:-4, 14:-4]
        assert np.abs(got - want).max() < 4

    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area", "fast_bilinear"])
    def test_interpolations(self, tmp_path, interpolation):
        path = write_video(tmp_path / "s.mkv", [np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)])
        got = read_video(path, size=(20, 30), interpolation=interpolation).frames
        assert got.shape == (1, 20, 30, 3)
        if interpolation != "bilinear":
            assert (got != read_video(path, size=(20, 30)).frames).any()

    def test_resolution_change_keeps_the_first_size(self, tmp_path):
        parts = [
            write_video(tmp_path / f"{i}.mjpeg", [flat(rgb, h, w)] * 5, codec="mjpeg", pix_fmt="yuvj420p")
            for i, (rgb, h, w) in enumerate([((200, 30, 30), 48, 64), ((30, 30, 200), 64, 48)])
        ]
        path = tmp_path / "both.mjpeg"
        path.write_bytes(b"".join(p.read_bytes() for p in parts))
        clip = read_video(path)
        assert clip.frames.shape == (10, 48, 64, 3)
        assert clip.frames[:5, ..., 0].mean() > 150 > clip.frames[5:, ..., 0].mean()
        assert (read_video(path, indices=[7]).frames == clip.frames[7:8]).all()  # though frame 0 is not asked for

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"size": 0}, "size must be 1 to 16384 pixels, got 0"),
            ({"size": (10, 99999)}, r"size must be 1 to 16384 pixels, got \(10, 99999\)"),
            ({"interpolation": "lanczos"}, "interpolation must be one of bilinear, .* got 'lanczos'"),
            ({"threads": -1}, "threads must be 0 .* got -1"),
            ({"indices": []}, "at least one frame number"),
            ({"indices": [[1, 2]]}, "1-D list"),
            ({"indices": np.array([0.5])}, "got float64"),
            ({"indices": [3, -2]}, "must not be negative, got -2"),
        ],
    )
    def test_wrong_arguments(self, bars, arguments, words):
        with pytest.raises(Pseudo3dError, match=words):
            read_video(bars, **arguments)

    def test_index_beyond_the_end(self, bars):
        with pytest.raises(VideoError, match=r"bars\.mp4: has no frame 40: it has 40 frames") as caught:
            read_video(bars, indices=[100, 3, 40])
        assert str(caught.value).startswith(str(bars))


class TestRotation:
    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize("degrees", [0, 90, 180, 270, 30])
    def test_upright_as_the_ffmpeg_program_shows_it(self, tmp_path, degrees, flip):
        path = write_video(
            tmp_path / "r.mp4",
            [gradient(40, 64)] * 2,
            codec="libx264",
            pix_fmt="yuv444p",
            options={"qp": "0"},
            rotation=degrees,
            flip=flip,
        )
        clip, info = read_video(path), probe(path)
        raw = ffmpeg("-i", path, "-vf", "scale=flags=bilinear+accurate_rnd+full_chroma_int,format=rgb24", *RAW)
        shape = (2, 64, 40, 3) if degrees in (90, 270) else (2, 40, 64, 3)
        assert clip.frames.shape == shape
        assert (info.height, info.width) == shape[1:3]
        # exact but for the program's own rounding in another version of swscale
        assert np.abs(np.frombuffer(raw, np.uint8).reshape(shape).astype(int) - clip.frames).max() <= 2

    def test_quarter_turn_is_clockwise_and_before_resizing(self, tmp_path):
        # a counter-clockwise display rotation of 270 degrees is a clockwise one of 90
        path = write_video(tmp_path / "r.mov", [gradient(40, 64)], codec="qtrle", pix_fmt="rgb24", rotation=270)
        assert probe(path).rotation == 90
        assert (read_video(path).frames[0] == np.rot90(gradient(40, 64), -1)).all()
        assert read_video(path, size=20).frames.shape == (1, 32, 20, 3)
        assert read_video(path, size=(20, 30)).frames.shape == (1, 20, 30, 3)


RAW = ("-fps_mode", "passthrough", "-f", "rawvideo", "-")
