"""What is written is what comes back."""

import numpy as np
import pytest
from PIL import Image
from videos import write_video

from pseudo3d import Pseudo3dError, read_video
from pseudo3d.visualize.animation import is_ours, save_gif, save_mp4, save_sheet


@pytest.fixture
def frames():
    """Six frames of 33x47, each of another colour."""
    colours = np.array([(250, 10, 10), (10, 250, 10), (10, 10, 250), (240, 240, 20), (20, 20, 20), (240, 240, 240)])
    return np.broadcast_to(colours[:, None, None], (6, 33, 47, 3)).astype(np.uint8)


def test_gif(frames, tmp_path):
    with Image.open(save_gif(frames, tmp_path / "new" / "a.gif", fps=10)) as picture:
        assert (picture.n_frames, picture.info["duration"], picture.info["loop"]) == (6, 100, 0)
        for i in range(6):
            picture.seek(i)
            assert np.abs(np.array(picture.convert("RGB")).astype(int) - frames[i]).max() <= 8


def test_mp4(frames, tmp_path):
    clip = read_video(save_mp4(frames, tmp_path / "a.mp4", fps=12.5))
    assert clip.frames.shape == (6, 32, 46, 3)
    np.testing.assert_allclose(clip.timestamps, np.arange(6) / 12.5, atol=1e-6)
    assert np.abs(clip.frames.astype(int) - frames[:, :32, :46]).mean() < 6


def test_sheet(frames, tmp_path):
    sheet = np.array(Image.open(save_sheet(frames, tmp_path / "a.png", columns=4)))
    assert sheet.shape == (2 * (33 + 4) + 4, 4 * (47 + 4) + 4, 3)
    assert (sheet[4 + 37 : 4 + 37 + 33, 4 + 51 : 4 + 51 + 47] == frames[5]).all()


@pytest.mark.parametrize(("save", "suffix"), [(save_gif, ".gif"), (save_mp4, ".mp4"), (save_sheet, ".png")])
def test_ours_are_known_again(frames, tmp_path, save, suffix):
    ours = save(frames, tmp_path / f"ours{suffix}")
    assert is_ours(ours)
    other = tmp_path / f"other{suffix}"
    if suffix == ".mp4":
        write_video(other, frames[:, :32, :46], codec="libx264", pix_fmt="yuv420p")
    else:
        Image.fromarray(frames[0]).save(other)
    assert not is_ours(other)
    other.write_bytes(ours.read_bytes()[:40])
    assert not is_ours(other)


def test_nothing_to_write(frames, tmp_path):
    for save, name in ((save_gif, "a.gif"), (save_mp4, "a.mp4"), (save_sheet, "a.png")):
        with pytest.raises(Pseudo3dError, match="no frames to write"):
            save(frames[:0], tmp_path / name)
    with pytest.raises(Pseudo3dError, match="1 to 50 frames a second, got 60"):
        save_gif(frames, tmp_path / "a.gif", fps=60)
    with pytest.raises(Pseudo3dError, match="at least 2x2, got 1x47"):
        save_mp4(frames[:, :1], tmp_path / "a.mp4")
