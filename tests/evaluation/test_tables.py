"""Published numbers against what the papers say of them in words, and our rows in every form of a table."""

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from decimal import Decimal

import pytest

from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.published import REFERENCES, SOURCES, published_rows, read_published
from pseudo3d.evaluation.results import Measurement, Result
from pseudo3d.evaluation.tables import OWN, TABLES, build_table, save_table, tables_for
from pseudo3d.models.cost import PUBLISHED_SIZES

ROWS = {"table1": 5, "table2": 7, "table3": 16, "table4": 5, "table5": 6, "table6": 5, "table_c3d_ucf101": 17,
        "table_c3d_runtime": 4, "text": 3}  # fmt: skip
NUMBERS = {"table1": 15, "table2": 28, "table3": 24, "table4": 15, "table5": 12, "table6": 10, "table_c3d_ucf101": 17,
           "table_c3d_runtime": 12, "text": 3}  # fmt: skip


def printed(table, method, metric, number=0):
    """The number of the row whose method begins so; of several the one at place ``number``."""
    rows = [row for row in published_rows(table) if row.method.startswith(method)]
    return Decimal(rows[number].values[metric].value)


def result(protocol="ucf101-svm", name="mine", *, facts=None, footnotes=(), **values):
    """``accuracy_1=0.9`` is the accuracy of split 1; a pair is a value with its error."""
    measurements = []
    for key, value in values.items():
        metric, _, split = key.partition("_")
        value, error = value if isinstance(value, tuple) else (value, None)
        measurements.append(Measurement(metric, value, split, error))
    return Result(protocol, name, tuple(measurements), facts or {}, footnotes)


def network(metrics, protocol="ucf101-network", **more):
    """A result whose metrics have names with blanks."""
    return Result(protocol, "mine", tuple(Measurement(*each) for each in metrics), **more)


def own(table):
    """Our rows as they are shown."""
    return [row.texts() for row in table.rows if row.source == "measured"]


def test_every_row_and_number_is_there():
    assert {table: len(published_rows(table)) for table in ROWS} == ROWS
    assert sum(ROWS.values()) == len(read_published())
    counts = dict.fromkeys(NUMBERS, 0)
    for row in read_published():
        counts[row.table] += sum(re.fullmatch(r"\d+(\.\d+)?", value.value) is not None for value in row.values.values())
    assert counts == NUMBERS


def test_rows_are_complete():
    for row in read_published():
        assert row.source in SOURCES
        assert row.section
        assert row.method
        others = [set(other.values) for other in published_rows(row.table) if other.group == row.group]
        assert row.table == "text" or all(set(row.values) == other for other in others)
        for metric, value in row.values.items():
            assert value.unit != "%" or 0 < value.number < 100
            assert (value.unit == "%") == metric.startswith(("accuracy", "clip hit", "video hit", "top-", "mAP", "AUC"))
    digits = {"table4": 2}
    for row in read_published():
        found = {len(value.value.partition(".")[2]) for value in row.values.values() if value.unit == "%"}
        assert found <= {digits.get(row.table, 1)}


@pytest.mark.parametrize(
    ("table", "metric", "better", "worse", "difference"),
    [
        ("table2", "video hit@1", ("P3D ResNet",), ("ResNet-152",), "1.8"),  # abstract, section 4
        ("table2", "video hit@1", ("P3D ResNet",), ("C3D", 1), "5.3"),
        ("table1", "accuracy", ("P3D ResNet",), ("P3D-A",), "0.5"),  # section 3.3
        ("table1", "accuracy", ("P3D ResNet",), ("P3D-B",), "1.4"),
        ("table1", "accuracy", ("P3D ResNet",), ("P3D-C",), "1.2"),
        ("table3", "accuracy", ("P3D ResNet",), ("TSN",), "2.9"),  # section 5
        ("table3", "accuracy", ("P3D ResNet",), ("ResNet-152",), "5.1"),
        ("table4", "top-1", ("P3D ResNet",), ("IDT",), "10.4"),
        ("table4", "top-1", ("P3D ResNet",), ("C3D",), "9.3"),
        ("table4", "top-1", ("P3D ResNet",), ("VGG_19",), "8.5"),
        ("table4", "top-1", ("P3D ResNet",), ("ResNet-152",), "3.7"),
        ("table6", "accuracy on Dynamic Scene", ("P3D ResNet",), ("[5]",), "16.9"),
        ("table6", "accuracy on YUPENN", ("P3D ResNet",), ("[5]",), "3.3"),
        ("table6", "accuracy on YUPENN", ("P3D ResNet",), ("C3D",), "1.4"),
        ("table6", "accuracy on YUPENN", ("P3D ResNet",), ("ResNet-152",), "0.3"),
    ],
)
def test_differences_that_the_running_text_states(table, metric, better, worse, difference):
    def number(method, place=0):
        return printed(table, method, metric, place)

    assert (number(*better) - number(*worse)).quantize(Decimal("0.1")) == Decimal(difference)


