"""Contact sheets: many videos in one picture, each with a frame, its path, a time and a score."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from pseudo3d import files
from pseudo3d.cpus import available_cpus
from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.video.decode import read_video

MOST_TILES = 600
"""On one sheet: it is then about 120 rows high."""

_COLUMNS = 5
_BOX = (240, 180)  # of a frame, pixels: wide and tall videos fit into it with their own shape
_GAP, _MARGIN = 16, 24
_TEXT, _TITLE = 13, 20  # pixels
_LINE = 17
_TILE = (_BOX[0] + _GAP, _BOX[1] + 2 * _LINE + _GAP + 4)
_HEAD = 44  # height of a section's title
_PAPER, _INK, _GREY, _FRAME, _FAILED = "white", "#202020", "#606060", "#f0f0f0", "#b8b8b8"


@dataclass(frozen=True)
class Tile:
    """One video of a sheet.

    Args:
        file: where it is.
        name: what is written beneath: its path as the store has it; shortened in the middle when it is too long.
        frame: number of the frame that is shown; the file is decoded from its start up to there.
        time: seconds of that frame, or None.
        score: what it was found by, or None.
        note: more to say, behind time and score.
    """

    file: Path
    name: str
    frame: int = 0
    time: float | None = None
    score: float | None = None
    note: str = ""

    @property
    def facts(self) -> str:
        """The line below the name."""
        parts = [] if self.time is None else [clock(self.time)]
        parts += [] if self.score is None else [f"{self.score:.4f}"]
        return "   ".join([*parts, *([self.note] if self.note else [])])


@dataclass(frozen=True)
class Section:
    """Videos that belong together, below a title.

    Args:
        title: one line; "" for none.
        tiles: in reading order.
    """

    title: str
    tiles: Sequence[Tile]


def clock(seconds: float) -> str:
    """A time in a video as a person reads it.

    Example:
        >>> clock(3.24), clock(75), clock(3671.5)
        ('0:03.2', '1:15.0', '1:01:11.5')
    """
    tenths = round(abs(seconds) * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest // 10:02d}.{rest % 10}"
    text = f"{hours}:{minutes:02d}:{text}" if hours else f"{minutes}:{text}"
    return f"-{text}" if seconds < 0 and tenths else text


def save_contact_sheet(sections: Sequence[Section], path: str | Path) -> int:
    """Write a PNG with a frame of each video.

    Frames keep their shape. A video that is gone or cannot be decoded is a grey tile with the reason.

    Args:
        sections: what is on it, at most ``MOST_TILES`` videos.
        path: the picture; its folder is made if missing.

    Returns:
        How many of the videos could not be shown.

    Raises:
        Pseudo3dError: no videos, too many, or a name that does not end in .png.
        OSError: the picture cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gone = Tile(Path("gone.mp4"), "gone.mp4", time=1.5, score=0.987)
        ...     missing = save_contact_sheet([Section("one group", [gone])], f"{folder}/sheet.png")
        ...     missing, Image.open(f"{folder}/sheet.png").width
        (1, 1312)
    """
    path = check_png(path)
    tiles = [tile for section in sections for tile in section.tiles]
    if not 0 < len(tiles) <= MOST_TILES:
        raise Pseudo3dError(f"a contact sheet shows 1 to {MOST_TILES} videos, got {len(tiles)}")
    with ThreadPoolExecutor(available_cpus()) as threads:
        pictures = iter(list(threads.map(_picture, tiles)))
    heights = [_height(section) for section in sections]
    sheet = Image.new("RGB", (2 * _MARGIN + _COLUMNS * _TILE[0] - _GAP, 2 * _MARGIN + sum(heights) - _GAP), _PAPER)
    draw, y, failed = ImageDraw.Draw(sheet), _MARGIN, 0
    for section, height in zip(sections, heights, strict=True):
        if section.title:
            _write(draw, (_MARGIN, y), section.title, _TITLE, sheet.width - 2 * _MARGIN, bold=True)
        for i, tile in enumerate(section.tiles):
            x = _MARGIN + i % _COLUMNS * _TILE[0]
            top = y + (_HEAD if section.title else 0) + i // _COLUMNS * _TILE[1]
            picture = next(pictures)
            failed += isinstance(picture, str)
            _paste(sheet, picture, (x, top))
            below = top + _BOX[1] + 4
            _write(draw, (x, below), tile.name, _TEXT, _BOX[0])
            _write(draw, (x, below + _LINE), tile.facts, _TEXT, _BOX[0], colour=_GREY)
        y += height
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        sheet.save(temporary, format="png")
    return failed


def check_png(path: str | Path) -> Path:
    """The path of a picture to be.

    Raises:
        Pseudo3dError: it does not end in .png.
    """
    if Path(path).suffix.lower() != ".png":
        raise Pseudo3dError(f"{path}: contact sheets are PNG files; give a name that ends in .png")
    return Path(path)


def _height(section: Section) -> int:
    return (_HEAD if section.title else 0) + -(-len(section.tiles) // _COLUMNS) * _TILE[1]


def _picture(tile: Tile) -> Image.Image | str:
    """The frame, as it fits into its box, or why there is none."""
    try:
        # one frame at its own size: Pillow makes it small, with smoother edges than a video scaler
        frame = read_video(tile.file, indices=[max(0, tile.frame)], threads=1).frames[0]
    except VideoError as error:
        return str(error).removeprefix(f"{tile.file}: ")
    return ImageOps.contain(Image.fromarray(frame), _BOX, Image.Resampling.LANCZOS)


def _paste(sheet: Image.Image, picture: Image.Image | str, place: tuple[int, int]) -> None:
    """A frame in the middle of its box, or a grey box with words."""
    (x, y), (width, height) = place, _BOX
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=_FAILED if isinstance(picture, str) else _FRAME)
    if not isinstance(picture, str):
        sheet.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))
        return
    for i, line in enumerate(_lines(picture, width - 20)[: (height - 20) // _LINE]):
        _write(draw, (x + 10, y + 10 + i * _LINE), line, _TEXT, width - 20)


def _lines(text: str, width: int) -> list[str]:
    """Words, as many to a line as fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and sheet_font(_TEXT).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    width: int,
    *,
    colour: str = _INK,
    bold: bool = False,
) -> None:
    font = sheet_font(size, bold)
    draw.text(place, shortened(text, width, font), fill=colour, font=font)


def shortened(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """A text that fits into so many pixels: its middle is left out, since both ends of a path tell files apart.

    Example:
        >>> shortened("fight/a_very_long_folder/fi001.mp4", 150, sheet_font(13))
        'fight/a_ve…/fi001.mp4'
    """
    text = "".join(character if character.isprintable() else "�" for character in text)
    if font.getlength(text) <= width:
        return text
    kept = len(text) - 1
    while kept > 1 and font.getlength(_without_middle(text, kept)) > width:
        kept -= 1
    return _without_middle(text, kept)


def _without_middle(text: str, kept: int) -> str:
    return f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"


@cache
def sheet_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: a sheet looks the same everywhere."""
    import matplotlib as mpl

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(mpl.get_data_path(), "fonts", "ttf", name)), size)
