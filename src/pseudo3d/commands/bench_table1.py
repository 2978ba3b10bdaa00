"""``p3d bench table1``: size, speed and accuracy of ResNet-50 and the P3D variants (paper section 3.3)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pseudo3d.commands.bench_results import DTypeName, EngineName, told

if TYPE_CHECKING:
    from pseudo3d.evaluation.results import Result
    from pseudo3d.evaluation.speed import Rate

# row of Table 1: (network, blocks)
_ROWS = {
    "ResNet-50": ("resnet50", "ABC"),
    "P3D-A ResNet": ("p3d_resnet50", "A"),
    "P3D-B ResNet": ("p3d_resnet50", "B"),
    "P3D-C ResNet": ("p3d_resnet50", "C"),
    "P3D ResNet": ("p3d_resnet50", "ABC"),
}
_CLASSES = 101  # of UCF101
FOLDERS = {row: name if name == "resnet50" else f"p3d_{blocks.lower()}" for row, (name, blocks) in _ROWS.items()}
"""Where the result of each row is written."""


def measure_table1(
    runs: "Sequence[Result]",
    *,
    device: str,
    dtype: DTypeName,
    engine: EngineName,
    batch_size: int | None,
    rounds: int,
    seconds: float,
) -> "dict[str, Result]":
    """One result for each row, by its folder's name; the networks take turns.

    Args:
        runs: results of fine-tuned networks on UCF101, whose accuracy on split 1 is taken.
        device: as for ``ClipRunner``.
        dtype: as for ``ClipRunner``.
        engine: as for ``ClipRunner``.
        batch_size: as for ``ClipRunner``.
        rounds: turns of each network.
        seconds: of each turn; 0 for one batch.

    Raises:
        Pseudo3dError: a run that has no accuracy for a row, or options that cannot be used.
    """
    from pseudo3d.commands.output import progress_bar
    from pseudo3d.evaluation.speed import check_rounds, hardware, measure_rates, network_job
    from pseudo3d.inference import ClipRunner
    from pseudo3d.models import create_model

    check_rounds(rounds, seconds)
    accuracies = _accuracies(runs)
    jobs, runners = {}, {}
    for row, (name, blocks) in _ROWS.items():
        model = create_model(name, num_classes=_CLASSES, blocks=blocks).eval()
        runners[row] = ClipRunner(model, device=device, dtype=dtype, engine=engine, batch_size=batch_size)
        jobs[row] = network_job(runners[row], "prob")
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=rounds * len(jobs), note="")
        rates = measure_rates(
            jobs, rounds=rounds, seconds=seconds, on_job=lambda name: bar.update(task, advance=1, note=name)
        )
    results = {}
    for row, runner in runners.items():
        where = {"hardware": hardware(runner.device), **runner.describe(), "rounds": rounds, "seconds": seconds}
        results[FOLDERS[row]] = _result(row, rates[row], where, accuracies.get(row))
    return results


def _accuracies(runs: "Sequence[Result]") -> dict[str, "Result"]:
    """The runs by the row of Table 1 that they are of.

    Raises:
        Pseudo3dError: a run of another protocol or network, without split 1, or two of one network.
    """
    from pseudo3d.errors import Pseudo3dError

    rows = {network: row for row, network in _ROWS.items()}
    found: dict[str, Result] = {}
    for result in runs:
        if result.protocol != "ucf101-network" or result.measurement("accuracy", "1") is None:
            raise Pseudo3dError(
                f"{result.name}: a result of {result.protocol} without the accuracy of a fine-tuned network on "
                "UCF101's split 1; make one with p3d evaluate ucf101 --classifier network --splits 1"
            )
        architecture = result.facts.get("architecture") or {}
        network = (architecture.get("name", "an unknown network"), architecture.get("blocks", "ABC"))
        if network not in rows:
            raise Pseudo3dError(
                f"{result.name}: is of {network[0]} with blocks {network[1]}; Table 1 has resnet50, and p3d_resnet50 "
                "with blocks A, B, C and ABC"
            )
        row = rows[network]
        if row in found:
            raise Pseudo3dError(f"{found[row].name} and {result.name} are both of {row}; give one of them")
        found[row] = result
    return found


def _result(row: str, rate: "Rate", where: dict[str, Any], run: "Result | None") -> "Result":
    from pseudo3d.evaluation.results import Measurement, Result
    from pseudo3d.models.cost import PUBLISHED_SIZES, model_cost

    name, blocks = _ROWS[row]
    cost = model_cost(name, num_classes=_CLASSES)
    printed = PUBLISHED_SIZES[name]
    met = cost.compared(printed).replace("not equal", "met in neither unit")
    speed = "speed, frames/s" if name == "resnet50" else "speed, clips/s"
    measurements = [
        Measurement("parameters, MB", cost.megabytes),
        Measurement("parameters, MiB", cost.mebibytes),
        Measurement(speed, rate.median),
    ]
    footnotes = [
        "sizes are counted from the parameters in float32 with 101 classes, MB = 10^6 bytes, MiB = 2^20 bytes; the "
        "paper does not say what its MB are",
        f"{cost.parameters:,} parameters; the printed {printed.megabytes} MB is {met}",
        f"speed on {where['hardware']}: {where['engine']}, {where['dtype']}, batches of {where['batch_size']}; the "
        "networks take turns, nothing is decoded",
        f"speed: {rate}" if where["seconds"] else "speed: of one batch alone, too rough to compare",
    ]
    facts = {"architecture": {"name": name, "blocks": blocks}, "parameters": cost.parameters, **where, **told()}
    if run is None:
        footnotes.append("accuracy: not measured (--results takes a run of p3d evaluate ucf101)")
    else:
        accuracy = run.measurement("accuracy", "1")
        assert accuracy is not None
        measurements.append(accuracy)
        footnotes += [f"accuracy: {run.name}", *run.footnotes]
        facts |= {"accuracy of": run.facts, "classes": run.facts.get("classes")}
    return Result("bench-table1", row, tuple(measurements), facts, tuple(footnotes))
