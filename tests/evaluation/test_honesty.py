import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo3d import FeatureStore, Pseudo3dError
from pseudo3d.data.annotations import Sample, read_samples
from pseudo3d.evaluation.honesty import (
    check_class_order,
    check_content,
    check_copies,
    check_not_trained_on,
    check_sides,
    left_out_footnote,
)
from pseudo3d.evaluation.representations import read_representations
from pseudo3d.features.store import SourceFile
from pseudo3d.files import sha256_of


def sample(path, split, group=None):
    return Sample(path, "x", split, group)


def test_sides_that_share_nothing():
    check_sides([])
    check_sides([sample("a", "train", "g1"), sample("b", "test", "g2"), sample("c", None, "g1"), sample("d", "val")])


@pytest.mark.parametrize("sides", [("train", "test"), ("train", "val"), ("val", "test")])
@pytest.mark.parametrize("other", ["x/a.mp4", "x/../x/a.mp4", "x/a.mp4#t=5,9"])
def test_a_video_on_both_sides(sides, other):
    lists = [sample("x/a.mp4", sides[0]), sample("b.mp4", sides[0]), sample(other, sides[1])]
    with pytest.raises(Pseudo3dError, match=f"1 videos are both in {sides[0]} and in {sides[1]} .x/a.mp4.: keep them"):
        check_sides(lists)


def test_parts_that_an_official_list_divides_are_videos_of_their_own():
    check_sides([sample("a.mp4#t=0,5", "train"), sample("a.mp4#t=5,9", "test")], parts_apart=True)
    with pytest.raises(Pseudo3dError, match=r"1 videos are both in train and in test \(a.mp4#t=0,5\): keep them"):
        check_sides([sample("a.mp4#t=0,5", "train"), sample("a.mp4#t=0,5", "test")], parts_apart=True)


def test_a_group_on_both_sides():
    with pytest.raises(Pseudo3dError, match=r"1 groups are both in train and in test \(film\): keep them on one side"):
        check_sides([sample("a", "train", "film"), sample("b", "test", "film"), sample("c", "test")])


def test_the_same_content_on_both_sides():
    lists = [sample("a", "train"), sample("b", "val"), sample("c", "test"), sample("d", "test"), sample("e", "test")]
    sources = [SourceFile(1, 0, content) for content in ("1", "2", "1", "3", "2")]
    told = r"2 of 3 test videos have the content of a training video (c is a, e is b)"
    assert check_content(lists, sources, refuse=False) == (told,)
    with pytest.raises(
        Pseudo3dError, match=r"\(c is a, e is b\): keep each on one side, or give such videos one group"
    ):
        check_content(lists, sources)
    assert check_content(lists, [SourceFile()] * 5) == ()
    assert check_content(lists, [SourceFile(1, 0, str(number)) for number in range(5)]) == ()
    assert check_content(lists[:2], sources[:1] * 2, refuse=False) == (
        "1 of 1 test videos have the content of a training video (b is a)",
    )


@pytest.mark.parametrize("contents", [("1", "1"), (None, None), ("1", None)])
def test_parts_of_one_file_are_of_one_content(contents):
    lists = [sample("a.mp4#t=0,5", "train"), sample("x/../a.mp4#t=5,9", "test"), sample("b.mp4#t=0,5", "test")]
    sources = [SourceFile(1, 0, content) for content in (*contents, "2")]
    told = "1 of 2 test videos have the content of a training video (x/../a.mp4#t=5,9 is a.mp4#t=0,5)"
    assert check_content(lists, sources, refuse=False) == (told,)
    (note,) = check_copies(lists, sources)
    assert note.startswith("1 videos have the content of another one (x/../a.mp4#t=5,9 is a.mp4#t=0,5)")
    assert check_copies([sample(each.path, None, "film") for each in lists], sources) == ()


def test_files_are_read_once_to_be_compared(run, monkeypatch):
    read = []
    monkeypatch.setattr("pseudo3d.features.digests.sha256_of", lambda path: read.append(path) or sha256_of(path))
    (run.parent / "other").mkdir()
    (run.parent / "other" / "copy.mp4").write_bytes(bytes([7]) * 9)
    parts = [sample(f"copy.mp4#t={i},{i + 1}", "test") for i in range(5)]
    assert check_not_trained_on(info(run, "other"), parts) == ()
    assert sorted(path.name for path in read) == ["1.mp4", "2.mp4", "3.mp4", "copy.mp4"]


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["train", "val", "test", None]), st.sampled_from("abcd")), max_size=8))
def test_content_against_comparing_all_pairs(lists):
    samples = [sample(str(number), split) for number, (split, _) in enumerate(lists)]
    sources = [SourceFile(1, 0, content) for _, content in lists]
    tested = "test" if any(split == "test" for split, _ in lists) else "val"
    count = sum(
        split == tested and any(content == other and side not in (tested, None) for side, other in lists)
        for split, content in lists
    )
    notes = check_content(samples, sources, refuse=False)
    assert [note.split(" of ")[0] for note in notes] == ([str(count)] if count else [])


