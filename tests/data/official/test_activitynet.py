"""ActivityNet from small sets in its official layout, and from annotations alone."""

import json

import numpy as np
import pytest
from official_more_sets import ACTIVITIES, activity_id, write_activitynet

from pseudo3d import Preprocessing, Pseudo3dError, read_video
from pseudo3d.data.official.activitynet import parse_activitynet, read_activitynet
from pseudo3d.video.clips import ClipPlan, ClipStream
from pseudo3d.video.segments import split_segment


@pytest.fixture(scope="module")
def activitynet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("activitynet")
    write_activitynet(folder)
    return folder


def annotated(*annotations, subset="training", **more):
    return {"subset": subset, "annotations": [{"segment": [s, e], "label": name} for s, e, name in annotations], **more}


def write(folder, database, **more):
    folder.mkdir(exist_ok=True)
    (folder / "activity_net.json").write_text(json.dumps({"database": database, **more}))
    return folder


def test_whole_videos(activitynet):
    found = read_activitynet(activitynet)
    samples = found.samples.samples
    assert (found.name, found.title, found.missing) == ("activitynet", "ActivityNet v1.3", ())
    assert found.samples.class_names == ACTIVITIES
    assert [s.split for s in samples] == ["train"] * 9 + ["val"] * 6 + ["test"]
    assert [s.label for s in samples[:4]] == ["Archery", "Ballet", "Long jump", "Archery"]
    assert samples[-1].label is None
    assert samples[0].path == f"v1-3/train_val/v_{activity_id(0)}.mp4"
    assert samples[3].group == activity_id(3)
    assert len(read_video(found.samples.root / samples[-1].path)) == 20
    assert found.notes[0] == "version 1.3; classes in alphabetical order"
    assert "16 of 19,994 videos, 3 of 200 classes" in found.notes[1]
    assert found.notes[2] == "1 videos for testing have no label: they are held back"


def test_trimmed(activitynet):
    """A sample for each segment, which decodes to the frames in it."""
    found = read_activitynet(activitynet, trimmed=True)
    samples = found.samples.samples
    assert found.title == "ActivityNet v1.3, trimmed"
    assert len(samples) == 9 + 3 + 6 + 1
    first, second = samples[:2]
    assert (first.group, first.label) == (second.group, second.label) == (activity_id(0), "Archery")
    assert second.path == f"v1-3/train_val/v_{activity_id(0)}.mp4#t=1.2,1.95"
    assert split_segment(samples[-1].path)[1] is None  # for testing, nothing tells where
    net = Preprocessing(num_frames=4, resize=(40, 48), crop=(40, 48))
    clips = ClipStream(found.samples.root / second.path, ClipPlan(net, clips=2))
    read = [frames.copy() for _, frames in clips]
    assert clips.facts.starts == (12, 16)
    whole = read_video(found.samples.root / split_segment(second.path)[0])
    assert np.array_equal(read[1], whole.frames[16:20])


def test_version_1_2_and_a_file_that_is_named(tmp_path):
    path = write_activitynet(tmp_path, version="1.2", train=1, val=1, test=0, classes=2)
    found = read_activitynet(tmp_path, path)
    assert found.title == "ActivityNet v1.2"
    assert "4 of 9,682 videos, 2 of 100 classes" in found.notes[1]
    (tmp_path / "activity_net.v1-3.min.json").write_text("{}")
    with pytest.raises(
        Pseudo3dError, match=r"2 annotation files may be meant .*different versions; name one with --lists"
    ):
        read_activitynet(tmp_path)
    assert len(read_activitynet(tmp_path, path).samples) == 4


def test_a_version_that_its_classes_belie(tmp_path):
    database = {str(i): annotated((0, 1, f"class {i}")) for i in range(100)}
    notes = read_activitynet(write(tmp_path, database, version="VERSION 1.3")).notes
    assert "by its number of classes it is v1.2, though it says 1.3" in notes
    notes = read_activitynet(write(tmp_path, database, version="VERSION 2.0")).notes
    assert "the paper's is version 1.3" in notes
    assert read_activitynet(write(tmp_path, database)).notes[0].startswith("no version is told")


def test_files_without_v_and_with_other_extensions(activitynet, tmp_path):
    (tmp_path / f"{activity_id(2)}.webm").touch()
    (tmp_path / f"v_{activity_id(1)}.mkv").touch()
    found = read_activitynet(tmp_path, activitynet)
    assert [s.path for s in found.samples.samples] == [f"v_{activity_id(1)}.mkv", f"{activity_id(2)}.webm"]
    assert len(found.missing) == 14
    assert [len(found.missing_from((side,))) for side in ("train", "val", "test")] == [7, 6, 1]
    assert found.missing[0] == f"v_{activity_id(0)}.mp4"
    assert any(note.startswith("14 of 16 listed videos are not below") for note in found.notes)
    assert found.samples.class_names == ACTIVITIES


def test_annotations_alone_when_no_video_is_there(activitynet, tmp_path):
    found = read_activitynet(tmp_path, activitynet, trimmed=True)
    assert len(found.samples) == 19
    assert found.samples.samples[0].path == f"v_{activity_id(0)}.mp4#t=0.25,1.15"
    assert len(found.missing) == 16


