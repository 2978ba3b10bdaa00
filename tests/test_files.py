from pathlib import Path

import pytest

from pseudo3d import files


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path  # a rename does not cross file systems
        assert temporary.name.startswith(".")  # no glob for part-* or *.json sees it
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def write():
        with files.replacing(path) as temporary:
            temporary.write_text("ha")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_an_error_and_makes_no_file(tmp_path):
    with pytest.raises(FileNotFoundError), files.replacing(tmp_path / "a.txt"):
        pass
    assert not list(tmp_path.iterdir())


def test_text_is_utf8(tmp_path):
    files.write_text(tmp_path / "a.txt", "Prüfung\n")
    assert (tmp_path / "a.txt").read_bytes() == "Prüfung\n".encode()


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("PSEUDO3D_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert files.cache_folder() == Path.home() / ".cache" / "pseudo3d"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / "pseudo3d"
    monkeypatch.setenv("PSEUDO3D_CACHE", str(tmp_path / "mine"))
    assert files.cache_folder() == tmp_path / "mine"


def test_without_a_home_the_cache_is_temporary(monkeypatch, tmp_path):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("PSEUDO3D_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert files.cache_folder() == tmp_path / "pseudo3d"
