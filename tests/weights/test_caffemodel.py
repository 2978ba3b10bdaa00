"""Files of Caffe, made by hand (``caffe_files``) and read by ``CaffeModel``; and what we write."""

import re
from pathlib import Path

import numpy as np
import pytest
from caffe_files import FIXED32, blob, chunk, layer, net, number, numbers, saved, tag, v1_layer, varint

from pseudo3d import Pseudo3dError
from pseudo3d.weights import caffe_pb2
from pseudo3d.weights.caffemodel import (
    CaffeLayer,
    CaffeModel,
    looks_like_caffemodel,
    read_blob,
    write_blob,
    write_caffemodel,
)

WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 1, 7, 7)).astype(np.float32)
BIAS = np.arange(4, dtype=np.float32)
MATRIX = WEIGHT[:, :, 0, 0, 0]


def read_all(path):
    with CaffeModel(path) as model:
        return list(model)


def same(a, b):
    """Bit for bit, NaNs too."""
    return a.shape == b.shape and a.dtype == b.dtype == np.float32 and a.tobytes() == b.tobytes()


def test_the_proto_and_the_generated_classes_are_the_same():
    text = Path(caffe_pb2.__file__).with_name("caffe.proto").read_text(encoding="utf-8")
    text = re.sub(r"//.*", "", text)
    field = r"(optional|repeated)\s+(\w+)\s+(\w+)\s*=\s*(\d+)\s*(?:\[packed = (true)\])?;"
    written = {
        name: {(label, kind, field_name, int(n), bool(packed)) for label, kind, field_name, n, packed in found}
        for name, body in re.findall(r"message (\w+) \{(.*?)\}", text, re.DOTALL)
        for found in [re.findall(field, body)]
    }
    assert sum(map(len, written.values())) == text.count("=") - text.count("packed =") - text.count("syntax =")
    names = {3: "int64", 5: "int32", 12: "bytes"}
    descriptor = caffe_pb2.DESCRIPTOR
    assert descriptor.name == "pseudo3d/weights/caffe.proto"
    assert f"package {descriptor.package};" in text
    assert written == {
        message.name: {
            (
                "repeated" if repeats(f) else "optional",
                f.message_type.name if f.message_type else names[f.type],
                f.name,
                f.number,
                f.GetOptions().packed,
            )
            for f in message.fields
        }
        for message in descriptor.message_types_by_name.values()
    }


def repeats(field):
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


HOW = {
    "packed": {},
    "unpacked": {"packed": False},
    "in three pieces": {"pieces": 3},
    "unpacked sizes": {"packed_dims": False},
    "double": {"double": True},
    "unpacked double": {"double": True, "packed": False},
    "with gradients": {"diff": True},
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_todays_files(how, tmp_path):
    conv = layer("conv1", "Convolution", [WEIGHT, BIAS], bottoms=["data"], tops=["conv1", "other"], **how)
    path = saved(tmp_path, net("P3D-ResNet", [layer("data", "Input"), conv], extra=chunk(3, "data") + number(4, 16)))
    with CaffeModel(path) as model:
        assert (model.path, model.name, model.layer_names) == (path, "P3D-ResNet", ("data", "conv1"))
        assert model.shapes() == {"conv1": ((4, 3, 1, 7, 7), (4,))}
        assert repr(model) == f"CaffeModel({str(path)!r}: P3D-ResNet, 2 layers)"
        got = model.layer("conv1")
        assert [each.name for each in model] == ["data", "conv1"]
    assert (got.type, got.bottoms, got.tops) == ("Convolution", ("data",), ("conv1", "other"))
    assert same(got.blobs[0], WEIGHT)
    assert same(got.blobs[1], BIAS)
    assert all(array.flags.c_contiguous and array.dtype.isnative for array in got.blobs)
    assert looks_like_caffemodel(path)


def test_old_files_keep_their_four_sizes(tmp_path):
    layers = [
        v1_layer("conv", 4, [WEIGHT[:, :, 0], BIAS], bottoms=["data"], tops=["conv"], legacy=True),
        v1_layer("fc", 14, [MATRIX], legacy=True),
        v1_layer("mystery", 39),
        v1_layer("argmax", 30),
    ]
    conv, fc, mystery, argmax = read_all(saved(tmp_path, net("", layers)))
    assert (conv.type, conv.bottoms, conv.tops) == ("Convolution", ("data",), ("conv",))
    assert same(conv.blobs[0], WEIGHT[:, :, 0])
    assert same(conv.blobs[1], BIAS.reshape(1, 1, 1, 4))
    assert same(fc.blobs[0], MATRIX.reshape(1, 1, 4, 3))
    assert (mystery.type, argmax.type) == ("V1 type 39", "V1 type 30")


@pytest.mark.parametrize("how", [{}, {"packed": False}, {"pieces": 2}, {"diff": True}], ids=str)
def test_the_dialect_of_c3d(how, tmp_path):
    layers = [
        v1_layer("data", 33, tops=["data", "label"]),
        v1_layer("conv1a", 30, [WEIGHT, BIAS], c3d=True, **how),
        v1_layer("pool1", 31),
        v1_layer("fc6", 14, [MATRIX], c3d=True, **how),
    ]
    data, conv, pool, fc = read_all(saved(tmp_path, net("DeepConv3DNet", layers)))
    assert [each.type for each in (data, conv, pool, fc)] == ["VideoData", "Convolution3D", "Pooling3D", "InnerProduct"]
    assert same(conv.blobs[0], WEIGHT)
    assert same(conv.blobs[1], BIAS.reshape(1, 1, 1, 1, 4))
    assert same(fc.blobs[0], MATRIX.reshape(1, 1, 1, 4, 3))


@pytest.mark.parametrize("how", [*HOW.values(), {"legacy": True}, {"c3d": True}, {"c3d": True, "diff": True}], ids=str)
def test_a_single_array(how, tmp_path):
    mean = np.random.default_rng(1).random((1, 3, 16, 12, 17) if how.get("c3d") else (1, 3, 12, 17), np.float32)
    path = saved(tmp_path, blob(mean, **how), "mean.binaryproto")
    assert same(read_blob(path), mean)
    assert not looks_like_caffemodel(path)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2)], ids=str)
