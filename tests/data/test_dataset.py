"""Clips to train on: which frames, cut out how, what becomes of bad videos, and the batches they make."""

import numpy as np
import pytest
import torch
from training_clips import ALL, picture, steps_of
from videos import damaged, numbered, numbers, write_video

from pseudo3d import Preprocessing, Pseudo3dError, VideoError, read_video
from pseudo3d.data import dataset
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.augmentation import Augmentation
from pseudo3d.data.dataset import TrainingClips, check_bad, label_sets, load, make_loader
from pseudo3d.data.sampler import ClipKey, StepSampler
from pseudo3d.video.index import IndexCache


@pytest.fixture
def starts(monkeypatch):
    """The first frames that were asked for; nothing is decoded."""
    asked = []

    def note(path, index, start, length, *, size, **_):
        asked.append(start)
        return np.zeros((length, *size, 3), np.uint8)

    monkeypatch.setattr(dataset, "read_frames", note)
    return asked


def windows(frames):
    """Start frame, top, left and whether it is mirrored, read from the pixels of a clip; the same in all frames."""
    assert frames.shape == (4, 24, 32, 3)
    start = round(frames[0, ..., 2].mean() / 6)
    columns = frames[..., 1].astype(int) / 4
    mirrored = columns[0, 0, 0] > columns[0, 0, -1]
    top, left = round(frames[0, 0, 0, 0] / 5), round(columns[0, 0].min())
    for t in range(4):
        expected = picture(start + t)[top : top + 24, left : left + 32]
        assert np.abs(frames[t].astype(int) - (expected[:, ::-1] if mirrored else expected)).max() <= 1
    return start, top, left, bool(mirrored)


# --- Which frames, and where they are cut out -------------------------------------------------------------------------


def test_one_window_and_one_mirror_image_for_all_frames(clips):
    videos = clips()
    drawn = [videos[ClipKey(epoch, i)] for epoch in range(1, 41) for i in range(3)]
    seen = [windows(clip.frames) for clip in drawn]
    assert [clip.window for clip in drawn] == [window[1:] for window in seen]  # an item says what was cut out of where
    starts, tops, lefts, mirrored = map(set, zip(*seen, strict=True))
    assert starts <= set(range(37))
    assert len(starts) > 25
    assert tops <= set(range(17))
    assert lefts <= set(range(25))
    assert {min(tops), max(tops)} == {0, 16}
    assert {min(lefts), max(lefts)} <= {0, 1, 23, 24}
    assert mirrored == {True, False}
    assert len(set(seen)) > 110  # other draws for every epoch and video


@pytest.mark.parametrize("interpolation", ["bilinear", "area"])
def test_a_clip_is_what_reading_all_and_cutting_out_gives(clips, samples, interpolation):
    net = Preprocessing(num_frames=4, resize=(30, 50), crop=(20, 21), interpolation=interpolation)
    whole = read_video(samples.root / "a.mkv", size=(30, 50), interpolation=interpolation).frames
    for epoch in range(1, 9):
        clip = clips(net=net)[ClipKey(epoch, 0)]
        (top, left, flipped), found = clip.window, []
        cut = whole[:, top : top + 20, left : left + 21]
        cut = cut[:, :, ::-1] if flipped else cut
        found = [start for start in range(37) if np.array_equal(cut[start : start + 4], clip.frames)]
        assert len(found) == 1


def test_clips_start_anywhere_with_equal_chance(clips, starts):
    one = clips()
    for epoch in range(1, 37 * 20 + 1):
        assert isinstance(one[ClipKey(epoch, 0)].frames, np.ndarray)
    counts = np.bincount(starts, minlength=37)
    assert len(counts) == 37
    assert ((counts - 20) ** 2 / 20).sum() < 70  # chi square with 36 degrees of freedom; above with chance 0.0006


def test_plain_clips_are_centre_crops(clips):
    plain = clips(Augmentation(random_crop=False))
    for epoch in range(1, 6):
        assert windows(plain[ClipKey(epoch, 1)].frames)[1:] == (8, 12, False)


