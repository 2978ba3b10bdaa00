"""Classification protocols as they run: lists, stores and checks in, a result out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from pseudo3d.commands.protocol_results import Finished, check_out, confusion_of
from pseudo3d.commands.protocol_sets import (
    check_class_orders,
    check_weights,
    check_weights_differ,
    notes_of,
    refuse_same_weights,
)
from pseudo3d.commands.protocol_source import Source, Wanted, departures, listed_once, open_store

if TYPE_CHECKING:
    from pseudo3d.data.annotations import SampleList
    from pseudo3d.data.official import OfficialSet
    from pseudo3d.evaluation.classification import Measure, SplitScores
    from pseudo3d.features.store import FeatureStore

Constant = float | Literal["cv"]


@dataclass(frozen=True)
class Svm:
    """A linear SVM on a representation.

    Args:
        layer: which features; the paper's are pool5, the C3D paper's fc6.
        c: the SVM's constant (the papers state none; 1 is ours), or cv: chosen by cross-validation within the training
            videos, never on test videos.
        train_scores: score the training videos, too, each by an SVM that was trained without it: p3d evaluate fuse
            finds its weights on them.
    """

    layer: str = "pool5"
    c: Constant = 1.0
    train_scores: tyro.conf.FlagCreatePairsOff[bool] = False


def check_constant(c: Constant) -> None:
    """Raise a Pseudo3dError for an SVM's constant that is none."""
    from pseudo3d.errors import Pseudo3dError

    if c != "cv" and not 0 < c < float("inf"):
        raise Pseudo3dError(f"--c must be above 0, or cv, got {c}")


@dataclass(frozen=True, eq=False)
class Protocol:
    """How a labelled set is judged.

    Args:
        name: of the result.
        read: the set, for the name of a split.
        splits: names of them.
        tested: the side that is judged, "train" being the other: "test" or "val".
        measure: what is counted.
        svm: None: by the network's own probabilities.
        clip_hits: count single clips, too.
        sampler: of the clips.
        dead_links: videos of the list that nobody has any more are no error.
        own_classes: the data's classes need not be all of the network's, nor in its order.
        asked: what else decides the result, in JSON types.
        seed: of the sampler "random".
        parts_apart: the official lists may have parts of one file on several sides, as they may have whole videos of
            one source: the set's notes count them.
    """

    name: str
    read: "Callable[[str], OfficialSet]"
    splits: tuple[str, ...]
    tested: str
    measure: "Measure"
    svm: Svm | None = None
    clip_hits: bool = False
    sampler: Literal["uniform", "random"] = "uniform"
    dead_links: bool = False
    own_classes: bool = False
    asked: Mapping[str, Any] | None = None
    seed: int = 0
    parts_apart: bool = False

    @property
    def wanted(self) -> Wanted:
        """Of a store."""
        layers = ("prob",) if self.svm is None else (self.svm.layer,)
        return Wanted(layers, per_clip=self.svm is None and self.clip_hits, sampler=self.sampler, seed=self.seed)

    @property
    def sides(self) -> tuple[str, ...]:
        """The splits whose videos are used."""
        return (self.tested,) if self.svm is None else ("train", self.tested)


def classify(protocol: Protocol, source: Source) -> Finished:
    """Run a protocol on every split.

    Raises:
        Pseudo3dError: options, lists, videos or features that cannot be used, or a result that would mislead.
    """
    from pseudo3d.evaluation.classification import constant_footnote, lacking_footnote
    from pseudo3d.evaluation.representations import check_same_network
    from pseudo3d.evaluation.svm_solver import given_footnote

    svm = protocol.svm
    source.check(1 if svm is not None else len(protocol.splits))
    asked = {"splits": list(protocol.splits), **(protocol.asked or {}), **source.asked()}
    if svm is not None:
        check_constant(svm.c)
        asked |= {"layer": svm.layer, "c": svm.c, "train_scores": svm.train_scores}
    check_out(source.out, protocol.name, asked)
    sets = {split: protocol.read(split) for split in protocol.splits}
    footnotes = dict.fromkeys(_notes_of_all(sets, protocol, source))
    check_sides_of(sets, protocol, source)
    if svm is not None:
        footnotes |= dict.fromkeys(given_footnote(svm.c))
        videos = listed_once([each.samples for each in sets.values()], protocol.sides)
        stores = [open_store(source, videos, protocol.wanted)] * len(sets)
    else:
        several = len(sets) > 1
        stores = [
            open_store(
                source, each.samples.split(protocol.tested), protocol.wanted, i if several else None,
                on_network=partial(_columns, protocol, each.samples.split(protocol.tested)),
            )
            for i, each in enumerate(sets.values())
        ]  # fmt: skip
        check_class_orders((str(store.location), store.info.get("class_names")) for store in stores)
    check_same_network(stores, same_weights=False)
    if svm is None:
        refuse_same_weights((store.location, store.info.get("weights")) for store in stores)
    runs, own = {}, {}
    for (split, each), store in zip(sets.items(), stores, strict=True):
        runs[split], own[split] = _run(protocol, each, store, source)
        own[split] += (*lacking_footnote(runs[split]), *constant_footnote(runs[split]))
    footnotes |= dict.fromkeys(_by_split(own))
    return _finished(protocol, source, stores, sets, runs, asked, tuple(footnotes))


