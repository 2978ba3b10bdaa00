import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pseudo3d.evaluation.representations as representations_module
from pseudo3d import FeatureStore, Pseudo3dError
from pseudo3d.data.annotations import Sample, SampleList
from pseudo3d.evaluation.representations import check_same_network, match_paths, read_representations
from pseudo3d.features.store import SourceFile, StoreWriter, VideoFeatures

INFO = {
    "architecture": {"name": "p3d_resnet14"},
    "weights": "sha256:1",
    "clips": 20,
    "root": "/data",
    "ranges": {"a": 1},
}
LAYERS = {"pool5": (8,), "prob": (3,), "fc6": (6,), "res5": (4, 1, 2, 2)}


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


def numbers(video):
    rng = np.random.default_rng(sum(video.encode()))
    return {layer: rng.normal(size=shape).astype(np.float32) for layer, shape in LAYERS.items()}


def write_store(folder, videos, *, info=INFO, failures=()):
    with StoreWriter(folder, info) as writer:
        for video in videos:
            writer.add(VideoFeatures(video, numbers(video), (0,), 16, source=SourceFile(len(video), 1, video)))
        for video in failures:
            writer.add_failure(video, f"/data/{video}: no video stream", SourceFile(0, 1, None))
    return FeatureStore(folder)


def listed(*paths, root="/data"):
    return SampleList(root, tuple(Sample(path, "x") for path in paths))


def test_every_layer_in_the_order_of_the_list(tmp_path):
    store = write_store(tmp_path / "s", ["a/1.mp4", "b/1.mp4", "c.mp4", "d.mp4"])
    found = read_representations(store, listed("d.mp4", "b/1.mp4", "a/1.mp4"), list(LAYERS))
    assert [sample.path for sample in found.samples] == ["d.mp4", "b/1.mp4", "a/1.mp4"]
    assert found.videos == ("d.mp4", "b/1.mp4", "a/1.mp4")
    for layer in LAYERS:
        expected = np.stack([numbers(video)[layer].ravel() for video in found.videos])
        assert found.features[layer].dtype == np.float32
        np.testing.assert_array_equal(found.features[layer], expected)
    assert found.left_out == ()
    assert [source.sha256 for source in found.sources] == list(found.videos)


def test_features_from_elsewhere_and_several_parts(tmp_path):
    folder = tmp_path / "s"
    write_store(folder, ["b.mp4", "d.mp4"])
    store = write_store(folder, ["a.mp4", "c.mp4"])
    store.add("idt", ["d.mp4", "c.mp4", "b.mp4", "a.mp4"], np.arange(8).reshape(4, 2).astype(np.float32))
    found = read_representations(FeatureStore(folder), listed("c.mp4", "d.mp4", "a.mp4"), ["idt", "pool5"])
    assert found.features["idt"].tolist() == [[2, 3], [0, 1], [6, 7]]
    np.testing.assert_array_equal(found.features["pool5"][1], numbers("d.mp4")["pool5"])


def test_wide_features_are_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(representations_module, "MAPPED_FROM", 100)
    store = write_store(tmp_path / "s", ["a.mp4", "b.mp4"])
    found = read_representations(store, listed("b.mp4", "a.mp4"), ["res5", "prob"])
    assert isinstance(found.features["res5"], np.memmap)
    assert not isinstance(found.features["prob"], np.memmap)
    np.testing.assert_array_equal(
        found.features["res5"], [numbers(video)["res5"].ravel() for video in ("b.mp4", "a.mp4")]
    )


def test_videos_without_features_are_refused_or_told(tmp_path):
    store = write_store(tmp_path / "s", ["a/1.mp4", "b/1.mp4"], failures=["c/1.mp4"])
    samples = listed("c/1.mp4", "b/1.mp4", "d/1.mp4", "e/1.mp4")
    message = (
        r"s: 3 of 4 videos have no features \(c/1.mp4: no video stream, d/1.mp4: not in the store, ...\); extract "
        "them, or leave them out with --allow-missing"
    )
    with pytest.raises(Pseudo3dError, match=message):
        read_representations(store, samples, ["pool5"])
    found = read_representations(store, samples, ["pool5"], allow_missing=True)
    assert [sample.path for sample in found.samples] == ["b/1.mp4"]
    assert len(found.features["pool5"]) == 1
    assert found.left_out == ("c/1.mp4: no video stream", "d/1.mp4: not in the store", "e/1.mp4: not in the store")
    with pytest.raises(Pseudo3dError, match=r"1 of 1 videos have no features .*; extract them$"):
        read_representations(store, listed("c/1.mp4"), ["pool5"], allow_missing=True)


