"""Clips from the middle of a file are those of a decoding from the start, however the file was written."""

import contextlib
import random

import av
import av.error
import numpy as np
import pytest
from av.filter import Graph
from videos import ffmpeg, gradient, write_video

from pseudo3d import Preprocessing
from pseudo3d.video import scan
from pseudo3d.video.clips import ClipPlan, ClipStream
from pseudo3d.video.seeking import plan_runs

SIZE = (32, 40)
PLAN = ClipPlan(Preprocessing(num_frames=4, resize=SIZE, crop=SIZE), clips=4)
FRAMES = 300
X264 = {"preset": "veryfast", "crf": "20"}


def pictures(count=FRAMES, height=48, width=64):
    """Noise that scrolls over a gradient: every frame differs from every other, and encoders find motion."""
    noise = np.random.default_rng(0).integers(0, 120, (height, width + count, 3), dtype=np.uint8)
    back = gradient(height, width) // 2
    return [noise[:, i : i + width] + back for i in range(count)]


def frames_of(file, stream):
    """What the decoder gives, whatever it cannot decode left out."""
    for packet in file.demux(stream):
        with contextlib.suppress(av.error.InvalidDataError):
            yield from stream.codec_context.decode(packet if packet.size else None)


def decoded(path):
    """Every frame and its time, in a loop that knows nothing of clips; scaled as the ``ffmpeg`` program does."""
    frames, times = [], []
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        stream.thread_count = 1
        graph = None
        for frame in frames_of(file, stream):
            if graph is None:
                graph = Graph()
                flags = "bilinear+accurate_rnd+full_chroma_int"
                graph.link_nodes(
                    graph.add_buffer(template=stream),
                    graph.add("scale", f"{SIZE[1]}:{SIZE[0]}:flags={flags}"),
                    graph.add("format", "rgb24"),
                    graph.add("buffersink"),
                ).configure()
            times.append(None if frame.pts is None else float(frame.pts * stream.time_base))
            graph.push(frame)
            frames.append(graph.vpull().to_ndarray())
    return frames, times


def check(path, plan=PLAN, threads=1):
    """Compares all clips with the frames of ``decoded``, and returns the facts."""
    frames, times = decoded(path)
    stream = ClipStream(path, plan, threads=threads)
    clips = {number: clip.copy() for number, clip in stream}
    facts = stream.facts
    assert facts.num_frames == len(frames)
    assert facts.starts == tuple(plan.starts(len(frames)))
    for start, row, time in zip(facts.starts, facts.rows, facts.times, strict=True):
        assert np.array_equal(clips[row], np.stack(frames[start : start + plan.preprocessing.num_frames]))
        if not str(path).endswith(".avi"):
            assert time == pytest.approx(times[start])
    return facts


