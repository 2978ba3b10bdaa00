"""``p3d evaluate``: a store judged by a linear SVM, or a protocol of the paper, by its name (``protocols.py``)."""

import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from pseudo3d.data.annotations import Sample
    from pseudo3d.evaluation.svm import SvmResult
    from pseudo3d.features.store import FeatureStore


_PROTOCOLS = {
    "hits": "clip hit@1, video hit@1 and hit@5 of a network on your own labelled videos",
    "ucf101": "accuracy on the three splits and their mean: linear SVM or network (Table 3)",
    "hmdb51": "the same on HMDB51",
    "activitynet": "top-1, top-3, mAP on the validation set of ActivityNet v1.3 (Table 4)",
    "sports1m": "clip hit@1, video hit@1 and hit@5 on the test set of Sports-1M (Table 2)",
    "kinetics": "the same on the validation set of Kinetics-400, -600 or -700",
    "aslan": "do two videos show the same action? 12 similarities on 4 layers, 10 folds (Table 5)",
    "yupenn": "scenes of YUPENN, one video left out at a time (Table 6)",
    "dynamic-scene": "scenes of Dynamic Scene, one video left out at a time (Table 6)",
    "fuse": "late fusion of the scores of several runs or other tools",
}

# What a judged store leaves; a folder with other files is another run's or somebody's and is left alone.
_OWN = re.compile(r"metrics\.json|confusion\.(png|svg)|\..*")

_HELP = """usage: p3d evaluate STORE [...]         judge any store's features by a linear SVM
       p3d evaluate PROTOCOL --out OUT [...]

Protocols, from a store (--features STORE) or straight from videos (--weights WEIGHTS); each prints the paper's table
with a row of ours:
{protocols}

A store in a folder of such a name is ./ucf101. `p3d evaluate PROTOCOL --help` explains one and shows an example.
"""


def run(args: Sequence[str]) -> int:
    """Parse and run: the protocol that the first word names, else the store."""
    from pseudo3d.cli import parse

    if args and args[0] in _PROTOCOLS:
        from pseudo3d.commands.protocols import run as run_protocol

        return run_protocol(args[0], args[1:])
    if args and args[0] in ("-h", "--help"):
        print(_HELP.format(protocols=_list_protocols()))  # then the options for a store
    if args and not args[0].startswith("-"):
        _check_meant(args[0])
    return parse(evaluate, "evaluate", args)


def _list_protocols() -> str:
    width = max(map(len, _PROTOCOLS))
    return "\n".join(f"  {name:{width}}  {text}" for name, text in _PROTOCOLS.items())


def _check_meant(word: str) -> None:
    """Raise for a word that is no store and nearly a protocol."""
    from pseudo3d.errors import Pseudo3dError

    near = difflib.get_close_matches(word.lower().replace("_", "-"), _PROTOCOLS, n=1)
    if near and "/" not in word and not Path(word).exists():
        raise Pseudo3dError(f"no store and no protocol {word!r}; did you mean {near[0]}? See p3d evaluate --help")


def evaluate(
    store: tyro.conf.Positional[str],
    /,
    *,
    layer: str = "pool5",
    groups: Path | None = None,
    folds: int = 5,
    c: float = 1.0,
    out: Path | None = None,
) -> int:
    """Judge a store's features: a linear SVM, tested on videos that it was not trained on.

    Train and test are the store's own splits; without them, cross-validation that keeps the videos
    of one source on one side. Features are L2-normalised first. Writes metrics.json and the confusion
    matrix as PNG and SVG, into a folder of their own.

    Example: p3d evaluate features

    Args:
        store: a folder that p3d extract wrote, or its URL (s3://bucket/features).
        layer: which features.
        groups: file of `path group` lines, when the store does not know the sources.
        folds: of the cross-validation.
        c: the SVM's constant (the paper states none; 1 is ours).
        out: folder of the results; STORE/evaluation unless given.
    """
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.features.store import FeatureStore

    if not 0 < c < float("inf") or folds < 2:
        raise Pseudo3dError(f"--c must be above 0 and --folds at least 2, got {c} and {folds}")
    if out is None and "://" in store:
        raise Pseudo3dError(f"{store}: results go into a folder of this machine; name it with --out")
    features = FeatureStore(store)
    if len(features) == 0:
        raise Pseudo3dError(f"{store}: holds no features ({len(features.failures)} videos failed); extract some first")
    place = store if "://" in store else str(Path(store).absolute())
    _check_out(Path(store) / "evaluation" if out is None else out, None if out is None else place)
    out = Path(store) / "evaluation" if out is None else out
    result, notes = _judge(features, layer, groups, folds, c)
    _write(result, out, place, layer, c, notes, failed=len(features.failures))
    _print(result, out, c, notes, failed=len(features.failures))
    return 0


