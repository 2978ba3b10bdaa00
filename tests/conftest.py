"""Fixtures for every test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tyro  # noqa: F401 (a doctest that shows a list leaves it in builtins._, and tyro cannot be imported after that)
from hypothesis import settings

settings.register_profile("pseudo3d", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("pseudo3d")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's own cache of video indices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSEUDO3D_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real videos: fight_surv/ and odd/. It is not part of the repository."""
    folder = Path(os.environ.get("PSEUDO3D_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real videos at {folder}; set PSEUDO3D_DATA to the folder that holds odd/ and fight_surv/")
    return folder


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos, bright/ and dark/ with six each; read only."""
    from tiny import write_two_classes

    return write_two_classes(tmp_path_factory.mktemp("data") / "two_classes", 6)


@pytest.fixture(scope="session")
def trained(two_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a tiny network trained on ``two_classes`` for one epoch; read only."""
    from tiny import SMALL, one_thread

    from pseudo3d.cli import main

    out = tmp_path_factory.mktemp("trained") / "run"
    with one_thread():
        assert main(["train", "--data", str(two_classes), "--out", str(out), *SMALL]) == 0
    return out


@pytest.fixture(scope="session")
def weights(trained: Path) -> Path:
    """The best checkpoint of ``trained``; read only."""
    return trained / "checkpoints" / "best"


@pytest.fixture(scope="session")
def store(two_classes: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the features of ``two_classes``, two clips a video; read only."""
    from tiny import QUICK, one_thread

    from pseudo3d.cli import main

    out = tmp_path_factory.mktemp("store") / "features"
    with one_thread():
        assert main(["extract", str(two_classes), "--weights", str(weights), "--out", str(out), *QUICK]) == 0
    return out


@pytest.fixture(name="one_thread")
def _one_thread() -> Iterator[None]:
    """One thread for torch, as ``tiny.one_thread`` says why."""
    from tiny import one_thread

    with one_thread():
        yield
