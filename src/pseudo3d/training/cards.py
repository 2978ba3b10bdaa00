"""What a run says on the model cards of its checkpoints."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pseudo3d import files
from pseudo3d.models import VideoModel
from pseudo3d.training.config import TrainConfig
from pseudo3d.training.sides import Sides
from pseudo3d.weights import hub
from pseudo3d.weights.card import CardInfo, Score, card_text
from pseudo3d.weights.pretrained import CARD_NAME


def write_card(model: VideoModel, folder: Path, card: CardInfo) -> None:
    """Replace the model card of a checkpoint, in one step and nothing else, when more has become known."""
    files.write_text(folder / CARD_NAME, card_text(model, card))


def run_card(
    config: TrainConfig,
    sides: Sides,
    *,
    epoch: int,
    val: Mapping[str, float] | None = None,
    test: Mapping[str, float] | None = None,
) -> CardInfo:
    """What a run knows for the model card of one of its checkpoints.

    Folders are given by name, never by path: a model card is for publication.

    Args:
        config: of the run.
        sides: its videos.
        epoch: that the weights are of.
        val: hits on the validation videos, 0..1.
        test: hits on the test videos, 0..1.

    Returns:
        What ``save_pretrained`` and ``write_card`` take.
    """
    counts = Counter(label for sample in sides.train.samples for label in sample.labels)
    start, base_model = _start(config)
    scores = [
        Score(name, len(side), clips, hits)
        for name, side, clips, hits in (
            ("val", sides.val, config.val_clips, val),
            ("test", sides.test, config.test_clips, test),
        )
        if side is not None and hits
    ]
    return CardInfo(
        data=sides.train.root.resolve().name or None,
        videos={
            name: len(side)
            for name, side in (("train", sides.train), ("val", sides.val), ("test", sides.test))
            if side is not None
        },
        class_videos={name: counts[name] for name in sides.train.class_names},
        start=start,
        base_model=base_model,
        trained=f"recipe {config.recipe}, epoch {epoch} of "
        + (f"{config.epochs}" if config.iterations is None else f"{config.iterations} steps"),
        settings=_settings(config),
        scores=tuple(scores),
        license=config.license,
    )


def _start(config: TrainConfig) -> tuple[str, str | None]:
    """What training started from, in words and, if it came from there, as an id of the hub."""
    weights = config.weights
    if weights == "random":
        return "random weights", None
    if weights == "imagenet":
        depth = re.search(r"\d+$", config.model or "")
        file = hub.IMAGENET.get(int(depth[0]) if depth else 50)
        return "ImageNet's 2-D ResNet", file.repo if file else None
    if weights.startswith(hub.PREFIX) or (not Path(weights).exists() and hub.is_hub_id(weights)):
        repo, revision = hub.parse_hub_id(weights)
        return repo + (f", revision {revision}" if revision else ""), repo
    parts = Path(weights).resolve().parts
    return "/".join(parts[-3:] if parts[-2:-1] == ("checkpoints",) else parts[-1:]), None


def _settings(config: TrainConfig) -> dict[str, str]:
    """The numbers of a recipe that matter to a reader of the model card."""
    optim = config.optim
    momentum = f", momentum {optim.momentum:g}" if optim.name == "sgd" else ""
    settings = {
        "optimizer": f"{optim.name}{momentum}, learning rate {optim.lr:g} ({optim.schedule}, "
        f"{optim.warmup_epochs:g} epochs of warm-up), weight decay {optim.weight_decay:g}, "
        f"head {optim.head_lr_scale:g} times faster",
        "batch": f"{config.batch_size} clips",
        "label smoothing": f"{config.label_smoothing:g}",
        "batch norms": "kept as they were but the first" if config.freeze_bn else "learned",
        "training clips": ("random crops" if config.augment.random_crop else "centre crops")
        + (", half of them mirrored" if config.augment.flip else ", never mirrored"),
        "seed": str(config.seed),
    }
    if config.weights == "imagenet":
        settings["temporal filters at the start"] = config.temporal_init
    return settings
