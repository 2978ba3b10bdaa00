"""The right frames at the right times, whole and as clips."""

import logging
import subprocess
import sys

import av
import numpy as np
import pytest
from videos import X264, damaged, ffmpeg, flat, gradient, numbered, numbers, write_video

from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.video import decode
from pseudo3d.video.decode import count_frames, probe, read_clips, read_video
from pseudo3d.video.sampling import sample_clips


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
        original = decode.converted
        monkeypatch.setattr(decode, "converted", lambda *a: converted.append(1) or original(*a))
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
        original = decode.converted
        monkeypatch.setattr(decode, "converted", lambda *a: converted.append(1) or original(*a))
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


def test_decoding_does_not_import_torch():
    code = "import sys, pseudo3d.video.decode, pseudo3d.video.transforms; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
