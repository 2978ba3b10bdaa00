"""What a checkpoint holds, that it is whole at every moment, and what is refused."""

import errno
import json
import shutil
import subprocess
import sys

import pytest
import torch
from reference import randomise
from tiny import names

import pseudo3d
from pseudo3d import Pseudo3dError, create_model, from_pretrained
from pseudo3d.training.checkpoint import Checkpoints, RunState
from pseudo3d.training.config import Optim
from pseudo3d.training.optim import make_optimizer
from pseudo3d.weights.card import CardInfo

WHOLE = ["README.md", "config.json", "model.safetensors", "optimizer.safetensors", "state.json"]
OURS = '{"seed": 0}'

pytestmark = pytest.mark.usefixtures("one_thread")


def network(seed, *, steps=1, optim="sgd"):
    """A network, and its optimizer after some steps with made-up gradients."""
    model = randomise(create_model("resnet14", num_classes=2), seed).train()
    model.class_names = ("left", "right")
    optimizer = make_optimizer(model, Optim(optim))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
    return model, optimizer


def save(checkpoints, step, seed=None, **more):
    model, optimizer = network(step if seed is None else seed)
    checkpoints.save(model, optimizer, RunState(step=step, **more), OURS, CardInfo())
    return model, optimizer


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path, 2)


def same(a, b):
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


def same_optimizer(a, b):
    ours, theirs = (
        [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]] for optimizer in (a, b)
    )
    pairs = list(zip(ours, theirs, strict=True))
    assert all(x.keys() == y.keys() for x, y in pairs)
    return all(torch.equal(x[key], y[key]) for x, y in pairs for key in x)


@pytest.mark.parametrize("optim", ["adamw", "sgd"])
def test_what_is_saved_is_loaded(checkpoints, optim):
    model, optimizer = network(0, steps=2, optim=optim)
    state = RunState(
        7, 0.5, 2, {"video hit@1": 0.5}, "ab", 1.25, 3, 8, 2.5, 0.5, 9.0, {3: "bad.mp4: torn"}, [{"epoch": 1}]
    )
    checkpoints.save(model, optimizer, state, OURS, CardInfo())
    assert names(checkpoints.folder) == ["last"]
    assert names(checkpoints.last) == WHOLE
    assert same(from_pretrained(checkpoints.last), model)
    other, moved = network(1, steps=1, optim=optim)
    assert checkpoints.load(checkpoints.last, other, moved, OURS) == state
    assert same(other, model)
    assert same_optimizer(moved, optimizer)
    for a, b in zip(other.parameters(), model.parameters(), strict=True):
        a.grad = b.grad = torch.ones_like(a)
    optimizer.step()
    moved.step()
    assert same(other, model)


@pytest.mark.parametrize("steps", [0, 1])
def test_an_optimizer_without_numbers(checkpoints, steps):
    """Before its first step, and SGD without momentum at any time."""
    model, optimizer = network(0, steps=steps)
    optimizer.state.clear()
    checkpoints.save(model, optimizer, RunState(step=steps), OURS, CardInfo())
    other, moved = network(1, steps=0)
    assert checkpoints.load(checkpoints.last, other, moved, OURS).step == steps
    assert not moved.state


def test_the_last_ones_are_kept(checkpoints):
    models = {step: save(checkpoints, step)[0] for step in (2, 4, 6, 8)}
    assert names(checkpoints.folder) == ["last", "step_00000006"]
    assert checkpoints.resumable() == [(8, checkpoints.last), (6, checkpoints.folder / "step_00000006")]
    assert same(from_pretrained(checkpoints.folder / "step_00000006"), models[6])


def test_what_a_killed_process_has_left_half_written_is_removed(checkpoints):
    model, _ = save(checkpoints, 2)
    checkpoints.save_best(model, CardInfo())
    whole = names(checkpoints.best)
    (checkpoints.best / ".model.safetensors.123.part").write_bytes(b"half")
    (checkpoints.folder / ".last.123.part").mkdir()
    save(checkpoints, 4)
    assert names(checkpoints.best) == whole
    assert names(checkpoints.folder) == ["best", "last", "step_00000002"]


