"""Small sets of real encoded videos in exactly the layouts of the official data sets: folders, lists and all.

Every video is 24 frames of 40x48 whose colour and motion tell its class at a glance; no two are the same. Each function
writes into a folder and returns it.
"""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from videos import write_video

CODECS = {".avi": "mpeg4", ".mp4": "libx264", ".mov": "mpeg4", ".mkv": "libx264", ".webm": "libvpx"}
COLOURS = ((210, 60, 50), (50, 190, 70), (60, 80, 220), (220, 200, 60), (180, 60, 200), (60, 200, 210))

UCF_CLASSES = ("ApplyEyeMakeup", "ApplyLipstick", "Archery", "BabyCrawling", "BalanceBeam", "BandMarching")
UCF_TEST_GROUPS = {"1": range(1, 8), "2": range(8, 15), "3": range(15, 22)}  # as the official lists divide the 25
HMDB_CLASSES = ("brush_hair", "cartwheel", "catch", "chew", "clap", "climb")
HMDB_MARKS = {
    "1": (2, 1, 1, 0),
    "2": (1, 2, 1, 0),
    "3": (1, 1, 2, 0),
}  # of each film's clips: 1 train, 2 test, 0 neither


def write_clip(path: Path, label: int, *, frames: int = 24, size: tuple[int, int] = (40, 48), fps: int = 25) -> Path:
    """One video of the class with this index; its content follows from the class and the file's name."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    height, width = size
    colour = np.array(COLOURS[label % len(COLOURS)], np.int64) + rng.integers(-12, 13, 3)
    still = np.clip(colour + rng.integers(-20, 21, (height, width, 1)), 0, 255).astype(np.uint8)
    pictures = []
    for number in range(frames):
        picture = still.copy()
        top = (number * (1 + label % 3)) % (height - 8)
        picture[top : top + 8, :: 2 + label % 2] = 255
        pictures.append(picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = CODECS[path.suffix.lower()]
    options = {"preset": "ultrafast", "crf": "20"} if codec == "libx264" else {}
    return write_video(path, pictures, codec=codec, pix_fmt="yuv420p", fps=fps, options=options)


def write_lines(path: Path, lines: Sequence[str], end: str = "\n") -> Path:
    """A text file with these lines; ``end`` after each ("\\r\\n" as the official UCF101 lists have it)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def write_ucf101(
    folder: Path,
    classes: int = 3,
    *,
    groups: Sequence[int] = (1, 8, 15, 22),
    clips: int = 2,
    flat: bool = False,
    videos: bool = True,
) -> Path:
    """``UCF-101/Class/v_Class_gGG_cCC.avi`` (``flat``: all in ``UCF-101``) and the lists of three splits.

    With the groups as given, every split has one group of each class in its test list and three in its training list.
    """
    names = UCF_CLASSES[:classes]
    lists = folder / "ucfTrainTestlist"
    write_lines(lists / "classInd.txt", [f"{i} {name}" for i, name in enumerate(names, 1)], "\r\n")
    for split, test_groups in UCF_TEST_GROUPS.items():
        train, test = [], []
        for index, name in enumerate(names, 1):
            for group in groups:
                paths = [f"{name}/v_{name}_g{group:02}_c{clip:02}.avi" for clip in range(1, clips + 1)]
                if group in test_groups:
                    test += paths
                else:
                    train += [f"{path} {index}" for path in paths]
        write_lines(lists / f"trainlist0{split}.txt", train, "\r\n")
        write_lines(lists / f"testlist0{split}.txt", test, "\r\n")
    for index, name in enumerate(names if videos else ()):
        for group in groups:
            for clip in range(1, clips + 1):
                place = folder / "UCF-101" / ("" if flat else name)
                write_clip(place / f"v_{name}_g{group:02}_c{clip:02}.avi", index)
    return folder


