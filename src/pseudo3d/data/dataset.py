"""Random training clips out of labelled videos, and the batches that worker processes make of them."""

import signal
import time
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from pseudo3d.data.annotations import SampleList
from pseudo3d.data.augmentation import Augmentation
from pseudo3d.data.sampler import ClipKey, StepSampler
from pseudo3d.data.workers import TooSlowError, WatchedWorkers, WorkerEndedError, ignore_interrupts
from pseudo3d.errors import Pseudo3dError, VideoError, first_few
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.video.index import IndexCache, VideoIndex, read_frames
from pseudo3d.video.sampling import sample_pieces
from pseudo3d.video.transforms import Window, center_window, cut_out, random_window

TIME_LIMIT = 300.0  # seconds that a batch may take; a decoder that hangs says nothing
CLIP_TIME_LIMIT = 10.0  # and large batches this much for every clip
HANG_SHARE = 0.5  # of the batch's limit that one video takes when it hangs; less is a slow disk

# What ends a process that a broken video has led astray; SIGKILL and SIGBUS come when memory runs out.
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL")

_DRAW, _PIECES = 0, 3  # kinds of random numbers; 1 and 2 are the sampler's


class TrainingClip(NamedTuple):
    """One clip to learn from.

    Args:
        frames: resized, cut out and perhaps mirrored, RGB. Perhaps a view of larger frames, never one that runs
            backwards.
        target: the share of each class, which sum to 1; several labels of a video share evenly.
        window: where it was cut out and whether it is mirrored, for networks with a mean volume.
        video: the place in the list of the video that is shown, which may be a spare.
        counted: as in its key.
        bad: the videos that should have been shown and could not be read, with the reasons.
    """

    frames: UInt8[np.ndarray, "T h w 3"]
    target: Float32[np.ndarray, "classes"]
    window: Window
    video: int
    counted: bool
    bad: tuple[tuple[int, str], ...]


class ClipBatch(NamedTuple):
    """The clips of one process in one step.

    Args:
        frames: of ``TrainingClip``, stacked.
        targets: float32, rows sum to 1.
        counted: which of the clips count.
        windows: N of them.
        videos: the places in the list of the videos that are shown.
        bad: the videos that could not be read, with the reasons.
    """

    frames: UInt8[Tensor, "N T h w 3"]
    targets: Float32[Tensor, "N classes"]
    counted: Bool[Tensor, "N"]
    windows: list[Window]
    videos: list[int]
    bad: list[tuple[int, str]]

    def pin_memory(self) -> "ClipBatch":
        """The same in page-locked memory, from which a GPU copies beside its work (the loader calls this)."""
        return self._replace(
            frames=self.frames.pin_memory(), targets=self.targets.pin_memory(), counted=self.counted.pin_memory()
        )


class TrainingClips(Dataset[TrainingClip | VideoError]):
    """One random clip of every video, another one in every epoch.

    A clip starts anywhere with equal chance (a video shorter than a clip is looped) and only its frames are decoded.
    What is drawn depends on the seed, the epoch and the video's place alone, never on the number of workers or
    processes. A video that cannot be read is replaced by the spares of its key, in order; so is one that ``load`` has
    found to hang or crash its process.

    Args:
        samples: labelled videos.
        preprocessing: of the network.
        augmentation: how clips are varied.
        seed: of all draws.
        index: the index of each video; None for one in the default folder.

    Attributes:
        reading: float64 (workers, 2), in memory that processes share: the video that each worker is reading, -1 for
            none, and the time (``time.monotonic``) at which it began.
        given_up: the reasons of the videos that are not tried any more, by their places in the list.

    Raises:
        ValueError: a sample without a label.
    """

    def __init__(
        self,
        samples: SampleList,
        preprocessing: Preprocessing,
        augmentation: Augmentation,
        *,
        seed: int,
        index: IndexCache | None = None,
    ) -> None:
        self.samples = samples
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.seed = seed
        self.index = IndexCache() if index is None else index
        self.labels = _label_places(samples)
        self.reading = _nothing_read(1)
        self.given_up: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: ClipKey) -> TrainingClip | VideoError:
        """The clip drawn for a key of ``StepSampler``.

        When neither its video nor a spare can be read, the VideoError of the video is the result: raised in a worker
        process, it would lose its one-line text.
        """
        bad: list[tuple[int, str]] = []
        for video in (key.video, *key.spares):
            if video in self.given_up:
                bad.append((video, self.given_up[video]))
                continue
            self._note(video)
            try:
                frames, window = self._draw(key.epoch, video)
            except VideoError as error:
                bad.append((video, str(error)))
                continue
            finally:
                self._note(-1)
            return TrainingClip(frames, self._target(video), window, video, key.counted, tuple(bad))
        return VideoError(bad[0][1])

    def _draw(self, epoch: int, video: int) -> tuple[np.ndarray, Window]:
        rng = np.random.default_rng((self.seed, _DRAW, epoch, video))
        p, a = self.preprocessing, self.augmentation
        path = self.samples.root / self.samples.samples[video].path
        index = self.index.get(path)
        start = self._start(index, video, rng)
        frames = read_frames(path, index, start, p.num_frames, size=p.resize, interpolation=p.interpolation, threads=1)
        size = frames.shape[1:3]
        window = random_window(size, p.crop, rng) if a.random_crop else center_window(size, p.crop)
        window = window._replace(flipped=a.flip and bool(rng.random() < 0.5))
        cut = cut_out(frames, window, p.crop)
        return (np.ascontiguousarray(cut) if window.flipped else cut), window

    def _start(self, index: VideoIndex, video: int, rng: np.random.Generator) -> int:
        """The first frame of a clip inside the video, or inside one of its pieces where that holds a whole clip."""
        a, length = self.augmentation, self.preprocessing.num_frames
        first, stop = 0, index.num_frames
        if a.pieces is not None:
            fixed = np.random.default_rng((self.seed, _PIECES, video))
            pieces = sample_pieces(index.times, a.pieces, a.piece_seconds, fixed)
            first, stop = pieces[rng.integers(a.pieces)].tolist()
        start = first + int(rng.integers(0, max(0, stop - first - length), endpoint=True))
        return max(0, min(start, index.num_frames - length))

    def _target(self, video: int) -> np.ndarray:
        places = self.labels[video]
        target = np.zeros(len(self.samples.class_names), np.float32)
        target[list(places)] = 1 / len(places)
        return target

    def _note(self, video: int) -> None:
        worker = get_worker_info()
        self.reading[0 if worker is None else worker.id] = torch.tensor((video, time.monotonic()), dtype=torch.float64)


