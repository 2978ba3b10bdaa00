"""``p3d visualize pca``."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from pseudo3d.commands.protocol_classify import Constant, check_constant

if TYPE_CHECKING:
    import numpy as np

    from pseudo3d.data.annotations import Sample, SampleList
    from pseudo3d.data.official import OfficialSet
    from pseudo3d.evaluation.reduction import Reduction
    from pseudo3d.features.store import FeatureStore, SourceFile


def run(args: Sequence[str]) -> int:
    """Parse and run."""
    from pseudo3d.cli import parse

    return parse(pca, "visualize pca", args)


def pca(
    stores: tyro.conf.Positional[tuple[str, ...]],
    /,
    *,
    out: Path,
    layer: tuple[str, ...] = ("pool5",),
    names: tuple[str, ...] = (),
    dims: tuple[int, ...] = (500, 400, 300, 200, 100, 50, 10),
    dataset: str | None = None,
    data: Path | None = None,
    lists: Path | None = None,
    splits: str | None = None,
    allow_missing: tyro.conf.FlagCreatePairsOff[bool] = False,
    groups: Path | None = None,
    folds: int = 5,
    c: Constant = 1.0,
) -> int:
    """Draw accuracy against the number of dimensions that features are reduced to by PCA (Figure 6 of the paper).

    Principal components of the training videos only, L2 normalisation, linear SVM. Train and test are a store's own
    splits, without them grouped cross-validation with components of its own in each fold, or the official splits of a
    data set, whose mean is drawn. Writes OUT.png, OUT.svg, OUT.json and OUT.csv.

    Example: p3d visualize pca p3d c3d p3d --layer pool5 fc6 idt --names P3D C3D IDT
             --dataset ucf101 --data UCF-101 --out pca

    Args:
        stores: folders that p3d extract wrote, or their URLs; or features from elsewhere as NAME.npy (videos x numbers)
            with NAME.csv beside it, which has the columns path, label and perhaps split and group.
        out: the pictures and numbers, without a suffix.
        layer: which features, one for all stores or one for each; also those that FeatureStore.add brought (idt).
        names: of the lines; those of the stores unless given.
        dims: numbers of dimensions.
        dataset: whose official splits count instead of the stores' own: ucf101, hmdb51 or another one-label set.
        data: folder of the data set.
        lists: folder of its lists, if they are not in --data.
        splits: which of its splits, as 1,2,3; all unless given.
        allow_missing: leave out videos of the official lists that a store or --data lacks, and count them.
        groups: file of `path group` lines, when a store does not know the sources.
        folds: of the cross-validation.
        c: the SVM's constant (the paper states none; 1 is ours), or cv: chosen on the training videos of each SVM.
    """
    from pseudo3d.commands.output import print_table
    from pseudo3d.commands.protocol_sets import notes_of
    from pseudo3d.evaluation.svm_solver import given_footnote
    from pseudo3d.visualize.outputs import check_pictures

    _check_options(stores, layer, names, folds, c)
    check_pictures(out, "pca")
    official = _official(dataset, data, lists, splits, groups)
    said = [note for each in official for note in notes_of(each, from_store=True, allow_missing=allow_missing)]
    read = partial(_read, lists=[each.samples for each in official], groups=groups, allow_missing=allow_missing)
    layers = layer * len(stores) if len(layer) == 1 else layer
    curves, notes = _measure(read, stores, layers, names, partial(_accuracies, dims=dims, folds=folds, c=c))
    notes = [*dict.fromkeys(said), *notes, *given_footnote(c)]
    for path in _write(out, curves, notes, layers, stores, c):
        print(path)
    print_table(("", "dimensions", "accuracy"), _rows(curves))
    for note in notes:
        print(f"note: {note}")
    return 0


@dataclass(frozen=True, eq=False)
class _Videos:
    """Features of labelled videos, in one split."""

    name: str
    features: "np.ndarray"
    labels: list[str | None]
    videos: list[str]
    splits: list[str | None]
    groups: list[str | None]
    left_out: int = 0
    notes: tuple[str, ...] = ()


def _check_options(
    stores: tuple[str, ...], layer: tuple[str, ...], names: tuple[str, ...], folds: int, c: Constant
) -> None:
    from pseudo3d.errors import Pseudo3dError

    if not stores:
        raise Pseudo3dError("give at least one store; see p3d visualize pca --help")
    if len(layer) not in (1, len(stores)):
        raise Pseudo3dError(f"--layer takes one name, or one for each of the {len(stores)} stores, got {len(layer)}")
    if names and len(names) != len(stores):
        raise Pseudo3dError(f"--names takes one for each of the {len(stores)} stores, got {len(names)}")
    if len(set(names)) < len(names):
        raise Pseudo3dError("--names has a name twice; each line needs its own")
    check_constant(c)
    if folds < 2:
        raise Pseudo3dError(f"--folds must be at least 2, got {folds}")


def _official(
    dataset: str | None, data: Path | None, lists: Path | None, splits: str | None, groups: Path | None
) -> list["OfficialSet"]:
    """The official lists that count, one for each split; none for the stores' own."""
    from pseudo3d.data.official import SPLITS, read_official
    from pseudo3d.errors import Pseudo3dError

    if dataset is None:
        if data is not None or lists is not None or splits is not None:
            raise Pseudo3dError("--data, --lists and --splits belong to --dataset NAME, which is not given")
        return []
    if groups is not None:
        raise Pseudo3dError("--groups has no meaning with --dataset, whose official splits count; leave one out")
    if data is None:
        raise Pseudo3dError(f"--dataset {dataset} needs its folder: --data FOLDER")
    wanted = SPLITS.get(dataset, ("1",)) if splits is None else tuple(each.strip() for each in splits.split(","))
    return [read_official(dataset, data, lists=lists, split=split) for split in wanted]


