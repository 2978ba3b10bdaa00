"""``p3d data``: which official data sets are known, and whether the files of one are sound."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from pseudo3d.data.annotations import SampleList
    from pseudo3d.data.check import ClassesInName, Problem
    from pseudo3d.features.decoders import Decoders

Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]

_HELP = """usage: p3d data check|list ...

  check NAME   look for missing, unreadable, duplicate and mislabelled videos of an official data set, or of your own
  list         the official data sets that are known, and which files are expected where

Example: p3d data check ucf101 --data UCF101 --lists ucfTrainTestlist
"""
_OWN = "folder"  # the name for a user's own data
_COLUMNS = ("kind", "path", "reason")  # of the table of problems
_SHOWN = 3  # names of a kind; --out has all


def run(args: Sequence[str]) -> int:
    """Parse and run one of the sub-commands."""
    from pseudo3d.commands.subcommands import run_subcommand

    commands: dict[str, Callable[..., int]] = {"check": check, "list": list_sets}
    return run_subcommand("data", _HELP, commands, args)


def list_sets() -> int:
    """List the official data sets that are known: their lists, their videos, their splits.

    Example: p3d data list
    """
    from pseudo3d.data.official import LAYOUTS

    for name, layout in LAYOUTS.items():
        print(f"{name}: {layout.title}")
        print(f"  lists   {layout.lists}\n  videos  {layout.videos}\n  splits  {layout.sides}")
    print(f"{_OWN}: your own data, as p3d train reads them")
    print("  a folder per class, split/class/file, a list (.txt) or a table (.csv)")
    return 0


def check(
    name: Name,
    /,
    *,
    data: Path,
    lists: Path | None = None,
    splits: str | None = None,
    decode: tyro.conf.FlagCreatePairsOff[bool] = False,
    out: Path | None = None,
    workers: int | None = None,
    timeout: float = 60.0,
    memory: float = 2.0,
) -> int:
    """Look for missing, unreadable, duplicate and mislabelled videos; the exit code is 1 if there are any.

    A dead link of Sports-1M or Kinetics is a missing video too.

    Every file is opened in a process with limits of time and memory, its packets are read and its first frame is
    decoded; with --decode, all frames are. Files of one size are compared by their content.

    Example: p3d data check ucf101 --data UCF101 --lists ucfTrainTestlist --out problems.csv

    Args:
        name: ucf101, hmdb51, sports1m, kinetics, activitynet, aslan, yupenn, dynamic-scene (see p3d data list), or
            folder: your own data.
        data: the folder with the videos; for your own data also a list (.txt) or a table (.csv).
        lists: the folder with the official lists, if they are not below --data.
        splits: of sets that have several, such as 1,2,3; all unless given.
        decode: decode all frames of every video.
        out: write all problems into this table (.csv).
        workers: processes that open videos; the number of cores unless given.
        timeout: seconds without a sign of life after which one is stopped and its video is unreadable.
        memory: limit for each process, GiB.
    """
    from pseudo3d.features.decoders import Decoders, default_workers

    if out is not None:
        _check_out(out)
    title, samples, missing, notes, mislabelled = _read(name, data, lists, splits)
    _print_set(title, samples, notes, own=name == _OWN)
    decoders = Decoders(default_workers(gpu=True) if workers is None else workers, timeout, memory)
    problems = [*_found(decoders, samples, missing, _names_of(name), decode), *mislabelled]
    _print_problems(problems, out)
    if out is not None:
        _write(out, problems)
    return 1 if problems else 0


def _print_set(title: str, samples: "Sequence[SampleList]", notes: Iterable[str], *, own: bool) -> None:
    from pseudo3d.data.check import files_of, unlisted

    files = files_of(samples)
    print(f"{title}: {len(files):,} videos")
    for note in notes:
        print(f"note: {note}")
    more = 0 if own else unlisted(samples[0].root, files)
    if more:
        print(f"note: {more:,} further videos below the folder are in no list, or marked as not used")
    sys.stdout.flush()  # the check takes long


def _found(
    decoders: "Decoders",
    samples: "Sequence[SampleList]",
    missing: Sequence[str],
    rule: "ClassesInName | None",
    decode: bool,
) -> "list[Problem]":
    """All problems, with a bar on the way."""
    from pseudo3d.commands.output import progress_bar
    from pseudo3d.data.check import check_videos, files_of

    with decoders.start() as pool, progress_bar() as bar:
        task = bar.add_task("decoding" if decode else "opening", total=len(files_of(samples)), note="")
        return check_videos(
            samples,
            pool,
            missing=missing,
            classes_in_name=rule,
            decode=decode,
            on_video=lambda: bar.advance(task),
        )


def _read(
    name: str, data: Path, lists: Path | None, splits: str | None
) -> "tuple[str, list[SampleList], tuple[str, ...], tuple[str, ...], list[Problem]]":
    """The set by its splits: title, samples of each, what is missing, notes, and what its lists say themselves."""
    from pseudo3d.data.annotations import read_samples
    from pseudo3d.data.check import Problem
    from pseudo3d.data.official import DATASETS, SPLITS, read_official
    from pseudo3d.errors import Pseudo3dError

    if name == _OWN:
        if lists is not None or splits is not None:
            raise Pseudo3dError(
                "--lists and --splits are for official data sets: leave them out, or give a list as --data"
            )
        return str(data), [read_samples(data)], (), (), []
    if name == "aslan":
        from pseudo3d.data.official.aslan import read_aslan

        pairs = read_aslan(data, lists)
        odd = [Problem("mislabelled", pair, reason) for pair, reason in pairs.mislabelled]
        return "ASLAN, View-2", [pairs.samples], pairs.missing, pairs.notes, odd
    if name not in DATASETS:
        raise Pseudo3dError(
            f"no data set {name!r}; there are {', '.join(DATASETS)}, aslan, and {_OWN} for your own data"
        )
    wanted = SPLITS[name] if splits is None else tuple(word.strip() for word in splits.split(","))
    sets = [read_official(name, data, lists=lists, split=split) for split in dict.fromkeys(wanted)]
    title = sets[0].title
    if len(sets) > 1:
        title = f"{title.rpartition(', split')[0]}, splits {', '.join(dict.fromkeys(wanted))}"
    missing = tuple(dict.fromkeys(path for one in sets for path in one.missing))
    return (
        title,
        [one.samples for one in sets],
        missing,
        tuple(dict.fromkeys(note for one in sets for note in one.notes)),
        [],
    )


def _names_of(name: str) -> "ClassesInName | None":
    """What the names of a set's files tell of their class."""
    from pseudo3d.data.check import leading_class
    from pseudo3d.data.official.hmdb51 import classes_in_name
    from pseudo3d.data.official.ucf101 import class_in_name

    def ucf101(path: str, classes: Sequence[str]) -> tuple[str, ...]:
        told = class_in_name(path)
        return () if told is None else (told,)

    rules: dict[str, ClassesInName] = {"ucf101": ucf101, "hmdb51": classes_in_name, _OWN: leading_class}
    return rules.get(name)