def test_other_statements_of_the_running_text():
    speeds = [row.values["speed"].number for row in published_rows("table1")[1:4]]
    assert (min(speeds), max(speeds)) == (8.6, 9.0)  # "could reach 8.6 ~ 9.0 clips per second"
    (encoded,) = (row for row in published_rows("text") if row.group == "table3")
    assert encoded.values["accuracy"].number - float(printed("table3", "P3D ResNet", "accuracy")) == pytest.approx(1.9)
    assert printed("table3", "P3D ResNet + IDT", "accuracy") == Decimal("93.7")
    for row in published_rows("table5")[:-1]:  # "consistently better ... across accuracy and AUC"
        assert row.values["accuracy"].number < 80.8
        assert row.values["AUC"].number < 87.9
    best = published_rows("table6")[-1]
    assert [value.value for value in best.values.values()] == ["94.6", "99.5"]


def test_the_two_sources_agree_where_they_overlap():
    assert printed("table3", "C3D [31]", "accuracy") == printed("table_c3d_ucf101", "C3D (1 net)", "accuracy")
    assert printed("table3", "C3D + IDT", "accuracy") == printed("table_c3d_ucf101", "C3D (3 nets) + iDT", "accuracy")
    assert printed("table_c3d_ucf101", "C3D (3 nets)", "accuracy") == Decimal("85.2")
    flow = printed("table3", "Two-stream ConvNet", "accuracy with optical flow")
    assert flow == printed("table_c3d_ucf101", "Two-stream networks", "accuracy")


def test_the_runtime_table_says_the_same_thing_three_times():
    c3d = published_rows("table_c3d_runtime")[-1].values
    for row in published_rows("table_c3d_runtime"):
        hours, slower = row.values["RT"].number, row.values["x slower"].number
        low, high = hours / (c3d["RT"].number + 0.05), hours / (c3d["RT"].number - 0.05)  # 2.2 h is rounded
        assert low <= slower <= high
        if row.values["FPS"].number > 1:
            assert c3d["FPS"].number / row.values["FPS"].number == pytest.approx(slower, rel=0.05)


def test_sizes_elsewhere_in_the_package_are_the_same():
    rows = {"resnet50": ("table1", "ResNet-50"), "p3d_resnet50": ("table1", "P3D ResNet"),
            "resnet152": ("text", "ResNet-152"), "c3d": ("text", "C3D")}  # fmt: skip
    assert {name: int(printed(*place, "model size")) for name, place in rows.items()} == {
        name: size.megabytes for name, size in PUBLISHED_SIZES.items()
    }


@pytest.mark.parametrize("name", TABLES)
def test_without_results_nothing_is_ours(name):
    table = build_table(name)
    assert len(table.rows) == ROWS[name]
    for text in (table.text(), table.markdown(), table.latex(), table.csv()):
        assert "easured" not in text
        for row in published_rows(name):
            for value in row.values.values():
                assert value.value in text


