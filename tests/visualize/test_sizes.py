import json

import pytest
from tiny import p3d

from pseudo3d import Pseudo3dError
from pseudo3d.evaluation.results import Measurement, Result, save_result
from pseudo3d.visualize.plots import save_figure
from pseudo3d.visualize.sizes import measured_point, network_size, plot_sizes, published_points


def sports(name="ours", value=0.5, network="p3d_resnet50", **more):
    facts = {"architecture": {"name": network, "num_classes": 487, "blocks": "ABC"}} | more
    return Result("sports1m", name, (Measurement("video hit@1", value), Measurement("video hit@5", 0.9)), facts)


def test_sizes_and_layers_are_counted():
    megabytes, layers = network_size("p3d_resnet152", num_classes=487)
    assert megabytes == pytest.approx((66_492_240 + 87 * 2049) * 4 / 1e6)  # 400 classes, and 87 more
    assert layers == 199  # ResNet-152 and a temporal convolution in each of 47 blocks
    assert network_size("p3d_resnet50", num_classes=101, blocks="A", in_channels=2)[1] == 50 + 13
    assert network_size("resnet50", num_classes=101) == (pytest.approx(94.859924), 50)
    assert network_size("c3d", num_classes=487) == (pytest.approx(319.96406), 11)


def test_figure_1_is_what_the_paper_prints():
    points = {point.name: point for point in published_points()}
    assert list(points) == ["C3D", "C3D, I380K", "ResNet-152", "P3D ResNet"]
    assert [point.accuracy for point in points.values()] == [0.6, 0.611, 0.646, 0.664]
    assert [point.layers for point in points.values()] == [11, 11, 152, 199]
    assert (points["C3D"].megabytes, points["ResNet-152"].megabytes) == (321, 235)
    assert [name for name, point in points.items() if point.counted] == ["P3D ResNet"]
    assert not any(point.measured for point in points.values())


def test_table_1_as_a_figure():
    points = published_points("ucf101")
    assert [point.name for point in points] == [
        "ResNet-50",
        "P3D-A ResNet",
        "P3D-B ResNet",
        "P3D-C ResNet",
        "P3D ResNet",
    ]
    assert [point.megabytes for point in points] == [92, 98, 98, 98, 98]
    assert [point.accuracy for point in points] == [0.808, 0.837, 0.828, 0.83, 0.842]
    assert not any(point.counted for point in points)


@pytest.mark.parametrize("benchmark", ["sports1m", "ucf101"])
def test_published_points_are_hollow_and_ours_filled(tmp_path, benchmark):
    ours = measured_point(sports())
    points = [*published_points(benchmark), ours]
    figure = plot_sizes(points, benchmark)
    left, right = figure.axes
    assert [line.get_xdata()[0] for line in left.lines] == [point.megabytes for point in points]
    assert [line.get_xdata()[0] for line in right.lines] == [point.layers for point in points]
    for axes in (left, right):
        assert [line.get_ydata()[0] for line in axes.lines] == [100 * point.accuracy for point in points]
        assert [line.get_markerfacecolor() != "white" for line in axes.lines] == [point.measured for point in points]
    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[-1] == "ours: 50.0%, 104 MB*, 63 layers, measured"
    assert not any("measured" in text for text in texts[:-1])
    assert "hollow: published; filled: measured" in legend.get_title().get_text()
    for axes in (left, right):
        assert all(0 < line.get_xdata()[0] < 0.95 * axes.get_xlim()[1] for line in axes.lines)
    written = save_figure(figure, tmp_path / "sizes")
    assert all(path.stat().st_size > 5000 for path in written)


def test_the_command_writes_pictures_and_numbers(tmp_path, capsys):
    save_result(sports("first", 0.41), tmp_path / "a")
    save_result(sports("second", 0.43, "resnet152"), tmp_path / "b")
    out = tmp_path / "figures" / "sizes.png"
    code, printed, err = p3d(capsys, "visualize", "sizes", tmp_path / "a", tmp_path / "b" / "result.json", "--out", out)
    assert (code, err) == (0, [])
    assert sorted(path.name for path in out.parent.iterdir()) == ["sizes.json", "sizes.png", "sizes.svg"]
    networks = json.loads((out.parent / "sizes.json").read_text())["networks"]
    assert [(each["name"], each["measured"]) for each in networks][-3:] == [
        ("P3D ResNet", False), ("first", True), ("second", True),
    ]  # fmt: skip
    assert [line.split()[-1] for line in printed.splitlines() if line.startswith(("first", "C3D "))] == [
        "published", "measured",
    ]  # fmt: skip


def test_without_results_the_published_points_alone_are_drawn(tmp_path, capsys):
    code, printed, _ = p3d(capsys, "visualize", "sizes", "--benchmark", "ucf101", "--out", tmp_path / "sizes")
    assert code == 0
    assert "measured" not in printed


def ucf101(protocol="ucf101-network", split="1", **facts):
    return Result(protocol, "run", (Measurement("accuracy", 0.8, split),), facts)


@pytest.mark.parametrize(
    ("result", "benchmark", "words"),
    [
        (ucf101(), "sports1m", "run: a result of ucf101-network has no place beside those of sports1m"),
        (ucf101("ucf101-svm"), "ucf101", "it takes bench-table1 and ucf101-network"),
        (ucf101(split="2"), "ucf101", "run: has no accuracy or video hit@1 of split 1"),
        (ucf101(), "ucf101", "run: does not say which network it is of"),
        (sports(network="p3d_resnet51"), "sports1m", "p3d_resnet51"),
    ],
)
def test_other_results_are_refused(result, benchmark, words):
    with pytest.raises(Pseudo3dError, match=words):
        measured_point(result, benchmark)


def test_mistakes_are_told_in_one_line(tmp_path, capsys):
    for folder in "ab":
        save_result(sports("same"), tmp_path / folder)
    code, _, err = p3d(capsys, "visualize", "sizes", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "sizes")
    assert code == 2
    assert "two results are called 'same'" in err[0]
    code, _, err = p3d(capsys, "visualize", "sizes", tmp_path / "nothing", "--out", tmp_path / "sizes")
    assert code == 2
    assert len(err) == 1
    assert not list(tmp_path.glob("sizes*"))


def test_networks_differ_by_shape_and_by_colour():
    points = [*published_points("ucf101"), measured_point(sports("a")), measured_point(sports("b"))]
    for axes in plot_sizes(points, "ucf101").axes:
        assert len({line.get_marker() for line in axes.lines}) == len(points) == 7
        assert len({line.get_color() for line in axes.lines}) == len(points)
