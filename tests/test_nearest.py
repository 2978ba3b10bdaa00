"""Names that do not exist, and what was meant by them."""

import pytest

from pseudo3d.nearest import nearest

NAMES = ["out", "weights", "epochs", "batch-size", "micro-batch", "optim.lr", "optim.warmup-epochs", "optim.momentum",
         "augment.flip", "val-clips", "license", "workers"]  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("lr", "optim.lr"),
        ("optim.lr", "optim.lr"),
        ("momentun", "optim.momentum"),
        ("optim.momentun", "optim.momentum"),
        ("optimizer.momentum", "optim.momentum"),
        ("learning-rate", "optim.lr"),
        ("learning_rate", "optim.lr"),
        ("optim.learning-rate", "optim.lr"),
        ("Learning-Rte", "optim.lr"),  # also the other word may be misspelt
        ("warmup", "optim.warmup-epochs"),
        ("num-epochs", "epochs"),
        ("num-workers", "workers"),
        ("batchsize", "batch-size"),
        ("val_clip", "val-clips"),
        ("weigths", "weights"),
    ],
)
def test_what_was_meant(typed, meant):
    assert nearest(typed, NAMES) == (meant, True)


@pytest.mark.parametrize("typed", ["mixup", "x", "augment.colour", "precision"])
def test_nothing_like_it(typed):
    """Also a word that others use for an option which is not among these."""
    name, alike = nearest(typed, NAMES)
    assert name in NAMES
    assert not alike


def test_names_with_underscores_stay_as_they_are():
    assert nearest("batch-size", ["epochs", "batch_size"]) == ("batch_size", True)


def test_a_whole_name_comes_before_the_last_part_of_another():
    assert nearest("name", ["optim.name", "name"]) == ("name", True)
