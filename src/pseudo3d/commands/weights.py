"""``p3d weights``: what is in a file of weights, into which formats it goes, and whether it computes what it should."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from pseudo3d.models import VideoModel
    from pseudo3d.weights.sources import Weights

Source = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]

_HELP = """usage: p3d weights inspect|convert|verify|push ...

  inspect SOURCE      what it is, which network fits, its arrays and their shapes, its hash
  convert SOURCE OUT  into a pretrained folder, a .safetensors or a .caffemodel
  verify SOURCE       run its numbers through the network and through the published table of layers
  push FOLDER REPO    put a pretrained folder on the Hugging Face hub

SOURCE is a .caffemodel, .safetensors, .pth, .pt or .tar file, a pretrained folder, "imagenet", or "hf:owner/name".

Example: p3d weights convert p3d_resnet_kinetics.caffemodel kinetics --class-names kinetics_labels.txt
"""


def run(args: Sequence[str]) -> int:
    """Parse and run one of the sub-commands."""
    from pseudo3d.commands.subcommands import run_subcommand

    commands: dict[str, Callable[..., int]] = {"inspect": inspect, "convert": convert, "verify": verify, "push": push}
    return run_subcommand("weights", _HELP, commands, args)


def inspect(source: Source, /, *, arrays: bool = True) -> int:
    """Say what a file, a folder or a hub model is, which network fits it, and list its arrays.

    Example: p3d weights inspect resnet50.pth

    Args:
        source: a weights file, a pretrained folder, "imagenet", or "hf:owner/name".
        arrays: list every array with its shape, under our names.
    """
    from pseudo3d.commands.output import print_table
    from pseudo3d.files import sha256_of
    from pseudo3d.weights.sources import KINDS, open_weights

    weights = open_weights(source)
    shapes = weights.arrays.shapes
    looks = weights.looks
    numbers = sum(math.prod(shape) for key, shape in shapes.items() if _is_parameter(key))
    print(f"{weights.name}: {KINDS[weights.kind]}")
    print(f"fits        {looks if looks else 'no network here'}")
    print(f"style       {_style(weights)}")
    if weights.blocks not in (None, "2D"):
        print(f"blocks      {weights.blocks}")
    print(f"parameters  {numbers:,} in {len(shapes)} arrays: {numbers * 4 / 1e6:.1f} MB, {numbers * 4 / 2**20:.1f} MiB")
    if weights.class_names:
        print(f"classes     {', '.join(weights.class_names[:8])}{', ...' if len(weights.class_names) > 8 else ''}")
    if weights.file is not None:
        print(f"file        {weights.file.stat().st_size:,} bytes, sha256 {sha256_of(weights.file)}")
    if arrays:
        print_table(("array", "shape"), [(key, "x".join(map(str, shape)) or "1") for key, shape in shapes.items()])
    return 0


def _is_parameter(key: str) -> bool:
    return not key.endswith(("running_mean", "running_var", "num_batches_tracked")) and key != "mean_volume"


def _style(weights: "Weights") -> str:
    if weights.kind == "port":
        return "caffe (converted from the authors' weights) or port (trained with the port)"
    return " or ".join(weights.styles) or "not stated"


def convert(
    source: Source,
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    /,
    *,
    model: str = "auto",
    style: Literal["caffe", "torchvision", "port"] | None = None,
    class_names: Path | None = None,
    mean_file: Path | None = None,
    license: str | None = None,
) -> int:
    """Read weights of any known kind and write them as a pretrained folder, a .safetensors or a .caffemodel.

    Example: p3d weights convert c3d_sport1m.caffemodel c3d --mean-file sport1m_train16_128_mean.binaryproto

    Args:
        source: a weights file, a pretrained folder, "imagenet", or "hf:owner/name".
        out: NAME.safetensors, NAME.caffemodel, or a folder, which also keeps preprocessing and class names.
        model: the network to fill; auto is the one that the weights are of. A P3D network takes a 2-D ResNet's.
        style: to compute in, where the weights leave a choice: port for those trained with the PyTorch port.
        class_names: file with one class name a line, in the order of the outputs.
        mean_file: Caffe's .binaryproto with C3D's mean volume, or with a mean image.
        license: of the weights, for the model card, e.g. cc-by-4.0.
    """
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.weights.caffemodel import write_blob
    from pseudo3d.weights.card import CardInfo
    from pseudo3d.weights.export import export_caffemodel
    from pseudo3d.weights.loading import load_model
    from pseudo3d.weights.pretrained import save_pretrained

    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise Pseudo3dError(f"{out}: is there already; choose another name or remove it")
    if out.suffix.lower() in (".pth", ".pt", ".tar", ".onnx", ".bin", ".ckpt", ".h5", ".npz", ".binaryproto"):
        raise Pseudo3dError(f"{out}: written are a folder, .safetensors and .caffemodel; choose one of these")
    network = load_model(model, source, style=style, class_names=class_names, mean_file=mean_file)
    if out.suffix.lower() == ".caffemodel":
        export_caffemodel(network, out)
        if network.mean_volume is not None:
            write_blob(out.with_suffix(".mean.binaryproto"), network.mean_volume[None].numpy())
            print(f"{out.with_suffix('.mean.binaryproto')}: its mean volume")
    elif out.suffix.lower() == ".safetensors":
        _save_lone_file(network, out)
    else:
        save_pretrained(network, out, card=CardInfo(license=license), facts={"converted from": Path(source).name})
    print(f"{out}: {network.architecture.name}, style {network.architecture.style}, {_classes(network)}")
    return 0


def _save_lone_file(network: "VideoModel", out: Path) -> None:
    import tempfile

    from pseudo3d import files
    from pseudo3d.weights.pretrained import WEIGHTS_NAME, save_pretrained

    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder, files.replacing(out) as temporary:
        (save_pretrained(network, folder) / WEIGHTS_NAME).rename(temporary)


def _classes(network: "VideoModel") -> str:
    count = network.architecture.num_classes
    return f"{count} classes" + (
        "" if network.class_names else " without names: they will be called class_0, class_1, ..."
    )


def verify(source: Source, /, *, style: Literal["caffe", "torchvision", "port"] | None = None, seed: int = 0) -> int:
    """Run the numbers of a file through the network and through a table of its layers, and compare stage by stage.

    The table is the published definition, computed with plain 3-D convolutions and independently of the network's code.
    A Caffe file's numbers go into it as they stand in the file.

    Example: p3d weights verify p3d_resnet_sports1m.caffemodel

    Args:
        source: a weights file, a pretrained folder, "imagenet", or "hf:owner/name".
        style: to compute in, where the weights leave a choice.
        seed: of the random clip.
    """
    from pseudo3d.commands.output import print_table
    from pseudo3d.weights.verify import TOLERANCE, verify_weights

    result = verify_weights(source, style=style, seed=seed)
    clip = "x".join(map(str, result.clip))
    print(f"{result.name}, style {result.style}, a random clip of {clip}, against a table of {result.layers} layers")
    print_table(("layer", "largest difference"), [(name, f"{value:.1e}") for name, value in result.differences.items()])
    print(f"{'equal' if result.passed else 'DIFFERENT'}: relative to the largest value, the limit is {TOLERANCE:.0e}")
    return 0 if result.passed else 1


def push(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")],
    repo: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="REPO")],
    /,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> int:
    """Put a pretrained folder on the Hugging Face hub, from where "hf:owner/name" loads it.

    Log in first: hf auth login, or set HF_TOKEN.

    Example: p3d weights push runs/first/checkpoints/best me/my-p3d --private

    Args:
        folder: that p3d train or p3d weights convert wrote.
        repo: owner/name; made if it is not there.
        private: make it private.
        revision: branch to put it on; main unless given.
        message: of the commit.
    """
    from pseudo3d.weights.hub import push_folder

    print(push_folder(folder, repo, private=private, revision=revision, message=message))
    return 0
