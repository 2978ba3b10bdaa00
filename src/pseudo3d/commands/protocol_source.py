"""Where a protocol's features come from: stores that are there, or the videos themselves, extracted first."""

import csv
import io
import os
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

if TYPE_CHECKING:
    from pseudo3d.data.annotations import SampleList
    from pseudo3d.features.store import FeatureStore


_OF_EXTRACTION = ("model", "class_names", "clips", "device", "dtype", "batch_size", "workers")
_CLIPS = 20  # of a video: paper sections 4 and 5


@dataclass(frozen=True)
class Source:
    """What is evaluated, and where the results go.

    Args:
        out: folder of the results: result.json, scores, tables, pictures, and the features if they are extracted.
        features: a store that p3d extract made of these videos, or its URL. Several for --classifier
            network of ucf101 and hmdb51 alone: one for each split, in the order of --splits.
        weights: the network to extract with, if there is no store: a pretrained folder, a weights file, "imagenet" or
            "hf:owner/name". Several as for --features.
        name: what the row is called in the tables.
        allow_missing: go on without the videos that have no features; the table says how many.
        model: for extraction: name of the network; auto is the one that the weights are of.
        class_names: for extraction: file with one class name a line, for weights that do not carry them.
        clips: for extraction: clips of each video (20 in the paper).
        device: for extraction: auto, cpu, cuda, mps.
        dtype: for extraction: precision; auto is bfloat16 where the hardware has it.
        batch_size: for extraction: clips in a batch.
        workers: for extraction: processes that decode; 0 to decode in this one.
    """

    out: Path
    features: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    name: str | None = None
    allow_missing: tyro.conf.FlagCreatePairsOff[bool] = False
    model: str = "auto"
    class_names: Path | None = None
    clips: int = _CLIPS
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    batch_size: int | None = None
    workers: int | None = None

    def check(self, count: int = 1) -> None:
        """That features or weights are given, for ``count`` networks.

        Raises:
            Pseudo3dError: neither, both, or another number of them; an empty name; options of an extraction for a
                store that is there.
        """
        from pseudo3d.errors import Pseudo3dError

        if self.name is not None and not self.name.strip():
            raise Pseudo3dError("--name is empty; it is what the row is called in the tables")
        if bool(self.features) == bool(self.weights):
            raise Pseudo3dError("give either --features STORE (made by p3d extract) or --weights WEIGHTS")
        option, given = ("--features", self.features) if self.features else ("--weights", self.weights)
        if len(given) != count:
            wanted = "one" if count == 1 else f"{count}, one for each split (or fewer --splits)"
            raise Pseudo3dError(f"{option} has {len(given)} values, {wanted} needed here: {' '.join(given)}")
        if len(set(given)) < len(given):
            raise Pseudo3dError(
                f"{option} names the same thing twice: a network that was trained on one split has seen test videos of "
                "the others"
            )
        if self.features:
            plain = Source(self.out)
            unused = [name for name in _OF_EXTRACTION if getattr(self, name) != getattr(plain, name)]
            if unused:
                options = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
                raise Pseudo3dError(
                    f"{options}: of an extraction (--weights); the features of --features are there already"
                )

    def asked(self) -> dict[str, Any]:
        """What of this decides the result, in JSON types."""
        told: dict[str, Any] = {"features": [_absolute(each) for each in self.features]}
        if self.weights:
            class_names = None if self.class_names is None else str(self.class_names.absolute())
            told |= {
                "weights": [_absolute(each) for each in self.weights],
                "model": self.model,
                "class_names": class_names,
                "clips": self.clips,
                "dtype": self.dtype,
            }
        return told

    def called(self, store: "FeatureStore") -> str:
        """The name of the row: as given, else the network's and what it was given as."""
        if self.name is not None:
            return self.name
        network = store.info.get("architecture", {}).get("name", "features")
        given = (*self.features, *self.weights)[0].rstrip("/")
        return f"{network}, {given}"


def _absolute(place: str) -> str:
    return str(Path(place).absolute()) if Path(place).exists() else place


