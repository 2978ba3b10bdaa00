"""``p3d bench``: published tables, tables of runs, and what it measures itself."""

import csv
import io
import json

import pytest
import torch
from tiny import mistake, names, p3d, write_two_classes
from videos import damaged

from pseudo3d import create_model, save_pretrained
from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.results import Measurement, Result, read_result, save_result
from pseudo3d.evaluation.speed import measure_rates
from pseudo3d.models.cost import model_cost

NETWORK = {"architecture": {"name": "p3d_resnet50", "blocks": "ABC"}, "classes": 101}


def save(folder, protocol="ucf101-network", facts=None, footnotes=(), **values):
    measurements = tuple(Measurement(*key.split("_")[:1], value, *key.split("_")[1:]) for key, value in values.items())
    save_result(Result(protocol, folder.name, measurements, facts or {}, footnotes), folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "W"
    torch.manual_seed(0)
    model = create_model("p3d_resnet14", num_classes=2)
    model.preprocessing = model.preprocessing.with_size(32)
    save_pretrained(model, folder)
    return folder


def test_all_published_tables(capsys):
    code, out, err = p3d(capsys, "bench", "tables")
    assert (code, err) == (0, [])
    for title in ("Table 1", "Table 2", "Table 3", "Table 4", "Table 5", "Table 6", "C3D on UCF101", "Runtime of C3D"):
        assert f"\n{title}" in f"\n{out}"
    assert "easured" not in out


def test_tables_of_runs(tmp_path, capsys):
    save(tmp_path / "runs" / "fine-tuned", facts=NETWORK, accuracy_1=0.81)
    save(tmp_path / "runs" / "pairs", "aslan", accuracy=0.8, AUC=0.87)
    save(tmp_path / "kinetics", "kinetics", **{"top-1": 0.5})
    code, out, _ = p3d(capsys, "bench", "tables", tmp_path / "runs", tmp_path / "kinetics")
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("Table ")] == [
        "Table 1: ResNet-50 and its P3D variants on UCF101, split 1 (P3D paper, section 3.3)",
        "Table 3: UCF101, mean of the 3 splits (P3D paper, section 5)",
        "Table 5: ASLAN, action similarity, 10 folds (P3D paper, section 5)",
    ]
    assert "Measured: kinetics" in out
    assert [line.split() for line in out.splitlines() if line.startswith("  pairs")] == [
        ["pairs", "linear", "80.0%", "87.0%", "measured"]
    ]


def test_formats_and_files(tmp_path, capsys):
    run, out = save(tmp_path / "mine", "yupenn", accuracy=0.99), tmp_path / "out"
    printed = {
        form: p3d(capsys, "bench", "tables", run, "--table", "table6", "--format", form, "--out", out)[1]
        for form in ("text", "markdown", "latex", "csv")
    }
    assert names(out) == ["table6.csv", "table6.md", "table6.tex"]
    assert printed["markdown"] == (out / "table6.md").read_text(encoding="utf-8")
    assert printed["latex"] == (out / "table6.tex").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(printed["csv"])))
    assert [(row["method"], row["YUPENN (%)"], row["source"]) for row in rows[-2:]] == [
        ("P3D ResNet", "99.5", "P3D paper"), ("mine", "99.0", "measured")
    ]  # fmt: skip
    assert "  mine" in printed["text"]


def test_mistakes_in_tables(tmp_path, capsys):
    run = save(tmp_path / "mine", "yupenn", accuracy=0.99)
    assert "no table 'table9'; there are table1" in mistake(capsys, "bench", "tables", "--table", "table9")
    assert "has no number for table5; it has some for table6" in mistake(
        capsys, "bench", "tables", run, "--table", "table5"
    )
    (tmp_path / "theirs").mkdir()
    assert "does not exist: give the folder of a run" in mistake(capsys, "bench", "tables", tmp_path / "theirs")
    (tmp_path / "theirs" / "letter.txt").write_text("dear")
    said = mistake(capsys, "bench", "tables", run, "--out", tmp_path / "theirs")
    assert "holds other files (letter.txt)" in said
    assert names(tmp_path / "theirs") == ["letter.txt"]
    assert "did you mean 'tables'" in mistake(capsys, "bench", "table")
    said = "no command 'nope'; there are table1, c3d-runtime, tables. See p3d bench --help"
    assert said in mistake(capsys, "bench", "nope")


