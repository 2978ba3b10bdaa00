"""Damaged, hostile and mistaken files of Caffe: one line that says what is wrong, and never more memory or time."""

import json
import os
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from caffe_files import FIXED32, LENGTH, VARINT, blob, chunk, layer, net, number, numbers, saved, tag, v1_layer, varint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pseudo3d import Pseudo3dError
from pseudo3d.weights.caffemodel import CaffeModel, looks_like_caffemodel, read_blob

WEIGHT = np.random.default_rng(0).standard_normal((4, 3, 1, 7, 7)).astype(np.float32)
BIAS = np.arange(4, dtype=np.float32)
MATRIX = WEIGHT[:, :, 0, 0, 0]


def read_all(path):
    """Everything that can be read of a file, each in every way."""
    with CaffeModel(path) as model:
        layers = list(model)
        assert tuple(each.name for each in layers) == model.layer_names
        shapes = {each.name: tuple(array.shape for array in each.blobs) for each in layers if each.blobs}
        assert shapes == model.shapes()
        for name in model.layer_names:
            assert model.layer(name).name == name
    return layers


def damaged(content, **how):
    """A network whose second layer has this array."""
    return net("", [layer("data", "Input"), layer("conv1", "Convolution", [content], **how)])


RELU = layer("a", "ReLU")
SIZES_1, SIZES_4 = chunk(7, chunk(1, b"\1")), chunk(7, chunk(1, b"\4"))
GROUPS = b"\x0b" * 10**6  # each begins another one in itself
JUNK = number(9, 1) * 150_000
# File, then the words of the error.
CAFFE_ERRORS = {
    "length of 2^60": (tag(100, LENGTH) + varint(2**60), "a length of 1,152,921,504,606,846,976 bytes, more than"),
    "negative length": (tag(100, LENGTH) + varint(-1), "a length of 18,446,744,073,709,551,615 bytes"),
    "long varint": (tag(4, VARINT) + b"\xff" * 10 + b"\1", "a number of more than 10 bytes at byte 1"),
    "groups": (GROUPS, "wire type 3, which Caffe never writes, at byte 0"),
    "groups in a layer": (chunk(100, chunk(1, "a") + GROUPS), "not a Caffe model, or its first layer is damaged"),
    "groups in a shape": (damaged(chunk(7, GROUPS[: 10**5])), "blob 0 of layer 'conv1' is damaged"),
    "field 0": (b"\x02\x00", "a field without a number at byte 0"),
    "junk": (JUNK, "damaged or not a Caffe model .more than 100,000 fields"),
    "junk in an array": (damaged(JUNK), "blob 0 of layer 'conv1' is damaged .more than 100,000 fields"),
    "junk of 4 bytes": (damaged((tag(9, FIXED32) + b"1234" + tag(8, FIXED32) + b"1234") * 75_000), "100,000 fields"),
    "no layers": (chunk(1, "P3D"), "has no layers: not a Caffe model"),
    "a single array": (blob(BIAS), "has no layers: .* .read_blob reads a .binaryproto"),
    "layers of 2013": (chunk(2, chunk(1, chunk(1, "a"))), "none of its 1 layers has a name: .* upgrade_net_proto"),
    "name": (net("", [RELU, layer(b"\xff\xfe", "ReLU")]), r"layer 2 has a name that is not UTF-8 \(b'\\xff\\xfe'"),
    "type": (net("", [RELU, layer("b", b"\xff")]), "layer 2 has a name that is not UTF-8"),
    "bottom": (net("", [layer("a", "ReLU", bottoms=[b"\xff"])]), "first layer has a name that is not UTF-8"),
    "net's name": (net(b"\xff", [RELU]), "the network has a name that is not UTF-8"),
    "long name": (net("", [layer("a" * 2**21, "ReLU")]), "2,097,.* bytes of names and sizes"),
    "count": (
        damaged(WEIGHT, shape=(4, 3, 7)),
        r"blob 0 of layer 'conv1' has a count of 588, but its shape \(4, 3, 7\) takes 84;",
    ),
    "four sizes": (
        damaged(BIAS, shape=(1, 1, 2, 4), legacy=True),
        r"has a count of 4, but its shape \(1, 1, 2, 4\) takes 8;",
    ),
    "no shape": (damaged(numbers(5, BIAS, "<f4")), r"has a count of 4, but its shape \(\) takes 1;"),
    "negative": (damaged(BIAS, shape=(-1, -4)), r"layer 'conv1' has a negative size in its shape \(-1, -4\)"),
    "huge": (damaged(BIAS, shape=(2**32, 2**32)), r"has shape \(4294967296, 4294967296\), more than 2,147,483,647"),
    "huge, empty": (damaged(chunk(7, chunk(1, b"\0" + varint(2**62)))), "more than 2,147,483,647 values"),
    "many sizes": (damaged(np.ones(1), shape=(1,) * 33), "blob 0 of layer 'conv1' has more than 32 dimensions"),
    "a million sizes": (damaged(chunk(7, chunk(1, b"\1" * 2**21))), "2,097,.* bytes of names and sizes"),
    "no data": (damaged(SIZES_4 + chunk(12, b"12345678")), r"\(4,\) but no float32 or .* half precision"),
    "nothing": (damaged(b""), r"has shape \(\) but no float32 or float64 data"),
    "odd bytes": (damaged(SIZES_1 + chunk(5, b"12345")), "5 bytes of 32-bit numbers; damaged"),
    "past its layer": (net("", [RELU, layer("b", "ReLU", extra=tag(1, LENGTH) + b"\7")]), "layer 2 is damaged"),
    "past its array": (damaged(SIZES_1 + tag(5, LENGTH) + b"\4\0"), "blob 0 of layer 'conv1' is damaged"),
    "past its sizes": (damaged(chunk(7, tag(1, LENGTH) + b"\4\0")), "blob 0 of layer 'conv1' is damaged"),
    "V1 array": (net("", [v1_layer("c", 4, [blob(BIAS, shape=(5,))])]), "blob 0 of layer 'c' has a count of 4"),
    "prototxt": (b'# mine\nname: "P3D"\nlayer {\n  name: "a"\n}\n', "is text, such as a prototxt, .* holds no weights"),
    "prototxt of layers": (b"\n\nlayers {\n  bottom: 'data'\n}\n" * 9, "is text, such as a prototxt"),
    "HTML": (b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title>", r"is a web page \(HTML\)"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "is a git-lfs pointer"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
    "zip": (b"PK\x03\x04" + bytes(100), r"is an archive \(or a PyTorch file\)"),
    "empty": (b"", "is empty; copy the file or download it again"),
}


@pytest.mark.parametrize(("content", "text"), CAFFE_ERRORS.values(), ids=CAFFE_ERRORS)
def test_what_is_wrong_is_said_in_one_line(content, text, tmp_path):
    path = saved(tmp_path, content)
    begin = time.monotonic()
    with pytest.raises(Pseudo3dError, match=text) as caught:
        read_all(path)
    assert time.monotonic() - begin < 10
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.isprintable()
    assert len(line) < 400
    assert isinstance(looks_like_caffemodel(path), bool)


BLOB_ERRORS = {
    "a network": (net("", [RELU]), "is a whole network, not a single array"),
    "an old network": (net("", [v1_layer("a", 18)]), "is a whole network, not a single array"),
    "truncated": (blob(BIAS)[:-5], "truncated: 5 bytes are missing; copy"),
    "truncated in a number": (
        blob(BIAS, shape=(1, 1, 1, 300), legacy=True)[:8],
        "truncated: at least 1 byte is missing",
    ),
    "count": (
        blob(WEIGHT, shape=(1, 2, 3, 4, 5), c3d=True),
        r"the array has a count of 588, but its shape \(1, 2, 3, 4, 5\) takes 120",
    ),
    "groups": (GROUPS, "damaged or not a .binaryproto .wire type 3"),
    "text": (b"name: 'a'", "is text"),
    "empty": (b"", "is empty"),
}


@pytest.mark.parametrize(("content", "text"), BLOB_ERRORS.values(), ids=BLOB_ERRORS)
def test_what_is_wrong_with_a_single_array(content, text, tmp_path):
    path = saved(tmp_path, content, "mean.binaryproto")
    with pytest.raises(Pseudo3dError, match=text) as caught:
        read_blob(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("read", [CaffeModel, read_blob])
def test_paths_that_are_no_file(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    saved(tmp_path, b"x", "file")
    for name, text in [
        ("nowhere", "no such file; check the path"),
        (".", "is a folder; give the file in it"),
        ("pipe", "is not a regular file"),
        ("file/below", r"cannot be read \(Not a directory\)"),
        ("n\0ul", "cannot be read .*null"),
        ("long" * 100, r"cannot be read \(File name too long\)"),
    ]:
        with pytest.raises(Pseudo3dError, match=text) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert not looks_like_caffemodel(tmp_path / name)


FUZZED = [
    net("P3D", [
        layer("data", "Input", tops=["data"]),
        layer("conv1", "Convolution", [WEIGHT[:2], BIAS], bottoms=["data"], tops=["conv1"]),
        layer("fc", "InnerProduct", [MATRIX], pieces=2),
    ]),
    net("C3D", [v1_layer("data", 33), v1_layer("conv1a", 30, [WEIGHT[:1], BIAS], c3d=True)]),
    net("", [
        layer("a", "BN", [MATRIX], packed=False),
        layer("b", "BN", [BIAS], double=True),
        v1_layer("c", 4, [BIAS], legacy=True),
        layer("d", "BN", [BIAS], packed_dims=False, diff=True),
    ]),
    blob(MATRIX),
    blob(BIAS, c3d=True),
]  # fmt: skip


def test_a_truncated_file_says_where_and_how_much(tmp_path):
    """Cut at every byte. Whole layers are a shorter network, which nothing tells from a whole one."""
    names = ("data", "conv1", "fc")
    layers = [layer(names[0], "Input"), layer(names[1], "Convolution", [BIAS]), layer(names[2], "BN", [MATRIX])]
    content = net("P3D", layers)
    begins = np.cumsum([len(net("P3D", [])), *map(len, layers)])
    for size in range(1, len(content)):
        path = saved(tmp_path, content[:size])
        assert looks_like_caffemodel(path) == (size >= begins[1])
        if size in begins[1:]:
            assert [each.name for each in read_all(path)] == list(names[: list(begins).index(size)])
            continue
        with pytest.raises(Pseudo3dError) as caught:
            CaffeModel(path)
        line = str(caught.value).removeprefix(f"{path}: ")
        if size == begins[0]:
            assert line.startswith("has no layers")
            continue
        i = int(np.searchsorted(begins, size)) - 1  # the layer in which the cut is; -1 is the network's name
        length = len(layers[i]) - (size - begins[i])
        missing = f"{length} byte{' is' if length == 1 else 's are'} missing"
        inside = size - begins[i]
        before = f"truncated after layer '{names[i - 1]}'" if i else "truncated before the first layer, or not a Caffe "
        if i == -1:
            where, missing = "truncated before the first layer, or not a Caffe model: ", " missing"
        elif inside < 3:  # in the tag (2 bytes) or the length (1 byte for data and conv1)
            where, missing = before, "at least 1 byte is missing"
        elif inside < 5 + len(names[i]):  # the name's own tag and length
            where = f"truncated in layer {i + 1}" + (", before the end of its name: " if inside > 3 else "")
        else:
            where = f"truncated in layer {i + 1}, '{names[i]}': "
        assert line.startswith(where)
        assert f"{missing}; copy the file or download it again" in line


def test_other_formats_do_not_look_like_caffe(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("a/data.pkl", b"x" * 100)
    contents = {
        "safetensors": struct.pack("<Q", len(header)) + header + bytes(4),
        "onnx": number(1, 7) + chunk(2, "pytorch") + chunk(7, chunk(1, b"\x0a\x01x")),
        "tensorflow": chunk(1, chunk(1, "x") + chunk(2, "Placeholder")) + chunk(4, number(1, 22)),
        "solverstate": number(1, 100) + chunk(2, "snapshots/p3d_iter_100.caffemodel") + chunk(3, blob(BIAS)),
        "pickle": b"\x80\x02}q\x00.",
        "nameless": net("P3D", [layer("", "ReLU")]),
        "unprintable": net("P3D", [layer("\x07", "ReLU")]),
        "zeros": bytes(1000),
        "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    }
    for name, content in contents.items():
        saved(tmp_path, content, name)
    for path in sorted(tmp_path.iterdir()):
        assert not looks_like_caffemodel(path), path.name
        if path.name not in ("unprintable",):
            with pytest.raises(Pseudo3dError):
                CaffeModel(path)


@given(
    st.sampled_from(FUZZED),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255) | st.binary(max_size=12)), max_size=5),
    st.integers(0, 2**16),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_read_or_said(tmp_path, content, changes, end):
    """Bytes replaced and inserted anywhere, and the file cut: arrays or one line, nothing else."""
    changed = bytearray(content)
    for at, what in changes:
        at %= len(changed)
        changed[at : at + isinstance(what, int)] = bytes([what]) if isinstance(what, int) else what
    path = saved(tmp_path, bytes(changed[: end % (2 * len(changed))]))
    lines = []
    for read in (read_all, read_blob, looks_like_caffemodel):
        try:
            read(path)
        except Pseudo3dError as error:
            lines.append(str(error))
    assert all(line.startswith(f"{path}: ") and line.isprintable() for line in lines)


def test_memory_is_that_of_one_layer(tmp_path):
    """However long the file, and whatever lengths it claims."""
    array = np.ones((512, 512), np.float32)
    path = saved(tmp_path, net("", [layer(f"fc{i}", "InnerProduct", [array]) for i in range(24)]))
    claim = net("", [RELU]) + tag(100, LENGTH) + varint(2**31 - 1) + tag(9, LENGTH)
    hostile = saved(tmp_path, claim, "hostile")
    tracemalloc.start()
    try:
        with CaffeModel(path) as model:
            for name in model.layer_names:
                assert model.layer(name).blobs[0].shape == (512, 512)
            model.shapes()
        assert tracemalloc.get_traced_memory()[1] < 1.25 * array.nbytes
        tracemalloc.reset_peak()
        with pytest.raises(
            Pseudo3dError, match="truncated in layer 2, before the end of its name: 2,147,483,646 bytes"
        ):
            CaffeModel(hostile)
        assert tracemalloc.get_traced_memory()[1] < 0.5 * array.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not list what is mapped")
def test_no_file_stays_mapped(tmp_path):
    good, bad = saved(tmp_path, damaged(BIAS), "good"), saved(tmp_path, damaged(BIAS)[:-1], "bad")
    odd = saved(tmp_path, damaged(BIAS, shape=(5,)), "odd")
    mean = saved(tmp_path, blob(BIAS), "mean")
    with CaffeModel(good) as model:
        model.layer("conv1")
        assert str(good) in Path("/proc/self/maps").read_text()
    read_blob(mean)
    assert looks_like_caffemodel(good)
    with pytest.raises(Pseudo3dError) as first:
        CaffeModel(bad)
    with CaffeModel(odd) as model, pytest.raises(Pseudo3dError) as second:
        model.layer("conv1")
    with pytest.raises(Pseudo3dError) as third:
        read_blob(odd)
    assert all((first.tb, second.tb, third.tb))  # the frames of these errors are alive and hold no view of the files
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_the_limit_of_fields_is_not_used_up_by_reading_again(tmp_path):
    content = chunk(7, chunk(1, b"\4")) + number(9, 1) * 20_000 + numbers(5, BIAS, "<f4")
    with CaffeModel(saved(tmp_path, damaged(content))) as model:
        for _ in range(8):
            assert model.layer("conv1").blobs[0].tobytes() == BIAS.tobytes()


def test_nested_unknown_messages_are_not_entered(tmp_path):
    content = b""
    for _ in range(5_000):
        content = chunk(9, content)
    (got,) = read_all(saved(tmp_path, net("", [layer("a", "ReLU", extra=content)], extra=content)))
    assert got.name == "a"
