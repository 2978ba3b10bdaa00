"""The clips and thumbnails beside the page, and the processes that make them."""

import io
import json
import os

import av
import numpy as np
import pytest
from PIL import Image
from report_runs import write_videos
from videos import flat, write_video

from pseudo3d import VideoError
from pseudo3d.visualize.report import maps, previews, sidecar
from pseudo3d.visualize.report.previews import make, make_clip
from pseudo3d.visualize.report.sidecar import make_previews, preview_key


def test_a_clip_that_browsers_play(tmp_path):
    path = write_video(
        tmp_path / "v.avi", [flat((200, 30, 30), 240, 320)] * 60, codec="mpeg4", pix_fmt="yuv420p", fps=30
    )
    make([str(path)], tmp_path / "v.jpg", tmp_path / "v.mp4")
    data = (tmp_path / "v.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # faststart
    with av.open(str(tmp_path / "v.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (214, 160)
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(frames) == 30  # 2 s at 15 frames/s
    assert np.abs(frames[15].mean(axis=(0, 1)) - (200, 30, 30)).max() < 8
    with Image.open(tmp_path / "v.jpg") as picture:
        assert picture.size == (160, 120)


def seconds_of(frame, levels):
    return int(np.abs(np.array(levels) - frame[..., 0].mean()).argmin())


@pytest.mark.parametrize(("name", "codec"), [("v.avi", "mpeg4"), ("v.mp4", "libx264"), ("v.mkv", "ffv1")])
def test_a_segment_shows_that_part_only(tmp_path, name, codec):
    levels = [20 * second for second in range(12)]
    frames = [flat((levels[i // 10],) * 3, 32, 32) for i in range(120)]
    pixels = "yuv444p" if codec == "ffv1" else "yuv420p"
    path = write_video(tmp_path / name, frames, codec=codec, pix_fmt=pixels, fps=10)
    picture = make_clip(f"{path}#t=5,8", tmp_path / "c.mp4")
    assert seconds_of(picture, levels) == 6
    with av.open(str(tmp_path / "c.mp4")) as file:
        shown = [seconds_of(frame.to_ndarray(format="rgb24"), levels) for frame in file.decode(video=0)]
    assert shown == [5] * 10 + [6] * 10 + [7] * 10
    make([f"{path}#t=5,8"], tmp_path / "c.jpg", None)
    with Image.open(tmp_path / "c.jpg") as small:
        assert seconds_of(np.asarray(small), levels) in (6, 7)
    with pytest.raises(VideoError, match="no frame in this segment"):
        make_clip(f"{path}#t=50,60", tmp_path / "d.mp4")
    make_clip(str(path), tmp_path / "all.mp4")
    with av.open(str(tmp_path / "all.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) == 100  # 10 s of 12


def test_a_changed_video_gets_a_new_preview(tmp_path):
    path = write_video(tmp_path / "v.avi", [flat((9, 9, 9))] * 3, codec="mpeg4", pix_fmt="yuv420p")
    before = preview_key("v.avi", [str(path)])
    assert preview_key("v.avi", [str(path)]) == before
    os.utime(path, (1, 1))
    assert preview_key("v.avi", [str(path)]) != before
    assert preview_key("v.avi#t=1,2", [f"{path}#t=1,2"]) != preview_key("v.avi#t=2,3", [f"{path}#t=2,3"])


def test_two_videos_side_by_side(tmp_path):
    """In time with each other, as high as the lower one; the shorter one stays at its end."""
    levels = [20, 70, 120, 170, 220]
    paths = []
    for name, size, seconds, fps in (("a.avi", (48, 64), 5, 10), ("b.avi", (96, 64), 2, 30)):
        frames = [flat((levels[i // fps],) * 3, *size) for i in range(seconds * fps)]
        paths.append(str(write_video(tmp_path / name, frames, codec="mpeg4", pix_fmt="yuv420p", fps=fps)))
    make(paths, tmp_path / "p.jpg", tmp_path / "p.mp4")
    with av.open(str(tmp_path / "p.mp4")) as file:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]
    assert frames[0][1].shape == (48, 64 + 4 + 32, 3)
    assert frames[-1][0] == pytest.approx(4.9, abs=0.07)
    for time, frame in frames:
        if 0.1 < time % 1 < 0.9:  # not at a change
            left, right = seconds_of(frame[:, :60], levels), seconds_of(frame[:, 72:], levels)
            assert (left, right) == (int(time), min(1, int(time)))
    make(paths, tmp_path / "q.jpg", None)
    with Image.open(tmp_path / "q.jpg") as picture:
        assert picture.size == (100, 48)
    (tmp_path / "b.avi").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"b\.avi: is not a video"):
        make(paths, tmp_path / "r.jpg", tmp_path / "r.mp4")
    assert not (tmp_path / "r.jpg").exists()


def test_a_decoder_that_dies_costs_its_video(tmp_path, monkeypatch):
    """The process answers the first job and ends without a word at the second."""
    (tmp_path / "dying.py").write_text(
        "import json, sys\nfrom pathlib import Path\n"
        "for i, line in enumerate(sys.stdin):\n"
        "    if i: sys.exit(7)\n"
        "    Path(json.loads(line)[1]).write_bytes(b'jpg\\xff\\xd9')\n    print('\"\"', flush=True)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sidecar, "_WORKER", "dying")
    videos = []
    for name in "abc":
        (tmp_path / name).write_text("x")
        videos.append((name, [str(tmp_path / name)], False))
    done = make_previews(tmp_path / "clips", videos, workers=1)
    assert [each.reason for each in done] == ["", "its decoder ended without an answer (exit code 7)", ""]
    assert done[0].picture.read_bytes() == b"jpg\xff\xd9"


def test_a_preview_that_cannot_be_written_is_told_so(tmp_path, monkeypatch, capsys):
    """A full disk is not a decoder that crashes."""
    write_videos(tmp_path, ["a.avi"])
    (tmp_path / "clip.mp4").mkdir()
    job = json.dumps([[str(tmp_path / "a.avi")], str(tmp_path / "a.jpg"), str(tmp_path / "clip.mp4")])
    monkeypatch.setattr("sys.stdin", io.StringIO(job + "\n"))
    previews.main()
    assert json.loads(capsys.readouterr().out).startswith("its preview could not be written: ")


def test_previews_that_were_cut_off_are_made_anew(tmp_path):
    write_videos(tmp_path, ["a.avi"])
    jobs = [("a.avi", [str(tmp_path / "a.avi")], True)]
    (made,) = make_previews(tmp_path / "clips", jobs, workers=1)
    picture, clip = made.picture, tmp_path / "clips" / made.clip
    whole = picture.read_bytes(), clip.read_bytes()
    for pieces in ((b"", whole[1]), (whole[0][:-40], whole[1]), (whole[0], b"")):
        picture.write_bytes(pieces[0])
        clip.write_bytes(pieces[1])
        assert make_previews(tmp_path / "clips", jobs, workers=1) == [made]
        assert (picture.read_bytes(), clip.read_bytes()) == whole


def test_a_map_that_was_cut_off_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "tsne", lambda features: features[:, :2])
    features = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    points = maps._cached(features, tmp_path)
    (file,) = tmp_path.iterdir()
    for damaged in (b"", file.read_bytes()[:60], file.read_bytes()[:-8]):
        file.write_bytes(damaged)
        assert np.array_equal(maps._cached(features, tmp_path), points)