def test_draws_depend_on_seed_epoch_and_place_alone(clips):
    def draw(seed, epoch, i):
        return clips(seed=seed)[ClipKey(epoch, i)].frames

    one = clips(seed=5)
    for epoch, i in [(3, 2), (1, 0), (3, 2), (2, 0)]:  # in any order, and again
        assert np.array_equal(one[ClipKey(epoch, i, (1,))].frames, draw(5, epoch, i))
    assert windows(draw(5, 3, 2)) != windows(draw(6, 3, 2))
    assert windows(draw(5, 3, 2)) != windows(draw(5, 4, 2))
    assert windows(draw(5, 3, 2)) != windows(draw(5, 3, 0))  # the files are alike, the draws are not


def test_a_short_video_is_looped(tmp_path, cache):
    write_video(tmp_path / "a.mkv", numbered(3, 40, 56))
    net = Preprocessing(num_frames=8, resize=(40, 56), crop=(40, 56))
    videos = SampleList(tmp_path, (Sample("a.mkv", "x"),))
    clip = TrainingClips(videos, net, Augmentation(), seed=0, index=IndexCache(cache))[ClipKey(1, 0)]
    assert numbers(clip.frames) == [0, 1, 2, 0, 1, 2, 0, 1]


def test_clips_out_of_pieces(clips, starts):
    """The videos have 25 frames/s: a piece of 0.4 s holds 10 frames, in which clips of 4 have 7 places."""

    def drawn(augmentation, video, seed=0):
        starts.clear()
        one = clips(augmentation, seed=seed)
        for epoch in range(1, 401):
            assert one[ClipKey(epoch, video)].video == video
        return sorted(set(starts))

    one_piece = [drawn(Augmentation(pieces=1, piece_seconds=0.4), video) for video in range(3)]
    for found in one_piece:
        assert found == list(range(found[0], found[0] + 7))
        assert found[0] + 10 <= 40
    assert len({found[0] for found in one_piece}) > 1  # other pieces in other videos
    assert drawn(Augmentation(pieces=1, piece_seconds=0.4), 0) == one_piece[0]  # and the same in every run
    assert drawn(Augmentation(pieces=1, piece_seconds=0.4), 0, seed=1) != one_piece[0]
    several = drawn(Augmentation(pieces=3, piece_seconds=0.4), 0)
    assert 7 < len(several) <= 21
    assert drawn(Augmentation(pieces=2, piece_seconds=1.6), 0) == list(range(37))  # not longer than a piece
    tight = drawn(Augmentation(pieces=1, piece_seconds=0.08), 0)  # two frames are less than a clip
    assert len(tight) == 1
    assert 0 <= tight[0] <= 36


@pytest.mark.parametrize("wrong", [{"pieces": 0}, {"piece_seconds": 0.0}, {"piece_seconds": float("nan")}])
def test_pieces_out_of_range(wrong):
    with pytest.raises(Pseudo3dError, match=r"--augment\.piece\S+ must be a"):
        Augmentation(**wrong)


# --- Labels -----------------------------------------------------------------------------------------------------------


