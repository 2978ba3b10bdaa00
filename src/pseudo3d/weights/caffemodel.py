"""Caffe's binary files without Caffe: networks (.caffemodel) and single arrays (.binaryproto), read and written.

Such a file is one protobuf message without magic number, checksum or end mark. It is mapped into memory, and a walk
over tags and lengths (``caffe_wire``) finds the layers and, in a layer, the spans of its numbers. Only what is small
(names, sizes) is parsed by protobuf's classes (``caffe.proto``); the numbers are copied once, from the map into their
array. A claimed length is compared with the end of its message first, and no memory is asked for because of one.

Sources of the field numbers: the public definitions of the formats, github.com/BVLC/caffe and
github.com/facebookarchive/C3D, each in src/caffe/proto/caffe.proto.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError, first_few
from pseudo3d.weights import caffe_pb2
from pseudo3d.weights.caffe_blob import Blob, blob_parts, locate, parse_head, read_values
from pseudo3d.weights.caffe_wire import AGAIN, LENGTH, MAX_BYTES, Field, MalformedError, MappedFile, length_prefix

_pb: Any = caffe_pb2  # its classes are made at run time
_LAYER_KINDS = {_pb.Net.LAYER_FIELD_NUMBER: _pb.Layer, _pb.Net.V1_LAYER_FIELD_NUMBER: _pb.V1Layer}

_V1_TYPES = {
    1: "Accuracy", 3: "Concat", 4: "Convolution", 5: "Data", 6: "Dropout", 8: "Flatten", 14: "InnerProduct", 15: "LRN",
    17: "Pooling", 18: "ReLU", 20: "Softmax", 21: "SoftmaxLoss", 22: "Split", 25: "Eltwise",
}  # fmt: skip
_C3D_TYPES = _V1_TYPES | {30: "Convolution3D", 31: "Pooling3D", 32: "VolumeData", 33: "VideoData"}


@dataclass(frozen=True, eq=False)
class CaffeLayer:
    """One layer of a network.

    Attributes:
        name: unique among the layers with weights.
        type: Caffe's, e.g. "Convolution", "BN"; "V1 type 7" where an old file has a number without a name here.
        bottoms: names of what it reads.
        tops: names of what it writes.
        blobs: the learned arrays, float32, C-contiguous, in the shape of the file. Files before 2015 have four sizes
            (num, channels, height, width) for everything, so that a bias is (1, 1, 1, C) and the weight of a fully
            connected layer (1, 1, O, I); C3D's have five, (num, channels, length, height, width). Nothing is
            squeezed: whether a leading 1 is padding only the reader of a layer's type can know.
    """

    name: str
    type: str
    bottoms: tuple[str, ...] = ()
    tops: tuple[str, ...] = ()
    blobs: tuple[np.ndarray, ...] = ()


@dataclass
class _Entry:
    """A layer without its numbers; ``type`` is a number in V1 layers.

    Its arrays are looked at once, when first asked for, so that the limit for the walk holds for the whole file.
    """

    name: str
    type: str | int
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    blobs: tuple[Field, ...]
    located: tuple[Blob, ...] | None = None

    def locate(self, file: MappedFile) -> tuple[Blob, ...]:
        if self.located is None:
            what = f"of layer {_short(self.name)}"
            self.located = tuple(locate(file, f.body, f.end, f"blob {i} {what}") for i, f in enumerate(self.blobs))
        return self.located


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:57]}...")


def _text(file: MappedFile, value: bytes, what: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise file.error(f"{what} has a name that is not UTF-8 ({value[:60]!r}); {AGAIN}") from None


def _entry(file: MappedFile, field: Field, what: str) -> _Entry:
    """A layer without its numbers."""
    kind = _LAYER_KINDS[field.number]
    fields = file.message(field.body, field.end, what)
    head = parse_head(file, fields, kind, what)
    return _Entry(
        _text(file, head.name, what),
        head.type if kind is _pb.V1Layer else _text(file, head.type, what),
        tuple(_text(file, name, what) for name in head.bottom),
        tuple(_text(file, name, what) for name in head.top),
        tuple(f for f in fields if f.number == kind.BLOB_FIELD_NUMBER and f.wire == LENGTH),
    )


def _cut_off(file: MappedFile, error: MalformedError, entries: list[_Entry]) -> Pseudo3dError:
    """What to say of a file that ends within a field of the network."""
    where = f"after layer {_short(entries[-1].name)}" if entries else "before the first layer, or not a Caffe model"
    if error.field and error.field.number in _LAYER_KINDS:
        where = f"in layer {len(entries) + 1}"
        try:
            for inner in file.fields(error.field.body, len(file.data)):
                if inner.number == _LAYER_KINDS[error.field.number].NAME_FIELD_NUMBER and inner.wire == LENGTH:
                    name = file.data[inner.body : min(inner.end, inner.body + 200)]
                    where = f"in layer {len(entries) + 1}, {_short(name.decode('utf-8', 'replace'))}"
                    break
        except MalformedError:
            where += ", before the end of its name"
    return file.error(f"truncated {where}: {error.how_much()}; {AGAIN}")


def _index(file: MappedFile) -> tuple[str, list[_Entry]]:
    """The network's name and all its layers, without their numbers."""
    names: list[Field] = []
    entries: list[_Entry] = []
    try:
        for field in file.fields(0, len(file.data)):
            if field.wire == LENGTH and field.number in _LAYER_KINDS:
                what = f"layer {len(entries) + 1}" if entries else "this is not a Caffe model, or its first layer"
                entries.append(_entry(file, field, what))
            elif field.number == _pb.Net.NAME_FIELD_NUMBER:
                names.append(field)
    except MalformedError as error:
        if error.missing:
            raise _cut_off(file, error, entries) from error
        raise file.error(f"damaged or not a Caffe model ({error}); give a .caffemodel, or {AGAIN}") from error
    if not entries:
        raise file.error("has no layers: not a Caffe model; give a .caffemodel (read_blob reads a .binaryproto)")
    if not any(entry.name for entry in entries):
        raise file.error(
            f"none of its {len(entries):,} layers has a name: not a Caffe model, or one of 2013; "
            "write it again with Caffe's upgrade_net_proto_binary"
        )
    return _text(file, parse_head(file, names, _pb.Net, "the network").name, "the network"), entries


