"""Sports-1M: addresses with several labels, dead links, a validation part that is the same everywhere."""

import pytest
from official_sets import write_lines, write_sports1m, youtube_id

from pseudo3d import Pseudo3dError, read_video
from pseudo3d.data.official.sports1m import in_validation, parse_labels, parse_sports1m, read_sports1m

CLASSES = ("boomerang", "boxing", "bowling")
ADDRESS = "https://www.youtube.com/watch?v="
ID = "Ab-_56789xY"


@pytest.fixture(scope="module")
def sports1m(tmp_path_factory):
    return write_sports1m(tmp_path_factory.mktemp("sports1m"))


def test_splits_and_dead_links(sports1m):
    got = read_sports1m(sports1m)
    assert (got.title, got.samples.class_names) == ("Sports-1M", ("sport 0", "sport 1", "sport 2"))
    assert len(got.samples) == 21  # 27 listed, one of each class and list dead
    assert set(got.missing) == {youtube_id(split, label, 0) for split in ("train", "test") for label in range(3)}
    assert set(got.missing_from(("test",))) == {youtube_id("test", label, 0) for label in range(3)}
    assert set(got.missing_from(("train", "val"))) == {youtube_id("train", label, 0) for label in range(3)}
    sides = {side: got.samples.split(side).samples for side in ("train", "val", "test")}
    assert len(sides["test"]) == 6
    assert {s.path for s in sides["val"]} == {
        s.path for s in (*sides["train"], *sides["val"]) if in_validation(s.path[len("videos/") : -len(".mp4")])
    }
    assert "6 of 27 listed videos are not below" in got.notes[-1]
    assert got.notes[0].startswith("validation is an eighth of the official training list")


def test_labels_keep_their_order(sports1m):
    got = read_sports1m(sports1m).samples
    two = [sample.labels for sample in got.samples if sample.more_labels]
    assert set(two) == {("sport 0", "sport 1"), ("sport 1", "sport 2"), ("sport 2", "sport 0")}
    assert read_video(got.root / got.samples[0].path).frames.shape == (24, 40, 48, 3)


@pytest.mark.parametrize(
    "address",
    [
        f"http://www.youtube.com/watch?v={ID}",
        f"https://youtube.com/watch?feature=x&v={ID}&t=3",
        f"https://youtu.be/{ID}",
        f"https://www.youtube.com/embed/{ID}?start=2",
    ],
)
def test_addresses(address):
    sample = parse_sports1m(f"{address} 2,0", CLASSES, split="train")[0]
    assert (sample.path, sample.labels, sample.split) == (ID, ("bowling", "boomerang"), "train")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{ADDRESS}{ID} 3", r"t\.txt, line 2: label 3; labels\.txt has 0 to 2"),
        (f"{ADDRESS}{ID} 1,", r"line 2: the labels '1,'; write numbers parted by commas"),
        (f"{ADDRESS}{ID} -1", r"line 2: the labels '-1'"),
        (f"{ADDRESS}{ID}", r"line 2: .* is no line 'URL label,label'"),
        (f"{ADDRESS}{ID} 1, 2", r"line 2: .* is no line 'URL label,label'"),
        (f"{ADDRESS}short 1", r"line 2: .* is no address of a YouTube video"),
        (f"{ADDRESS}{ID}longer 1", r"line 2: .* is no address of a YouTube video"),
    ],
)
def test_malformed_lines(line, words):
    with pytest.raises(Pseudo3dError, match=words):
        parse_sports1m(f"\n{line}\n", CLASSES, split="train", source="t.txt")


def test_label_files():
    assert parse_labels("yağlı güreş\nboxing\n") == ("yağlı güreş", "boxing")
    with pytest.raises(Pseudo3dError, match=r"labels\.txt, line 3: the class boxing is on line 1 already"):
        parse_labels("boxing\nbowls\nboxing\n")
    with pytest.raises(Pseudo3dError, match=r"labels\.txt names no classes"):
        parse_labels("")


def test_names_as_downloaders_make_them(tmp_path):
    write_lines(tmp_path / "labels.txt", CLASSES)
    write_lines(tmp_path / "train_partition.txt", [f"{ADDRESS}{ID} 1", f"{ADDRESS}cccccccccc- 1"])
    write_lines(tmp_path / "test_partition.txt", [f"{ADDRESS}{ID.lower()} 0"])
    for name in (f"A title [{ID}].webm", "Other-title-cccccccccc-.mkv"):
        write_lines(tmp_path / "v" / name, [name])
    got = read_sports1m(tmp_path)
    assert {s.path for s in got.samples.samples} == {f"v/A title [{ID}].webm", "v/Other-title-cccccccccc-.mkv"}
    assert got.missing == (ID.lower(),)  # ids differ by upper and lower case


def test_a_video_in_both_lists_is_a_test_video(tmp_path):
    write_sports1m(tmp_path, 1, train=2, test=1, videos=False)
    shared = f"{ADDRESS}{youtube_id('train', 0, 0)} 0"
    write_lines(tmp_path / "test_partition.txt", [shared, shared, f"{ADDRESS}{ID} 0"])
    got = read_sports1m(tmp_path)
    assert [s.split for s in got.samples.samples if s.path == youtube_id("train", 0, 0)] == ["test"]
    assert "2 lines name a video again: the first counts, in the test list before the training list" in got.notes


def test_a_test_list_that_is_the_training_list(tmp_path):
    """Two videos of four in both lists are counted; three are a mistake."""
    write_lines(tmp_path / "labels.txt", CLASSES)
    ids = [f"Ab-_56789x{letter}" for letter in "abcdefgh"]
    write_lines(tmp_path / "train_partition.txt", [f"{ADDRESS}{video} 0" for video in ids[:6]])
    for tested in (ids[:4], ids[3:7], ids[:6]):
        write_lines(tmp_path / "test_partition.txt", [f"{ADDRESS}{video} 0" for video in tested])
        both = len(set(tested) & set(ids[:6]))
        words = (
            rf"test_partition\.txt and .*train_partition\.txt are mostly the same list: {both} of {len(tested)} test "
            rf"videos are training videos, too \({tested[0]}, .*\); bring the official lists"
        )
        with pytest.raises(Pseudo3dError, match=words):
            read_sports1m(tmp_path)
    write_lines(tmp_path / "test_partition.txt", [f"{ADDRESS}{video} 0" for video in ids[4:]])
    assert any(note.startswith("2 lines name a video again") for note in read_sports1m(tmp_path).notes)


def test_lists_that_are_not_there(tmp_path):
    with pytest.raises(
        Pseudo3dError, match=r"lists of Sports-1M \(labels\.txt, test_partition\.txt, train_par.*--lists"
    ):
        read_sports1m(tmp_path)
