"""Damaged files give clips or a VideoError: no other exception, no crash of FFmpeg, no endless reading."""

import os
import random
import subprocess
import sys
from collections import Counter

import fuzzing
import numpy as np
import pytest
from videos import write_video

BATCH = 50  # files read by one process
SECONDS = 150  # for a batch, generous: a hang lasts for ever
MEMORY = 4 << 30  # bytes of address space; damaged headers ask for large frames

# name: (codec, pixel format, options)
CODECS = {
    "h264.mp4": ("libx264", "yuv420p", {"bf": "2", "g": "12"}),
    "h264.ts": ("libx264", "yuv420p", {"bf": "2", "g": "12"}),
    "hevc.mkv": ("libx265", "yuv420p", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "vp8.webm": ("libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {"bf": "2"}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {"bf": "2"}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "ffv1.mkv": ("ffv1", "yuv444p", {}),
    "flv.flv": ("flv", "yuv420p", {}),
}
REAL = (
    "av1_video.mkv", "corrupted.mp4", "h264_10bits.mp4", "unordered.mov", "v_ApplyEyeMakeup_g01_c01.avi",
    "var_fps_video.mp4", "video_0.mov",
)  # fmt: skip


def sources(folder):
    noise = np.random.default_rng(0).integers(0, 256, (48, 104, 3), dtype=np.uint8)
    frames = [noise[:, i : i + 64].copy() for i in range(40)]
    return [
        write_video(folder / name, frames, codec=codec, pix_fmt=pix_fmt, options=options)
        for name, (codec, pix_fmt, options) in CODECS.items()
    ]


def limit_memory():
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def outcomes_of(folder, mutants):
    """What reading each (name, bytes) comes to; a process that crashes or hangs is replaced, and the file named so."""
    left, outcomes = {}, {}
    for number, (name, data) in enumerate(mutants):
        left[str(number)] = folder / f"{number}_{name}"
        left[str(number)].write_bytes(data)
    while left:
        batch = dict(list(left.items())[:BATCH])
        try:
            done = subprocess.run(
                [sys.executable, fuzzing.__file__],
                input="".join(f"{number} {path}\n" for number, path in batch.items()),
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=SECONDS,
                preexec_fn=limit_memory if os.name == "posix" else None,  # no threads here
            )
            lines, end = done.stdout.splitlines(), f"crash: {done.returncode}, {done.stderr[-300:]}"
        except subprocess.TimeoutExpired as error:
            lines, end = (error.stdout or b"").decode().splitlines(), "hang"
        told = dict(line.split(" ", 1) for line in lines)
        for number in batch:
            outcomes[number] = told.get(number, end)
            del left[number]
            if number not in told:
                break
    return [outcomes[str(number)] for number in range(len(mutants))]


def check(folder, files, count, seed):
    chance = random.Random(seed)
    whole = [(path.name, path.read_bytes()) for path in files]
    kinds = [fuzzing.KINDS[i % len(fuzzing.KINDS)] for i in range(count)]
    chosen = [whole[i // len(fuzzing.KINDS) % len(whole)] for i in range(count)]
    mutants = [(name, fuzzing.mutate(data, kind, chance)) for (name, data), kind in zip(chosen, kinds, strict=True)]
    outcomes = outcomes_of(folder, mutants)
    rows = zip(kinds, (name for name, _ in mutants), outcomes, strict=True)
    bad = [(i, *row) for i, row in enumerate(rows) if row[2] not in ("clips", "VideoError")]
    print(Counter(outcomes))
    assert not bad, bad
    assert len(set(outcomes)) == 2  # damage that nothing or everything survives would test little


def test_the_sound_files_give_clips(tmp_path):
    files = sources(tmp_path)
    assert outcomes_of(tmp_path, [(path.name, path.read_bytes()) for path in files]) == ["clips"] * len(files)


def test_damaged_files(tmp_path):
    check(tmp_path, sources(tmp_path), 105, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_many_damaged_files(tmp_path, seed):
    check(tmp_path, sources(tmp_path), 350, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_damaged_real_files(tmp_path, real_data, seed):
    check(tmp_path, [real_data / "odd" / name for name in REAL], 168, seed)