X265 = {"preset": "ultrafast"}
HIDING = {"g": "30", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8", "deadline": "good"}
# name: (codec, options of the encoder, whether seeking is expected: None leaves it to the encoder)
WRITTEN = {
    "b_frames.mp4": ("libx264", X264 | {"g": "25", "bf": "3"}, True),
    "b_frames.mkv": ("libx264", X264 | {"g": "25", "bf": "3"}, True),
    "pyramid.mov": ("libx264", X264 | {"g": "40", "x264-params": "b-pyramid=normal:bframes=6:ref=6"}, True),
    "open_gop.mp4": ("libx264", X264 | {"g": "25", "x264-params": "open-gop=1:bframes=3"}, False),
    "refresh.mp4": ("libx264", X264 | {"g": "25", "x264-params": "intra-refresh=1"}, False),
    "one_gop.mp4": ("libx264", X264 | {"g": "1000"}, False),
    "intra.mp4": ("libx264", X264 | {"g": "1"}, True),
    "hevc.mp4": ("libx265", X265 | {"x265-params": "keyint=25:open-gop=0:log-level=none"}, True),
    "hevc_open.mkv": ("libx265", X265 | {"x265-params": "keyint=25:open-gop=1:bframes=3:log-level=none"}, None),
    "vp9.webm": ("libvpx-vp9", HIDING, True),
    "av1.mkv": ("libsvtav1", {"g": "30", "preset": "12"}, True),
    "vp8.webm": ("libvpx", HIDING, False),
    "mpeg2.mkv": ("mpeg2video", {"g": "12", "bf": "2", "flags": "+cgop", "sc_threshold": "1000000000"}, True),
    "mpeg2_open.mkv": ("mpeg2video", {"g": "12", "bf": "2"}, False),
    "mpeg2.ts": ("mpeg2video", {"g": "12", "bf": "2"}, False),
    "h264.ts": ("libx264", X264 | {"g": "25", "bf": "3"}, False),
    "mpeg4.avi": ("mpeg4", {"g": "12", "bf": "2"}, False),
    "mpeg4.mp4": ("mpeg4", {"g": "12", "bf": "2"}, False),
    "mjpeg.mkv": ("mjpeg", {}, True),
}


@pytest.fixture(scope="module", params=WRITTEN)
def written(request, tmp_path_factory):
    codec, options, seeks = WRITTEN[request.param]
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = tmp_path_factory.mktemp("seek") / request.param
    return write_video(path, pictures(), codec=codec, pix_fmt=pix_fmt, options=options), seeks


@pytest.mark.parametrize(("in_memory", "threads"), [(True, 1), (False, 1), (False, 3)])
def test_frames_are_those_of_a_whole_decoding(written, in_memory, threads, monkeypatch):
    if not in_memory:
        monkeypatch.setattr(scan, "_KEPT_BYTES", 0)
    path, seeks = written
    sought = check(path, threads=threads).seeks > 0
    assert seeks is None or sought == seeks


def test_far_clips_are_sought_one_by_one(tmp_path):
    path = write_video(tmp_path / "a.mp4", pictures(), codec="libx264", pix_fmt="yuv420p", options=X264 | {"g": "20"})
    assert check(path).seeks == 4


def test_near_clips_share_a_run(tmp_path):
    path = write_video(tmp_path / "a.mp4", pictures(), codec="libx264", pix_fmt="yuv420p", options=X264 | {"g": "20"})
    decoded_frames = []
    plan = ClipPlan(PLAN.preprocessing, clips=1)
    stream = ClipStream(path, plan, on_progress=lambda: decoded_frames.append(1))
    assert [number for number, _ in stream] == [0]
    assert stream.facts.seeks == 1
    assert len(decoded_frames) == FRAMES + 4  # a sign for each packet and each frame that was decoded


def test_a_variable_rate_keeps_its_times(tmp_path):
    rng = np.random.default_rng(1)
    pts = np.cumsum(rng.integers(1, 9, FRAMES)).tolist()
    options = X264 | {"g": "25", "bf": "2"}
    for name in ("v.mp4", "v.mkv"):
        path = write_video(tmp_path / name, pictures(), codec="libx264", pix_fmt="yuv420p", options=options, pts=pts)
        assert check(path).seeks > 1


def test_frames_hidden_by_an_edit_list(tmp_path):
    options = X264 | {"g": "25", "bf": "2"}
    path = write_video(tmp_path / "a.mp4", pictures(), codec="libx264", pix_fmt="yuv420p", options=options)
    ffmpeg("-ss", "1.24", "-i", path, "-c", "copy", tmp_path / "cut.mp4")
    with av.open(str(tmp_path / "cut.mp4")) as file:
        assert any(packet.is_discard for packet in file.demux(video=0))  # else it would prove nothing
    assert check(tmp_path / "cut.mp4").seeks == 0


def test_fragments_without_an_index(tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_KEPT_BYTES", 0)
    options = X264 | {"g": "25", "bf": "2"}
    path = write_video(tmp_path / "a.mp4", pictures(), codec="libx264", pix_fmt="yuv420p", options=options)
    ffmpeg("-i", path, "-c", "copy", "-movflags", "frag_keyframe+empty_moov", tmp_path / "f.mp4")
    check(tmp_path / "f.mp4")
    ffmpeg("-i", path, "-c", "copy", "-cues_to_front", "0", "-f", "matroska", "-live", "1", tmp_path / "live.mkv")
    check(tmp_path / "live.mkv")


def damage(path, position):
    """The file with the bytes of that packet turned round, its length kept."""
    with av.open(str(path)) as file:
        place, size = [(p.pos, p.size) for p in file.demux(video=0) if p.size][position]
    data = bytearray(path.read_bytes())
    data[place + 4 : place + size] = bytes(255 - byte for byte in data[place + 4 : place + size])
    broken = path.with_name(f"broken{position}{path.suffix}")
    broken.write_bytes(data)
    return broken


@pytest.mark.parametrize("in_memory", [True, False])
def test_damage_in_a_part_that_is_read(tmp_path, in_memory, monkeypatch):
    """Decoding from the start is then the measure, as ever."""
    if not in_memory:
        monkeypatch.setattr(scan, "_KEPT_BYTES", 0)
    options = X264 | {"g": "25", "bf": "0"}
    path = write_video(tmp_path / "a.mp4", pictures(), codec="libx264", pix_fmt="yuv420p", options=options)
    facts = check(damage(path, 100))  # between the keyframe at 75 and the end of the second clip, at 101
    assert facts.seeks == 0
    assert facts.undecodable_packets + facts.concealed_frames > 0


def test_damage_in_a_part_that_is_left_out(tmp_path):
    options = X264 | {"g": "25", "bf": "0"}
    path = write_video(tmp_path / "a.mp4", pictures(), codec="libx264", pix_fmt="yuv420p", options=options)
    stream = ClipStream(damage(path, 40), PLAN)
    clips = [clip.copy() for _, clip in stream]
    assert stream.facts.seeks == 4
    assert (stream.facts.num_frames, stream.facts.undecodable_packets) == (FRAMES, 0)
    assert all(np.array_equal(a, b) for a, b in zip(clips, (clip for _, clip in ClipStream(path, PLAN)), strict=False))


def test_a_packet_that_the_scan_did_not_see(tmp_path, monkeypatch):
    """A file that changes between the two readings is read from the start."""
    monkeypatch.setattr(scan, "_KEPT_BYTES", 0)
    path = write_video(tmp_path / "a.mp4", pictures(), codec="mjpeg", pix_fmt="yuvj420p")
    original = scan.np.sort
    monkeypatch.setattr("pseudo3d.video.seeking.np.sort", lambda pts: original(pts) + (np.arange(len(pts)) > 200))
    assert check(path).seeks == 0


def test_any_plan_of_any_stream(tmp_path):
    """Random lengths, numbers of clips and keyframe distances."""
    chance = random.Random(2)
    for trial in range(6):
        options = X264 | {"g": str(chance.randint(2, 40)), "bf": str(chance.randint(0, 4))}
        path = write_video(tmp_path / f"{trial}.mp4", pictures(), codec="libx264", pix_fmt="yuv420p", options=options)
        for _ in range(4):
            net = Preprocessing(num_frames=chance.randint(1, 20), resize=SIZE, crop=SIZE)
            sampler = chance.choice(["uniform", "authors", "sliding"])
            check(path, ClipPlan(net, chance.randint(1, 6), sampler, stride=chance.choice([50, 90])))


@pytest.mark.slow
def test_real_files_made_long(real_data, tmp_path):
    seeks = 0
    videos = sorted((real_data / "odd").glob("*.m*")) + sorted((real_data / "fight_surv").glob("*/*.mp4"))[::20]
    videos = [path for path in videos if path.name != "video_90.mov"]  # ``decoded`` turns nothing upright
    for path in videos:
        long = tmp_path / f"long_{path.name}"
        ffmpeg("-stream_loop", "4", "-i", path, "-map", "0:v:0", "-c", "copy", long)
        seeks += check(long, ClipPlan(PLAN.preprocessing, clips=2)).seeks > 0
    assert seeks >= len(videos) // 3


@pytest.mark.parametrize("oddity", ["is_discard", "is_corrupt", "new_extradata"])
def test_packets_that_rule_seeking_out(oddity):
    class Packet:
        is_discard = oddity == "is_discard"
        is_corrupt = oddity == "is_corrupt"

        def has_sidedata(self, kind):
            return kind == oddity

    assert scan._is_special(Packet())


def test_runs():
    entries = np.arange(0, 1000, 100)
    assert plan_runs(entries, [0, 120, 984], 16, 1000) == [(0, 15), (100, 135), (900, 999)]
    assert plan_runs(entries, [50, 66], 16, 1000) == [(0, 81)]
    assert plan_runs(entries, [84, 100], 16, 1000) == [(0, 115)]  # the second begins where the first ends
    assert plan_runs(entries, [0], 16, 10) == []  # half of it or more is needed
    assert plan_runs(np.array([5]), [0, 50], 16, 1000) == []
    assert plan_runs(np.empty(0, np.int64), [0], 16, 1000) == []
