import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudo3d import Pseudo3dError
from pseudo3d.evaluation.results import PROTOCOLS, Measurement, Result, read_result, save_result

RESULT = Result(
    "ucf101-svm",
    "P3D ResNet-50, runs/first",
    (Measurement("accuracy", 1 / 3, "1"), Measurement("accuracy", 0.1 + 0.2, "mean", 1e-17)),
    {"clips": 20, "network": None, "splits": ["1"], "preprocessing": {"crop": [160, 160], "ü": True}},
    ("3 videos were left out",),
)


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


def test_round_trip_in_full_precision(tmp_path):
    path = save_result(RESULT, tmp_path / "new" / "run")
    assert path == tmp_path / "new" / "run" / "result.json"
    assert read_result(path) == read_result(path.parent) == read_result(str(path)) == RESULT
    assert read_result(path).measurement("accuracy", "1").value == 1 / 3
    assert read_result(path).measurement("accuracy") is None
    assert [each.name for each in path.parent.iterdir()] == ["result.json"]


def test_every_protocol_is_written_and_read(tmp_path):
    for protocol in PROTOCOLS:
        result = replace(RESULT, protocol=protocol)
        assert read_result(save_result(result, tmp_path / protocol)) == result


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text(), JSON, max_size=4), st.floats(0, 1))
def test_any_json_comes_back(tmp_path_factory, facts, value):
    result = Result("svm", "x", (Measurement("accuracy", value),), facts)
    assert read_result(save_result(result, tmp_path_factory.mktemp("run"))) == result


def test_tuples_become_lists_and_numpy_numbers_floats():
    measurement = Measurement("speed, clips/s", np.float32(2.5), error=np.int64(1))
    assert type(measurement.value) is type(measurement.error) is float
    assert Result("hits", "x", (measurement,), {"a": ({"b": (1,)},)}).facts == {"a": [{"b": [1]}]}


def test_lists_become_tuples():
    result = Result("hits", "x", list(RESULT.measurements), {}, ["a note"])
    assert (result.measurements, result.footnotes) == (RESULT.measurements, ("a note",))


def test_the_same_protocol_may_be_run_again(tmp_path):
    save_result(RESULT, tmp_path)
    again = replace(RESULT, name="other")
    assert read_result(save_result(again, tmp_path)) == again


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"weights": b"x"}, "facts.weights is bytes, which JSON has not"),
        ({"a": {"b": [1, np.float32(2)]}}, r"facts.a.b\[1\] is float32, which JSON has not"),
        ({"c": float("nan")}, "facts.c is nan; a result holds finite numbers only"),
        ({"a": {3: 1}}, "facts.a has the key 3, but keys of JSON are texts"),
        ({"a": {"b"}}, "facts.a is set"),
    ],
)
def test_facts_that_are_not_json_are_named(facts, message):
    with pytest.raises(Pseudo3dError, match=message):
        replace(RESULT, facts=facts)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("accuracy", float("nan")), "accuracy is nan; a result holds finite numbers only"),
        (("speed, clips/s", float("inf")), "speed, clips/s is inf"),
        (("top-3", 87.71), r"top-3 is 87.71, but a share lies in 0..1 \(not in percent\)"),
        (("AUC", "0.5"), "AUC is str, not a number"),
        (("AUC", None), "AUC is null, not a number"),
        (("AUC", 0.5, "", float("inf")), "error of AUC is inf"),
        (("AUC", 0.5, "", -0.1), "error of AUC is -0.1, but it cannot be negative"),
    ],
)
def test_numbers_that_cannot_be(values, message):
    with pytest.raises(Pseudo3dError, match=message):
        Measurement(*values)


def test_results_that_cannot_be():
    with pytest.raises(Pseudo3dError, match="no protocol 'ucf'; there are ucf101-network, ucf101-svm"):
        replace(RESULT, protocol="ucf")
    with pytest.raises(Pseudo3dError, match="needs a name for its row"):
        replace(RESULT, name=" ")
    with pytest.raises(Pseudo3dError, match="needs at least one number"):
        replace(RESULT, measurements=())
    with pytest.raises(Pseudo3dError, match="accuracy stands twice for the split '1'"):
        replace(RESULT, measurements=(RESULT.measurements[0],) * 2)


def test_nothing_else_is_overwritten(tmp_path):
    path = tmp_path / "result.json"
    path.write_text('{"mine": 1}')
    with pytest.raises(Pseudo3dError, match=r"it is not overwritten: move it away or choose another folder"):
        save_result(RESULT, tmp_path)
    assert path.read_text() == '{"mine": 1}'
    path.unlink()
    save_result(RESULT, tmp_path)
    with pytest.raises(Pseudo3dError, match="is the result of ucf101-svm, which one of aslan does not overwrite"):
        save_result(replace(RESULT, protocol="aslan"), tmp_path)
    assert read_result(path) == RESULT


def test_no_file(tmp_path):
    with pytest.raises(Pseudo3dError, match="does not exist: give the folder of a run of `p3d evaluate`"):
        read_result(tmp_path)
    with pytest.raises(Pseudo3dError, match="does not exist"):
        read_result(tmp_path / "run" / "x")


def damaged(change):
    def write(folder):
        path = save_result(RESULT, folder)
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: (folder / "result.json").write_bytes(b"\xff\xfe"), "no result of `p3d evaluate` .not JSON"),
        (lambda folder: (folder / "result.json").write_text("["), "no result of `p3d evaluate` .not JSON"),
        (lambda folder: (folder / "result.json").write_text("[" * 100_000), "no result of `p3d evaluate` .not JSON"),
        (lambda folder: (folder / "result.json").write_text("[1]"), 'lacks "format": "pseudo3d result"'),
        (damaged(lambda values: values.pop("format")), 'lacks "format"'),
        (damaged(lambda values: values.update(version=2)), "a result of version 2, this pseudo3d reads 1"),
        (damaged(lambda values: values.pop("facts")), "damaged: the result lacks facts"),
        (damaged(lambda values: values.update(more=1)), "damaged: the result has an unknown entry 'more'"),
        (damaged(lambda values: values.update(name=None)), "damaged: name is null, not str"),
        (damaged(lambda values: values.update(footnotes=[1])), "damaged: P3D .*: a footnote is int, not a text"),
        (damaged(lambda values: values.update(measurements=[1])), "damaged: measurement 1 is int, not dict"),
        (damaged(lambda values: values["measurements"][1].pop("value")), "damaged: measurement 2 lacks value"),
        (damaged(lambda values: values["measurements"][0].update(split=1)), "1: metric and split must be texts"),
        (damaged(lambda values: values["measurements"][0].update(value="x")), "damaged: accuracy is str, not a number"),
        (damaged(lambda values: values["measurements"][0].update(value=float("nan"))), "NaN is no JSON number"),
    ],
)
def test_files_that_are_no_result(tmp_path, write, message):
    write(tmp_path)
    with pytest.raises(Pseudo3dError, match=message):
        read_result(tmp_path)
