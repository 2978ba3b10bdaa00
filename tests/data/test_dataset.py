import numpy as np
import pytest
from torch.utils.data import DataLoader
from videos import numbered, numbers, write_video

from pseudo3d import Preprocessing, VideoError
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.dataset import Augmentation, EpochSampler, TrainingClips, label_indices

NET = Preprocessing(num_frames=4, resize=(40, 56), crop=(24, 32))
ALL = Augmentation(flip=True)


def picture(i):
    """A frame without symmetry, in which every pixel's place can be read and which differs between frames."""
    rows, columns = np.mgrid[:40, :56]
    return np.stack([rows * 5, columns * 4, np.full_like(rows, 6 * i)], axis=2).astype(np.uint8)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    for name in ("a.mkv", "b.mkv", "c.mkv"):
        write_video(folder / name, [picture(i) for i in range(40)], codec="ffv1", pix_fmt="bgr0")
    (folder / "broken.mkv").write_bytes(b"no video")
    return SampleList(
        folder, (Sample("a.mkv", "up"), Sample("b.mkv", "down"), Sample("c.mkv", "up"), Sample("broken.mkv", "down"))
    )


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


def test_one_window_and_one_mirror_image_for_all_frames(samples):
    clips = TrainingClips(samples, NET, ALL, seed=0)
    drawn = [clips[epoch, i] for epoch in range(40) for i in range(3)]
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


def test_plain_clips_are_centre_crops(samples):
    clips = TrainingClips(samples, NET, Augmentation(random_crop=False), seed=0)
    for epoch in range(5):
        assert windows(clips[epoch, 1][0])[1:] == (8, 12, False)


def test_draws_depend_on_seed_epoch_and_place_alone(samples):
    def draw(seed, epoch, i):
        return TrainingClips(samples, NET, ALL, seed=seed)[epoch, i][0]

    clips = TrainingClips(samples, NET, ALL, seed=5)
    for epoch, i in [(3, 2), (0, 0), (3, 2), (1, 0)]:  # in any order, and again
        assert np.array_equal(clips[epoch, i][0], draw(5, epoch, i))
    assert windows(draw(5, 3, 2)) != windows(draw(6, 3, 2))
    assert windows(draw(5, 3, 2)) != windows(draw(5, 4, 2))
    assert windows(draw(5, 3, 2)) != windows(draw(5, 3, 0))  # the files are alike, the draws are not


def test_labels_and_memory(samples):
    frames, label, _ = TrainingClips(samples, NET, ALL, seed=0)[0, 1]
    assert label == samples.class_names.index("down")
    assert frames.dtype == np.uint8
    assert frames.flags.c_contiguous


def test_a_short_video_is_looped(tmp_path):
    write_video(tmp_path / "a.mkv", numbered(3, 40, 56))
    samples = SampleList(tmp_path, (Sample("a.mkv", "x"),))
    net = Preprocessing(num_frames=8, resize=(40, 56), crop=(40, 56))
    frames, _, _ = TrainingClips(samples, net, Augmentation(), seed=0)[0, 0]
    assert numbers(frames) == [0, 1, 2, 0, 1, 2, 0, 1]


def test_a_broken_video_is_returned_as_its_error(samples):
    item = TrainingClips(samples, NET, ALL, seed=0)[0, 3]
    assert isinstance(item, VideoError)
    assert str(item).startswith(str(samples.root / "broken.mkv"))
    assert "\n" not in str(item)


def test_epoch_sampler():
    sampler = EpochSampler(50, seed=1)
    assert len(sampler) == 50
    first = list(sampler)
    assert first == list(sampler)
    assert sorted(first) == [(0, i) for i in range(50)]
    sampler.epoch = 1
    second = list(sampler)
    assert sorted(second) == [(1, i) for i in range(50)]
    assert [i for _, i in first] != [i for _, i in second]
    other = EpochSampler(50, seed=2)
    assert list(other) != first


def test_spawned_workers_give_the_same_items(samples):
    clips = TrainingClips(samples, NET, ALL, seed=0)

    def items(workers):
        loader = DataLoader(
            clips,
            2,
            sampler=EpochSampler(4, 0),
            num_workers=workers,
            collate_fn=list,
            multiprocessing_context="spawn" if workers else None,
        )
        return [item for batch in loader for item in batch]

    for alone, spawned in zip(items(0), items(1), strict=True):
        if isinstance(alone, VideoError):
            assert isinstance(spawned, VideoError)
            assert str(alone) == str(spawned)
        else:
            assert alone[1:] == spawned[1:]
            assert np.array_equal(alone.frames, spawned.frames)


def test_label_indices():
    samples = SampleList(None, (Sample("a", "10"), Sample("b", "9"), Sample("c", "10")))
    assert label_indices(samples).tolist() == [1, 0, 1]
    assert label_indices(samples).dtype == np.int64
    with pytest.raises(ValueError, match=r"b has no label among \('x',\)"):
        label_indices(SampleList(None, (Sample("a", "x"), Sample("b"))))