@pytest.mark.parametrize("name", TABLES)
def test_every_work_in_brackets_is_named(name):
    table = build_table(name)
    if published_rows(name)[0].source == "P3D paper":
        for row in table.rows:
            for number in re.findall(r"\[(\d+)\]", row.method):
                assert f"[{number}] {REFERENCES[int(number)]}" in table.notes[-1]


def test_a_mean_of_three_splits_stands_as_it_is():
    table = build_table("table3", [result(accuracy_1=0.851, accuracy_2=0.85, accuracy_3=0.84, accuracy_mean=0.847)])
    assert own(table) == [["mine", "84.7%", "-", "measured"]]
    assert table.footnotes == ()
    assert table.rows[-1].group == "Measured here: linear SVM on the representation"


@pytest.mark.parametrize(
    ("values", "shown", "footnote"),
    [
        ({"accuracy_1": 0.86}, "86.0%", "split 1 only"),
        ({"accuracy_1": 0.86, "accuracy_3": 0.84, "accuracy_mean": 0.85}, "85.0%", "mean of splits 1 and 3 only"),
        ({"accuracy_mean": 0.85}, "85.0%", "it is not recorded of which splits"),
        ({"accuracy": 0.85}, "85.0%", "it is not recorded of which split"),
    ],
)
def test_fewer_splits_are_told(values, shown, footnote):
    table = build_table("table3", [result(**values)])
    assert own(table) == [["mine", shown, "-", "measured [a]"]]
    assert table.footnotes == (("a", f"{footnote}; the printed numbers are means of 3 splits"),)


def test_two_splits_without_a_mean_are_no_number():
    assert tables_for(result(accuracy_1=0.9, accuracy_2=0.8)) == (OWN,)


def test_table_1_is_of_split_1():
    first = network([("accuracy", 0.8, "1"), ("accuracy", 0.9, "2"), ("accuracy", 0.85, "mean")])
    assert own(build_table("table1", [first])) == [["mine", "-", "-", "80.0%", "measured"]]
    assert tables_for(first) == ("table1", "table3")
    assert tables_for(network([("accuracy", 0.8, "2")])) == ("table3",)
    assert tables_for(network([("accuracy", 0.8)])) == ("table3",)


def test_table_1_is_of_networks_of_50_layers():
    numbers = [("accuracy", 0.8, "1")]
    for name, tables in (("p3d_resnet50", ("table1", "table3")), ("p3d_resnet152", ("table3",))):
        assert tables_for(network(numbers, facts={"architecture": {"name": name}})) == tables
    assert tables_for(result(accuracy_1=0.8)) == ("table3",)  # Table 1 has no SVM


def test_a_clip_is_no_video():
    assert tables_for(network([("clip hit@1", 0.9, "1")])) == (OWN,)
    both = network([("clip hit@1", 0.9, "1"), ("video hit@1", 0.7, "1")])
    assert own(build_table("table1", [both]))[0][3] == "70.0%"
    sports = network([("clip hit@1", 0.479), ("video hit@1", 0.664)], "sports1m")
    assert own(build_table("table2", [sports])) == [["mine", "-", "-", "47.9%", "66.4%", "-", "measured"]]


def test_what_the_facts_know_fills_a_column():
    sports = network([("video hit@1", 0.664)], "sports1m", facts={"preprocessing": {"num_frames": 16}})
    assert own(build_table("table2", [sports]))[0][2] == "16"


def test_digits_and_errors_are_those_of_the_column():
    aslan = result("aslan", accuracy=(0.8084, 0.0046), AUC=0.8794)
    assert own(build_table("table5", [aslan])) == [["mine", "linear", "80.8 ± 0.5%", "87.9%", "measured"]]
    values = {"top-1": 0.751234, "top-3": 0.87, "mAP": 0.7}
    assert own(build_table("table4", [result("activitynet-svm", **values)]))[0][1:4] == ["75.12%", "87.00%", "70.00%"]
    sizes = network([("parameters, MB", 94.86), ("parameters, MiB", 90.47), ("speed, frames/s", 12.34)], "bench-table1")
    table = build_table("table1", [sizes])
    assert own(table) == [["mine", "94.9 MB", "90.5 MiB", "12.3 frame/s", "-", "measured"]]
    assert table.columns == ("Model size", "In MiB", "Speed", "Accuracy")


