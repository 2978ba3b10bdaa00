"""An extraction on a Ray cluster is that of one machine, also when a part of the cluster dies in the middle."""

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from reference import randomise
from videos import gradient, write_video

import pseudo3d
from pseudo3d import FeatureStore, Pseudo3dError, VideoEncoder, create_model, save_pretrained
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.features import distributed
from pseudo3d.features.decoders import Decoders
from pseudo3d.features.decoding_tasks import ROW, decode_paths
from pseudo3d.features.distributed import ClusterEncoder, NetworkActor, connected, place
from pseudo3d.features.extract import extract
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.clips import ClipPlan, ClipStream

ray = pytest.importorskip("ray")
VIDEOS = 40


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = randomise(create_model("p3d_resnet14", num_classes=2)).eval()
    model.preprocessing = model.preprocessing.with_size(32)
    return save_pretrained(model, tmp_path_factory.mktemp("weights") / "net")


def encoder_of(weights, **more):
    return VideoEncoder(weights=weights, device="cpu", dtype="float32", workers=0, **{"clips": 4, **more})


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for i in range(VIDEOS):
        write_video(root / f"{i:02}.mkv", [np.roll(gradient(32, 48), 5 * i + t, axis=1) for t in range(10 + 3 * i)])
    (root / "broken.mkv").write_bytes(b"no video")
    (root / "empty.mkv").write_bytes(b"")
    return SampleList(root, tuple(Sample(path.name, "x") for path in sorted(root.iterdir())))


@pytest.fixture(scope="module")
def many(tmp_path_factory, samples):
    """So many that a run over them takes a while: each video under six names."""
    root = tmp_path_factory.mktemp("many")
    for i in range(6):
        for sample in samples.samples:
            os.link(samples.root / sample.path, root / f"{i}_{sample.path}")
    return SampleList(root, tuple(Sample(path.name, "x") for path in sorted(root.iterdir())))


def assert_same(store, other):
    assert store.videos == other.videos
    assert np.array_equal(store.features(), other.features())
    assert store.failures == other.failures
    assert store.info == other.info
    assert store.to_pandas().astype(str).equals(other.to_pandas().astype(str))


# Without a cluster


def test_decoding_tasks_give_the_clips_and_the_facts_of_a_stream(samples):
    plan = ClipPlan(Preprocessing(resize=32, crop=(32, 32)), clips=3)
    names = ["05.mkv", "broken.mkv", "00.mkv"]
    paths = pa.table({"video": [7, 8, 9], "path": [os.fsencode(samples.root / name) for name in names]})
    rows = [row for table in decode_paths(paths, plan, Decoders(1, 60.0, 2.0)) for row in table.to_pylist()]
    for video, name in ((7, "05.mkv"), (9, "00.mkv")):
        stream = ClipStream(samples.root / name, plan)
        wanted = {number: frames.copy() for number, frames in stream}
        own = [row for row in rows if row["video"] == video]
        got = {row["number"]: np.frombuffer(row["frames"], np.uint8).reshape(row["shape"]) for row in own[:-1]}
        assert got.keys() == wanted.keys()
        assert all(np.array_equal(got[number], wanted[number]) for number in wanted)
        known = pickle.loads(own[-1]["known"])
        assert (known.facts, known.error) == (stream.facts, None)
    failed = pickle.loads(next(row for row in rows if row["video"] == 8)["known"])
    assert failed.facts is None
    assert "is not a video that FFmpeg can read" in failed.error


