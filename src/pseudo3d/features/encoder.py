"""VideoEncoder: videos to representations, from Python and inside scikit-learn pipelines."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from sklearn.base import BaseEstimator, TransformerMixin

from pseudo3d.errors import VideoError
from pseudo3d.features.encoding import Encoder


class VideoEncoder(TransformerMixin, BaseEstimator, Encoder):
    """Videos to representations: the average over uniform clips of a layer's activations (paper section 4).

    The network is loaded on first use. Videos are decoded in processes of their own, which start then and end with
    ``close`` or the program. As a scikit-learn transformer it turns an array of paths into an array of features;
    ``fit`` learns nothing.

    Args:
        model: name of the network; "auto" for the one that the weights are of, where a 2-D ResNet becomes the P3D
            network of its depth. Unused when ``weights`` is a pretrained folder.
        weights: a pretrained folder, a weights file, "imagenet" or "hf:owner/name" (``load_weights`` lists the kinds),
            or "random". Features of an untrained network are noise, so "random" must be asked for by name, warns, and
            is recorded.
        clips: clips of each video; the sampler "sliding" does not look at it.
        layer: which activations; pool5 has 2048 numbers, 8192 in c3d, whose paper uses fc6 (4096).
        sampler: "uniform", "authors", "random", or "sliding": a clip every ``stride`` frames, as many as the video has.
        stride: frames from clip to clip of the sampler "sliding"; 8 is C3D's.
        seed: of the sampler "random".
        resize: frames to this short edge in pixels, or to this (height, width), instead of the network's own size;
            what is cut out of them stays. A mean volume (C3D) stays, too: that of the network's own size.
        mirror: average the activations of each clip with those of its mirror image (for layers with a shape, place by
            place). The network works twice, the decoders do not.
        device: auto, cpu, cuda, mps.
        dtype: auto, float32, bfloat16, float16 (GPU), int8 (processor).
        engine: how the network runs (``pseudo3d.inference.engines``); auto is the one that is done first.
        batch_size: clips in a batch; None for a size that suits the device.
        class_names: of the network's outputs, or a file with one a line, for weights that do not carry them.
        workers: decoder processes; None for a number that suits the machine, 0 to decode in this process.
        timeout: seconds without a sign of life after which a decoder is stopped and its video fails.
        memory: limit for each decoder process, GiB.

    Raises:
        Pseudo3dError: on first use, for weights or options that cannot be used.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     encoder = VideoEncoder("resnet14", weights="random", clips=2).load()
        >>> encoder.describe()["weights"]
        'random'
    """

    def fit(self, X: Any, y: Any = None) -> "VideoEncoder":
        """Load the network; nothing is learned from ``X``."""
        return self.load()

    def transform(self, X: Sequence[str | Path]) -> Float32[np.ndarray, "videos dim"]:
        """Features of an array or list of paths, one row each.

        Raises:
            VideoError: a file cannot be used: a row cannot be left out without moving the labels.
        """
        paths = [Path(str(path)) for path in np.asarray(X, dtype=object).ravel()]
        rows = []
        for result in self.encode_many(paths):
            if result.error is not None:
                raise VideoError(result.error)
            rows.append(result.layers[self.layer].ravel())
        return np.stack(rows)
