"""The examples run as a person would run them."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from pseudo3d.data.annotations import read_samples

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


@pytest.mark.slow
def test_sklearn_pipeline(quickstart):
    folder, _ = quickstart
    done = run("sklearn_pipeline.py", folder / "run" / "checkpoints" / "best", folder / "videos")
    assert done.returncode == 0, done.stderr
    assert "on 8 videos that it was not fitted on" in done.stdout


def test_wrong_usage_of_an_example():
    done = run("sklearn_pipeline.py")
    assert done.returncode == 1
    assert done.stderr.startswith("usage: python examples/sklearn_pipeline.py WEIGHTS VIDEOS")


@pytest.fixture(scope="module")
def surv_groups():
    return runpy.run_path(str(EXAMPLES / "fight_surv_groups.py"))


def test_sources_that_share_a_clip_are_one_group(surv_groups):
    text = (
        "http://a\nfi1: 0 - 1\nhttp://b \nfi2: 0 - 1\nfi1: 0 - 1\nhttp://c\nfi3: 0 - 1\n\nnofi004 - nofi006 : X set\n"
    )
    text += "nofi006 - nofi007 : Y\n"
    groups = surv_groups["merge_sources"](surv_groups["read_sources"](text))
    expected = {"fi1": "http://a", "fi2": "http://a", "fi3": "http://c"}
    assert groups == expected | {f"nofi00{i}": "X_set" for i in range(4, 8)}


def test_a_source_that_joins_two_others_makes_all_three_one_group(surv_groups):
    groups = surv_groups["merge_sources"]({"a": {"1", "2"}, "b": {"3"}, "c": {"2", "3", "4"}, "d": {"5"}})
    assert groups == {"1": "a", "2": "a", "3": "a", "4": "a", "5": "d"}


def test_a_line_nobody_understands_is_an_error(surv_groups):
    with pytest.raises(ValueError, match=r"line 2: neither an address nor a clip: 'hello'"):
        surv_groups["read_sources"]("http://a\nhello\n")


def test_every_surveillance_clip_has_a_group(real_data, tmp_path):
    folder = real_data / "fight_surv"
    done = run("fight_surv_groups.py", folder)
    assert done.returncode == 0, done.stderr
    (tmp_path / "groups.txt").write_text(done.stdout)
    videos = read_samples(folder, groups=tmp_path / "groups.txt")
    group = {Path(s.path).stem: s.group for s in videos.samples}
    assert len(group) == 300
    assert group["fi044"] == group["nofi022"] == group["fi099"]  # nofi022 stands under both their addresses
    assert len({group[f"nofi{i:03d}"] for i in range(62, 92)}) == 1
    assert len(set(group.values())) == 44


def test_groups_of_a_small_folder(tmp_path):
    (tmp_path / "videos.txt").write_text("http://a\nfi1: 0 - 1\n\nnofi001 - nofi002 : X set\n")
    for name in ("fight/fi1.mp4", "noFight/nofi001.mp4", "noFight/nofi002.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    done = run("fight_surv_groups.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fight/fi1.mp4 http://a\nnoFight/nofi001.mp4 X_set\nnoFight/nofi002.mp4 X_set\n"
    (tmp_path / "fight" / "fi2.mp4").touch()
    assert (
        run("fight_surv_groups.py", tmp_path).stderr
        == "videos.txt says nothing about 1 clips, the first of them fi2.mp4\n"
    )


def test_fight_surv_groups_explains_itself():
    done = run("fight_surv_groups.py")
    assert done.returncode != 0
    assert "usage: python examples/fight_surv_groups.py FOLDER" in done.stderr


RUN_BY = {
    "fight_surv_groups.py": test_groups_of_a_small_folder,
    "quickstart.py": test_quickstart,
    "sklearn_pipeline.py": test_sklearn_pipeline,
}


def test_every_example_is_run_here():
    assert {example.name for example in EXAMPLES.glob("*.py")} == set(RUN_BY), "give a new example its test"