def test_an_actor_computes_what_the_runner_does(samples, weights):
    encoder = encoder_of(weights).load()
    runner = encoder.runner_
    actor = NetworkActor(encoder.ready_.network, runner.describe(), ("pool5", "prob"), pseudo3d.__version__)
    clips = np.random.default_rng(0).integers(0, 256, (5, 16, 32, 32, 3), np.uint8)
    rows = [
        {"video": 1, "reading": 1, "number": i, "shape": list(clip.shape), "frames": clip.tobytes(), "known": None}
        for i, clip in enumerate(clips)
    ]
    rows.insert(2, {**rows[0], "shape": None, "frames": None, "known": b"facts"})
    out = actor(pa.Table.from_pylist(rows, ROW)).to_pylist()
    assert [row["number"] for row in out] == [0, 1, 0, 2, 3, 4]
    assert (out.pop(2)["known"], out[0]["known"]) == (b"facts", None)
    for clip, row in zip(clips, out, strict=True):
        (wanted,) = runner([clip], ("prob",))["prob"]
        assert np.array_equal(pickle.loads(row["features"])["prob"], wanted)


@pytest.mark.parametrize(
    ("nodes", "device", "threads", "wanted"),
    [
        ([{"CPU": 2.0}], "cpu", 2, (1, 1, 0)),
        ([{"CPU": 1.0}, {"CPU": 1.0}, {}], "cpu", 8, (1, 1, 0)),
        ([{"CPU": 64.0}] * 10, "cpu", 16, (30, 16, 0)),
        ([{"CPU": 16.0, "GPU": 1.0}, {"CPU": 4.0}], "cuda", 16, (1, 1, 1)),
    ],
)
def test_every_machine_keeps_a_cpu_for_decoding(nodes, device, threads, wanted):
    assert place(nodes, device, threads) == distributed.Placement(*wanted)


def test_clusters_that_are_too_small():
    with pytest.raises(Pseudo3dError, match=r"offers 1 CPUs; a network and a decoder need 2"):
        place([{"CPU": 1.0}], "cpu", 1)
    with pytest.raises(Pseudo3dError, match=r"offers no GPU.*use --device cpu"):
        place([{"CPU": 8.0}], "cuda", 1)


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Pseudo3dError, match=r"--cluster ray needs Ray; pip install 'pseudo3d\[ray\]'"), connected():
        pass


def test_only_one_file_imports_ray():
    source = Path(distributed.__file__).parents[1]
    found = {path.name for path in source.rglob("*.py") if "import ray" in path.read_text(encoding="utf-8")}
    assert found == {"distributed.py"}


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            "stack\n  File x\nModuleNotFoundError: No module named 'pseudo3d'\nmore",
            r"a machine of the Ray cluster lacks a package \(.*No module named 'pseudo3d'\); install pseudo3d on all",
        ),
        ("stack\nValueError: 7", r"the Ray cluster failed \(ValueError: 7\); what is done is in the store"),
    ],
)
def test_errors_of_a_cluster_are_one_line(told, line):
    assert re.fullmatch(rf"{line}.*", distributed._in_one_line(RuntimeError(told)))


# On a cluster


