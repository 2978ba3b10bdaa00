"""t-SNE maps, by both libraries."""

import numpy as np
import pytest

from pseudo3d.errors import Pseudo3dError
from pseudo3d.visualize.embedding import tsne, tsne_engine


@pytest.fixture(params=["openTSNE", "scikit-learn"])
def engine(request):
    if request.param == "openTSNE":
        pytest.importorskip("openTSNE")
    return request.param


def blobs():
    rng = np.random.default_rng(0)
    return np.concatenate([5 * np.eye(8)[i] + rng.normal(0, 0.3, (15, 8)) for i in range(3)]).astype(np.float32)


def test_tsne_keeps_blobs_apart_and_depends_on_the_seed_alone(engine):
    features = blobs()
    points = tsne(features, seed=3, engine=engine)
    assert points.shape == (45, 2)
    assert np.array_equal(points, tsne(features, seed=3, engine=engine))
    # lengths do not matter, up to the amplification of rounding by the descent: compare what is near what
    for mapped in (points, tsne(features * np.linspace(0.5, 20, 45, dtype=np.float32)[:, None], seed=3, engine=engine)):
        distance = np.linalg.norm(mapped[:, None] - mapped[None], axis=2) + np.diag(np.full(45, np.inf))
        assert (distance.argmin(axis=1) // 15 == np.arange(45) // 15).all()
        centres = mapped.reshape(3, 15, 2).mean(axis=1)
        radius = np.linalg.norm(mapped.reshape(3, 15, 2) - centres[:, None], axis=2).max()
        apart = min(np.linalg.norm(centres[i] - centres[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
        assert apart > 2 * radius


def test_tsne_of_three_videos(engine):
    assert np.isfinite(tsne(np.eye(3), engine=engine)).all()


def test_tsne_of_too_little():
    with pytest.raises(Pseudo3dError, match="a map needs at least 3 videos, got 2"):
        tsne(np.eye(2))
    # scikit-learn does not survive it
    with pytest.raises(Pseudo3dError, match="all 5 videos have the same features: there is nothing to map"):
        tsne(np.ones((5, 4)))
    with pytest.raises(Pseudo3dError, match="the same features"):
        tsne(np.linspace(1, 2, 5)[:, None] * np.ones((5, 4)))
    with pytest.raises(Pseudo3dError, match="NaN or infinite values; extract the videos again"):
        tsne(np.full((5, 4), np.nan))


def test_many_videos_in_many_dimensions(engine):
    """Two classes in 2048 dimensions, of which 50 principal components are kept."""
    rng = np.random.default_rng(1)
    features = rng.random((60, 2048)).astype(np.float32)
    features[30:, :200] += 1
    points = tsne(features, engine=engine)
    gap = np.linalg.norm(points[:30].mean(axis=0) - points[30:].mean(axis=0))
    assert gap > np.linalg.norm(points[:30] - points[:30].mean(axis=0), axis=1).max()


def test_which_library(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert tsne_engine() == "scikit-learn"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert tsne_engine() == "openTSNE"
