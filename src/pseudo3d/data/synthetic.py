"""Moving handwritten digits whose class is the motion: a small real-video set in which no single frame tells the class.

The state of a frame is four numbers, each on a circle of length one turn: the place (x, y) on a torus (a digit that
leaves on the left comes back on the right), the angle, and the logarithm of the scale (past the largest comes the
smallest). A video starts at a state drawn uniformly, whatever its class, and the class moves one of the four at
constant speed, forwards or backwards. Adding a shift to a uniform point of a circle gives a uniform point again, for
every shift, and so **at every frame the state is uniform in all four, independently of the speed and of the class**.
Digit, colours and background have one distribution too, and every frame of a file is coded without its neighbours, so
that coding noise tells no motion either. One frame therefore says nothing about the class; two say almost all.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import cast

import av
import numpy as np
from jaxtyping import Float64, UInt8
from scipy import ndimage

from pseudo3d.errors import Pseudo3dError

# Which of (x, y, angle, log-scale) a class moves, and in which direction. y points down, angles go counter-clockwise.
_STEPS = {
    "down": (1, +1),
    "grow": (3, +1),
    "left": (0, -1),
    "right": (0, +1),
    "rotate_left": (2, +1),
    "rotate_right": (2, -1),
    "shrink": (3, -1),
    "up": (1, -1),
}
MOTIONS = tuple(_STEPS)  # in alphabetical order
# Slowest and fastest turns a frame of x, y, angle and log-scale: of 64 pixels, 1.9 to 3.8; of a circle, 9 to 18
# degrees; of the size, 1.2 to 2.4 %, so that most clips of 16 frames hold no jump from the largest to the smallest.
SPEEDS = ((0.03, 0.06), (0.03, 0.06), (0.025, 0.05), (0.012, 0.024))
SCALES = (0.26, 0.70)  # side of the 8x8 digit in parts of the frame; at 0.7 its corners just meet their own images
# Light on dark: a network trained for two minutes on a few hundred videos has no time to learn both polarities as well.
_DIGIT_LEVELS = (150, 255)
_BACKGROUND_LEVELS = (0, 80)
_TEXTURE = 8  # largest deviation of the background from its colour, of 255
_UPSAMPLE = 4
_FORMAT = 1  # of the set; raise it when the same parameters give other videos
_DONE, _UNFINISHED = "set.json", "set.unfinished.json"
# (extension, encoder, its options): at a fixed quality, so that no frame's quality depends on the frames around it.
_CODINGS = (
    (".mp4", "libx264", {"qp": "16", "preset": "veryfast"}),
    (".avi", "mpeg4", {"flags": "+qscale", "global_quality": "236"}),  # quantiser 2, times FFmpeg's 118
)


@dataclass(frozen=True, eq=False)
class Scene:
    """What a video shows apart from its motion, all of it drawn from one distribution whatever the class.

    Args:
        start: (4,), x, y, angle and log-scale at frame 0, in turns, [0, 1).
        speed: 0..1, between the slowest and the fastest of ``SPEEDS``.
        colours: (2, 3), RGB of digit and background, 0..255, the digit lighter by at least 70 in every channel.
        waves: (4, 3), the background's texture: each row a plane wave's whole cycles in x and in y, and its phase in
            radians.
    """

    start: Float64[np.ndarray, "4"]
    speed: float
    colours: Float64[np.ndarray, "2 3"]
    waves: Float64[np.ndarray, "waves 3"]


def draw_scene(rng: np.random.Generator) -> Scene:
    """A random scene.

    Args:
        rng: where the randomness comes from.

    Returns:
        The scene.

    Example:
        >>> scene = draw_scene(np.random.default_rng(0))
        >>> scene.start.shape, scene.colours.shape
        ((4,), (2, 3))
    """
    colours = np.stack([rng.uniform(*_DIGIT_LEVELS, 3), rng.uniform(*_BACKGROUND_LEVELS, 3)])
    waves = np.column_stack([rng.integers(-2, 3, (4, 2)), rng.uniform(0, 2 * np.pi, 4)])
    return Scene(rng.uniform(0, 1, 4), rng.uniform(), colours, waves)


def trajectory(scene: Scene, motion: str, num_frames: int) -> Float64[np.ndarray, "T 4"]:
    """The state at every frame.

    Args:
        scene: start and speed.
        motion: one of ``MOTIONS``.
        num_frames: T.

    Returns:
        (T, 4), x, y, angle and log-scale in turns, [0, 1).

    Raises:
        Pseudo3dError: the motion is unknown.

    Example:
        >>> scene = Scene(np.array([0.9, 0.5, 0.0, 0.0]), 0.0, np.zeros((2, 3)), np.zeros((0, 3)))
        >>> trajectory(scene, "right", 4)[:, 0].round(2)
        array([0.9 , 0.93, 0.96, 0.99])
    """
    if motion not in _STEPS:
        raise Pseudo3dError(f"unknown motion {motion!r}: it is one of {', '.join(MOTIONS)}")
    variable, sign = _STEPS[motion]
    states = np.tile(scene.start, (num_frames, 1))
    slowest, fastest = SPEEDS[variable]
    states[:, variable] += sign * (slowest + scene.speed * (fastest - slowest)) * np.arange(num_frames)
    return states % 1.0


def render_motion(
    digit: np.ndarray, motion: str, scene: Scene, *, num_frames: int = 32, size: int = 64
) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames of one video.

    Args:
        digit: (8, 8), grey levels 0..16 as scikit-learn's ``load_digits`` has them.
        motion: one of ``MOTIONS``.
        scene: everything else.
        num_frames: T.
        size: height and width in pixels.

    Returns:
        (T, size, size, 3) RGB.

    Raises:
        Pseudo3dError: the motion is unknown.

    Example:
        >>> scene = draw_scene(np.random.default_rng(0))
        >>> render_motion(np.full((8, 8), 16.0), "left", scene, num_frames=5).shape
        (5, 64, 64, 3)
    """
    x, y, angle, scale = trajectory(scene, motion, num_frames).T[:, :, None, None]
    ramp = (np.arange(size) + 0.5) / size
    right = (ramp - x + 0.5) % 1.0 - 0.5  # from the digit's centre, the short way round the torus
    below = (ramp[:, None] - y + 0.5) % 1.0 - 0.5
    pixels = 8 * _UPSAMPLE / (SCALES[0] * (SCALES[1] / SCALES[0]) ** scale)  # of the enlarged digit, to a frame's side
    cos, sin = pixels * np.cos(2 * np.pi * angle), pixels * np.sin(2 * np.pi * angle)
    # A cubic spline makes the 8x8 image smooth once; the frames then need only linear interpolation.
    ink = ndimage.zoom(np.pad(digit / 16.0, 1), _UPSAMPLE, order=3, mode="grid-constant", grid_mode=True)
    middle = (len(ink) - 1) / 2
    alpha = ndimage.map_coordinates(
        np.clip(1.25 * ink, 0, 1), [right * sin + below * cos + middle, right * cos - below * sin + middle], order=1
    )
    colour, background = scene.colours
    cycles_x, cycles_y, phase = scene.waves.T[:, :, None, None]
    texture = np.cos(2 * np.pi * (cycles_x * ramp + cycles_y * ramp[:, None]) + phase).sum(0)
    canvas = background + texture[..., None] * (_TEXTURE / max(len(scene.waves), 1))
    frames = canvas + alpha[..., None] * (colour - canvas)
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8)