def _print_problems(problems: "Sequence[Problem]", out: Path | None) -> None:
    from pseudo3d.data.check import KINDS
    from pseudo3d.errors import first_few

    width = max(map(len, KINDS))
    for kind in KINDS:
        found = [problem for problem in problems if problem.kind == kind]
        few = first_few((problem.path for problem in found), _SHOWN)
        print(f"{kind:{width}} {len(found):>9,}  {few}".rstrip())
    if problems:
        first = problems[0]
        more = "" if out is not None else "; --out problems.csv writes all with their reasons"
        print(f"the first: {first.path}: {first.reason}{more}")


def _check_out(path: Path) -> None:
    """Refuses, before the work is done, a place where the table cannot be or that is taken by something else."""
    from pseudo3d.errors import Pseudo3dError

    if not path.parent.is_dir():
        raise Pseudo3dError(f"--out {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise Pseudo3dError(f"--out {path} is a folder; name a file in it")
    if path.exists():
        with path.open("rb") as file:
            if file.readline().strip() != ",".join(_COLUMNS).encode():
                raise Pseudo3dError(f"--out {path} is there and no table of problems; choose another name")


def _write(path: Path, problems: "Iterable[Problem]") -> None:
    import csv
    import io

    from pseudo3d.files import write_text

    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows((problem.kind, problem.path, problem.reason) for problem in problems)
    write_text(path, text.getvalue())
