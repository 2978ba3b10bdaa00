"""Caffe's binary files made by hand: an independent writer of protobuf's wire format, without protobuf and pseudo3d.

    net("P3D", [layer("conv1", "Convolution", [weight], bottoms=["data"])])
    net("C3D", [v1_layer("conv1a", 30, [weight, bias], c3d=True)])

These return bytes; ``saved`` writes them. The keywords of ``blob`` can be given to ``layer`` and ``v1_layer`` too.
"""

import numpy as np

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5


def varint(number):
    """Seven bits a byte, lowest first; negative numbers are 64-bit two's complement."""
    number &= 2**64 - 1
    out = []
    while True:
        number, low = divmod(number, 128)
        if number == 0:
            return bytes([*out, low])
        out.append(low + 128)


def tag(field, wire):
    return varint(field * 8 + wire)


def number(field, value):
    return tag(field, VARINT) + varint(value)


def chunk(field, content):
    """A length-delimited field: a string, a message or packed numbers."""
    content = content.encode() if isinstance(content, str) else content
    return tag(field, LENGTH) + varint(len(content)) + content


def numbers(field, values, dtype, *, packed=True, pieces=1):
    """A repeated float or double: packed in ``pieces`` fields, or every value with a tag of its own."""
    values = np.asarray(values, dtype).reshape(-1)
    if packed:
        return b"".join(chunk(field, piece.tobytes()) for piece in np.array_split(values, pieces))
    each = tag(field, FIXED32 if values.itemsize == 4 else FIXED64)
    return b"".join(each + value.tobytes() for value in values)


def shape_message(sizes, *, packed=True):
    if packed:
        return chunk(1, b"".join(varint(size) for size in sizes))
    return b"".join(number(1, size) for size in sizes)


def blob(
    array, *, shape=None, legacy=False, c3d=False, double=False, packed=True, packed_dims=True, pieces=1, diff=False
):
    """An array as a BlobProto; alone in a file it is a .binaryproto.

    ``shape``: instead of the array's, also a wrong one. ``legacy``: four sizes instead of a shape message, the shape
    padded with ones in front. ``c3d``: the five sizes and other field numbers of C3D's fork. ``diff``: with gradients.
    """
    array = np.asarray(array)
    sizes = tuple(array.shape if shape is None else shape)
    if c3d or legacy:
        rank = 5 if c3d else 4
        sizes = (1,) * (rank - len(sizes)) + sizes
        out = b"".join(number(i, size) for i, size in enumerate(sizes, start=1))
        data_field = 6 if c3d else 5
    else:
        out = chunk(7, shape_message(sizes, packed=packed_dims))
        data_field = 5
    if double:
        out += numbers(8, array, "<f8", packed=packed, pieces=pieces)
    else:
        out += numbers(data_field, array, "<f4", packed=packed, pieces=pieces)
    if diff:
        out += numbers(data_field + 1, np.ones(array.size), "<f4", packed=packed)
    return out


def layer(name, type_, arrays=(), *, bottoms=(), tops=(), extra=b"", **how):
    """A layer of today's files, as the field 100 of a network; an array may also be the bytes of a blob."""
    out = chunk(1, name) + chunk(2, type_)
    out += b"".join(chunk(3, bottom) for bottom in bottoms) + b"".join(chunk(4, top) for top in tops)
    out += numbers(5, [1.0], "<f4", packed=False)  # loss_weight
    out += b"".join(chunk(7, a if isinstance(a, bytes) else blob(a, **how)) for a in arrays)
    out += chunk(106, number(1, 64) + number(2, 0))  # convolution_param
    return chunk(100, out + extra)


def v1_layer(name, type_number, arrays=(), *, bottoms=(), tops=(), extra=b"", **how):
    """A layer of old files, as the field 2 of a network."""
    out = b"".join(chunk(2, bottom) for bottom in bottoms) + b"".join(chunk(3, top) for top in tops)
    out += chunk(4, name) + number(5, type_number)
    out += b"".join(chunk(6, a if isinstance(a, bytes) else blob(a, **how)) for a in arrays)
    out += numbers(7, [1.0, 2.0], "<f4", packed=False)  # blobs_lr
    return chunk(2, out + extra)


def net(name, layers, extra=b""):
    """A whole .caffemodel."""
    return chunk(1, name) + extra + b"".join(layers)


def saved(folder, content, name="a.caffemodel"):
    """The path of a file with this content."""
    path = folder / name
    path.write_bytes(content)
    return path
