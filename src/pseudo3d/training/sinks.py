"""Where a run can be watched from elsewhere: TensorBoard's event files, Weights & Biases."""

import importlib
import os
import re
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError, printable
from pseudo3d.visualize.plots import plot_confusion

if TYPE_CHECKING:
    from pseudo3d.training.config import TrainConfig

_CONFUSION = "confusion matrix"
_FRAME_MS = 100  # of an animated clip: 16 frames take 1.6 s, slow enough to be looked at
_ID = "wandb_id.txt"


class Sink(Protocol):
    """Takes what a run tells of itself. ``step`` counts steps of the optimizer and never falls."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers by name."""

    def clip(self, step: int, name: str, frames: UInt8[np.ndarray, "T h w 3"]) -> None:
        """A clip as the network sees it (``visualize.frames.undo_preprocessing``), RGB, shown in motion."""

    def confusion(self, step: int, matrix: Int[np.ndarray, "K K"], class_names: Sequence[str]) -> None:
        """Counts by true class (rows) and predicted class (columns)."""

    def close(self) -> None:
        """Nothing comes after; also when the run ended with an error. May be called twice."""


def open_sinks(out: Path, config: "TrainConfig", *, tensorboard: bool, wandb: str | None, step: int = 0) -> list[Sink]:
    """The sinks that were asked for; each must be closed.

    Args:
        out: the run's folder. TensorBoard's files lie in out/tensorboard, W&B's in out/wandb, its run's id in
            out/wandb_id.txt.
        config: shown by W&B.
        tensorboard: whether to write event files.
        wandb: the W&B project, or None for no W&B.
        step: the first step that will be told of. What an earlier process of this run told of this step and later
            ones is taken back, so that steps that are done again do not show twice.

    Raises:
        Pseudo3dError: W&B is not installed or does not take the run.
        OSError: the folder cannot be written or the disk is full.
    """
    with ExitStack() as opened:
        sinks: list[Sink] = []
        if wandb is not None:  # first, since it may be refused
            sinks.append(WeightsAndBiases(out, wandb, asdict(config)))
            opened.callback(sinks[-1].close)
        if tensorboard:
            sinks.append(TensorBoard(out / "tensorboard", step=step))
            opened.callback(sinks[-1].close)
        opened.pop_all()
    return sinks


class TensorBoard:
    """An event file for ``tensorboard --logdir``.

    Written record by record and at once: TensorBoard's own writers do it in a thread, where a full disk is noticed
    late or never.

    Args:
        folder: of this run; made if missing. Each process that goes on with the run adds a file.
        step: what earlier files hold of this step and later ones no longer counts.

    Raises:
        OSError: by every method but ``close``, with the file's name: the folder cannot be written, the disk is full.
    """

    def __init__(self, folder: Path, *, step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads a run's files in the order of their names. Numbers are safer than the usual seconds: two
        # processes may begin within one, and on two machines whose clocks differ.
        named = (re.match(r"events\.out\.tfevents\.(\d+)\.", path.name) for path in folder.iterdir())
        numbers = [int(match[1]) for match in named if match]
        number = max(numbers, default=0) + 1
        self.path = folder / f"events.out.tfevents.{number:010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = self.path.open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2"))
        # At every start but the first, TensorBoard forgets what it has read of this step and later ones.
        self._write(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Sink``."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._add(step, [Summary.Value(tag=name, simple_value=value) for name, value in values.items()])

    def clip(self, step: int, name: str, frames: UInt8[np.ndarray, "T h w 3"]) -> None:
        """See ``Sink``."""
        self._image(step, name, as_gif(frames))

    def confusion(self, step: int, matrix: Int[np.ndarray, "K K"], class_names: Sequence[str]) -> None:
        """See ``Sink``."""
        self._image(step, _CONFUSION, _confusion_png(matrix, class_names))

    def close(self) -> None:
        """See ``Sink``."""
        self._file.close()

    def _image(self, step: int, name: str, encoded: bytes) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        width, height = Image.open(BytesIO(encoded)).size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        self._add(step, [Summary.Value(tag=name, image=image)])

    def _add(self, step: int, values: Sequence[Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(Event(step=step, summary=Summary(value=values)))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        try:
            self._records.write(event.SerializeToString())
            self._file.flush()  # whoever watches sees it now
        except OSError as error:
            with suppress(OSError):  # the same again, for what is still in the buffer
                self._file.close()
            error.filename = error.filename or str(self.path)
            raise


class WeightsAndBiases:
    """A run of Weights & Biases (the extra ``wandb``).

    W&B itself ignores steps below the last one it has, so that steps that are done again do not show twice.

    Args:
        out: the run's folder; it keeps the id by which a resumed run goes on as the same run.
        project: of W&B.
        config: shown with the run.

    Raises:
        Pseudo3dError: W&B is not installed or does not take the run.
    """

    def __init__(self, out: Path, project: str, config: Mapping[str, Any]) -> None:
        self._wandb = _import_wandb()
        out.mkdir(parents=True, exist_ok=True)
        kept = out / _ID
        name = kept.read_text(encoding="utf-8").strip() if kept.exists() else uuid.uuid4().hex[:12]
        try:
            self._run = self._wandb.init(project=project, id=name, resume="allow", dir=str(out), config=dict(config))
        except self._wandb.Error as error:
            raise Pseudo3dError(
                f"--wandb {project}: {_one_line(error)}; run `wandb login` once, or set WANDB_MODE=offline"
            ) from error
        if not kept.exists():
            files.write_text(kept, name + "\n")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """See ``Sink``."""
        self._run.log(dict(values), step=step)

    def clip(self, step: int, name: str, frames: UInt8[np.ndarray, "T h w 3"]) -> None:
        """See ``Sink``."""
        self._run.log({name: self._wandb.Video(BytesIO(as_gif(frames)), format="gif")}, step=step)

    def confusion(self, step: int, matrix: Int[np.ndarray, "K K"], class_names: Sequence[str]) -> None:
        """See ``Sink``."""
        picture = Image.open(BytesIO(_confusion_png(matrix, class_names)))
        self._run.log({_CONFUSION: self._wandb.Image(picture)}, step=step)

    def close(self) -> None:
        """See ``Sink``."""
        self._run.finish()


def _import_wandb() -> Any:
    missing = Pseudo3dError("--wandb needs Weights & Biases: pip install 'pseudo3d[wandb]' (or: pip install wandb)")
    try:
        module = importlib.import_module("wandb")
    except ModuleNotFoundError as error:
        raise missing if error.name == "wandb" else error from None
    if not hasattr(module, "init"):  # a folder ./wandb, which W&B writes, is a package without anything in it
        raise missing
    return module


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split()).rstrip("."))


def as_gif(frames: UInt8[np.ndarray, "T h w 3"]) -> bytes:
    """An animated GIF of a clip, ten frames a second, repeated for ever.

    Args:
        frames: RGB; at least one.

    Example:
        >>> as_gif(np.zeros((16, 8, 8, 3), np.uint8))[:6]
        b'GIF89a'
    """
    pictures = [Image.fromarray(frame) for frame in frames]
    buffer = BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=_FRAME_MS, loop=0)
    return buffer.getvalue()


def _confusion_png(matrix: np.ndarray, class_names: Sequence[str]) -> bytes:
    buffer = BytesIO()
    plot_confusion(matrix, class_names).savefig(buffer, format="png", dpi=100, bbox_inches="tight")
    return buffer.getvalue()
