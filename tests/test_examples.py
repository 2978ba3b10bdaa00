"""The examples run as a person would run them."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *args):
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, args)], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    return folder, run("quickstart.py", folder)


def test_quickstart(quickstart):
    _, done = quickstart
    assert done.returncode == 0, done.stderr
    assert "40 videos of the classes down, grow, left" in done.stdout
    assert "(2048,) float32" in done.stdout
    assert "p3d_resnet14 (48, 48)" in done.stdout


def test_sklearn_pipeline(quickstart):
    folder, _ = quickstart
    done = run("sklearn_pipeline.py", folder / "run" / "checkpoints" / "best", folder / "videos")
    assert done.returncode == 0, done.stderr
    assert "on 8 videos that it was not fitted on" in done.stdout


def test_every_example_is_run_here():
    here = Path(__file__).read_text(encoding="utf-8") + (
        Path(__file__).parent / "data" / "test_annotations.py"
    ).read_text(encoding="utf-8")
    for example in EXAMPLES.glob("*.py"):
        assert example.name in here, f"{example.name} is not executed by a test"


def test_wrong_usage_of_an_example():
    done = run("sklearn_pipeline.py")
    assert done.returncode == 1
    assert done.stderr.startswith("usage: python examples/sklearn_pipeline.py WEIGHTS VIDEOS")
