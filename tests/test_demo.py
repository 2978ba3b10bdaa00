"""The demo: as a person runs it (slow), and in small."""

import json

import pytest

from pseudo3d.cli import main

FILES = {
    "demo.json", "metrics.json", "videos", "features", "p3d_resnet14", "resnet14", "tsne.png", "tsne.svg",
    "confusion_p3d_resnet14.png", "confusion_p3d_resnet14.svg", "confusion_resnet14.png", "confusion_resnet14.svg",
}  # fmt: skip


def test_a_small_demo(tmp_path, capsys):
    small = ["demo", "--out", str(tmp_path / "run"), "--train-per-class", "3", "--test-per-class", "1", "--epochs", "1"]
    assert main([*small, "--clips", "2", "--dtype", "float32"]) == 0
    said = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    assert "32 videos of moving handwritten digits, 8 classes" in said
    assert "has not learned the motions" in said  # and no claim is made
    assert "the paper's point" not in said
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["p3d_resnet14"]["parameters"] > metrics["resnet14"]["parameters"]
    assert 0 <= metrics["p3d_resnet14"]["video hit@1"] <= 1
    # started over, with other videos
    assert main([*small, "--clips", "1", "--seed", "1"]) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES


def test_a_folder_with_other_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "holds other files; give a new folder for --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_p3d_learns_the_motions_and_single_frames_do_not(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert "the paper's point" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["p3d_resnet14"]["video hit@1"] >= 0.9
    # 160 test videos: chance is 20 of them, and more than 37 come by chance once in 15,000 times
    assert metrics["resnet14"]["video hit@1"] <= 37 / 160
