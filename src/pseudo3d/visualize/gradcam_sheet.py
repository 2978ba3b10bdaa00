"""Moments of a video with their Grad-CAM maps, in one picture that says what it shows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw

from pseudo3d.visualize.animation import save_png
from pseudo3d.visualize.contact_sheet import clock, sheet_font, shortened
from pseudo3d.visualize.gradcam import overlay

_COLUMNS = 2  # pairs of frame and map in a row
_LEAST = 160  # pixels: smaller frames are enlarged
_INK, _GREY = "#202020", "#606060"


def save_gradcam_sheet(
    frames: UInt8[np.ndarray, "T H W 3"],
    maps: Float32[np.ndarray, "T H W"],
    moments: Sequence[int],
    times: Sequence[float],
    path: str | Path,
    *,
    title: str,
    note: str = "",
) -> Path:
    """Write a PNG: a title, pairs of a frame and its map with their time, and the scale of the maps.

    Args:
        frames: RGB, of the whole video.
        maps: at least 0, of the whole video: all are on its scale.
        moments: numbers of the frames that are shown, in reading order; at least one.
        times: seconds of those.
        path: the file; its folder is made if missing.
        title: the first line: the class and its probability.
        note: a smaller line below it: the video, the layer.
    """
    chosen = np.asarray(moments)
    shown = overlay(np.concatenate([frames[chosen], frames[:1]]), _with_highest(maps, chosen))[:-1]
    factor = max(1, -(-_LEAST // frames.shape[2]))
    height, width = factor * frames.shape[1], factor * frames.shape[2]
    gap = max(10, width // 8)
    columns = min(_COLUMNS, len(chosen))
    whole = columns * 2 * width + (columns + 1) * gap
    text = max(12, round(whole / 32))  # of a picture as wide as a column of a paper, 7 points
    top, row = gap + round(3.1 * text), height + round(1.6 * text) + gap // 2
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (whole, top + rows * row + round(2.6 * text)), "white")
    draw = ImageDraw.Draw(sheet)
    font, small, bold = sheet_font(text), sheet_font(max(11, round(0.85 * text))), sheet_font(text, bold=True)
    draw.text((gap, gap // 2), shortened(title, whole - 2 * gap, bold), fill=_INK, font=bold)
    draw.text((gap, gap // 2 + 1.5 * text), shortened(note, whole - 2 * gap, small), fill=_GREY, font=small)
    for i, number in enumerate(chosen):
        left, y = gap + i % columns * (2 * width + gap), top + i // columns * row
        for j, picture in enumerate((frames[number], shown[i])):
            sheet.paste(
                Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC), (left + j * width, y)
            )
        draw.text((left, y + height + 0.15 * text), clock(times[i]), fill=_INK, font=font)
    _draw_scale(sheet, float(maps.max()), text, (gap, top + rows * row))
    return save_png(sheet, path)


def _with_highest(maps: np.ndarray, chosen: np.ndarray) -> Float32[np.ndarray, "shown H W"]:
    """The chosen maps and one as high as the highest of all, so that they are on the scale of the whole video."""
    return np.concatenate([maps[chosen], np.full_like(maps[:1], maps.max())])


def _draw_scale(sheet: Image.Image, highest: float, text: int, place: tuple[int, int]) -> None:
    """The colours from 0 to the highest value over grey, and what they mean."""
    draw, (left, top) = ImageDraw.Draw(sheet), place
    room = sheet.width - 2 * left
    font = sheet_font(max(11, round(0.85 * text)))
    if highest <= 0:
        words = "nothing speaks for the class: the maps are 0 everywhere"
        draw.text((left, top), shortened(words, room, font), fill=_INK, font=font)
        return
    shares = np.tile(np.linspace(0, 1, room, dtype=np.float32), (max(8, round(0.7 * text)), 1))
    bar = overlay(np.full((1, *shares.shape, 3), 128, np.uint8), shares[None])[0]
    sheet.paste(Image.fromarray(bar), place)
    below, most = top + len(shares) + 0.2 * text, f"{highest:.2g}, the highest"
    draw.text((left, below), "0", fill=_INK, font=font)
    draw.text((left + room - font.getlength(most), below), most, fill=_INK, font=font)
    free = room - 2 * font.getlength(most) - text
    meaning = "speaks for the class"
    if font.getlength(meaning) <= free:
        draw.text((left + (room - font.getlength(meaning)) / 2, below), meaning, fill=_INK, font=font)
