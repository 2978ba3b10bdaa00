import json
from xml.etree import ElementTree

import pytest

from pseudo3d import files
from pseudo3d.training.record import Record


def report(epoch, loss=0.5):
    return {"epoch": epoch, "step": 4 * epoch, "loss": loss, "val video hit@1": 0.25, "lr": 1e-3}


def lines(out):
    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    text = (out / "metrics.jsonl").read_text()
    return [json.loads(line, parse_constant=no_constant) for line in text.splitlines()]


def test_a_line_a_report_and_the_curves(tmp_path):
    record = Record(tmp_path)
    record.add(report(1))
    first = (tmp_path / "curves.svg").read_bytes()
    record.add(report(2))
    record.add({"test": {"video hit@1": 0.75}, "seconds": 3.0})
    assert lines(tmp_path) == record.reports == [report(1), report(2), {"test": {"video hit@1": 0.75}, "seconds": 3.0}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.svg", "metrics.jsonl"]
    assert (tmp_path / "curves.svg").read_bytes() != first
    assert ElementTree.parse(tmp_path / "curves.svg").getroot().tag.endswith("svg")


def test_a_resumed_run_writes_what_an_undisturbed_one_does(tmp_path):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = Record(tmp_path / "whole")
    for epoch in (1, 2, 3):
        whole.add(report(epoch))
    cut = Record(tmp_path / "cut")
    for epoch in (1, 2):
        cut.add(report(epoch))
    resumed = Record(tmp_path / "cut", whole.reports[:1])  # its checkpoint is older than its last report
    for epoch in (2, 3):
        resumed.add(report(epoch))
    for name in ("metrics.jsonl", "curves.svg"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len(whole.reports) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have(tmp_path, value):
    record = Record(tmp_path)
    record.add(report(1, value))
    record.add({"test": {"video hit@1": value}, "each": [1.0, value]})
    assert lines(tmp_path) == [report(1, None), {"test": {"video hit@1": None}, "each": [1.0, None]}]
    Record(tmp_path, lines(tmp_path)).add(report(2))  # what was read back can be drawn


def test_a_full_disk_leaves_the_reports_before(tmp_path, monkeypatch):
    record = Record(tmp_path)
    record.add(report(1))

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        record.add(report(2))
    assert lines(tmp_path) == [report(1)]