def write_moving_digits(
    folder: str | Path,
    *,
    train_per_class: int = 100,
    test_per_class: int = 20,
    num_frames: int = 32,
    size: int = 64,
    fps: int = 16,
    seed: int = 0,
) -> Path:
    """Write the set as ``train/left/digit0123.mp4`` and so on; 0123 is the place in scikit-learn's ``load_digits``.

    Every source digit is shown in every class, each time in another scene; the digits of test are other images than
    those of train. Every other source digit is H.264 (.mp4), the rest MPEG-4 part 2 (.avi). The same arguments give
    the same files. A set that was written before with the same arguments is kept, one that was cut off is finished.

    Args:
        folder: where to; made if it is not there.
        train_per_class: videos of each class to train on.
        test_per_class: videos of each class to test on.
        num_frames: frames of each video.
        size: height and width in pixels, even.
        fps: frames a second.
        seed: of the choice of digits and of the scenes.

    Returns:
        The folder.

    Raises:
        Pseudo3dError: an argument is out of range, the folder holds something else or a set with other arguments, the
            encoder is missing, or a file cannot be written (the disk is full): no half file has its final name then.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as tmp:
        ...     folder = write_moving_digits(tmp, train_per_class=1, test_per_class=1, num_frames=2, size=16)
        ...     sorted(path.name for path in folder.iterdir()), len(list(folder.glob("*/*/digit*")))
        (['set.json', 'test', 'train'], 16)
    """
    counts = {"train": train_per_class, "test": test_per_class}
    _check_arguments(counts, num_frames, size, fps)
    folder = Path(folder)
    parameters = {"format": _FORMAT, **counts, "num_frames": num_frames, "size": size, "fps": fps, "seed": seed}
    if _is_finished(folder, parameters):
        return folder
    text = json.dumps(parameters, indent=2) + "\n"
    _write_file(folder / _UNFINISHED, text.encode())
    for split, index, digit in _choose_digits(counts, seed):
        extension, codec, options = _CODINGS[index % 2]
        for number, motion in enumerate(MOTIONS):
            # A seed for each video: a scene depends neither on the other videos nor on how many there are.
            scene = draw_scene(np.random.default_rng([seed, split == "test", index, number]))
            path = folder / split / motion / f"digit{digit:04d}{extension}"
            frames = render_motion(_digits()[digit], motion, scene, num_frames=num_frames, size=size)
            _write_file(path, _encode(frames, extension, codec, options, fps))
    (folder / _UNFINISHED).replace(folder / _DONE)
    return folder