def _read(
    place: str, layer: str, *, lists: list["SampleList"], groups: Path | None, allow_missing: bool
) -> list[_Videos]:
    """The videos of one line: once, or once for each official split."""
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.evaluation.honesty import check_sides
    from pseudo3d.evaluation.own_labels import copies_footnotes, grouped_by_file, own_samples
    from pseudo3d.evaluation.representations import read_representations
    from pseudo3d.features.store import FeatureStore

    if place.endswith(".npy"):
        if lists:
            raise Pseudo3dError(f"{place}: official splits need a store; bring the features in by FeatureStore.add")
        return [_read_array(Path(place), groups)]
    store = FeatureStore(place)
    if len(store) == 0:
        raise Pseudo3dError(f"{place}: holds no features ({len(store.failures)} videos failed); extract some first")
    name = store.name if layer == "pool5" else f"{store.name}, {layer}"
    if not lists:
        own: Sequence[Sample] = own_samples(store, groups).samples
        own = own if any(store.splits) else grouped_by_file(own)
        notes = (*_trained_on(store, layer, own, None, store.sources), *copies_footnotes(own, store.sources))
        return [_of_samples(name, store.features(layer), own, len(store.failures), notes)]
    found = []
    for samples in lists:
        check_sides(samples.samples)
        read = read_representations(store, samples, [layer], allow_missing=allow_missing)
        notes = _trained_on(store, layer, read.samples, samples.root, read.sources)
        found.append(_of_samples(name, read.features[layer], read.samples, len(read.left_out), notes))
    return found


def _trained_on(
    store: "FeatureStore", layer: str, samples: "Sequence[Sample]", root: Path | None, sources: "Sequence[SourceFile]"
) -> tuple[str, ...]:
    """What to say of test videos that the network knows.

    Raises:
        Pseudo3dError: it was trained on some of them.
    """
    from pseudo3d.evaluation.honesty import check_not_trained_on

    if layer not in store.info.get("layers", [layer]):
        return ()  # brought from elsewhere: nothing is known of its network
    kinds = {sample.split for sample in samples}
    tested = next(kind for kind in ("test", "val", None, "train") if kind in kinds)
    places = [i for i, sample in enumerate(samples) if sample.split == tested]
    return check_not_trained_on(
        store.info, [samples[i] for i in places], root=root, sources=[sources[i] for i in places]
    )


def _of_samples(
    name: str, features: "np.ndarray", samples: "Sequence[Sample]", left_out: int = 0, notes: tuple[str, ...] = ()
) -> _Videos:
    """A list's own labels, splits and groups.

    Raises:
        Pseudo3dError: a video with several labels, of which this SVM would learn one.
    """
    from pseudo3d.errors import Pseudo3dError

    several = [sample.path for sample in samples if sample.more_labels]
    if several:
        raise Pseudo3dError(f"{len(several)} videos have several labels ({several[0]}); here each needs one")
    return _Videos(
        name,
        features,
        [sample.label for sample in samples],
        [sample.path for sample in samples],
        [sample.split for sample in samples],
        [sample.group for sample in samples],
        left_out,
        notes,
    )


def _read_array(path: Path, groups: Path | None) -> _Videos:
    """Features from elsewhere and the table of their videos."""
    import numpy as np

    from pseudo3d.data.annotations import assign_groups, parse_csv, read_groups
    from pseudo3d.errors import Pseudo3dError

    table = path.with_suffix(".csv")
    for file, what in ((path, "features"), (table, "columns path, label, and perhaps split and group")):
        if not file.is_file():
            raise Pseudo3dError(f"{file} does not exist: {path.stem}.npy needs {path.stem}.csv beside it ({what})")
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Pseudo3dError(f"{path}: no array of numbers in NumPy's format ({error})") from error
    samples = parse_csv(table.read_text(encoding="utf-8"), source=str(table))
    if features.ndim != 2 or features.dtype.kind != "f" or len(features) != len(samples):
        raise Pseudo3dError(
            f"{path}: {features.dtype} of shape {features.shape}; {table.name} has {len(samples)} videos, so "
            f"({len(samples)}, dim) in float32 or float64 is needed"
        )
    return _of_samples(path.stem, features, samples if groups is None else assign_groups(samples, read_groups(groups)))


