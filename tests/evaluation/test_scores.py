from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo3d import Pseudo3dError
from pseudo3d.evaluation.scores import Scores, align, read_scores, save_scores


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


def random_scores(videos=5, classes=4, kind="decision", seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(videos, classes)) if kind == "decision" else rng.dirichlet(np.ones(classes), videos)
    names = tuple(f"a/{number}.mp4" for number in range(videos))
    return Scores(names, tuple("vwxyz"[:classes]), rng.random((videos, classes)) < 0.4, values, kind)


def same(one, other):
    return (
        (one.videos, one.class_names, one.kind) == (other.videos, other.class_names, other.kind)
        and np.array_equal(one.truth, other.truth)
        and np.array_equal(one.values, other.values)
    )


NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)


@settings(deadline=None, max_examples=25)
@given(st.data(), st.sampled_from(["decision", "probability"]))
def test_round_trip(tmp_path_factory, data, kind):
    """Any names, several labels and none, float32 to the bit."""
    videos = data.draw(st.lists(NAME, min_size=1, max_size=4, unique=True))
    classes = data.draw(st.lists(NAME, min_size=1, max_size=4, unique=True))
    shape = (len(videos), len(classes))
    numbers = (
        st.floats(0, 1, width=32)
        if kind == "probability"
        else st.floats(allow_nan=False, allow_infinity=False, width=32)
    )
    cells = shape[0] * shape[1]
    values = np.array(data.draw(st.lists(numbers, min_size=cells, max_size=cells))).reshape(shape)
    truth = np.array(data.draw(st.lists(st.booleans(), min_size=cells, max_size=cells))).reshape(shape)
    scores = Scores(tuple(videos), tuple(classes), truth, values, kind)
    path = tmp_path_factory.mktemp("scores") / "scores-1.parquet"
    save_scores(scores, path)
    assert same(read_scores(path), scores)
    save_scores(scores, str(path))
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_any_parquet_reader_reads_it(tmp_path):
    scores = random_scores()
    save_scores(scores, tmp_path / "s.parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.column_names == ["video", "labels", "scores"]
    assert [tuple(row) for row in table["labels"].to_pylist()] == list(scores.labels)
    assert np.array_equal(np.array(table["scores"].to_pylist(), np.float32), scores.values)
    assert b'"kind": "decision"' in table.schema.metadata[b"pseudo3d scores"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"videos": ()}, "scores need at least one video"),
        ({"class_names": ()}, "scores need at least one class"),
        ({"videos": ("a", "b", "a", "c", "b")}, "the video a stands twice in the scores: keep one"),
        ({"class_names": tuple("vwxv")}, "the class v stands twice in the scores"),
        ({"videos": ("a", "b")}, r"truth of scores has the shape \(5, 4\), not \(videos, classes\) = \(2, 4\)"),
        ({"values": np.zeros((5, 3))}, r"values of scores has the shape \(5, 3\)"),
        ({"truth": np.zeros((5, 4))}, "truth of scores is float64, not bool"),
        ({"kind": "logit"}, "kind of scores is 'logit'; use probability or decision"),
        ({"values": np.array([[0, np.nan, 0, 0]] * 5)}, r"scores of 5 videos are NaN or infinite \(a/0.mp4, a/1.mp4"),
        ({"values": np.full((5, 4), 1e60)}, "NaN or infinite"),
        ({"kind": "probability"}, "videos are no probabilities .*: they lie outside 0..1"),
    ],
)
def test_scores_that_cannot_be(change, message):
    with pytest.raises(Pseudo3dError, match=message):
        replace(random_scores(), **change)


def test_files_that_are_no_scores(tmp_path):
    path = tmp_path / "s.parquet"
    for read in (path, tmp_path, tmp_path / "s.csv"):
        with pytest.raises(Pseudo3dError, match="does not exist: give a score file"):
            read_scores(read)
    (tmp_path / "s.npy").write_text("")
    with pytest.raises(Pseudo3dError, match=r"scores are read from \.parquet and \.csv"):
        read_scores(tmp_path / "s.npy")
    with pytest.raises(Pseudo3dError, match=r"scores are written as \.parquet"):
        save_scores(random_scores(), tmp_path / "s.npy")
    path.write_bytes(b"PAR1 torn")
    with pytest.raises(Pseudo3dError, match="no score file, or a damaged one"):
        read_scores(path)
    pq.write_table(pa.table({"video": ["a"]}), path)
    with pytest.raises(Pseudo3dError, match="a Parquet file, but no scores of `p3d evaluate`"):
        read_scores(path)
    with pytest.raises(Pseudo3dError, match="it is not overwritten: move it away or choose another folder"):
        save_scores(random_scores(), path)
    assert pq.read_table(path).column_names == ["video"]


def test_a_damaged_score_file(tmp_path):
    path = tmp_path / "s.parquet"
    save_scores(random_scores(), path)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["scores"]), path)
    with pytest.raises(Pseudo3dError, match="is damaged"):
        read_scores(path)
    labels = pa.array([["other"]] * 5, pa.list_(pa.string()))
    pq.write_table(table.set_column(1, "labels", labels), path)
    with pytest.raises(Pseudo3dError, match=r"is damaged \('other'\)"):
        read_scores(path)
    pq.write_table(table.set_column(0, "video", pa.array(["a"] * 5)), path)
    with pytest.raises(Pseudo3dError, match=r"s\.parquet: the video a stands twice"):
        read_scores(path)
    told = {b"pseudo3d scores": b'{"version": 9}'}
    pq.write_table(table.replace_schema_metadata(told), path)
    with pytest.raises(Pseudo3dError, match="scores of version 9, this pseudo3d reads 1"):
        read_scores(path)


