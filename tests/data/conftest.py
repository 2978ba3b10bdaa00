"""Videos for the tests of clips and of the processes that load them."""

import multiprocessing

import pytest
from training_clips import ALL, NET, picture
from videos import write_video

from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.data.dataset import TrainingClips
from pseudo3d.video.index import IndexCache


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    for name in ("a.mkv", "b.mkv", "c.mkv", "hang.mkv", "crash.mkv"):
        write_video(folder / name, [picture(i) for i in range(40)], codec="ffv1", pix_fmt="bgr0")
    (folder / "broken.mp4").write_text("no video")
    return SampleList(
        folder,
        (Sample("a.mkv", "up"), Sample("b.mkv", "down"), Sample("c.mkv", "up", more_labels=("far", "down"))),
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("index")


@pytest.fixture
def clips(samples, cache):
    """Makes the clips of the three good videos, and of others in their folder."""

    def make(augmentation=ALL, *others, net=NET, seed=0, kind=TrainingClips):
        more = tuple(Sample(name, "down") for name in others)
        listed = SampleList(samples.root, samples.samples + more)
        return kind(listed, net, augmentation, seed=seed, index=IndexCache(cache))

    return make


@pytest.fixture
def processes():
    """Those that the test has started and that have not ended."""
    before = multiprocessing.active_children()
    return lambda: [process for process in multiprocessing.active_children() if process not in before]
