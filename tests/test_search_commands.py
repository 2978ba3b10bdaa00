"""``p3d search``, ``duplicates`` and ``cluster-labels``: what they find, write and say, and what they refuse."""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from reference import randomise
from tiny import QUICK, mistake, names, p3d
from videos import flat, write_video

from pseudo3d import FeatureStore, VideoEncoder, from_pretrained, save_pretrained
from pseudo3d.data.annotations import read_samples
from pseudo3d.features.store import SourceFile, StoreWriter, VideoFeatures

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def per_clip(weights, tmp_path_factory):
    """A store with the features of each clip, of videos half dark and half bright."""
    from tiny import one_thread

    from pseudo3d.cli import main

    folder = tmp_path_factory.mktemp("per_clip")
    (folder / "videos").mkdir()
    for name, levels in (("up", (20, 200)), ("down", (200, 20))):
        frames = [flat((level,) * 3, 40, 48) for level in levels for _ in range(25)]
        write_video(folder / "videos" / f"{name}.mkv", frames)
    with one_thread():
        args = ["extract", folder / "videos", "--weights", weights, "--out", folder / "s", "--per-clip", *QUICK]
        assert main([str(arg) for arg in args]) == 0
    return folder / "s"


def made_store(folder, vectors, *, root="/videos", contents=None, **more):
    """A store of vectors that nothing was extracted for: v0.mp4, v1.mp4, ..."""
    with StoreWriter(folder, {"root": str(root), "layers": ["pool5"], **more}) as writer:
        for i, vector in enumerate(np.asarray(vectors, np.float32)):
            source = SourceFile(sha256=None if contents is None else contents[i])
            writer.add(VideoFeatures(f"v{i}.mp4", {"pool5": vector}, (0,), 16, 25.0, source=source, duration=0.64))
    return folder


def test_a_new_video_finds_its_like(two_classes, store, weights, tmp_path, capsys):
    new = write_video(tmp_path / "new.mkv", [flat((201,) * 3, 40, 48)] * 16)
    args = ("search", store, "--video", new, "--weights", weights, "--top", 4, "--json", "--sheet", tmp_path / "s.png")
    code, out, err = p3d(capsys, *args)
    assert (code, err) == (0, [f"written: {tmp_path / 's.png'} (5 videos)"])
    (query,) = json.loads(out)["queries"]
    assert query["query"] == str(new)
    assert [hit["rank"] for hit in query["results"]] == [1, 2, 3, 4]
    opened = FeatureStore(store)
    encoder = VideoEncoder(weights=weights, clips=2, device="cpu", dtype="float32", workers=0)
    x, q = opened.features().astype(np.float64), encoder.encode(new).astype(np.float64)
    scores = x @ q / np.linalg.norm(x, axis=1) / np.linalg.norm(q)
    best = np.argsort(-scores.astype(np.float32), kind="stable")[:4]
    assert [hit["path"] for hit in query["results"]] == [opened.videos[i] for i in best]
    assert [hit["label"] for hit in query["results"]] == [opened.labels[i] for i in best]
    assert [hit["score"] for hit in query["results"]] == pytest.approx(scores[best], abs=1e-5)
    assert [(hit["start"], hit["end"]) for hit in query["results"]] == [(0, pytest.approx(0.64))] * 4
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width == 1312


def test_a_video_of_the_store_is_not_its_own_answer(store, capsys):
    code, out, err = p3d(capsys, "search", store, "--like", "dark/dark3.mkv", "bright/bright0.mkv", "--top", 3)
    assert (code, err) == (0, [])
    first, second = out.split("\n\n")
    assert first.splitlines()[0] == "most like dark/dark3.mkv:"
    assert second.splitlines()[0] == "most like bright/bright0.mkv:"
    rows = [line.split() for line in first.splitlines()[2:]]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert "dark/dark3.mkv" not in {row[1] for row in rows}
    assert {row[4] for row in rows} == {"s"}
    assert re.search(r"^  1  \S+ +[01]\.\d{4} +0\.0-0\.6 s +(dark|bright)$", first, re.MULTILINE)


