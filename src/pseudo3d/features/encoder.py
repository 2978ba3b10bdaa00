"""VideoEncoder: videos to representations, from Python and inside scikit-learn pipelines."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from sklearn.base import BaseEstimator, TransformerMixin

from pseudo3d.errors import Pseudo3dError, VideoError
from pseudo3d.files import sha256_of
from pseudo3d.inference import ClipRunner, DType
from pseudo3d.models import VideoModel, create_model
from pseudo3d.models.interface import check_layers
from pseudo3d.video.clips import LoadedClips, get_sampler, load_clips
from pseudo3d.video.sampling import SLIDING_STRIDE
from pseudo3d.weights import from_pretrained, load_model
from pseudo3d.weights.pretrained import CONFIG_NAME
from pseudo3d.weights.sources import Weights, class_names_from, open_weights

DEFAULT_MODEL = "p3d_resnet50"  # where weights do not say what they are of


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """What became of one video: its features, or why it has none.

    Args:
        path: as it was given.
        layers: float32 activations averaged over the clips, flattened, by layer; empty when it failed.
        error: one line, None when all went well.
        starts: first frame of each clip.
        num_frames: of the whole video.
        fps: average rate, or None.
        undecodable_packets: 0 for a sound file.
    """

    path: Path
    layers: dict[str, Float32[np.ndarray, "dim"]] = field(default_factory=dict)
    error: str | None = None
    starts: tuple[int, ...] = ()
    num_frames: int = 0
    fps: float | None = None
    undecodable_packets: int = 0


class VideoEncoder(TransformerMixin, BaseEstimator):
    """Videos to representations: the average over uniform clips of a layer's activations (paper section 4).

    The network is loaded on first use. As a scikit-learn transformer it turns an array of paths into an array of
    features; ``fit`` learns nothing.

    Args:
        model: name of the network; "auto" for the one that the weights are of, where a 2-D ResNet becomes the P3D
            network of its depth. Unused when ``weights`` is a pretrained folder.
        weights: a pretrained folder, a weights file, "imagenet" or "hf:owner/name" (``load_weights`` lists the kinds),
            or "random". Features of an untrained network are noise, so "random" must be asked for by name, warns, and
            is recorded.
        clips: clips of each video; the sampler "sliding" does not look at it.
        layer: which activations; pool5 has 2048 numbers, 8192 in c3d, whose paper uses fc6 (4096).
        sampler: "uniform", "authors", or "sliding": a clip every 8 frames, as many as the video has (C3D's).
        device: auto, cpu, cuda, mps.
        dtype: auto, float32, bfloat16.
        batch_size: clips in a batch; None for a size that suits the device.
        class_names: of the network's outputs, or a file with one a line, for weights that do not carry them.

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

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        weights: str | Path,
        clips: int = 20,
        layer: str = "pool5",
        sampler: str = "uniform",
        device: str = "auto",
        dtype: DType = "auto",
        batch_size: int | None = None,
        class_names: Sequence[str] | str | Path | None = None,
    ) -> None:
        self.model = model
        self.weights = weights
        self.clips = clips
        self.layer = layer
        self.sampler = sampler
        self.device = device
        self.dtype = dtype
        self.batch_size = batch_size
        self.class_names = class_names

    def load(self) -> "VideoEncoder":
        """Load the network now, so that a mistake in the options shows before any video is read."""
        if self.clips < 1:
            raise Pseudo3dError(f"clips must be at least 1, got {self.clips}")
        get_sampler(self.sampler)
        made_of = (self.model, self.weights, self.device, self.dtype, self.batch_size, self.class_names)
        if getattr(self, "made_of_", None) != made_of:  # first use, or scikit-learn's set_params has changed one
            if self.weights == "random":
                network, self.weights_file_, self.has_head_ = random_network(self.model), None, True
            else:
                opened = open_weights(self.weights, model=self.model)
                network = load_network(opened, self.model, self.class_names)
                self.weights_file_ = opened.file
                self.has_head_ = opened.looks is None or opened.looks.num_classes is not None
            self.runner_ = ClipRunner(network, device=self.device, dtype=self.dtype, batch_size=self.batch_size)
            self.made_of_ = made_of
        self._check_layers((self.layer,))
        return self

    def _check_layers(self, layers: Sequence[str]) -> None:
        check_layers(layers, self.runner_.model.layers)
        if not self.has_head_ and {"logits", "prob"} & set(layers):
            raise Pseudo3dError(f"{self.weights}: has no head, so it gives features but no classes")

    @property
    def network(self) -> VideoModel:
        """The network as it runs, batch norms folded."""
        return self.load().runner_.model

    def encode(self, path: str | Path) -> Float32[np.ndarray, "dim"]:
        """The representation of one video, float32 (2048,) for pool5 of P3D and of the frame baseline.

        Raises:
            VideoError: the file cannot be used as a video.
        """
        (result,) = self.encode_many([path])
        if result.error is not None:
            raise VideoError(result.error)
        return result.layers[self.layer]

    def encode_many(
        self, paths: Iterable[str | Path], *, layers: Sequence[str] | None = None
    ) -> Iterator[EncodedVideo]:
        """Results one by one in the order of ``paths``, failures among them.

        Batches are filled across videos, so a result comes a few videos after its video was read.

        Args:
            paths: video files.
            layers: which activations; None for ``layer`` alone.
        """
        wanted = (self.layer,) if layers is None else tuple(layers)
        runner = self.load().runner_
        self._check_layers(wanted)
        for (path, loaded), features in runner.run(self._loaded(paths), wanted):
            if isinstance(loaded, VideoError):
                yield EncodedVideo(path, error=str(loaded))
                continue
            yield EncodedVideo(
                path,
                {
                    name: values[loaded.rows].mean(axis=0, dtype=np.float64).astype(np.float32).ravel()
                    for name, values in features.items()
                },
                starts=tuple(int(start) for start in loaded.starts),
                num_frames=loaded.num_frames,
                fps=loaded.fps,
                undecodable_packets=loaded.undecodable_packets,
            )

    def _loaded(
        self, paths: Iterable[str | Path]
    ) -> Iterator[tuple[tuple[Path, LoadedClips | VideoError], np.ndarray]]:
        for each in paths:
            path = Path(each)
            try:
                loaded = load_clips(path, self.runner_.preprocessing, clips=self.clips, sampler=self.sampler)
            except VideoError as error:
                yield (path, error), np.empty((0, 0, 0, 0, 3), np.uint8)  # no clips: keeps its place in the order
            else:
                yield (path, loaded), loaded.frames

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
            rows.append(result.layers[self.layer])
        return np.stack(rows)

    def describe(self) -> dict[str, Any]:
        """What decides the features, as JSON types: the network, its weights, clips, engine and versions."""
        from pseudo3d import __version__

        runner = self.load().runner_
        return {
            "pseudo3d": __version__,
            "architecture": asdict(runner.model.architecture),
            "weights": "random" if self.weights_file_ is None else f"sha256:{sha256_of(self.weights_file_)}",
            "preprocessing": runner.preprocessing.to_dict(),
            "class_names": list(runner.model.class_names or []),
            "sampler": self.sampler,
            "clips": f"every {SLIDING_STRIDE} frames" if self.sampler == "sliding" else self.clips,
            **runner.describe(),
        }


