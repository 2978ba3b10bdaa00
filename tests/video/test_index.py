"""Frames from the middle of a file, found by its index, are those that ``read_video`` counts from the start."""

import logging
import multiprocessing
import os
import pickle
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from videos import damaged, gradient, numbered, write_video

from pseudo3d import Pseudo3dError, VideoError, read_video
from pseudo3d.video import index as index_module
from pseudo3d.video.decode import count_frames
from pseudo3d.video.index import IndexCache, index_video, read_frames
from pseudo3d.video.opening import open_video
from pseudo3d.video.packets import decode_frames, read_packets

FRAMES = 90
X264 = {"preset": "veryfast", "crf": "20"}
HIDING = {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8", "deadline": "good"}
# name: (codec, options of the encoder, whether frames in the middle are sought: None leaves it to the encoder)
WRITTEN = {
    "b_frames.mp4": ("libx264", X264 | {"g": "25", "bf": "3"}, True),
    "pyramid.mkv": ("libx264", X264 | {"g": "30", "x264-params": "b-pyramid=normal:bframes=6:ref=6"}, True),
    "open_gop.mp4": ("libx264", X264 | {"g": "25", "x264-params": "open-gop=1:bframes=3"}, False),
    "refresh.mp4": ("libx264", X264 | {"g": "25", "x264-params": "intra-refresh=1"}, False),
    "hevc.mkv": ("libx265", {"preset": "ultrafast", "x265-params": "keyint=25:open-gop=0:log-level=none"}, True),
    "vp9.webm": ("libvpx-vp9", HIDING, True),
    "vp8.webm": ("libvpx", HIDING, False),
    "av1.mkv": ("libsvtav1", {"g": "20", "preset": "12"}, True),
    "packed.avi": ("mpeg4", {"g": "12", "bf": "2"}, False),
    "mpeg2_open.mkv": ("mpeg2video", {"g": "12", "bf": "2"}, False),
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2"}, False),
    "mjpeg.mkv": ("mjpeg", {}, True),
}


def pictures(count=FRAMES, height=48, width=64):
    """Noise that scrolls over a gradient: every frame differs from every other, and encoders find motion."""
    noise = np.random.default_rng(0).integers(0, 120, (height, width + count, 3), dtype=np.uint8)
    return [noise[:, i : i + width] + gradient(height, width) // 2 for i in range(count)]


def x264(path, **options):
    """H.264 with a keyframe every 25 frames."""
    return write_video(
        path, pictures(), codec="libx264", pix_fmt="yuv420p", options=X264 | {"g": "25", "bf": "2"}, **options
    )


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Read only."""
    return x264(tmp_path_factory.mktemp("index") / "a.mp4")


@pytest.fixture
def from_start(monkeypatch):
    """How often a file has been read from its start."""
    calls = []
    original = index_module._from_start

    def spy(path, *arguments, **more):
        calls.append(path)
        return original(path, *arguments, **more)

    monkeypatch.setattr(index_module, "_from_start", spy)
    return calls


@pytest.fixture
def made(monkeypatch):
    """The videos of which an index has been made."""
    calls = []

    def spy(path):
        calls.append(Path(path).name)
        return index_video(path)

    monkeypatch.setattr(index_module, "index_video", spy)
    return calls


def check(path, starts=(0, 7, 33, 61, FRAMES - 5), length=5, **options):
    """Compares index and clips with ``read_video``, and returns the index."""
    index = index_video(path)
    clip = read_video(path, **options)
    assert index.num_frames == len(clip.frames) == count_frames(path)
    assert np.array_equal(index.times, clip.timestamps)
    for start in starts:
        got = read_frames(path, index, start, length, **options)
        assert np.array_equal(got, clip.frames[(start + np.arange(length)) % index.num_frames]), start
        assert got.flags.owndata
        assert got.flags.writeable
    return index


@pytest.mark.parametrize("name", WRITTEN)
def test_frames_are_those_of_read_video(name, tmp_path, from_start):
    codec, options, seeks = WRITTEN[name]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(tmp_path / name, pictures(), codec=codec, pix_fmt=pix_fmt, options=options)
    starts = (0, 7, 33, 61, FRAMES - 5)
    index = check(path, starts)
    assert seeks is None or index.entries.any() == seeks
    assert len(from_start) == sum(index.entry(start) == 0 for start in starts)  # no attempt was given up
    assert (len(index.pts), len(index.dts)) == (FRAMES * index.entries.any(), len(index.entries))


def test_only_what_is_needed_is_read(video, monkeypatch):
    read = []

    def spy(*arguments):
        for packet in read_packets(*arguments):
            read.append(packet.pts)
            yield packet

    monkeypatch.setattr("pseudo3d.video.seeking.read_packets", spy)
    index = index_video(video)
    assert index.entries.tolist() == [0, 25, 50, 75]
    assert [index.entry(number) for number in (0, 24, 25, 49, 50, 80)] == [0, 0, 25, 25, 50, 75]
    read_frames(video, index, 50, 5)
    assert len(read) <= 25 + 15  # of 90: FFmpeg may go to the keyframe before, from where packets are passed over


def test_clips_that_go_round_the_end(video):
    check(video, starts=(FRAMES - 2, FRAMES + 30), length=5)


@pytest.mark.parametrize("count", [1, 3])
def test_a_short_video_is_looped(tmp_path, count):
    path = write_video(tmp_path / "short.mp4", numbered(count), codec="libx264", pix_fmt="yuv420p", options=X264)
    check(path, starts=(0, 1, count), length=16)


@pytest.mark.parametrize(
    ("size", "interpolation"), [(32, "bilinear"), ((30, 40), "area"), (None, "bicubic"), (24, "fast_bilinear")]
)
def test_sizes_and_scalers(video, size, interpolation):
    check(video, size=size, interpolation=interpolation)


def test_threads_do_not_matter(video, tmp_path):
    for path in (video, damaged(tmp_path)):
        index = index_video(path)
        for start in (0, 30):
            one = read_frames(path, index, start, 5, size=32, threads=1)
            assert np.array_equal(one, read_frames(path, index, start, 5, size=32, threads=3))


def test_a_phone_held_upright(tmp_path):
    index = check(x264(tmp_path / "turned.mp4", rotation=90), size=24)
    assert index.size == (64, 48)
    assert index.entries.any()


def test_a_variable_rate_keeps_its_times(tmp_path):
    pts = np.cumsum(np.random.default_rng(1).integers(1, 9, FRAMES)).tolist()
    for name in ("v.mp4", "v.mkv"):
        index = check(x264(tmp_path / name, pts=pts))
        assert index.entries.any()
        assert index.times - index.times[0] == pytest.approx((np.array(pts) - pts[0]) / 25, abs=1e-3)


def test_the_first_frame_decides_the_size(tmp_path, from_start):
    """Of a stream whose pictures become smaller: also of clips for which its first frame is not decoded."""
    path = tmp_path / "smaller.webm"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libvpx-vp9", rate=25, width=64, height=48, pix_fmt="yuv420p", options=HIDING)
        small = av.CodecContext.create("libvpx-vp9", "w")
        small.width, small.height, small.pix_fmt, small.time_base = 32, 24, "yuv420p", Fraction(1, 25)
        small.options = HIDING
        for encoder, pixels in ((stream, slice(0, 10)), (small, slice(10, 20))):
            frames = [picture[: encoder.height, : encoder.width].copy() for picture in pictures(20)[pixels]]
            for number, picture in enumerate(frames, pixels.start):
                frame = VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                _mux(file, stream, encoder.encode(frame))
            _mux(file, stream, encoder.encode(None))
    for size in (None, 40):
        assert check(path, starts=(0, 8, 12), size=size).size == (48, 64)
    assert len(from_start) == 4  # the last clip is sought, at the first of the small pictures


def _mux(file, stream, packets):
    for packet in packets:
        packet.stream = stream
        file.mux(packet)


def test_damage(tmp_path, from_start, caplog):
    """A damaged file has the frames that come out of it, and is never sought in."""
    path = damaged(tmp_path)
    assert not check(path, starts=(0, 3, 20, 33)).entries.any()
    assert len(from_start) == 4
    caplog.clear()
    index = index_video(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: FFmpeg could not decode 2 packets; their frames are missing"
    ]
    read_frames(path, index, 20, 5)
    assert len(caplog.records) == 1  # told once, not with every clip


def test_damage_that_shows_only_in_the_pictures(tmp_path):
    """FFmpeg makes up what is lost and says so."""
    path = x264(tmp_path / "a.mp4")
    spoil(path, 41, from_half=True)
    with open_video(path, 1) as (_, stream):
        corrupt = [frame.is_corrupt for frame in stream.container.decode(stream)]
    assert any(corrupt)
    assert len(corrupt) == FRAMES
    assert not check(path).entries.any()


def test_a_decoder_that_gives_other_frames_than_the_packets_promise(video, monkeypatch):
    def lossy(*arguments, **more):
        yield from (frame for i, frame in enumerate(decode_frames(*arguments, **more)) if i != 40)

    monkeypatch.setattr(index_module, "decode_frames", lossy)
    index = index_video(video)
    assert (index.num_frames, len(index.times), len(index.entries)) == (FRAMES - 1, FRAMES - 1, 0)


def test_damage_since_the_index_was_made(tmp_path, from_start):
    path = x264(tmp_path / "a.mp4")
    index = index_video(path)
    spoil(path, 53)
    clip = read_video(path, size=32)
    got = read_frames(path, index, 52, 5, size=32)
    assert from_start == [path]  # seeking was given up
    assert np.array_equal(got, clip.frames[52:57])


def spoil(path, position, *, from_half=False):
    """Turns the bytes of that packet round, all but the first four or its second half; its length is kept."""
    with av.open(str(path)) as file:
        place, size = [(p.pos, p.size) for p in file.demux(video=0) if p.size][position]
    data = bytearray(path.read_bytes())
    part = slice(place + (size // 2 if from_half else 4), place + size)
    data[part] = bytes(255 - byte for byte in data[part])
    path.write_bytes(data)


def test_another_file_of_the_same_name(tmp_path):
    path = x264(tmp_path / "a.mp4")
    index = index_video(path)
    write_video(path, pictures(60), codec="libx264", pix_fmt="yuv420p", options=X264 | {"g": "7", "bf": "0"})
    assert np.array_equal(read_frames(path, index, 52, 5), read_video(path, indices=range(52, 57)).frames)
    with pytest.raises(VideoError, match=r"a\.mp4: has no frame 60 any more; it changed after it was indexed"):
        read_frames(path, index, 58, 5)


def test_what_cannot_be_indexed(tmp_path):
    with pytest.raises(VideoError, match="there is no such file"):
        index_video(tmp_path / "no.mp4")
    (tmp_path / "text.mp4").write_text("no video at all, whatever its name says")
    with pytest.raises(VideoError, match="is not a video that FFmpeg can read"):
        index_video(tmp_path / "text.mp4")
    with pytest.raises(VideoError, match="there is no such file"):
        IndexCache(tmp_path / "cache").get(tmp_path / "no.mp4")


@pytest.mark.parametrize(("start", "length"), [(-1, 5), (0, 0)])
def test_wrong_arguments(video, start, length):
    index = index_video(video)
    with pytest.raises(
        Pseudo3dError, match=f"start must be at least 0 and length at least 1, got {start} and {length}"
    ):
        read_frames(video, index, start, length)
    with pytest.raises(Pseudo3dError, match="size must be 1 to 16384 pixels, got 0"):
        read_frames(video, index, 0, 1, size=0)
    with pytest.raises(Pseudo3dError, match="threads must be 0"):
        read_frames(video, index, 0, 1, threads=-1)


def same(a, b):
    """Whether two indices say the same."""
    arrays = ("times", "pts", "entries", "dts")
    equal = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)
    typed = all(getattr(a, name).dtype == getattr(b, name).dtype for name in arrays)
    return equal and typed and (a.num_frames, a.size) == (b.num_frames, b.size)


def test_an_index_is_made_once(video, tmp_path, made):
    cache = IndexCache(tmp_path)
    first = cache.get(video)
    assert cache.get(str(video)) is first
    assert same(IndexCache(tmp_path).get(video), first)
    assert made == ["a.mp4"]
    (file,) = tmp_path.iterdir()
    assert (len(file.stem), file.suffix) == (32, ".npz")
    assert file.stat().st_size < 4096


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_changed_is_indexed_anew(video, tmp_path, made, change):
    path = tmp_path / "a.mp4"
    shutil.copy2(video, path)
    cache = IndexCache(tmp_path / "cache")
    cache.get(path)
    status = path.stat()
    if change == "size":
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    cache.get(path)
    assert made == ["a.mp4"] * 2
    IndexCache(tmp_path / "cache").get(path)
    assert len(made) == 2


def test_a_damaged_cache_file_is_made_anew(video, tmp_path, made, caplog):
    whole = IndexCache(tmp_path).get(video)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    flipped = content[:500] + bytes([content[500] ^ 1]) + content[501:]
    spoilt = [b"", content[:20], content[:-1], content[: len(content) // 2], flipped, b"\x93NUMPY", pickle.dumps(whole)]
    for other in spoilt:
        file.write_bytes(other)
        assert same(IndexCache(tmp_path).get(video), whole)
        assert same(IndexCache(tmp_path).get(video), whole)
    assert len(made) == 1 + len(spoilt)
    assert not caplog.records


def test_the_index_of_another_file_or_version_is_not_taken(video, tmp_path, made, monkeypatch):
    path = tmp_path / "b.mp4"
    shutil.copy2(video, path)  # same size, same time
    cache = IndexCache(tmp_path / "cache")
    cache.get(video)
    (of_video,) = cache.folder.iterdir()
    content = of_video.read_bytes()
    cache.get(path)
    (of_path,) = set(cache.folder.iterdir()) - {of_video}
    of_path.write_bytes(content)
    IndexCache(cache.folder).get(path)
    assert made == ["a.mp4", "b.mp4", "b.mp4"]
    monkeypatch.setattr("pseudo3d.video.index_file._VERSION", "another")
    IndexCache(cache.folder).get(path)
    assert made == ["a.mp4", "b.mp4", "b.mp4", "b.mp4"]


def test_a_folder_that_cannot_be_written(video, tmp_path, made, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = IndexCache(tmp_path / "file" / "index")
    other = x264(tmp_path / "b.mp4")
    with caplog.at_level(logging.WARNING, logger="pseudo3d"):
        for path in (video, other, video):
            cache.get(path)
        pickle.loads(pickle.dumps(cache)).get(video)
    assert made == ["a.mp4", "b.mp4", "a.mp4"]  # in memory once, then once more in what stands for another process
    (record,) = caplog.records
    assert "cannot be written (Not a directory); indices of videos are kept in memory only" in record.getMessage()


def test_many_at_once_with_bad_ones_among_them(video, tmp_path, made):
    good = [tmp_path / f"{i}.mp4" for i in range(6)]
    for path in good:
        shutil.copy2(video, path)
    (tmp_path / "empty.mp4").touch()
    missing, empty = tmp_path / "missing.mp4", tmp_path / "empty.mp4"
    cache, signs = IndexCache(tmp_path / "cache"), []
    paths = [missing, *good[:3], empty, *good[3:], good[0]]
    reasons = cache.build(paths, on_video=lambda: signs.append(1))
    assert list(reasons.items()) == [
        (missing, f"{missing}: there is no such file; check the path"),
        (empty, f"{empty}: the file is empty (0 bytes); copy or download it again"),
    ]
    assert len(signs) == 8  # different ones
    assert sorted(made) == sorted(path.name for path in good)
    assert IndexCache(cache.folder).build(good) == {}
    assert len(made) == 6


def test_processes_share_a_folder(video, tmp_path):
    paths = [tmp_path / f"{i}.mp4" for i in range(4)]
    for path in paths:
        shutil.copy2(video, path)
    cache = IndexCache(tmp_path / "cache")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(cache.build, [paths, paths], chunksize=1) == [{}, {}]
    assert len(list(cache.folder.iterdir())) == 4  # nothing half written is left
    assert all(same(cache.get(path), index_video(path)) for path in paths)


def test_sent_to_another_process(video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = IndexCache(Path("cache"))
    index = cache.get(video)
    sent = pickle.dumps(cache)
    assert len(sent) < 1000  # without the indices
    monkeypatch.chdir("/")
    again = pickle.loads(sent)
    assert again.folder == tmp_path / "cache"
    assert same(again.get(video), index)
    assert same(pickle.loads(pickle.dumps(index)), index)


def test_memory_is_bounded(tmp_path, made, monkeypatch):
    paths = [write_video(tmp_path / f"{i}.mkv", numbered(8)) for i in range(5)]
    monkeypatch.setattr(index_module, "_HELD_BYTES", 3 * (1000 + 8 * 8))
    cache = IndexCache(tmp_path / "cache")
    for _ in range(2):
        for path in paths:
            assert cache.get(path).num_frames == 8
    assert len(cache._held) == 3
    assert cache._bytes == 3 * (1000 + 8 * 8)
    assert len(made) == 5  # the others are read from the folder again
    paths[-1].touch()
    cache.get(paths[-1])
    assert (len(cache._held), cache._bytes) == (3, 3 * (1000 + 8 * 8))


def test_the_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("PSEUDO3D_CACHE", str(tmp_path / "mine"))
    assert IndexCache().folder == tmp_path / "mine" / "index"


@pytest.mark.slow
def test_real_files(real_data):
    videos = sorted((real_data / "fight_surv").glob("*/*.mp4"))[::25]
    videos += [path for path in sorted((real_data / "odd").iterdir()) if path.suffix != ".wav"]
    sought = 0
    for path in videos:
        frames = count_frames(path)
        rng = np.random.default_rng(frames)
        starts = [0, *rng.integers(0, frames, 3).tolist(), max(0, frames - 16)]
        sought += check(path, starts, length=16, size=(60, 80)).entries.any()
    assert sought  # short surveillance clips have one keyframe, at the start