def _unique(file: MappedFile, entries: list[_Entry]) -> dict[str, _Entry]:
    """The layer that a name stands for."""
    by_name: dict[str, _Entry] = {}
    for entry in entries:
        if entry.blobs and entry.name in by_name and by_name[entry.name].blobs:
            raise file.error(f"two layers named {_short(entry.name)} have weights; write the network again")
        if entry.blobs or entry.name not in by_name:
            by_name[entry.name] = entry
    return by_name


class CaffeModel:
    """A .caffemodel, of which one layer at a time is read.

    Opening finds the layers and reads their names; numbers are read (copied) when asked for. Files of today's Caffe,
    of the older kind (V1) and of C3D's fork are told apart by their content. Use it as a context manager, or ``close``
    it; arrays that were read stay valid. Nobody may shorten the file in the meantime.

    Args:
        path: the file.

    Attributes:
        path: the file.
        name: the network's name, often empty.
        layer_names: one name for each layer, in file order. A name may stand there several times if at most one of
            these layers has weights (data layers for training and testing).

    Raises:
        Pseudo3dError: not a .caffemodel, a truncated or damaged one, two layers with weights under one name. The line
            begins with the path.

    Example:
        >>> import tempfile
        >>> conv = CaffeLayer("conv1", "Convolution", ("data",), ("conv1",), (np.ones((8, 3, 1, 7, 7), np.float32),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_caffemodel(f"{folder}/a.caffemodel", "P3D", [conv, CaffeLayer("relu1", "ReLU")])
        ...     with CaffeModel(f"{folder}/a.caffemodel") as model:
        ...         print(model.name, model.layer_names, model.shapes())
        ...         print([(layer.type, layer.bottoms) for layer in model], model.layer("conv1").blobs[0].sum())
        P3D ('conv1', 'relu1') {'conv1': ((8, 3, 1, 7, 7),)}
        [('Convolution', ('data',)), ('ReLU', ())] 1176.0
    """

    def __init__(self, path: str | Path):
        self._file: MappedFile | None = None
        file = MappedFile(path)
        try:
            with file.explained():
                self.name, self._entries = _index(file)
                self._by_name = _unique(file, self._entries)
                # One program wrote the whole file: the first array tells what the numbers of types mean.
                first = next((e for e in self._entries if e.blobs and isinstance(e.type, int)), None)
                self._types = _C3D_TYPES if first and first.locate(file)[0].volume else _V1_TYPES
        except BaseException:
            file.close()
            raise
        self._file, self.path = file, file.path
        self.layer_names = tuple(entry.name for entry in self._entries)

    def __repr__(self) -> str:
        return f"CaffeModel({str(self.path)!r}: {self.name or 'no name'}, {len(self._entries)} layers)"

    def __enter__(self) -> "CaffeModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; names stay, layers can no longer be read."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_file(self) -> MappedFile:
        if self._file is None:
            raise Pseudo3dError(f"{self.path}: this CaffeModel is closed; open the file again")
        return self._file

    def _type(self, entry: _Entry) -> str:
        return entry.type if isinstance(entry.type, str) else self._types.get(entry.type, f"V1 type {entry.type}")

    def _read(self, entry: _Entry) -> CaffeLayer:
        file = self._open_file()
        blobs = tuple(read_values(file, blob) for blob in entry.locate(file))
        return CaffeLayer(entry.name, self._type(entry), entry.bottoms, entry.tops, blobs)

    def layer(self, name: str) -> CaffeLayer:
        """Read one layer; of several with this name, the one with weights or else the first.

        Args:
            name: one of ``layer_names``.

        Raises:
            Pseudo3dError: no such layer, damaged numbers (the line names the layer), or the model is closed.
        """
        if name not in self._by_name:
            there = first_few(map(_short, self.layer_names))
            raise Pseudo3dError(f"{self.path}: has no layer {_short(name)}; there are {there}")
        return self._read(self._by_name[name])

    def blob(self, name: str, number: int) -> np.ndarray:
        """Read one array of a layer, as ``layer(name).blobs[number]`` but without its others."""
        file = self._open_file()
        return read_values(file, self._by_name[name].locate(file)[number])

    def graph(self) -> Iterator[CaffeLayer]:
        """All layers in file order without their arrays: names, types and connections."""
        for entry in self._entries:
            yield CaffeLayer(entry.name, self._type(entry), entry.bottoms, entry.tops)

    def __iter__(self) -> Iterator[CaffeLayer]:
        """Read the layers one after the other, in file order; only the caller keeps them."""
        for entry in self._entries:
            yield self._read(entry)

    def shapes(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """The shapes of every layer that has learned arrays, checked against the data, without reading any number.

        Raises:
            Pseudo3dError: as ``layer`` does.
        """
        file = self._open_file()
        return {entry.name: tuple(blob.shape for blob in entry.locate(file)) for entry in self._entries if entry.blobs}


def looks_like_caffemodel(path: str | Path) -> bool:
    """Whether the content is that of a .caffemodel, as far as the first layer with a name. Never raises for a file.

    Args:
        path: any path; what cannot be read is none.

    Example:
        >>> looks_like_caffemodel(__file__), looks_like_caffemodel("/nowhere")
        (False, False)
    """
    try:
        with contextlib.closing(MappedFile(path)) as file:
            for field in file.fields(0, len(file.data)):
                if field.wire == LENGTH and field.number in _LAYER_KINDS:
                    name = _entry(file, field, "a layer").name
                    if name.isprintable() and 0 < len(name) <= 200:
                        return True
    except (Pseudo3dError, MalformedError):  # the answer, not a failure
        return False
    return False


def read_blob(path: str | Path) -> np.ndarray:
    """A single array, as Caffe's tools write means (.binaryproto), in either dialect.

    Args:
        path: the file.

    Returns:
        float32 in the shape of the file: usually (1, channels, height, width), C3D's mean volume (1, 3, 16, 128, 171).

    Raises:
        Pseudo3dError: no such file, another format, truncated or damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_blob(f"{folder}/mean.binaryproto", np.full((1, 3, 4, 4), 104, np.float32))
        ...     read_blob(f"{folder}/mean.binaryproto").shape
        (1, 3, 4, 4)
    """
    with contextlib.closing(MappedFile(path)) as file, file.explained():
        if looks_like_caffemodel(path):
            raise file.error("is a whole network, not a single array; give a .binaryproto")
        try:
            for _ in file.fields(0, len(file.data)):
                pass  # only to the end
        except MalformedError as error:
            if error.missing:
                raise file.error(f"truncated: {error.how_much()}; {AGAIN}") from error
            raise file.error(f"damaged or not a .binaryproto ({error}); {AGAIN}") from error
        return read_values(file, locate(file, 0, len(file.data), "the array"))


def _nbytes(parts: list[bytes | memoryview]) -> int:
    return sum(len(part) for part in parts)


def _utf8(path: Path, name: str) -> bytes:
    try:
        return name.encode("utf-8")
    except UnicodeEncodeError:
        raise Pseudo3dError(f"{path}: the name {_short(name)} cannot be written as UTF-8; rename it") from None


def _layer_parts(path: Path, layer: CaffeLayer) -> list[bytes | memoryview]:
    """The bytes of a layer, with views of its arrays."""
    if not layer.name:
        raise Pseudo3dError(f"{path}: a layer without a name cannot be written; name it")
    head = _pb.Layer(
        name=_utf8(path, layer.name),
        type=_utf8(path, layer.type),
        bottom=[_utf8(path, name) for name in layer.bottoms],
        top=[_utf8(path, name) for name in layer.tops],
    )
    parts: list[bytes | memoryview] = [head.SerializeToString()]
    for i, array in enumerate(layer.blobs):
        blob = blob_parts(array, f"{path}: blob {i} of layer {_short(layer.name)}")
        parts += [length_prefix(_pb.Layer.BLOB_FIELD_NUMBER, _nbytes(blob)), *blob]
    if _nbytes(parts) > MAX_BYTES:
        raise Pseudo3dError(
            f"{path}: layer {_short(layer.name)} has {_nbytes(parts):,} bytes, protobuf allows {MAX_BYTES:,}; split it"
        )
    return [length_prefix(_pb.Net.LAYER_FIELD_NUMBER, _nbytes(parts)), *parts]


def write_caffemodel(path: str | Path, name: str, layers: Iterable[CaffeLayer]) -> None:
    """Write a network as today's Caffe does, one layer at a time; ``CaffeModel`` reads back the same bits.

    Args:
        path: replaced in one step when everything is written.
        name: the network's.
        layers: in order; float32 arrays in the shapes to write. A name may come twice if one of them has no arrays.

    Raises:
        Pseudo3dError: arrays that are not float32, names that cannot be written, no layers.
        OSError: the folder cannot be written or the disk is full; what stood at ``path`` is untouched.

    """
    path = Path(path)
    with_weights: set[str] = set()
    empty = True
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        file.write(_pb.Net(name=_utf8(path, name)).SerializeToString())
        for layer in layers:
            if layer.blobs and layer.name in with_weights:
                raise Pseudo3dError(f"{path}: two layers named {_short(layer.name)} have weights; rename one")
            if layer.blobs:
                with_weights.add(layer.name)
            file.writelines(_layer_parts(path, layer))
            empty = False
        if empty:
            raise Pseudo3dError(f"{path}: no layers to write; a .caffemodel has at least one")


def write_blob(path: str | Path, array: np.ndarray) -> None:
    """Write a single float32 array as a .binaryproto.

    Args:
        path: replaced in one step.
        array: of any shape; ``read_blob`` reads back the same bits.

    Raises:
        Pseudo3dError: the array is not float32.
        OSError: the folder cannot be written or the disk is full; what stood at ``path`` is untouched.
    """
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        file.writelines(blob_parts(array, f"{path}: the array"))
