"""Checkpoints: everything that a run needs to go on, in pretrained folders that appear in one step.

    RUN/checkpoints/best/            the weights of the best epoch: a pretrained folder
    RUN/checkpoints/last/            the newest whole state: a pretrained folder, optimizer.safetensors and state.json
    RUN/checkpoints/step_00000120/   the one before, and so on back, as many as ``keep_last`` says

A checkpoint is written aside, flushed and renamed to ``last``, which gives its name up first for ``step_...`` of its
own. Whoever is stopped between the two names still has the older one. state.json is written with the SHA-256 of the
arrays beside it, so that a torn or exchanged file is noticed before it is trained on.
"""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.models import VideoModel
from pseudo3d.weights import save_pretrained
from pseudo3d.weights.card import CardInfo
from pseudo3d.weights.pretrained import WEIGHTS_NAME, from_pretrained, write_safetensors

STATE_NAME, OPTIMIZER_NAME = "state.json", "optimizer.safetensors"
_ARRAYS = (WEIGHTS_NAME, OPTIMIZER_NAME)
_FORMAT = 1


@dataclass
class RunState:
    """How far a run is; with the weights and the optimizer's numbers all that decides how it goes on.

    What is random in a step is drawn from the seed and the step's number, so that no random state needs keeping.

    Args:
        step: steps done.
        best: the best validation score so far, video hit@1 in 0..1 (the epoch's number without a validation); -1 none.
        best_epoch: of that score, from 1; 0 for none.
        best_val: what the validation said then.
        best_sha256: of the weights in ``best``.
        loss: sum over the clips of the epoch that has begun.
        hits: clips classified right in that epoch.
        clips: of that epoch so far.
        seconds: spent training in that epoch.
        waited: of these, waiting for data.
        total_seconds: of training and validation in the whole run.
        bad: training videos that could not be used, by their place in the training side, with the reason.
        reports: the lines of metrics.jsonl.
    """

    step: int = 0
    best: float = -1.0
    best_epoch: int = 0
    best_val: dict[str, float] = field(default_factory=dict)
    best_sha256: str = ""
    loss: float = 0.0
    hits: int = 0
    clips: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    total_seconds: float = 0.0
    bad: dict[int, str] = field(default_factory=dict)
    reports: list[dict[str, Any]] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: RUN/checkpoints.
        keep: whole states kept, ``last`` among them.

    Example:
        >>> import tempfile
        >>> Checkpoints(Path(tempfile.mkdtemp()), 2).resumable()
        []
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self.best, self.last = folder / "best", folder / "last"

    def save(
        self, model: VideoModel, optimizer: torch.optim.Optimizer, state: RunState, belongs: str, card: CardInfo
    ) -> None:
        """Write the whole state as ``last``, and drop what is older than ``keep`` or of a step still to come.

        Args:
            model: its weights of now.
            optimizer: over parameters of ``model``.
            state: how far the run is.
            belongs: what the run is of, compared by ``load``.
            card: for the model card.

        Raises:
            OSError: the disk is full or read-only; the checkpoints that were there are untouched.
        """
        self._tidy()
        aside = self.folder / f".last.{os.getpid()}.part"
        try:
            save_pretrained(model, aside, card=card)
            with files.replacing(aside / OPTIMIZER_NAME) as temporary:
                write_safetensors(_optimizer_arrays(model, optimizer), temporary, {})
            values = {
                "format_version": _FORMAT,
                "belongs": belongs,
                "sha256": {name: files.sha256_of(aside / name) for name in _ARRAYS},
                "state": asdict(state),
            }
            files.write_text(aside / STATE_NAME, json.dumps(values) + "\n")
            self._free_last(state.step)
            aside.rename(self.last)
            files.flush_folder(self.folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        for _, folder in [found for found in self.resumable() if found[0] > state.step] + self.resumable()[self.keep :]:
            shutil.rmtree(folder)

    def save_best(self, model: VideoModel, card: CardInfo) -> str:
        """Write the weights as ``best``, each file in one step; the SHA-256 of the weights."""
        save_pretrained(model, self.best, card=card)
        return files.sha256_of(self.best / WEIGHTS_NAME)

    def resumable(self) -> list[tuple[int, Path]]:
        """The states that are there, whole or torn, by (step, folder), the newest first."""
        found = []
        for folder in self.folder.glob("*"):
            name = re.fullmatch(r"step_(\d{8})", folder.name)
            if name:
                found.append((int(name[1]), folder))
            elif folder == self.last:
                found.append((_step_of(folder), folder))
        return sorted(found, reverse=True)

    def load(self, folder: Path, model: VideoModel, optimizer: torch.optim.Optimizer, belongs: str) -> RunState:
        """Put a checkpoint's weights and optimizer numbers in place.

        Args:
            folder: the checkpoint.
            model: of the same architecture; changed in place.
            optimizer: over parameters of ``model``; changed in place.
            belongs: what the run is of now.

        Returns:
            How far the run was.

        Raises:
            Pseudo3dError: the checkpoint is torn, no checkpoint, or of another run; the one before is named if there
                is one.
        """
        try:
            state = _read_state(folder, belongs)
            saved = from_pretrained(folder)
            if saved.architecture != model.architecture:
                raise Pseudo3dError(f"{folder}: is of {saved.architecture}, the run is of {model.architecture}")
            arrays = load_file(folder / OPTIMIZER_NAME)
        except Pseudo3dError as error:
            raise Pseudo3dError(f"{error}{self._advice(folder)}") from error
        model.load_state_dict(saved.state_dict())
        _set_optimizer(model, optimizer, arrays, folder)
        return state

    def _advice(self, folder: Path) -> str:
        """Which checkpoint to take instead of an unusable one."""
        folders = [path for _, path in self.resumable()]
        before = folders[folders.index(folder) + 1 :] if folder in folders else []
        if before:
            return f"; go on from the one before with --resume {before[0]}"
        return "; there is none before it: choose another folder for --out to begin again"

    def _free_last(self, step: int) -> None:
        """Give ``last`` the name of its step; drop it where it is torn or of a step that is being done again."""
        if not self.last.exists():
            return
        name = self.folder / f"step_{_step_of(self.last):08d}"
        if not 0 <= _step_of(self.last) < step:
            shutil.rmtree(self.last)
            return
        shutil.rmtree(name, ignore_errors=True)
        self.last.rename(name)

    def _tidy(self) -> None:
        """Remove what a killed process has left half-written; the run's lock keeps other processes out."""
        for folder in self.folder.glob(".*.part"):
            shutil.rmtree(folder)


def _step_of(folder: Path) -> int:
    """The step that a state was written at; -1 where that cannot be read."""
    try:
        return int(json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))["state"]["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1


def _read_state(folder: Path, belongs: str) -> RunState:
    path = folder / STATE_NAME
    if not path.is_file():
        raise Pseudo3dError(f"{folder}: is no checkpoint that a run can go on from (it has no {STATE_NAME})")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version, digests, state = values["format_version"], values["sha256"], values["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise Pseudo3dError(f"{path}: is torn or not of pseudo3d") from error
    if version != _FORMAT:
        raise Pseudo3dError(f"{path}: format_version {version}, this pseudo3d reads {_FORMAT}")
    if not isinstance(state, dict) or state.keys() != {each.name for each in fields(RunState)}:
        raise Pseudo3dError(f"{path}: is torn or not of pseudo3d")
    for name in _ARRAYS:
        if not (folder / name).is_file():
            raise Pseudo3dError(f"{folder}: {name} is missing")
        if files.sha256_of(folder / name) != digests.get(name):
            raise Pseudo3dError(f"{folder / name}: is not what was written (torn or exchanged)")
    _check_belongs(folder, values.get("belongs"), belongs)
    return RunState(**{**state, "bad": {int(video): reason for video, reason in state["bad"].items()}})


def _check_belongs(folder: Path, theirs: Any, ours: str) -> None:
    """Compare two ``belongs``: JSON objects of what may not change within a run; name what did."""
    if theirs == ours:
        return
    try:
        before, now = json.loads(theirs), json.loads(ours)
    except (ValueError, TypeError) as error:
        raise Pseudo3dError(f"{folder}: is not a checkpoint of this run") from error
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    what = first_few(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed)
    raise Pseudo3dError(f"{folder}: belongs to another run: {what}")


def _optimizer_arrays(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's numbers, named PARAMETER/NUMBER."""
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _set_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, arrays: dict[str, Tensor], folder: Path) -> None:
    """The inverse of ``_optimizer_arrays``, every number in the memory layout of its parameter."""
    parameters = dict(model.named_parameters())
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    named = {name for name, parameter in parameters.items() if id(parameter) in moved}
    if arrays and {key.rpartition("/")[0] for key in arrays} != named:
        raise Pseudo3dError(f"{folder / OPTIMIZER_NAME}: is of other parameters than this run trains")
    optimizer.state.clear()
    for key, value in arrays.items():
        name, _, number = key.rpartition("/")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        elif parameter.is_cuda:
            value = value.to(parameter.device)  # the count of steps, beside the parameter as fused optimizers keep it
        optimizer.state[parameter][number] = value