def write_hmdb51(folder: Path, classes: int = 3, *, films: int = 4, clips: int = 1, videos: bool = True) -> Path:
    """``hmdb51_org/class/FILM_class_f_cm_np1_fr_med_0.avi`` and the lists ``class_test_splitN.txt`` of three splits.

    Film k of each class is in the training list, the test list or neither as ``HMDB_MARKS`` says. The names hold
    characters that the official ones hold too.
    """
    names = HMDB_CLASSES[:classes]
    for index, name in enumerate(names):
        marks: dict[str, list[str]] = {split: [] for split in HMDB_MARKS}
        for film in range(films):
            for clip in range(clips):
                file = f"#20_Film_{film}_&_Son_(HD);_{name}_f_cm_np1_fr_med_{clip}.avi"
                for split, places in HMDB_MARKS.items():
                    marks[split].append(f"{file} {places[film % len(places)]} ")
                if videos:
                    write_clip(folder / "hmdb51_org" / name / file, index)
        for split, lines in marks.items():
            write_lines(folder / "testTrainMulti_7030_splits" / f"{name}_test_split{split}.txt", lines)
    return folder


def youtube_id(*words: object) -> str:
    """Eleven characters that follow from the words, as a YouTube id has them."""
    number = zlib.crc32(repr(words).encode())
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return "".join(letters[(number >> shift) % 64] for shift in (0, 3, 6, 9, 12, 15, 18, 21, 24, 26)) + "w"


def write_sports1m(
    folder: Path, classes: int = 3, *, train: int = 6, test: int = 3, dead: int = 1, videos: bool = True
) -> Path:
    """``ID.mp4``, all in ``videos``, and the three lists; every third video has two labels.

    Args:
        folder: to write to.
        classes: of labels.txt.
        train: videos of each class in the training list.
        test: in the test list.
        dead: of each class and list, without a file.
        videos: write them.
    """
    names = [f"sport {number}" for number in range(classes)]
    write_lines(folder / "labels.txt", names)
    for split, count in (("train", train), ("test", test)):
        lines = []
        for label in range(classes):
            for number in range(count):
                video = youtube_id(split, label, number)
                labels = f"{label},{(label + 1) % classes}" if number % 3 == 2 and classes > 1 else f"{label}"
                lines.append(f"https://www.youtube.com/watch?v={video} {labels}")
                if videos and number >= dead:
                    write_clip(folder / "videos" / f"{video}.mp4", label)
        write_lines(folder / f"{split}_partition.txt", lines)
    return folder


KINETICS_CLASSES = ("abseiling", "air drumming", "answering questions", "applauding", "applying cream", "archery")


def write_kinetics(
    folder: Path,
    classes: int = 3,
    *,
    train: int = 3,
    test: int = 2,
    whole: bool = False,
    flat: bool = False,
    underscores: bool = False,
    labelled_test: bool = True,
    videos: bool = True,
) -> Path:
    """``split/class/ID_000000_000001.mp4`` (``flat``: ``split/ID...``) and ``annotations/{train,val,test}.csv``.

    ``whole`` writes ``ID.mp4`` of two seconds, of which the tables name the second one.
    """
    names = KINETICS_CLASSES[:classes]
    start, end = (1, 2) if whole else (0, 1)
    for split, word, count in (("train", "train", train), ("val", "validate", test), ("test", "test", test)):
        blank = split == "test" and not labelled_test
        lines = ["youtube_id,time_start,time_end,split" if blank else "label,youtube_id,time_start,time_end,split"]
        for label, name in enumerate(names):
            for number in range(count):
                video = youtube_id(split, name, number)
                row = f"{video},{start},{end},{word}"
                lines.append(row if blank else f'"{name}",{row}')
                if not videos:
                    continue
                place = "" if flat else name.replace(" ", "_") if underscores else name
                file = f"{video}.mp4" if whole else f"{video}_{start:06}_{end:06}.mp4"
                write_clip(folder / split / place / file, label, frames=50 if whole else 24)
        write_lines(folder / "annotations" / f"{split}.csv", lines)
    return folder
