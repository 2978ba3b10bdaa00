import contextlib
import gc
import pickle
import subprocess
import sys
import tracemalloc

import av
import av.error
import numpy as np
import pytest
from videos import damaged, gradient, numbered, write_video

from pseudo3d import Preprocessing, Pseudo3dError, VideoError, read_video, sample_clips
from pseudo3d.video import scan
from pseudo3d.video.clips import ClipPlan, ClipStream, get_sampler, load_clips
from pseudo3d.video.sampling import sample_clips_authors

SMALL = Preprocessing(num_frames=4, resize=(36, 48), crop=(32, 40))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    frames = [np.minimum(np.roll(gradient(64, 96), 3 * i, axis=1), 250) for i in range(30)]
    return write_video(tmp_path_factory.mktemp("clips") / "a.mkv", frames, fps=10)


@pytest.mark.parametrize("sampler", ["uniform", "authors"])
@pytest.mark.parametrize("resize", [36, (36, 48)])
def test_clips_are_the_sampled_frames_resized_and_cropped(video, sampler, resize):
    preprocessing = Preprocessing(num_frames=4, resize=resize, crop=(32, 34))
    loaded = load_clips(video, preprocessing, clips=6, sampler=sampler)
    indices = {"uniform": sample_clips, "authors": sample_clips_authors}[sampler](30, 6, 4)
    assert loaded.frames.shape == (6, 4, 32, 34, 3)
    assert loaded.frames.dtype == np.uint8
    for row, clip in zip(indices, loaded.frames[loaded.rows], strict=True):
        frames = read_video(video, indices=row, size=resize).frames
        top, left = (frames.shape[1] - 32) // 2, (frames.shape[2] - 34) // 2
        assert np.array_equal(clip, frames[:, top : top + 32, left : left + 34])
    assert loaded.starts.tolist() == indices[:, 0].tolist()
    assert (loaded.num_frames, loaded.fps, loaded.undecodable_packets) == (30, 10.0, 0)


def test_sliding_clips_follow_from_the_video(video):
    net = Preprocessing(num_frames=16, resize=(36, 48), crop=(36, 48))
    loaded = load_clips(video, net, clips=1, sampler="sliding")
    assert loaded.starts.tolist() == [0, 8, 14]  # 30 frames: the last clip ends on the last of them
    assert loaded.rows.tolist() == [0, 1, 2]
    for start, clip in zip(loaded.starts, loaded.frames, strict=True):
        assert np.array_equal(clip, read_video(video, indices=range(start, start + 16), size=(36, 48)).frames)


def test_interpolation_is_the_networks(video):
    area = Preprocessing(num_frames=4, resize=(36, 48), crop=(36, 48), interpolation="area")
    loaded = load_clips(video, area, clips=1)
    assert np.array_equal(
        loaded.frames[0], read_video(video, indices=range(4), size=(36, 48), interpolation="area").frames
    )


def test_a_short_video_is_looped(tmp_path):
    path = write_video(tmp_path / "short.mkv", numbered(3, 32, 48))
    loaded = load_clips(path, Preprocessing(num_frames=8, resize=(32, 48), crop=(32, 48)), clips=2)
    assert loaded.frames.shape == (1, 8, 32, 48, 3)  # both clips are the same one
    assert loaded.rows.tolist() == [0, 0]
    first = loaded.frames[0]
    assert np.array_equal(first[3:6], first[:3])
    assert not np.array_equal(first[0], first[1])
    assert loaded.starts.tolist() == [0, 0]


def test_clips_on_the_same_frames_are_there_once(video):
    loaded = load_clips(video, Preprocessing(num_frames=28, resize=(36, 48), crop=(32, 40)), clips=5)
    assert loaded.starts.tolist() == [0, 0, 1, 1, 2]
    assert loaded.rows.tolist() == [0, 0, 1, 1, 2]
    assert len(loaded.frames) == 3


def test_clips_do_not_share_memory(video):
    """Clips that overlap may be changed one by one."""
    loaded = load_clips(video, SMALL, clips=20)
    before = loaded.frames[1].copy()
    loaded.frames[0] = 0
    assert np.array_equal(loaded.frames[1], before)


def test_a_stream_gives_each_clip_as_soon_as_it_is_complete(video):
    """The signs of life between the clips are 30 for the packets, then one for each frame."""
    signs, seen = [], []
    stream = ClipStream(video, ClipPlan(SMALL, clips=3), on_progress=lambda: signs.append(1))
    for number, frames in stream:
        assert np.array_equal(frames, load_clips(video, SMALL, clips=3).frames[number])
        seen.append((number, len(signs)))
    assert seen == [(0, 30 + 4), (1, 30 + 17), (2, 30 + 30)]


def test_the_facts(video):
    plan = ClipPlan(Preprocessing(num_frames=28, resize=(36, 48), crop=(32, 40)), clips=5)
    stream = ClipStream(video, plan)
    assert [number for number, _ in stream] == [0, 1, 2]
    facts = stream.facts
    assert (facts.starts, facts.rows) == ((0, 0, 1, 1, 2), (0, 0, 1, 1, 2))
    assert facts.times == pytest.approx((0, 0, 0.1, 0.1, 0.2))
    assert (facts.num_frames, facts.fps, facts.duration) == (30, 10.0, pytest.approx(3))
    assert (facts.undecodable_packets, facts.concealed_frames, facts.seeks) == (0, 0, 0)
    assert pickle.loads(pickle.dumps((plan, facts))) == (plan, facts)