def test_steps_that_are_done_again_replace_what_they_were(checkpoints):
    for step in (2, 4):
        save(checkpoints, step)
    again = save(checkpoints, 3, seed=9)[0]  # went on from step_00000002
    assert checkpoints.resumable() == [(3, checkpoints.last), (2, checkpoints.folder / "step_00000002")]
    assert same(from_pretrained(checkpoints.last), again)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "state.json").write_text('{"half'), r"state\.json: is torn or not of pseudo3d"),
        (lambda f: (f / "state.json").write_text("[]"), r"state\.json: is torn or not of pseudo3d"),
        (lambda f: (f / "state.json").unlink(), r"last: is no checkpoint that a run can go on from"),
        (lambda f: (f / "config.json").unlink(), r"last: has no config\.json"),
        (lambda f: (f / "optimizer.safetensors").unlink(), r"last: optimizer\.safetensors is missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"half"), r"model\.safetensors: is not what was written"),
        (
            lambda f: shutil.copy(f.parent / "step_00000002" / "optimizer.safetensors", f),
            r"optimizer\.safetensors: is not what was written \(torn or exchanged\)",
        ),
    ],
)
def test_a_damaged_one_is_refused_and_the_one_before_is_named(checkpoints, damage, message):
    save(checkpoints, 2)
    save(checkpoints, 4)
    damage(checkpoints.last)
    model, optimizer = network(5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(Pseudo3dError, match=message) as caught:
        checkpoints.load(checkpoints.last, model, optimizer, OURS)
    older = checkpoints.folder / "step_00000002"
    assert str(caught.value).endswith(f"; go on from the one before with --resume {older}")
    assert [folder for _, folder in checkpoints.resumable()] == [checkpoints.last, older]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert checkpoints.load(older, model, optimizer, OURS).step == 2
    save(checkpoints, 3)  # and the run goes on from there
    assert checkpoints.resumable()[0] == (3, checkpoints.last)


def test_a_damaged_one_with_none_before(checkpoints):
    save(checkpoints, 2)
    (checkpoints.last / "model.safetensors").write_bytes(b"half")
    with pytest.raises(Pseudo3dError, match="there is none before it: choose another folder for --out"):
        checkpoints.load(checkpoints.last, *network(0), OURS)


def test_one_of_another_run(checkpoints):
    save(checkpoints, 2)
    save(checkpoints, 4)
    advice = (
        "; give the options and the videos of that run again to go on with it, or another --out to begin a new one$"
    )
    with pytest.raises(Pseudo3dError, match=f"belongs to another run: seed was 0, is 1{advice}"):
        checkpoints.load(checkpoints.last, *network(0), '{"seed": 1}')
    model = create_model("resnet14", num_classes=3)
    with pytest.raises(Pseudo3dError, match=r"num_classes=2.*the run is of .*num_classes=3"):
        checkpoints.load(checkpoints.last, model, make_optimizer(model, Optim("sgd")), OURS)


def test_one_of_a_newer_version(checkpoints):
    save(checkpoints, 2)
    path = checkpoints.last / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
    with pytest.raises(Pseudo3dError, match=r"state\.json: format_version 2, this pseudo3d reads 1"):
        checkpoints.load(checkpoints.last, *network(0), OURS)


def test_an_optimizer_of_other_parameters(checkpoints):
    model, optimizer = network(0)
    for parameter in list(optimizer.state)[:2]:
        del optimizer.state[parameter]
    checkpoints.save(model, optimizer, RunState(step=1), OURS, CardInfo())
    with pytest.raises(Pseudo3dError, match="is of other parameters than this run trains"):
        checkpoints.load(checkpoints.last, *network(1), OURS)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", range(4))
def test_whatever_stops_the_writing_leaves_the_one_before(checkpoints, monkeypatch, error, at):
    """Stopped before each of the four files that come after the weights, or with a half of one."""
    model = save(checkpoints, 2)[0]
    real, count = pseudo3d.files.replacing, iter(range(100))

    def replacing(path, **options):
        if next(count) == at:
            path.write_bytes(b"half")
            raise error
        return real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pseudo3d.files, "replacing", replacing)
        with pytest.raises(type(error)):
            save(checkpoints, 4)
    assert names(checkpoints.folder) == ["last"]
    assert names(checkpoints.last) == WHOLE
    other, optimizer = network(5)
    assert checkpoints.load(checkpoints.last, other, optimizer, OURS).step == 2
    assert same(other, model)


