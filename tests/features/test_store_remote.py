"""Stores where fsspec leads: memory://, file://, and an S3 server on this machine."""

import socket
import subprocess
import sys
import time
import uuid

import numpy as np
import pytest

from pseudo3d import FeatureStore, Pseudo3dError
from pseudo3d.features.exports import export_store
from pseudo3d.features.store import StoreWriter, VideoFeatures, read_info

fsspec = pytest.importorskip("fsspec")
INFO = {"weights": "sha256:1"}


def row(video):
    values = np.random.default_rng(list(video.encode())).normal(size=4).astype(np.float32)
    return VideoFeatures(video, {"pool5": values}, (0, 9), 25, clips={"pool5": np.stack([values, values])})


@pytest.fixture
def memory():
    url = f"memory://bucket/{uuid.uuid4().hex}/features"
    yield url
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def use_all_of_it(url, folder):
    """A life of a store: made, gone on with, changed, read, joined, exported."""
    assert read_info(url) is None
    with pytest.raises(Pseudo3dError, match=r"features: not a feature store \(no store.json\)"):
        FeatureStore(url)
    with StoreWriter(url, INFO, rows_per_part=2, seconds=0) as writer:
        for video in ("b/x.mp4", "a.mp4", "c.mp4"):
            writer.add(row(video))
        writer.add_failure("d.mp4", "d.mp4: bad")
    with StoreWriter(url, INFO) as writer:
        assert set(writer.done) == {"b/x.mp4", "a.mp4", "c.mp4"}
        writer.add_failure("a.mp4", "a.mp4: bad now")
        writer.add(row("d.mp4"))
    with pytest.raises(Pseudo3dError, match="another weights"):
        StoreWriter(url, {"weights": "sha256:2"})
    store = FeatureStore(url)
    assert (store.videos, store.failures) == (["b/x.mp4", "c.mp4", "d.mp4"], {"a.mp4": "a.mp4: bad now"})
    assert (store.info, store.name, store.location) == (INFO, "features", url)
    expected = np.stack([row(video).layers["pool5"] for video in store.videos])
    assert np.array_equal(store.features(), expected)
    assert np.array_equal(store.clip_features("c.mp4"), np.stack([expected[1]] * 2))
    store.add("idt", store.videos[::-1], np.array([[3.0], [2.0], [1.0]]))
    assert FeatureStore(url).features("idt").tolist() == [[1.0], [2.0], [3.0]]
    assert export_store(FeatureStore(url), folder / "npy", "npy", layers=["pool5"]) == 3
    assert np.array_equal(np.load(folder / "npy" / "b" / "x.npy"), expected[0])


def test_memory(memory, tmp_path):
    use_all_of_it(memory, tmp_path)
    system = fsspec.filesystem("memory")
    names = sorted(path.rpartition("/")[2] for path in system.ls(memory.removeprefix("memory:/"), detail=False))
    assert names[0] == "columns"
    assert names[1:2] == ["failures.jsonl"]
    assert names[-1] == "store.json"
    assert len([name for name in names if name.startswith("part-")]) == 1


def test_a_file_url_is_a_folder(tmp_path):
    with StoreWriter(f"file://{tmp_path}/s", INFO) as writer:
        writer.add(row("a"))
        with pytest.raises(Pseudo3dError, match="is being written by process"):
            StoreWriter(tmp_path / "s", INFO)
    assert FeatureStore(tmp_path / "s").videos == ["a"]


def test_what_a_killed_writer_left(memory):
    writer = StoreWriter(memory, INFO, seconds=0)
    writer.add(row("a"))
    system = fsspec.filesystem("memory")
    path = memory.removeprefix("memory:/")
    system.pipe_file(f"{path}/part-00001-0badf00d.parquet", b"PAR1 half")  # put, and not yet named
    assert FeatureStore(memory).videos == ["a"]
    with StoreWriter(memory, INFO) as other:
        assert not system.exists(f"{path}/part-00001-0badf00d.parquet")
        other.add(row("b"))
    assert FeatureStore(memory).videos == ["a", "b"]


def test_two_writers_where_there_is_no_lock(memory):
    first, second = StoreWriter(memory, INFO), StoreWriter(memory, INFO)
    first.add(row("a"))
    second.add(row("b"))
    second.close()
    with pytest.raises(Pseudo3dError, match="another process has written to this store; end it, and run"):
        first.close()
    assert FeatureStore(memory).videos == ["b"]


def test_an_upload_that_fails(memory, monkeypatch):
    """The store stays as it was, and the call can be repeated."""
    system = type(fsspec.filesystem("memory"))
    writer = StoreWriter(memory, INFO)
    writer.add(row("a"))
    for k in (0, 1):
        real, calls = system.pipe_file, []

        def pipe_file(self, path, value, k=k, real=real, calls=calls, **options):
            calls.append(path)
            if len(calls) > k:
                raise OSError(5, "connection lost")
            return real(self, path, value, **options)

        with monkeypatch.context() as patch:
            patch.setattr(system, "pipe_file", pipe_file)
            with pytest.raises(OSError, match="connection lost"):
                writer.flush()
            assert FeatureStore(memory).videos == []
    writer.close()
    assert FeatureStore(memory).videos == ["a"]


def test_other_files_and_unknown_places(memory):
    fsspec.filesystem("memory").pipe_file(memory.removeprefix("memory:/") + "/holiday.jpg", b"")
    with pytest.raises(Pseudo3dError, match="holds other files and no store; give a new folder for --out"):
        StoreWriter(memory, INFO)
    with pytest.raises(Pseudo3dError, match=r"nonsense://x/y: .*nonsense.*; pip install 'pseudo3d\[remote\]'"):
        FeatureStore("nonsense://x/y")


@pytest.fixture
def s3(monkeypatch):
    """The URL of an empty bucket on a server of this machine."""
    for package in ("s3fs", "moto", "flask"):
        pytest.importorskip(package)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            monkeypatch.setenv(f"AWS_{name}", "x")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for _ in range(300):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
            time.sleep(0.1)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket/deep/features"
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_s3(s3, tmp_path):
    use_all_of_it(s3, tmp_path)


@pytest.mark.slow
def test_two_writers_on_s3(s3):
    test_two_writers_where_there_is_no_lock(s3)