def _check_arguments(counts: dict[str, int], num_frames: int, size: int, fps: int) -> None:
    available = len(_digits())
    if min(counts.values()) < 1 or sum(counts.values()) > available:
        raise Pseudo3dError(
            f"train_per_class and test_per_class must be at least 1 and together at most {available}, the digits there "
            f"are, got {counts['train']} and {counts['test']}"
        )
    if num_frames < 2 or fps < 1:
        raise Pseudo3dError(f"num_frames must be at least 2 and fps at least 1, got {num_frames} and {fps}")
    if size < 16 or size % 2:
        raise Pseudo3dError(f"size must be even and at least 16, got {size}")
    for _, encoder, _ in _CODINGS:
        if encoder not in av.codecs_available:
            raise Pseudo3dError(
                f"this PyAV has no {encoder} encoder: install the wheel from PyPI (pip install --force-reinstall av)"
            )


def _is_finished(folder: Path, parameters: dict[str, int]) -> bool:
    """Whether the same set is there already; refuses a folder that holds anything else."""
    if folder.exists() and not folder.is_dir():
        raise Pseudo3dError(f"{folder} is a file: give a folder to write the videos into")
    for name in (_DONE, _UNFINISHED):
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise Pseudo3dError(f"{folder / name} is damaged: remove {folder} or give another folder") from error
        if found != parameters:
            raise Pseudo3dError(
                f"{folder} holds a set with other parameters ({found}, wanted {parameters}): remove it or give another "
                "folder"
            )
        return name == _DONE
    if folder.exists() and any(folder.iterdir()):
        raise Pseudo3dError(f"{folder} is not empty and holds no moving digits: give an empty or a new folder")
    return False


@cache
def _digits() -> np.ndarray:
    from sklearn.datasets import load_digits  # takes a second to import

    return np.asarray(load_digits().images)


def _choose_digits(counts: dict[str, int], seed: int) -> Iterator[tuple[str, int, int]]:
    """(split, number within the split, place in ``load_digits``), the ten digits as equally often as they can be."""
    from sklearn.datasets import load_digits

    target = load_digits().target
    order = np.random.default_rng(seed).permutation(len(target))
    seen = np.array([(target[order[:place]] == target[order[place]]).sum() for place in range(len(order))])
    order = order[np.argsort(seen, kind="stable")]  # every digit's first image, then every digit's second
    for index in range(counts["train"]):
        yield "train", index, int(order[index])
    for index in range(counts["test"]):
        yield "test", index, int(order[counts["train"] + index])


def _encode(frames: np.ndarray, extension: str, codec: str, options: dict[str, str], fps: int) -> bytes:
    """The bytes of a video file. Every frame is a key frame: a decoded frame depends on nothing but itself."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=extension[1:]) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=fps, options=options))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 1
        stream.codec_context.thread_count = 1  # with more, the bytes need not be the same each time
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _write_file(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename, so that the final name never stands for half a file."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Pseudo3dError(f"cannot write {path}: {error.strerror}; what is written so far stays") from error
