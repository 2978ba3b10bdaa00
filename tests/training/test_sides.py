import itertools
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import small_config, write_two_classes

from pseudo3d import Pseudo3dError, VideoError, files
from pseudo3d.data.annotations import Sample, SampleList, parse_csv, read_samples
from pseudo3d.training import sides as sides_module
from pseudo3d.training.distributed import Group
from pseudo3d.training.sides import Sides, check_sides, check_videos, sides_to_csv, split_samples
from pseudo3d.video import index
from pseudo3d.video.index import IndexCache


def listed(*rows):
    return SampleList(Path("nowhere"), tuple(Sample(path, path[0], split, group) for path, split, group in rows))


def sides_with(train, val, test, *, class_names=("a", "b"), root=Path("nowhere")):
    """Sides of paths, the class of each its first letter ("ab0" has two when it says so: "a|b0")."""

    def side(paths):
        if paths is None:
            return None
        samples = []
        for path in paths:
            labels = path[: path.index("0")].split("|") if "|" in path else [path[0]]
            samples.append(Sample(path, labels[0], more_labels=tuple(labels[1:])))
        return SampleList(root, tuple(samples), class_names)

    return Sides(side(train), side(val), side(test))


def sides_of(samples, **changes):
    sides = split_samples(samples, small_config(**changes))
    return {
        name: [sample.path for sample in side.samples] if side else None
        for name, side in (("train", sides.train), ("val", sides.val), ("test", sides.test))
    }


def test_the_datas_own_splits_are_kept():
    rows = [(f"{c}{i}", split, None) for c in "ab" for i, split in enumerate(["train", "train", "val", "test"])]
    assert sides_of(listed(*rows)) == {
        "train": ["a0", "a1", "b0", "b1"], "val": ["a2", "b2"], "test": ["a3", "b3"],
    }  # fmt: skip


def test_test_videos_never_choose():
    """Without a val split the best epoch is chosen on videos taken from train, test being what the list says."""
    rows = [(f"{c}{i}", "test" if i > 7 else "train", None) for c in "ab" for i in range(10)]
    sides = sides_of(listed(*rows))
    assert sides["test"] == ["a8", "a9", "b8", "b9"]
    assert len(sides["val"]) == 2
    assert sorted(sides["train"] + sides["val"]) == sorted(f"{c}{i}" for c in "ab" for i in range(8))


@pytest.mark.parametrize("seed", range(5))
def test_sides_share_no_group(seed):
    rows = [(f"{c}{i}", None, f"film{i // 2}") for c in "ab" for i in range(20)]
    samples = listed(*rows)
    group = {sample.path: sample.group for sample in samples.samples}
    sides = sides_of(samples, seed=seed)
    groups = [{group[path] for path in side} for side in sides.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 10
    assert sorted(itertools.chain(*sides.values())) == sorted(group)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a0", "train", "x"), ("b0", "train", None), ("a1", "val", "x"), ("a2", "test", None), ("b2", "test", None)],
         r"1 groups are both in train and in val \(x\)"),
        ([("a0", "train", None), ("b0", "train", None), ("a1", "val", "x"), ("a2", "test", "x"), ("b2", "test", None)],
         r"1 groups are both in val and in test \(x\)"),
        ([("a0", "train", None), ("b0", "train", None), ("a1", "val", None), ("a2", "test", None), ("b2", None, None)],
         r"1 videos have no split \(b2\) though others have one"),
    ],
)  # fmt: skip
def test_splits_that_leak_or_have_holes(rows, message):
    with pytest.raises(Pseudo3dError, match=message):
        split_samples(listed(*rows), small_config())


