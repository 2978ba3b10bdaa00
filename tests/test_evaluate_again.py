"""``p3d evaluate NAME``: run again after further downloads, and what is refused before hours of extraction."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_stores import write_store
from official_more_sets import write_aslan
from official_sets import write_clip, write_kinetics, write_sports1m, write_ucf101, youtube_id
from tiny import mistake, names, one_thread, p3d, write_two_classes

from pseudo3d import FeatureStore, create_model, save_pretrained
from pseudo3d.commands.protocol_source import _from_root_of
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.official import read_official
from pseudo3d.evaluation.results import read_result
from pseudo3d.evaluation.scores import read_scores
from pseudo3d.features import digests
from pseudo3d.features.store import SourceFile, StoreWriter, VideoFeatures
from pseudo3d.files import sha256_of
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.clips import ClipPlan, ClipStream

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ("--clips", "2", "--device", "cpu", "--dtype", "float32", "--workers", "0")
NETWORK = ("--classifier", "network", "--splits")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a tiny network for these classes, each seed in a folder of its own."""

    def of(class_names, seed=0):
        with one_thread(), torch.random.fork_rng():
            torch.manual_seed(seed)
            model = create_model("p3d_resnet14", num_classes=len(class_names))
        model.preprocessing = model.preprocessing.with_size(32)
        model.class_names = tuple(class_names)
        return str(save_pretrained(model, tmp_path_factory.mktemp("net") / "w"))

    return of


def footnotes(out):
    return " / ".join(read_result(out).footnotes)


def listed_in(path):
    with path.open(newline="") as file:
        return [row["path"] for row in csv.DictReader(file)]


# what is missing, by its side


@pytest.mark.slow
def test_missing_training_videos_are_nothing_to_a_network(tmp_path, capsys, weights):
    data = write_ucf101(tmp_path / "ucf", classes=2, clips=1)
    net = weights(read_official("ucf101", data).samples.class_names)
    gone = data / "UCF-101" / "ApplyEyeMakeup" / "v_ApplyEyeMakeup_g22_c01.avi"  # trains in every split
    gone.unlink()
    command = ("evaluate", "ucf101", "--data", data, "--weights", net, *QUICK, "--out")
    assert p3d(capsys, *command, tmp_path / "network", *NETWORK, "1")[0] == 0
    assert "not there" not in footnotes(tmp_path / "network")
    assert "not below" not in footnotes(tmp_path / "network")
    assert "1 videos of the official lists are not there (ApplyEyeMakeup/v_ApplyEyeMakeup_g22_c01.avi); get" in mistake(
        capsys, *command, tmp_path / "svm", "--splits", "1"
    )
    (data / "UCF-101" / "ApplyLipstick" / "v_ApplyLipstick_g01_c01.avi").unlink()  # tests in split 1
    told = mistake(capsys, *command, tmp_path / "less", *NETWORK, "1")
    assert "1 videos of the official lists are not there (ApplyLipstick/v_ApplyLipstick_g01_c01.avi); get" in told
    assert p3d(capsys, *command, tmp_path / "less", *NETWORK, "1", "--allow-missing")[0] == 0
    assert "1 videos of the official lists are not there and are left out" in footnotes(tmp_path / "less")
    assert p3d(capsys, *command, tmp_path / "svm", "--splits", "1", "--allow-missing")[0] == 0
    assert "2 videos of the official lists are not there and are left out" in footnotes(tmp_path / "svm")


def test_missing_videos_are_counted_by_the_split_that_tests_them(tmp_path, capsys):
    data = write_ucf101(tmp_path / "ucf", classes=2, clips=1)
    samples = read_official("ucf101", data).samples
    stores = [
        write_store(tmp_path / f"store{split}", samples, samples.class_names, info={"weights": f"sha256:{split}"})
        for split in "123"
    ]
    for group in ("g01", "g08"):  # tested in split 1 and in split 2
        (data / "UCF-101" / "ApplyEyeMakeup" / f"v_ApplyEyeMakeup_{group}_c01.avi").unlink()
    command = ("evaluate", "ucf101", "--data", data, "--allow-missing", "--features")
    network = (*command, *stores, "--classifier", "network", "--out", tmp_path / "network")
    assert p3d(capsys, *network)[0] == 0
    told = [note for note in read_result(tmp_path / "network").footnotes if "not there" in note]
    text = "1 videos of the official lists are not there and are left out"
    assert told == [f"split 1: {text}", f"split 2: {text}"]
    assert p3d(capsys, *command, stores[0], "--out", tmp_path / "svm")[0] == 0
    told = [note for note in read_result(tmp_path / "svm").footnotes if "not there" in note]
    assert told == ["2 videos of the official lists are not there and are left out"]


