"""The project's own format: a folder of config.json, model.safetensors and README.md (the model card)."""

import difflib
import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError
from pseudo3d.models import Architecture, VideoModel, create_model
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.weights.card import CardInfo, card_text

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
        _write_safetensors(state, temporary, metadata)
    files.write_text(folder / CONFIG_NAME, json.dumps(config, indent=2) + "\n")
    files.write_text(folder / CARD_NAME, text)
    return folder


def _write_safetensors(state: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
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
    model = model_from_config(read_config(folder), str(folder))
    state = read_safetensors(folder / WEIGHTS_NAME)
    own = model.state_dict()
    differing = sorted(own.keys() ^ state.keys()) or [key for key in own if own[key].shape != state[key].shape]
    if differing:
        raise Pseudo3dError(
            f"{folder}: model.safetensors and config.json do not belong together: they differ in "
            f"{', '.join(differing[:3])}; copy the whole folder again"
        )
    model.load_state_dict(state)
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
    """config.json of a pretrained folder, checked for its version."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        what = "no such folder" if not folder.exists() else f"has no {CONFIG_NAME}"
        raise Pseudo3dError(f"{folder}: {what}; give a folder that save_pretrained or `p3d train` wrote")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not even text
        raise Pseudo3dError(f"{path}: not valid JSON ({error}); copy the folder again") from error
    version = config.get("format_version") if isinstance(config, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise Pseudo3dError(
            f"{path}: format_version {version}: it was not written by pseudo3d; "
            "give a folder that save_pretrained or `p3d train` wrote"
        )
    if version > FORMAT_VERSION:
        reads = "1" if FORMAT_VERSION == 1 else f"1 to {FORMAT_VERSION}"
        raise Pseudo3dError(f"{path}: format_version {version}, this pseudo3d reads {reads}; upgrade pseudo3d")
    return config


def model_from_config(config: dict[str, Any], source: str) -> VideoModel:
    """A network with random weights as ``config`` describes it."""
    try:
        architecture = Architecture(**config["architecture"])
        model = create_model(**asdict(architecture))
        model.preprocessing = Preprocessing.from_dict(config["preprocessing"])
        names = config["class_names"]
    except (KeyError, TypeError) as error:
        raise Pseudo3dError(f"{source}: its config lacks or adds a field ({error}); was it edited by hand?") from error
    if names is not None and len(names) != architecture.num_classes:
        raise Pseudo3dError(
            f"{source}: {len(names)} class names for {architecture.num_classes} classes; correct config.json"
        )
    model.class_names = tuple(names) if names else None
    return model


def read_safetensors(path: Path) -> dict[str, Any]:
    """The arrays of a safetensors file, with a one-line error for a missing or broken one."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise Pseudo3dError(f"{path}: no such file") from None
    except SafetensorError as error:
        raise Pseudo3dError(f"{path}: not a whole safetensors file ({error}); copy it again") from error
