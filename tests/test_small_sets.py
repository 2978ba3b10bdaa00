"""The benchmark of small sets runs, says what it did, and repeats nothing."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from videos import flat, write_video

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def write_fight_surv(folder):
    """Eight recordings of one clip of each class, with their list."""
    lines = []
    for number in range(8):
        lines.append(f"https://example.org/{number}")
        for kind, prefix, level in (("fight", "fi", 200), ("noFight", "nofi", 20)):
            path = folder / kind / f"{prefix}{number:03d}.mkv"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, [flat((level + 3 * number,) * 3, 40, 48)] * 16)
            lines.append(f"{path.stem}: 0.01.00 - 0.02.00")
    (folder / "videos.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_small_sets(tmp_path, monkeypatch, capsys):
    write_fight_surv(tmp_path / "fight_surv")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    options = [
        "--fight-surv",
        "fight_surv",
        "--runs",
        "runs",
        "--out",
        "out",
        "--seeds",
        "3",
        "--epochs",
        "1",
        "--quick",
    ]
    monkeypatch.setattr(sys, "argv", ["small_sets.py", *options])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(BENCHMARKS / "small_sets.py"), run_name="__main__")
    first = json.loads((tmp_path / "out" / "small_sets.json").read_text(encoding="utf-8"))["runs"]
    assert "11 runs to do, about" in capsys.readouterr().out
    assert {(run["set"], run["name"]) for run in first} == {
        ("fight_surv", "P3D"), ("fight_surv", "frames"), ("fight_surv", "P3D, identity"),
        ("fight_surv", "P3D, gaussian"), ("motions", "P3D-A"), ("motions", "P3D-B"), ("motions", "P3D-C"),
        ("motions", "P3D-ABC"), ("motions", "frames"), ("motions", "P3D, identity"), ("motions", "P3D, gaussian"),
    }  # fmt: skip
    for run in first:
        assert run["seed"] == 3
        assert 0 <= run["hits"]["video hit@1"] <= 1
        assert run["majority"] == (0.5 if run["set"] == "fight_surv" else 1 / 8)
    text = (tmp_path / "out" / "small_sets.md").read_text(encoding="utf-8")
    assert "| P3D, gaussian (p3d_resnet14) |" in text
    assert "not ImageNet's" in text

    (tmp_path / "runs" / "motions" / "P3D-A_seed3" / "result.json").unlink()  # stopped just before its end
    runpy.run_path(str(BENCHMARKS / "small_sets.py"), run_name="__main__")
    assert "1 runs to do, about" in capsys.readouterr().out
    again = json.loads((tmp_path / "out" / "small_sets.json").read_text(encoding="utf-8"))["runs"]
    assert [run["hits"] for run in again] == [run["hits"] for run in first]

    monkeypatch.setattr(sys, "argv", ["small_sets.py", *options, "--only", "blocks", "--epochs", "2"])
    with pytest.raises(SystemExit, match="P3D-A_seed3 is of a run with other settings: give another --runs"):
        runpy.run_path(str(BENCHMARKS / "small_sets.py"), run_name="__main__")