def test_several_classes_in_one_video(tmp_path):
    database = {
        "a": annotated((0, 1, "run"), (2, 3, "jump"), (4, 5, "run"), (2, 3, "swim")),
        "b": annotated((0, 1, "run"), (0, 1, "run")),
    }
    a, b = read_activitynet(write(tmp_path, database)).samples.samples
    assert a.labels == ("run", "jump", "swim")
    assert b.labels == ("run",)
    found = read_activitynet(tmp_path, trimmed=True)
    assert [(s.path, s.labels) for s in found.samples.samples] == [
        ("v_a.mp4#t=0,1", ("run",)),
        ("v_a.mp4#t=2,3", ("jump", "swim")),
        ("v_a.mp4#t=4,5", ("run",)),
        ("v_b.mp4#t=0,1", ("run",)),
    ]
    assert "1 annotations stand twice, taken once: b" in found.notes


def test_what_is_odd_is_told_and_not_dropped_silently(tmp_path):
    database = {
        "a": annotated((-1, 4, "run"), (8, 12.5, "run"), duration=10.25),
        "b": annotated((5, 5, "run"), (11, 12, "jump"), (1, 2, "run"), duration=10),
        "c": annotated(subset="validation"),
        "d": annotated((1, 99, "run"), subset="validation"),
        "e": annotated(subset="testing"),
    }
    found = read_activitynet(write(tmp_path, database), trimmed=True)
    assert [s.path for s in found.samples.samples] == [
        "v_a.mp4#t=0,4",
        "v_a.mp4#t=8,10.25",
        "v_b.mp4#t=1,2",
        "v_d.mp4#t=1,99",
        "v_e.mp4",
    ]
    assert "2 segments go beyond their video, cut at its ends: a, a" in found.notes
    assert "2 segments end before they start, or lie behind their video, left out: b, b" in found.notes
    assert "1 videos for training or validation without annotations, left out: c" in found.notes
    whole = read_activitynet(tmp_path)
    assert [s.path for s in whole.samples.samples] == ["v_a.mp4", "v_b.mp4", "v_d.mp4", "v_e.mp4"]
    assert whole.samples.samples[1].labels == ("run", "jump")


@pytest.mark.parametrize(
    ("database", "words"),
    [
        (
            {"a": annotated((0, 1, "run"), subset="trainval")},
            "a: unknown subset 'trainval'; it is training, validation",
        ),
        ({"a": {"subset": "training", "annotations": [{"segment": [0, 1]}]}}, "a: an annotation has no label"),
        ({"a": {"subset": "training", "annotations": [{"segment": 3, "label": "run"}]}}, "a: 3 is no segment"),
        ({"a": annotated((0, None, "run"))}, "is no segment; it is"),
        ({"a": {"subset": "training", "annotations": {}}}, "a: must have a subset and a list of annotations"),
        ({"a": []}, "a: must have a subset"),
        ({"a": annotated((0, 1, "run\ud800"))}, "a: the label 'run.*' is no line of text"),
        ({"a": annotated((0, 1, "run"), subset=["training"])}, "a: unknown subset"),
        ({"a": annotated((0, 10**400, "run"))}, "is no segment; it is"),
        ({"x/y": annotated((0, 1, "run"))}, "x/y: is no YouTube id"),
        ({}, "has no database of videos"),
        ([], "has no database of videos"),
    ],
)
def test_malformed_entries(database, words):
    with pytest.raises(Pseudo3dError, match=words):
        parse_activitynet(json.dumps({"database": database}))


def test_errors(activitynet, tmp_path):
    with pytest.raises(Pseudo3dError, match="activitynet has no split '2'"):
        read_activitynet(activitynet, split="2")
    with pytest.raises(Pseudo3dError, match=r"no activity_net\.v1-3\.min\.json is below"):
        read_activitynet(tmp_path)
    with pytest.raises(Pseudo3dError, match="does not exist: give the annotation file"):
        read_activitynet(activitynet, tmp_path / "no.json")
    with pytest.raises(Pseudo3dError, match="x, line 1: is no JSON"):
        parse_activitynet("{", source="x")
    with pytest.raises(Pseudo3dError, match="x: has no database"):
        parse_activitynet("[]", source="x")
    entry = json.dumps(annotated((0, 1, "run")))
    with pytest.raises(Pseudo3dError, match="has a twice; keep one entry"):
        parse_activitynet(f'{{"database": {{"a": {entry}, "a": {entry}}}}}')
    database = {"database": {"a": annotated((0, 1, "fly"))}, "taxonomy": [{"nodeName": "run"}]}
    with pytest.raises(Pseudo3dError, match="a has the label 'fly', which its taxonomy has not"):
        parse_activitynet(json.dumps(database))
    with pytest.raises(Pseudo3dError, match="its taxonomy is no list of nodes"):
        parse_activitynet(json.dumps({**database, "taxonomy": ["run"]}))
    with pytest.raises(Pseudo3dError, match="no video has a label"):
        read_activitynet(write(tmp_path, {"a": annotated(subset="testing")}))
