import subprocess
import sys

import numpy as np
import pytest
from videos import gradient, numbered, write_video

from pseudo3d import Preprocessing, Pseudo3dError, VideoError, read_video, sample_clips
from pseudo3d.video.clips import get_sampler, load_clips
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


def test_errors(video, tmp_path):
    with pytest.raises(Pseudo3dError, match="no sampler 'random'; there are uniform, authors, sliding"):
        get_sampler("random")
    with pytest.raises(Pseudo3dError, match="clips must be at least 1, got 0"):
        load_clips(video, SMALL, clips=0)
    (tmp_path / "not.mp4").write_bytes(b"text")
    with pytest.raises(VideoError, match=r"not\.mp4"):
        load_clips(tmp_path / "not.mp4", SMALL)


def test_decoder_processes_stay_without_torch():
    code = "import sys, pseudo3d.video.clips; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