# further downloads


def test_dead_links_that_come_to_life(tmp_path, capsys, weights):
    """One more test video goes into the store, the list, the scores and the tables; nothing is done twice."""
    data, out = write_sports1m(tmp_path / "sports", classes=2, train=2, test=3), tmp_path / "out"
    net = weights(read_official("sports1m", data).samples.class_names)
    command = ("evaluate", "sports1m", "--data", data, "--weights", net, "--out", out, *QUICK)
    assert p3d(capsys, *command)[0] == 0
    assert "2 videos of the official lists are not there and are left out" in footnotes(out)
    before = FeatureStore(out / "features")
    write_clip(data / "later" / f"{youtube_id('test', 0, 0)}.mp4", 0)  # which no folder of the others holds
    write_clip(data / "videos" / f"{youtube_id('train', 0, 0)}.mp4", 0)  # which is not tested
    code, printed, err = p3d(capsys, *command)
    assert (code, err) == (0, [])
    assert "1 videos, 2 clips" in printed
    assert "4 were there before" in printed
    assert "1 videos of the official lists are not there and are left out" in footnotes(out)
    after = FeatureStore(out / "features")
    assert set(after.videos) - set(before.videos) == {f"later/{youtube_id('test', 0, 0)}.mp4"}
    kept = [after.videos.index(video) for video in before.videos]
    assert np.array_equal(after.features("prob")[kept], before.features("prob"))
    assert sorted(listed_in(out / "videos.csv")) == [str(data / video) for video in after.videos]
    assert read_result(out).facts["tested videos"] == {"all": 5}
    assert len(read_scores(out / "scores.parquet").videos) == 5
    fresh = tmp_path / "fresh"  # as if all had been there at first
    assert p3d(capsys, *command[: -len(QUICK) - 1], fresh, *QUICK)[0] == 0
    assert read_result(fresh).measurements == read_result(out).measurements


def test_after_a_run_that_was_cut_too(tmp_path, capsys, weights, monkeypatch):
    data, out = write_ucf101(tmp_path / "ucf", classes=2, clips=1), tmp_path / "out"
    place = data / "UCF-101" / "ApplyEyeMakeup" / "v_ApplyEyeMakeup_g01_c01.avi"
    shutil.move(place, tmp_path / place.name)
    command = ("evaluate", "ucf101", "--data", data, "--weights", weights("ab"), "--out", out, *QUICK)
    with monkeypatch.context() as cut:
        cut.setattr("pseudo3d.commands.extract.Job.run", lambda job: 130)
        assert p3d(capsys, *command, "--allow-missing")[0] == 130
    assert len(listed_in(out / "videos.csv")) == 7
    shutil.move(tmp_path / place.name, place)
    assert p3d(capsys, *command)[0] == 0
    assert len(listed_in(out / "videos.csv")) == 8
    place.unlink()  # and the other way
    assert p3d(capsys, *command, "--allow-missing")[0] == 0
    assert len(listed_in(out / "videos.csv")) == 7
    assert read_result(out).facts["tested videos"] == {"1": 1, "2": 2, "3": 2}


