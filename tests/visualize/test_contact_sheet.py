"""Contact sheets: what is drawn where, in which shape, and what stands in for a video that cannot be shown."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videos import flat, write_video

from pseudo3d import Pseudo3dError
from pseudo3d.visualize import contact_sheet
from pseudo3d.visualize.contact_sheet import Section, Tile, clock, save_contact_sheet

RED, GREEN, BLUE = (220, 20, 20), (20, 200, 20), (20, 20, 230)
MARGIN, TILE, BOX, HEAD = 24, 256, (240, 180), 44  # as they lie on a sheet


def video(path, colours, height=60, width=80):
    return write_video(path, [flat(colour, height, width) for colour in colours])


def drawn(sections, path):
    failed = save_contact_sheet(sections, path)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int), failed


def box(sheet, column, top=MARGIN):
    return sheet[top : top + BOX[1], MARGIN + column * TILE : MARGIN + column * TILE + BOX[0]]


def near(pixels, colour):
    return np.abs(pixels - colour).max(axis=-1) < 12


def test_each_frame_is_in_its_place(tmp_path):
    colours = (RED, GREEN, BLUE)
    path = video(tmp_path / "a.mkv", colours)
    tiles = [Tile(path, "a.mkv", frame) for frame in (2, 0, 1, 2, 0, 1)]
    sheet, failed = drawn([Section("", tiles)], tmp_path / "new" / "sheet.png")
    assert failed == 0
    for i, tile in enumerate(tiles):
        top = MARGIN + i // 5 * (sheet.shape[0] - 2 * MARGIN + 16) // 2
        assert near(box(sheet, i % 5, top), colours[tile.frame]).all(), i
    assert (box(sheet, 1, sheet.shape[0] - MARGIN - BOX[1]) == 255).all()  # the second row has one tile


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(40, 160, 60, 240), (160, 40, 180, 45)])
def test_frames_keep_their_shape(tmp_path, height, width, rows, columns):
    path = video(tmp_path / "a.mkv", [GREEN], height, width)
    sheet, _ = drawn([Section("", [Tile(path, "a.mkv")])], tmp_path / "sheet.png")
    green = near(box(sheet, 0), GREEN)
    assert green.any(axis=1).sum() == pytest.approx(rows, abs=1)
    assert green.any(axis=0).sum() == pytest.approx(columns, abs=1)
    middle = np.argwhere(green).mean(axis=0)
    assert middle == pytest.approx((BOX[1] / 2, BOX[0] / 2), abs=1)


@pytest.fixture
def written(monkeypatch):
    """What was written on the sheet, in order."""
    words = []
    inner = contact_sheet.shortened

    def spy(text, width, font):
        short = inner(text, width, font)
        assert font.getlength(short) <= width
        words.append(short)
        return short

    monkeypatch.setattr(contact_sheet, "shortened", spy)
    return words


def test_title_path_time_and_score(tmp_path, written):
    path = video(tmp_path / "a.mkv", [RED])
    long = "a/very/long/way/through/many/folders/to/the/video/fi001.mp4"
    tiles = [Tile(path, "b/a.mkv", 0, 65.04, 0.98765, "fight"), Tile(path, long, 0), Tile(path, "c", 0, score=-0.1)]
    sheet, _ = drawn([Section("most like it", tiles), Section("", tiles[:1])], tmp_path / "sheet.png")
    assert written[:3] == ["most like it", "b/a.mkv", "1:05.0   0.9877   fight"]
    assert written[3].startswith("a/very/long")
    assert written[3].endswith("fi001.mp4")
    assert "…" in written[3]
    assert written[4:] == ["", "c", "-0.1000", "b/a.mkv", "1:05.0   0.9877   fight"]
    assert near(box(sheet, 0, MARGIN + HEAD), RED).all()
    name = sheet[MARGIN + HEAD + BOX[1] + 4 :][:14, MARGIN : MARGIN + BOX[0]]
    assert (name < 100).any()  # dark letters below the frame


def test_what_cannot_be_shown_is_grey_with_the_reason(tmp_path, written):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    short = video(tmp_path / "short.mkv", [RED, RED])
    tiles = [Tile(tmp_path / "gone.mp4", "gone.mp4"), Tile(broken, "broken.mp4"), Tile(short, "short.mkv", 7)]
    sheet, failed = drawn([Section("", tiles)], tmp_path / "sheet.png")
    assert failed == 3
    for column in range(3):
        grey = near(box(sheet, column), (184, 184, 184))
        assert 0.8 < grey.mean() < 1
    said = " ".join(written)
    assert "there is no such file" in said
    assert "has no frame 7: it has 2 frames" in said
    assert str(tmp_path) not in said


def test_letters_that_obey_no_one(tmp_path, written):
    save_contact_sheet([Section("a\x1b[31m\n", [Tile(tmp_path / "x", "y\r\nz")])], tmp_path / "s.png")
    assert written[0] == "a�[31m�"
    assert "y��z" in written


def test_the_font_is_matplotlibs():
    import matplotlib as mpl

    for bold in (False, True):
        assert Path(contact_sheet.sheet_font(13, bold).path).is_relative_to(mpl.get_data_path())


@pytest.mark.parametrize(
    ("tiles", "name", "words"),
    [
        (0, "a.png", "a contact sheet shows 1 to 600 videos, got 0"),
        (601, "a.png", "a contact sheet shows 1 to 600 videos, got 601"),
        (1, "a.jpg", "a.jpg: contact sheets are PNG files; give a name that ends in .png"),
    ],
)
def test_sheets_that_are_not_made(tiles, name, words, tmp_path):
    with pytest.raises(Pseudo3dError, match=words):
        save_contact_sheet([Section("", [Tile(Path("x"), "x")] * tiles)], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seconds", [0, 59.94, 59.96, 3599.96, 7322.5])
def test_clock_counts_as_a_clock_does(seconds):
    parts = clock(seconds).split(":")
    assert sum(float(part) * 60**i for i, part in enumerate(reversed(parts))) == pytest.approx(seconds, abs=0.051)
    assert all(float(part) < 60 for part in parts[1:])


@pytest.mark.parametrize("name", ["test.mp4", "video_90.mov", "var_fps_video.mp4"])
def test_real_videos(real_data, tmp_path, name):
    path = real_data / "odd" / name
    sheet, failed = drawn([Section("", [Tile(path, name, 1)])], tmp_path / "sheet.png")
    assert failed == 0
    assert box(sheet, 0).std() > 20
