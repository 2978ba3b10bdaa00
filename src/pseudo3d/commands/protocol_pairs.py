"""Action similarity labelling as a command: ASLAN's pairs (paper section 5, Table 5)."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pseudo3d.commands.protocol_classify import Constant, check_constant, facts_of
from pseudo3d.commands.protocol_results import Finished, check_out
from pseudo3d.commands.protocol_sets import Data, check_weights, notes_of
from pseudo3d.commands.protocol_source import Source, Wanted, departures, open_store

if TYPE_CHECKING:
    from pseudo3d.data.official.aslan import PairSet
    from pseudo3d.evaluation.aslan import AslanResult
    from pseudo3d.evaluation.representations import Representations
    from pseudo3d.evaluation.scores import Scores

_KINDS = ("not same", "same")


def evaluate_pairs(
    data: Data, source: Source, layers: str, c: Constant, view: Literal[1, 2], standardise: bool
) -> Finished:
    """Say of every pair whether both videos show the same action, by an SVM trained on the other folds.

    Args:
        data: where the set is.
        source: where the features come from.
        layers: parted by commas.
        c: the SVM's constant.
        view: which list of pairs.
        standardise: each similarity to mean 0 and deviation 1 first.

    Raises:
        Pseudo3dError: options, lists, videos or features that cannot be used.
    """
    from pseudo3d.data.official.aslan import read_aslan
    from pseudo3d.evaluation.aslan import evaluate_aslan
    from pseudo3d.evaluation.honesty import check_not_trained_on, left_out_footnote
    from pseudo3d.evaluation.metrics import roc_curve
    from pseudo3d.evaluation.representations import read_representations
    from pseudo3d.evaluation.results import Measurement, Result
    from pseudo3d.evaluation.svm_solver import chosen_footnote, given_footnote
    from pseudo3d.visualize.roc import plot_roc

    source.check()
    check_constant(c)
    wanted = _wanted(layers)
    asked: dict[str, Any] = {"layers": list(wanted.layers), "c": c, "view": view, "standardise": standardise}
    asked |= {**data.asked(), **source.asked()}
    check_out(source.out, "aslan", asked)
    pairs = read_aslan(data.data, data.lists, view)
    notes = notes_of(pairs, from_store=bool(source.features), allow_missing=source.allow_missing)
    check_weights(source, pairs.samples)
    store = open_store(source, pairs.samples, wanted)
    found = read_representations(store, pairs.samples, wanted.layers, allow_missing=source.allow_missing)
    notes += check_not_trained_on(store.info, found.samples, root=pairs.samples.root, sources=found.sources)
    kept, dropped = _with_features(pairs, found)
    said = evaluate_aslan(
        found.features, kept.first, kept.second, kept.same, kept.fold, c=c, view=view, standardise=standardise
    )
    notes += (*left_out_footnote(found.left_out), *dropped, *departures(store, wanted))
    chosen = said.constants if c == "cv" else ()
    notes += (*_departures(wanted.layers, view, standardise), *given_footnote(c), *chosen_footnote(chosen, "pairs"))
    facts = {
        "asked": asked,
        "classifier": "linear SVM",
        "layers": list(wanted.layers),
        "svm C": c,
        **({"svm C chosen": list(chosen)} if chosen else {}),
        "pairs": {"all": len(pairs.same), "used": len(kept.same), "tested": len(said.decisions)},
        "accuracies": list(map(float, said.accuracies)),
        "error": "standard error of the mean over folds",
        **facts_of([store]),
    }
    numbers = (Measurement("accuracy", said.accuracy, error=said.error), Measurement("AUC", said.auc))
    row = source.called(store)
    result = Result("aslan", row, numbers, facts, tuple(dict.fromkeys(notes)))
    curve = (row, *roc_curve(said.decisions, said.same), said.auc)
    return Finished(source.out, result, {"": _scores(kept, said)}, {"roc": plot_roc([curve])})


def _wanted(layers: str) -> Wanted:
    from pseudo3d.errors import Pseudo3dError

    names = tuple(dict.fromkeys(name.strip() for name in layers.split(",") if name.strip()))
    if not names:
        raise Pseudo3dError("--layers names no layer; the paper's are prob,pool5,res5,res4")
    return Wanted(names)


def _departures(layers: tuple[str, ...], view: Literal[1, 2], standardise: bool) -> tuple[str, ...]:
    """What was asked for that is not the paper's."""
    from pseudo3d.evaluation.aslan import ASLAN_LAYERS

    notes = []
    if set(layers) != set(ASLAN_LAYERS):
        notes.append(f"similarities on {', '.join(layers)}; the paper's layers are {', '.join(ASLAN_LAYERS)}")
    if view == 1:
        notes.append("View-1, one training and one test part: to develop on; the published numbers are of View-2")
    if standardise:
        notes.append("each similarity was brought to mean 0 and deviation 1 over the training pairs")
    return tuple(notes)


def _with_features(pairs: "PairSet", found: "Representations") -> tuple["PairSet", tuple[str, ...]]:
    """The pairs of which both videos have features, with places among these; and what to say of the others.

    Raises:
        Pseudo3dError: a fold has none left.
    """
    import numpy as np

    from pseudo3d.errors import Pseudo3dError

    row_of = {sample.path: row for row, sample in enumerate(found.samples)}
    place = np.array([row_of.get(sample.path, -1) for sample in pairs.samples.samples], np.int64)
    first, second = place[pairs.first], place[pairs.second]
    there = (first >= 0) & (second >= 0)
    empty = sorted(set(pairs.fold.tolist()) - set(pairs.fold[there].tolist()))
    if empty:
        raise Pseudo3dError(f"fold {empty[0] + 1} has no pair of which both videos have features; extract them")
    kept = replace(
        pairs, samples=replace(pairs.samples, samples=tuple(found.samples)), first=first[there], second=second[there],
        same=pairs.same[there], fold=pairs.fold[there], number=pairs.number[there],
    )  # fmt: skip
    lost = int((~there).sum())
    return kept, (f"{lost} of {len(there)} pairs were left out for lack of features",) if lost else ()


def _scores(pairs: "PairSet", said: "AslanResult") -> "Scores":
    """The decisions on the tested pairs, each under its fold, number there and files."""
    import numpy as np

    from pseudo3d.evaluation.aslan import pair_name
    from pseudo3d.evaluation.scores import Scores

    paths = [sample.path for sample in pairs.samples.samples]
    names = tuple(
        pair_name(pairs.fold[i] + 1, pairs.number[i], paths[pairs.first[i]], paths[pairs.second[i]])
        for i in said.tested
    )
    truth = np.stack([~said.same, said.same], axis=1)
    return Scores(names, _KINDS, truth, np.stack([-said.decisions, said.decisions], axis=1), "decision")