def test_another_set_split_or_network_is_refused(tmp_path, capsys, weights):
    data, out = write_ucf101(tmp_path / "ucf", classes=2, clips=1), tmp_path / "out"
    classes = read_official("ucf101", data).samples.class_names
    net, other = weights(classes), weights(classes, seed=1)
    common = ("evaluate", "ucf101", "--out", out, *QUICK)
    command = (*common, "--data", data, "--weights", net)
    assert p3d(capsys, *command, *NETWORK, "1")[0] == 0
    copy = shutil.copytree(data, tmp_path / "copy")

    def state():
        return {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}

    before = state()
    assert "splits was 1 and is 2" in mistake(capsys, *command, *NETWORK, "2")
    assert "weights was" in mistake(capsys, *common, "--data", data, "--weights", other, *NETWORK, "1")
    assert "data was" in mistake(capsys, *common, "--data", copy, "--weights", net, *NETWORK, "1")
    assert state() == before
    (out / "result.json").unlink()  # as if it had been stopped before it was written
    before = state()
    for told in (
        mistake(capsys, *command, *NETWORK, "2"),
        mistake(capsys, *common, "--data", copy, "--weights", net, *NETWORK, "1"),
    ):
        assert f"{out / 'videos.csv'}: lists videos of another data set or split (" in told
        assert told.endswith("give another folder for --out")
    shutil.rmtree(data / "UCF-101")
    told = mistake(capsys, *common, "--data", copy, "--weights", net, *NETWORK, "1")
    assert "lists videos of another data set or split" in told  # though these are gone
    shutil.copytree(copy / "UCF-101", data / "UCF-101")
    code, _, err = p3d(capsys, *common, "--data", data, "--weights", other, *NETWORK, "1")
    assert code == 2
    assert "weights" in err[-1]
    assert {path: time for path, time in state().items() if path.name != "videos.csv"} == {
        path: time for path, time in before.items() if path.name != "videos.csv"
    }
    (out / "videos.csv").write_text("path,label\na,b,c\n")
    assert "videos.csv, line 2: 3 cells for 2 columns" in mistake(capsys, *command, *NETWORK, "1")


@pytest.mark.parametrize(
    ("root", "listed", "wanted"),
    [
        (None, ["b/2.mp4", "a/1.mp4"], ("data", ["a/1.mp4", "b/2.mp4"])),
        ("data", ["a/1.mp4"], ("data", ["a/1.mp4"])),
        ("data/a", ["a/2.mp4#t=1,2", "a/1.mp4"], ("data/a", ["1.mp4", "2.mp4#t=1,2"])),
        ("data/a", ["a/1.mp4", "b/2.mp4"], ("data", ["a/1.mp4", "b/2.mp4"])),  # then the store says what is wrong
    ],
)
def test_paths_start_where_those_of_the_store_do(tmp_path, root, listed, wanted):
    if root is not None:
        StoreWriter(tmp_path / "store", {"root": (tmp_path / root).as_posix()}).close()
    samples = SampleList(tmp_path / "x" / ".." / "data", tuple(map(Sample, listed)))
    found = _from_root_of(str(tmp_path / "store"), samples)
    assert (found.root, [sample.path for sample in found.samples]) == (tmp_path / wanted[0], wanted[1])


# files with many segments


def test_a_file_is_hashed_once_for_all_its_segments(tmp_path, capsys, weights, monkeypatch):
    read = []
    monkeypatch.setattr(digests, "sha256_of", lambda path: read.append(path.name) or sha256_of(path))
    for number, name in enumerate(("a.mp4", "b.mp4")):
        write_clip(tmp_path / name, number)
    rows = [f'"{name}#t=0.{i},0.{i + 3}",{name[0]}' for name in ("a.mp4", "b.mp4") for i in range(5)]
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    command = ("extract", tmp_path / "list.csv", "--weights", weights("ab"), "--out", tmp_path / "store", *QUICK)
    assert p3d(capsys, *command)[0] == 0
    assert sorted(read) == ["a.mp4", "b.mp4"]
    store = FeatureStore(tmp_path / "store")
    assert len(store) == 10
    assert [source.sha256 for source in store.sources] == [
        sha256_of(tmp_path / video.partition("#")[0]) for video in store.videos
    ]
    (tmp_path / "a.mp4").touch()  # the time alone differs: the content tells, once
    read.clear()
    assert "0 videos, 0 clips" in p3d(capsys, *command)[1]
    assert read == ["a.mp4"]


# segments of one file on two sides


def test_pieces_that_the_tables_of_kinetics_divide(tmp_path, capsys):
    """Counted, as pieces of one YouTube video that are files of their own are; a person's own list is refused."""
    data = write_kinetics(tmp_path / "kinetics", classes=2, whole=True, videos=False)
    shared = youtube_id("val", "abseiling", 0)
    with (data / "annotations" / "train.csv").open("a") as table:
        table.write(f'"abseiling",{shared},0,1,train\n')
    for table in ("train", "val", "test"):
        for line in (data / "annotations" / f"{table}.csv").read_text().splitlines()[1:]:
            (data / f"{line.split(',')[1]}.mp4").touch()
    samples = read_official("kinetics", data).samples
    assert {sample.path.partition("#")[0] for sample in samples.samples if shared in sample.path} == {f"{shared}.mp4"}
    store = write_store(tmp_path / "store", samples, samples.class_names)
    command = ("evaluate", "kinetics", "--data", data, "--features", store, "--out", tmp_path / "out")
    assert p3d(capsys, *command)[0] == 0
    assert "1 YouTube videos have pieces in several of train, val and test by the tables" in footnotes(tmp_path / "out")
    own = ("evaluate", "hits", "--features", store, "--out", tmp_path / "own")
    assert f"1 videos are both in train and in val ({shared}.mp4): keep them" in mistake(capsys, *own)


