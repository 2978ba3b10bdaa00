"""A folder with every kind of bad video: the run goes on, and each is told with its reason."""

import contextlib
import re
import struct
import sys

import numpy as np
import pytest
from reference import randomise
from videos import gradient, write_video

from pseudo3d import FeatureStore, create_model, save_pretrained
from pseudo3d.cli import main
from pseudo3d.data.collect import collect_samples
from pseudo3d.features.encoding import Encoder
from pseudo3d.features.extract import extract
from pseudo3d.video import process


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = randomise(create_model("resnet14", num_classes=2)).eval()
    model.preprocessing = model.preprocessing.with_size(32)
    return save_pretrained(model, tmp_path_factory.mktemp("weights") / "net")


@pytest.fixture
def odd(monkeypatch):
    """Decoder processes whose files misbehave as their names say (tests/odd_worker.py)."""
    monkeypatch.setattr(process, "_WORKER", "odd_worker")


def good_video(path):
    return write_video(
        path, [np.roll(gradient(32, 48), 5 * t, axis=1) for t in range(30)], codec="mpeg4", pix_fmt="yuv420p"
    )


def huge_header(path):
    """A small file whose header says 30000x30000."""
    sound = write_video(path, [gradient(32, 48)] * 2, pix_fmt="yuv420p").read_bytes()
    path.write_bytes(sound.replace(struct.pack("<II", 48, 32), struct.pack("<II", 30000, 30000)))


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "videos"
    place.mkdir()
    whole = good_video(place / "good_0.avi").read_bytes()
    for name in ("good_1", "hang_0", "crash_0", "exit_0", "bomb_0", "good_2"):
        (place / f"{name}.avi").write_bytes(whole)
    (place / "truncated.avi").write_bytes(whole[: len(whole) * 9 // 10])
    cut = write_video(place / "no_index.mp4", [gradient(32, 48)] * 9, codec="mpeg4", pix_fmt="yuv420p")
    cut.write_bytes(cut.read_bytes()[: cut.read_bytes().rindex(b"moov") + 20])
    (place / "empty.mp4").write_bytes(b"")
    (place / "text.mp4").write_text("this is not a video\n" * 50)
    huge_header(place / "huge.avi")
    return place


REASONS = {
    "hang_0.avi": r"gave no sign of life for 5 s and was stopped",
    "crash_0.avi": r"the decoder crashed \(signal 11",
    "exit_0.avi": r"the decoder .*3",
    "bomb_0.avi": r"needs more than 0\.3 GiB of memory",
    "no_index.mp4": r"index \(moov atom\) is missing or damaged|holds neither pictures nor sound: the file was cut off",
    "empty.mp4": r"the file is empty \(0 bytes\)",
    "text.mp4": r"is not a video that FFmpeg can read",
    "huge.avi": r"30000x30000|no frame size, or one over the limit",
}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_the_run_goes_on(folder, weights, tmp_path, odd):
    samples = collect_samples([*folder.iterdir()])
    encoder = Encoder(weights=weights, clips=3, device="cpu", dtype="float32", workers=2, timeout=5.0, memory=0.3)
    with contextlib.closing(encoder):
        report = extract(encoder, samples, tmp_path / "s")
        store = FeatureStore(tmp_path / "s")
        assert store.videos == ["good_0.avi", "good_1.avi", "good_2.avi", "truncated.avi"]
        assert np.array_equal(store.features()[0], store.features()[2])
        assert store.failures.keys() == report.failures.keys() == REASONS.keys()
        for name, words in REASONS.items():
            reason = store.failures[name]
            assert reason.startswith(str(folder / name))
            assert "\n" not in reason
            assert re.search(words, reason), reason
        for name in ("hang_0", "crash_0", "bomb_0"):  # repaired: the names no longer misbehave
            (folder / f"{name}.avi").rename(folder / f"fine_{name}.avi")
        again = extract(encoder, collect_samples([*folder.iterdir()]), tmp_path / "s", retry_failed=True)
    assert (again.encoded, again.already_done) == (3, 4)
    assert again.failures.keys() == REASONS.keys() - {"hang_0.avi", "crash_0.avi", "bomb_0.avi"}


def test_the_command_ends_with_1_and_names_them(folder, weights, tmp_path, capsys):
    for name in ("hang_0", "crash_0", "exit_0", "bomb_0"):
        (folder / f"{name}.avi").unlink()
    command = [
        "extract",
        *map(str, folder.iterdir()),
        "--weights",
        str(weights),
        "--out",
        str(tmp_path / "s"),
        "--clips",
        "2",
    ]
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "4 videos, 8 clips" in out
    assert "1 of them are damaged in part" in out
    failed = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 4
    assert err.splitlines()[-1] == "4 of 8 videos failed"
    assert main(command) == 1  # nothing to do, and still not all is well
    _, err = capsys.readouterr()
    assert "0 videos to do, 4 done before, 4 failed before (--retry-failed tries them again)" in err
    assert main([*command, "--retry-failed"]) == 1
    _, err = capsys.readouterr()
    assert "4 videos to do, 4 done before" in err
    assert main([*command, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "nothing was written (--dry-run)" in out