def test_scalars_and_empty_arrays(shape, tmp_path):
    array = np.full(shape, 2.5, np.float32)
    path = saved(tmp_path, blob(array))
    assert same(read_blob(path), array)
    write_blob(path, array)
    assert same(read_blob(path), array)


def test_one_value_needs_no_shape(tmp_path):
    assert same(read_blob(saved(tmp_path, numbers(5, [3.0], "<f4"))), np.float32(3).reshape(()))


def test_many_unpacked_values(tmp_path):
    """More than one run of those that are read together, and a packed piece among them."""
    values = np.random.default_rng(2).random(150_000, np.float32)
    some = numbers(5, values[:130_000], "<f4", packed=False) + numbers(5, values[130_000:130_010], "<f4")
    content = chunk(7, chunk(1, varint(150_000))) + some + numbers(5, values[130_010:], "<f4", packed=False)
    assert same(read_blob(saved(tmp_path, content)), values)


def test_odd_but_allowed(tmp_path):
    """Tags longer than they need to be, an empty piece of doubles beside floats, and sizes after the data."""
    values = b"".join(b"\xad\x00" + value.tobytes() for value in BIAS)
    assert same(read_blob(saved(tmp_path, values + chunk(8, b"") + chunk(7, chunk(1, b"\4")))), BIAS)


def test_names_that_come_twice(tmp_path):
    first, second = layer("data", "Data", tops=["train"]), layer("data", "Data", tops=["test"])
    weights = layer("data", "Scale", [BIAS])
    with CaffeModel(saved(tmp_path, net("", [first, second]))) as model:
        assert model.layer_names == ("data", "data")
        assert model.layer("data").tops == ("train",)
        assert [each.tops for each in model] == [("train",), ("test",)]
    for order in ([first, weights, second], [weights, first], [first, second, weights]):
        with CaffeModel(saved(tmp_path, net("", order))) as model:
            assert model.layer("data").type == "Scale"
            assert model.shapes() == {"data": ((4,),)}
    with pytest.raises(Pseudo3dError, match=r"a.caffemodel: two layers named 'data' have weights"):
        CaffeModel(saved(tmp_path, net("", [weights, first, weights])))


def test_a_closed_model(tmp_path):
    model = CaffeModel(saved(tmp_path, net("", [layer("fc", "InnerProduct", [MATRIX])])))
    iterator = iter(model)
    kept = model.layer("fc").blobs[0]
    model.close()
    model.close()
    for action in (lambda: model.layer("fc"), model.shapes, lambda: next(iterator), lambda: list(model)):
        with pytest.raises(Pseudo3dError, match=r"a.caffemodel: this CaffeModel is closed; open the file again"):
            action()
    assert same(kept, MATRIX)
    kept += 1  # its own memory


