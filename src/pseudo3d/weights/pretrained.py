"""The project's own format: a folder of config.json, model.safetensors and README.md (the model card)."""

import difflib
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from pseudo3d import files
from pseudo3d.choices import Style
from pseudo3d.errors import Pseudo3dError, first_few, printable
from pseudo3d.models import VideoModel, create_model
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.weights.arrays import Arrays, open_safetensors
from pseudo3d.weights.card import CardInfo, card_text
from pseudo3d.weights.configs import check_fields, parse_json
from pseudo3d.weights.identify import identify

CONFIG_NAME, WEIGHTS_NAME, CARD_NAME = "config.json", "model.safetensors", "README.md"
FORMAT_VERSION = 1  # of config.json; folders of every earlier version keep loading


def save_pretrained(
    model: VideoModel,
    folder: str | Path,
    *,
    facts: dict[str, str] | None = None,
    card: CardInfo | None = None,
    source: str | None = None,
) -> Path:
    """Write a network so that ``from_pretrained`` gives it back with its preprocessing and class names.

    Args:
        model: the network; its parameters and running statistics are saved as they are.
        folder: made if missing. Files of the same names are replaced, each in one step.
        facts: more rows for the model card, e.g. {"data": "...", "video hit@1": "91.2 %"}.
        card: what the model card can say beside the config: data, recipe, scores, licence.
        source: what the model card writes after --weights, e.g. "hf:owner/name".

    Returns:
        The folder.

    Raises:
        OSError: the folder cannot be written; files that were there are then still whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = model_config(model)
    text = card_text(model, card, facts=facts, source=source)
    state = {k: v.detach().contiguous().cpu() for k, v in model.state_dict().items()}
    metadata = {"format": "pt", "pseudo3d": json.dumps(config)}  # a lone weights file still says what it is
    with files.replacing(folder / WEIGHTS_NAME) as temporary:
        write_safetensors(state, temporary, metadata)
    files.write_text(folder / CONFIG_NAME, json.dumps(config, indent=2) + "\n")
    files.write_text(folder / CARD_NAME, text)
    return folder


def write_safetensors(state: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
    """``save_file``; safetensors tells of a full disk in an error of its own, here it is an OSError as elsewhere."""
    try:
        save_file(state, path, metadata=metadata)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


def model_config(model: VideoModel) -> dict[str, Any]:
    """What config.json holds: everything about a network but its numbers."""
    return {
        "format_version": FORMAT_VERSION,
        "architecture": asdict(model.architecture),
        "preprocessing": model.preprocessing.to_dict(),
        "class_names": list(model.class_names) if model.class_names else None,
        "sampler": {"name": "uniform", "clips": 20, "length": model.preprocessing.num_frames},
    }


def from_pretrained(folder_or_id: str | Path, *, revision: str | None = None) -> VideoModel:
    """The network that ``save_pretrained`` wrote, in evaluation mode.

    Args:
        folder_or_id: a folder with config.json and model.safetensors; or "owner/name" or "owner/name@revision" of the
            Hugging Face hub, when it is a string and neither it nor "owner" is a local folder. "hf:owner/name" is of
            the hub in any case.
        revision: a branch, tag or commit of the hub; None for "main".

    Raises:
        Pseudo3dError: no such folder or file, a config of a newer version, arrays that do not fit it, or what
            ``hub.fetch_folder`` raises.

    Example:
        >>> import tempfile, pseudo3d
        >>> model = pseudo3d.create_model("resnet14", num_classes=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = from_pretrained(pseudo3d.save_pretrained(model, folder))
        >>> again.architecture == model.architecture, again.preprocessing == model.preprocessing
        (True, True)
    """
    folder = pretrained_folder(folder_or_id, revision=revision)
    config = read_config(folder)
    arrays, _ = open_safetensors(folder / WEIGHTS_NAME)
    check_belongs(config, arrays, folder)
    with torch.device("meta"):  # every number is about to come from the file: none is drawn first
        model = model_from_config(config, str(folder))
    own = model.state_dict()
    differing = sorted(own.keys() ^ arrays.shapes.keys())
    differing = differing or [key for key in own if tuple(own[key].shape) != arrays.shapes[key]]
    if differing:
        raise _contradiction(folder, f"they differ in {first_few(differing)}")
    own = model.to_empty(device="cpu").state_dict()
    with torch.no_grad():
        for key in own:  # one at a time, so that memory holds the network once
            own[key].copy_(arrays[key])
    return model.eval()


def pretrained_folder(folder_or_id: str | Path, *, revision: str | None = None) -> Path:
    """The local folder that ``from_pretrained`` reads: the one named, or the hub's in the cache.

    Args:
        folder_or_id: as for ``from_pretrained``.
        revision: as for ``from_pretrained``.

    Returns:
        A folder that exists; one in the cache is not to be written to.

    Raises:
        Pseudo3dError: there is no such folder (near names are listed), or what ``hub.fetch_folder`` raises.
    """
    from pseudo3d.weights import hub  # which imports this module

    path = Path(folder_or_id)
    if path.is_dir():
        if revision is not None:
            raise Pseudo3dError(
                f"{path} is a local folder, which has no revision {revision!r}; "
                f"write {hub.PREFIX}{path} if you mean a repository of the hub"
            )
        return path
    near = _near(path)
    if isinstance(folder_or_id, str) and hub.is_hub_id(folder_or_id):
        if folder_or_id.startswith(hub.PREFIX):
            return hub.fetch_folder(folder_or_id, revision=revision)
        if not Path(folder_or_id.split("/")[0]).is_dir():
            try:
                return hub.fetch_folder(folder_or_id, revision=revision)
            except Pseudo3dError as error:
                if near:  # it was a local folder, misspelt
                    raise Pseudo3dError(f"{error} (did you mean the local folder {near}?)") from error
                raise
    if path.exists():
        raise Pseudo3dError(f"{path}: is a file; give the folder it lies in, or load_model a name and this file")
    meant = f" (did you mean {near}?)" if near else ""
    raise Pseudo3dError(
        f"{path}: no such folder{meant}; give a folder that save_pretrained or `p3d train` wrote, "
        "or an id of the Hugging Face hub, owner/name"
    )


def _near(path: Path) -> str:
    """What a folder that does not exist may have been meant to be: names like its first part that is missing."""
    while not path.parent.is_dir() and path.parent != path:
        path = path.parent
    names = [other.name for other in path.parent.iterdir() if other.is_dir()] if path.parent.is_dir() else []
    return " or ".join(str(path.with_name(name)) for name in difflib.get_close_matches(path.name, names))


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a pretrained folder, as ``check_config`` leaves it."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        what = "no such folder" if not folder.exists() else f"has no {CONFIG_NAME}"
        raise Pseudo3dError(f"{folder}: {what}; give a folder that save_pretrained or `p3d train` wrote")
    return check_config(parse_json(path.read_bytes(), str(path)), str(path))


def check_config(config: Any, where: str) -> dict[str, Any]:
    """A config of ours, from config.json or from a weights file's metadata, checked for its version and every field.

    Args:
        config: as parsed; anything.
        where: what to call it in messages.

    Raises:
        Pseudo3dError: it is of a newer version, not of this project, or damaged.
    """
    version = config.get("format_version") if isinstance(config, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise Pseudo3dError(
            f"{where}: format_version {printable(version)}: it was not written by pseudo3d; "
            "give a folder that save_pretrained or `p3d train` wrote"
        )
    if version > FORMAT_VERSION:
        reads = "1" if FORMAT_VERSION == 1 else f"1 to {FORMAT_VERSION}"
        raise Pseudo3dError(f"{where}: format_version {version}, this pseudo3d reads {reads}; upgrade pseudo3d")
    check_fields(config, where)
    return config


def read_layout(array: Tensor, name: str) -> tuple[Style, str]:
    """The style and the cycle of blocks ("2D" for a frame network) that a network's ``layout`` buffer says.

    Args:
        array: the buffer, out of a file or a state dict.
        name: what to call that in messages.

    Raises:
        Pseudo3dError: it says no such thing.

    Example:
        >>> read_layout(create_model("p3d_resnet14", blocks="CA").state_dict()["layout"], "mine")
        ('caffe', 'CA')
    """
    words: list[str] = []
    if array.dtype == torch.uint8 and array.ndim == 1:
        words = bytes(array.tolist()).decode("ascii", errors="replace").split(" ")
    if len(words) == 2 and words[0] in get_args(Style) and re.fullmatch("2D|[ABC]+", words[1]):
        return cast("Style", words[0]), words[1]
    raise Pseudo3dError(f"{name}: its layout array is damaged: it names no style and blocks; copy the file again")


def check_belongs(config: dict[str, Any], arrays: Arrays, path: Path) -> None:
    """Raise when a checked config is of another network than the arrays beside it: both would load, and lie.

    Args:
        config: of ours.
        arrays: under the names in the file.
        path: the folder, or the lone file with the config in its metadata.
    """
    architecture, looks = config["architecture"], identify(arrays.without({"layout"}).shapes)
    name, classes, channels = architecture["name"], architecture["num_classes"], architecture["in_channels"]
    if looks is None or looks.name != name or looks.num_classes not in (None, classes) or looks.in_channels != channels:
        says = f"{name} ({classes} classes, {channels} input channels)"
        raise _contradiction(path, f"the arrays are of {looks or 'no network of ours'}, the config is of {says}")
    if name.startswith("c3d"):
        return
    if "layout" not in arrays:
        raise _contradiction(path, "the array layout is not there")
    blocks = architecture["blocks"] if name.startswith("p3d") else "2D"
    theirs, says = " ".join(read_layout(arrays["layout"], str(path))), f"{architecture['style']} {blocks}"
    if theirs != says:
        raise _contradiction(path, f"the arrays are for {theirs!r}, the config says {says!r}")


def _contradiction(path: Path, what: str) -> Pseudo3dError:
    lone = path.is_file()
    both = "its arrays and its metadata" if lone else f"{WEIGHTS_NAME} and {CONFIG_NAME}"
    return Pseudo3dError(
        f"{path}: {both} do not belong together: {what}; copy the {'file' if lone else 'whole folder'} again"
    )


def model_from_config(config: dict[str, Any], source: str) -> VideoModel:
    """A network with random weights as a checked ``config`` describes it."""
    try:
        model = create_model(**config["architecture"])
    except Pseudo3dError as error:
        raise Pseudo3dError(f"{source}: {error}") from error
    model.preprocessing = Preprocessing.from_dict(config["preprocessing"])
    model.class_names = tuple(config["class_names"]) if config["class_names"] else None
    return model
