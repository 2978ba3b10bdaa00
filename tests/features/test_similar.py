"""Near-duplicates and groups, against all pairs at once and against how the vectors were made."""

import numpy as np
import pytest

from pseudo3d import Pseudo3dError
from pseudo3d.features import similar
from pseudo3d.features.similar import compare_all, group_videos

pytestmark = pytest.mark.usefixtures("one_thread")


def plain_groups(vectors, threshold, same=()):
    """Every pair in float64; a set for each group, joined pair by pair."""
    x = vectors.astype(np.float64)
    x /= np.sqrt((x * x).sum(axis=1, keepdims=True))
    group = [{i} for i in range(len(x))]
    near = (x @ x.T).astype(np.float32) >= np.float32(threshold)
    for i, j in [*zip(*np.nonzero(near), strict=True), *same]:
        if group[i] is not group[j]:
            group[i] |= group[j]
            for member in group[j]:
                group[member] = group[i]
    different = {id(each): sorted(each) for each in group if len(each) > 1}
    return sorted(different.values(), key=lambda each: (-len(each), each[0]))


def families(rng, spread):
    """Copies of 40 vectors, each copy changed more."""
    parents = rng.normal(size=(40, 48)) + 0.4
    vectors = parents[rng.integers(0, 40, 300)]
    return (vectors + rng.choice(spread, (300, 1)) * rng.normal(size=vectors.shape)).astype(np.float32)


@pytest.mark.parametrize("columns", [100, 50])
@pytest.mark.parametrize("spread", [(0.01, 0.1, 0.3), (0.0,), (1e-7, 1e-3)])
def test_groups_are_those_of_all_pairs(spread, columns, monkeypatch):
    monkeypatch.setattr(similar, "_ROWS", 64)
    monkeypatch.setattr(similar, "_COLUMNS", columns)
    monkeypatch.setattr(similar, "_PAIRS", 37)
    vectors = families(np.random.default_rng(0), spread)
    contents = [f"hash {i}" if i % 50 else "equal" for i in range(300)]
    contents[1] = contents[2] = None
    same = [(0, i) for i in range(50, 300, 50)]
    found = compare_all(vectors, [0.9, 0.99, 1.0], contents=contents)
    for threshold, groups in found.groups.items():
        assert [group.tolist() for group in groups] == plain_groups(vectors, threshold, same)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = (unit @ unit.T - 3 * np.eye(300)).max(axis=1)
    assert found.nearest == pytest.approx(expected, abs=1e-5)


def test_a_pair_at_the_threshold_is_in_and_one_below_is_out():
    vectors = np.array([[1, 0], [1, 0.1], [-1, 0]], np.float32)
    cosine = np.float32(1 / np.sqrt(1 + np.float64(vectors[1, 1]) ** 2))
    above = float(np.nextafter(cosine, np.float32(2)))
    found = compare_all(vectors, [float(cosine), above])
    assert [group.tolist() for group in found.groups[float(cosine)]] == [[0, 1]]
    assert found.groups[above] == []


def test_a_chain_is_one_group():
    angles = np.deg2rad([0, 5, 10, 15, 90])
    found = compare_all(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32), [0.99])
    assert [group.tolist() for group in found.groups[0.99]] == [[0, 1, 2, 3]]


def test_random_pairs_are_pairs_of_two():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 5)).astype(np.float32)
    found = compare_all(vectors, [0.9])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    every = np.sort((unit @ unit.T)[np.triu_indices(60, 1)])
    assert found.random_pairs.shape == (60 * 59 // 2,)
    assert found.random_pairs.max() < 0.999
    place = np.abs(every - found.random_pairs[:, None]).min(axis=1)
    assert place.max() < 1e-6
    assert np.median(found.random_pairs) == pytest.approx(np.median(every), abs=0.1)
    assert np.array_equal(found.random_pairs, compare_all(vectors, [0.9]).random_pairs)


@pytest.mark.parametrize(
    ("vectors", "threshold", "words"),
    [
        (np.ones((1, 3), np.float32), 0.9, "1 videos: there is nothing to compare"),
        (np.ones((2, 3), np.float32), 1.5, "a threshold must be above 0 and at most 1, got 1.5"),
        (np.zeros((2, 3), np.float32), 0.5, "a.mp4: its features are all zero"),
    ],
)
def test_what_cannot_be_compared(vectors, threshold, words):
    with pytest.raises(Pseudo3dError, match=words):
        compare_all(vectors, [threshold], videos=["a.mp4", "b.mp4"])


def blobs(sizes, *, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(len(sizes), 30)) * 3
    of = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    lengths = 10.0 ** rng.uniform(-3, 3, (len(of), 1))  # must not matter
    return ((centres[of] + 0.3 * rng.normal(size=(len(of), 30))) * lengths).astype(np.float32), of


@pytest.mark.parametrize("groups", [None, 4])
def test_groups_are_those_that_were_made(groups):
    vectors, of = blobs((10, 25, 40, 17))
    found = group_videos(vectors, groups)
    assert found.groups == 4
    assert [len(found.members(group)) for group in range(4)] == [40, 25, 17, 10]
    for group in range(4):
        assert len(set(of[found.members(group)])) == 1
    if groups is None:
        assert max(found.silhouettes, key=found.silhouettes.get) == 4
        assert list(found.silhouettes) == list(range(2, 13))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    first = found.members(0)
    middle = unit[first].mean(axis=0)
    expected = unit[first] @ middle / np.linalg.norm(middle)
    assert found.similarity[first] == pytest.approx(expected, abs=1e-5)
    assert (np.diff(found.similarity[first]) <= 0).all()
    again = group_videos(vectors, groups)
    assert np.array_equal(found.group_of, again.group_of)


def test_the_number_is_chosen_on_some_of_many(monkeypatch):
    monkeypatch.setattr(similar, "_TRIED_ON", 60)
    vectors, _ = blobs((100, 80, 60))
    assert group_videos(vectors).groups == 3


def test_three_videos_make_two_groups():
    assert group_videos(np.array([[1, 0], [0, 1], [1, 0.1]], np.float32)).group_of.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("vectors", "groups", "words"),
    [
        (np.eye(2, dtype=np.float32), None, "2 videos: groups need at least 3"),
        (np.eye(4, dtype=np.float32), 1, "groups must be at least 2, got 1"),
        (np.eye(4, dtype=np.float32), 5, "4 videos with 4 different features cannot make 5 groups; ask for fewer"),
        (np.ones((6, 3), np.float32), None, "6 videos with 1 different features cannot make two or more groups"),
        (np.ones((6, 3), np.float32) * np.nan, None, "row 0: its features are not finite"),
    ],
)
def test_what_cannot_be_grouped(vectors, groups, words):
    with pytest.raises(Pseudo3dError, match=words):
        group_videos(vectors, groups)
