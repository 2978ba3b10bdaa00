import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tiny import mistake, p3d

from pseudo3d.evaluation.reduction import Reduction, accuracy_by_dimension
from pseudo3d.features.store import FeatureStore, SourceFile, StoreWriter, VideoFeatures
from pseudo3d.visualize.pca import plot_reductions
from pseudo3d.visualize.plots import save_figure

DIMS = (500, 400, 300, 200, 100, 50, 10)


def reduction(accuracies, dims=DIMS):
    return Reduction(dims, accuracies, 2048, 0.9, (), 30, "the data's own splits")


def test_lines_run_from_many_dimensions_to_few():
    short = reduction((0.6, 0.5), (50, 10))
    full = reduction((0.9, 0.89, 0.88, 0.85, 0.8, 0.7, 0.4))
    (axes,) = plot_reductions([("P3D ResNet", full), ("IDT", short)], title="UCF101").axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [f"{dim}" for dim in DIMS]
    assert axes.lines[0].get_ydata().tolist() == [90.0, 89.0, 88.0, 85.0, 80.0, 70.0, 40.0]
    assert list(axes.lines[1].get_xdata()) == [5, 6]
    assert axes.get_title() == "UCF101"
    looks = {(line.get_color(), line.get_marker()) for line in axes.lines}
    assert len(looks) == 2


def test_the_same_picture_is_the_same_bytes(tmp_path):
    written = [save_figure(plot_reductions([("a", reduction((0.5,), (10,)))]), tmp_path / name) for name in "ab"]
    assert [path.read_bytes() for path in written[0]] == [path.read_bytes() for path in written[1]]


def features(seed, dim=24, videos=60):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, dim))
    return (centres[np.arange(videos) % 3] + 1.5 * rng.normal(size=(videos, dim))).astype(np.float32)


def video(i):
    return f"{'abc'[i % 3]}/v{i:02d}.mp4"


