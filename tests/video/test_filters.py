"""Frames to RGB by the way that is fast: the grey levels are those of the plain one."""

import numpy as np
import pytest
from av.filter import Graph
from av.video.frame import VideoFrame

from pseudo3d.video.filters import RgbConverter

FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuva420p", "nv12", "yuv420p10le", "gray", "rgb24", "pal8")
# height, width -> height, width; the limit is at a tenth
SIZES = ((66, 90, 60, 54), (66, 90, 61, 54), (67, 91, 40, 54), (48, 64, 24, 200), (48, 64, 96, 64), (48, 64, 48, 32))


def noise(pix_fmt, height, width, matrix, colour_range):
    frame = VideoFrame(width, height, pix_fmt)
    rng = np.random.default_rng(height)
    for plane in frame.planes:
        if "10le" in pix_fmt:
            levels = np.frombuffer(plane, np.uint16)
            levels[:] = rng.integers(0, 1024, len(levels))
        else:
            levels = np.frombuffer(plane, np.uint8)
            levels[:] = rng.integers(0, 256, len(levels))
    frame.colorspace, frame.color_range = matrix, colour_range
    return frame


def plain(frame, size, interpolation):
    """As the ``ffmpeg`` program does with -vf scale=...,format=rgb24."""
    graph = Graph()
    colour = {"colorspace": str(int(frame.colorspace)), "range": str(int(frame.color_range))}
    video_size = f"{frame.width}x{frame.height}"
    graph.link_nodes(
        graph.add("buffer", video_size=video_size, pix_fmt=frame.format.name, time_base="1/25", **colour),
        graph.add("scale", f"{size[1]}:{size[0]}:flags={interpolation}+accurate_rnd+full_chroma_int"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    return graph.vpull().to_ndarray()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "area", "fast_bilinear"])
@pytest.mark.parametrize("pix_fmt", FORMATS)
def test_grey_levels_are_those_of_the_plain_graph(pix_fmt, interpolation):
    for height, width, *size in SIZES:
        for matrix, colour_range in ((2, 0), (1, 2)):  # unspecified; bt709, full range
            frame = noise(pix_fmt, height, width, matrix, colour_range)
            got = RgbConverter(tuple(size), interpolation, threads=1)(frame)
            assert np.array_equal(got, plain(frame, size, interpolation))


@pytest.mark.slow
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_at_every_ratio(interpolation):
    for height in range(70, 300, 3):
        frame = noise("yuv420p", height, 64, 1, 1)
        for target in {10, 33, round(height / 1.5), *range(int(height / 1.12) - 2, int(height / 1.08))}:
            got = RgbConverter((target, 48), interpolation, threads=1)(frame)
            assert np.array_equal(got, plain(frame, (target, 48), interpolation)), (height, target)
