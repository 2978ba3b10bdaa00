"""``train``: a run from labelled videos to a tested network, begun or gone on with, on one process or several."""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from pseudo3d import files
from pseudo3d.data.annotations import SampleList
from pseudo3d.errors import Pseudo3dError
from pseudo3d.inference import choose_device, choose_dtype
from pseudo3d.models import VideoModel
from pseudo3d.training.allocator import keep_memory
from pseudo3d.training.build import build_model
from pseudo3d.training.checkpoint import Checkpoints
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.distributed import Group, open_group
from pseudo3d.training.dry_run import check_room
from pseudo3d.training.memory import too_little_beside_explained
from pseudo3d.training.progress import TrainingProgress, looking_at
from pseudo3d.training.sides import check_sides, sides_to_csv, split_samples
from pseudo3d.training.sinks import open_sinks
from pseudo3d.training.stopping import ended_by_sigterm
from pseudo3d.training.trainer import Trainer, TrainResult

_log = logging.getLogger("pseudo3d")

OWN_FILES = ("config.json", "split.csv", "metrics.jsonl", "curves.svg", "diverged.txt", "wandb_id.txt")
OWN_FOLDERS = ("checkpoints", "tensorboard", "wandb")


def train(
    samples: SampleList,
    config: TrainConfig,
    out: str | Path,
    *,
    resume: str = "never",
    tensorboard: bool = False,
    wandb: str | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Train a network on labelled videos and test it.

    Writes ``out``/config.json, split.csv (which video was on which side; a list that ``p3d extract`` takes),
    metrics.jsonl (one line an epoch, one for the test), curves.svg, and checkpoints/best and checkpoints/last, each a
    pretrained folder. Under ``torchrun`` the processes share each batch and the first one writes.

    Args:
        samples: labelled videos (``data.annotations.read_samples``).
        config: the recipe (``training.recipes``).
        out: the run's folder; must not hold a run already unless ``resume`` says so.
        resume: "never"; "auto" goes on from the newest checkpoint in ``out`` if there is one; else the folder of a
            checkpoint in ``out``. On a processor the weights come out as if the run had never stopped.
        tensorboard: write event files to ``out``/tensorboard too.
        wandb: a Weights & Biases project to report to.
        quiet: no progress bar, and no line with all settings before it.

    Raises:
        Pseudo3dError: unusable data or config, a video that cannot be decoded, a loss that is no longer finite, a
            checkpoint that is torn or of another run.
        Interrupted: SIGINT or SIGTERM came; where the run is has been kept.
        OSError: the folder cannot be written or the disk is full; the last checkpoint is whole.

    Example:
        train(read_samples("my_videos"), get_recipe("scratch"), "runs/first").test["video hit@1"]
    """
    out = Path(out)
    keep_memory()
    with too_little_beside_explained(), ended_by_sigterm(), open_group(config.device) as group:
        folder = group.decided(lambda: _checkpoint_to_resume(out, resume))
        trainer = make_trainer(samples, config, out, group)
        check_room(trainer)
        trainer.look(partial(looking_at, quiet=quiet or not group.is_main))
        with ExitStack() as stack:
            if group.is_main:
                stack.enter_context(_run_folder(out))
            if group.decided(lambda: _checkpoint_to_resume(out, resume)) != folder:
                raise Pseudo3dError(f"{out}: another process has trained there meanwhile; give the same command again")
            _check_shared(out, group)
            if not quiet:
                _say(group, f"all settings ({out / 'config.json'}): {_settings(trainer.config)}")
            if folder is not None:
                trainer.resume(folder)
                _check_same_step(folder, trainer)  # and all have read it before the first one writes another
                _say(group, f"going on from step {trainer.state.step} of {trainer.steps} ({folder})")
            if group.is_main:  # also when going on: with --skip-bad, videos that went bad are left out from now on
                files.write_text(out / "config.json", trainer.config.to_json())
                files.write_text(out / "split.csv", sides_to_csv(trainer.sides))
                at = trainer.state.step + 1  # the first step that is told again
                for sink in open_sinks(out, trainer.config, tensorboard=tensorboard, wandb=wandb, step=at):
                    trainer.sinks.append(stack.enter_context(closing(sink)))
            silent = quiet or not group.is_main
            progress = TrainingProgress(trainer.epochs, trainer.steps, start=trainer.state.step, quiet=silent)
            return trainer.run(stack.enter_context(progress))


def make_trainer(samples: SampleList, config: TrainConfig, out: Path, group: Group) -> Trainer:
    """A run before its first step and before anybody has looked into the videos: sides, network, optimizer, data.

    Args:
        samples: labelled videos.
        config: the recipe.
        out: the run's folder.
        group: the processes that share the run.

    Raises:
        Pseudo3dError: as ``train``.
    """
    sides = split_samples(samples, config)
    check_sides(sides)
    torch.manual_seed(config.seed)
    model = build_model(config, samples.class_names)
    return Trainer(model, sides, _resolved(config, model, group), out, group=group)


def _check_shared(out: Path, group: Group) -> None:
    """Refuse a folder that other machines do not see: they would wait for checkpoints that are on one machine only.

    Raises:
        Pseudo3dError: on every process.
    """
    blind = [rank for rank, there in enumerate(group.gather((out / "checkpoints").is_dir())) if not there]
    if blind:
        raise Pseudo3dError(
            f"{out}: process {blind[0]} does not see this folder of process 0; --out must be on a disk that all "
            "machines share"
        )


def _check_same_step(folder: Path, trainer: Trainer) -> None:
    """Refuse to go on from different states, as from a network disk that shows an old folder under a new name.

    Raises:
        Pseudo3dError: on every process.
    """
    steps = trainer.group.gather(trainer.state.step)
    if len(set(steps)) > 1:
        raise Pseudo3dError(
            f"{folder}: processes read different steps there ({', '.join(map(str, sorted(set(steps))))}): the disk "
            "shows some of them what was there before; give the same command again"
        )


def _resolved(config: TrainConfig, model: VideoModel, group: Group) -> TrainConfig:
    """The config with what was left open decided: what is trained, and a recipe for the next run.

    Device and workers stay as they are: they suit the machine, and may change within a run.
    """
    dtype = choose_dtype(config.dtype, choose_device(group.device or config.device))
    architecture, preprocessing = model.architecture, model.preprocessing
    height, width = preprocessing.crop
    assert not isinstance(preprocessing.resize, int)  # with_margin has seen to it
    return replace(
        config,
        model=architecture.name,
        blocks=architecture.blocks,
        style=architecture.style,
        dropout=architecture.dropout,
        size=height if height == width else config.size,
        resize=preprocessing.resize,
        dtype="bfloat16" if dtype == torch.bfloat16 else "float32",
    )


def _settings(config: TrainConfig) -> str:
    """Every value of a config in one line, by the names of the options."""
    values = json.loads(config.to_json())
    del values["recipe"]
    for section in [name for name, value in values.items() if isinstance(value, dict)]:
        values |= {f"{section}.{name}": value for name, value in values.pop(section).items()}
    words = {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in values.items()}
    return ", ".join(f"{name.replace('_', '-')} {value}" for name, value in words.items())


def _checkpoint_to_resume(out: Path, resume: str) -> Path | None:
    """The checkpoint to go on from, None to begin.

    Raises:
        Pseudo3dError: the folder holds a run that was not asked to go on, or other files.
    """
    if out.exists() and not out.is_dir():
        raise Pseudo3dError(f"{out}: is a file; give a folder for --out")
    there = {path.name for path in out.iterdir()} if out.exists() else set()
    found = [folder for _, folder in Checkpoints(out / "checkpoints", 1).resumable()]
    if resume == "never":
        if there == {"checkpoints"} and not _begun(out):  # a process that was killed has left it
            return None
        if "checkpoints" in there:
            raise Pseudo3dError(
                f"{out}: holds a training run already; go on with it by --resume auto, or choose another folder for "
                "--out or remove it"
            )
        if there:
            raise Pseudo3dError(f"{out}: holds other files; give a new folder for --out")
        return None
    if resume == "auto":
        if not found and there - {*OWN_FILES, *OWN_FOLDERS}:
            raise Pseudo3dError(f"{out}: holds other files and no checkpoint; give a new folder for --out")
        return found[0] if found else None
    folder = Path(resume)
    if folder.resolve() not in [each.resolve() for each in found]:
        named = f"; there are {', '.join(map(str, found))}" if found else ""
        raise Pseudo3dError(f"--resume {resume}: is no checkpoint of the run in {out}{named}")
    return out / "checkpoints" / folder.name


def _begun(out: Path) -> bool:
    """Whether there is a checkpoint, or what is left of one."""
    return any(not path.name.startswith(".") for path in (out / "checkpoints").glob("*"))


@contextmanager
def _run_folder(out: Path) -> Iterator[None]:
    """The run's folder, held by this process alone.

    When the run ends before its first checkpoint, what this process has made there is removed, and nothing else: the
    name is free again.
    """
    places = [*reversed(out.parents), out, *(out / name for name in (*OWN_FOLDERS, *OWN_FILES))]
    made = [place for place in places if not place.exists()]
    checkpoints = out / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    lock = FileLock(checkpoints / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise Pseudo3dError(f"{out}: another process is training there; wait for it or choose another --out") from error
    try:
        yield
    except BaseException:
        if not _begun(out):
            lock.release()
            _remove(made, out)
        raise
    finally:
        lock.release()


def _remove(made: Sequence[Path], out: Path) -> None:
    """Remove what was made in a run's folder, then the folder and those above it where nothing else is in them."""
    for place in reversed(made):
        if place.parent != out:
            with suppress(OSError):  # somebody else's file is in it
                place.rmdir()
        elif place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)


def _say(group: Group, text: str) -> None:
    if group.is_main:
        _log.warning(text)