def write_store(folder, values, *, splits=True, failed=0, info=None):
    with StoreWriter(str(folder), info or {"model": "p3d_resnet14"}) as writer:
        for i, row in enumerate(values):
            split = ("train", "train", "train", "test")[i // 6 % 4] if splits else None
            path = video(i)
            writer.add(VideoFeatures(path, {"pool5": row}, (0,), 20, label=path[0], split=split, group=f"g{i // 6}"))
        for i in range(failed):
            writer.add_failure(f"a/bad{i}.mp4", f"a/bad{i}.mp4: damaged")
    return folder


@pytest.fixture(name="p3d_store")
def _p3d_store(tmp_path):
    return write_store(tmp_path / "p3d", features(0), failed=1)


def by_hand(store, layer="pool5", **more):
    opened = FeatureStore(store)
    splits, groups = opened.splits, opened.groups
    return accuracy_by_dimension(
        opened.features(layer), opened.labels, videos=opened.videos, splits=splits, groups=groups, **more
    )


def test_two_stores_and_foreign_features_in_one_picture(tmp_path, capsys, p3d_store):
    c3d = write_store(tmp_path / "c3d", features(1, 12))
    FeatureStore(p3d_store).add("idt", FeatureStore(p3d_store).videos, features(2, 80))
    options = ("--layer", "pool5", "pool5", "idt", "--names", "P3D", "C3D", "IDT", "--dims", "50", "10", "5")
    code, out, err = p3d(
        capsys, "visualize", "pca", p3d_store, c3d, p3d_store, *options, "--out", tmp_path / "new" / "figure.png"
    )
    assert (code, err) == (0, [])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "figure.csv", "figure.json", "figure.png", "figure.svg",
    ]  # fmt: skip
    told = json.loads((tmp_path / "new" / "figure.json").read_text())
    assert [line["name"] for line in told["lines"]] == ["P3D", "C3D", "IDT"]
    for line, layer, store in zip(told["lines"], ("pool5", "pool5", "idt"), (p3d_store, c3d, p3d_store), strict=True):
        want = by_hand(store, layer, dims=(50, 10, 5))
        assert line["accuracies"] == list(want.accuracies)
        assert line["dims"] == list(want.dims)
        assert line["protocol"] == "the data's own splits"
    with (tmp_path / "new" / "figure.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["dimensions"] for row in rows if row["name"] == "IDT"] == ["10", "5", "80"]
    assert "P3D: 1 video has no features and is left out" in out
    assert "C3D: 50 dimensions are left out: more than its 12 numbers or its training videos span" in out
    assert "not of the same videos" not in out


def test_without_splits_groups_stay_together(tmp_path, capsys):
    store = write_store(tmp_path / "s", features(0), splits=False)
    code, _, _ = p3d(capsys, "visualize", "pca", store, "--dims", "5", "--folds", "4", "--out", tmp_path / "f")
    assert code == 0
    (line,) = json.loads((tmp_path / "f.json").read_text())["lines"]
    assert line["protocol"] == "4-fold cross-validation, each group in one fold"
    assert line["accuracies"] == list(by_hand(store, dims=(5,), folds=4).accuracies)


def test_constants_that_were_chosen_or_given_are_told(tmp_path, capsys, p3d_store):
    command = ("visualize", "pca", p3d_store, "--names", "P3D", "--dims", "5", "--out", tmp_path / "f")
    code, _, _ = p3d(capsys, *command, "--c", "cv")
    assert code == 0
    told = json.loads((tmp_path / "f.json").read_text())
    assert told["svm C"] == "cv"
    assert told["lines"][0]["chosen"] == [list(each) for each in by_hand(p3d_store, dims=(5,), c="cv").chosen]
    assert any(note.startswith("P3D: C = ") and "chosen by cross-validation" in note for note in told["notes"])
    assert p3d(capsys, *command, "--c", "100")[0] == 0
    assert "C = 100 was given (--c)" in (tmp_path / "f.json").read_text()
    assert p3d(capsys, *command)[0] == 0
    assert "C = " not in (tmp_path / "f.json").read_text()


def write_array(folder, values, table):
    folder.mkdir(exist_ok=True)
    np.save(folder / "idt.npy", values)
    (folder / "idt.csv").write_text(table)
    return folder / "idt.npy"


def table(count=60):
    rows = [f"{video(i)},{video(i)[0]},{'test' if i // 6 % 4 == 3 else 'train'},g{i // 6}\n" for i in range(count)]
    return "path,label,split,group\n" + "".join(rows)


def test_an_array_with_a_table_beside_it_and_other_videos(tmp_path, capsys, p3d_store):
    array = write_array(tmp_path / "foreign", features(2)[:57], table(57))
    code, out, _ = p3d(capsys, "visualize", "pca", p3d_store, array, "--dims", "5", "--out", tmp_path / "f")
    assert code == 0
    assert [line["name"] for line in json.loads((tmp_path / "f.json").read_text())["lines"]] == ["p3d", "idt"]
    assert "note: the lines are not of the same videos (p3d 60, idt 57)" in out


def test_official_splits_are_averaged(tmp_path, capsys):
    names, numbers = ("Archery", "Biking"), range(1, 26)
    videos = [f"v_{name}_g{group:02d}_c{clip:02d}.avi" for name in names for group in numbers for clip in (1, 2)]
    folder = tmp_path / "UCF-101"
    (folder / "lists").mkdir(parents=True)
    (folder / "lists" / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    for path in (folder / each.split("_")[1] / each for each in videos):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for split in (1, 2, 3):
        tested = {f"g{group:02d}" for group in range(1 + 7 * (split - 1), 8 + 7 * (split - 1))}
        sides = {"train": [], "test": []}
        for each in videos:
            _, name, group, _ = each.split("_")
            test = group in tested
            sides["test" if test else "train"].append(f"{name}/{each}" + ("" if test else f" {names.index(name) + 1}"))
        for side, lines in sides.items():
            (folder / "lists" / f"{side}list0{split}.txt").write_text("\n".join(lines) + "\n")
    rng = np.random.default_rng(0)
    with StoreWriter(str(tmp_path / "store"), {}) as writer:
        for each in videos:
            row = rng.normal(size=12) + 0.5 * (names.index(each.split("_")[1]) * np.arange(12) > 5)
            writer.add(VideoFeatures(f"{each.split('_')[1]}/{each}", {"pool5": row.astype(np.float32)}, (0,), 20))
    command = ("visualize", "pca", tmp_path / "store", "--dims", "6", "2", "--dataset", "ucf101", "--data", folder)
    lists = ("--lists", folder / "lists")
    found = {}
    for splits in ("1", "2", "3", "1,2,3"):
        code, _, _ = p3d(capsys, *command, *lists, "--splits", splits, "--out", tmp_path / "f")
        assert code == 0
        (found[splits],) = json.loads((tmp_path / "f.json").read_text())["lines"]
    want = np.mean([found[split]["accuracies"] for split in "123"], axis=0)
    np.testing.assert_allclose(found["1,2,3"]["accuracies"], want)
    assert found["1,2,3"]["protocol"] == "mean of 3 splits"
    assert found["1"]["videos"] == 28
    (folder / "Biking" / videos[-1]).unlink()  # its features are there
    last = (*command, *lists, "--splits", "1,2", "--out", tmp_path / "f")
    assert "1 videos of the official lists are not there" in mistake(capsys, *last)
    code, out, _ = p3d(capsys, *last, "--allow-missing")
    assert code == 0
    assert out.count("note: 1 videos of the official lists are not there and are left out\n") == 1
    (line,) = json.loads((tmp_path / "f.json").read_text())["lines"]
    assert line["videos"] == 28 + 28


def of_segments(folder, labels, splits):
    with StoreWriter(str(folder), {}) as writer:
        for i, row in enumerate(features(3, videos=24)):
            label, source = labels[i % len(labels)], SourceFile(9, 0, f"{i // 2}")
            name = f"{i // 2}.mp4#t={5 * (i % 2)},{5 * (i % 2) + 5}"
            writer.add(VideoFeatures(name, {"pool5": row}, (0,), 9, label=label, split=splits[i % 2], source=source))
    return folder


def test_a_stores_own_labels_are_checked_as_by_evaluate(tmp_path, capsys):
    more = ("--dims", "3", "--out", tmp_path / "f")
    several = of_segments(tmp_path / "several", ("a", "b|c", "c"), (None, None))
    assert "8 videos have several labels (0.mp4#t=5,10)" in mistake(capsys, "visualize", "pca", several, *more)
    parts = of_segments(tmp_path / "parts", "abc", (None, None))
    assert p3d(capsys, "visualize", "pca", parts, *more)[0] == 0
    (line,) = json.loads((tmp_path / "f.json").read_text())["lines"]
    assert "group" in line["protocol"]
    split = of_segments(tmp_path / "split", "abc", ("train", "test"))
    code, out, _ = p3d(capsys, "visualize", "pca", split, *more)
    assert code == 0
    assert "note: split: 12 of 12 test videos have the content of a training video" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give at least one store"),
        (("STORE", "--layer", "pool5", "idt"), "--layer takes one name, or one for each of the 1 stores, got 2"),
        (("STORE", "--layer", "idt"), "no layer 'idt'; this store has pool5"),
        (("STORE", "--names", "a", "b"), "--names takes one for each of the 1 stores, got 2"),
        (("STORE", "STORE", "--names", "a", "a"), "--names has a name twice"),
        (("STORE", "--dims", "0"), "dimensions must be at least 1, got 0"),
        (("STORE", "--dims", "300"), "300 dimensions are too many: the features have 24 numbers"),
        (("STORE", "--folds", "1"), "--folds must be at least 2, got 1"),
        (("STORE", "--data", "x"), "--data, --lists and --splits belong to --dataset NAME"),
        (("STORE", "--dataset", "ucf101", "--data", "x", "--groups", "y"), "--groups has no meaning with --dataset"),
        (("STORE", "--dataset", "ucf101"), "--dataset ucf101 needs its folder: --data FOLDER"),
        (("missing.npy",), "missing.npy does not exist"),
        (("missing",), "not a feature store"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, capsys, p3d_store, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    given = [p3d_store if word == "STORE" else word for word in options]
    code, _, err = p3d(capsys, "visualize", "pca", *given, "--out", "f")
    assert code == 2
    assert len(err) == 1
    assert words in err[0]
    assert not list(Path().glob("f.*"))


def test_a_network_is_not_judged_on_what_it_was_trained_on(tmp_path, capsys, p3d_store):
    run = tmp_path / "run"
    (run / "checkpoints" / "best").mkdir(parents=True)
    (run / "split.csv").write_text(
        "path,label,split\n" + "".join(f"{run}/{video(i)},{video(i)[0]},train\n" for i in range(60))
    )
    made_with = {"weights_from": str(run / "checkpoints" / "best")}
    store = write_store(
        tmp_path / "seen", features(0), info={"made_with": made_with, "layers": ["pool5"], "root": str(run)}
    )
    FeatureStore(store).add("idt", FeatureStore(store).videos, features(1))
    code, _, err = p3d(capsys, "visualize", "pca", store, "--dims", "5", "--out", tmp_path / "f")
    assert code == 2
    assert "12 of 12 test videos are in the training list of the network" in err[0]
    assert p3d(capsys, "visualize", "pca", store, "--layer", "idt", "--dims", "5", "--out", tmp_path / "f")[0] == 0


def test_an_array_that_does_not_fit_its_table(tmp_path, capsys):
    array = write_array(tmp_path / "foreign", features(2), table(57))
    code, _, err = p3d(capsys, "visualize", "pca", array, "--out", tmp_path / "f")
    assert code == 2
    assert "float32 of shape (60, 24); idt.csv has 57 videos, so (57, dim) in float32 or float64 is needed" in err[0]
    array.write_bytes(b"nothing")
    code, _, err = p3d(capsys, "visualize", "pca", array, "--out", tmp_path / "f")
    assert code == 2
    assert "no array of numbers in NumPy's format" in err[0]
