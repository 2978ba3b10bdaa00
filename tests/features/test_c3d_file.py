import struct

import numpy as np
import pytest

from pseudo3d import Pseudo3dError
from pseudo3d.features.c3d_file import read_c3d_features, write_c3d_features


def header(*sizes):
    return struct.pack("<5i", *sizes)


def test_a_file_is_its_five_sizes_and_its_numbers_in_order(tmp_path):
    values = [0.5 * i - 3 for i in range(2 * 3 * 1 * 2 * 2)]
    (tmp_path / "a.conv5b").write_bytes(header(2, 3, 1, 2, 2) + struct.pack("<24f", *values))
    got = read_c3d_features(tmp_path / "a.conv5b")
    assert got.dtype == np.float32
    assert got.shape == (2, 3, 1, 2, 2)
    assert got[1, 2, 0, 1, 0] == values[((1 * 3 + 2) * 1 + 0) * 4 + 2]
    assert got.ravel().tolist() == values
    got[0] = 7  # the caller's own


@pytest.mark.parametrize(
    ("shape", "written"),
    [
        ((2, 3, 4, 5, 6), (2, 3, 4, 5, 6)),
        ((1, 4096, 1, 1, 1), (1, 4096, 1, 1, 1)),
        ((4096,), (1, 4096, 1, 1, 1)),  # fc6 of one clip
        ((3, 8192), (3, 8192, 1, 1, 1)),
    ],
)
def test_round_trip(tmp_path, shape, written):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    path = write_c3d_features(str(tmp_path / "000016.fc6-1"), array)
    assert path.read_bytes() == header(*written) + struct.pack(f"<{array.size}f", *array.ravel().tolist())
    assert np.array_equal(read_c3d_features(path), array.reshape(written))
    assert [each.name for each in tmp_path.iterdir()] == ["000016.fc6-1"]


def test_other_memory_is_written_in_order_too(tmp_path):
    array = np.arange(24, dtype=">f4").reshape(2, 3, 1, 2, 2)
    for each in (array.astype(np.float32).transpose(1, 0, 2, 4, 3), array.astype(np.float32)[::-1]):
        assert np.array_equal(read_c3d_features(write_c3d_features(tmp_path / "a", each)), each)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "a.fc6: is empty; copy or extract it again"),
        (b"123", "a.fc6: has 3 bytes, fewer than the 20 of its header; copy"),
        (header(1, 4096, 1, 1, 1), r"says \(1, 4096, 1, 1, 1\), which takes 16,404 bytes, and the file has 20; it is"),
        (header(1, 2, 1, 1, 1) + b"\0" * 7, "which takes 28 bytes, and the file has 27"),
        (header(1, 2, 1, 1, 1) + b"\0" * 9, "which takes 28 bytes, and the file has 29"),
        (header(0, 2, 1, 1, 1), r"\(num, channels, length, height, width\) says \(0, 2, 1, 1, 1\); it is no feature"),
        (header(1, -2, -1, 1, 1) + b"\0" * 8, r"says \(1, -2, -1, 1, 1\)"),
        (header(*[2**31 - 1] * 5) + b"\0" * 8, "which takes 182,687,7.* bytes, and the file has 28"),
        (b"not a feature file at all", "it is not whole, or no feature file of the C3D tool"),
    ],
)
def test_what_is_not_a_whole_file(tmp_path, content, words):
    (tmp_path / "a.fc6").write_bytes(content)
    with pytest.raises(Pseudo3dError, match=words) as error:
        read_c3d_features(tmp_path / "a.fc6")
    assert "\n" not in str(error.value)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(Pseudo3dError, match="nothing: no such file; give a feature file of the C3D tool"):
        read_c3d_features(tmp_path / "nothing")
    with pytest.raises(Pseudo3dError, match="is a folder; give one of the feature files in it"):
        read_c3d_features(tmp_path)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((1, 4)), "holds float32, got float64; convert with .astype"),
        (np.zeros((1, 4), np.int32), "holds float32, got int32"),
        (np.zeros((1, 4, 1), np.float32), r"or \(num, D\) or \(D,\), none of them 0; got \(1, 4, 1\)"),
        (np.zeros((1,) * 6, np.float32), r"got \(1, 1, 1, 1, 1, 1\)"),
        (np.float32(3), r"got \(\)"),
        (np.zeros((0, 4), np.float32), r"got \(0, 4\)"),
        (np.broadcast_to(np.float32(0), (2**31,)), "does not fit into the 32-bit header"),
    ],
)
def test_what_cannot_be_written(tmp_path, array, words):
    (tmp_path / "a").write_bytes(b"precious")
    with pytest.raises(Pseudo3dError, match=words):
        write_c3d_features(tmp_path / "a", array)
    assert (tmp_path / "a").read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_missing_folder_is_the_systems_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_c3d_features(tmp_path / "none" / "a", np.ones(4, np.float32))