def test_several_labels_share_the_target_evenly(clips):
    one = clips()
    assert one.samples.class_names == ("down", "far", "up")
    targets = [one[ClipKey(1, i)].target for i in range(3)]
    np.testing.assert_allclose(targets, [[0, 0, 1], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    assert {target.dtype for target in targets} == {np.dtype(np.float32)}


def test_label_sets():
    samples = SampleList(None, (Sample("a", "10"), Sample("b", "9"), Sample("c", "10")))
    assert label_sets(samples).tolist() == [[False, True], [True, False], [False, True]]
    several = SampleList(None, (Sample("a", "x"), Sample("b", "z", more_labels=("x", "y"))))
    assert several.class_names == ("x", "y", "z")
    assert label_sets(several).tolist() == [[True, False, False], [True, True, True]]
    for unknown in (Sample("b"), Sample("b", "y"), Sample("b", "x", more_labels=("y",))):
        with pytest.raises(ValueError, match=r"b has no label among \('x',\)"):
            label_sets(SampleList(None, (Sample("a", "x"), unknown), ("x",)))


# --- Bad videos -------------------------------------------------------------------------------------------------------


def test_a_bad_video_is_replaced_by_its_first_good_spare(clips, samples):
    broken = clips(ALL, "broken.mp4", "gone.mp4")  # places 3 and 4
    clip = broken[ClipKey(2, 3, (4, 1, 0))]
    assert clip.video == 1
    assert clip.target.tolist() == [1, 0, 0]
    assert np.array_equal(clip.frames, clips()[ClipKey(2, 1)].frames)
    assert [video for video, _ in clip.bad] == [3, 4]
    assert clip.bad[0][1].startswith(str(samples.root / "broken.mp4"))
    assert "gone.mp4: there is no such file" in clip.bad[1][1]
    assert not any("\n" in reason for _, reason in clip.bad)
    assert clips()[ClipKey(2, 1, (0,))].bad == ()


def test_when_all_are_bad_the_first_reason_is_told(clips):
    broken = clips(ALL, "broken.mp4", "gone.mp4")
    error = broken[ClipKey(1, 4, (3,))]
    assert isinstance(error, VideoError)
    assert "gone.mp4: there is no such file" in str(error)
    sampler = StepSampler(1, 1, seed=0)
    sampler.stop = 1
    only = clips(ALL, "broken.mp4")
    only.samples = SampleList(only.samples.root, only.samples.samples[3:], only.samples.class_names)
    with pytest.raises(VideoError, match=r"broken\.mp4: ") as raised:
        list(load(make_loader(only, sampler, workers=0)))
    assert "\n" not in str(raised.value)


def test_clips_of_a_damaged_file_are_those_that_can_be_decoded(tmp_path, cache):
    path = damaged(tmp_path)
    net = Preprocessing(num_frames=4, resize=(64, 96), crop=(64, 96))
    whole = read_video(path).frames
    videos = SampleList(tmp_path, (Sample("broken.mp4", "x"),))
    one = TrainingClips(videos, net, Augmentation(), seed=0, index=IndexCache(cache))
    for epoch in range(1, 13):
        clip = one[ClipKey(epoch, 0)]
        assert clip.bad == ()
        assert any(np.array_equal(whole[start : start + 4], clip.frames) for start in range(len(whole) - 3))


def test_too_many_bad_videos_end_the_run(samples):
    bad = {0: "a.mkv: is empty", 2: "c.mkv: is damaged"}
    check_bad(bad, samples, 0.67)
    check_bad({}, samples, 0.0)
    with pytest.raises(Pseudo3dError) as raised:
        check_bad(bad, samples, 0.66)
    assert str(raised.value) == (
        "2 of 3 training videos cannot be used, more than --max-bad 0.66 allows: mend them, or take them out "
        "(a.mkv: is empty, c.mkv: is damaged)"
    )


# --- Batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_its_clips(clips):
    videos = clips(ALL, "broken.mp4")
    sampler = steps_of(StepSampler(4, 3, seed=0), 1, 5)
    for step, batch in zip(range(1, 5), load(make_loader(videos, sampler, workers=0)), strict=True):
        items = [videos[key] for key in sampler.keys(step)]
        assert batch.frames.dtype == torch.uint8
        assert np.array_equal(batch.frames, np.stack([item.frames for item in items]))
        assert np.array_equal(batch.targets, np.stack([item.target for item in items]))
        assert batch.counted.tolist() == [True] * len(items)
        assert batch.windows == [item.window for item in items]
        assert batch.videos == [item.video for item in items]
        assert batch.bad == [bad for item in items for bad in item.bad]
    assert batch.frames.is_contiguous()


def test_a_stand_in_does_not_count(clips):
    sampler = steps_of(StepSampler(3, 1, seed=0, rank=1, world_size=2), 0, 1)
    (batch,) = load(make_loader(clips(), sampler, workers=0))
    assert batch.counted.tolist() == [False]
    assert batch.counted.dtype == torch.bool
    assert batch.videos == [sampler.keys(0)[0].video]


def test_no_steps_need_no_workers(clips):
    assert list(load(make_loader(clips(), StepSampler(3, 1, seed=0), workers=2))) == []


def test_the_processes_share_a_batch(clips):
    """Two processes' batches are the one that a single process has, clip by clip."""

    def batches(rank, world_size):
        sampler = StepSampler(3, 3, seed=0, rank=rank, world_size=world_size)
        return list(load(make_loader(clips(), steps_of(sampler, 0, 3), workers=0)))

    for whole, first, second in zip(batches(0, 1), batches(0, 2), batches(1, 2), strict=True):
        assert torch.equal(whole.frames[0::2], first.frames)
        assert torch.equal(whole.frames[1::2], second.frames)
        assert whole.windows == [first.windows[0], second.windows[0], first.windows[1]]
