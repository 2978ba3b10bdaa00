"""YUPENN and Dynamic Scene in small, and the sets that may be taken for them."""

import pytest
from official_more_sets import DYNAMIC_SCENE, YUPENN, write_dynamic_scene, write_yupenn

from pseudo3d import Pseudo3dError, read_video
from pseudo3d.data.official.scenes import DYNAMIC_SCENE_CLASSES, YUPENN_CLASSES, read_dynamic_scene, read_yupenn


def touch(folder, *paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def test_yupenn(tmp_path):
    found = read_yupenn(write_yupenn(tmp_path))
    assert (found.name, found.title) == ("yupenn", "YUPENN")
    assert len(found.samples) == 12
    assert found.samples.class_names == ("Beach", "Elevator", "Forest fire")
    assert {s.label for s in found.samples.samples} == set(found.samples.class_names)
    assert all(s.split is None for s in found.samples.samples)
    assert all(s.path.startswith(s.label.replace(" ", "_")) for s in found.samples.samples)
    assert len(read_video(found.samples.root / found.samples.samples[5].path)) == 20
    assert found.notes[0] == "an excerpt: 3 of 14 classes, without Fountain, Highway, Lightning storm, ..."
    assert "another number of videos than 30: Beach 4, Elevator 4, Forest fire 4" in found.notes[1]


def test_dynamic_scene(tmp_path):
    found = read_dynamic_scene(write_dynamic_scene(tmp_path, classes=2, videos=3))
    assert (found.name, found.title, len(found.samples)) == ("dynamic-scene", "Dynamic Scene", 6)
    assert found.samples.class_names == ("Avalanche", "Boiling water")
    assert "than 10: Avalanche 3" in found.notes[1]


@pytest.mark.parametrize(
    ("read", "folders", "classes", "videos"),
    [(read_yupenn, YUPENN, YUPENN_CLASSES, 30), (read_dynamic_scene, DYNAMIC_SCENE, DYNAMIC_SCENE_CLASSES, 10)],
)
def test_the_official_counts_need_no_note(tmp_path, read, folders, classes, videos):
    touch(tmp_path, *(f"data/{name}/{i}.avi" for name in folders for i in range(videos)))
    found = read(tmp_path)
    assert found.notes == ()
    assert found.samples.class_names == classes == tuple(sorted(classes))
    assert len(found.samples) == videos * len(folders)


def test_folders_are_told_by_letters_alone_at_any_depth(tmp_path):
    touch(tmp_path, "a/WindmillFarm/1.mov", "a/windmill-farm/x/2.mov", "Sky_Clouds/3.avi", "stray.avi", "else/4.avi")
    found = read_yupenn(tmp_path)
    assert [(s.path, s.label) for s in found.samples.samples] == [
        ("Sky_Clouds/3.avi", "Sky-clouds"),
        ("a/WindmillFarm/1.mov", "Windmill farm"),
        ("a/windmill-farm/x/2.mov", "Windmill farm"),
    ]
    assert found.notes[-1] == "2 videos lie in no class's folder, left out: else/4.avi, stray.avi"


def test_other_sets_are_named(tmp_path):
    yupp = touch(tmp_path / "yupp", "static_camera/Beach/1.mp4", "moving_camera/Beach/1.mp4")
    with pytest.raises(Pseudo3dError, match=r"is YUP\+\+ .*by its folders movingcamera, staticcamera, and not YUPENN"):
        read_yupenn(yupp)
    with pytest.raises(Pseudo3dError, match=r"is YUP\+\+ .*staticcamera"):
        read_yupenn(yupp / "static_camera")
    more = touch(tmp_path / "more", "Beach/1.mp4", "FallingTrees/1.mp4")
    with pytest.raises(Pseudo3dError, match=r"is YUP\+\+ .*by its class 'Falling trees'"):
        read_yupenn(more)
    with pytest.raises(Pseudo3dError, match=r"is Dynamic Scene, by its class 'Avalanche', and not YUPENN"):
        read_yupenn(touch(tmp_path / "a", "Avalanche/1.mp4", "Waterfall/1.mp4"))
    with pytest.raises(Pseudo3dError, match=r"is YUPENN, by its class 'Beach', and not Dynamic Scene"):
        read_dynamic_scene(touch(tmp_path / "b", "Beach/1.mp4"))


def test_errors(tmp_path):
    with pytest.raises(Pseudo3dError, match="yupenn has no split '2'"):
        read_yupenn(tmp_path, split="2")
    with pytest.raises(Pseudo3dError, match="has no lists: its folders are its classes"):
        read_dynamic_scene(tmp_path, lists=tmp_path)
    with pytest.raises(Pseudo3dError, match="is no folder"):
        read_yupenn(tmp_path / "no")
    with pytest.raises(Pseudo3dError, match=r"no videos below .* YUPENN has 14 folders"):
        read_yupenn(tmp_path)
    touch(tmp_path, "kitchen/1.mp4")
    with pytest.raises(Pseudo3dError, match=r"has no folder of a class of YUPENN \(Beach, Elevator, Forest fire"):
        read_yupenn(tmp_path)