def _accuracies(videos: _Videos, *, dims: tuple[int, ...], folds: int, c: Constant) -> "Reduction":
    from pseudo3d.evaluation.reduction import accuracy_by_dimension

    return accuracy_by_dimension(
        videos.features,
        videos.labels,
        dims=dims,
        videos=videos.videos,
        splits=videos.splits,
        groups=videos.groups,
        folds=folds,
        c=c,
    )


def _measure(
    read: Callable[[str, str], list[_Videos]],
    stores: tuple[str, ...],
    layers: tuple[str, ...],
    names: tuple[str, ...],
    accuracies: Callable[[_Videos], "Reduction"],
) -> tuple[list[tuple[str, "Reduction"]], list[str]]:
    """Every line with its name, and what there is to say of them."""
    from pseudo3d.commands.output import progress_bar
    from pseudo3d.evaluation.reduction import mean_reduction

    curves: list[tuple[str, Reduction]] = []
    notes: list[str] = []
    seen: dict[str, set[str]] = {}
    with progress_bar() as bar:
        task = bar.add_task("stores", total=len(stores), note="")
        for i, (store, layer) in enumerate(zip(stores, layers, strict=True)):
            videos = read(store, layer)
            name = names[i] if names else _name(videos[0].name, list(seen))
            curves.append((name, mean_reduction([accuracies(each) for each in videos])))
            notes += _notes(name, curves[-1][1], videos)
            seen[name] = {video for each in videos for video in each.videos}
            bar.advance(task)
    if any(videos != seen[curves[0][0]] for videos in seen.values()):
        counts = ", ".join(f"{name} {len(videos)}" for name, videos in seen.items())
        notes.append(f"the lines are not of the same videos ({counts}): differences may be due to that")
    return curves, notes


def _name(name: str, taken: list[str]) -> str:
    """The name, with a number when a line is called so already."""
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name} ({number})", number + 1
    return unique


def _notes(name: str, curve: "Reduction", videos: list[_Videos]) -> list[str]:
    from pseudo3d.evaluation.svm_solver import chosen_footnote

    notes = [f"{name}: {note}" for note in dict.fromkeys(note for each in videos for note in each.notes)]
    if left_out := sum(each.left_out for each in videos):
        what = "videos have no features and are" if left_out > 1 else "video has no features and is"
        notes.append(f"{name}: {left_out} {what} left out" + (" (all splits together)" if len(videos) > 1 else ""))
    if curve.left_out:
        dims = ", ".join(map(str, curve.left_out))
        notes.append(f"{name}: {dims} dimensions are left out: more than its {curve.full_dim} numbers or its training "
                     "videos span")  # fmt: skip
    chosen = [c for constants in curve.chosen for c in constants]
    return [*notes, *(f"{name}: {note}" for note in chosen_footnote(chosen, "videos"))]


def _rows(curves: list[tuple[str, "Reduction"]]) -> list[tuple[str, str, str]]:
    rows = []
    for name, curve in curves:
        rows += [(name, f"{dim}", f"{right:.1%}") for dim, right in zip(curve.dims, curve.accuracies, strict=True)]
        rows.append((name, f"all {curve.full_dim}", f"{curve.full_accuracy:.1%}"))
    return rows


def _write(
    out: Path,
    curves: list[tuple[str, "Reduction"]],
    notes: list[str],
    layers: tuple[str, ...],
    stores: tuple[str, ...],
    c: Constant,
) -> list[Path]:
    from pseudo3d import files
    from pseudo3d.visualize.outputs import stem_of
    from pseudo3d.visualize.pca import plot_reductions
    from pseudo3d.visualize.plots import save_figure

    out = stem_of(out, "pca")
    written = save_figure(plot_reductions(curves), out)
    lines = [
        {"name": name, "store": store, "layer": layer, **asdict(curve)}
        for (name, curve), store, layer in zip(curves, stores, layers, strict=True)
    ]
    told = {"svm C": c, "lines": lines, "notes": notes}
    files.write_text(out.with_name(f"{out.name}.json"), json.dumps(told, indent=2) + "\n")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("name", "dimensions", "accuracy", "videos", "protocol"))
    for name, curve in curves:
        pairs = [*zip(curve.dims, curve.accuracies, strict=True), (curve.full_dim, curve.full_accuracy)]
        writer.writerows((name, dim, accuracy, curve.videos, curve.protocol) for dim, accuracy in pairs)
    files.write_text(out.with_name(f"{out.name}.csv"), table.getvalue())
    return [*written, out.with_name(f"{out.name}.json"), out.with_name(f"{out.name}.csv")]
