"""A network written as a .caffemodel, under the names and in the shapes of the published ones."""

from pathlib import Path

import numpy as np

from pseudo3d.errors import Pseudo3dError
from pseudo3d.models import VideoModel
from pseudo3d.weights.arrays import Arrays
from pseudo3d.weights.caffe import caffe_blobs, head_name
from pseudo3d.weights.caffemodel import CaffeLayer, write_caffemodel
from pseudo3d.weights.layer_rules import make_layer_table


def export_caffemodel(model: VideoModel, path: str | Path) -> Path:
    """Write ``model`` as Caffe would: all layers with their connections, the learned ones with their numbers.

    P3D networks get the authors' BN layers, frame networks He et al.'s BatchNorm and Scale, C3D its own names.
    Preprocessing, class names and C3D's mean volume have no place in such a file (``caffemodel.write_blob`` writes a
    mean). Reading the file back gives the same numbers, bit by bit.

    Args:
        model: of style "caffe"; Caffe's layers compute no other.
        path: the file, replaced in one step.

    Returns:
        The path.

    Raises:
        Pseudo3dError: a model of another style.
        OSError: the file cannot be written; what stood there is then still whole.
    """
    path, architecture = Path(path), model.architecture
    path.parent.mkdir(parents=True, exist_ok=True)
    if architecture.style != "caffe":
        raise Pseudo3dError(
            f"{path}: a .caffemodel computes style 'caffe', the model has style {architecture.style!r}; its numbers "
            "would mean something else there. Write a folder or .safetensors"
        )
    arrays = Arrays.of({key: value.cpu() for key, value in model.state_dict().items()})
    head = head_name(arrays.shapes)
    blobs = caffe_blobs(arrays, head)
    table = make_layer_table(
        architecture.name, num_classes=architecture.num_classes, head=head, blocks=architecture.blocks
    )
    write_caffemodel(
        path,
        architecture.name,
        (
            CaffeLayer(
                row.name,
                row.type,
                row.bottoms,
                (row.top,),
                tuple(np.ascontiguousarray(blob.numpy()) for blob in blobs.get(row.name, ())),
            )
            for row in table
        ),
    )
    return path
