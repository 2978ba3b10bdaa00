"""Maps of many videos: t-SNE of their representations (paper figure 7)."""

import importlib.util
from typing import Literal

import numpy as np
from jaxtyping import Float

from pseudo3d.errors import Pseudo3dError

DIMENSIONS = 50
"""Principal components that distances are taken in: what is beyond is little more than noise, and costs most time."""
PERPLEXITY = 30.0


Engine = Literal["auto", "openTSNE", "scikit-learn"]


def tsne(
    features: Float[np.ndarray, "videos dim"], *, seed: int = 0, engine: Engine = "auto"
) -> Float[np.ndarray, "videos 2"]:
    """A 2-D map in which near neighbours stay near (paper figure 7; van der Maaten and Hinton, 2008).

    Features are L2-normalised first, as for the SVM, and reduced to their first ``DIMENSIONS`` principal components, as
    those authors do. The map depends on the library that computes it, and on the seed.

    Args:
        features: one row a video.
        seed: of the map.
        engine: "auto" is what ``tsne_engine`` says.

    Returns:
        Places, in units that mean nothing.

    Raises:
        Pseudo3dError: fewer than 3 videos, features that are not finite, or all videos have the same.

    Example:
        >>> places = tsne(np.eye(12))
        >>> places.shape, bool(np.isfinite(places).all())
        ((12, 2), True)
    """
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    if len(features) < 3:
        raise Pseudo3dError(f"a map needs at least 3 videos, got {len(features)}")
    if not np.isfinite(features).all():
        raise Pseudo3dError("the features hold NaN or infinite values; extract the videos again")
    directions = normalize(np.asarray(features, np.float64))
    if np.ptp(directions, axis=0).max() < 1e-6:  # t-SNE divides by their spread
        raise Pseudo3dError(f"all {len(features)} videos have the same features: there is nothing to map")
    components = min(DIMENSIONS, *directions.shape)
    if components < directions.shape[1]:
        solver = "covariance_eigh" if len(directions) > directions.shape[1] else "full"
        directions = PCA(components, svd_solver=solver).fit_transform(directions)
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    if (tsne_engine() if engine == "auto" else engine) == "openTSNE":
        return _by_opentsne(directions, perplexity, seed)
    from sklearn.manifold import TSNE

    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(directions).astype(np.float64)


def tsne_engine() -> str:
    """The library that ``tsne`` uses by itself: "openTSNE" where the extra ``embed`` is installed, else "scikit-learn".

    openTSNE is several times faster from a few thousand videos on.
    """
    return "openTSNE" if importlib.util.find_spec("openTSNE") is not None else "scikit-learn"


def _by_opentsne(points: Float[np.ndarray, "N D"], perplexity: float, seed: int) -> Float[np.ndarray, "N 2"]:
    """With exact neighbours: approximate ones save little in so few dimensions, and would differ between machines."""
    from openTSNE import TSNE

    jobs = 1 if len(points) < 2000 else -1  # threads wait for each other in every step: that has to pay
    mapped = TSNE(perplexity=perplexity, neighbors="exact", n_jobs=jobs, random_state=seed).fit(points)
    return np.array(mapped, np.float64)