def make_loader(
    dataset: TrainingClips, sampler: StepSampler, *, workers: int, pin_memory: bool = False
) -> DataLoader[TrainingClip | VideoError]:
    """A loader for ``load``: the sampler's steps, made two ahead by each worker, the same for any number of workers.

    Args:
        dataset: clips.
        sampler: which clips; its ``start`` and ``stop`` hold when the iteration begins. Workers run through all of
            these steps without a stop, so they had better be those of the whole run.
        workers: processes that decode, started by spawn; 0 to decode in this one, when a batch is asked for.
        pin_memory: batches in page-locked memory, for a GPU.
    """
    dataset.reading = _nothing_read(max(1, workers)).share_memory_()
    clips = -(-sampler.batch_size // sampler.world_size)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=_collate,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        multiprocessing_context="spawn" if workers else None,
        timeout=max(TIME_LIMIT, CLIP_TIME_LIMIT * clips) if workers else 0,
        worker_init_fn=ignore_interrupts,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # of its own, or the number of workers would change what dropout draws
    )


def load(loader: DataLoader[TrainingClip | VideoError]) -> Generator[ClipBatch, None, None]:
    """The batches of a loader of ``make_loader``; its workers end with the iteration, or when that is closed.

    A video that crashes its worker twice, or at which a worker hangs until no batch comes in ``TIME_LIMIT`` seconds (in
    ``CLIP_TIME_LIMIT`` for each clip, where that is more), is given up: new workers go on with the batch that was due,
    in which another video takes its place. When all workers hang, or the only one twice on end, it is the disk. Without
    workers nothing can be done about either.

    Raises:
        VideoError: a video and its spares cannot be read.
        Pseudo3dError: a worker was killed; or no batch came in time, and it was not a video that took it.
    """
    if not len(loader):
        return
    if not loader.num_workers:
        for batch in loader:
            yield _valid(batch)
        return
    sampler, dataset = cast(StepSampler, loader.batch_sampler), cast(TrainingClips, loader.dataset)
    first, step, stop = sampler.start, sampler.start, sampler.stop
    crashed, late = set[int](), -1
    try:
        while step < stop:
            sampler.start = step
            dataset.reading.copy_(_nothing_read(loader.num_workers))
            workers = WatchedWorkers(loader)
            try:
                while step < stop:
                    yield _valid(workers.next())
                    step += 1
            except WorkerEndedError as error:
                video = _crashing(dataset, error)
                if video in crashed:  # not by chance
                    dataset.given_up[video] = f"{_path(dataset, video)}: crashes the process that decodes it"
                crashed.add(video)
            except TooSlowError as error:
                hanging = _hanging(dataset, loader.timeout)
                if (
                    not hanging
                    or (len(hanging) == loader.num_workers > 1)
                    or (loader.num_workers == 1 and late == step)
                ):
                    raise Pseudo3dError(_too_slow(loader, sampler, step)) from error
                reason = f"reading hangs (given up after {loader.timeout:.0f} s)"
                dataset.given_up |= {video: f"{_path(dataset, video)}: {reason}" for video in hanging}
                late = step
            finally:
                workers.close()
    finally:
        sampler.start = first