def test_copies_among_videos_that_are_left_out_in_turn():
    videos = [sample("a", None), sample("b", None), sample("c", None), sample("d", None, "g"), sample("e", None, "g")]
    sources = [SourceFile(1, 0, content) for content in "12133"]
    (note,) = check_copies(videos, sources)
    assert note.startswith("1 videos have the content of another one (c is a)")  # d and e stay together
    assert check_copies(videos, [SourceFile()] * 5) == ()


def test_class_order():
    assert check_class_order(("a", "b"), ["a", "b"]) == ()
    for unknown in (None, []):
        assert check_class_order(unknown, ["a"])[0].startswith("the network does not name its classes")
    with pytest.raises(Pseudo3dError, match="class 1 is 'c' for the network and 'b' in the data: the same names in an"):
        check_class_order(["a", "c", "b"], ["a", "b", "c"])
    message = (
        r"^1 classes of the data are not among the network's \(d\) and 2 classes of the network .* \(b, c\): the net"
    )
    with pytest.raises(Pseudo3dError, match=message):
        check_class_order(["a", "b", "c"], ["a", "d"])
    with pytest.raises(
        Pseudo3dError, match=r"^1 classes of the network are not among the data's \(c\): the network is"
    ):
        check_class_order(["a", "b", "c"], ["a", "b"])
    with pytest.raises(Pseudo3dError, match="the network has 3 classes, the data 2"):
        check_class_order(["a", "b", "b"], ["a", "b"])


def test_videos_left_out_are_counted():
    assert left_out_footnote([]) == ()
    reasons = [f"{letter}.mp4: damaged" for letter in "abcd"]
    assert left_out_footnote(reasons) == (
        "4 videos were left out (a.mp4: damaged, b.mp4: damaged, c.mp4: damaged, ...)",
    )


@pytest.fixture
def run(tmp_path):
    """What ``p3d train`` leaves of a run, as far as the checks look at it; and its videos."""
    videos = tmp_path / "videos"
    for number, name in enumerate(("train/1.mp4", "train/2.mp4", "val/3.mp4", "test/4.mp4")):
        (videos / name).parent.mkdir(parents=True, exist_ok=True)
        (videos / name).write_bytes(bytes([number]) * 9)
    best = tmp_path / "run" / "checkpoints" / "best"
    best.mkdir(parents=True)
    (best / "model.safetensors").write_bytes(b"numbers")
    (best / "README.md").write_text("# x\n\n## Training\n\n| |\n")
    rows = [f"{videos}/{side}/{name},x,{side},\n" for side, name in
            (("train", "1.mp4"), ("train", "2.mp4"), ("val", "3.mp4"), ("test", "4.mp4"))]  # fmt: skip
    (tmp_path / "run" / "split.csv").write_text("path,label,split,group\n" + "".join(rows))
    return tmp_path / "run"


def info(run, root="videos", **more):
    weights = run / "checkpoints" / "best"
    digest = f"sha256:{sha256_of(weights / 'model.safetensors')}"
    return {"weights": digest, "root": str(run.parent / root), "made_with": {"weights_from": str(weights)}} | more


def test_the_runs_own_test_side(run):
    assert check_not_trained_on(info(run), [sample("test/4.mp4", "test")]) == ()
    best = run / "checkpoints" / "best"
    for weights in (run, best, str(best), best / "model.safetensors"):
        assert check_not_trained_on(weights, [sample("test/4.mp4", "test")], root=run.parent / "videos") == ()


def test_training_videos_are_counted_where_the_number_is_shown_all_the_same(run):
    tested = [sample("val/3.mp4", "test"), sample("train/2.mp4", "test")]
    notes = check_not_trained_on(info(run), tested, refuse=False)
    assert sorted(note.split(" (")[0] for note in notes) == [
        "1 of 2 test videos are in the training list of the network",
        "1 of 2 test videos chose the epoch of the network",
    ]


@pytest.mark.parametrize("path", ["train/2.mp4", "test/../train/2.mp4", "train/2.mp4#t=1,2"])
def test_a_test_video_of_the_training_list(run, path):
    tested = [sample("test/4.mp4", "test"), sample(path, "test")]
    message = (
        r"1 of 2 test videos are in the training list of the network \(.*run/split.csv: .*2.mp4.*\): test on others"
    )
    with pytest.raises(Pseudo3dError, match=message):
        check_not_trained_on(info(run), tested)
    for weights in (run, run / "checkpoints" / "best"):
        with pytest.raises(Pseudo3dError, match=message):
            check_not_trained_on(weights, tested, root=run.parent / "videos")
    with pytest.raises(Pseudo3dError, match=message):
        check_not_trained_on(info(run), [sample(str(run.parent / "videos" / each.path), "test") for each in tested])