def _by_split(notes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Each note once, with the splits that it is said of where there are several."""
    said: dict[str, list[str]] = {}
    for split, own in notes.items():
        for note in own:
            said.setdefault(note, []).append(split)
    for note, splits in said.items():
        if len(notes) == 1:
            yield note
        elif len(splits) == len(notes):
            yield f"every split: {note}"
        else:
            yield f"split{'s' if len(splits) > 1 else ''} {' and '.join(splits)}: {note}"


def _notes_of_all(sets: "Mapping[str, OfficialSet]", protocol: Protocol, source: Source) -> Iterator[str]:
    """What is to be said of the sets; of which split it is said, where not the same videos are missing from all."""
    missing = {split: each.missing_from(protocol.sides) for split, each in sets.items()}
    differ = len(set(map(frozenset, missing.values()))) > 1
    for split, each in sets.items():
        told = notes_of(
            each,
            from_store=bool(source.features),
            allow_missing=source.allow_missing,
            dead_links=protocol.dead_links,
            missing=missing[split],
        )
        for note in told:
            yield f"split {split}: {note}" if differ and note not in each.notes else note


def check_sides_of(sets: "Mapping[str, OfficialSet]", protocol: Protocol, source: Source) -> None:
    """What can be refused before hours of extraction.

    Raises:
        Pseudo3dError: no video to test on, one on both sides, weights that were trained on one, one network for several
            splits, a network for other classes, or networks with the classes in different orders.
    """
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.evaluation.honesty import check_sides

    for number, official in enumerate(sets.values()):
        check_sides(official.samples.samples, parts_apart=protocol.parts_apart)
        tested = official.samples.split(protocol.tested)
        if not tested.samples:
            raise Pseudo3dError(f"{official.title}: no video is in the split {protocol.tested!r}")
        check_weights(source, tested, number if protocol.svm is None else 0)
        if protocol.svm is None and source.weights and source.class_names is None:
            network = _named_classes(Path(source.weights[number]))
            if network:
                _columns(protocol, tested, network, len(network))
    check_weights_differ(source)
    if protocol.svm is None and source.class_names is None:
        check_class_orders((weights, _named_classes(Path(weights))) for weights in source.weights)


def _named_classes(weights: Path) -> tuple[str, ...]:
    """The classes of a pretrained folder; of other weights they show when they are loaded."""
    from pseudo3d.weights.pretrained import CONFIG_NAME, read_config

    return tuple(read_config(weights)["class_names"] or ()) if (weights / CONFIG_NAME).is_file() else ()


def _columns(
    protocol: Protocol, tested: "SampleList", network: Sequence[str], outputs: int
) -> tuple[tuple[str, ...], list[int], tuple[str, ...]]:
    """The classes that are told apart, which of a network's outputs each is, and what is to be said of it.

    Args:
        protocol: whose classes.
        tested: the videos.
        network: its class names, or none.
        outputs: how many it has.

    Raises:
        Pseudo3dError: the network is for other classes.
    """
    from pseudo3d.evaluation.classification import class_columns, truth_of

    names = tuple(network) if protocol.own_classes and network else tested.class_names
    columns, notes = class_columns(network, names, outputs)
    truth_of(tested.samples, names)
    return names, columns, notes


def _run(
    protocol: Protocol, official: "OfficialSet", store: "FeatureStore", source: Source
) -> tuple["SplitScores", tuple[str, ...]]:
    """One split: its scores, and what is to be said of them."""
    from pseudo3d.evaluation.classification import svm_split
    from pseudo3d.evaluation.honesty import check_content, check_not_trained_on, left_out_footnote
    from pseudo3d.evaluation.representations import read_representations

    svm, root = protocol.svm, official.samples.root
    if svm is None:
        return _network(protocol, official.samples.split(protocol.tested), store, source)
    sides = tuple(sample for sample in official.samples.samples if sample.split in protocol.sides)
    found = read_representations(
        store, replace(official.samples, samples=sides), (svm.layer,), allow_missing=source.allow_missing
    )
    rows = [row for row, sample in enumerate(found.samples) if sample.split == protocol.tested]
    notes = check_not_trained_on(
        store.info, [found.samples[i] for i in rows], root=root, sources=[found.sources[i] for i in rows]
    )
    notes += check_content(found.samples, found.sources, refuse=False)
    scores = svm_split(
        found.samples,
        found.features[svm.layer],
        official.samples.class_names,
        measure=protocol.measure,
        tested=protocol.tested,
        c=svm.c,
        train_scores=svm.train_scores,
    )
    notes += (*left_out_footnote(found.left_out), *departures(store, protocol.wanted))
    return scores, (*notes, *_other_layer(svm.layer, store))


def _network(
    protocol: Protocol, tested: "SampleList", store: "FeatureStore", source: Source
) -> tuple["SplitScores", tuple[str, ...]]:
    from pseudo3d.evaluation.classification import SplitScores, clip_hit_at_1, truth_of
    from pseudo3d.evaluation.honesty import check_not_trained_on, left_out_footnote
    from pseudo3d.evaluation.representations import read_representations
    from pseudo3d.evaluation.scores import Scores

    network = tuple(store.info.get("class_names") or ())
    names, columns, notes = _columns(protocol, tested, network, store.shape("prob")[0])
    found = read_representations(store, tested, ("prob",), allow_missing=source.allow_missing)
    notes += check_not_trained_on(store.info, found.samples, root=tested.root, sources=found.sources)
    truth = truth_of(found.samples, names)
    values = found.features["prob"][:, columns]
    scores = Scores(tuple(sample.path for sample in found.samples), names, truth, values, "probability")
    counted = protocol.measure(scores)
    notes = (*notes, *left_out_footnote(found.left_out))
    if protocol.clip_hits and "prob" in store.clip_layers:
        row_of = dict(zip(found.videos, truth, strict=True))
        clips = ((prob[:, columns], row_of[video]) for video, _, prob in store.clips("prob") if video in row_of)
        counted = {"clip hit@1": clip_hit_at_1(clips), **counted}
    elif protocol.clip_hits:
        notes = (*notes, "clip hit@1 was not measured: the store has no features of single clips (--per-clip)")
    return SplitScores(scores, counted), (*notes, *departures(store, protocol.wanted))


def _other_layer(layer: str, store: "FeatureStore") -> tuple[str, ...]:
    """What is to be said of a representation that is not its paper's."""
    paper = "fc6" if store.info.get("architecture", {}).get("name") == "c3d" else "pool5"
    return () if layer == paper else (f"the SVM is on the layer {layer}; the paper's representation is {paper}",)


def _finished(
    protocol: Protocol,
    source: Source,
    stores: "Sequence[FeatureStore]",
    sets: "Mapping[str, OfficialSet]",
    runs: "Mapping[str, SplitScores]",
    asked: dict[str, Any],
    footnotes: tuple[str, ...],
) -> Finished:
    from pseudo3d.evaluation.classification import measurements_of
    from pseudo3d.evaluation.results import Result

    facts = {
        "asked": asked,
        "classifier": "network" if protocol.svm is None else "linear SVM",
        **({} if protocol.svm is None else {"layer": protocol.svm.layer, "svm C": protocol.svm.c}),
        **_chosen(runs),
        "classes": len(next(iter(sets.values())).samples.class_names),
        "tested videos": {split or "all": len(run.test.videos) for split, run in runs.items()},
        "sets": [each.title for each in sets.values()],
        **facts_of(stores),
    }
    measurements = measurements_of({split: run.values for split, run in runs.items()})
    scores = {}
    for split, run in runs.items():
        ending = f"-{split}" if len(runs) > 1 else ""
        scores[ending] = run.test
        if run.train is not None:
            scores[f"{ending}-train"] = run.train
    name = source.called(stores[0])
    figures = confusion_of(scores, name)
    return Finished(source.out, Result(protocol.name, name, measurements, facts, footnotes), scores, figures)


def _chosen(runs: "Mapping[str, SplitScores]") -> dict[str, Any]:
    """The constants that cross-validation chose, by split; nothing where none were."""
    chosen = {split or "all": run.chosen for split, run in runs.items() if run.chosen is not None}
    in_folds = {split or "all": list(run.chosen_in_folds) for split, run in runs.items() if run.chosen_in_folds}
    facts = {"svm C chosen": chosen, "svm C chosen for training scores": in_folds}
    return {name: found for name, found in facts.items() if found}


def facts_of(stores: "Sequence[FeatureStore]") -> dict[str, Any]:
    """What made the features: of the first store, and where all of them are."""
    info = stores[0].info
    kept = (
        "architecture",
        "weights",
        "preprocessing",
        "sampler",
        "seed",
        "clips",
        "mirror",
        "dtype",
        "device",
        "engine",
        "made_with",
    )
    places = list(dict.fromkeys(str(store.location) for store in stores))
    return {
        "store": places[0],
        "stores": places,
        "root": info.get("root"),
        "weights of all": [store.info.get("weights") for store in stores],
        **{key: info[key] for key in kept if key in info},
    }