def test_a_class_that_cannot_be_divided_means_no_validation(caplog):
    rows = [(f"{c}{i}", None, None) for c in "ab" for i in range(2)]
    assert sides_of(listed(*rows))["val"] is None
    assert "no validation, the last epoch will be the result: class a has one video" in caplog.text
    caplog.clear()
    assert sides_of(listed(*rows), val_fraction=0.0)["val"] is None
    assert caplog.text == ""  # it was asked for


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (sides_with(["a0", "a1"], None, ["a2"], class_names=("a",)),
         r"^all videos are of class 'a': training needs at least 2 classes$"),
        (sides_with([], None, ["a2"]), "^no video is in the split train: add some, or leave all splits out"),
        (sides_with(["a0", "b0"], [], ["a2"]), "^no video is in the split val: add some"),
        (sides_with(["a0", "b0"], None, []), "^no video is in the split test: add some"),
        (sides_with(["a0", "b0"], None, ["a2"], class_names=("a", "b", "c")),
         r"^1 classes have no training video \('c'\): add videos to train or take the classes out$"),
        (sides_with(["a0", "b0"], ["c0"], ["a1", "c1", "d1"]),
         r"^2 classes have no training video \('c', 'd'\), though val and test have some: add videos to train"),
        (sides_with(["a0", "b0"], None, ["a|c0"]), r"^1 classes have no training video \('c'\), though test have some"),
        (sides_with(["a0", "b0"], ["b1"], ["a1", "b1"]),
         r"^1 videos are both in val and in test \(b1\): keep them on one side$"),
    ],
)  # fmt: skip
def test_sides_that_teach_nothing_or_too_much(sides, message):
    with pytest.raises(Pseudo3dError, match=message):
        check_sides(sides)


def test_a_second_label_counts_as_a_training_video():
    check_sides(sides_with(["a0", "a|b0"], ["b1"], ["b2", "a2"]))


@pytest.mark.parametrize(
    "pair", [("train", "val"), ("train", "test"), ("val", "test")], ids="-".join
)  # fmt: skip
def test_a_group_on_two_sides(pair):
    sides = sides_with(["a0", "b0"], ["a1", "b1"], ["a2", "b2"])
    for name in pair:
        side = getattr(sides, name)
        first, *rest = side.samples
        sides = replace(sides, **{name: replace(side, samples=(replace(first, group="film"), *rest))})
    with pytest.raises(Pseudo3dError, match=rf"^1 groups are both in {pair[0]} and in {pair[1]} \(film\): keep them"):
        check_sides(sides)


@pytest.fixture
def content(tmp_path):
    """Six files a0 to b2, all of one size, each of another content, as sides."""
    for number, name in enumerate(("a0", "b0", "a1", "b1", "a2", "b2")):
        (tmp_path / name).write_bytes(bytes([number]) * 1000)
    return sides_with(["a0", "b0"], ["a1", "b1"], ["a2", "b2"], root=tmp_path)


def test_different_files_of_one_size(content):
    check_sides(content)


@pytest.mark.parametrize("make", [shutil.copy, os.link, os.symlink], ids=["copy", "hard link", "link"])
def test_one_file_on_two_sides(content, make):
    root = content.train.root
    (root / "b2").unlink()
    make(root / "a0", root / "b2")
    with pytest.raises(
        Pseudo3dError,
        match=r"^\S+/a0 in train and \S+/b2 in test are the same video: keep it on one side, or give such videos one "
        "group$",
    ):
        check_sides(content)
    shutil.copy(root / "b1", root / "a2")
    with pytest.raises(Pseudo3dError, match=r"are the same video \(and 1 more such pairs\): keep it"):
        check_sides(content)


def test_a_linked_folder_is_the_same_folder(content):
    root = content.train.root
    (root / "linked").symlink_to(root)
    test = SampleList(root, (Sample("linked/a0", "a"), Sample("b2", "b")), ("a", "b"))
    with pytest.raises(Pseudo3dError, match=r"/a0 in train and .*/linked/a0 in test are the same video"):
        check_sides(replace(content, test=test))


def test_copies_on_one_side_and_files_that_tell_nothing(content):
    root = content.train.root
    shutil.copy(root / "a0", root / "b0")  # both in train
    (root / "a1").write_bytes(b"")  # empty ones are of equal content, and no videos
    (root / "a2").write_bytes(b"")
    (root / "b1").unlink()
    check_sides(content)


def test_only_files_of_equal_size_are_read(content, monkeypatch):
    root = content.train.root
    for number, path in enumerate(sorted(root.iterdir())):
        path.write_bytes(bytes(1000 + number))
    (root / "b2").write_bytes(bytes(1000))  # as long as a0

    read = []
    monkeypatch.setattr("pseudo3d.files.sha256_of", lambda path: read.append(path.name) or path.name)
    check_sides(content)
    assert sorted(read) == ["a0", "b2"]