def test_rows_say_which_way_they_came_to_a_class():
    shares = {"top-1": 0.7, "top-3": 0.8, "mAP": 0.75}
    rows = [result("activitynet-network", "one", **shares), result("activitynet-svm", "two", **shares),
            result("activitynet-network", "three", **shares)]  # fmt: skip
    table = build_table("table4", rows)
    assert "SVM" not in table.title
    own_class = "Measured here: the network's own class scores"
    svm = "Measured here: linear SVM on the representation"
    assert [(row.method, row.group) for row in table.rows[5:]] == [
        ("one", own_class),
        ("three", own_class),
        ("two", svm),
    ]
    assert table.text().count(own_class) == 1
    fused = result("fusion", accuracy_1=0.9, facts={"data": "ucf101"})
    assert build_table("table3", [fused]).rows[-1].group == "Measured here: late fusion"
    assert build_table("table5", [result("aslan", accuracy=0.8)]).rows[-1].group == "Measured here"


def test_scenes_of_one_network_share_a_row():
    same = {"architecture": {"name": "p3d_resnet152"}, "weights": "sha256:1"}
    yupenn = result("yupenn", accuracy=0.995, facts=same, footnotes=("one",))
    dynamic = result("dynamic-scene", accuracy=0.946, facts=same, footnotes=("two",))
    assert own(build_table("table6", [yupenn, dynamic])) == [["mine", "94.6%", "99.5%", "measured [a, b]"]]
    other = result("dynamic-scene", accuracy=0.946, facts=same | {"weights": "sha256:2"})
    assert len(own(build_table("table6", [yupenn, other]))) == 2
    assert len(own(build_table("table6", [yupenn, yupenn]))) == 2


def test_scenes_in_different_variants_have_rows_of_their_own():
    facts = {"architecture": {"name": "p3d_resnet152"}, "weights": "sha256:1"}
    plain, authors = ({**facts, "variant": variant} for variant in ("plain", "authors"))
    results = [
        result("dynamic-scene", "net", facts=authors, accuracy=0.9), result("yupenn", "net", facts=plain, accuracy=0.8),
        result("yupenn", "net", facts=authors, accuracy=0.7),
    ]  # fmt: skip
    rows = own(build_table("table6", results))
    assert rows == [["net", "90.0%", "70.0%", "measured"], ["net", "-", "80.0%", "measured"]]


def test_a_small_set_in_the_layout_of_a_large_one_is_told():
    table = build_table("table3", [result(accuracy_mean=1.0, accuracy_1=1, accuracy_2=1, accuracy_3=1,
                                          facts={"classes": 3})])  # fmt: skip
    assert table.footnotes == (("a", "measured on 3 classes; the printed numbers are of 101"),)
    assert not build_table("table3", [result(accuracy_mean=1, accuracy_1=1, accuracy_2=1, accuracy_3=1,
                                             facts={"classes": 101})]).footnotes  # fmt: skip


def test_fused_scores_have_a_place_when_they_are_of_ucf101():
    fused = result("fusion", accuracy_1=0.9, facts={"data": "ucf101", "classes": 3})
    assert tables_for(fused) == ("table3",)
    assert (
        "measured on 3 classes; the printed numbers are of 101"
        in dict(build_table("table3", [fused]).footnotes).values()
    )
    assert tables_for(result("fusion", accuracy_1=0.9, facts={"data": "hmdb51"})) == (OWN,)
    assert tables_for(result("fusion", accuracy_1=0.9, facts={"data": None})) == (OWN,)


def test_the_table_of_c3d_is_for_c3d():
    facts = {"architecture": {"name": "c3d"}}
    assert tables_for(result(accuracy_1=0.9, facts=facts)) == ("table3", "table_c3d_ucf101")
    assert tables_for(result(accuracy_1=0.9, facts={"architecture": {"name": "p3d_resnet50"}})) == ("table3",)


