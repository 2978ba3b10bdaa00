"""Checkpoints: pretrained folders that change in one step, so that there is always a whole one."""

import os
import shutil
from pathlib import Path

from pseudo3d.models import VideoModel
from pseudo3d.weights import save_pretrained


def save_checkpoint(model: VideoModel, folder: Path, *, facts: dict[str, str]) -> None:
    """Write ``model`` as a pretrained folder beside ``folder``, then put it in its place.

    Args:
        model: its current weights.
        folder: the checkpoint's final name, e.g. RUN/checkpoints/last.
        facts: rows for the model card.

    Raises:
        OSError: the disk is full or read-only; the checkpoint that was there is then still whole.
    """
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    before = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        save_pretrained(model, aside, facts=facts)
        if folder.exists():
            folder.rename(before)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)
