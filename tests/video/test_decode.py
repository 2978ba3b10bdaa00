import logging
import os
import sys

import av
import numpy as np
import pytest
from videos import MATRICES, RANGE_CODES, ffmpeg, flat, gradient, numbered, numbers, write_video, yuv_frame

from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.video import decode
from pseudo3d.video.decode import count_frames, probe, read_clips, read_video
from pseudo3d.video.sampling import sample_clips

X264 = {"crf": "10", "bf": "2", "g": "12", "preset": "veryfast"}


@pytest.fixture
def bars(tmp_path):
    """40 numbered H.264 frames with B-frames."""
    return write_video(tmp_path / "bars.mp4", numbered(40), codec="libx264", pix_fmt="yuv420p", options=X264)


class TestFrames:
    @pytest.mark.parametrize(
        ("name", "codec", "pix_fmt", "options"),
        [
            ("b.mp4", "libx264", "yuv420p", X264),
            ("x.avi", "mpeg4", "yuv420p", {"bf": "2"}),
            ("h.mp4", "libx265", "yuv420p10le", {"x265-params": "log-level=none"}),
            ("v.webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
            ("m.mkv", "mjpeg", "yuvj420p", {}),
            ("g.gif", "gif", "rgb8", {}),
        ],
    )
    @pytest.mark.parametrize("threads", [0, 1, 3])
    def test_index_i_is_frame_i(self, tmp_path, name, codec, pix_fmt, options, threads):
        path = write_video(tmp_path / name, numbered(30), codec=codec, pix_fmt=pix_fmt, options=options)
        assert numbers(read_video(path, threads=threads).frames) == list(range(30))
        assert count_frames(path, threads=threads) == 30
        order = [29, 0, 7, 7, 3]
        assert numbers(read_video(path, indices=order, threads=threads).frames) == order

    def test_the_b_frame_file_has_b_frames(self, bars):
        with av.open(str(bars)) as file:
            kinds = {frame.pict_type for frame in file.decode(video=0)}
        assert 3 in kinds  # else the test above proves nothing about order

    def test_only_asked_frames_are_converted_and_decoding_stops(self, bars, monkeypatch):
        converted = []
        original = decode._converted
        monkeypatch.setattr(decode, "_converted", lambda *a: converted.append(1) or original(*a))
        seen = []
        original_decode = decode.decode_frames

        def watch(*args, **kwargs):
            for frame in original_decode(*args, **kwargs):
                seen.append(1)
                yield frame

        monkeypatch.setattr(decode, "decode_frames", watch)
        read_video(bars, indices=[4, 2, 4], threads=1)
        assert len(converted) == 2
        assert len(seen) == 5

    def test_indices_give_the_frames_of_a_whole_reading(self, bars):
        whole = read_video(bars)
        assert whole.frames.shape == (40, 64, 96, 3)
        assert whole.source == str(bars)
        order = np.array([5, 5, 39, 0])
        part = read_video(bars, indices=order)
        assert (part.frames == whole.frames[order]).all()
        assert (part.timestamps == whole.timestamps[order]).all()

    def test_three_frames_and_one_pixel_and_odd_sizes(self, tmp_path):
        three = write_video(tmp_path / "3.mp4", numbered(3), codec="libx264", pix_fmt="yuv420p", options=X264)
        assert len(read_video(three)) == 3
        sampled = read_clips(three, lambda n: sample_clips(n, 2, 16))
        assert [numbers(c.frames) for c in sampled.clips] == [[i % 3 for i in range(16)]] * 2

        tiny = write_video(tmp_path / "1.mkv", [flat((200, 10, 60), 1, 1)])
        assert read_video(tiny).frames.shape == (1, 1, 1, 3)
        assert np.abs(read_video(tiny, size=4).frames.astype(int) - (200, 10, 60)).max() <= 2
        odd = write_video(tmp_path / "odd.mkv", [gradient(35, 21)] * 2, pix_fmt="yuv444p")
        frames = read_video(odd).frames
        assert frames.shape == (2, 35, 21, 3)
        assert np.abs(frames[1].astype(int) - gradient(35, 21)).max() <= 3
        subsampled = write_video(tmp_path / "odd420.mkv", [gradient(35, 21)], pix_fmt="yuv420p")
        assert read_video(subsampled).frames.shape == (1, 35, 21, 3)

    def test_cover_art_is_not_the_video(self, tmp_path):
        cover = tmp_path / "cover.mov"
        write_video(cover, [flat((255, 0, 0))], codec="png", pix_fmt="rgb24")
        video = write_video(tmp_path / "v.mp4", numbered(5), codec="libx264", pix_fmt="yuv420p")
        both = tmp_path / "both.mp4"
        ffmpeg("-i", cover, "-i", video, "-map", "0", "-map", "1", "-c", "copy", "-disposition:0", "attached_pic", both)
        assert numbers(read_video(both).frames) == list(range(5))


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


class TestTimestamps:
    def test_seconds(self, bars):
        clip = read_video(bars)
        assert clip.timestamps.dtype == np.float64
        np.testing.assert_allclose(clip.timestamps, np.arange(40) / 25, atol=1e-9)

    def test_variable_rate(self, tmp_path):
        pts = [0, 1, 5, 6, 20]
        path = write_video(
            tmp_path / "v.mp4", numbered(5), codec="libx264", pix_fmt="yuv420p", options=X264, pts=pts, fps=10
        )
        np.testing.assert_allclose(read_video(path).timestamps, np.array(pts) / 10, atol=1e-9)

    def test_avi_times_follow_from_the_rate(self, tmp_path):
        path = write_video(
            tmp_path / "b.avi", numbered(20), codec="mpeg4", pix_fmt="yuv420p", options={"bf": "2"}, fps=20
        )
        np.testing.assert_allclose(read_video(path).timestamps, np.arange(20) / 20)

    def test_without_pts_the_rate_places_the_frames(self, tmp_path):
        path = write_video(tmp_path / "r.h264", numbered(10), codec="libx264", pix_fmt="yuv420p", options=X264)
        with av.open(str(path)) as file:
            assert all(frame.pts is None for frame in file.decode(video=0))
        times = read_video(path).timestamps
        np.testing.assert_allclose(times, np.arange(10) / probe(path).fps)


class TestProbe:
    def test_fields(self, bars):
        info = probe(bars)
        assert (info.width, info.height, info.fps, info.num_packets) == (96, 64, 25.0, 40)
        assert (info.codec, info.pixel_format, info.rotation) == ("h264", "yuv420p", 0)
        assert info.duration == pytest.approx(1.6)


class TestReadClips:
    def test_clips_are_the_frames_of_a_whole_reading(self, bars):
        whole = read_video(bars, size=32)
        sampled = read_clips(bars, lambda n: sample_clips(n, 5, 16), size=32)
        assert (sampled.indices == sample_clips(40, 5, 16)).all()
        assert (sampled.num_frames, sampled.fps, sampled.undecodable_packets) == (40, 25.0, 0)
        for clip, row in zip(sampled.clips, sampled.indices, strict=True):
            assert (clip.frames == whole.frames[row]).all()
            assert (clip.timestamps == whole.timestamps[row]).all()

    def test_every_frame_is_converted_once_and_clips_share_memory(self, bars, monkeypatch):
        converted = []
        original = decode._converted
        monkeypatch.setattr(decode, "_converted", lambda *a: converted.append(1) or original(*a))
        sampled = read_clips(bars, lambda n: sample_clips(n, 20, 16), threads=1)
        assert len(converted) == 40
        assert np.shares_memory(sampled.clips[0].frames, sampled.clips[1].frames)

    @pytest.mark.parametrize("threads", [0, 1, 2])
    def test_damage_asks_the_sampler_again_with_the_true_count(self, tmp_path, caplog, threads):
        path = damaged(tmp_path)
        asked = []

        def sampler(n):
            asked.append(n)
            return sample_clips(n, 3, 8)

        with caplog.at_level(logging.WARNING, logger="pseudo3d"):
            sampled = read_clips(path, sampler, threads=threads)
        whole = read_video(path, threads=threads)
        assert asked == [40, len(whole)]
        assert sampled.num_frames == len(whole) < 40
        assert sampled.undecodable_packets > 0
        assert sampled.indices[-1, -1] == len(whole) - 1
        assert (sampled.clips[-1].frames == whole.frames[sampled.indices[-1]]).all()
        assert [r.name for r in caplog.records].count("pseudo3d") == 2  # once for each of the two readings
        assert "broken.mp4: FFmpeg could not decode" in caplog.text

    def test_hidden_frames_are_not_counted(self, tmp_path):
        path = write_video(tmp_path / "v.ivf", numbered(40), codec="libvpx", pix_fmt="yuv420p", options={"b": "2M"})
        data, hidden, position = bytearray(path.read_bytes()), (3, 17, 18), 32  # IVF: 32 bytes, then 12 before a frame
        for number in range(40):
            if number in hidden:
                data[position + 12] &= ~0x10  # VP8's show_frame
            position += 12 + int.from_bytes(data[position : position + 4], "little")
        path.write_bytes(data)
        shown = [n for n in range(40) if n not in hidden]

        assert probe(path).num_packets == 40
        sampled = read_clips(path, lambda n: sample_clips(n, 4, 16))
        assert sampled.num_frames == 37 == count_frames(path)
        assert (sampled.indices == sample_clips(37, 4, 16)).all()
        assert sampled.undecodable_packets == 0
        assert numbers(sampled.clips[-1].frames) == shown[-16:]
        assert numbers(read_video(path).frames) == shown
        with pytest.raises(VideoError, match="has no frame 37: it has 37 frames"):
            read_video(path, indices=[37])

    @pytest.mark.parametrize(
        ("sampler", "words"),
        [
            (lambda n: np.arange(n), r"shape \(clips, length\), got int64 \(40,\)"),
            (lambda n: np.array([[n]]), "chose frames 40 to 40 of a video of 40"),
            (lambda n: np.array([[-1]]), "chose frames -1 to -1"),
            (lambda n: np.array([[0.0]]), "must give integers"),
        ],
    )
    def test_wrong_samplers(self, bars, sampler, words):
        with pytest.raises(Pseudo3dError, match=words):
            read_clips(bars, sampler)


def moving(count):
    """Noise that scrolls: an encoder that may use hidden reference frames does."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128 + count, 3), dtype=np.uint8)
    return [noise[:, i : i + 128].copy() for i in range(count)]


def damaged(folder):
    """40 H.264 frames, of which packets 10 and 11 claim impossible lengths."""
    good = write_video(folder / "good.mp4", numbered(40), codec="libx264", pix_fmt="yuv420p", options=X264)
    with av.open(str(good)) as file:
        places = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
    data = bytearray(good.read_bytes())
    for position, size in places[10:12]:
        data[position : position + size] = b"\xff" * size
    path = folder / "broken.mp4"
    path.write_bytes(data)
    return path


class TestDamage:
    def test_every_number_of_threads_gives_the_same(self, tmp_path):
        path = damaged(tmp_path)
        one = read_video(path, threads=1)
        assert one.undecodable_packets >= 2
        for threads in (0, 2, 3, 8):
            other = read_video(path, threads=threads)
            assert (other.frames == one.frames).all()
            assert (other.timestamps == one.timestamps).all()
            assert other.undecodable_packets == one.undecodable_packets
            for index in (5, 12, 20, len(one) - 1):  # before, in and after the damage, and the end not always reached
                frame = read_video(path, indices=[index], threads=threads).frames[0]
                assert (frame == one.frames[index]).all()

    def test_damage_in_the_last_packets_loses_no_other_frame(self, tmp_path):
        good = write_video(tmp_path / "g.mp4", numbered(20), codec="libx264", pix_fmt="yuv420p", options={"bf": "0"})
        with av.open(str(good)) as file:
            position, size = [(p.pos, p.size) for p in file.demux(video=0) if p.size][-2]
        data = bytearray(good.read_bytes())
        data[position : position + size] = b"\xff" * size
        (tmp_path / "b.mp4").write_bytes(data)
        for threads in (0, 1, 4):
            clip = read_video(tmp_path / "b.mp4", threads=threads)
            assert numbers(clip.frames)[:18] == list(range(18))
            assert len(clip) == 19
            assert clip.undecodable_packets == 1

    def test_a_file_that_breaks_off_gives_its_frames(self, tmp_path):
        path = write_video(tmp_path / "v.mkv", moving(30))
        (tmp_path / "cut.mkv").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        whole, cut = read_video(path), read_video(tmp_path / "cut.mkv")
        assert 10 < len(cut) < 20
        assert (cut.frames[:-1] == whole.frames[: len(cut) - 1]).all()
        assert count_frames(tmp_path / "cut.mkv") == len(cut)

    def test_a_healthy_file_logs_nothing(self, bars, caplog):
        read_video(bars)
        assert not caplog.records


class TestErrors:
    """Each is one line that begins with the path, from every function."""

    def check(self, path, words):
        for function in (probe, count_frames, read_video, lambda p: read_clips(p, sample_clips)):
            with pytest.raises(VideoError, match=words) as caught:
                function(path)
            assert str(caught.value).startswith(f"{path}: ")
            assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path):
        self.check(tmp_path / "no.mp4", "there is no such file; check the path")

    def test_directory(self, tmp_path):
        self.check(tmp_path, "is a folder, not a video")

    def test_empty(self, tmp_path):
        (tmp_path / "e.mp4").touch()
        self.check(tmp_path / "e.mp4", "the file is empty .* download it again")

    def test_text(self, tmp_path):
        (tmp_path / "t.mp4").write_text("these are words, not pictures\n" * 50)
        self.check(tmp_path / "t.mp4", "is not a video that FFmpeg can read")

    def test_pipe(self, tmp_path):
        if not hasattr(os, "mkfifo"):
            pytest.skip("no named pipes on this system")
        os.mkfifo(tmp_path / "pipe")
        self.check(tmp_path / "pipe", "not a regular file")

    def test_audio_only(self, tmp_path):
        path = tmp_path / "a.wav"
        write_sound(path)
        self.check(path, r"has no video stream \(only audio\)")

    def test_audio_with_cover(self, tmp_path):
        write_sound(tmp_path / "a.wav")
        cover = write_video(tmp_path / "c.mov", [flat((255, 0, 0))], codec="png", pix_fmt="rgb24")
        path = tmp_path / "a.mp4"
        inputs = ("-i", tmp_path / "a.wav", "-i", cover, "-map", "0", "-map", "1")
        ffmpeg(*inputs, "-c:a", "aac", "-c:v", "copy", "-disposition:v", "attached_pic", path)
        self.check(path, "has no video stream")

    def test_no_moov(self, bars, tmp_path):
        path = tmp_path / "cut.mp4"
        path.write_bytes(bars.read_bytes()[: bars.stat().st_size // 2])
        self.check(path, r"index \(moov atom\) is missing or damaged: the file was cut off")

    def test_nothing_decodable(self, tmp_path):
        good = write_video(tmp_path / "g.mp4", numbered(5), codec="libx264", pix_fmt="yuv420p")
        with av.open(str(good)) as file:
            places = [(p.pos, p.size) for p in file.demux(video=0) if p.size]
        data = bytearray(good.read_bytes())
        for position, size in places:
            data[position : position + size] = b"\xff" * size
        path = tmp_path / "bad.mp4"
        path.write_bytes(data)
        self.check(path, r"holds no frame that can be decoded \(of 5 video packets\)")

    @pytest.mark.parametrize(
        ("size", "words"),
        [
            ((60000, 50000), "gives no frame size, or one over the limit of 268435456 pixels"),
            ((20000, 40), "frames of 20000x40 are larger than the limit of 16384 a side"),
        ],
    )
    def test_absurd_header(self, tmp_path, size, words):
        good = write_video(tmp_path / "g.avi", [flat((1, 2, 3), 32, 48)], pix_fmt="yuv420p")
        old, new = (b"".join(n.to_bytes(4, "little") for n in pair) for pair in ((48, 32), size))
        data = good.read_bytes()
        assert old in data
        path = tmp_path / "huge.avi"
        path.write_bytes(data.replace(old, new))
        self.check(path, words)

    def test_no_permission(self, bars):
        if (hasattr(os, "geteuid") and os.geteuid() == 0) or sys.platform == "win32":
            pytest.skip("permissions do not bind this user")
        bars.chmod(0)
        self.check(bars, "cannot be read .*permissions")

    def test_permission_error_of_ffmpeg(self, bars, monkeypatch):
        def refuse(*args, **kwargs):
            raise av.error.PermissionError(13, "Permission denied", str(bars))

        monkeypatch.setattr(av, "open", refuse)
        self.check(bars, r"cannot be read \(Permission denied\); check its permissions")

    def test_disk_error_is_not_taken_for_the_end(self, bars, monkeypatch):
        from pseudo3d.video import packets

        class Container:
            def demux(self, stream):
                raise av.error.OSError(5, "Input/output error")
                yield

        with pytest.raises(VideoError, match=r"reading stopped \(Input/output error\)"):
            list(packets.read_packets(bars, Container(), None, packets.Tally()))

    def test_names_that_look_like_protocols_and_titles_that_are_not_utf8(self, tmp_path, monkeypatch):
        path = write_video(tmp_path / "t.avi", numbered(3), codec="mpeg4", pix_fmt="yuv420p", title="caf*")
        strange = tmp_path / "12:30 é %03d.avi"
        strange.write_bytes(path.read_bytes().replace(b"caf*", b"caf\xe9"))
        assert len(read_video(strange)) == 3
        monkeypatch.chdir(tmp_path)
        assert len(read_video("12:30 é %03d.avi")) == 3

    def test_nothing_is_printed(self, tmp_path, capfd):
        read_video(damaged(tmp_path))
        out, err = capfd.readouterr()
        assert "h264" not in out + err


def write_sound(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())


def test_files_are_closed(bars, tmp_path):
    if not os.path.isdir("/proc/self/fd"):  # noqa: PTH112
        pytest.skip("needs /proc to count open files")
    broken = damaged(tmp_path)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        read_video(bars, indices=[1])
        read_clips(broken, sample_clips, threads=2)
        probe(bars)
        with pytest.raises(VideoError):
            read_video(bars, indices=[99])
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_decoding_does_not_import_torch():
    import subprocess

    code = "import sys, pseudo3d.video.decode, pseudo3d.video.transforms; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
