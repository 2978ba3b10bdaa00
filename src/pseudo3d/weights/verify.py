"""The weights in a file run twice: through the model code, and through a table of layers that knows nothing of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pseudo3d.choices import Style
from pseudo3d.errors import Pseudo3dError
from pseudo3d.weights.caffe import caffe_blobs, connections, read_caffe
from pseudo3d.weights.caffemodel import CaffeModel
from pseudo3d.weights.layer_rules import make_layer_table, output_names
from pseudo3d.weights.layer_table import Layer, run_layer_table
from pseudo3d.weights.loading import load_model
from pseudo3d.weights.sources import Source, Weights, open_weights

TOLERANCE = 1e-4  # relative, float32: what the layers may differ by from the table


@dataclass(frozen=True)
class Verification:
    """How far the network is from its table of layers.

    Args:
        name: of the network.
        style: in which it was run.
        clip: shape of the random clip (N, C, T, H, W).
        layers: number of rows of the table.
        differences: of each public layer, the largest absolute difference as a share of the largest value.
    """

    name: str
    style: str
    clip: tuple[int, ...]
    layers: int
    differences: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether every difference is within ``TOLERANCE``."""
        return all(difference <= TOLERANCE for difference in self.differences.values())  # so that NaN fails too


@torch.no_grad()
def verify_weights(source: Source, *, style: Style | None = None, seed: int = 0) -> Verification:
    """Run a random clip through the model and through the table of layers, both with the weights of ``source``.

    The table takes a Caffe file's blobs as they stand there, and the file's connections are compared with the table's:
    nothing of the model's code or names is in between. Other files go into the table under our names. What is compared
    are the ways of reading and of computing, not whether the weights are good ones.

    Args:
        source: as for ``load_weights``.
        style: None for the one that the weights need.
        seed: of the clip.

    Raises:
        Pseudo3dError: weights that cannot be loaded, or a Caffe file whose layers are connected in another way.

    Example:
        >>> import pseudo3d
        >>> model = pseudo3d.create_model("resnet14", num_classes=5)
        >>> verify_weights(model.state_dict()).passed
        True
    """
    weights = open_weights(source)
    if weights.looks is None or weights.looks.name is None:
        raise Pseudo3dError(f"{weights.name}: looks like {weights.looks.what if weights.looks else 'no network here'}")
    has_head = weights.looks.num_classes is not None
    model = load_model("auto", weights, style=style, head="auto" if has_head else "new")
    architecture, p = model.architecture, model.preprocessing
    blobs, head = _blobs(weights)
    table = make_layer_table(
        architecture.name,
        num_classes=architecture.num_classes,
        head=head,
        blocks=architecture.blocks,
        style=architecture.style,
    )
    _check_connections(weights, table)
    names = output_names(architecture.name)
    if has_head:
        names |= {"logits": head, "prob": "prob"}
    else:
        table = [layer for layer in table if layer.name not in (head, "prob")]
    generator = torch.Generator().manual_seed(seed)
    low, high = p.value_range
    clip = torch.rand((1, architecture.in_channels, p.num_frames, *p.crop), generator=generator) * (high - low) + low
    clip = (clip - torch.tensor(p.mean).view(-1, 1, 1, 1)) / torch.tensor(p.std).view(-1, 1, 1, 1)
    flat = p.num_frames == 1
    expected = run_layer_table(table, blobs, clip.squeeze(2) if flat else clip, set(names.values()))
    got = model.forward_features(clip, tuple(names))
    differences = {layer: _difference(got[layer], expected[name]) for layer, name in names.items()}
    return Verification(architecture.name, architecture.style, tuple(clip.shape), len(table), differences)


def _blobs(weights: Weights) -> tuple[dict[str, tuple[Tensor, ...]], str]:
    """Caffe's blobs by layer, as a Caffe file has them, and the head's name."""
    if weights.kind.startswith("caffe"):
        assert weights.file is not None
        file = CaffeModel(weights.file)
        blobs = {layer.name: tuple(torch.from_numpy(blob) for blob in layer.blobs) for layer in file if layer.blobs}
        return blobs, read_caffe(file).head or "fc"
    return caffe_blobs(weights.arrays, head="fc"), "fc"


def _check_connections(weights: Weights, table: list[Layer]) -> None:
    """Raise where the layers of a Caffe file read something else than the published network's."""
    if not weights.kind.startswith("caffe") or weights.file is None:
        return
    with CaffeModel(weights.file) as file:
        reads = connections(file)
    if not any(reads.values()):
        return  # a file without connections
    for row in table:
        theirs = reads.get(row.name)
        if theirs is not None and theirs != row.bottoms:
            raise Pseudo3dError(
                f"{weights.name}: layer {row.name} reads {' and '.join(theirs) or 'nothing'}, in the published network "
                f"{' and '.join(row.bottoms) or 'nothing'}; it computes something else"
            )


def _difference(ours: Tensor, theirs: Tensor) -> float:
    theirs = theirs.reshape(ours.shape)
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30)).item()