@dataclass(frozen=True)
class Wanted:
    """What a protocol needs of a store.

    Args:
        layers: activations.
        per_clip: those of every clip, too; of a store that is there they are used if it has them.
        sampler: how clips are chosen.
        resize: short edge of the frames; None: the network's own.
        mirror: average each clip's features with those of its mirror image.
        seed: of the sampler "random".
    """

    layers: tuple[str, ...]
    per_clip: bool = False
    sampler: Literal["uniform", "random"] = "uniform"
    resize: int | None = None
    mirror: bool = False
    seed: int = 0

    def options(self) -> str:
        """As options of p3d extract."""
        words = [f"--layers {','.join(self.layers)}"]
        words += ["--per-clip"] if self.per_clip else []
        words += [f"--sampler {self.sampler}"] if self.sampler != "uniform" else []
        words += [f"--resize {self.resize}"] if self.resize is not None else []
        words += ["--mirror"] if self.mirror else []
        words += [f"--seed {self.seed}"] if self.seed else []
        return " ".join(words)


def open_store(
    source: Source,
    samples: "SampleList",
    wanted: Wanted,
    number: int | None = None,
    *,
    on_network: Callable[[Sequence[str], int], Any] = lambda class_names, outputs: None,
) -> "FeatureStore":
    """The store to evaluate: the one that is given, or OUT/features, extracted now or from where it stopped.

    Args:
        source: which.
        samples: the videos that are needed.
        wanted: what of them.
        number: place of the split among ``source.features`` or ``source.weights`` where each has its own.
        on_network: called with the class names (or none) and the number of classes of a network to extract with, once
            it is loaded and before it sees a video; what it raises ends the extraction.

    Raises:
        Pseudo3dError: no such store, a layer that it does not have, or no video could be used.
        KeyboardInterrupt: the extraction was stopped; the same command goes on.
    """
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.features.store import FeatureStore

    if source.features:
        store = FeatureStore(source.features[number or 0])
    else:
        _extract(source, samples, wanted, number, on_network)
        store = FeatureStore(source.out / _numbered("features", number))
    if len(store) == 0:
        raise Pseudo3dError(f"{store.location}: holds no features ({len(store.failures)} videos failed)")
    if not all(wanted.layers):
        raise Pseudo3dError(f"--layer names no layer; {store.location} has {', '.join(store.layers)}")
    lacking = [layer for layer in wanted.layers if layer not in store.layers]
    if lacking:
        raise Pseudo3dError(
            f"{store.location}: has no {', '.join(lacking)} (it has {', '.join(store.layers)}); make a store that has: "
            f"p3d extract VIDEOS --weights WEIGHTS {wanted.options()} --out STORE"
        )
    return store


def departures(store: "FeatureStore", wanted: Wanted) -> tuple[str, ...]:
    """What is to be said of clips that were not taken as the protocol does; a store that does not say is believed.

    Args:
        store: it was made in some way.
        wanted: the protocol's way.
    """
    notes = []
    sampler, clips = store.info.get("sampler"), store.info.get("clips")
    if sampler is not None and sampler != wanted.sampler:
        notes.append(f"clips were chosen by the sampler {sampler}; this protocol's is {wanted.sampler}")
    if clips is not None and clips != _CLIPS and sampler != "sliding":  # which takes as many as a video has
        notes.append(f"{clips} clips of each video were taken; this protocol takes {_CLIPS}")
    if store.info.get("weights") == "random":
        notes.append("the network is untrained (random weights): its features are noise")
    if store.info.get("mirror") and not wanted.mirror:
        notes.append("features are averaged with those of the mirror image, which this protocol does not do")
    return tuple(notes)


