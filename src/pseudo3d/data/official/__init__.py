"""The data sets of the paper and of its field in their official layouts, each read into the same types.

    folder of videos + official lists --read_NAME--> OfficialSet(samples, absent, notes)

ASLAN has pairs of videos instead of labels: ``aslan.read_aslan``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pseudo3d.data.official.activitynet import read_activitynet
from pseudo3d.data.official.dataset import OfficialSet
from pseudo3d.data.official.hmdb51 import HMDB51_SPLITS, read_hmdb51
from pseudo3d.data.official.kinetics import read_kinetics
from pseudo3d.data.official.scenes import read_dynamic_scene, read_yupenn
from pseudo3d.data.official.sports1m import read_sports1m
from pseudo3d.data.official.ucf101 import UCF101_SPLITS, read_ucf101
from pseudo3d.errors import Pseudo3dError, printable

DATASETS: dict[str, Callable[..., OfficialSet]] = {
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "sports1m": read_sports1m,
    "kinetics": read_kinetics,
    "activitynet": read_activitynet,
    "yupenn": read_yupenn,
    "dynamic-scene": read_dynamic_scene,
}

SPLITS: dict[str, tuple[str, ...]] = dict.fromkeys(DATASETS, ("1",)) | {
    "ucf101": UCF101_SPLITS,
    "hmdb51": HMDB51_SPLITS,
}


class Layout(NamedTuple):
    """What is expected of a set on the disk, for people.

    Args:
        title: of the set.
        lists: the annotation files.
        videos: how the video files are named.
        sides: what its splits are.
    """

    title: str
    lists: str
    videos: str
    sides: str


LAYOUTS = {
    "ucf101": Layout(
        "UCF101",
        "classInd.txt, trainlist01.txt, testlist01.txt, ... (ucfTrainTestlist)",
        "v_Class_gGG_cCC.avi, in class folders or all in one",
        "splits 1, 2, 3: train, test",
    ),
    "hmdb51": Layout(
        "HMDB51",
        "CLASS_test_split1.txt, ... (testTrainMulti_7030_splits)",
        "FILM_CLASS_..._0.avi, in class folders or all in one",
        "splits 1, 2, 3: train, test",
    ),
    "sports1m": Layout(
        "Sports-1M",
        "labels.txt, train_partition.txt, test_partition.txt",
        "YOUTUBEID.mp4 or another extension, in any folder; dead links are counted",
        "train, val (an eighth of the training list), test",
    ),
    "kinetics": Layout(
        "Kinetics-400, -600, -700",
        "train.csv, val.csv or validate.csv, test.csv",
        "ID_000012_000022.mp4 (cut) or ID.mp4 (whole), in class folders or all in one",
        "train, val, test",
    ),
    "activitynet": Layout(
        "ActivityNet v1.3",
        "activity_net.v1-3.min.json",
        "v_ID.mp4 or another extension, in any folder",
        "train, val, test",
    ),
    "aslan": Layout(
        "ASLAN",
        "View2.mat; train_pairs.mat and test_pairs.mat (View-1)",
        "0001.avi ... 3697.avi, or another extension",
        "View-1, and View-2 in ten folds",
    ),
    "yupenn": Layout("YUPENN", "none: a folder is a class", "14 class folders of 30 videos", "leave one video out"),
    "dynamic-scene": Layout(
        "Maryland Dynamic Scene", "none: a folder is a class", "13 class folders of 10 videos", "leave one video out"
    ),
}


def read_official(name: str, folder: str | Path, *, lists: str | Path | None = None, split: str = "1") -> OfficialSet:
    """An official data set from its files.

    Args:
        name: one of ``DATASETS``.
        folder: holds the videos, however deep, and the annotation files if ``lists`` is None.
        lists: holds the annotation files.
        split: one of ``SPLITS[name]``.

    Raises:
        Pseudo3dError: no such set or split (it lists what there is), or what the set's reader raises.

    Example:
        >>> read_official("ucf11", ".")
        Traceback (most recent call last):
        ...
        pseudo3d.errors.Pseudo3dError: no data set 'ucf11'; there are ucf101, hmdb51, sports1m, kinetics, ...
    """
    if name not in DATASETS:
        raise Pseudo3dError(f"no data set {printable(name)!r}; there are {', '.join(DATASETS)}")
    return DATASETS[name](folder, lists, split)
