"""Damaged files give what can be had of them; unusable ones say why."""

import os
import sys

import av
import numpy as np
import pytest
from videos import damaged, ffmpeg, flat, numbered, numbers, write_video

from pseudo3d.errors import VideoError
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.clips import load_clips
from pseudo3d.video.decode import count_frames, probe, read_clips, read_video
from pseudo3d.video.sampling import sample_clips


def moving(count):
    """Noise that scrolls: an encoder that may use hidden reference frames does."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128 + count, 3), dtype=np.uint8)
    return [noise[:, i : i + 128].copy() for i in range(count)]


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


def clips_of(path):
    return load_clips(path, Preprocessing())


class TestErrors:
    """Each is one line that begins with the path, from every function."""

    def check(self, path, words):
        for function in (probe, count_frames, read_video, lambda p: read_clips(p, sample_clips), clips_of):
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
            ((60000, 50000), "gives no frame size, or one over the limit of 134217728 pixels"),
            ((30000, 30000), "gives no frame size, or one over the limit of 134217728 pixels"),
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
