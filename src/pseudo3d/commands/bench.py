"""``p3d bench``: the tables of the papers, printed, measured anew, and made from runs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import tyro

from pseudo3d.commands.bench_results import DTypeName, EngineName, check_folder, read_runs, show, with_asked

_HELP = """usage: p3d bench table1|c3d-runtime|tables ...

  table1       size, speed and accuracy of ResNet-50 and the P3D variants, beside the paper's Table 1
  c3d-runtime  frames a second from video files to C3D features, beside the C3D talk's runtime table
  tables       print any published table, with the rows of runs below it

Example: p3d bench tables runs/ucf101 --format latex
"""


def run(args: Sequence[str]) -> int:
    """Parse and run one of the sub-commands."""
    from pseudo3d.commands.subcommands import run_subcommand

    commands: dict[str, Callable[..., int]] = {"table1": table1, "c3d-runtime": c3d_runtime, "tables": tables}
    return run_subcommand("bench", _HELP, commands, args)


def tables(
    runs: tyro.conf.Positional[tuple[Path, ...]] = (),
    /,
    *,
    table: str | None = None,
    format: Literal["text", "markdown", "latex", "csv"] = "text",
    out: Path | None = None,
) -> int:
    """Print the published tables; with runs, those that they have numbers for, and their rows marked "measured".

    Example: p3d bench tables runs/ucf101 runs/aslan --format markdown

    Args:
        runs: folders of p3d evaluate or p3d bench, or folders of such folders.
        table: one of them: table1 to table6, table_c3d_ucf101, table_c3d_runtime, or results (the runs' numbers alone).
        format: of what is printed. LaTeX needs the packages booktabs and graphicx.
        out: also write each table into this folder, as .md, .tex and .csv.
    """
    from pseudo3d.evaluation.tables import OWN, TABLES, Table, build_table, save_table, tables_for

    check_folder(out, {}, {})
    results = [result for run in runs for result in read_runs(run)]
    fitting = {name: [result for result in results if name in tables_for(result)] for name in (*TABLES, OWN)}
    if table is not None:
        chosen = {table: build_table(table, results)}
    elif results:
        chosen = {name: build_table(name, rows) for name, rows in fitting.items() if rows}
    else:
        chosen = {name: build_table(name) for name in TABLES}
    forms: dict[str, Callable[[Table], str]] = {
        "text": Table.text, "markdown": Table.markdown, "latex": Table.latex, "csv": Table.csv,
    }  # fmt: skip
    print("\n".join(forms[format](each) for each in chosen.values()), end="")
    if out is not None:
        for name, each in chosen.items():
            save_table(each, out, name)
    return 0


def table1(
    *,
    results: tuple[Path, ...] = (),
    device: str = "auto",
    dtype: DTypeName = "auto",
    engine: EngineName = "auto",
    batch_size: int | None = None,
    rounds: int = 5,
    seconds: float = 2.0,
    quick: bool = False,
    out: Path | None = None,
) -> int:
    """Measure Table 1's columns: model size, speed, and the accuracy of runs that are given.

    Speed is of the network alone: random grey levels in, class probabilities out. The numbers in the networks are
    random, too: the speed does not depend on them. The networks take turns; medians over the rounds count.

    Example: p3d bench table1 --results runs/resnet50 runs/p3d --out runs/table1

    Args:
        results: runs of p3d evaluate ucf101 by fine-tuned networks; the accuracy of split 1 is taken.
        device: auto, cpu, cuda, mps.
        dtype: precision; auto is bfloat16 where the hardware has it.
        engine: how the networks run; auto is the fastest one for many clips.
        batch_size: clips (ResNet-50: frames) in a batch; 4 on a processor, 32 on a GPU unless given.
        rounds: turns of each network.
        seconds: of each turn.
        quick: one batch each, of one clip unless --batch-size says more: whether it works, not how fast.
        out: folder of the table (.md, .tex, .csv) and of a result.json for each network.
    """
    from pseudo3d.commands.bench_table1 import FOLDERS, measure_table1
    from pseudo3d.evaluation.results import save_result

    if quick:
        rounds, seconds, batch_size = 1, 0.0, 1 if batch_size is None else batch_size
    asked = {
        "results": [str(run.absolute()) for run in results], "device": device, "dtype": dtype, "engine": engine,
        "batch_size": batch_size, "rounds": rounds, "seconds": seconds,
    }  # fmt: skip
    check_folder(out, dict.fromkeys(FOLDERS.values(), "bench-table1"), asked)
    runs = [result for run in results for result in read_runs(run)]
    measured = measure_table1(
        runs, device=device, dtype=dtype, engine=engine, batch_size=batch_size, rounds=rounds, seconds=seconds
    )
    if out is not None:
        for folder, result in measured.items():
            save_result(with_asked(result, asked), out / folder)
    show("table1", list(measured.values()), out)
    return 0


def c3d_runtime(
    *,
    data: Path | None = None,
    videos: int | None = None,
    model: str | None = None,
    weights: str = "random",
    layer: str | None = None,
    stride: int = 8,
    device: str = "auto",
    dtype: DTypeName = "auto",
    engine: EngineName = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    rounds: int = 3,
    quick: bool = False,
    out: Path | None = None,
) -> int:
    """Measure frames a second from video files to features, as the C3D talk's runtime table counts them.

    Clips of 16 frames overlap by 8, as C3D's do. Decoding and network work side by side, as in p3d extract; both are
    measured alone, too, in turns. Every pass goes over all videos.

    Example: p3d bench c3d-runtime --data my_videos --videos 50

    Args:
        data: folder or list of videos; small ones of moving digits are written unless given.
        videos: take so many, spread evenly over the list; all unless given.
        model: name of the network (see p3d models); c3d, or the one that the weights are of, unless given.
        weights: as for p3d extract; the speed does not depend on the numbers.
        layer: the representation; fc6 of C3D, pool5 of others unless given.
        stride: frames from clip to clip.
        device: auto, cpu, cuda, mps.
        dtype: precision; auto is bfloat16 where the hardware has it.
        engine: how the network runs.
        batch_size: clips in a batch; 4 on a processor, 32 on a GPU unless given.
        workers: processes that decode; as many as suit the machine unless given.
        rounds: passes over the videos.
        quick: one round, over two videos.
        out: folder of result.json, of the table (.md, .tex, .csv) and of the videos that were written.
    """
    from pseudo3d.commands.bench_runtime import measure_c3d_runtime, videos_to_measure
    from pseudo3d.evaluation.results import save_result

    if quick:
        rounds, videos = 1, 2
    model = model or ("c3d" if weights == "random" else "auto")
    asked = {
        "data": None if data is None else str(data.absolute()), "videos": videos, "model": model, "weights": weights,
        "layer": layer, "stride": stride, "device": device, "dtype": dtype, "engine": engine, "batch_size": batch_size,
        "workers": workers, "rounds": rounds,
    }  # fmt: skip
    check_folder(out, {".": "bench-c3d-runtime"}, asked)
    with videos_to_measure(data, videos, out) as paths:
        result = measure_c3d_runtime(
            paths, model=model, weights=weights, layer=layer, stride=stride, device=device, dtype=dtype, engine=engine,
            batch_size=batch_size, workers=workers, rounds=rounds, own=data is None,
        )  # fmt: skip
    if out is not None:
        save_result(with_asked(result, asked), out)
    show("table_c3d_runtime", [result], out)
    return 0
