"""From what a person gives as ``--model`` and ``--weights`` to a network."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pseudo3d.errors import Pseudo3dError
from pseudo3d.files import sha256_of
from pseudo3d.models import VideoModel, create_model
from pseudo3d.weights import from_pretrained, load_model
from pseudo3d.weights.pretrained import CONFIG_NAME
from pseudo3d.weights.sources import Weights, class_names_from, open_weights

DEFAULT_MODEL = "p3d_resnet50"  # where weights do not say what they are of


@dataclass(frozen=True, eq=False)
class ReadyNetwork:
    """A network with its numbers in it.

    Args:
        network: in evaluation mode.
        weights: "random", or "sha256:..." of the file that the numbers came from.
        has_head: whether its logits mean anything: weights may come without a head.
    """

    network: VideoModel
    weights: str
    has_head: bool


def open_network(
    model: str, weights: str | Path, class_names: Sequence[str] | str | Path | None = None
) -> ReadyNetwork:
    """The network of that name with those weights; see ``VideoEncoder`` for what both may be.

    Raises:
        Pseudo3dError: weights that cannot be used.
    """
    if weights == "random":
        return ReadyNetwork(_random_network(model), "random", has_head=True)
    opened = open_weights(weights, model=model)
    network = _load_network(opened, model, class_names)
    digest = "random" if opened.file is None else f"sha256:{sha256_of(opened.file)}"
    return ReadyNetwork(network, digest, opened.looks is None or opened.looks.num_classes is not None)


def _random_network(name: str) -> VideoModel:
    """An untrained network, the same at every call, with a warning."""
    name = DEFAULT_MODEL if name == "auto" else name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same noise when a store goes on
        network = create_model(name).eval()
    warnings.warn(f"{name} has random weights: what it says of a video is noise", stacklevel=6)
    return network


def _load_network(opened: Weights, name: str, class_names: Sequence[str] | str | Path | None = None) -> VideoModel:
    """The network that ``--model`` and ``--weights`` stand for, in evaluation mode.

    Args:
        opened: the weights.
        name: of the network, or "auto"; a pretrained folder of ours says it itself.
        class_names: as for ``load_weights``.

    Raises:
        Pseudo3dError: weights that cannot be used.
    """
    if opened.config and opened.file is not None and (opened.file.parent / CONFIG_NAME).is_file():
        network = from_pretrained(opened.file.parent)
        if name not in ("auto", DEFAULT_MODEL, network.architecture.name):
            raise Pseudo3dError(f"{opened.name}: is of {network.architecture.name}, not of {name}; leave the model out")
        if class_names is not None:
            network.class_names = class_names_from(class_names, network.architecture.num_classes, opened.name)
        return network
    has_head = opened.looks is None or opened.looks.num_classes is not None
    name = "p3d" if name == "auto" else name
    return load_model(name, opened, head="auto" if has_head else "new", class_names=class_names)
