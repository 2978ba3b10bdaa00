import subprocess
import sys
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from pseudo3d.visualize.plots import plot_confusion, plot_curves, plot_embedding, save_figure


def class_names(count):
    return [f"HandstandPushups_{i:02d}" for i in range(count)]


def confusion(classes):
    matrix = np.random.default_rng(0).integers(0, 4, (classes, classes)) + 9 * np.eye(classes, dtype=int)
    return plot_confusion(matrix, class_names(classes), title="linear SVM: 80 %")


def embedding(classes, *, unlabelled=0, panels=2):
    labels = class_names(classes) * 5 + [None] * unlabelled
    points = np.random.default_rng(0).normal(size=(len(labels), 2))
    return plot_embedding([(f"map {i}", points) for i in range(panels)], labels)


def curves(epochs, **test):
    names = ("train clip hit@1", "val clip hit@1", "val video hit@1", "val video hit@5")
    reports = [
        {
            "epoch": epoch,
            "step": 9 * epoch,
            "loss": 2 / epoch,
            **{name: 0.2 * i + 0.3 / epoch for i, name in enumerate(names)},
        }
        for epoch in range(1, epochs + 1)
    ]
    return plot_curves([*reports, {"test": test, "seconds": 3.0}] if test else reports)


def words(figure):
    """Everything that the figure says."""
    return {text.get_text() for text in figure.findobj(mpl.text.Text) if text.get_visible()}


