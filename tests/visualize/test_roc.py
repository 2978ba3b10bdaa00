import warnings

import numpy as np
import pytest
from PIL import Image

from pseudo3d.evaluation.metrics import roc_auc, roc_curve
from pseudo3d.visualize.plots import save_figure
from pseudo3d.visualize.roc import plot_roc


def curves(count, pairs=400):
    rng = np.random.default_rng(0)
    truth = np.arange(pairs) % 2 == 0
    out = []
    for i in range(count):
        scores = truth * (0.5 + 0.5 * i) + rng.normal(size=pairs)
        out.append((f"source {i}", *roc_curve(scores, truth), roc_auc(scores, truth)))
    return out


def test_lines_are_the_curves_in_percent():
    drawn = curves(2)
    (axes,) = plot_roc(drawn).axes
    for line, (name, false_rate, true_rate, auc) in zip(axes.lines, drawn, strict=False):
        np.testing.assert_allclose(line.get_xdata(), 100 * false_rate)
        np.testing.assert_allclose(line.get_ydata(), 100 * true_rate)
        assert line.get_label() == f"{name}, AUC {100 * auc:.1f}%"
    assert [line.get_label() for line in axes.lines][2:] == ["chance"]
    assert axes.get_xlabel() == "false positives, %"


@pytest.mark.parametrize("count", [1, 4, 15])
def test_each_curve_has_a_look_of_its_own(count):
    (axes,) = plot_roc(curves(count)).axes
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines[:-1]}
    assert len(looks) == count


def test_the_picture_is_whole_and_the_same_each_time(tmp_path):
    figure = plot_roc(curves(4))
    png, svg = save_figure(figure, tmp_path / "roc")
    with Image.open(png) as image:
        image.load()
        assert min(image.size) > 500
    assert svg.read_text().startswith("<?xml")
    again = save_figure(plot_roc(curves(4)), tmp_path / "again")
    assert again[1].read_bytes() == svg.read_bytes()


def test_a_long_name_leaves_room_for_the_curve(tmp_path):
    """A path as a name: its middle is left out, and the layout does not collapse (which is only a warning)."""
    name = "p3d_resnet50, " + "a_long_folder/" * 12 + "checkpoints/best"
    (_, *curve), = curves(1)  # fmt: skip
    figure = plot_roc([(name, *curve)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_figure(figure, tmp_path / "roc")
    label = figure.axes[0].lines[0].get_label()
    assert label.startswith("p3d_resnet50, a_l…/checkpoints/best, AUC ")


@pytest.mark.parametrize("count", [1, 4, 15])
def test_the_legend_hides_no_curve(count):
    figure = plot_roc(curves(count))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    (axes,) = figure.axes
    assert axes.get_legend() is None
    assert [text.get_text() for text in legend.get_texts()][-1] == "chance"
    box = legend.get_window_extent()
    assert box.y1 <= axes.get_tightbbox().y0 + 2  # of its own margin
    assert box.y0 >= 0
    assert axes.get_window_extent().height > 0.7 * figure.bbox.width
