import pytest

from pseudo3d.training.progress import TrainingProgress


def run(epochs, *, quiet=False, val=None):
    with TrainingProgress(epochs, 2, quiet=quiet) as progress:
        for epoch in range(1, epochs + 1):
            for _ in range(2):
                progress.stepped(epoch, 1 / epoch, 0.1)
            progress.ended(epoch, 1 / epoch, val)
        progress.tested()


def test_a_line_a_tenth(capsys):
    run(25)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        *(f"epoch {epoch}/25" for epoch in range(2, 25, 2)),
        "epoch 25/25",
    ]
    assert lines[0] == "epoch 2/25: loss 0.500"


@pytest.mark.parametrize("epochs", [1, 3])
def test_short_runs_have_a_line_each(epochs, capsys):
    run(epochs, val=0.75)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == epochs
    assert lines[-1] == f"epoch {epochs}/{epochs}: loss {1 / epochs:.3f} val video hit@1 75.0%"


def test_quiet(capsys):
    run(4, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_and_no_lines(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    run(3, val=0.5)
    err = capsys.readouterr().err
    assert "training" in err
    assert "testing" in err
    assert "epoch 3/3  loss 0.333" in err
    assert "epoch 1/3: loss" not in err
