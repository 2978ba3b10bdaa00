"""``p3d evaluate NAME``: the protocols of the paper, one function each; its signature is the command line."""

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from pseudo3d.commands.protocol_classify import Constant, Protocol, Svm, classify
from pseudo3d.commands.protocol_results import Finished, write
from pseudo3d.commands.protocol_sets import Data
from pseudo3d.commands.protocol_source import Source

if TYPE_CHECKING:
    from pseudo3d.data.official import OfficialSet

_Data = Annotated[Data, tyro.conf.arg(name="")]  # --data, not --data.data
_Source = Annotated[Source, tyro.conf.arg(name="")]
_Svm = Annotated[Svm, tyro.conf.arg(name="")]
_Classifier = Literal["svm", "network"]
_Variant = Literal["plain", "authors"]


def run(name: str, args: Sequence[str]) -> int:
    """Parse and run the protocol of that name."""
    from pseudo3d.cli import parse

    finished = parse(PROTOCOLS[name], f"evaluate {name}", args)
    write(finished, shlex.join(["p3d", "evaluate", name, *args]))
    return 0


def hits(*, source: _Source, data: Path | None = None, groups: Path | None = None) -> Finished:
    """Clip hit@1, video hit@1 and video hit@5 of a network on your own labelled videos (paper section 4, Table 2).

    A video's score is the mean over 20 clips. The split "test" is judged, else "val"; all videos
    where there are no splits.

    Example: p3d evaluate hits --data runs/first/split.csv --weights runs/first/checkpoints/best --out runs/first_hits

    Args:
        source: where the features come from.
        data: videos as p3d train takes them: a folder per class, split/class/file, a list or a CSV; not needed with
            --features, whose store knows its labels.
        groups: file of `path group` lines: what comes from one source.
    """
    from pseudo3d.commands.protocol_sets import labelled_set
    from pseudo3d.evaluation.classification import video_hits

    source.check()
    asked = {"data": None if data is None else str(data.absolute())}
    read = partial(labelled_set, source, data, groups)
    return classify(
        Protocol("hits", read, ("",), "test", video_hits, clip_hits=True, own_classes=True, asked=asked), source
    )


def ucf101(
    *, data: _Data, source: _Source, svm: _Svm, classifier: _Classifier = "svm", splits: str = "1,2,3"
) -> Finished:
    """UCF101: accuracy on each of the three official splits and their mean (paper section 5, Table 3).

    svm: a linear SVM on the videos' representations. network: the network's own classes, one network a split.

    Example: p3d evaluate ucf101 --data UCF101 --weights p3d.caffemodel --out runs/ucf101

    Args:
        data: the data set.
        source: where the features come from.
        svm: for --classifier svm.
        classifier: what names the classes.
        splits: which of them.
    """
    return _splits("ucf101", data, source, svm, classifier, splits)


def hmdb51(
    *, data: _Data, source: _Source, svm: _Svm, classifier: _Classifier = "svm", splits: str = "1,2,3"
) -> Finished:
    """HMDB51: accuracy on each of the three official splits and their mean, as ucf101.

    Example: p3d evaluate hmdb51 --data HMDB51 --weights p3d.caffemodel --out runs/hmdb51

    Args:
        data: the data set.
        source: where the features come from.
        svm: for --classifier svm.
        classifier: what names the classes.
        splits: which of them.
    """
    return _splits("hmdb51", data, source, svm, classifier, splits)


def _splits(
    name: Literal["ucf101", "hmdb51"], data: Data, source: Source, svm: Svm, classifier: _Classifier, splits: str
) -> Finished:
    from pseudo3d.data.official import SPLITS
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.evaluation.classification import accuracy

    wanted = tuple(split.strip() for split in splits.split(","))
    if not set(wanted) <= set(SPLITS[name]) or len(set(wanted)) < len(wanted):
        raise Pseudo3dError(f"--splits takes some of {','.join(SPLITS[name])}, each once, got {splits!r}")
    by_svm = _svm_of(svm, classifier)
    return classify(
        Protocol(
            f"{name}-{classifier}", _reader(name, data), wanted, "test", accuracy, by_svm, by_svm is None,
            asked=data.asked(),
        ),
        source,
    )  # fmt: skip