def test_an_unknown_layer(tmp_path):
    path = saved(tmp_path, net("", [layer(name, "ReLU") for name in ("a", "b\n", "c", "d")]))
    text = r"a.caffemodel: has no layer 'fc\\n'; there are 'a', 'b\\n', 'c', \.\.\.$"
    with CaffeModel(path) as model, pytest.raises(Pseudo3dError, match=text):
        model.layer("fc\n")


def test_what_is_written_is_read_back(tmp_path):
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3.4e38], np.float32)
    special = np.concatenate([special, np.array([0x7F800001, 0xFFC12345], np.uint32).view(np.float32)])
    layers = [
        CaffeLayer("data", "Input", (), ("data",)),
        CaffeLayer("conv1", "Convolution", ("data",), ("conv1",), (WEIGHT, special)),
        CaffeLayer("größe", "BN", ("conv1", "data"), ("a", "b"), (WEIGHT.T, np.float32(7).reshape(()), BIAS[::2])),
    ]
    path = tmp_path / "b.caffemodel"
    write_caffemodel(path, "P3D", iter(layers))
    again = read_all(path)
    for one, other in zip(layers, again, strict=True):
        assert (one.name, one.type, one.bottoms, one.tops) == (other.name, other.type, other.bottoms, other.tops)
        assert all(
            same(np.ascontiguousarray(a).reshape(a.shape), b) for a, b in zip(one.blobs, other.blobs, strict=True)
        )
    with CaffeModel(path) as model:
        write_caffemodel(tmp_path / "c.caffemodel", model.name, model)
    assert (tmp_path / "c.caffemodel").read_bytes() == path.read_bytes()


def test_what_is_written_is_what_caffe_writes(tmp_path):
    """Byte for byte what the hand-made writer says."""
    path = tmp_path / "a"
    write_caffemodel(path, "P3D", [CaffeLayer("c", "Convolution", ("x", "y"), ("z",), (WEIGHT, BIAS))])
    names = chunk(1, "c") + chunk(2, "Convolution") + chunk(3, "x") + chunk(3, "y") + chunk(4, "z")
    assert path.read_bytes() == chunk(1, "P3D") + chunk(100, names + chunk(7, blob(WEIGHT)) + chunk(7, blob(BIAS)))
    write_blob(path, WEIGHT)
    assert path.read_bytes() == blob(WEIGHT)


def test_what_cannot_be_written(tmp_path):
    path = saved(tmp_path, b"before")
    fc = CaffeLayer("fc", "InnerProduct", blobs=(BIAS,))
    for layers, text in [
        ([], "no layers to write"),
        (
            [fc, CaffeLayer("x", "BN", blobs=(BIAS.astype(np.float64),))],
            "blob 0 of layer 'x' is float64 with 1 dim.*float32",
        ),
        ([fc, fc], "two layers named 'fc' have weights"),
        ([CaffeLayer("", "BN")], "a layer without a name"),
        ([CaffeLayer("\ud800", "BN")], r"the name '\\ud800' cannot be written as UTF-8"),
        ([CaffeLayer("a", "BN", bottoms=("\ud800",))], "cannot be written as UTF-8"),
    ]:
        with pytest.raises(Pseudo3dError, match=text) as caught:
            write_caffemodel(path, "P3D", layers)
        assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(Pseudo3dError, match="the array is int64"):
        write_blob(path, np.arange(3))
    with pytest.raises(Pseudo3dError, match="cannot be written as UTF-8"):
        write_caffemodel(path, "\ud800", [fc])
    with pytest.raises(FileNotFoundError):
        write_blob(tmp_path / "nowhere" / "a", BIAS)
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_wrong_wire_types_are_unknown_fields(tmp_path):
    """As protobuf has it: a known number with another wire type is skipped."""
    odd = chunk(100, chunk(1, "a") + number(7, 3) + tag(1, FIXED32) + b"1234" + number(2, 5))
    (got,) = read_all(saved(tmp_path, number(100, 7) + number(1, 7) + odd))
    assert (got.name, got.type, got.blobs) == ("a", "", ())