def test_rates_take_turns():
    turns, now = [], [0.0]

    def job(name, items, seconds):
        def do():
            turns.append(name)
            now[0] += seconds[min(turns.count(name), len(seconds)) - 1]
            return items

        return do

    jobs = {"steady": job("steady", 4, [1.0]), "busy": job("busy", 10, [1.0, 5.0, 2.0])}
    rates = measure_rates(jobs, rounds=3, seconds=1.0, clock=lambda: now[0])
    assert turns == ["steady", "busy"] * 3
    assert (rates["steady"].median, rates["busy"].median) == (4.0, 5.0)
    assert str(rates["busy"]) == "median of 3 rounds, 2.0 to 10.0"
    long = measure_rates({"steady": job("steady", 4, [1.0])}, rounds=1, seconds=2.5, clock=lambda: now[0])
    assert str(long["steady"]) == "4.0 in one round"
    assert turns[6:] == ["steady"] * 3  # until 2.5 s have passed
    with pytest.raises(Pseudo3dError, match="rounds must be at least 1 and seconds not negative, got 0 and 2"):
        measure_rates({}, rounds=0)


def test_runs_that_table_1_does_not_take(tmp_path, capsys):
    second = save(tmp_path / "second", facts=NETWORK, accuracy_2=0.8)
    said = mistake(capsys, "bench", "table1", "--results", second)
    assert "without the accuracy of a fine-tuned network on UCF101's split 1; make one with" in said
    svm = save(tmp_path / "svm", "ucf101-svm", facts=NETWORK, accuracy_1=0.8)
    assert "a result of ucf101-svm without" in mistake(capsys, "bench", "table1", "--results", svm)
    deep = save(tmp_path / "deep", facts={"architecture": {"name": "p3d_resnet152", "blocks": "ABC"}}, accuracy_1=0.8)
    assert "is of p3d_resnet152 with blocks ABC; Table 1 has" in mistake(capsys, "bench", "table1", "--results", deep)
    one, two = (save(tmp_path / name, facts=NETWORK, accuracy_1=0.8) for name in ("one", "two"))
    said = mistake(capsys, "bench", "table1", "--results", one, two)
    assert "one and two are both of P3D ResNet; give one of them" in said
    assert "rounds must be at least 1" in mistake(capsys, "bench", "table1", "--rounds", "0")
    assert "batch" in mistake(capsys, "bench", "table1", "--quick", "--batch-size", "0")
    runs = save(tmp_path / "runs" / "resnet50", accuracy_1=0.8).parent
    assert "is a result of ucf101-network; give another folder" in mistake(capsys, "bench", "table1", "--out", runs)
    assert names(runs) == ["resnet50"]


