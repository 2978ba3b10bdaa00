"""Fixtures for the tests of video files."""

import pytest
from videos import X264, numbered, write_video


@pytest.fixture
def bars(tmp_path):
    """40 numbered H.264 frames with B-frames."""
    return write_video(tmp_path / "bars.mp4", numbered(40), codec="libx264", pix_fmt="yuv420p", options=X264)