@pytest.fixture
def cluster(monkeypatch):
    """A head without networks' machines beside it, and two of those; all of them on this machine."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    monkeypatch.setenv("RAY_ADDRESS", made.address)
    yield made
    made.shutdown()


def run_cli(samples, weights, out, *options, **environment):
    command = [sys.executable, "-m", "pseudo3d.cli", "extract", str(samples.root), "--weights", str(weights)]
    command += ["--out", str(out), "--clips", "4", "--device", "cpu", "--dtype", "float32", *options]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)


def test_an_unreachable_cluster_is_one_line_and_nothing_is_written(samples, weights, tmp_path):
    done = run_cli(samples, weights, tmp_path / "s", "--cluster", "ray", RAY_ADDRESS="127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("p3d extract: no Ray cluster can be reached at 127.0.0.1:1 ("), (
        done.stderr
    )
    assert "start one with `ray start --head`, or set RAY_ADDRESS" in done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
def test_a_cluster_gives_the_store_of_one_machine(samples, weights, cluster, tmp_path):
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    extract(encoder_of(weights), samples, tmp_path / "one", layers=("pool5", "res5"), per_clip=True)
    report = extract(
        encoder_of(weights), samples, tmp_path / "ray", layers=("pool5", "res5"), per_clip=True, cluster="ray"
    )
    assert (report.encoded, len(report.failures)) == (VIDEOS, 2)
    assert_same(FeatureStore(tmp_path / "ray"), FeatureStore(tmp_path / "one"))
    again = extract(
        encoder_of(weights), samples, tmp_path / "ray", layers=("pool5", "res5"), per_clip=True, cluster="ray"
    )
    assert (again.encoded, again.already_done) == (0, VIDEOS)

    sliding = [encoder_of(weights, sampler="sliding", stride=3) for _ in range(2)]
    extract(sliding[0], samples, tmp_path / "one sliding")
    extract(sliding[1], samples, tmp_path / "ray sliding", cluster="ray")
    assert_same(FeatureStore(tmp_path / "ray sliding"), FeatureStore(tmp_path / "one sliding"))

    with connected():  # decoders and networks are not made one, which would decode in the networks' processes
        dataset = ClusterEncoder(encoder_of(weights).load(), ("pool5",), False).dataset(
            {i: samples.root / sample.path for i, sample in enumerate(samples.samples)}
        )
        rows = sum(len(table) for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
        assert rows > VIDEOS
        assert "MapBatches(decode_paths)" in dataset.stats()
        assert "decode_paths)->" not in dataset.stats()


@pytest.mark.slow
def test_mirrored_features_of_a_cluster_are_those_of_one_machine(samples, weights, cluster, tmp_path):
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    for name, options in {"one": (), "ray": ("--cluster", "ray")}.items():
        done = run_cli(samples, weights, tmp_path / name, "--mirror", *options)
        assert done.returncode == 1, done.stderr  # two files are no videos
    one, ray_store = FeatureStore(tmp_path / "one"), FeatureStore(tmp_path / "ray")
    assert len(one.videos) == VIDEOS
    assert one.info["mirror"] is True
    assert_same(ray_store, one)
    extract(encoder_of(weights), samples, tmp_path / "plain")
    assert not np.allclose(FeatureStore(tmp_path / "plain").features(), one.features(), rtol=1e-3)


def processes(title):
    """Those whose name begins so, as Ray names its workers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cmdline").read_bytes().startswith(title):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.mark.slow
def test_killed_workers_and_a_killed_machine_change_nothing(many, weights, cluster, tmp_path):
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    extract(encoder_of(weights, clips=12), many, tmp_path / "one")
    killed = []

    def kill_workers(title):
        for pid in processes(title):
            os.kill(pid, signal.SIGKILL)
            killed.append(title)

    def on_video(progress):
        done.append(time.monotonic())
        if len(done) == 1:
            kill_workers(b"ray::MapWorker")  # the networks
        if len(done) == 8:
            kill_workers(b"ray::MapBatches(decode")
        if len(done) == 16:
            cluster.remove_node(nodes[1], allow_graceful=False)
            killed.append(b"machine")

    done = []
    slow = encoder_of(weights, clips=12)
    report = extract(slow, many, tmp_path / "ray", cluster="ray", on_video=on_video)
    assert b"ray::MapWorker" in killed
    assert b"machine" in killed
    assert len(done) == 6 * VIDEOS + 12  # each once
    assert done[-1] - done[15] > 1.0, done  # there was much left to do when the machine went
    assert report.encoded == 6 * VIDEOS
    assert_same(FeatureStore(tmp_path / "ray"), FeatureStore(tmp_path / "one"))


@pytest.mark.slow
def test_a_machine_without_the_package_is_named(samples, weights, cluster, tmp_path):
    fake = tmp_path / "empty" / "pseudo3d"
    fake.mkdir(parents=True)
    (fake / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'pseudo3d'\")\n")
    cluster.add_node(num_cpus=4, env_vars={"PYTHONPATH": str(fake.parent)})
    done = run_cli(samples, weights, tmp_path / "s", "--cluster", "ray")
    assert done.returncode == 2, done.stderr
    assert "a machine of the Ray cluster lacks a package" in done.stderr.splitlines()[-1]
