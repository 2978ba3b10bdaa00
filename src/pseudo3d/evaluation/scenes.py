"""Dynamic scenes, one video left out at a time: YUPENN (420 videos) and Dynamic Scene (130; paper section 5)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from pseudo3d.data.annotations import class_names_of
from pseudo3d.errors import Pseudo3dError
from pseudo3d.evaluation.svm import l2_normalised, leave_one_out_scores, signed_sqrt
from pseudo3d.evaluation.svm_solver import SVM_C, Constant, OnConstant


def evaluate_scenes(
    features: Float[np.ndarray, "videos dim"],
    labels: Sequence[str] | Int64[np.ndarray, "videos"],
    *,
    plain: bool,
    c: Constant = SVM_C,
    seed: int = 0,
    jobs: int | None = None,
    on_constant: OnConstant = lambda c: None,
) -> Float64[np.ndarray, "videos classes"]:
    """Decision values of each video by a linear SVM trained on all the others.

    Args:
        features: one row a video, as they come from the network.
        labels: the class of each: names, whose columns are in the order of ``class_names_of``; or indices.
        plain: each row is divided by its length, and that is all. Otherwise as the authors did for Dynamic Scene:
            signed square roots first. (Their features were of frames with a short edge of 160 pixels, averaged over
            clips and their mirror images: ``p3d extract --resize 160 --mirror``.)
        c: the SVM's constant, as for ``leave_one_out_scores``.
        seed: of the folds that choose the constant.
        jobs: SVMs trained at a time; None for one a core. The result does not depend on it.
        on_constant: told the constant of each SVM, in the order of the left-out videos.

    Raises:
        Pseudo3dError: one class only, a class with a single video, features that are not finite.

    Example:
        >>> features = np.array([[4.0, 1.0, 1.0], [1.0, 4.0, 1.0], [1.0, 1.0, 4.0]] * 3)
        >>> scores = evaluate_scenes(features, ["beach", "forest", "street"] * 3, plain=False)
        >>> scores.argmax(axis=1).tolist()
        [0, 1, 2, 0, 1, 2, 0, 1, 2]
    """
    y, names = _indices(labels)
    counts = Counter(y.tolist())
    if len(names) < 2:
        raise Pseudo3dError(f"need at least two classes to tell apart, got {len(names)}")
    few = [name for k, name in enumerate(names) if counts[k] < 2]
    if few:
        raise Pseudo3dError(
            f"class {few[0]} has {counts[names.index(few[0])]} videos ({len(few)} such classes): when one is left out, "
            "another must be there to train on; add videos, or leave the class out"
        )
    x = l2_normalised(features if plain else signed_sqrt(features))
    return leave_one_out_scores(x, y, len(names), c=c, seed=seed, jobs=jobs, on_constant=on_constant)


def _indices(labels: Sequence[str] | Int64[np.ndarray, "videos"]) -> tuple[Int64[np.ndarray, "videos"], Sequence[str]]:
    if isinstance(labels, np.ndarray):
        return labels, [str(k) for k in range(int(labels.max(initial=-1)) + 1)]
    names = class_names_of(labels)
    return np.array([names.index(label) for label in labels], np.int64), names