def test_a_file_with_many_segments_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(bytes(1000))
    (tmp_path / "b").write_bytes(bytes([1]) * 1000)
    train = [f"{name}#t={start},{start + 5}" for name in "ab" for start in range(0, 50, 5)]
    (tmp_path / "a1").write_bytes(bytes([2]) * 1000)
    read, real = [], files.sha256_of
    monkeypatch.setattr("pseudo3d.files.sha256_of", lambda path: read.append(path.name) or real(path))
    check_sides(sides_with(train, None, ["a1"], root=tmp_path))
    assert sorted(read) == ["a", "a1", "b"]
    read.clear()
    (tmp_path / "b2").write_bytes(bytes([1]) * 1000)
    with pytest.raises(Pseudo3dError, match=r"/b#t=0,5 in train and .*/b2 in test are the same video"):
        check_sides(sides_with(train, None, ["b2"], root=tmp_path))


def test_the_table_of_sides_has_every_label():
    sides = sides_with(["a0", "a|b0"], None, ["b2"], root=Path("/videos"))
    text = sides_to_csv(sides)
    assert text.splitlines() == [
        "path,label,split,group", "/videos/a0,a,train,", "/videos/a|b0,a|b,train,", "/videos/b2,b,test,",
    ]  # fmt: skip
    assert [sample.labels for sample in parse_csv(text)] == [("a",), ("a", "b"), ("b",)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes of ten videos each; read only."""
    return write_two_classes(tmp_path_factory.mktemp("data"), 10)


def check(sides, tmp_path, *, skip_bad=False, max_bad=0.2):
    return check_videos(sides, IndexCache(tmp_path / "index"), skip_bad=skip_bad, max_bad=max_bad)


@pytest.fixture
def damaged(videos, tmp_path):
    """Spoils the videos that are at these places of a side, and returns the sides."""
    sides = split_samples(read_samples(shutil.copytree(videos, tmp_path / "data")), small_config(val_fraction=0.3))

    def spoil(**places):
        for name, numbers in places.items():
            side = getattr(sides, name)
            for number in numbers:
                (side.root / side.samples[number].path).write_text(f"no video {name} {number}")
        return sides

    return spoil


def names(side, places=None):
    chosen = side.samples if places is None else [side.samples[place] for place in places]
    return [Path(sample.path).name for sample in chosen]


def test_good_videos_stay(damaged, tmp_path, caplog):
    sides = damaged()
    assert check(sides, tmp_path) == (sides, {})
    assert caplog.text == ""


@pytest.mark.parametrize("side", ["val", "test"])
def test_a_bad_video_to_test_on_is_an_error(damaged, tmp_path, side):
    sides = damaged(**{side: [1]})
    (name,) = names(getattr(sides, side), [1])
    with pytest.raises(
        VideoError, match=rf"^\S+/{name}: is not a video .*; the result would be of other videos than the list says: "
        "mend it, take it out, or use --skip-bad$",
    ):  # fmt: skip
        check(sides, tmp_path)


def test_the_other_bad_videos_are_named(damaged, tmp_path):
    sides = damaged(val=[0], test=[0, 2])
    (first,), others = names(sides.val, [0]), ", ".join(names(sides.test, [0, 2]))
    with pytest.raises(VideoError, match=rf"/{first}: is not a video .* \(and 2 more: {others}\); the result"):
        check(sides, tmp_path)


def test_bad_videos_are_left_out_when_that_is_wanted(damaged, tmp_path, caplog):
    sides = damaged(val=[0], test=[0, 2])
    checked, bad = check(sides, tmp_path, skip_bad=True)
    assert bad == {}
    assert checked.train == sides.train
    assert names(checked.val) == names(sides.val)[1:]
    assert names(checked.test) == [name for i, name in enumerate(names(sides.test)) if i not in (0, 2)]
    assert checked.test.class_names == sides.test.class_names
    left_out = {name: [Path(reason.split(": ")[0]).name for reason in each] for name, each in checked.left_out.items()}
    assert left_out == {"val": names(sides.val, [0]), "test": names(sides.test, [0, 2])}
    assert [record.name for record in caplog.records] == ["pseudo3d"] * 3
    for side, places in (("val", [0]), ("test", [0, 2])):
        for name in names(getattr(sides, side), places):
            assert any(
                text.startswith(f"left out of {side}: ") and f"/{name}: is not a video" in text
                for text in caplog.messages
            )


def test_no_good_video_is_left(damaged, tmp_path):
    sides = damaged(val=range(4))
    sides = replace(sides, val=replace(sides.val, samples=sides.val.samples[:4]))
    with pytest.raises(
        Pseudo3dError, match=r"^none of the 4 videos of val can be used \(the reasons are above\): mend"
    ):
        check(sides, tmp_path, skip_bad=True)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_bad_training_videos_stay_and_are_named(damaged, tmp_path, caplog, skip_bad):
    sides = damaged(train=[1, 3])
    checked, bad = check(sides, tmp_path, skip_bad=skip_bad)
    assert checked == sides
    assert list(bad) == [1, 3]
    for name, reason, text in zip(names(sides.train, [1, 3]), bad.values(), caplog.messages, strict=True):
        assert f"/{name}: is not a video" in reason
        assert text == f"training will use other videos in the place of a bad one: {reason}"


def test_too_many_bad_training_videos(damaged, tmp_path):
    sides = damaged(train=[1, 3])
    share = 2 / len(sides.train)
    check(sides, tmp_path, max_bad=share)
    with pytest.raises(
        Pseudo3dError, match=rf"^2 of {len(sides.train)} training videos cannot be used, more than --max"
    ):
        check(sides, tmp_path, max_bad=0.99 * share)


class ThreadGroup(Group):
    """A process of a group as a thread; ``meeting`` and ``told`` are of all."""

    def gather(self, obj):
        self.told[self.rank] = obj
        self.meeting.wait(30)
        everything = [self.told[rank] for rank in range(self.size)]
        self.meeting.wait(30)
        return everything


def check_in_group(sides, places, folders):
    """``check_videos`` by several processes: the place of each on its machine, and the cache's folder there."""
    group = [ThreadGroup(rank, len(places), None, place) for rank, place in enumerate(places)]
    meeting, told = threading.Barrier(len(places)), {}
    for member in group:
        object.__setattr__(member, "meeting", meeting)
        object.__setattr__(member, "told", told)
    with ThreadPoolExecutor(len(places)) as pool:
        jobs = [
            pool.submit(check_videos, sides, IndexCache(folder), skip_bad=True, max_bad=0.5, group=member)
            for member, folder in zip(group, folders, strict=True)
        ]
        return [job.result() for job in jobs]


@pytest.fixture
def indexed(monkeypatch):
    """The names of the files that were decoded to index them."""
    seen, real = [], index.index_video

    def index_video(path):
        seen.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(index, "index_video", index_video)
    return seen


def test_processes_share_the_files_out(damaged, tmp_path, indexed, caplog):
    sides = damaged(train=[1, 3], test=[0])
    alone = check(sides, tmp_path / "alone", skip_bad=True, max_bad=0.5)
    files = sorted(indexed)
    assert len(files) == len(set(files)) == 20
    told = caplog.messages.copy()
    indexed.clear(), caplog.clear()
    results = check_in_group(sides, [(0, 2), (1, 2), (0, 1)], [tmp_path / "shared"] * 3)
    assert results == [alone] * 3
    assert caplog.messages == told  # by the first process alone
    bad = [*names(sides.train, [1, 3]), *names(sides.test, [0])]  # of these there is no index to find
    assert sorted(name for name in indexed if name not in bad) == [name for name in files if name not in bad]


def test_processes_meet_while_they_look(damaged, tmp_path, monkeypatch):
    """Also with one that has nothing to do for long: it gives a sign of life with the others."""
    sides = damaged(train=[1, 3], test=[0])
    alone = check(sides, tmp_path / "alone", skip_bad=True, max_bad=0.5)
    met, real = [], ThreadGroup.gather
    monkeypatch.setattr(ThreadGroup, "gather", lambda self, obj: met.append(self.rank) or real(self, obj))
    monkeypatch.setattr(sides_module, "_AT_ONCE", 3)
    monkeypatch.setattr(sides_module, "_MEET_EVERY", 0.0)
    results = check_in_group(sides, [(0, 1), (0, 1)], [tmp_path / "one", tmp_path / "other"])
    assert results == [alone] * 2
    rounds = -(-10 // 3) + -(-20 // 3)  # half of the 20 files each, then on each machine all of them
    assert sorted(met) == [0] * rounds + [1] * rounds


def test_every_machine_gets_an_index_of_its_own(damaged, tmp_path, indexed):
    sides = damaged()
    machines = [tmp_path / "one", tmp_path / "one", tmp_path / "other"]
    assert check_in_group(sides, [(0, 2), (1, 2), (0, 1)], machines) == [(sides, {})] * 3
    indexed.clear()
    for folder in machines:
        check_videos(sides, IndexCache(folder), skip_bad=False, max_bad=0)
    assert indexed == []
