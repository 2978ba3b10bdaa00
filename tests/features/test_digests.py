"""Files are hashed once in a run, whatever number of segments they have."""

import hashlib
import os
from collections import Counter

import pytest

from pseudo3d.features import digests as module
from pseudo3d.features.digests import Digests
from pseudo3d.features.rows import SourceFile
from pseudo3d.features.todo import content_of


@pytest.fixture
def read(monkeypatch):
    """How often each file was read to be hashed."""
    counts = Counter()

    def counted(path):
        counts[path.name] += 1
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(module, "sha256_of", counted)
    return counts


def written(path, content, modified=1):
    path.write_bytes(content)
    os.utime(path, ns=(modified, modified))
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once_until_it_changes(tmp_path, read):
    path, digests = tmp_path / "a.mp4", Digests()
    first = written(path, b"abc")
    assert {digests.of(f"{path}#t={i},{i + 1}") for i in range(9)} == {digests.of(path)} == {first}
    assert read == {"a.mp4": 1}
    assert digests.of(path) == first != written(path, b"abd", modified=2) == digests.of(path)
    assert written(path, b"abcd", modified=2) == digests.of(path)
    assert read == {"a.mp4": 3}
    assert content_of(tmp_path / "gone.mp4", digests) is None
    with pytest.raises(FileNotFoundError):
        digests.of(tmp_path / "gone.mp4")


def test_few_are_remembered(tmp_path, read):
    digests = Digests(kept=2)
    for name in "abc":
        written(tmp_path / name, name.encode())
    for name in ("a", "b", "a", "c", "a", "b"):
        digests.of(tmp_path / name)
    assert read == {"a": 1, "b": 2, "c": 1}  # c put out b, which was asked for longest ago


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    path, digests, reads = tmp_path / "a.mp4", Digests(), []
    written(path, b"abc")

    def growing(file):
        reads.append(file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        if len(reads) == 1:
            written(path, b"abcdef", modified=2)
        return digest

    monkeypatch.setattr(module, "sha256_of", growing)
    digests.of(path)
    assert digests.of(path) == digests.of(path) == hashlib.sha256(b"abcdef").hexdigest()
    assert len(reads) == 2
    assert SourceFile(6, 2, digests.of(path)).sha256 == hashlib.sha256(b"abcdef").hexdigest()