def _extract(
    source: Source,
    samples: "SampleList",
    wanted: Wanted,
    number: int | None,
    on_network: Callable[[Sequence[str], int], Any],
) -> None:
    from pseudo3d.commands.encoders import started_encoder
    from pseudo3d.commands.extract import Job
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.features.store import read_info

    if not samples.samples:
        raise Pseudo3dError(f"{samples.root}: there is no video to extract")
    store = str(source.out / _numbered("features", number))
    with started_encoder(
        model=source.model,
        weights=source.weights[number or 0],
        class_names=source.class_names,
        clips=source.clips,
        sampler=wanted.sampler,
        seed=wanted.seed,
        resize=wanted.resize,
        mirror=wanted.mirror,
        device=source.device,
        dtype=source.dtype,
        batch_size=source.batch_size,
        workers=source.workers,
    ) as encoder:
        if read_info(store) is None:  # else it has been looked at, and an earlier run says how this one runs
            network = encoder.load(source.clips * len(samples.samples)).network
            on_network(tuple(network.class_names or ()), network.architecture.num_classes)
        source.out.mkdir(parents=True, exist_ok=True)
        _write_list(samples, source.out / f"{_numbered('videos', number)}.csv")
        code = Job(encoder, _from_root_of(store, samples), store, wanted.layers, wanted.per_clip).run()
    if code == 130:
        raise KeyboardInterrupt
    if code == 2:
        raise Pseudo3dError("no video could be used; each is named above")


def _numbered(stem: str, number: int | None) -> str:
    return stem if number is None else f"{stem}-{number + 1}"


def _from_root_of(store: str, samples: "SampleList") -> "SampleList":
    """The videos in order, with paths from where those of a store that is there start, if all of them lie there."""
    from dataclasses import replace

    from pseudo3d.data.walk import relative_to
    from pseudo3d.features.store import read_info

    home = Path(os.path.normpath(samples.root.absolute()))
    root = Path((read_info(store) or {}).get("root", home))
    if not all((home / sample.path).is_relative_to(root) for sample in samples.samples):
        root = home
    moved = (replace(each, path=relative_to(root, str(home / each.path))) for each in samples.samples)
    return replace(samples, root=root, samples=tuple(sorted(moved, key=lambda sample: sample.path)))


def _write_list(samples: "SampleList", path: Path) -> None:
    """Write the list of the videos, for p3d extract elsewhere; a list needs labels, without them there is none.

    Raises:
        Pseudo3dError: ``path`` is there and lists videos of something else (``_check_grown``).
    """
    from pseudo3d import files
    from pseudo3d.data.annotations import label_text

    if any(sample.label is None for sample in samples.samples):
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "label", "split", "group"))
    places = [(samples.root / sample.path).absolute().as_posix() for sample in samples.samples]
    for place, sample in zip(places, samples.samples, strict=True):
        table.writerow((place, label_text(sample), sample.split or "", sample.group or ""))
    if path.exists():
        _check_grown(path, set(places))
    files.write_text(path, text.getvalue())


def _check_grown(path: Path, places: Set[str]) -> None:
    """Refuse a list of an earlier run that is not one of the same videos with some more or some fewer on the disk.

    Args:
        path: the list.
        places: of the videos that are wanted now.

    Raises:
        Pseudo3dError: it has a video that is there and not wanted now, or none that is wanted, and so is of another
            data set or split; or it is damaged.
    """
    from pseudo3d.data.annotations import parse_csv
    from pseudo3d.data.official.dataset import read_list
    from pseudo3d.errors import Pseudo3dError, first_few
    from pseudo3d.video.segments import file_of

    before = [sample.path for sample in parse_csv(read_list(path), source=str(path))]
    others = [place for place in before if place not in places and file_of(place).exists()]
    if others or (before and not places & set(before)):
        raise Pseudo3dError(
            f"{path}: lists videos of another data set or split ({first_few(others or before, 1)}); give another "
            "folder for --out"
        )


def listed_once(parts: Sequence["SampleList"], sides: Sequence[str]) -> "SampleList":
    """The videos of several splits, each once and without a side of its own: what is extracted for all of them.

    Args:
        parts: the splits.
        sides: which sides of them, such as ("train", "test").
    """
    from dataclasses import replace

    used = (sample for part in parts for sample in part.samples if sample.split in sides)
    found = {sample.path: replace(sample, split=None) for sample in used}
    return replace(parts[0], samples=tuple(found[path] for path in sorted(found)))