@pytest.mark.parametrize("draw", [confusion, embedding])
@pytest.mark.parametrize("classes", [2, 30])
def test_png_and_svg_are_whole(tmp_path, draw, classes):
    written = save_figure(draw(classes), tmp_path / "new" / "v1.2_map")
    assert [path.name for path in written] == ["v1.2_map.png", "v1.2_map.svg"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["v1.2_map.png", "v1.2_map.svg"]
    with Image.open(written[0]) as image:
        image.load()
        assert min(image.size) > 300
        assert np.ptp(np.asarray(image.convert("L"))) > 100
    assert ElementTree.parse(written[1]).getroot().tag.endswith("svg")


def test_a_suffix_is_not_doubled(tmp_path):
    names = {path.name for path in save_figure(embedding(2), tmp_path / "map.png")}
    assert names == {"map.png", "map.svg"}


def test_a_failed_picture_leaves_the_old_one(tmp_path, monkeypatch):
    save_figure(embedding(2), tmp_path / "map")
    before = (tmp_path / "map.png").read_bytes()
    figure = embedding(3)

    def full(path, **_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full)
    with pytest.raises(OSError, match="No space left"):
        save_figure(figure, tmp_path / "map")
    assert (tmp_path / "map.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_one_kind_is_written(tmp_path):
    assert save_figure(embedding(2), tmp_path / "map", kinds=("svg",)) == [tmp_path / "map.svg"]
    assert [path.name for path in tmp_path.iterdir()] == ["map.svg"]


@pytest.mark.parametrize("draw", [lambda: confusion(3), lambda: embedding(3), lambda: curves(4)])
def test_the_same_picture_is_the_same_bytes(tmp_path, monkeypatch, draw):
    first = [path.read_bytes() for path in save_figure(draw(), tmp_path / "first")]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")  # another time
    assert [path.read_bytes() for path in save_figure(draw(), tmp_path / "second")] == first


def test_no_window_and_nobodys_backend_is_changed():
    code = """
import os, sys
os.environ.pop("DISPLAY", None)
os.environ["MPLBACKEND"] = "svg"
import matplotlib, numpy, tempfile
from pseudo3d.visualize.plots import plot_confusion, plot_embedding, save_figure
figure = plot_embedding([("a", numpy.eye(2))], ["x", None])
save_figure(figure, tempfile.mkdtemp() + "/a")
plot_confusion(numpy.eye(2, dtype=int), ["x", "y"])
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.get_backend().lower() == "svg"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("classes", [2, 25, 30])
def test_confusion_names_every_class_and_counts_up_to_25(classes):
    figure = confusion(classes)
    said = words(figure)
    assert set(class_names(classes)) <= said
    assert {"predicted", "true", "linear SVM: 80 %"} <= said
    (axes,) = figure.axes
    assert bool(axes.texts) == (classes <= 25)


def test_confusion_counts_stand_in_their_cells():
    figure = plot_confusion(np.array([[7, 0], [2, 5]]), ["x", "y"])
    assert {text.get_text(): text.get_position() for text in figure.axes[0].texts} == {
        "7": (0, 0),
        "2": (0, 1),  # true y, predicted x: second row, first column
        "5": (1, 1),
    }
    shades = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(shades, [[1, 0], [2 / 7, 5 / 7]])


def test_confusion_of_a_class_without_videos():
    shades = plot_confusion(np.array([[0, 0], [0, 5]]), ["x", "y"]).axes[0].images[0].get_array()
    np.testing.assert_allclose(shades, [[0, 0], [0, 1]])


@pytest.mark.parametrize("classes", [30, 101])
def test_confusion_names_do_not_overlap(classes):
    figure = confusion(classes)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in pairwise(boxes))


def test_confusion_of_very_many_classes_is_without_names():
    assert not set(class_names(300)) & words(confusion(300))


@pytest.mark.parametrize(("classes", "unlabelled", "panels"), [(2, 0, 1), (2, 4, 2), (30, 0, 1), (30, 5, 3)])
def test_embedding_legend_names_every_class_and_hides_nothing(classes, unlabelled, panels):
    figure = embedding(classes, unlabelled=unlabelled, panels=panels)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["no label"] * bool(unlabelled) + class_names(classes)
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.bbox.x1
    for axes in figure.axes:
        assert axes.get_window_extent().y0 >= box.y1
        assert axes.get_window_extent().height > 300


def test_embedding_styles_differ_and_points_are_all_drawn():
    figure = embedding(70, unlabelled=2, panels=1)
    drawn = figure.axes[0].collections
    styles = {(tuple(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes()) for points in drawn}
    assert len(styles) == 71
    assert sum(len(points.get_offsets()) for points in drawn) == 70 * 5 + 2
    assert not embedding(71).legends  # a colour and marker would stand for two classes


def test_embedding_without_labels():
    figure = embedding(0, unlabelled=9)
    assert not figure.legends
    assert [len(axes.collections[0].get_offsets()) for axes in figure.axes] == [9, 9]


def test_a_class_with_an_empty_name_is_not_unlabelled():
    figure = plot_embedding([("a", np.eye(2))], ["", None])
    assert [len(points.get_offsets()) for points in figure.axes[0].collections] == [1, 1]


def lines_of(axes):
    return {line.get_label(): np.transpose(line.get_data()).tolist() for line in axes.lines}


def test_curves_are_the_reports():
    loss, hits = curves(3).axes
    assert lines_of(loss) == {"loss": [[1, 2], [2, 1], [3, 2 / 3]]}
    drawn = lines_of(hits)
    assert list(drawn) == ["train clip hit@1", "val clip hit@1", "val video hit@1", "val video hit@5"]
    np.testing.assert_allclose(drawn["val video hit@1"], [[1, 70], [2, 55], [3, 50]])


def test_curves_say_what_they_are():
    figure = curves(3, **{"video hit@1": 0.625})
    figure.draw_without_rendering()
    assert {"training loss", "hits, %", "epoch", "val video hit@5", "test video hit@1: 62.5%"} <= words(figure)
    (test,) = [line for line in figure.axes[1].lines if line.get_label().startswith("test")]
    assert list(test.get_ydata()) == [62.5, 62.5]


def test_curves_differ_by_colour_and_by_marker():
    drawn = curves(3).axes[1].lines
    assert len({line.get_color() for line in drawn}) == len({line.get_marker() for line in drawn}) == 4


def test_a_hits_colour_does_not_depend_on_the_others():
    (alone,) = plot_curves([{"epoch": 1, "loss": 1.0, "val video hit@1": 0.5}]).axes[1].lines
    assert alone.get_color() == curves(3).axes[1].lines[2].get_color()


def test_curves_with_gaps():
    reports = [
        {"epoch": 1, "loss": 2.0},
        {"epoch": 2, "loss": float("nan"), "val video hit@1": 0.5},
        {"epoch": 3, "loss": None, "val video hit@1": None},
        {"epoch": 4, "loss": 1.0, "val video hit@1": 0.75},
    ]
    loss, hits = plot_curves(reports).axes
    assert lines_of(loss) == {"loss": [[1, 2], [4, 1]]}
    assert lines_of(hits) == {"val video hit@1": [[2, 50], [4, 75]]}


@pytest.mark.parametrize("reports", [[], [{"epoch": 1, "loss": 1.0}], [{"test": {"video hit@1": float("nan")}}]])
def test_curves_of_next_to_nothing(tmp_path, reports):
    figure = plot_curves(reports)
    save_figure(figure, tmp_path / "curves", kinds=("svg",))
    assert figure.axes[1].get_legend() is None


@pytest.mark.parametrize("epochs", [1, 2, 9, 200])
def test_curves_have_whole_epochs_and_few_markers(epochs):
    figure = curves(epochs)
    figure.draw_without_rendering()
    assert all(float(tick).is_integer() for tick in figure.axes[1].get_xticks())
    assert all(-(-epochs // line.get_markevery()) <= 15 for line in figure.axes[1].lines)


@pytest.mark.parametrize("classes", [8, 25, 26, 60, 101])
def test_confusion_columns_names_do_not_overlap(classes):
    """Upright names are apart from side to side; slanted ones by the distance of their lines, 0.7 of their columns'."""
    figure = confusion(classes)
    figure.draw_without_rendering()
    labels = figure.axes[0].get_xticklabels()
    centres = np.array([label.get_transform().transform(label.get_position())[0] for label in labels])
    apart = np.diff(centres).min()
    height = labels[0].get_fontsize() * figure.dpi / 72
    if labels[0].get_rotation() == 45:
        assert 1.1 * height < apart / np.sqrt(2)
    else:
        boxes = [label.get_window_extent() for label in labels]
        assert all(left.x1 <= right.x0 + 0.5 for left, right in pairwise(boxes))


def names_in(axes):
    """Boxes of the names written into a map, by name."""
    return {text.get_text(): text.get_window_extent() for text in axes.texts if text.get_text()}


@pytest.mark.parametrize("panels", [1, 2])
def test_embedding_of_many_classes_names_them_all_in_the_maps_without_overlap(panels):
    rng = np.random.default_rng(0)
    middles = rng.uniform(-50, 50, (101, 2))
    labels = [name for name in class_names(101) for _ in range(9)]
    points = np.repeat(middles, 9, axis=0) + rng.normal(0, 2, (909, 2))
    figure = plot_embedding([(f"map {i}", points) for i in range(panels)], labels)
    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = names_in(axes)
        assert set(boxes) == set(class_names(101))
        edges = np.array([box.extents for box in boxes.values()])
        inner = np.minimum(edges[:, None, 2:], edges[None, :, 2:]) - np.maximum(edges[:, None, :2], edges[None, :, :2])
        overlap = (inner > 0).all(axis=2)
        assert np.array_equal(overlap, np.eye(101, dtype=bool))
        whole = axes.get_window_extent()
        assert (edges[:, :2] >= [whole.x0, whole.y0]).all()
        assert (edges[:, 2:] <= [whole.x1, whole.y1]).all()
        centres = dict(zip(boxes, (edges[:, :2] + edges[:, 2:]) / 2, strict=True))
        away = [np.hypot(*(axes.transData.transform(middle) - centres[name])) * 72 / figure.dpi
                for name, middle in zip(class_names(101), middles, strict=True)]  # fmt: skip
        assert max(away) < 100
        assert np.median(away) < 12  # points: most stand in their group
        assert axes.get_xlabel() == " "


def test_embedding_counts_the_names_without_room():
    labels = class_names(300)
    figure = plot_embedding([("a", np.zeros((300, 2)))], labels)
    axes = figure.axes[0]
    written = len(names_in(axes))
    assert 3 < written < 300
    assert axes.get_xlabel() == f"{300 - written} of 300 names have no room"


def test_embedding_with_names_in_it_still_tells_what_is_grey():
    (legend,) = embedding(40, unlabelled=3).legends
    assert [text.get_text() for text in legend.get_texts()] == ["no label"]