def test_sliding_at_any_stride(video):
    stream = ClipStream(video, ClipPlan(SMALL, sampler="sliding", stride=10))
    clips = {number: frames.copy() for number, frames in stream}
    assert stream.facts.starts == (0, 10, 20, 26)
    assert stream.facts.times == pytest.approx((0, 1, 2, 2.6))
    whole = load_clips(video, Preprocessing(num_frames=30, resize=(36, 48), crop=(32, 40)), clips=1).frames[0]
    for number, start in enumerate(stream.facts.starts):
        assert np.array_equal(clips[number], whole[start : start + 4])


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_damaged_file_starts_over(tmp_path, threads, in_memory, monkeypatch):
    """Two packets are lost: the clips that are given last are those of the frames that are there."""
    if not in_memory:
        monkeypatch.setattr(scan, "_KEPT_BYTES", 0)
    path = damaged(tmp_path)
    net = Preprocessing(num_frames=8, resize=(64, 96), crop=(64, 96))
    stream = ClipStream(path, ClipPlan(net, clips=4), threads=threads)
    numbers, clips = [], {}
    for number, frames in stream:
        numbers.append(number)
        clips[number] = frames.copy()
    whole = read_video(path, threads=1)
    facts = stream.facts
    assert facts.num_frames == len(whole)
    assert len(whole) < 40
    assert facts.undecodable_packets == whole.undecodable_packets
    assert numbers[-4:] == [0, 1, 2, 3]
    assert len(numbers) > 4
    assert facts.starts == tuple(sample_clips(len(whole), 4, 8)[:, 0])
    for start, row, time in zip(facts.starts, facts.rows, facts.times, strict=True):
        assert np.array_equal(clips[row], whole.frames[start : start + 8])
        assert time == whole.timestamps[start]


def test_frames_that_are_made_up_are_counted(real_data, caplog):
    path = real_data / "odd" / "corrupted.mp4"
    stream = ClipStream(path, ClipPlan(SMALL))
    for _ in stream:
        pass
    facts = stream.facts
    with av.open(str(path)) as file:
        file.streams.video[0].thread_count = 1
        corrupt = []
        for packet in file.demux(video=0):
            with contextlib.suppress(av.error.InvalidDataError):
                corrupt += [frame.is_corrupt for frame in packet.decode()]
    assert (facts.num_frames, facts.undecodable_packets) == (len(corrupt), 1)
    assert facts.concealed_frames == sum(corrupt) > 0
    assert "corrupted.mp4: FFmpeg could not decode 1 packet" in caplog.text
    assert "FFmpeg made up parts of them" in caplog.text


def test_frames_are_given_back_at_once(video):
    """FFmpeg's pictures are large and NumPy does not count them: none may wait for Python's garbage collection."""
    gc.collect()
    gc.disable()
    try:
        frames_before = sum(isinstance(each, av.VideoFrame) for each in gc.get_objects())
        for _ in ClipStream(video, ClipPlan(SMALL, sampler="sliding", stride=1)):
            pass
        assert sum(isinstance(each, av.VideoFrame) for each in gc.get_objects()) <= frames_before
    finally:
        gc.enable()


def test_a_long_video_takes_no_more_memory(tmp_path, monkeypatch):
    """Every frame in some clip, none of the packets kept: all that is allocated is what the window holds."""
    monkeypatch.setattr(scan, "_KEPT_BYTES", 0)
    path = write_video(tmp_path / "long.mkv", numbered(256, 64, 96) * 2)
    net = Preprocessing(num_frames=16, resize=(64, 96), crop=(64, 96))
    tracemalloc.start()
    given = sum(1 for _ in ClipStream(path, ClipPlan(net, sampler="sliding")))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert given == 63
    assert peak < (16 + 64 + 8) * 64 * 96 * 3 + 300_000  # of 9 MB that the frames are


def test_errors(video, tmp_path):
    with pytest.raises(Pseudo3dError, match="no sampler 'middle'; there are uniform, authors, sliding, random"):
        get_sampler("middle")
    with pytest.raises(Pseudo3dError, match="stride must be at least 1, got 0"):
        ClipPlan(SMALL, sampler="sliding", stride=0)
    with pytest.raises(Pseudo3dError, match="threads must be 0"):
        ClipStream(video, ClipPlan(SMALL), threads=-1)
    with pytest.raises(Pseudo3dError, match="clips must be at least 1, got 0"):
        load_clips(video, SMALL, clips=0)
    (tmp_path / "not.mp4").write_bytes(b"text")
    with pytest.raises(VideoError, match=r"not\.mp4"):
        load_clips(tmp_path / "not.mp4", SMALL)


def test_decoder_processes_stay_without_torch():
    code = "import sys, pseudo3d.video.clips; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
