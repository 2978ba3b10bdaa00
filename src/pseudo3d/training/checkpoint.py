"""Checkpoints: pretrained folders that change in one step, so that there is always a whole one."""

import os
import shutil
from pathlib import Path

from pseudo3d.models import VideoModel
from pseudo3d.weights import save_pretrained


def save_checkpoint(model: VideoModel, folder: Path, *, facts: dict[str, str]) -> None:
    """Write ``model`` as the pretrained folder ``folder``, whole at every moment.

    The first time the folder is made aside and renamed. Later its files are replaced one by one, each in one step:
    within a run only the numbers and the model card change, never the config, so any mixture can be loaded. (Putting
    a new folder in the place of an old one takes two steps, and whoever is stopped between them has neither.)

    Args:
        model: its current weights.
        folder: the checkpoint's final name, e.g. RUN/checkpoints/last.
        facts: rows for the model card.

    Raises:
        OSError: the disk is full or read-only; the checkpoint that was there can still be loaded.
    """
    if folder.exists():
        save_pretrained(model, folder, facts=facts)
        return
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        save_pretrained(model, aside, facts=facts).rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