def test_a_test_video_that_chose_the_epoch(run):
    (note,) = check_not_trained_on(info(run), [sample("val/3.mp4", "test"), sample("test/4.mp4", "test")])
    assert note.startswith("1 of 2 test videos chose the epoch of the network (")


def test_a_copy_of_a_training_video(run):
    """By its content: other bytes of the same size under the same name are another video."""
    other = run.parent / "other"
    for name, content in (("train/1.mp4", b"other, 9."), ("copy.mp4", bytes([1]) * 9)):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes(content)
    facts = info(run, "other")
    assert check_not_trained_on(facts, [sample("train/1.mp4", "test")]) == ()
    with pytest.raises(Pseudo3dError, match=r"1 of 2 test videos are in the training list .*copy.mp4"):
        check_not_trained_on(facts, [sample("train/1.mp4", "test"), sample("copy.mp4", "test")])
    source = SourceFile(9, 0, sha256_of(other / "copy.mp4"))
    shutil.rmtree(other)
    with pytest.raises(Pseudo3dError, match=r"1 of 1 test videos are in the training list .*copy.mp4"):
        check_not_trained_on(facts, [sample("copy.mp4", "test")], sources=[source])


def test_names_of_training_videos_that_cannot_be_compared(run):
    shutil.move(run.parent / "videos", run.parent / "moved")
    tested = [sample("train/1.mp4", "test"), sample("test/4.mp4", "test"), sample("val/3.mp4", "test")]
    (note,) = check_not_trained_on(info(run, "moved"), tested)
    assert note.startswith("1 of 3 test videos have the names of videos that the network was trained on (")
    assert note.endswith("train/1.mp4); files are not there, so their content was not compared")
    (note,) = check_not_trained_on(info(run, "nowhere"), tested)
    assert note.startswith("1 of 3 test videos have the names of videos")
    assert check_not_trained_on(info(run, "moved"), tested[1:]) == ()


def test_a_list_that_cannot_be_found_is_told(run):
    tested = [sample("train/1.mp4", "test")]
    moved = run.parent / "elsewhere"
    shutil.copytree(run / "checkpoints" / "best", moved)
    unknown = "whether the network was trained on test videos could not be checked: its weights"
    (note,) = check_not_trained_on(moved, tested)
    assert note.startswith(unknown)
    assert note.endswith("are of a training run, and the list of its run is not there")
    facts = info(run)
    (run / "checkpoints" / "best" / "model.safetensors").write_bytes(b"others")
    (note,) = check_not_trained_on(facts, tested)
    assert note.endswith("are of a training run, and the weights there are others now")
    shutil.rmtree(run)
    (note,) = check_not_trained_on(facts, tested)
    assert note.startswith(unknown)


@pytest.mark.parametrize("weights", ["imagenet", "hf:owner/name", "random", "p3d_resnet_199.checkpoint.pth.tar"])
def test_published_weights_have_no_list(weights):
    tested = [sample("train/1.mp4", "test")]
    assert check_not_trained_on(weights, tested) == ()
    assert check_not_trained_on({"weights": "sha256:1", "made_with": {"weights_from": weights}}, tested) == ()
    assert check_not_trained_on({}, tested) == ()


def test_published_weights_beside_a_run(run):
    (run / "resnet.pth").write_bytes(b"")
    tested = [sample("train/1.mp4", "test")]
    assert check_not_trained_on(run / "resnet.pth", tested, root=run.parent / "videos") == ()


def test_a_damaged_list(run):
    (run / "split.csv").write_text("path,label\na,b,c\n")
    with pytest.raises(Pseudo3dError, match=r"split.csv, line 2: 3 cells for 2 columns"):
        check_not_trained_on(run, [sample("train/1.mp4", "test")])
    (run / "split.csv").write_bytes(b"\xff")
    with pytest.raises(Pseudo3dError, match=r"cannot read .*split.csv, the training list of the network"):
        check_not_trained_on(run, [sample("train/1.mp4", "test")])


@pytest.mark.slow
def test_a_real_run_and_its_store(trained, store, two_classes):
    """What ``p3d train`` and ``p3d extract`` wrote is understood: files, names, digests."""
    opened, sides = FeatureStore(store), read_samples(trained / "split.csv")
    found = {}
    for side in ("train", "test"):
        found[side] = read_representations(opened, sides.split(side), ["pool5"])
        assert np.isfinite(found[side].features["pool5"]).all()
    tested, root = found["test"], sides.root
    for facts in (opened.info, trained / "checkpoints" / "best"):
        assert check_not_trained_on(facts, tested.samples, root=root, sources=tested.sources) == ()
        with pytest.raises(Pseudo3dError, match="test videos are in the training list of the network"):
            check_not_trained_on(facts, found["train"].samples, root=root)
    inside = [Sample(video) for video in found["train"].videos]
    with pytest.raises(Pseudo3dError, match="test videos are in the training list of the network"):
        check_not_trained_on(opened.info, inside)
    both = (*found["train"].samples, *tested.samples)
    assert check_content(both, (*found["train"].sources, *tested.sources)) == ()