@pytest.mark.slow
def test_pairs_in_further_folders(tmp_path, capsys, weights):
    """ASLAN's videos have no labels and so no list; where more of them lie makes no other store of them."""
    data, out = tmp_path / "aslan", tmp_path / "out"
    write_aslan(data)
    first, last = data / "ASLAN_AVI" / "0001.avi", data / "more" / "0001.avi"
    shutil.move(first, tmp_path / "kept.avi")
    command = ("evaluate", "aslan", "--data", data, "--weights", weights("ab"), "--layers", "pool5", "--out", out)
    assert p3d(capsys, *command, *QUICK, "--allow-missing")[0] == 0
    last.parent.mkdir()
    shutil.move(tmp_path / "kept.avi", last)
    code, printed, err = p3d(capsys, *command, *QUICK)
    assert (code, err) == (0, [])
    assert "1 videos, 2 clips" in printed
    assert FeatureStore(out / "features").videos[-1] == "more/0001.avi"
    assert read_result(out).facts["pairs"] == {"all": 120, "used": 120, "tested": 120}


@pytest.mark.parametrize("content", ["12ab", None])
def test_a_store_of_segments(tmp_path, capsys, content):
    """By its own splits copies are counted; cross-validation keeps the segments of a file in one fold."""

    def store(folder, splits):
        with StoreWriter(tmp_path / folder, {"sampler": "uniform"}) as writer:
            for number in range(12):
                label, file = "ab"[number % 2], number // 2
                row = np.array([number % 2, 1 - number % 2, 0.01 * number], np.float32)
                source = SourceFile(9, 0, content and f"{content}{file}")
                video = f"{file}.mp4#t={number % 2},{number % 2 + 1}"
                writer.add(VideoFeatures(video, {"pool5": row}, (0,), 9, label=label, split=splits[number % 2],
                                         source=source))  # fmt: skip
        return tmp_path / folder

    code, printed, _ = p3d(capsys, "evaluate", store("none", (None, None)), "--folds", "3")
    assert code == 0
    assert "each group in one fold" in printed or "by group" in printed
    assert "note:" not in printed
    listed = [Sample(f"{i}.mp4#t=0,1", "ab"[i % 2], ("train", "test")[i // 2 % 2]) for i in range(8)]
    listed += [Sample("0.mp4#t=1,2", "a", "test")]
    split = write_store(tmp_path / "split", SampleList(tmp_path, tuple(listed), ("a", "b")), ("a", "b"))
    code, printed, _ = p3d(capsys, "evaluate", split)
    assert code == 0
    assert "note: 1 of 5 test videos have the content of a training video (0.mp4#t=1,2 is 0.mp4#t=0,1)" in printed


# the seed of random clips


def starts_of(store):
    return {video: tuple(store.timeline(video).starts) for video in store.videos}


def test_the_seed_of_sports1m(tmp_path, capsys, weights):
    data = write_sports1m(tmp_path / "sports", classes=2, train=1, test=3, dead=0)
    net = weights(read_official("sports1m", data).samples.class_names)
    command = ("evaluate", "sports1m", "--data", data, "--weights", net, *QUICK, "--out")
    starts = {}
    for seed in (0, 7):
        out = tmp_path / f"seed{seed}"
        assert p3d(capsys, *command, out, *(("--seed", seed) if seed else ()))[0] == 0
        facts = json.loads((out / "result.json").read_text())["facts"]
        assert (facts["seed"], facts["asked"]["seed"], facts["sampler"]) == (seed, seed, "random")
        store = FeatureStore(out / "features")
        starts[seed] = starts_of(store)
        plan = ClipPlan(Preprocessing(num_frames=16, resize=(32, 48), crop=(32, 32)), 2, "random", seed=seed)
        for video in store.videos:
            stream = ClipStream(data / video, plan)
            assert [len(frames) for _, frames in stream] == [16, 16]
            assert stream.facts.starts == starts[seed][video]
    assert starts[0] != starts[7]
    assert "seed was 7 and is 8" in mistake(capsys, *command, tmp_path / "seed7", "--seed", "8")
    assert "--seed must be 0 or more, got -1" in mistake(capsys, *command, tmp_path / "no", "--seed", "-1")
    given = ("evaluate", "sports1m", "--data", data, "--features", tmp_path / "seed7" / "features", "--out")
    assert "--seed: of an extraction (--weights)" in mistake(capsys, *given, tmp_path / "no", "--seed", "7")
    assert not (tmp_path / "no").exists()
    assert p3d(capsys, *given, tmp_path / "given")[0] == 0
    assert read_result(tmp_path / "given").facts["seed"] == 7


# one network for several splits


def test_copies_of_weights_are_refused_before_anything_is_extracted(tmp_path, capsys, weights, monkeypatch):
    def never(job):
        raise AssertionError("extracted")

    monkeypatch.setattr("pseudo3d.commands.extract.Job.run", never)
    data = write_ucf101(tmp_path / "ucf", classes=2, clips=1)
    net = weights(read_official("ucf101", data).samples.class_names)
    copy = shutil.copytree(net, tmp_path / "copy")
    file = shutil.copy(copy / "model.safetensors", tmp_path / "other.safetensors")
    command = ("evaluate", "ucf101", "--data", data, "--out", tmp_path / "out", *QUICK, *NETWORK, "1,2", "--weights")
    for second in (copy, file, f"{net}/"):
        told = mistake(capsys, *command, net, second)
        assert f"{net} and {second} are of the same weights: a network that was trained on one split has" in told
        assert "fewer --splits" in told
    assert "no such file or folder" in mistake(capsys, *command, net, tmp_path / "gone")
    assert names(tmp_path / "out") is None


# networks for other classes


@pytest.fixture
def never_decoded(monkeypatch):
    """No video is looked at."""

    def never(job):
        raise AssertionError("extracted")

    monkeypatch.setattr("pseudo3d.commands.extract.Job.run", never)


@pytest.mark.usefixtures("never_decoded")
def test_class_orders_that_differ_are_refused_before_anything_is_extracted(tmp_path, capsys, weights):
    data = write_ucf101(tmp_path / "ucf", classes=3, clips=1)
    classes = read_official("ucf101", data).samples.class_names
    nets = [weights(classes), weights(classes[::-1], seed=1)]
    command = ("evaluate", "ucf101", "--data", data, "--out", tmp_path / "out", *NETWORK, "1,2")
    told = mistake(capsys, *command, *QUICK, "--weights", *nets)
    assert f"{nets[0]} and {nets[1]} have the same classes in different orders (class 0 is '{classes[0]}' and " in told
    assert "train the networks of all splits on the same one" in told
    assert names(tmp_path / "out") is None
    samples = read_official("ucf101", data).samples
    stores = [
        write_store(tmp_path / name, samples, samples.class_names,
                    info={"weights": f"sha256:{name}", "class_names": list(order)})
        for name, order in (("one", classes), ("other", classes[::-1]))
    ]  # fmt: skip
    told = mistake(capsys, *command, "--features", *stores)
    assert f"{stores[0]} and {stores[1]} have the same classes in different orders" in told


@pytest.mark.usefixtures("never_decoded")
@pytest.mark.parametrize("given", ["random", "nameless"])
def test_another_number_of_classes_is_refused_before_anything_is_extracted(tmp_path, capsys, weights, given):
    """Random weights and those without class names: it shows when they are loaded."""
    data = write_two_classes(tmp_path / "data", 2)
    net, count = "random", 487
    if given == "nameless":
        net, count = weights(tuple("abcde")), 5
        config = json.loads(Path(net, "config.json").read_text())
        Path(net, "config.json").write_text(json.dumps(config | {"class_names": None}))
    command = ("evaluate", "hits", "--data", data, "--weights", net, "--out", tmp_path / "out", *QUICK)
    code, _, err = p3d(capsys, *command)
    assert code == 2
    assert f"the network has {count} classes, the data 2: it was trained on other data" in err[-1]
    assert names(tmp_path / "out") is None
