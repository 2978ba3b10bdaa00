"""Folders that cannot be written and disks that fill up: one line, and what was written before stays whole."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tiny import QUICK, SMALL, mistake, names, p3d

from pseudo3d import FeatureStore, from_pretrained
from pseudo3d.features.store import StoreWriter
from pseudo3d.files import replacing

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("command", ["train", "extract", "evaluate", "visualize"])
def test_a_folder_that_cannot_be_written(command, code, two_classes, weights, store, tmp_path, capsys, monkeypatch):
    out = tmp_path / "deep" / "out"
    line = {
        "train": ("train", "--data", two_classes, *SMALL),
        "extract": ("extract", two_classes, "--weights", weights, *QUICK),
        "evaluate": ("evaluate", store),
        "visualize": ("visualize", store),
    }[command]
    real = os.mkdir

    def mkdir(path, *args, **kwargs):
        if str(path).startswith(str(tmp_path)):
            raise OSError(code, os.strerror(code), str(path))
        real(path, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", mkdir)
    advice = "make space and run the same command again" if code == errno.ENOSPC else "a folder that you may write to"
    text = mistake(capsys, *line, "--out", out)
    assert str(tmp_path / "deep") in text
    assert os.strerror(code) in text
    assert advice in text
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_without_permission(two_classes, weights, tmp_path, capsys):
    tmp_path.chmod(0o500)
    for command in (
        ("train", "--data", two_classes, *SMALL),
        ("extract", two_classes, "--weights", weights, *QUICK),
    ):
        assert "choose a folder that you may write to" in mistake(capsys, *command, "--out", tmp_path / "out")
    tmp_path.chmod(0o700)
    assert names(tmp_path) == []


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FULL_LINE = "No space left on device; make space and run the same command again (what was written before is whole)"
FULL_LINE_OF_TRAINING = FULL_LINE.replace("again (", "again with --resume auto (")


def test_a_full_disk_while_extracting(two_classes, weights, tmp_path, capsys, monkeypatch):
    """The parts that were written stay whole, no temporary file is left, and the same command goes on."""
    real, calls = pq.ParquetWriter.write_table, []

    def write_table(self, table, **options):
        real(self, table, **options)
        calls.append(table)
        if len(calls) > 1:
            full()

    args = ("extract", two_classes, "--weights", weights, "--out", tmp_path / "s", *QUICK)
    initialise = StoreWriter.__init__
    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", write_table)
        patch.setattr(StoreWriter, "__init__", lambda self, *a, **k: initialise(self, *a, **{**k, "rows_per_part": 4}))
        assert mistake(capsys, *args) == f"p3d extract: {FULL_LINE}"
    assert names(tmp_path / "s") == ["part-00000.parquet", "store.json"]
    assert len(FeatureStore(tmp_path / "s")) == 4
    code, out, _ = p3d(capsys, *args)
    assert code == 0
    assert "8 videos" in out
    assert "4 were there before" in out


def test_a_full_disk_at_a_checkpoint(two_classes, tmp_path, capsys, monkeypatch):
    from pseudo3d.weights import pretrained

    real, calls = pretrained.save_file, []

    def save_file(state, path, metadata):
        calls.append(path)
        if len(calls) > 3:  # best, and last with its optimizer, of the first epoch
            Path(path).write_bytes(b"half")
            full()
        real(state, path, metadata=metadata)

    monkeypatch.setattr(pretrained, "save_file", save_file)
    run = tmp_path / "run"
    code, _, err = p3d(capsys, "train", "--data", two_classes, "--out", run, *SMALL, "--epochs", "3")
    assert code == 2
    assert err[-1] == f"p3d train: {FULL_LINE_OF_TRAINING}"
    assert "Traceback" not in "".join(err)
    assert names(run / "checkpoints") == [".lock", "best", "last"]
    whole = ["README.md", "config.json", "model.safetensors"]
    assert names(run / "checkpoints" / "best") == whole
    assert names(run / "checkpoints" / "last") == [*whole, "optimizer.safetensors", "state.json"]
    for name in ("best", "last"):
        assert from_pretrained(run / "checkpoints" / name).class_names == ("bright", "dark")


def test_a_full_disk_at_the_first_checkpoint(two_classes, tmp_path, capsys, monkeypatch):
    from pseudo3d.weights import pretrained

    monkeypatch.setattr(pretrained, "save_file", full)
    code, _, err = p3d(capsys, "train", "--data", two_classes, "--out", tmp_path / "deep" / "run", *SMALL)
    assert (code, err[-1]) == (2, f"p3d train: {FULL_LINE_OF_TRAINING}")
    assert names(tmp_path) == []  # nothing of use was there: the name is free again


@pytest.mark.parametrize("file", ["metrics.json", "confusion.png", "confusion.svg"])
def test_a_full_disk_while_evaluating(file, store, tmp_path, capsys, monkeypatch):
    real = os.replace

    def replace(source, target, **kwargs):
        if Path(target).name == file:
            full()
        real(source, target, **kwargs)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Path, "replace", lambda self, target: replace(self, target))
    assert mistake(capsys, "evaluate", store, "--out", tmp_path / "e") == f"p3d evaluate: {FULL_LINE}"
    order = ["metrics.json", "confusion.png", "confusion.svg"]
    assert names(tmp_path / "e") == sorted(order[: order.index(file)])


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_real_limit_in_a_real_process(two_classes, tmp_path):
    """The operating system's own refusal, through safetensors' own error: still one line."""
    code = f"""
import resource, signal, sys
import pseudo3d.training.loop
from pseudo3d.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.exit(main({["train", "--data", str(two_classes), "--out", str(tmp_path / "run"), *SMALL]!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert names(tmp_path) == []


def test_replacing_leaves_nothing_behind(tmp_path):
    (tmp_path / "a").write_text("old")

    def write():
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            full()

    with pytest.raises(OSError, match="No space"):
        write()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"
