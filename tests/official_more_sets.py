"""Small ActivityNet, ASLAN, YUPENN and Dynamic Scene sets of real encoded videos, in their official layouts.

Every class has a grey level of its own, so that any features tell the classes apart; no two videos are equal.
"""

import json
from pathlib import Path

import numpy as np
from scipy.io import savemat
from videos import X264, write_video

ACTIVITIES = ("Archery", "Ballet", "Long jump")
YUPENN = ("Beach", "Elevator", "Forest_fire", "Fountain", "Highway", "Lightning_storm", "Ocean", "Railway",
          "Rushing_river", "Sky_clouds", "Snowing", "Street", "Waterfall", "Windmill_farm")  # fmt: skip
DYNAMIC_SCENE = ("Avalanche", "Boiling_Water", "Chaotic_Traffic", "Forest_Fire", "Fountain", "Iceberg_Collapse",
                 "Landslide", "Smooth_Traffic", "Tornado", "Volcanic_Eruption", "Waterfall", "Waves",
                 "Whirlpool")  # fmt: skip


def moving_bar(kind: int, number: int, frames: int = 20) -> list[np.ndarray]:
    """A grey picture, 40x48, of the kind's level, across which a bar moves from a place that the number says."""
    pictures = []
    for time in range(frames):
        picture = np.full((40, 48, 3), 30 + 45 * kind % 200, np.uint8)
        place = (5 * number + time) % 44
        picture[:, place : place + 4] = 240 - number
        pictures.append(picture)
    return pictures


def write_mp4(path: Path, kind: int, number: int, *, frames: int = 20, fps: int = 10) -> Path:
    """An H.264 file with B-frames; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(
        path, moving_bar(kind, number, frames), codec="libx264", pix_fmt="yuv420p", options=X264, fps=fps
    )


def write_avi(path: Path, kind: int, number: int, *, frames: int = 20) -> Path:
    """An MPEG-4 AVI, as the older sets have them; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_video(path, moving_bar(kind, number, frames), codec="mpeg4", pix_fmt="yuv420p")


def activity_id(number: int) -> str:
    """An id of eleven characters that may begin with a dash, as YouTube's do."""
    return f"-a{number:09d}"


def write_activitynet(
    folder: Path, *, train: int = 3, val: int = 2, test: int = 1, version: str = "1.3", classes: int = 3
) -> Path:
    """``folder/activity_net.v1-3.min.json`` and ``folder/v1-3/.../v_ID.mp4``, 2 s each; ``classes`` of three.

    Args:
        folder: is made.
        train: videos of each class for training, with one segment each; the first of a class has two.
        val: videos of each class for validation.
        test: videos without annotations.
        version: "1.2" or "1.3".
        classes: how many.

    Returns:
        The annotation file.
    """
    name = "v" + version.replace(".", "-")
    database = {}
    sides = [("training", kind) for _ in range(train) for kind in range(classes)]
    sides += [("validation", kind) for _ in range(val) for kind in range(classes)]
    sides += [("testing", 0)] * test
    for number, (subset, kind) in enumerate(sides):
        place = "test" if subset == "testing" else "train_val"
        write_mp4(folder / name / place / f"v_{activity_id(number)}.mp4", kind, number)
        segments = [[0.25, 1.15], [1.2, 1.95]] if number < classes else [[0.25, 1.55]]
        database[activity_id(number)] = {
            "duration": 2.0,
            "subset": subset,
            "resolution": "48x40",
            "url": f"https://www.youtube.com/watch?v={activity_id(number)}",
            "annotations": []
            if subset == "testing"
            else [{"segment": segment, "label": ACTIVITIES[kind]} for segment in segments],
        }
    taxonomy = [{"nodeId": 0, "nodeName": "Root", "parentId": None, "parentName": None}] + [
        {"nodeId": i, "nodeName": ACTIVITIES[i - 1], "parentId": 0, "parentName": "Root"} for i in range(1, classes + 1)
    ]
    path = folder / f"activity_net.{name}.min.json"
    path.write_text(json.dumps({"version": f"VERSION {version}", "taxonomy": taxonomy, "database": database}))
    return path


def aslan_pairs(
    pairs: int, folds: int = 1, *, videos: int = 24, classes: int = 4, seed: int = 0, first: int = 1
) -> np.ndarray:
    """(pairs, 5, folds) of rows id1, id2, same, class1, class2; half of each fold same, no pair twice.

    Video i is of class (i - 1) % classes + 1; ids begin with ``first``.
    """
    ids = np.arange(first, first + videos)
    kinds = (ids - 1) % classes + 1
    one, other = np.triu_indices(videos, 1)
    same = kinds[one] == kinds[other]
    rng = np.random.default_rng(seed)
    half = pairs // 2 * folds
    chosen = np.stack([rng.permutation(np.flatnonzero(same == kind))[:half] for kind in (True, False)], axis=1).ravel()
    turned = rng.integers(0, 2, len(chosen)) == 1
    a, b = np.where(turned, other[chosen], one[chosen]), np.where(turned, one[chosen], other[chosen])
    rows = np.stack([ids[a], ids[b], same[chosen], kinds[a], kinds[b]], axis=1).astype(np.float64)
    return np.moveaxis(rows.reshape(folds, pairs, 5), 0, 2)


def write_aslan(
    folder: Path, *, videos: int = 24, classes: int = 4, pairs: int = 12, folds: int = 10, seed: int = 0
) -> Path:
    """``ASLAN_AVI/0001.avi`` ..., ``View2.mat``, and View-1's ``train_pairs.mat`` and ``test_pairs.mat``.

    Returns:
        The View-2 file: ``action_splits_pairs``, (pairs, 5, folds). Ids begin with 1.
    """
    for number in range(1, videos + 1):
        write_avi(folder / "ASLAN_AVI" / f"{number:04d}.avi", (number - 1) % classes, number)
    options = {"videos": videos, "classes": classes}
    savemat(folder / "View2.mat", {"action_splits_pairs": aslan_pairs(pairs, folds, seed=seed, **options)})
    train, train_too, test = np.moveaxis(aslan_pairs(pairs, 3, seed=seed + 100, **options), 2, 0)
    savemat(folder / "train_pairs.mat", {"train_pairs": np.concatenate([train, train_too])})
    savemat(folder / "test_pairs.mat", {"test_pairs": test})
    return folder / "View2.mat"


def write_yupenn(folder: Path, *, classes: int = 3, videos: int = 4) -> Path:
    """``Beach/Beach_0001.mp4`` ...: a folder for each of the first classes of the fourteen."""
    return _write_scenes(folder, YUPENN[:classes], videos)


def write_dynamic_scene(folder: Path, *, classes: int = 3, videos: int = 4) -> Path:
    """``Avalanche/Avalanche_0001.mp4`` ...: a folder for each of the first classes of the thirteen."""
    return _write_scenes(folder, DYNAMIC_SCENE[:classes], videos)


def _write_scenes(folder: Path, classes: tuple[str, ...], videos: int) -> Path:
    for kind, name in enumerate(classes):
        for number in range(1, videos + 1):
            write_mp4(folder / name / f"{name}_{number:04d}.mp4", kind, kind * videos + number)
    return folder