def test_equal_footnotes_share_a_mark():
    rows = [result("aslan", "one", accuracy=0.8, footnotes=("3 videos left out", "first")),
            result("aslan", "two", accuracy=0.7, footnotes=("3 videos left out",))]  # fmt: skip
    table = build_table("table5", rows)
    assert [each[-1] for each in own(table)] == ["measured [a, b]", "measured [a]"]
    assert "\n[a] 3 videos left out\n[b] first\n" in table.text()


def test_marks_do_not_end():
    many = result("aslan", accuracy=0.8, footnotes=tuple(f"note {i}" for i in range(28)))
    assert [mark for mark, _ in build_table("table5", [many]).footnotes][-3:] == ["z", "aa", "ab"]


def test_the_table_of_our_numbers_alone():
    rows = [result("hmdb51-svm", "one", accuracy_1=0.5), network([("top-1", 0.7), ("speed, clips/s", 9.0)], "kinetics")]
    table = build_table(OWN, rows)
    assert table.columns == ("accuracy, split 1", "top-1", "speed, clips/s")
    assert own(table) == [["one", "50.0%", "-", "-", "measured"], ["mine", "-", "70.0%", "9.00", "measured"]]
    assert [row.group for row in table.rows] == ["", ""]
    same_name = build_table(OWN, [result("hmdb51-svm", "P3D", accuracy_1=0.5), result("kinetics", "P3D", accuracy=0.7)])
    assert [each[:3] for each in own(same_name)] == [["P3D", "50.0%", "-"], ["P3D", "-", "70.0%"]]


def test_mistakes():
    with pytest.raises(Pseudo3dError, match=r"no table 'table7'; there are table1, .*, results"):
        build_table("table7")
    with pytest.raises(
        Pseudo3dError, match="mine: this result of aslan has no number for table3; it has some for table5"
    ):
        build_table("table3", [result("aslan", accuracy=0.8)])
    with pytest.raises(Pseudo3dError, match="give the folders of runs"):
        build_table(OWN)


def awkward():
    return build_table("table3", [result(name="a_b & c|d \\ 100% #1\n\x1b[31m{x} <b> `q` ~^$", accuracy_1=0.5)])


def test_text_is_aligned_and_plain():
    lines = build_table("table6").text().splitlines()
    start = lines.index(next(line for line in lines if line.startswith("Method")))
    column = lines[start].index("Source")
    assert all(line[column:] == "P3D paper" for line in lines[start + 1 : start + 6])
    text = awkward().text()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_markdown_has_one_cell_for_each_column():
    lines = [line for line in awkward().markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 16 + 4 + 1  # head, rows, headings, ours
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}
    assert "a_b \\& c\\|d \\\\ 100% #1 [31m{x} \\<b> \\`q\\` \\~^$" in lines[-1]
    marked = build_table("table3", [result(name="_new_ p3d_a [x](y) &lt;", accuracy_1=0.5)]).markdown()
    assert r"| \_new\_ p3d_a [x]\(y) \&lt; |" in marked


def test_latex_is_balanced_and_escaped():
    for table in (awkward(), build_table("table6"), build_table("table1")):
        text = table.latex()
        bare = re.sub(r"\\[\\{}&%$#_]", "", text)
        assert bare.count("{") == bare.count("}")
        body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
        rows = [line for line in body.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.columns) + 1}
        assert not re.search(r"(?<!\\)[#$%]", text.replace(r"$\pm$", "").replace("{!}{%\n", ""))
        assert not any(row.startswith("[") for row in rows)  # \\ would take it for a length
    for text in (r"a\_b \& c\textbar{}d \textbackslash{} 100\% \#1 {[}31m\{x\}", r"\textless{}b\textgreater{}"):
        assert text in awkward().latex()
    assert r"\begin{tabular}{lrrl}" in awkward().latex()


def test_latex_numbers_tables_itself():
    assert r"\caption{Scene recognition, one video left out at a time (P3D paper, section 5, Table 6)}" in (
        build_table("table6").latex()
    )
    assert r"\caption{C3D on UCF101 (C3D talk, slide Results on UCF-101)}" in build_table("table_c3d_ucf101").latex()