def test_the_time_is_that_of_the_clip_most_like_it(per_clip, weights, tmp_path, capsys):
    opened = FeatureStore(per_clip)
    new = write_video(tmp_path / "bright.mkv", [flat((200,) * 3, 40, 48)] * 16)
    _, out, _ = p3d(capsys, "search", per_clip, "--video", new, "--weights", weights, "--json")
    query = VideoEncoder(weights=weights, clips=2, device="cpu", dtype="float32", workers=0).encode(new)
    for hit in json.loads(out)["queries"][0]["results"]:
        clips = opened.clip_features(hit["path"])
        best = int(np.argmax(clips @ query / np.linalg.norm(clips, axis=1)))
        start = opened.timeline(hit["path"]).times[best]
        assert (hit["start"], hit["end"]) == (pytest.approx(start), pytest.approx(start + 16 / 25))


def test_a_query_that_fails_is_named(store, weights, tmp_path, capsys):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    args = ("search", store, "--weights", weights, "--video")
    code, out, err = p3d(capsys, *args, broken)
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert err[0].startswith(f"failed: {broken}: ")
    good = write_video(tmp_path / "good.mkv", [flat((90,) * 3, 40, 48)] * 16)
    code, out, err = p3d(capsys, *args, broken, good)
    assert code == 1
    assert out.startswith(f"most like {good}:")
    assert err[1] == "1 of 2 videos failed"


def test_a_store_that_has_moved(store, two_classes, tmp_path, capsys):
    """Vanished videos are grey on the sheet, and --root says where they are now."""
    moved = tmp_path / "videos"
    shutil.copytree(store, tmp_path / "s")
    told = json.loads((tmp_path / "s" / "store.json").read_text(encoding="utf-8"))
    (tmp_path / "s" / "store.json").write_text(json.dumps(told | {"root": str(moved)}), encoding="utf-8")
    args = ("search", tmp_path / "s", "--like", "dark/dark0.mkv", "--top", 2, "--sheet", tmp_path / "s.png")
    code, _, err = p3d(capsys, *args)
    assert code == 0
    assert err[1].startswith("p3d: 3 of them could not be shown; the sheet says why (--root FOLDER")
    _, _, err = p3d(capsys, *args, "--root", two_classes)
    assert err == [f"written: {tmp_path / 's.png'} (3 videos)"]


WRONG = {
    "search S": "give what to search for: --video FILE, or --like PATH for a video of the store",
    "search S --like nobody.mp4": "--like nobody.mp4: no such video in S, whose paths are like bright/bright0.mkv; for",
    "search S --video V --weights none": "none: no such file or folder",
    "search S --video none.mp4 --weights W": "none.mp4 does not exist",
    "search S --like dark/dark0.mkv --layer res5": "no layer 'res5'; this store has pool5",
    "search S --like dark/dark0.mkv --top 0": "--top must be at least 1, got 0",
    "search S --like dark/dark0.mkv --sheet x.jpg": "x.jpg: contact sheets are PNG files; give a name that ends",
    "search S --like dark/dark0.mkv --index hnsw": "--index cannot be 'hnsw'; it takes auto, exact, faiss",
    "search S --like dark/dark0.mkv --root none": "--root none: no such folder; give the one that the store's",
    "search none --like a.mp4": "none: not a feature store (no store.json)",
    "search E --like a.mp4": "E: holds no features (1 videos failed); extract some first",
    "search M --video V --weights W": "M: does not say what made it (no weights); search with --like",
    "search A --video V --weights W --layer idt": "A: idt is not of the network, but added later; search with --like",
    "search Z --like v1.mp4": "v0.mp4: its features are all zero, so that nothing is like it",
    "duplicates E": "E: holds no features (1 videos failed); extract some first",
    "duplicates S --threshold 0": "--threshold must be above 0 and at most 1, got 0",
    "duplicates S --layer prob": "no layer 'prob'; this store has pool5",
    "duplicates Z": "v0.mp4: its features are all zero",
    "duplicates S --sheet x.gif": "x.gif: contact sheets are PNG files",
    "cluster-labels S": "--out must be given",
    "cluster-labels E --out O": "E: holds no features (1 videos failed); extract some first",
    "cluster-labels S --out O --groups 1": "groups must be at least 2, got 1",
    "cluster-labels S --out O --groups 50": "12 videos with 12 different features cannot make 50 groups",
    "cluster-labels S --out V": "V: is a file; give a folder for --out",
}  # fmt: skip