def label_sets(samples: SampleList) -> Bool[np.ndarray, "samples classes"]:
    """Which classes each sample shows, at least one.

    Raises:
        ValueError: a sample without a label.

    Example:
        >>> from pathlib import Path
        >>> from pseudo3d.data.annotations import Sample
        >>> videos = (Sample("a.mp4", "walk", more_labels=("run",)), Sample("b.mp4", "walk"))
        >>> label_sets(SampleList(Path("videos"), videos)).astype(int)  # run, walk
        array([[1, 1],
               [0, 1]])
    """
    sets = np.zeros((len(samples), len(samples.class_names)), bool)
    for row, places in zip(sets, _label_places(samples), strict=True):
        row[list(places)] = True
    return sets


def check_bad(bad: Mapping[int, str], samples: SampleList, limit: float) -> None:
    """Refuse to train on when too many videos have proved bad.

    Args:
        bad: the reason of each, by its place in the list.
        samples: the videos to train on.
        limit: the share of them that may be bad, 0..1.

    Raises:
        Pseudo3dError: more are; it has the first few reasons.
    """
    if len(bad) > limit * len(samples):
        raise Pseudo3dError(
            f"{len(bad)} of {len(samples)} training videos cannot be used, more than --max-bad {limit:g} allows: mend "
            f"them, or take them out ({first_few(bad.values())})"
        )


def _label_places(samples: SampleList) -> list[tuple[int, ...]]:
    """The class indices of each sample."""
    index = {name: i for i, name in enumerate(samples.class_names)}
    for sample in samples.samples:
        if not sample.labels or not index.keys() >= set(sample.labels):
            raise ValueError(f"{sample.path} has no label among {samples.class_names}")
    return [tuple(index[label] for label in sample.labels) for sample in samples.samples]


def _collate(items: Sequence[TrainingClip | VideoError]) -> ClipBatch | VideoError:
    """A batch, in shared memory when a worker makes it; or the first error."""
    clips = []
    for item in items:
        if isinstance(item, VideoError):
            return item
        clips.append(item)
    return ClipBatch(
        default_collate([torch.from_numpy(clip.frames) for clip in clips]),
        default_collate([torch.from_numpy(clip.target) for clip in clips]),
        torch.tensor([clip.counted for clip in clips]),
        [clip.window for clip in clips],
        [clip.video for clip in clips],
        [bad for clip in clips for bad in clip.bad],
    )


def _valid(batch: ClipBatch | VideoError) -> ClipBatch:
    if isinstance(batch, VideoError):
        raise batch
    return batch


def _nothing_read(workers: int) -> Tensor:
    return torch.tensor((-1.0, 0.0), dtype=torch.float64).repeat(workers, 1)


def _crashing(dataset: TrainingClips, error: WorkerEndedError) -> int:
    """The video that a worker was reading when it crashed.

    Raises:
        Pseudo3dError: it was no crash, or none at a video.
    """
    video = int(dataset.reading[error.number, 0])
    if video < 0 or -error.exit_code not in [getattr(signal, name, None) for name in _CRASHES]:
        raise Pseudo3dError(_ended(dataset, error)) from error
    return video


def _hanging(dataset: TrainingClips, waited: float) -> set[int]:
    """The videos that workers have been reading for most of the seconds waited; the others have nothing left to do."""
    begun = time.monotonic() - HANG_SHARE * waited
    return {int(video) for video, since in dataset.reading.tolist() if video >= 0 and since <= begun}


def _ended(dataset: TrainingClips, error: WorkerEndedError) -> str:
    """What to say of a worker that was killed or crashed."""
    code = error.exit_code
    how = f"exit code {code}" if code > 0 else f"signal {-code}"
    advice = "if memory ran out, use fewer --workers, or --workers 0"
    if -code == getattr(signal, "SIGBUS", None):
        advice = "shared memory ran out: use fewer --workers, or give the container more (docker run --shm-size)"
    video = int(dataset.reading[error.number, 0])
    at = f" while it read {_path(dataset, video)}" if video >= 0 else ""
    return f"a process that decodes videos ended with {how}{at}; {advice}"


def _too_slow(loader: DataLoader[TrainingClip | VideoError], sampler: StepSampler, step: int) -> str:
    """What to say when no batch came: the videos that are being read, or all of the step's when none is."""
    dataset = cast(TrainingClips, loader.dataset)
    share = sampler.keys(step)[sampler.rank :: sampler.world_size]
    videos = [int(video) for video in dataset.reading[:, 0].tolist() if video >= 0] or [key.video for key in share]
    names = first_few((_path(dataset, video) for video in videos), 8)
    return (
        f"no clips came for {loader.timeout:.0f} s: reading hangs or is far too slow, at {names}; copy the videos to a "
        "faster disk"
    )


def _path(dataset: TrainingClips, video: int) -> str:
    return str(dataset.samples.root / dataset.samples.samples[video].path)
