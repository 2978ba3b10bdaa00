"""What an evaluation found, as a JSON file that tables and reports are made from."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError, printable

RESULT_NAME = "result.json"
_FORMAT, _VERSION = "pseudo3d result", 1

Protocol = Literal[
    "ucf101-network",
    "ucf101-svm",
    "hmdb51-network",
    "hmdb51-svm",
    "sports1m",
    "kinetics",
    "activitynet-network",
    "activitynet-svm",
    "aslan",
    "yupenn",
    "dynamic-scene",
    "fusion",
    "hits",
    "svm",
    "bench-table1",
    "bench-c3d-runtime",
]
PROTOCOLS: tuple[str, ...] = get_args(Protocol)
SHARES = ("clip hit@1", "video hit@1", "video hit@5", "accuracy", "top-1", "top-3", "mAP", "AUC")
"""Metrics that are shares, 0..1; tables show them as percentages."""


@dataclass(frozen=True)
class Measurement:
    """One number.

    Args:
        metric: its name: one of ``SHARES``, "parameters, MB", "speed, clips/s".
        value: as it is, in full precision; a share is 0..1.
        split: "1", "2", "3" or "mean" where a protocol has splits, else "".
        error: standard error or deviation, in the unit of ``value``; ``Result.facts`` says which.

    Raises:
        Pseudo3dError: a value that is not finite, a share outside 0..1, a negative error.

    Example:
        >>> Measurement("accuracy", 0.886, "mean", 0.004).value
        0.886
    """

    metric: str
    value: float
    split: str = ""
    error: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", _number(self.value, self.metric))
        if self.metric in SHARES and not 0 <= self.value <= 1:
            raise Pseudo3dError(f"{self.metric} is {self.value}, but a share lies in 0..1 (not in percent)")
        if self.error is not None:
            object.__setattr__(self, "error", _number(self.error, f"error of {self.metric}"))
            if self.error < 0:
                raise Pseudo3dError(f"error of {self.metric} is {self.error}, but it cannot be negative")


@dataclass(frozen=True)
class Result:
    """What one run of a protocol found.

    Args:
        protocol: one of ``PROTOCOLS``.
        name: how the row is called in a table.
        measurements: its numbers, each metric once for each split.
        facts: what they were measured on and with: JSON values by name (tuples become lists).
        footnotes: what stands below every table with this row: videos left out, departures from the paper.

    Raises:
        Pseudo3dError: an unknown protocol, no name, no number, one number twice, a fact that is not JSON (its key is
            named).

    Example:
        >>> result = Result("svm", "my network", (Measurement("accuracy", 0.75),), {"videos": 8})
        >>> result.measurement("accuracy").value, result.measurement("mAP")
        (0.75, None)
    """

    protocol: str
    name: str
    measurements: tuple[Measurement, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    footnotes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise Pseudo3dError(f"no protocol {printable(self.protocol)!r}; there are {', '.join(PROTOCOLS)}")
        if not self.name.strip():
            raise Pseudo3dError("a result needs a name for its row in a table (--name)")
        if not self.measurements:
            raise Pseudo3dError(f"{self.name}: a result needs at least one number")
        seen = set()
        for each in self.measurements:
            if (each.metric, each.split) in seen:
                raise Pseudo3dError(f"{self.name}: {each.metric} stands twice for the split {each.split!r}")
            seen.add((each.metric, each.split))
        for footnote in self.footnotes:
            if not isinstance(footnote, str):
                raise Pseudo3dError(f"{self.name}: a footnote is {_kind_of(footnote)}, not a text")
        object.__setattr__(self, "measurements", tuple(self.measurements))
        object.__setattr__(self, "facts", _json_value(dict(self.facts), "facts"))
        object.__setattr__(self, "footnotes", tuple(self.footnotes))

    @property
    def data(self) -> str | None:
        """The data set or kind of benchmark, whichever way to a class was taken; None of scores from elsewhere, fused.

        Example:
            >>> Result("ucf101-svm", "mine", (Measurement("accuracy", 0.75),)).data
            'ucf101'
        """
        if self.protocol == "fusion":
            return self.facts.get("data")
        return self.protocol.removesuffix("-svm").removesuffix("-network")

    def measurement(self, metric: str, split: str = "") -> Measurement | None:
        """The number of that metric and split; None when it was not measured."""
        return next((each for each in self.measurements if (each.metric, each.split) == (metric, split)), None)


def save_result(result: Result, folder: str | Path) -> Path:
    """Write ``folder/result.json``, in one step; the folder is made if it is not there.

    Returns:
        The file.

    Raises:
        Pseudo3dError: a file of that name is there that is no result, or the result of another protocol.
        OSError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> result = Result("svm", "my network", (Measurement("accuracy", 0.75),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_result(save_result(result, folder)) == result
        True
    """
    path = Path(folder) / RESULT_NAME
    if path.exists():
        try:
            before = read_result(path)
        except Pseudo3dError as error:
            raise Pseudo3dError(f"{error}; it is not overwritten: move it away or choose another folder") from error
        if before.protocol != result.protocol:
            raise Pseudo3dError(
                f"{path}: is the result of {before.protocol}, which one of {result.protocol} does not overwrite: "
                "choose another folder"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"format": _FORMAT, "version": _VERSION, **asdict(result)}
    files.write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")
    return path


def read_result(folder_or_file: str | Path) -> Result:
    """Read what ``save_result`` wrote.

    Args:
        folder_or_file: the run's folder, or its result.json under any name.

    Raises:
        Pseudo3dError: nothing is there, it is no result, one of another version, or a damaged one; it says what is
            wrong.
    """
    path = Path(folder_or_file)
    path = path / RESULT_NAME if path.is_dir() else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Pseudo3dError(f"{path} does not exist: give the folder of a run of `p3d evaluate`") from error
    except OSError as error:
        raise Pseudo3dError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise Pseudo3dError(f"{path}: no result of `p3d evaluate` (not JSON: {printable(error)})") from error
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        raise Pseudo3dError(f'{path}: no result of `p3d evaluate` (it lacks "format": "{_FORMAT}")')
    if values.get("version") != _VERSION:
        version = printable(values.get("version"))
        raise Pseudo3dError(f"{path}: a result of version {version}, this pseudo3d reads {_VERSION}")
    try:
        return _result_of({key: value for key, value in values.items() if key not in ("format", "version")})
    except Pseudo3dError as error:
        raise Pseudo3dError(f"{path}: is damaged: {error}") from error


def _result_of(values: dict[str, Any]) -> Result:
    _check_keys(values, Result, "the result")
    for key, kind in (("protocol", str), ("name", str), ("measurements", list), ("facts", dict), ("footnotes", list)):
        if not isinstance(values[key], kind):
            raise Pseudo3dError(f"{key} is {_kind_of(values[key])}, not {kind.__name__}")
    measurements = []
    for number, each in enumerate(values["measurements"], start=1):
        if not isinstance(each, dict):
            raise Pseudo3dError(f"measurement {number} is {_kind_of(each)}, not dict")
        _check_keys(each, Measurement, f"measurement {number}")
        if not isinstance(each["metric"], str) or not isinstance(each["split"], str):
            raise Pseudo3dError(f"measurement {number}: metric and split must be texts")
        measurements.append(Measurement(**each))
    return Result(values["protocol"], values["name"], tuple(measurements), values["facts"], tuple(values["footnotes"]))


def _check_keys(values: Mapping[str, Any], kind: type[Result] | type[Measurement], what: str) -> None:
    expected = {each.name for each in fields(kind)}
    if lacking := sorted(expected - values.keys()):
        raise Pseudo3dError(f"{what} lacks {', '.join(lacking)}")
    if unknown := sorted(values.keys() - expected):
        raise Pseudo3dError(f"{what} has an unknown entry {printable(unknown[0])!r}")


def _number(value: Any, what: str) -> float:
    """A finite float of a number, NumPy's too."""
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        raise Pseudo3dError(f"{what} is {_kind_of(value)}, not a number")
    number = float(value)
    if not math.isfinite(number):
        raise Pseudo3dError(f"{what} is {number}; a result holds finite numbers only")
    return number


def _json_value(value: Any, where: str) -> Any:
    """The value as JSON gives it back; the error names the key where it is not JSON."""
    if value is None or isinstance(value, (str, bool)) or type(value) is int:
        return value
    if isinstance(value, float):
        return _number(value, where)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise Pseudo3dError(f"{where} has the key {key!r}, but keys of JSON are texts")
        return {key: _json_value(each, f"{where}.{key}") for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_json_value(each, f"{where}[{number}]") for number, each in enumerate(value)]
    raise Pseudo3dError(f"{where} is {_kind_of(value)}, which JSON has not: turn it into a text, number or list")


def _kind_of(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")