@pytest.fixture(scope="module")
def places(store, weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    made_store(folder / "M", np.eye(3))
    made_store(folder / "Z", np.diag([0.0, 1, 1]))
    with StoreWriter(folder / "E", {"root": "/videos"}) as writer:
        writer.add_failure("a.mp4", "a.mp4: no video")
    shutil.copytree(store, folder / "A")
    opened = FeatureStore(folder / "A")
    opened.add("idt", opened.videos, np.random.default_rng(0).normal(size=(12, 5)))
    video = write_video(folder / "V.mkv", [flat((9,) * 3, 40, 48)] * 16)
    return {**{name: folder / name for name in "EMZA"}, "S": store, "W": weights, "V": video, "O": folder / "O"}


@pytest.mark.parametrize("line", WRONG)
def test_mistakes_are_told_in_one_line(line, places, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    said = mistake(capsys, *(places.get(word, word) for word in line.split()))
    words = WRONG[line]
    if words[:2] in {f"{name}:" for name in places}:
        words = f"{places[words[0]]}{words[1:]}"
    assert words.replace(" in S,", f" in {places['S']},") in said
    assert names(tmp_path) == []
    assert not places["O"].exists()


def test_the_stores_own_weights_are_found_or_asked_for(places, weights, tmp_path, capsys):
    args = ("search", places["S"], "--video", places["V"], "--top", 1)
    assert p3d(capsys, *args)[:2] == p3d(capsys, *args, "--weights", weights)[:2]
    told = json.loads((places["S"] / "store.json").read_text(encoding="utf-8"))
    shutil.copytree(places["S"], tmp_path / "moved")
    gone = str(tmp_path / "gone")
    for known, where in (
        ({"weights_from": gone}, f"they are no more at {gone}"),
        ({}, "it does not say where they were"),
    ):
        (tmp_path / "moved" / "store.json").write_text(json.dumps(told | {"made_with": known}), encoding="utf-8")
        said = mistake(capsys, "search", tmp_path / "moved", "--video", places["V"])
        assert "--video needs the weights that the store was made with (p3d_resnet14, sha256:" in said
        assert said.endswith(f", and {where}; give --weights")


def test_other_weights_are_refused(places, weights, tmp_path, capsys):
    model = randomise(from_pretrained(weights))
    other = save_pretrained(model, tmp_path / "other")
    said = mistake(capsys, "search", places["S"], "--video", places["V"], "--weights", other)
    assert f"{places['S']}: was made with another weights (sha256:" in said
    assert said.endswith("; give --weights those that it was made with")
    told = json.loads((places["S"] / "store.json").read_text(encoding="utf-8"))
    shutil.copytree(places["S"], tmp_path / "s")
    told["preprocessing"]["mean"][1] = 5.0
    (tmp_path / "s" / "store.json").write_text(json.dumps(told), encoding="utf-8")
    said = mistake(capsys, "search", tmp_path / "s", "--video", places["V"], "--weights", weights)
    assert "was made with another preprocessing.mean (" in said
    code, _, err = p3d(capsys, "search", places["S"], "--video", places["V"], "--weights", "random")
    assert code == 2
    assert "was made with another weights (sha256:" in err[-1]


def test_on_another_device_than_the_stores(store, weights, tmp_path, capsys):
    """A store of a GPU, searched on a processor: what only the GPU has is left out."""
    shutil.copytree(store, tmp_path / "s")
    told = json.loads((store / "store.json").read_text(encoding="utf-8"))
    told |= {"device": "cuda:7", "dtype": "float16", "engine": "graph"}
    (tmp_path / "s" / "store.json").write_text(json.dumps(told), encoding="utf-8")
    new = write_video(tmp_path / "new.mkv", [flat((201,) * 3, 40, 48)] * 16)
    args = ("search", tmp_path / "s", "--video", new, "--weights", weights, "--json")
    assert "device 'cuda:7' is not available on this machine; use --device" in mistake(capsys, *args)
    found = [json.loads(p3d(capsys, *args, "--device", "cpu")[1])["queries"]]
    found += [json.loads(p3d(capsys, "search", store, *args[2:])[1])["queries"]]
    assert found[0] == found[1]


def families():
    """Six vectors: two nearly the same, two exactly, two of their own."""
    rng = np.random.default_rng(0)
    a, b, c, d = rng.normal(size=(4, 20)) + 1
    return [a, b, a + 0.02 * rng.normal(size=20), c, b, d]


def test_duplicates_of_features_and_of_content(tmp_path, capsys):
    contents = ["one", "two", "three", "same", "five", "same"]
    folder = made_store(tmp_path / "s", families(), contents=contents)
    out, sheet = tmp_path / "new" / "groups.csv", tmp_path / "new" / "groups.png"
    code, said, err = p3d(capsys, "duplicates", folder, "--threshold", "0.999", "--out", out, "--sheet", sheet)
    assert code == 0
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["path"], row["same_content"]) for row in rows] == [
        ("1", "v0.mp4", "no"), ("1", "v2.mp4", "no"), ("2", "v1.mp4", "no"), ("2", "v4.mp4", "no"),
        ("3", "v3.mp4", "yes"), ("3", "v5.mp4", "yes"),
    ]  # fmt: skip
    assert rows[2]["cosine"] == "1.00000"
    assert "group 3, 2 videos: v3.mp4, v5.mp4" in said
    assert re.search(r"^0.999 \(--threshold\) +3 +6 +2$", said, re.MULTILINE)
    assert re.search(r"two videos at random: 0\.\d{4} is the middle, 1 pair in 100 is above", said)
    assert err[-1].startswith("p3d: 6 of them could not be shown")  # there are no such videos
    assert sheet.exists()


