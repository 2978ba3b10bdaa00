"""What a person sees of an extraction that goes on: a bar, or lines where there is no terminal."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from pseudo3d.commands import progress as module
from pseudo3d.commands.progress import ExtractionProgress, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.97, "1 min 0 s"), (3599.7, "1 h 0 min"), (90061, "25 h 1 min")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_lines_without_a_terminal(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with ExtractionProgress(100) as progress:
        for second in range(100):
            now[0] += 1
            progress.advance(clips=0 if second == 2 else 20, failed=second == 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "p3d: 5 of 100 videos, 1.0 videos/s, 16 clips/s, 1 failed, 1 min 35 s left",
        "p3d: 35 of 100 videos, 1.0 videos/s, 19 clips/s, 1 failed, 1 min 5 s left",
        "p3d: 65 of 100 videos, 1.0 videos/s, 20 clips/s, 1 failed, 35.0 s left",
        "p3d: 95 of 100 videos, 1.0 videos/s, 20 clips/s, 1 failed, 5.0 s left",
    ]


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    columns = module.progress_bar().columns
    monkeypatch.setattr(module, "progress_bar", lambda: Progress(*columns, console=console))
    with ExtractionProgress(2) as progress:
        progress.advance(clips=20, failed=False)
        progress.advance(clips=0, failed=True)
    shown = screen.getvalue()
    assert "extracting" in shown
    assert "2/2" in shown
    assert "videos/s" in shown
    assert "clips/s" in shown
    assert "1 failed" in shown
    assert capsys.readouterr().err == ""
