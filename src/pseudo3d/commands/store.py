"""``p3d store``: what is in a store, whether it is sound, into which files it goes, and what is taken out of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from pseudo3d.features.folders import Folder
    from pseudo3d.features.sharding import StoreState
    from pseudo3d.features.shards import Part
    from pseudo3d.features.store import FeatureStore

Store = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STORE")]

_HELP = """usage: p3d store info|verify|export|compact|remove STORE ...

  info STORE          what made it, its videos, failures, labels, layers and parts
  verify STORE        read all of it: checksums, rows, values; with --videos the files too
  export STORE OUT    into .npy files, a .csv or a .safetensors
  compact STORE       make many small parts few large ones
  remove STORE PATHS  take videos out

STORE is the folder that p3d extract wrote, or its URL.

Example: p3d store verify features --videos
"""
_MOST_LINES = 20  # of a table; --json has all
_COUNTED = {"npy": "files", "csv": "rows", "safetensors": "tensors"}


def run(args: Sequence[str]) -> int:
    """Parse and run one of the sub-commands."""
    from pseudo3d.commands.subcommands import run_subcommand

    commands: dict[str, Callable[..., int]] = {
        "info": info, "verify": verify, "export": export, "compact": compact, "remove": remove
    }  # fmt: skip
    return run_subcommand("store", _HELP, commands, args)


def info(store: Store, /, *, json: tyro.conf.FlagCreatePairsOff[bool] = False) -> int:
    """Say what a store is: what made it, its videos, failures, labels and splits, layers, parts.

    Example: p3d store info features

    Args:
        store: a folder that p3d extract wrote, or its URL.
        json: print all of it as JSON.
    """
    from pseudo3d.features.store import FeatureStore

    opened = FeatureStore(store)
    told = summary(opened)
    if json:
        print(dumps(told, indent=2))
    else:
        _print_summary(opened, told)
    return 0


def summary(store: "FeatureStore") -> dict[str, Any]:
    """What ``p3d store info`` says, as JSON types.

    Returns:
        store, made_with (``FeatureStore.info``), videos, failed, damaged, seconds (of the videos whose length is
        known), failures (videos by reason), labels (videos by label and split; "" is none), layers and columns (shape
        and bytes on disk; ``clips_bytes`` are those of the single clips), parts (number, small, of_shards, bytes).
    """
    from pseudo3d.errors import Pseudo3dError

    place, state = _state(store.location)
    try:
        sizes = _column_bytes(place, state.parts)
    except FileNotFoundError:
        raise Pseudo3dError(f"{store.location}: is being written; try again") from None
    reasons = Counter(_reason(video, reason) for video, reason in store.failures.items())
    labels: dict[str, Counter[str]] = {}
    for label, split in zip(store.labels, store.splits, strict=True):
        labels.setdefault(label or "", Counter())[split or ""] += 1
    layers: dict[str, Any] = {}
    columns: dict[str, Any] = {}
    for name in store.layers:
        shape = store.shape(name)
        if name in sizes:
            clips = sizes.get(f"{name}_clips")
            layers[name] = {"shape": shape, "bytes": sizes[name]} | ({"clips_bytes": clips} if clips else {})
        else:
            columns[name] = {"shape": shape, "bytes": 4 * len(store) * shape[0]}
    return {
        "store": store.location,
        "made_with": store.info,
        "videos": len(store),
        "failed": len(store.failures),
        "damaged": sum(store.damaged),
        "seconds": sum(seconds or 0.0 for seconds in store.table["duration"].to_pylist()),
        "failures": dict(reasons.most_common()),
        "labels": {label: dict(sorted(splits.items())) for label, splits in sorted(labels.items())},
        "layers": layers,
        "columns": columns,
        "parts": {
            "number": len(state.parts),
            "small": sum(_is_small(part) for part in state.parts),
            "of_shards": state.newer,
            "bytes": sum(part.bytes for part in state.parts),
        },
    }


def _state(location: str) -> "tuple[Folder, StoreState]":
    """Where a store lies, and what it holds."""
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.features.folders import open_folder
    from pseudo3d.features.sharding import read_state

    place = open_folder(location)
    state = read_state(place)
    if state is None:
        raise Pseudo3dError(f"{location}: not a feature store (no store.json); make one with `p3d extract`")
    return place, state


def _column_bytes(place: "Folder", parts: Iterable["Part"]) -> Counter[str]:
    """Bytes on disk of each column, as the footers tell."""
    from pseudo3d.features import shards

    sizes: Counter[str] = Counter()
    for part in parts:
        with shards.open_part(place, part) as file:
            for i in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(i)
                for j in range(group.num_columns):
                    column = group.column(j)
                    sizes[column.path_in_schema.split(".")[0]] += column.total_compressed_size
    return sizes


def _is_small(part: "Part") -> bool:
    """Whether a writer would make it one with others."""
    from pseudo3d.features.shards import PART_BYTES, PART_ROWS

    return part.rows < PART_ROWS and part.bytes < PART_BYTES


def _reason(video: str, reason: str) -> str:
    """Why a video failed, without its path, so that equal reasons can be counted."""
    _, found, rest = reason.partition(f"{video}: ")
    return rest if found else reason


def _print_summary(store: "FeatureStore", told: Mapping[str, Any]) -> None:
    from pseudo3d.commands.output import print_table
    from pseudo3d.commands.progress import duration

    print(f"{store.location}: {told['videos']} videos, {duration(told['seconds'])} long together")
    for name, text in _made_with(store.info):
        print(f"{name:<14} {text}")
    parts = told["parts"]
    of_shards = f", {parts['of_shards']} of them of shards" if parts["of_shards"] else ""
    print(f"{'parts':<14} {parts['number']}, {parts['small']} of them small{of_shards}; {_size(parts['bytes'])}")
    print(f"{'damaged':<14} {told['damaged']} videos, in part (column `damaged`)")
    print(f"{'failed':<14} {told['failed']} videos")
    failures = [(reason, str(count)) for reason, count in told["failures"].items()]
    _print_some(("reason", "videos"), failures)
    print()
    own = told["layers"] | {f"{name} (from elsewhere)": each for name, each in told["columns"].items()}
    layers = [
        (name, "x".join(map(str, each["shape"])), _size(each["bytes"]), _size(each.get("clips_bytes", 0)))
        for name, each in own.items()
    ]
    print_table(("layer", "shape", "size", "of single clips"), layers)
    splits = sorted({split for counts in told["labels"].values() for split in counts})
    print()
    _print_some(
        ("label", *(split or "no split" for split in splits), "videos"),
        [
            (label or "no label", *(str(counts.get(split, 0)) for split in splits), str(sum(counts.values())))
            for label, counts in told["labels"].items()
        ],
    )


def _made_with(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What made a store, in words; a store that was not written by ``p3d extract`` says only what it knows."""
    made = info.get("made_with", {})
    made_from = [made["weights_from"]] if "weights_from" in made else []
    clips = f"{info.get('clips')}, sampler {info.get('sampler')}"
    runs = f"{info.get('engine')}, {info.get('dtype')} on {info.get('device')}, batches of {info.get('batch_size')}"
    lines = {
        "network": ("architecture", _words(info.get("architecture", {}))),
        "weights": ("weights", ", from ".join(map(str, (info.get("weights"), *made_from)))),
        "preprocessing": ("preprocessing", _words(info.get("preprocessing", {}))),
        "clips": ("clips", clips),
        "engine": ("engine", f"{runs}, {info.get('threads')} threads: {made.get('why_this_engine', 'not said why')}"),
        "made with": (
            "made_with",
            _words({key: made[key] for key in made if key not in ("why_this_engine", "weights_from")}),
        ),
        "videos in": ("root", str(info.get("root"))),
    }
    return [(name, text) for name, (key, text) in lines.items() if key in info]