def test_features_that_are_not_finite(tmp_path):
    """No writer of ours writes them; another program may have."""
    folder = tmp_path / "s"
    write_store(folder, ["a.mp4", "b.mp4", "c.mp4"])
    (part,) = folder.glob("part-*.parquet")
    table = pq.read_table(part)
    assert table["video"].to_pylist() == ["a.mp4", "b.mp4", "c.mp4"]
    values = np.array(table["pool5"].to_pylist(), np.float32)
    values[0, 3], values[1, 7] = np.nan, np.inf
    place = table.column_names.index("pool5")
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1]).cast(table.field(place).type)
    pq.write_table(table.set_column(place, table.field(place), column), part)
    store = FeatureStore(folder)
    message = r"s: pool5 of 2 videos is NaN or infinite \(a.mp4, b.mp4\); extract them again"
    with pytest.raises(Pseudo3dError, match=message):
        read_representations(store, listed("b.mp4", "c.mp4", "a.mp4"), ["pool5"])
    assert len(read_representations(store, listed("c.mp4"), ["pool5"]).samples) == 1
    assert len(read_representations(store, listed("a.mp4"), ["prob"]).samples) == 1


def test_lists_and_stores_that_do_not_fit(tmp_path):
    store = write_store(tmp_path / "s", ["UCF/a/1.mp4", "UCF/b/1.mp4"])
    with pytest.raises(Pseudo3dError, match="no layer 'res3'; this store has pool5"):
        read_representations(store, listed("a/1.mp4"), ["res3"])
    with pytest.raises(Pseudo3dError, match=r"the list names a/1\.mp4 twice: keep one"):
        read_representations(store, listed("a/1.mp4", "a/1.mp4"), ["pool5"])
    with pytest.raises(Pseudo3dError, match="the list names no videos"):
        read_representations(store, SampleList("/data", (), ("x",)), ["pool5"])
    message = (
        r"has none of the 2 videos; the first is called c/7.mp4, the store's UCF/a/1.mp4: .* other videos \(/data\)"
    )
    with pytest.raises(Pseudo3dError, match=message):
        read_representations(store, listed("c/7.mp4", "c/8.mp4"), ["pool5"], allow_missing=True)
    with pytest.raises(Pseudo3dError, match=r"1.mp4 fits several of its videos, .* store was made from \(/data\)"):
        read_representations(store, listed("1.mp4"), ["pool5"])
    with pytest.raises(Pseudo3dError, match="holds no videos yet; run `p3d extract` first"):
        read_representations(write_store(tmp_path / "none", []), listed("a.mp4"), [])


@pytest.mark.parametrize(
    ("paths", "known", "expected"),
    [
        # the store was made from a folder above, below, beside; from whole paths; a segment
        (["a/1.avi", "b/1.avi"], ["U/a/1.avi", "U/b/1.avi"], {"a/1.avi": "U/a/1.avi", "b/1.avi": "U/b/1.avi"}),
        (["U/a/1.avi", "U/b/1.avi"], ["a/1.avi"], {"U/a/1.avi": "a/1.avi"}),
        (["U/a/1.avi"], ["V/a/1.avi", "V/b/1.avi"], {"U/a/1.avi": "V/a/1.avi"}),
        (["a/1.avi"], ["/data/a/1.avi", "/data/b/1.avi"], {"a/1.avi": "/data/a/1.avi"}),
        (["v.mp4#t=1,2"], ["all/v.mp4#t=1,2", "all/v.mp4#t=2,3"], {"v.mp4#t=1,2": "all/v.mp4#t=1,2"}),
        # what is missing is not taken for another video of the same name
        (["a/1.avi", "b/1.avi"], ["b/1.avi"], {"b/1.avi": "b/1.avi"}),
        (["a/1.avi", "a/2.avi"], ["b/1.avi", "b/2.avi"], {}),
        (["U/a/1.avi", "U/b/2.avi"], ["b/2.avi", "c/1.avi"], {"U/b/2.avi": "b/2.avi"}),
        # one exchange for all, though 2.avi alone would fit in another folder too
        (["1.avi", "2.avi", "3.avi"], ["a/1.avi", "a/2.avi", "b/2.avi", "b/7.avi"],
         {"1.avi": "a/1.avi", "2.avi": "a/2.avi"}),
        # what is the same is the same
        (["a/1.avi"], ["a/1.avi", "old/a/1.avi"], {"a/1.avi": "a/1.avi"}),
        (["a.avi"], [], {}),
    ],
)  # fmt: skip
def test_paths_from_another_folder(paths, known, expected):
    assert match_paths(paths, known) == (expected, None)