def csv(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "scores.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_csv_from_elsewhere(tmp_path):
    path = csv(tmp_path, '\ufeffVideo,"a, b",label,c\n"x,1.avi",0.25,c,0.75\n\ny.avi,1,"a, b|c",0\nz.avi,5e-1,,.5\n')
    scores = read_scores(path)
    assert scores.videos == ("x,1.avi", "y.avi", "z.avi")
    assert scores.class_names == ("a, b", "c")
    assert scores.labels == (("c",), ("a, b", "c"), ())
    assert scores.values.tolist() == [[0.25, 0.75], [1, 0], [0.5, 0.5]]
    assert scores.kind == "probability"


@pytest.mark.parametrize("row", ["-0.1,1.1", "0.5,0.4", "3,-2"])
def test_csv_of_decision_values(tmp_path, row):
    scores = read_scores(csv(tmp_path, f"video,a,b\nx,0.5,0.5\ny,{row}\n"))
    assert scores.kind == "decision"
    assert not scores.truth.any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must be video,<class>,<class>,... and perhaps label; it begins with ''"),
        ("path,a,b\n", "it begins with 'path'"),
        ("video\nx\n", "scores need at least one class"),
        ("video,a,b\n", "scores need at least one video"),
        ("video,a,a\nx,1,2\n", "the class a stands twice"),
        ("video,a,b\nx,1,2\nx,1,2\n", "the video x stands twice"),
        ("video,a,b\nx,1\n", "line 2: 2 cells for 3 columns"),
        ("video,a,b\nx,1,2\ny,1,much\n", "line 3: the score of b is 'much', not a number"),
        ("video,a,b\nx,1,nan\n", r"scores of 1 videos are NaN or infinite \(x\)"),
        ("video,a,label\nx,1,b\n", "line 2: the label 'b' is none of the 1 classes"),
        ('video,a\nx,"1\n', "line 2: not a comma-separated table"),
    ],
)
def test_malformed_csv(tmp_path, text, message):
    with pytest.raises(Pseudo3dError, match=message.replace("...", r"\.\.\.")):
        read_scores(csv(tmp_path, text))


def test_csv_in_another_encoding(tmp_path):
    with pytest.raises(Pseudo3dError, match=r"is not UTF-8 text \(byte 6\): save it as UTF-8"):
        read_scores(csv(tmp_path, "video,\xe9\nx,1\n", "latin-1"))


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(5)), st.permutations(range(4)))
def test_align_undoes_any_order(rows, columns):
    scores = random_scores()
    mixed = Scores(
        tuple(scores.videos[row] for row in rows),
        tuple(scores.class_names[column] for column in columns),
        scores.truth[np.ix_(rows, columns)],
        scores.values[np.ix_(rows, columns)],
        "decision",
    )
    assert all(same(each, scores) for each in align([scores, mixed, scores]))
    assert all(same(each, mixed) for each in align([mixed, scores]))


def test_align_gives_the_truth_to_those_without():
    scores = random_scores()
    unknown = replace(scores, truth=np.zeros_like(scores.truth))
    assert all(np.array_equal(each.truth, scores.truth) for each in align([unknown, scores, unknown]))
    assert not align([unknown, unknown])[1].truth.any()


def test_align_refuses_what_differs():
    scores = random_scores()
    with pytest.raises(Pseudo3dError, match="there are no scores to align"):
        align([])
    fewer = replace(scores, videos=(*scores.videos[:3], "b/x.mp4", "b/y.mp4"))
    message = (
        r"2 videos of rgb are not in flow \(a/3.mp4, a/4.mp4\) and 2 videos of flow are not in rgb "
        r"\(b/x.mp4, b/y.mp4\): scores must be of the same videos"
    )
    with pytest.raises(Pseudo3dError, match=message):
        align([scores, fewer], names=("rgb", "flow"))
    with pytest.raises(Pseudo3dError, match=r"^1 videos of scores 2 are not in scores 1 \(b.mp4\): scores must be of"):
        align([random_scores(5), replace(random_scores(6), videos=(*scores.videos, "b.mp4"))])
    with pytest.raises(Pseudo3dError, match=r"1 classes of scores 1 are not in scores 2 \(v\) and .*\(other\)"):
        align([scores, replace(scores, class_names=("other", *scores.class_names[1:]))])
    truth = scores.truth.copy()
    truth[1] = [True, True, False, False]
    with pytest.raises(Pseudo3dError, match=r"1 videos have other labels in scores 2 .* a/1.mp4: v\|w and"):
        align([scores, replace(scores, truth=truth)])


def test_thousands_of_videos_and_classes(tmp_path):
    """Sports-1M has 487 classes."""
    rng = np.random.default_rng(0)
    videos = tuple(f"v{number}" for number in range(2_000))
    names = tuple(f"c{number}" for number in range(487))
    truth = np.eye(487, dtype=bool)[rng.integers(0, 487, 2_000)]
    scores = Scores(videos, names, truth, rng.random((2_000, 487), np.float32), "decision")
    save_scores(scores, tmp_path / "s.parquet")
    assert same(read_scores(tmp_path / "s.parquet"), scores)