def _check_out(out: Path, store: str | None) -> None:
    """Refuse a folder that holds something else, before any work is done.

    Args:
        out: the folder.
        store: the store that is judged; None where the folder is the store's own, which may have moved with it.

    Raises:
        Pseudo3dError: a file, a folder with other files, or what was found of another store.
    """
    from pseudo3d.errors import Pseudo3dError, first_few, printable

    if not out.exists():
        return
    if not out.is_dir():
        raise Pseudo3dError(f"{out}: is a file; give a folder for --out")
    there = sorted(path.name for path in out.iterdir())
    others = [name for name in there if not _OWN.fullmatch(name)]
    pictures = [name for name in there if name.startswith("confusion.")]
    if others or (pictures and "metrics.json" not in there):
        raise Pseudo3dError(
            f"{out}: holds other files ({first_few(others or pictures)}); give a folder of its own for --out"
        )
    if "metrics.json" not in there:
        return
    try:
        before = json.loads((out / "metrics.json").read_bytes())
    except ValueError:
        before = None
    if not isinstance(before, dict) or not {"svm C", "confusion"} <= before.keys():
        raise Pseudo3dError(f"{out / 'metrics.json'}: is not of p3d evaluate STORE; give another folder for --out")
    other = before.get("store", store)
    if store is not None and other != store:
        raise Pseudo3dError(f"{out}: holds what was found of {printable(other)}; give another folder for --out")


def _judge(
    features: "FeatureStore", layer: str, groups: Path | None, folds: int, c: float
) -> "tuple[SvmResult, tuple[str, ...]]":
    """What the SVM says, and what is to be said of it."""
    from pseudo3d.errors import Pseudo3dError, first_few
    from pseudo3d.evaluation.honesty import check_not_trained_on
    from pseudo3d.evaluation.own_labels import copies_footnotes, grouped_by_file, own_samples
    from pseudo3d.evaluation.svm import evaluate_features

    samples: Sequence[Sample] = own_samples(features, groups).samples
    several = [sample.path for sample in samples if sample.more_labels]
    if several:
        raise Pseudo3dError(
            f"{len(several)} videos have several labels ({first_few(several)}), and this SVM gives a video one class; "
            "use `p3d evaluate hits`, or the protocol of the data set"
        )
    if not any(features.splits):
        samples = grouped_by_file(samples)
    result = evaluate_features(
        features.features(layer),
        features.labels,
        videos=features.videos,
        splits=features.splits,
        groups=[sample.group for sample in samples],
        folds=folds,
        c=c,
    )
    sources, tested = features.sources, set(result.videos)
    rows = [row for row, sample in enumerate(samples) if sample.path in tested]
    seen = check_not_trained_on(
        features.info, [samples[row] for row in rows], sources=[sources[row] for row in rows], refuse=False
    )
    return result, (*seen, *copies_footnotes(samples, sources))


def _write(
    result: "SvmResult", out: Path, store: str, layer: str, c: float, notes: Sequence[str], *, failed: int
) -> None:
    from pseudo3d import files
    from pseudo3d.visualize.plots import plot_confusion, save_figure

    out.mkdir(parents=True, exist_ok=True)
    matrix = result.confusion()
    metrics = {
        "accuracy": result.accuracy,
        "videos": len(result.videos),
        "protocol": result.protocol,
        "store": store,
        "layer": layer,
        "svm C": c,
        "failed videos left out": failed,
        "notes": list(notes),
        "class names": list(result.class_names),
        "confusion": matrix.tolist(),
    }
    files.write_text(out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    title = f"linear SVM on {layer}: {result.accuracy:.1%}"
    save_figure(plot_confusion(matrix, result.class_names, title=title), out / "confusion")


def _print(result: "SvmResult", out: Path, c: float, notes: Sequence[str], *, failed: int) -> None:
    from pseudo3d.commands.output import print_table

    rows = [
        (name, f"{row[i]}", f"{row.sum()}", f"{row[i] / row.sum():.1%}" if row.sum() else "-")
        for i, (name, row) in enumerate(zip(result.class_names, result.confusion(), strict=True))
    ]
    print_table(("class", "right", "videos", "accuracy"), rows)
    print(f"linear SVM accuracy {result.accuracy:.1%} on {len(result.videos)} videos ({result.protocol}, C = {c:g})")
    if failed:
        print(f"{failed} videos failed in extraction and are not in this number")
    for note in notes:
        print(f"note: {note}")
    print(f"written: {out / 'metrics.json'}, confusion.png, confusion.svg")