def test_a_threshold_that_random_pairs_reach_is_pointed_out(tmp_path, capsys):
    vectors = 5 + np.random.default_rng(0).normal(size=(30, 50))
    _, out, err = p3d(capsys, "duplicates", made_store(tmp_path / "s", vectors), "--threshold", "0.9")
    assert err[0].startswith(
        "p3d: 1 pair in 100 or more reaches 0.9: these are videos that are alike, hardly copies only"
    )
    assert "group 1, 30 videos: v0.mp4, v1.mp4, v10.mp4, v11.mp4, v12.mp4, v13.mp4, ..." in out


def test_one_video_has_no_duplicates(tmp_path, capsys):
    folder = made_store(tmp_path / "s", np.ones((1, 3)))
    assert f"{folder}: 1 video; there is nothing to compare" in mistake(capsys, "duplicates", folder)


def test_groups_become_labels_to_train_on(store, two_classes, tmp_path, capsys):
    out = tmp_path / "groups"
    code, said, _ = p3d(capsys, "cluster-labels", store, "--out", out)
    assert code == 0
    listed = read_samples(out / "labels.csv")
    assert {listed.root / sample.path for sample in listed.samples} == set(two_classes.rglob("*.mkv"))
    groups = {sample.label for sample in listed.samples}
    assert names(out) == sorted([*(f"{group}.png" for group in groups), "labels.csv", "overview.png"])
    assert re.search(rf"^ *{len(groups)} groups: silhouette -?[01]\.\d+ \(chosen; --groups N asks", said, re.MULTILINE)
    assert said.splitlines()[-1].endswith(f"p3d train --data {out / 'labels.csv'} --out RUN")
    with (out / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == sorted(row["label"] for row in rows)
    for group in groups:
        similarity = [float(row["similarity"]) for row in rows if row["label"] == group]
        assert similarity == sorted(similarity, reverse=True)


def test_corrected_labels_are_not_overwritten(store, tmp_path, capsys):
    args = ("cluster-labels", store, "--out", tmp_path / "groups", "--groups", 2)
    assert p3d(capsys, *args)[0] == 0
    table = tmp_path / "groups" / "labels.csv"
    table.write_text("path,label\n", encoding="utf-8")
    assert "labels.csv: is there already, and somebody may have worked on it" in mistake(capsys, *args)
    assert table.read_text(encoding="utf-8") == "path,label\n"
    (table.parent / "group_07.png").write_bytes(b"of a run with more groups")
    assert p3d(capsys, *args, "--overwrite")[0] == 0
    assert names(table.parent) == ["group_1.png", "group_2.png", "labels.csv", "overview.png"]
    assert len(table.read_text(encoding="utf-8").splitlines()) == 13


def test_without_a_root_there_are_no_paths(tmp_path, capsys):
    with StoreWriter(tmp_path / "s", {}) as writer:
        for i in range(4):
            writer.add(VideoFeatures(f"v{i}.mp4", {"pool5": np.eye(4, dtype=np.float32)[i]}, (0,), 16))
    said = mistake(capsys, "cluster-labels", tmp_path / "s", "--out", tmp_path / "o")
    assert "does not say where its videos are; give their folder with --root" in said
    code, _, _ = p3d(
        capsys, "cluster-labels", tmp_path / "s", "--out", tmp_path / "o", "--root", tmp_path, "--groups", 2
    )
    assert code == 0


def test_help_stays_light():
    code = "import sys, pseudo3d.commands.search, pseudo3d.commands.duplicates, pseudo3d.commands.cluster_labels\n"
    code += "print(*({'av', 'torch', 'matplotlib', 'numpy', 'sklearn', 'PIL', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