def random_network(name: str) -> VideoModel:
    """An untrained network, the same at every call, with a warning."""
    name = DEFAULT_MODEL if name == "auto" else name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same noise when a store goes on
        network = create_model(name).eval()
    warnings.warn(f"{name} has random weights: what it says of a video is noise", stacklevel=3)
    return network


def load_network(opened: Weights, name: str, class_names: Sequence[str] | str | Path | None = None) -> VideoModel:
    """The network that ``--model`` and ``--weights`` stand for, in evaluation mode.

    Args:
        opened: the weights.
        name: of the network, or "auto"; a pretrained folder of ours says it itself.
        class_names: as for ``load_weights``.

    Raises:
        Pseudo3dError: weights that cannot be used.
    """
    if opened.config and opened.file is not None and (opened.file.parent / CONFIG_NAME).is_file():
        network = from_pretrained(opened.file.parent)
        if name not in ("auto", DEFAULT_MODEL, network.architecture.name):
            raise Pseudo3dError(f"{opened.name}: is of {network.architecture.name}, not of {name}; leave the model out")
        if class_names is not None:
            network.class_names = class_names_from(class_names, network.architecture.num_classes, opened.name)
        return network
    has_head = opened.looks is None or opened.looks.num_classes is not None
    name = "p3d" if name == "auto" else name
    return load_model(name, opened, head="auto" if has_head else "new", class_names=class_names)