@pytest.mark.slow
def test_table_1(tmp_path, capsys):
    run = save(tmp_path / "run", facts=NETWORK, footnotes=("2 videos left out",), accuracy_1=0.812)
    out = tmp_path / "out"
    code, text, err = p3d(capsys, "bench", "table1", "--quick", "--device", "cpu", "--results", run, "--out", out)
    assert (code, err) == (0, [])
    assert names(out) == ["p3d_a", "p3d_abc", "p3d_b", "p3d_c", "resnet50", "table1.csv", "table1.md", "table1.tex"]
    rows = {line.split("  ")[1]: line.split() for line in text.splitlines() if line.startswith("  ") and "MiB" in line}
    assert list(rows) == ["ResNet-50", "P3D-A ResNet", "P3D-B ResNet", "P3D-C ResNet", "P3D ResNet"]
    assert "81.2%" in rows["P3D ResNet"]
    said = mistake(capsys, "bench", "table1", "--quick", "--device", "cpu", "--out", out)
    assert f"resnet50/result.json: holds a result of other options: results was {run} and is" in said
    assert "holds what was measured" in mistake(capsys, "bench", "tables", "--out", out)
    assert all("-" in words for name, words in rows.items() if name != "P3D ResNet")
    for name, folder, blocks in (("resnet50", "resnet50", "ABC"), ("p3d_resnet50", "p3d_b", "B")):
        result, cost = read_result(out / folder), model_cost(name, num_classes=101)
        assert result.measurement("parameters, MB").value == cost.megabytes
        assert result.measurement("parameters, MiB").value == cost.mebibytes
        assert result.facts["architecture"] == {"name": name, "blocks": blocks}
        assert result.measurement("accuracy", "1") is None
    frames, clips = read_result(out / "resnet50"), read_result(out / "p3d_abc")
    assert frames.measurement("speed, frames/s").value > 0
    assert clips.measurement("speed, clips/s").value > 0
    assert "2 videos left out" in clips.footnotes
    assert "too rough to compare" in text
    assert "25,132,581 parameters; the printed 98 MB is met in neither unit" in text
    code, again, _ = p3d(capsys, "bench", "tables", out, "--table", "table1")
    assert code == 0
    assert "100.5 MB" in again


def test_c3d_runtime(weights, tmp_path, capsys):
    data, out = write_two_classes(tmp_path / "videos", 1, frames=40), tmp_path / "out"
    (data / "dark" / "torn.mp4").write_bytes(b"no video")
    options = ("--data", data, "--weights", weights, "--device", "cpu", "--dtype", "float32", "--engine", "eager",
               "--workers", "0", "--rounds", "2", "--out", out)  # fmt: skip
    code, text, err = p3d(capsys, "bench", "c3d-runtime", *options)
    assert (code, err) == (0, [])
    assert names(out) == ["result.json", "table_c3d_runtime.csv", "table_c3d_runtime.md", "table_c3d_runtime.tex"]
    result = read_result(out)
    facts = result.facts
    assert (facts["videos"], facts["frames"], facts["number of clips"], facts["layer"]) == (2, 80, 8, "pool5")
    assert facts["rounds"] == 2
    assert "videos that could not be used and are left out: 1" in result.footnotes
    assert "torn.mp4" in facts["failed"][0]
    fps = result.measurement("speed, frames/s").value
    assert result.measurement("x slower than C3D's printed FPS").value == pytest.approx(313.9 / fps)
    assert result.measurement("runtime of UCF101, hours") is None
    for metric in ("decoding alone, frames/s", "network alone, frames/s"):
        assert result.measurement(metric).value > 0
    (row,) = (line.split() for line in text.splitlines() if line.startswith("  p3d_resnet14"))
    assert row[1:3] == ["CPU", "-"]
    assert "moving digits" not in text
    assert json.loads((out / "result.json").read_text())["protocol"] == "bench-c3d-runtime"
    said = mistake(capsys, "bench", "c3d-runtime", *options[:-2], "--stride", "4", "--out", out)
    assert "holds a result of other options: stride was 8 and is 4 now; give another folder for --out" in said
    assert "holds what was measured" in mistake(capsys, "bench", "tables", "--out", out)


def test_mistakes_in_c3d_runtime(weights, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "is a file; give a folder" in mistake(capsys, "bench", "c3d-runtime", "--out", tmp_path / "file")
    assert "--videos must be at least 1, got 0" in mistake(capsys, "bench", "c3d-runtime", "--videos", "0")
    assert "rounds must be at least 1" in mistake(
        capsys, "bench", "c3d-runtime", "--rounds", "0", "--data", write_two_classes(tmp_path / "videos", 1)
    )
    bad = damaged(tmp_path)
    bad.write_bytes(b"no video")
    said = mistake(
        capsys, "bench", "c3d-runtime", "--data", bad, "--weights", weights, "--workers", "0", "--device", "cpu"
    )
    assert "none of 1 videos can be used; the first: " in said
    assert "does not exist" in mistake(capsys, "bench", "c3d-runtime", "--data", tmp_path / "nowhere")