def test_what_is_known_later_of_a_step_replaces_its_state_alone(checkpoints):
    save(checkpoints, 2)
    model, optimizer = save(checkpoints, 4)
    before = {name: (checkpoints.last / name).stat() for name in WHOLE}
    checkpoints.save(model, optimizer, RunState(step=4, best=0.5), OURS, CardInfo(trained="known later"))
    changed = [name for name in WHOLE if (checkpoints.last / name).stat().st_ino != before[name].st_ino]
    assert changed == ["README.md", "state.json"]
    assert "known later" in (checkpoints.last / "README.md").read_text()
    assert names(checkpoints.folder) == ["last", "step_00000002"]
    assert Checkpoints(checkpoints.folder, 2).load(checkpoints.last, *network(0), OURS).best == 0.5


def test_one_that_is_still_to_be_judged_drops_none_of_those_before(checkpoints):
    save(checkpoints, 2)
    save(checkpoints, 4)
    model, optimizer = network(6)
    checkpoints.save(model, optimizer, RunState(step=6), OURS, CardInfo(), spare=1)
    assert names(checkpoints.folder) == ["last", "step_00000002", "step_00000004"]
    checkpoints.save(model, optimizer, RunState(step=6), OURS, CardInfo())
    assert names(checkpoints.folder) == ["last", "step_00000004"]


def test_best_is_a_pretrained_folder(checkpoints):
    model, _ = network(0)
    digest = checkpoints.save_best(model, CardInfo())
    assert names(checkpoints.best) == WHOLE[:3]
    assert same(from_pretrained(checkpoints.best), model)
    assert digest == pseudo3d.files.sha256_of(checkpoints.best / "model.safetensors")
    assert checkpoints.resumable() == []


CHILD = """
import os, sys
sys.path.insert(0, {tests!r})
from test_checkpoint import save
from pathlib import Path
from pseudo3d.training.checkpoint import Checkpoints
checkpoints = Checkpoints(Path({folder!r}), 2)
"""


def child(tmp_path, code):
    tests = str(pseudo3d.files.Path(__file__).parent)
    paths = [tests, str(pseudo3d.files.Path(__file__).parent.parent)]
    code = f"import sys; sys.path[:0] = {paths!r}\n" + CHILD.format(tests=tests, folder=str(tmp_path)) + code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_real_limit_is_an_oserror(tmp_path):
    """safetensors reports what the system says in an error of its own; here it is an OSError with its number."""
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
save(checkpoints, 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save(checkpoints, 2)
except OSError as error:
    print(error.errno)
"""
    done = child(tmp_path, code)
    assert done.stdout.split() == [str(errno.EFBIG)], done.stderr
    assert names(tmp_path) == ["last"]
    assert Checkpoints(tmp_path, 2).load(tmp_path / "last", *network(0), OURS).step == 1


@pytest.mark.slow
@pytest.mark.parametrize("second", [2, 1], ids=["next step", "same step"])
@pytest.mark.parametrize("keep", [1, 2])
def test_killed_between_any_two_names(tmp_path, second, keep):
    """After a kill (no clean-up at all) there is a whole state, and the next one can be written."""
    for at in range(3):
        folder = tmp_path / str(at)
        folder.mkdir()
        code = f"""
save(checkpoints, 1)
checkpoints = Checkpoints(checkpoints.folder, {keep})  # of another process, which has not written what is there
import pseudo3d.training.checkpoint as module
real, count = Path.rename, iter(range(100))
def rename(self, target):
    if next(count) == {at}:
        os._exit(9)
    return real(self, target)
Path.rename = rename
save(checkpoints, {second})
os._exit(7)
"""
        done = child(folder, code)
        assert done.returncode == (9 if at < 2 else 7), done.stderr
        checkpoints = Checkpoints(folder, 2)
        step, newest = checkpoints.resumable()[0]
        assert checkpoints.load(newest, *network(0), OURS).step == step == (1 if at < 2 else second)
        save(checkpoints, 3)
        assert names(folder) == ["last", f"step_{step:08d}"]