def test_paths_that_fit_several():
    assert match_paths(["1.avi"], ["a/1.avi", "b/1.avi"]) == ({}, "1.avi")
    assert match_paths(["1.avi", "2.avi"], ["a/1.avi", "b/2.avi"]) == ({}, "1.avi")


NAME = st.text("abc", min_size=1, max_size=2)
PATHS = st.lists(st.lists(NAME, min_size=1, max_size=3).map("/".join), min_size=1, max_size=6, unique=True)


@settings(deadline=None)
@given(PATHS, st.lists(NAME, max_size=2), st.lists(NAME, max_size=2), PATHS)
def test_a_match_is_one_exchange_of_beginnings(paths, old, new, others):
    """No two paths share a video; each keeps its ending; and moved folders are found again, or nothing is claimed."""
    ours, theirs = ["/".join([*old, path]) for path in paths], {"/".join([*new, path]) for path in paths}
    for known in (theirs, theirs | set(others)):
        fits, doubtful = match_paths(ours, known)
        assert len(set(fits.values())) == len(fits)
        assert set(fits) <= set(ours)
        assert set(fits.values()) <= known
        assert doubtful is None or not fits
        if not set(ours) & known and fits:
            (path, name), *_ = fits.items()
            tail = next(i for i in range(len(path) + 1) if name.endswith(path[i:]))
            before, after = path[:tail], name.removesuffix(path[tail:])
            assert all(name == after + path.removeprefix(before) for path, name in fits.items())


def test_tens_of_thousands_of_videos_from_another_folder():
    """All of one name, in folders of their own: a comparison of all with all would take hours."""
    paths = [f"class{number % 50}/{number}/video.mp4" for number in range(20_000)]
    fits, doubtful = match_paths(paths, [f"data/all/{path}" for path in paths])
    assert (len(fits), doubtful) == (20_000, None)


def test_stores_of_one_network(tmp_path):
    one = write_store(tmp_path / "one", ["a.mp4"])
    two = write_store(tmp_path / "two", ["b.mp4"], info={**INFO, "root": "/other", "engine": "eager"})
    foreign = write_store(tmp_path / "foreign", ["b.mp4"], info={})
    check_same_network([one, two, foreign, one.info])
    check_same_network([])


def test_stores_of_different_networks(tmp_path):
    one = write_store(tmp_path / "one", ["a.mp4"])
    info = {**INFO, "architecture": {"name": "resnet14"}, "weights": "sha256:2", "clips": "every 8 frames"}
    two = write_store(tmp_path / "two", ["a.mp4"], info=info)
    message = (
        r"one and .*two are of different networks or clips \(architecture.name p3d_resnet14 and resnet14; weights "
        r"sha256:1 and sha256:2; clips 20 and every 8 frames\): use stores that were made in the same way"
    )
    with pytest.raises(Pseudo3dError, match=message):
        check_same_network([one, one, two])
    other = {**INFO, "weights": "sha256:2"}
    check_same_network([one, other], same_weights=False)
    with pytest.raises(Pseudo3dError, match=r"store 2 are of different networks or clips \(weights sha256:1 and"):
        check_same_network([one, other])


def test_clips_that_were_drawn_or_mirrored_otherwise():
    """A store of ours names mirror images only where there are any, and a seed only where clips are random."""
    plain = {**INFO, "sampler": "uniform"}
    check_same_network([plain, {**plain, "mirror": False}, {}])
    with pytest.raises(Pseudo3dError, match=r"store 2 are of different networks or clips \(mirror False and True\)"):
        check_same_network([plain, {**plain, "mirror": True}])
    drawn = {**INFO, "sampler": "random", "seed": 0}
    check_same_network([drawn, dict(drawn)])
    with pytest.raises(Pseudo3dError, match=r"different networks or clips \(seed 0 and 7\)"):
        check_same_network([drawn, {**drawn, "seed": 7}])
