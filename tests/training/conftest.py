"""Fixtures for the tests of training."""

import pytest

from pseudo3d.data.annotations import read_samples


@pytest.fixture
def samples(two_classes):
    return read_samples(two_classes)