def _words(told: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in told.items() if value is not None)


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _print_some(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; of a long one, its beginning."""
    from pseudo3d.commands.output import print_table

    if rows:
        print_table(columns, rows[:_MOST_LINES])
    if len(rows) > _MOST_LINES:
        print(f"and {len(rows) - _MOST_LINES} more (--json has all)")


def verify(store: Store, /, *, videos: tyro.conf.FlagCreatePairsOff[bool] = False, root: Path | None = None) -> int:
    """Read all of a store and say what is not as it should be, a line each with what to do.

    Checked are the checksums of all pages, rows and layers against store.json, values (NaN, all zeros), clips and
    times, videos that are there twice, features from elsewhere, and files that a killed run left. Exit code 1 if
    something is wrong; what begins with "note:" is not.

    Example: p3d store verify features --videos

    Args:
        store: a folder that p3d extract wrote, or its URL.
        videos: read the video files too, and compare their size and sha256 with those of the files that were used.
        root: folder that the videos lie in now, if they have moved.
    """
    from pseudo3d.commands.output import progress_bar
    from pseudo3d.features.check import check_store

    _, state = _state(store)
    total = sum(part.rows for part in state.parts)
    with progress_bar() as bar:
        task = bar.add_task("verifying", total=total, note="")
        findings = check_store(store, videos=videos, root=root, on_rows=lambda rows: bar.advance(task, rows))
    for finding in findings:
        print(f"note: {finding.text}" if finding.harmless else finding.text)
    wrong = sum(not finding.harmless for finding in findings)
    looked_at = f"{total} videos in {len(state.parts)} parts" + (", and their files" if videos else "")
    print(f"{store}: {looked_at}: {f'{wrong} things are wrong' if wrong else 'all well'}")
    return 1 if wrong else 0


def export(
    store: Store,
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")],
    /,
    *,
    format: Literal["npy", "csv", "safetensors"],
    layers: str | None = None,
    per_clip: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Write a store's features as plain files; files of the same name are replaced, others stay.

    npy: OUT is a folder with a .npy for each video, a/b.mp4 as a/b.npy. csv: OUT is one file, a row a video.
    safetensors: OUT is one file, a tensor a layer, with the paths, labels and splits in its metadata.

    Example: p3d store export features features.safetensors --format safetensors --layers pool5

    Args:
        store: a folder that p3d extract wrote, or its URL.
        out: the folder (npy) or the file (csv, safetensors).
        format: npy, csv or safetensors.
        layers: which, separated by commas; all unless given.
        per_clip: the single clips' features instead of their average; for stores made with --per-clip.
    """
    from pseudo3d.features.exports import export_store
    from pseudo3d.features.store import FeatureStore

    wanted = None if layers is None else [name.strip() for name in layers.split(",") if name.strip()]
    count = export_store(FeatureStore(store), out, format, layers=wanted, per_clip=per_clip)
    print(f"{out}: {count} {_COUNTED[format]}")
    return 0


def compact(store: Store, /, *, wait: tyro.conf.FlagCreatePairsOff[bool] = False) -> int:
    """Make many small parts few large ones, and what shards (p3d extract --shard) have done the store's own.

    The rows stay as they are. Killed at any moment, the store is whole.

    Example: p3d store compact features

    Args:
        store: a folder that p3d extract wrote, or its URL.
        wait: for another process that writes to this store.
    """
    from pseudo3d.features.store import StoreWriter

    place, before = _state(store)
    StoreWriter(store, before.info, wait=wait).close()
    _, after = _state(store)
    print(f"{place.location}: {_parts(before)} before, {_parts(after)} now")
    return 0


def _parts(state: "StoreState") -> str:
    return f"{len(state.parts)} parts ({_size(sum(part.bytes for part in state.parts))})"


def remove(
    store: Store,
    paths: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PATHS")],
    /,
    *,
    wait: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> int:
    """Take videos out of a store: their features, or the lines that say why they failed.

    The next p3d extract that is given these videos puts them in again.

    Example: p3d store remove features dance/a.mp4 dance/b.mp4

    Args:
        store: a folder that p3d extract wrote, or its URL.
        paths: of the videos, as the store has them (relative to the folder that was extracted).
        wait: for another process that writes to this store.
    """
    from pseudo3d.errors import Pseudo3dError, first_few
    from pseudo3d.features.foreign import foreign_file, foreign_names
    from pseudo3d.features.store import StoreWriter

    if not paths:
        raise Pseudo3dError("give the paths of the videos to remove; see p3d store remove --help")
    place, state = _state(store)
    with StoreWriter(store, state.info, wait=wait) as writer:
        if unknown := [path for path in paths if path not in writer.done and path not in writer.failed]:
            raise Pseudo3dError(
                f"{store}: no video {first_few(unknown)} in this store, whose paths are relative to "
                f"{state.info.get('root')}; nothing was removed"
            )
        done = [path for path in dict.fromkeys(paths) if path in writer.done]
        for path in dict.fromkeys(paths):
            writer.remove(path)
    for path in dict.fromkeys(paths):
        print(f"{path}: its {'features were' if path in done else 'failure was'} removed")
    if others := foreign_names(place):
        where = f"{place.location}/{foreign_file(others[0])}"
        print(
            f"note: {', '.join(others)} (from elsewhere) keep rows of these videos; to be rid of them, remove {where}"
        )
    return 0
