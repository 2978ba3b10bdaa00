"""Many thumbnails as few JPEG pictures, in the page itself."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

LARGE_UP_TO = 1000
"""Videos: with more, thumbnails are smaller."""

_LARGE, _SMALL = 128 * 96, 64 * 48  # pixels of a thumbnail
_COLUMNS = {_LARGE: 8, _SMALL: 16}
_QUALITY = 70
_PAPER = (32, 36, 42)  # beside a picture that is wider or higher than the tile
_ASPECTS = (0.6, 1.8)  # of a tile: width to height


@dataclass(frozen=True)
class Sprites:
    """Thumbnails in the tiles of large pictures.

    Args:
        width: of a tile, pixels.
        height: of a tile, pixels.
        columns: tiles in a row; as many rows make a sheet.
        sheets: JPEG files in base64.
        places: the tile of each video, counted through the sheets; -1 without a picture.
    """

    width: int
    height: int
    columns: int
    sheets: tuple[str, ...]
    places: tuple[int, ...]


def make_sprites(pictures: Sequence[Path | None]) -> Sprites:
    """Put pictures into sheets; tiles have the pictures' usual shape, and others are fitted into it.

    Args:
        pictures: of each video, or None.

    Example:
        >>> make_sprites([None]).places
        (-1,)
    """
    there = [picture for picture in pictures if picture is not None]
    area = _LARGE if len(there) <= LARGE_UP_TO else _SMALL
    aspects = []
    for picture in there[:: max(1, len(there) // 500)]:
        with Image.open(picture) as image:
            aspects.append(image.width / image.height)
    aspect = float(np.clip(np.median(aspects), *_ASPECTS)) if aspects else 4 / 3
    width, height = (2 * round(side / 2) for side in ((area * aspect) ** 0.5, (area / aspect) ** 0.5))
    columns = _COLUMNS[area]
    sheets = [_sheet(there[i : i + columns**2], (width, height), columns) for i in range(0, len(there), columns**2)]
    numbers = iter(range(len(there)))
    return Sprites(
        width, height, columns, tuple(sheets), tuple(-1 if picture is None else next(numbers) for picture in pictures)
    )


def _sheet(pictures: Sequence[Path], tile: tuple[int, int], columns: int) -> str:
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * tile[0], rows * tile[1]), _PAPER)
    for i, picture in enumerate(pictures):
        with Image.open(picture) as image:
            small = ImageOps.contain(image.convert("RGB"), tile, Image.Resampling.LANCZOS)
        if max(abs(small.width - tile[0]), abs(small.height - tile[1])) <= 3:
            small = small.resize(tile)  # no thin borders
        x, y = i % columns * tile[0], i // columns * tile[1]
        sheet.paste(small, (x + (tile[0] - small.width) // 2, y + (tile[1] - small.height) // 2))
    out = io.BytesIO()
    sheet.save(out, format="jpeg", quality=_QUALITY, optimize=True)
    return base64.b64encode(out.getvalue()).decode()