def _svm_of(svm: Svm, classifier: _Classifier) -> Svm | None:
    """The SVM, if one is asked for.

    Raises:
        Pseudo3dError: options of an SVM for a network.
    """
    from pseudo3d.errors import Pseudo3dError

    if classifier == "svm":
        return svm
    if svm != Svm():
        raise Pseudo3dError("--layer, --c and --train-scores are for --classifier svm; a network has its own classes")
    return None


def _reader(name: str, data: Data) -> "Callable[[str], OfficialSet]":
    from pseudo3d.data.official import read_official

    return lambda split: read_official(name, data.data, lists=data.lists, split=split or "1")


def activitynet(
    *,
    data: _Data,
    source: _Source,
    svm: _Svm,
    classifier: _Classifier = "svm",
    trimmed: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> Finished:
    """ActivityNet v1.3: top-1, top-3 and mean average precision on the validation set (paper section 5, Table 4).

    Example: p3d evaluate activitynet --data ActivityNet --weights p3d.caffemodel --out runs/activitynet

    Args:
        data: the data set.
        source: where the features come from.
        svm: for --classifier svm: trained on the training set.
        classifier: what names the classes.
        trimmed: classify each annotated segment by itself instead of whole videos.
    """
    from pseudo3d.evaluation.classification import activitynet_values

    by_svm = _svm_of(svm, classifier)
    asked = {**data.asked(), "trimmed": trimmed}
    read = _activitynet_reader(data, trimmed)
    return classify(
        Protocol(
            f"activitynet-{classifier}", read, ("",), "val", activitynet_values, by_svm, dead_links=True, asked=asked
        ),
        source,
    )


def _activitynet_reader(data: Data, trimmed: bool) -> "Callable[[str], OfficialSet]":
    from dataclasses import replace

    from pseudo3d.data.official.activitynet import read_activitynet

    def read(split: str) -> "OfficialSet":
        official = read_activitynet(data.data, data.lists, split or "1", trimmed=trimmed)
        if not trimmed:
            return official
        return replace(official, notes=("every annotated segment was classified by itself", *official.notes))

    return read


def sports1m(*, data: _Data, source: _Source, seed: int = 0) -> Finished:
    """Sports-1M: clip hit@1, video hit@1 and hit@5 on the test set, 20 random clips a video (paper section 4, Table 2).

    Example: p3d evaluate sports1m --data Sports1M --weights p3d.caffemodel --class-names labels.txt --out runs/sports1m

    Args:
        data: the data set.
        source: where the probabilities come from.
        seed: for extraction: of the random clips, 0 or more; the same seed draws the same clips of each video.
    """
    from pseudo3d.errors import Pseudo3dError
    from pseudo3d.evaluation.classification import video_hits

    if seed < 0:
        raise Pseudo3dError(f"--seed must be 0 or more, got {seed}")
    if source.features and seed:
        raise Pseudo3dError("--seed: of an extraction (--weights); the features of --features are there already")
    asked = {**data.asked(), **({"seed": seed} if source.weights else {})}
    protocol = Protocol(
        "sports1m", _reader("sports1m", data), ("",), "test", video_hits, None, True, "random", dead_links=True,
        asked=asked, seed=seed,
    )  # fmt: skip
    return classify(protocol, source)


def kinetics(*, data: _Data, source: _Source) -> Finished:
    """Kinetics: top-1 and top-5, as video hit@1 and hit@5, on the validation set; 20 clips a video.

    Example: p3d evaluate kinetics --data Kinetics400 --weights p3d.caffemodel --out runs/kinetics

    Args:
        data: the data set.
        source: where the probabilities come from.
    """
    from pseudo3d.evaluation.classification import video_hits

    read = _reader("kinetics", data)
    protocol = Protocol(
        "kinetics", read, ("",), "val", video_hits, None, True, dead_links=True, asked=data.asked(), parts_apart=True
    )
    return classify(protocol, source)


def aslan(
    *,
    data: _Data,
    source: _Source,
    layers: str = "prob,pool5,res5,res4",
    c: Constant = 1.0,
    view: Literal[1, 2] = 2,
    standardise: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> Finished:
    """ASLAN: do two videos show the same action? Accuracy and AUC over ten folds (paper section 5, Table 5).

    Twelve similarities on each of four layers make a vector of a pair, and a linear SVM says of it same or not.

    Example: p3d evaluate aslan --data ASLAN --weights p3d.caffemodel --out runs/aslan

    Args:
        data: the data set.
        source: where the features come from.
        layers: the paper's prob, pool5, res5c and res4b35; of C3D prob,fc7,fc6,pool5.
        c: the SVM's constant (the paper states none; 1 is ours), or cv: chosen on the training folds.
        view: 2 is the one to report; 1 has one training and one test part, to develop on.
        standardise: bring each similarity to mean 0 and deviation 1 over the training pairs first. The paper does not
            say that it does.
    """
    from pseudo3d.commands.protocol_pairs import evaluate_pairs

    return evaluate_pairs(data, source, layers, c, view, standardise)


def yupenn(*, data: _Data, source: _Source, c: Constant = 1.0, variant: _Variant = "plain") -> Finished:
    """YUPENN dynamic scenes: accuracy, each video left out once (paper section 5, Table 6).

    Example: p3d evaluate yupenn --data YUPENN --weights p3d.caffemodel --out runs/yupenn

    Args:
        data: the data set.
        source: where the features come from.
        c: the SVM's constant (the paper states none; 1 is ours), or cv: chosen anew without each video, which takes
            13 times as long.
        variant: plain: L2-normalised features. authors: as they tell of Dynamic Scene: frames of short edge 160,
            averaged with the mirror image, signed square root, then L2.
    """
    from pseudo3d.commands.protocol_scenes import leave_one_out

    return leave_one_out("yupenn", _reader("yupenn", data), data, source, c, variant)


def dynamic_scene(*, data: _Data, source: _Source, c: Constant = 1.0, variant: _Variant = "authors") -> Finished:
    """Dynamic Scene: accuracy, each video left out once, as the authors did it (paper section 5, Table 6).

    Example: p3d evaluate dynamic-scene --data DynamicScene --weights p3d.caffemodel --out runs/scenes

    Args:
        data: the data set.
        source: where the features come from.
        c: the SVM's constant (the paper states none; 1 is ours), or cv: chosen anew without each video, which takes
            13 times as long.
        variant: authors: frames of short edge 160, averaged with the mirror image, signed square root, then L2.
            plain: L2-normalised features of the network's own frames.
    """
    from pseudo3d.commands.protocol_scenes import leave_one_out

    return leave_one_out("dynamic-scene", _reader("dynamic-scene", data), data, source, c, variant)


def fuse(
    sources: tyro.conf.Positional[tuple[str, ...]],
    /,
    *,
    out: Path,
    weights: tuple[float, ...] = (),
    equal: tyro.conf.FlagCreatePairsOff[bool] = False,
    name: str | None = None,
) -> Finished:
    """Add up the scores of several networks or features on the same videos: late fusion (paper Table 3).

    Weights are found on the training videos' scores where all sources have them (--train-scores), else equal.

    Example: p3d evaluate fuse runs/ucf101_rgb runs/ucf101_flow --out runs/ucf101_two_streams

    Args:
        sources: folders of p3d evaluate, or score files (.parquet, .csv) of one split each.
        out: folder of the results.
        weights: one for each source, instead of finding them.
        equal: the same for all.
        name: what the row is called in the tables.
    """
    from pseudo3d.commands.protocol_fusion import fuse_scores

    return fuse_scores(sources, out, weights, equal, name)


PROTOCOLS: dict[str, Callable[..., Any]] = {
    "hits": hits,
    "ucf101": ucf101,
    "hmdb51": hmdb51,
    "activitynet": activitynet,
    "sports1m": sports1m,
    "kinetics": kinetics,
    "aslan": aslan,
    "yupenn": yupenn,
    "dynamic-scene": dynamic_scene,
    "fuse": fuse,
}
