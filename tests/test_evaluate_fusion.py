"""``p3d evaluate fuse``: which scores belong together, and where the weights come from."""

import shutil

import pytest
from evaluation_stores import official_store
from official_sets import write_ucf101
from tiny import mistake, one_thread, p3d

from pseudo3d.cli import main
from pseudo3d.evaluation.results import read_result
from pseudo3d.evaluation.scores import read_scores, save_scores

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Two runs on UCF101, one on good and one on poor features, with training scores."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_ucf101(folder / "ucf", videos=False)
    with one_thread():
        for name, noise in (("good", 0.05), ("poor", 2.0)):
            store = official_store(folder / f"{name}_store", "ucf101", data, noise=noise, seed=7)
            command = ["evaluate", "ucf101", "--data", data, "--features", store, "--out", folder / name]
            assert main([*map(str, command), "--name", name, "--train-scores"]) == 0
    return folder


@pytest.fixture
def runs(two_runs, tmp_path):
    """Copies of them."""
    return [shutil.copytree(two_runs / name, tmp_path / name) for name in ("good", "poor")]


def test_fuse(tmp_path, capsys, runs):
    good, poor = runs
    out = tmp_path / "fused"
    code, printed, err = p3d(capsys, "evaluate", "fuse", good, poor, "--out", out)
    assert (code, err) == (0, [])
    result = read_result(out)
    assert (result.protocol, result.name) == ("fusion", "good + poor")
    assert result.measurement("accuracy", "mean").value == 1.0
    assert set(result.facts["weights"]) == {"1", "2", "3"}
    assert read_scores(out / "scores-2.parquet").videos == read_scores(good / "scores-2.parquet").videos
    # a fused run is a source like any other, and so is a file from elsewhere
    assert p3d(capsys, "evaluate", "fuse", out, poor, "--out", tmp_path / "again", "--equal")[0] == 0
    scores = read_scores(poor / "scores-1.parquet")
    lines = [",".join(("video", *scores.class_names))]
    lines += [",".join((video, *map(str, row))) for video, row in zip(scores.videos, scores.values, strict=True)]
    (tmp_path / "idt.csv").write_text("\n".join(lines))
    weighted = ("--weights", "3", "1", "--out", tmp_path / "idt")
    code, printed, err = p3d(capsys, "evaluate", "fuse", good / "scores-1.parquet", tmp_path / "idt.csv", *weighted)
    assert (code, err) == (0, [])
    assert "weights were given: 3, 1" in printed
    told = mistake(capsys, "evaluate", "fuse", good, tmp_path / "idt.csv", "--out", tmp_path / "no")
    assert "scores-1.parquet" in told


def test_fuse_refuses(tmp_path, capsys, runs):
    good, poor = runs
    no = ("--out", tmp_path / "no")
    assert "at least two" in mistake(capsys, "evaluate", "fuse", good, *no)
    assert "does not exist" in mistake(capsys, "evaluate", "fuse", good / "scores-1.parquet", tmp_path / "x.csv", *no)
    assert "gone does not exist: give a folder" in mistake(capsys, "evaluate", "fuse", good, tmp_path / "gone", *no)
    assert "2 sources" in mistake(capsys, "evaluate", "fuse", good, poor, "--weights", "1", *no)
    assert "not all 0" in mistake(capsys, "evaluate", "fuse", good, poor, "--weights", "0", "0", *no)
    (tmp_path / "nameless.csv").write_text("video,a,b\nx.avi,1,0\n")
    (tmp_path / "other.csv").write_text("video,a,b\nx.avi,0,1\n")
    files = (tmp_path / "nameless.csv", tmp_path / "other.csv")
    assert "no label in any source" in mistake(capsys, "evaluate", "fuse", *files, *no)
    assert "same videos" in mistake(
        capsys, "evaluate", "fuse", good / "scores-1.parquet", poor / "scores-2.parquet", *no
    )
    assert not (tmp_path / "no").exists()


def test_a_source_counts_once(tmp_path, capsys, runs):
    good, poor = runs
    no = ("--out", tmp_path / "no")
    copy = shutil.copytree(good, tmp_path / "copy")
    scores = read_scores(good / "scores-1.parquet")
    order = [4, 0, 5, 1, 3, 2]
    lines = [",".join(("video", *scores.class_names[::-1]))]
    lines += [",".join((scores.videos[i], *(repr(float(x)) for x in scores.values[i, ::-1]))) for i in order]
    (tmp_path / "again.csv").write_text("\n".join(lines))
    first = good / "scores-1.parquet"
    for sources in (
        (good, good),
        (good, f"{good}/"),
        (good, poor, copy),
        (first, first),
        (first, tmp_path / "again.csv"),
    ):
        for options in ((), ("--equal",), ("--weights", *"123"[: len(sources)])):
            told = mistake(capsys, "evaluate", "fuse", *sources, *options, *no)
            assert "have the same scores: name each source once (--weights gives one more weight)" in told
    assert f"{good} and {copy} have" in mistake(capsys, "evaluate", "fuse", good, poor, copy, *no)
    assert not (tmp_path / "no").exists()


def test_weights_that_were_found_are_told(tmp_path, capsys, runs):
    code, printed, _ = p3d(capsys, "evaluate", "fuse", *runs, "--out", tmp_path / "found")
    assert code == 0
    result = read_result(tmp_path / "found")
    for split, shares in result.facts["weights"].items():
        told = f"weights found on the training videos' scores: {', '.join(f'{share:.3g}' for share in shares)}"
        assert any(told in note and (f"split {split}" in note or "split" not in note) for note in result.footnotes)
    assert "weights found on the training videos' scores" in " ".join(printed.split())
    assert p3d(capsys, "evaluate", "fuse", *runs, "--equal", "--out", tmp_path / "equal")[0] == 0
    assert not any("weights found" in note for note in read_result(tmp_path / "equal").footnotes)


def test_fusion_of_poor_sources_finds_the_good_one(tmp_path, capsys, runs):
    """Weights come from training scores: with those of the good source spoilt, it gets less."""
    good, poor = runs
    assert p3d(capsys, "evaluate", "fuse", good, poor, "--out", tmp_path / "before")[0] == 0
    for split in "123":
        path = good / f"scores-{split}-train.parquet"
        train = read_scores(path)
        save_scores(type(train)(train.videos, train.class_names, train.truth, -train.values, train.kind), path)
    assert p3d(capsys, "evaluate", "fuse", good, poor, "--out", tmp_path / "after")[0] == 0
    before, after = (read_result(tmp_path / name).facts["weights"] for name in ("before", "after"))
    assert all(after[split][0] < before[split][0] for split in "123")
