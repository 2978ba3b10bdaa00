"""Segments of videos, against frames that are picked by hand out of a whole decoding."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from videos import X264, damaged, gradient, write_video

from pseudo3d import Preprocessing, Pseudo3dError, VideoError, read_video, sample_clips
from pseudo3d.video import scan
from pseudo3d.video.clips import ClipPlan, ClipStream
from pseudo3d.video.decode import count_frames
from pseudo3d.video.index import IndexCache, index_video, read_frames
from pseudo3d.video.pool import Decoded, DecoderPool, Failed
from pseudo3d.video.segments import file_of, find_segment, split_segment, with_segment

SIZE = (24, 32)
LENGTH = 4


def plan(clips=5, sampler="uniform", **more):
    return ClipPlan(Preprocessing(num_frames=LENGTH, resize=SIZE, crop=SIZE), clips, sampler, **more)


def pictures(count):
    return [np.roll(gradient(48, 64), 3 * i, axis=1) for i in range(count)]


def clips_of(path, a_plan=None):
    """Every sampled clip, (clips, T, h, w, 3), and the facts."""
    stream = ClipStream(path, a_plan or plan())
    found = {number: frames.copy() for number, frames in stream}
    return np.stack([found[row] for row in stream.facts.rows]), stream.facts


def by_hand(file, start, end):
    """Numbers and times of the frames in [start, end), in a loop over all of them."""
    clip = read_video(file)
    return [(i, time) for i, time in enumerate(clip.timestamps.tolist()) if start <= time < end]


UNEVEN = [0, 1, 2, 3, 9, 10, 11, 30, 31, 33, 40, 41, 42, 43, 44, 45, 60, 61, 62, 63, 64, 65, 66, 90, 91, 92, 93, 94]
WRITTEN = {  # name: (codec, pixel format, options, frames, display times)
    "b_frames.mp4": ("libx264", "yuv420p", X264, 60, None),
    "one_key.mkv": ("libx264", "yuv420p", X264 | {"g": "600"}, 60, None),
    "uneven.mkv": ("libx264", "yuv420p", X264 | {"g": "4"}, len(UNEVEN), UNEVEN),
    "uneven.mp4": ("mpeg4", "yuv420p", {"g": "5"}, len(UNEVEN), UNEVEN),
    "old.avi": ("mpeg4", "yuv420p", {"g": "5"}, 60, None),
    "stream.ts": ("mpeg2video", "yuv420p", {"g": "6", "bf": "2"}, 60, None),
}


@pytest.fixture(scope="module", params=WRITTEN)
def video(request, tmp_path_factory):
    codec, pix_fmt, options, count, pts = WRITTEN[request.param]
    path = tmp_path_factory.mktemp("segments") / request.param
    return write_video(path, pictures(count), codec=codec, pix_fmt=pix_fmt, options=options, fps=10, pts=pts)


@pytest.mark.parametrize("in_memory", [True, False])
def test_clips_are_of_the_frames_in_the_segment(video, in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.setattr(scan, "_KEPT_BYTES", 0)
    whole = read_video(video, size=SIZE, threads=1)
    first, last = whole.timestamps[[0, -1]].tolist()
    rng = random.Random(0)
    cuts = [(first + 1.0, first + 2.5), (first + 4.2, first + 4.6), (0.0, last), (first + 0.95, math.inf)]
    cuts += [tuple(sorted(round(first + rng.uniform(0, 6), 2) for _ in range(2))) for _ in range(6)]
    seeks = 0
    for start, end in cuts:
        expected = by_hand(video, start, end)
        path = with_segment(video, start, end)
        if not expected:
            with pytest.raises(VideoError, match="no frame is shown"):
                clips_of(path)
            continue
        clips, facts = clips_of(path)
        numbers = np.array([number for number, _ in expected])
        chosen = numbers[sample_clips(len(numbers), 5, LENGTH)]
        assert facts.starts == tuple(chosen[:, 0])
        assert facts.times == tuple(whole.timestamps[chosen[:, 0]])
        assert facts.num_frames == len(whole)
        assert np.array_equal(clips, whole.frames[chosen])
        seeks += facts.seeks
    assert (seeks > 0) == (video.name in ("b_frames.mp4", "one_key.mkv", "uneven.mkv"))


def test_a_segment_is_read_as_the_index_and_read_video_have_it(video):
    whole = read_video(video, size=SIZE, threads=1)
    first = float(whole.timestamps[0])
    for start, end in ((first + 1.0, first + 2.5), (first + 0.85, first + 1.15), (first + 2.95, 60.0)):
        expected = [number for number, _ in by_hand(video, start, end)]
        path = with_segment(video, start, end)
        clip = read_video(path, size=SIZE)
        assert np.array_equal(clip.frames, whole.frames[expected])
        assert np.array_equal(clip.timestamps, whole.timestamps[expected])
        index = index_video(path)
        assert (index.num_frames, index.first) == (len(expected), expected[0])
        assert np.array_equal(index.times, whole.timestamps[expected])
        for place in (0, len(expected) // 2, len(expected) - 1):
            frames = read_frames(path, index, place, LENGTH, size=SIZE)
            looped = [expected[(place + k) % len(expected)] for k in range(LENGTH)]
            assert np.array_equal(frames, whole.frames[looped])


def test_numbers_are_those_of_the_file_when_they_are_asked_for(video):
    whole = read_video(video, size=SIZE)
    part = read_video(f"{video}#t=1,2", indices=[0, 7], size=SIZE)
    assert np.array_equal(part.frames, whole.frames[[0, 7]])
    assert count_frames(f"{video}#t=1,2") == len(whole)


@pytest.mark.parametrize("sampler", ["uniform", "authors", "sliding", "random"])
def test_every_sampler_stays_inside(tmp_path, sampler):
    path = write_video(tmp_path / "a.mkv", pictures(50), fps=10)
    segment = f"{path}#t=2,4.05"
    clips, facts = clips_of(segment, plan(sampler=sampler, clips=7))
    assert facts.starts == tuple(20 + start for start in plan(sampler=sampler, clips=7).starts(21, segment))
    assert min(facts.starts) >= 20
    assert max(facts.starts) + LENGTH <= 41
    whole = read_video(path, size=SIZE)
    for clip, start in zip(clips, facts.starts, strict=True):
        assert np.array_equal(clip, whole.frames[start : start + LENGTH])


def test_a_segment_shorter_than_a_clip_is_looped(tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(30), fps=10)
    clips, facts = clips_of(f"{path}#t=1.5,1.8")
    assert facts.starts == (15,) * 5
    whole = read_video(path, size=SIZE)
    assert np.array_equal(clips[4], whole.frames[[15, 16, 17, 15]])


def test_a_segment_of_a_damaged_file(tmp_path):
    """Two packets are lost: what is in the segment follows from the frames that are there."""
    path = damaged(tmp_path)
    whole = read_video(path, size=SIZE, threads=1)
    expected = [number for number, _ in by_hand(path, 0.2, 1.2)]
    clips, facts = clips_of(f"{path}#t=0.2,1.2")
    chosen = np.array(expected)[sample_clips(len(expected), 5, LENGTH)]
    assert facts.starts == tuple(chosen[:, 0])
    assert facts.num_frames == len(whole)
    assert np.array_equal(clips, whole.frames[chosen])


def test_a_file_that_is_named_so_wins(tmp_path):
    write_video(tmp_path / "a.mkv", pictures(30), fps=10)
    literal = tmp_path / "b.mkv"
    write_video(literal, pictures(8), fps=10)
    literal = literal.rename(tmp_path / "a.mkv#t=1,2")
    assert find_segment(literal) == (literal, None)
    assert clips_of(literal)[1].num_frames == 8
    assert len(read_video(literal)) == index_video(literal).num_frames == 8
    assert find_segment(tmp_path / "a.mkv#t=1,3") == (tmp_path / "a.mkv", (1, 3))


def test_errors_begin_with_the_path_as_it_was_given(tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(30), fps=10)
    late = f"{path}#t=10,20"
    for read in (clips_of, read_video, index_video, IndexCache(tmp_path / "cache").get):
        with pytest.raises(
            VideoError, match=r"a\.mkv#t=10,20: no frame is shown from 10 s to 20 s.* 30 .*ends at 3\.00"
        ):
            read(late)
    with pytest.raises(VideoError, match=r"from 2 s to 1 s"):
        clips_of(f"{path}#t=2,1")
    with pytest.raises(VideoError, match=r"b\.mkv#t=1,2: there is no such file"):
        clips_of(tmp_path / "b.mkv#t=1,2")
    with pytest.raises(VideoError, match=r"a\.mkv#t=1,2#t=1,2: there is no such file"):
        read_video(f"{path}#t=1,2#t=1,2")
    (tmp_path / "c.mkv").write_bytes(b"text")
    with pytest.raises(VideoError, match=r"c\.mkv#t=1,2: is not a video"):
        clips_of(tmp_path / "c.mkv#t=1,2")


def test_the_index_of_a_file_is_made_once_for_all_its_segments(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", pictures(30), fps=10)
    made = []
    original = index_video
    monkeypatch.setattr("pseudo3d.video.index.index_video", lambda path: (made.append(path), original(path))[1])
    cache, told = IndexCache(tmp_path / "cache"), []
    asked = [f"{path}#t=0,1", f"{path}#t=1,2", str(path), f"{path}#t=7,8"]
    reasons = cache.build(asked, on_video=lambda: told.append(1))
    assert [str(bad) for bad in reasons] == asked[3:]
    assert len(told) == 4
    assert [cache.get(one).num_frames for one in asked[:3]] == [10, 10, 30]
    assert IndexCache(tmp_path / "cache").get(asked[1]).first == 10
    assert made == [path]


def test_decoder_processes_understand_segments(tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(30), fps=10)
    with DecoderPool(workers=1) as pool:
        videos = [(0, f"{path}#t=1,2"), (1, f"{path}#t=5,6")]
        ends = {event.key: event for event in pool.stream(videos, plan(3)) if isinstance(event, Decoded | Failed)}
    assert ends[0].facts.starts == (10, 13, 16)
    assert ends[1].reason.startswith(f"{path}#t=5,6: no frame is shown")


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("v.mp4#t=10.5,20", ("v.mp4", (10.5, 20))),
        ("a b/v.mp4#t=npt:3", ("a b/v.mp4", (3, math.inf))),
        ("v#t=1/x.mp4#t=,2.", ("v#t=1/x.mp4", (0, 2))),
        ("v.mp4", ("v.mp4", None)),
        ("v.mp4#t=", ("v.mp4#t=", None)),
        ("v.mp4#t=,", ("v.mp4#t=,", None)),
        ("v.mp4#t=-1,2", ("v.mp4#t=-1,2", None)),
        ("v.mp4#t=1e3,2", ("v.mp4#t=1e3,2", None)),
        ("v.mp4#xywh=1,2,3,4", ("v.mp4#xywh=1,2,3,4", None)),
        ("#t=1,2", ("#t=1,2", None)),
        ("v.mp4#t=1,2#t=3,4", ("v.mp4#t=1,2#t=3,4", None)),
    ],
)
def test_notation(path, parts):
    assert split_segment(path) == parts


@given(st.floats(0, 1e6), st.floats(1e-9, 1e5))
def test_what_is_written_is_read_back(start, seconds):
    if start + seconds > start:
        assert split_segment(with_segment("a/v.mp4", start, start + seconds)) == ("a/v.mp4", (start, start + seconds))


def test_what_cannot_be_a_segment():
    for start, end in ((2, 2), (3, 1), (-1, 2), (math.nan, 2)):
        with pytest.raises(Pseudo3dError, match="must start at 0 or later, before its end"):
            with_segment("v.mp4", start, end)
    with pytest.raises(Pseudo3dError, match="is a segment already"):
        with_segment("v.mp4#t=1,2", 3, 4)
    assert file_of("no/such.mp4#t=1,2").as_posix() == "no/such.mp4"


def test_random_clips_are_the_same_in_every_run_and_others_for_another_seed(tmp_path):
    path = write_video(tmp_path / "a.mkv", pictures(50), fps=10)
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "a.mkv"
    copy.write_bytes(path.read_bytes())
    starts = clips_of(path, plan(20, "random"))[1].starts
    assert starts == clips_of(copy, plan(20, "random"))[1].starts
    assert starts != clips_of(copy.rename(tmp_path / "b.mkv"), plan(20, "random"))[1].starts
    assert starts != clips_of(path, plan(20, "random", seed=1))[1].starts
    with pytest.raises(Pseudo3dError, match="seed of the sampler must be 0 or more"):
        plan(sampler="random", seed=-1)


def test_random_clips_start_everywhere_with_equal_chance():
    counts = np.zeros(11)
    for seed in range(300):
        np.add.at(counts, plan(20, "random", seed=seed).starts(14, "x.mp4"), 1)
    expected = 300 * 20 / 11
    assert counts.shape == (11,)
    assert ((counts - expected) ** 2 / expected).sum() < 29.6  # chi-squared, 10 degrees of freedom: 0.1 %
