"""Fixtures for every test."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real videos: fight_surv/ and odd/. It is not part of the repository."""
    folder = Path(os.environ.get("PSEUDO3D_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real videos at {folder}; set PSEUDO3D_DATA to the folder that holds odd/ and fight_surv/")
    return folder