def test_latex_leaves_signs_as_they_are():
    noted = result("aslan", accuracy=0.8, footnotes=('"not same" ("x"): p3d extract --mirror --- a/b_c',))
    assert r"``not same'' (``x''): p3d extract -{}-mirror -{}-{}- a/\allowbreak{}b\_\allowbreak{}c\par" in (
        build_table("table5", [noted]).latex()
    )
    starred = build_table("table5", [result("aslan", name="*new* ≥ 1", accuracy=0.8)]).latex()
    assert "\n" + r"{*}new{*} $\geq$ 1 & linear" in starred


def test_long_names_take_several_lines_in_latex():
    text = build_table("table5", [result("aslan", name=12 * "name ", accuracy=0.8)]).latex()
    lines = " ".join(7 * ["name"]), " ".join(5 * ["name"])
    assert rf"\begin{{tabular}}[t]{{@{{}}l@{{}}}}{lines[0]} \\ {lines[1]}\end{{tabular}} & linear &" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_sets_every_table_within_its_line(tmp_path):
    notes = (f'3 videos left out (/data/{30 * "folder_"}x.avi: \\z --- ~ ^ $x$ {{y}} "q" ?` <a> #1)',)
    name = "a_b & c|d \\ 100% #1 {x} <b> `q` ~^$ *s* – “é” ß € µ × ± ≥ → file--x it's"
    numbers = {"table1": [("speed, clips/s", 9.0)], "table2": [("video hit@5", 0.9)], "table4": [("mAP", 0.7)],
               "table_c3d_runtime": [("speed, frames/s", 500.0)]}  # fmt: skip
    facts = {"architecture": {"name": "c3d"}, "usage": "2 cores of some processor with a long name"}
    texts = []
    for table, layout in TABLES.items():
        own_facts = {} if table == "table1" else facts
        measured = network(numbers.get(table, [("accuracy", 0.8, "mean")]), layout.protocols[0], facts=own_facts)
        texts += [
            build_table(table).latex(),
            build_table(table, [replace(measured, name=name, footnotes=notes)]).latex(),
        ]
    each_split = network([("accuracy", 0.8, split) for split in ("1", "2", "3", "mean")], "hmdb51-svm", footnotes=notes)
    texts.append(build_table(OWN, [each_split, result("kinetics", "*x*", **{"top-1": 0.7})]).latex())
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    pages = "\\clearpage\n".join(texts)
    (tmp_path / "all.tex").write_text(f"{head}\n{pages}\\end{{document}}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=60)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert f"({len(texts)} pages" in " ".join(done.stdout.split())


def test_csv_has_bare_numbers():
    table = build_table("table1", [network([("accuracy", 0.8, "1")], footnotes=("a, b",))])
    rows = list(csv.DictReader(io.StringIO(table.csv())))
    assert list(rows[0]) == ["group", "method", "Model size (MB)", "Speed (frame/s)", "Speed (clip/s)", "Accuracy (%)",
                             "source", "notes"]  # fmt: skip
    assert [row["Speed (clip/s)"] for row in rows] == ["", "9.0", "8.8", "8.6", "8.8", ""]
    assert [float(row["Accuracy (%)"]) for row in rows] == [80.8, 83.7, 82.8, 83.0, 84.2, 80.0]
    assert (rows[-1]["source"], rows[-1]["notes"]) == ("measured", "a, b")
    errors = list(csv.DictReader(io.StringIO(build_table("table5", [result("aslan", accuracy=(0.8, 0.01))]).csv())))
    assert errors[-1]["Accuracy error (%)"] == "1.0"
    assert errors[0]["Accuracy error (%)"] == ""


def test_saved_tables(tmp_path):
    table = build_table("table5")
    paths = save_table(table, tmp_path / "new", "table")
    assert [path.name for path in paths] == ["table.md", "table.tex", "table.csv"]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    assert texts == [table.markdown(), table.latex(), table.csv()]
