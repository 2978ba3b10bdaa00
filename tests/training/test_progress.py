import logging
import re
import sys
import warnings
from functools import partial

import pytest
from tiny import small_config

from pseudo3d.training import progress as module
from pseudo3d.training.distributed import SINGLE
from pseudo3d.training.loop import make_trainer
from pseudo3d.training.progress import TrainingProgress, looking_at


def run(epochs, *, quiet=False, val=None, steps=2, start=0, during=None):
    with TrainingProgress(epochs, epochs * steps, start=start, quiet=quiet) as progress:
        for epoch in range(1 + start // steps, epochs + 1):
            for _ in range(steps):
                progress.stepped(epoch, 1 / epoch, 0.1, clips_per_s=52.34, waiting=0.034, memory=4_100_000_000)
            progress.scoring("validation", 3)
            for _ in range(3):
                progress.scored()
            progress.ended(epoch, 1 / epoch, val)
            if during is not None:
                during(progress)
        progress.scoring("test", 7)
        progress.scored()


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


def test_long_epochs_have_lines_in_between(capsys):
    run(2, val=0.75, steps=100)
    lines = capsys.readouterr().err.splitlines()
    assert [re.split(": | ", line)[1] for line in lines] == [
        *(f"{step}/200" for step in (20, 40, 60, 80)),
        "1/2",  # the end of an epoch has a line already
        *(f"{step}/200" for step in (120, 140, 160, 180)),
        "2/2",
    ]
    numbers = "lr 0.1  52.3 clips/s  3% of the time waiting for data  4.1 GB"
    assert lines[0] == f"step 20/200: epoch 1/2  loss 1.000  {numbers}"
    assert lines[5] == f"step 120/200: epoch 2/2  loss 0.500  {numbers}  val video hit@1 75.0%"


def test_a_resumed_run_counts_on(capsys):
    run(2, steps=100, start=100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("step 120/200: epoch 2/2")
    assert len(lines) == 5


def test_an_epoch_without_validation_says_nothing_of_it(capsys):
    with TrainingProgress(2, 2) as progress:
        progress.ended(1, 0.5, 0.75)
        progress.ended(2, 0.5, None)
        assert progress.text() == "val video hit@1 75.0%"  # the bar's numbers are the last that there are
    assert capsys.readouterr().err.splitlines()[1] == "epoch 2/2: loss 0.500"


def test_quiet(capsys, terminal):
    run(4, quiet=True, during=lambda progress: progress.note("a note"))
    assert capsys.readouterr() == ("", "")


def test_quiet_hides_nothing_else(capsys, terminal):
    run(1, quiet=True, during=lambda _: print("mine", file=sys.stderr))
    assert capsys.readouterr().err == "mine\n"


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")


def plain(text):
    """Without colours, but with what moves the cursor and deletes lines (K)."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_terminal_gets_a_bar_and_no_lines(capsys, terminal):
    run(3, val=0.5, steps=40)
    err = plain(capsys.readouterr().err)
    last = err.split("\x1b[2K")[-1].splitlines()
    assert re.match(r"training +━+ 120/120 ", last[0])
    assert re.match(r"test +[━╸╺]+ 1/7", last[1])
    assert last[2].rstrip() == (
        "epoch 3/3  loss 0.333  lr 0.1  52.3 clips/s  3% of the time waiting for data  4.1 GB  val video hit@1 50.0%"
    )
    assert "epoch 1/3: loss" not in err
    assert "step " not in err


def test_lines_stand_above_the_bar(capsys, terminal):
    logger = logging.getLogger("pseudo3d")
    handler = logging.StreamHandler()  # as in cli.py: on the stream that is sys.stderr now
    stream = handler.stream
    logger.addHandler(handler)

    def during(progress):
        logger.getChild("data").warning("logged [red]this[/red]")
        progress.note("noted [bold] :dog: that")
        warnings.warn("warned of it", stacklevel=1)
        print("printed", file=sys.stderr)

    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("always")
        patch.setattr(warnings, "showwarning", lambda message, *_: print(message, file=sys.stderr))
        try:
            run(1, during=during)
            assert handler.stream is stream
        finally:
            logger.removeHandler(handler)
    err = plain(capsys.readouterr().err)
    for text in ("logged [red]this[/red]", "noted [bold] :dog: that", "warned of it", "printed"):
        # first the bar's lines are deleted, then the text has a line of its own, then the bar is drawn anew
        assert re.search(r"\x1b\[2K" + re.escape(text) + r"\n+(\x1b\[2K)?training ", err), text
    assert sys.stderr is stream


def test_an_error_ends_the_bar_and_gives_the_log_back(capsys, terminal):
    handler = logging.StreamHandler()
    stream = handler.stream
    logging.getLogger("pseudo3d").addHandler(handler)
    try:
        with pytest.raises(OSError, match="full"):
            run(1, during=lambda _: (_ for _ in ()).throw(OSError("full")))
        assert handler.stream is stream is sys.stderr
    finally:
        logging.getLogger("pseudo3d").removeHandler(handler)
    assert plain(capsys.readouterr().err).endswith("\n\x1b[?25h")  # the cursor is shown again


def test_a_long_look_has_a_line_now_and_then(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with looking_at(100) as looked:
        for _ in range(100):
            looked()
            now[0] += 1.0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [f"looked at {count} of 100 videos" for count in (6, 36, 66, 96)]


def test_a_short_look_and_a_quiet_one_say_nothing(capsys, monkeypatch):
    for seconds, quiet in ((0.01, False), (10.0, True)):
        now = [100.0]
        with monkeypatch.context() as patch, looking_at(50, quiet=quiet) as looked:
            patch.setattr(module.time, "monotonic", lambda now=now: now[0])
            for _ in range(50):
                looked()
                now[0] += seconds
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("one_thread", "terminal")
@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_shows_how_far_the_first_look_is(samples, tmp_path, capsys, monkeypatch, quiet):
    monkeypatch.setenv("PSEUDO3D_CACHE", str(tmp_path / "cache"))
    make_trainer(samples, small_config(), tmp_path / "run", SINGLE).look(partial(looking_at, quiet=quiet))
    err = plain(capsys.readouterr().err)
    assert bool(re.search(r"looking at the videos [━╸╺]+ +12/12 ", err)) != quiet
    assert quiet == (err == "")
