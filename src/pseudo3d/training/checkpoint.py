"""Checkpoints: everything that a run needs to go on, in pretrained folders that appear in one step.

    RUN/checkpoints/best/            the weights of the best epoch: a pretrained folder
    RUN/checkpoints/last/            the newest whole state: a pretrained folder, optimizer.safetensors and state.json
    RUN/checkpoints/step_00000120/   the one before, and so on back, as many as ``keep_last`` says

A checkpoint is written aside, flushed and renamed to ``last``, which gives its name up first for ``step_...`` of its
own. Whoever is stopped between the two names still has the older one. Arrays are never written twice for a step: what
becomes known of it later (its validation) replaces state.json alone. That is written with the SHA-256 of the arrays
beside it, so that a torn or exchanged file is noticed before it is trained on.
"""

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.models import VideoModel
from pseudo3d.training.cards import write_card
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
        self._arrays: tuple[int, dict[str, str]] | None = None  # those that this run knows in ``last``: step, SHA-256

    def save(
        self,
        model: VideoModel,
        optimizer: torch.optim.Optimizer,
        state: RunState,
        belongs: str,
        card: CardInfo,
        *,
        spare: int = 0,
    ) -> None:
        """Write the whole state as ``last``, and drop what is older than ``keep`` or of a step still to come.

        When this run has written that step already, only the state and the model card are new.

        Args:
            model: its weights of now, which the step decides.
            optimizer: over parameters of ``model``.
            state: how far the run is.
            belongs: what the run is of, compared by ``load``.
            card: for the model card.
            spare: older ones to keep besides, while it is not known what these weights are worth.

        Raises:
            OSError: the disk is full or read-only; the checkpoints that were there are untouched.
        """
        if self._arrays is not None and self._arrays[0] == state.step:
            write_card(model, self.last, card)
            _write_state(self.last, state, belongs, self._arrays[1])
        else:
            self._tidy()
            self._arrays = state.step, self._write_anew(model, optimizer, state, belongs, card)
        self._drop(state.step, self.keep + spare)

    def _write_anew(
        self, model: VideoModel, optimizer: torch.optim.Optimizer, state: RunState, belongs: str, card: CardInfo
    ) -> dict[str, str]:
        """All files of ``last``, written aside and renamed; the SHA-256 of the arrays."""
        aside = self.folder / f".last.{os.getpid()}.part"
        try:
            save_pretrained(model, aside, card=card)
            with files.replacing(aside / OPTIMIZER_NAME) as temporary:
                # without any metadata, safetensors cannot read a file without arrays (before a first step)
                write_safetensors(_optimizer_arrays(model, optimizer), temporary, {"format": "pt"})
            digests = {name: files.sha256_of(aside / name) for name in _ARRAYS}
            _write_state(aside, state, belongs, digests)
            self._free_last()
            aside.rename(self.last)
            files.flush_folder(self.folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return digests

    def _drop(self, step: int, keep: int) -> None:
        """Remove all but ``last`` and those of earlier steps that are to be kept."""
        earlier = [folder for at, folder in self.resumable() if folder != self.last and at < step]
        for _, folder in self.resumable():
            if folder not in (self.last, *earlier[: keep - 1]):
                shutil.rmtree(folder)

    def save_best(self, model: VideoModel, card: CardInfo) -> str:
        """Write the weights as ``best``, each file in one step; the SHA-256 of the weights."""
        save_pretrained(model, self.best, card=card)
        return files.sha256_of(self.best / WEIGHTS_NAME)

    def resumable(self) -> list[tuple[int, Path]]:
        """The states that are there, whole or torn, by (step, folder), the newest first.

        That is ``last``, with step -1 where its state.json cannot be read; its name is never given to an older one.
        """
        names = ((re.fullmatch(r"step_(\d{8})", folder.name), folder) for folder in self.folder.glob("step_*"))
        before = sorted(((int(name[1]), folder) for name, folder in names if name), reverse=True)
        return [(_step_of(self.last), self.last), *before] if self.last.exists() else before

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
            Pseudo3dError: the checkpoint is torn or no checkpoint, and the one before is named if there is one; or it
                is of another run, and what differs is named.
        """
        try:
            saved = _read_state(folder)
            network = from_pretrained(folder)
        except Pseudo3dError as error:
            raise Pseudo3dError(f"{error}{self._advice(folder)}") from error
        _check_belongs(folder, saved.belongs, belongs)
        if network.architecture != model.architecture:
            raise _of_another_run(folder, f"it is of {network.architecture}, the run is of {model.architecture}")
        _set_optimizer(model, optimizer, load_file(folder / OPTIMIZER_NAME), folder)
        model.load_state_dict(network.state_dict())
        self._arrays = (saved.state.step, saved.digests) if folder == self.last else None
        return saved.state

    def _advice(self, folder: Path) -> str:
        """Which checkpoint to take instead of an unusable one."""
        folders = [path for _, path in self.resumable()]
        before = folders[folders.index(folder) + 1 :] if folder in folders else []
        if before:
            return f"; go on from the one before with --resume {before[0]}"
        return "; there is none before it: choose another folder for --out to begin again"

    def _free_last(self) -> None:
        """Give ``last`` the name of its step, also of one that is being done again; drop it where none can be read."""
        if not self.last.exists():
            return
        step = _step_of(self.last)
        if step < 0:
            shutil.rmtree(self.last)
            return
        name = self.folder / f"step_{step:08d}"
        shutil.rmtree(name, ignore_errors=True)
        self.last.rename(name)

    def _tidy(self) -> None:
        """Remove what a killed process has left half-written; the run's lock keeps other processes out."""
        for folder in self.folder.glob(".*.part"):
            shutil.rmtree(folder)
        for file in self.best.glob(".*.part"):
            file.unlink()


def _step_of(folder: Path) -> int:
    """The step that a state was written at; -1 where that cannot be read."""
    try:
        return int(json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))["state"]["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1


class _Saved(NamedTuple):
    """What state.json says: how far the run was, what it is of, and the SHA-256 of the arrays beside it."""

    state: RunState
    belongs: Any
    digests: dict[str, str]


def _write_state(folder: Path, state: RunState, belongs: str, digests: dict[str, str]) -> None:
    values = {"format_version": _FORMAT, "belongs": belongs, "sha256": digests, "state": asdict(state)}
    files.write_text(folder / STATE_NAME, json.dumps(values) + "\n")


def _read_state(folder: Path) -> _Saved:
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
    state["bad"] = {int(video): reason for video, reason in state["bad"].items()}
    return _Saved(RunState(**state), values.get("belongs"), digests)


def _check_belongs(folder: Path, theirs: Any, ours: str) -> None:
    """Compare two ``belongs``: JSON objects of what may not change within a run; name what did."""
    if theirs == ours:
        return
    try:
        before, now = json.loads(theirs), json.loads(ours)
    except (ValueError, TypeError) as error:
        raise _of_another_run(folder, "it does not say of which") from error
    changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    raise _of_another_run(folder, first_few(f"{key} was {before.get(key)}, is {now.get(key)}" for key in changed))


def _of_another_run(folder: Path, what: str) -> Pseudo3dError:
    return Pseudo3dError(
        f"{folder}: belongs to another run: {what}; give the options and the videos of that run again to go on with "
        "it, or another --out to begin a new one"
    )


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
