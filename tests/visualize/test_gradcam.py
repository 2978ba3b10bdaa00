"""Grad-CAM against the chain rule done by hand, and what the command writes."""

import tracemalloc

import matplotlib as mpl
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy.ndimage import map_coordinates
from tiny import mistake, p3d, slim_c3d
from videos import numbered, write_video

from pseudo3d import Pseudo3dError, create_model, read_video, save_pretrained
from pseudo3d.commands.gradcam import _stems
from pseudo3d.models.blocks import clip_to_frames, frames_to_clip, temporal_max_pool
from pseudo3d.video import decode
from pseudo3d.visualize.gradcam import explain_frames, grad_cam, mean_probabilities, overlay
from pseudo3d.visualize.gradcam_sheet import save_gradcam_sheet


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = create_model("p3d_resnet14", num_classes=4).eval()
    model.preprocessing = model.preprocessing.with_size(32)
    model.class_names = ("up", "down", "left", "tai chi")
    for name, value in model.named_parameters():
        if name.endswith("bn4.weight"):
            value.data.fill_(0.3)
    return model


@pytest.fixture(scope="module")
def clips():
    return 40 * torch.randn(2, 3, 16, 64, 64, generator=torch.Generator().manual_seed(1))


def enlarged(maps, clips, *centres):
    """Each place of the clips between the nearest cells, by SciPy; ``centres``: first and step of each axis."""
    axes = [(np.arange(n) - first) / step for n, (first, step) in zip(clips.shape[2:], centres, strict=True)]
    places = np.meshgrid(*axes, indexing="ij")
    found = [map_coordinates(one, places, order=1, mode="nearest") for one in maps.detach().double().numpy()]
    return torch.from_numpy(np.stack(found)).float()


@torch.no_grad()
def test_on_res5_it_is_the_head_over_the_number_of_places(network, clips):
    """From res5 on there is a mean and a matrix: the gradient of class c is row c of it over the number of places."""
    targets = torch.tensor([3, 1])
    activations = network.forward_features(clips, ("res5",))["res5"]
    rows = network.fc.weight[targets] / activations[0, 0].numel()
    expected = torch.einsum("nk,nkthw->nthw", rows, activations).relu()
    found = grad_cam(network, clips, targets)
    torch.testing.assert_close(found, enlarged(expected, clips, (7.5, 16), (2, 32), (2, 32)), rtol=1e-4, atol=1e-7)
    assert found.max() > 0


def test_on_res4_it_is_the_gradient_of_the_layers_above(network, clips):
    activations = network.forward_features(clips, ("res4",))["res4"].detach().requires_grad_()
    steps = activations.shape[2]
    frames = temporal_max_pool(clip_to_frames(activations))
    top = frames_to_clip(network.res5(frames, steps // 2), steps // 2)
    score = network.fc(top.mean(dim=(2, 3, 4)))[[0, 1], [2, 0]].sum()
    (gradient,) = torch.autograd.grad(score, activations)
    weights = gradient.mean(dim=(2, 3, 4))
    expected = torch.einsum("nk,nkthw->nthw", weights, activations.detach()).relu()
    found = grad_cam(network, clips, torch.tensor([2, 0]), layer="res4")
    torch.testing.assert_close(found, enlarged(expected, clips, (3.5, 8), (2, 16), (2, 16)), rtol=1e-4, atol=1e-7)
    assert (found[:, 0] - found[:, -1]).abs().max() > 0  # it has a time


def test_frozen_weights_and_no_grad_make_no_difference(network, clips):
    expected = grad_cam(network, clips, torch.tensor([0, 0]))
    network.requires_grad_(False)
    try:
        with torch.no_grad():
            found = grad_cam(network, clips, torch.tensor([0, 0]))
    finally:
        network.requires_grad_(True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_c3d():
    model = slim_c3d().eval()
    clips = 30 * torch.randn(1, 3, 16, 112, 112, generator=torch.Generator().manual_seed(0))
    activations = model.forward_features(clips, ("conv5b",))["conv5b"].detach().requires_grad_()
    features = {}
    model.classify(activations, features, ("logits",))
    (gradient,) = torch.autograd.grad(features["logits"][0, 2], activations)
    expected = (gradient.mean(dim=(2, 3, 4))[0, :, None, None, None] * activations[0].detach()).sum(0).relu()
    found = grad_cam(model, clips, torch.tensor([2]), layer="conv5b")
    evenly = F.interpolate(expected[None, None], size=clips.shape[2:], mode="trilinear")[0]
    torch.testing.assert_close(found, evenly, rtol=1e-4, atol=1e-8)


@pytest.fixture(scope="module", params=["caffe", "torchvision"])
def frame_network(request):
    torch.manual_seed(1)
    return create_model("resnet14", num_classes=3, style=request.param).eval()


@torch.no_grad()
def test_frame_network_on_res5_is_its_head_frame_by_frame(frame_network):
    """The score is the mean over frames and places of what fc says of each."""
    clips = torch.randn(2, 3, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    targets = torch.tensor([1, 2])
    activations = frame_network.forward_features(clips, ("res5",))["res5"]
    rows = frame_network.fc.weight[targets] / activations[0, 0].numel()
    expected = torch.einsum("nk,nkthw->nthw", rows, activations).relu()
    first = 2 if frame_network.stem.style == "caffe" else 0
    found = grad_cam(frame_network, clips, targets)
    assert found.max() > 0
    assert (found[:, 0] - found[:, 1]).abs().max() > 0
    torch.testing.assert_close(found, enlarged(expected, clips, (0, 1), (first, 32), (first, 32)), rtol=1e-4, atol=1e-8)
    alone = grad_cam(frame_network, clips[:, :, 1:2], targets)  # of three frames, each has a third of the score
    torch.testing.assert_close(found[:, 1:2], alone / 3, rtol=1e-3, atol=1e-8)


def test_frame_network_on_res4_is_the_gradient_of_the_layers_above(frame_network):
    clips = torch.randn(1, 3, 1, 64, 96, generator=torch.Generator().manual_seed(3))
    activations = frame_network.forward_features(clips, ("res4",))["res4"].detach()[:, :, 0].requires_grad_()
    score = frame_network.fc(frame_network.res5(activations, 1).mean(dim=(2, 3)))[0, 0]
    (gradient,) = torch.autograd.grad(score, activations)
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1).relu()
    first = 2 if frame_network.stem.style == "caffe" else 0
    found = grad_cam(frame_network, clips, torch.tensor([0]), layer="res4")
    wanted = enlarged(expected[:, None], clips, (0, 1), (first, 16), (first, 16))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-8)


def test_layers_without_places(network, clips):
    with pytest.raises(Pseudo3dError, match="pool5 has no places to show; take one of res2, res3, res4, res5"):
        grad_cam(network, clips, torch.tensor([0, 0]), layer="pool5")
    with pytest.raises(Pseudo3dError, match="no layer 'res6'"):
        grad_cam(network, clips, torch.tensor([0, 0]), layer="res6")


def test_a_video_is_the_mean_of_its_clips(network):
    """20 frames, clips at 0 and 4: frames 4 to 15 are in both."""
    frames = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    starts = np.stack([np.arange(16), np.arange(4, 20)])
    alone = [explain_frames(network, frames, starts[i : i + 1], 1, layer="res4") for i in range(2)]
    both = explain_frames(network, frames, starts, 1, layer="res4")
    np.testing.assert_allclose(both[:4], alone[0][:4], rtol=1e-5)
    np.testing.assert_allclose(both[16:], alone[1][16:], rtol=1e-5)
    np.testing.assert_allclose(both[4:16], (alone[0] + alone[1])[4:16] / 2, rtol=1e-5, atol=1e-8)
    assert (alone[0][16:] == 0).all()
    assert mean_probabilities(network, frames, starts).sum() == pytest.approx(1, abs=1e-5)


def test_overlay_is_one_scale_for_the_video():
    frames = np.full((2, 1, 2, 3), 100, np.uint8)
    maps = np.array([[[0, 1]], [[0, 4]]], np.float32)
    drawn = overlay(frames, maps, strength=1.0)
    assert (drawn[:, 0, 0] == 100).all()
    assert drawn[1, 0, 1].astype(int).sum() > drawn[0, 0, 1].astype(int).sum()  # from dark to light
    assert (overlay(frames, np.zeros((2, 1, 2), np.float32)) == 100).all()


def test_overlay_is_the_formula_at_every_pixel():
    """Drawn frame by frame, in little memory: the same as all at once."""
    rng = np.random.default_rng(0)
    frames, maps = rng.integers(0, 256, (5, 6, 7, 3), np.uint8), rng.uniform(0, 3, (5, 6, 7)).astype(np.float32)
    share = maps / maps.max()
    colours = mpl.colormaps["plasma"](share)[..., :3] * 255
    grey = frames.astype(float) @ [[0.299], [0.587], [0.114]]
    cover = np.clip(4 * share, 0, 1)[..., None] * 0.6
    expected = grey * (1 - cover) + cover * colours
    assert np.abs(overlay(frames, maps) - expected).max() < 4  # 256 colours


def test_a_weak_map_is_to_be_seen_and_nothing_else_has_a_colour():
    frames = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), np.uint8)
    maps = np.zeros((1, 4, 4), np.float32)
    maps[0, 0, 0], maps[0, 0, 1] = 1, 0.15
    spread = np.ptp(overlay(frames, maps)[0].astype(int), axis=-1)
    assert (spread[1:] == 0).all()
    assert spread[0, 1] > 40


def test_overlay_of_a_long_video_needs_little_memory():
    frames, maps = np.zeros((100, 100, 100, 3), np.uint8), np.ones((100, 100, 100), np.float32)
    overlay(frames[:1], maps[:1])
    tracemalloc.start()
    try:
        overlay(frames, maps)
        assert tracemalloc.get_traced_memory()[1] < 3 * frames.nbytes
    finally:
        tracemalloc.stop()


def test_command(network, tmp_path, capsys):
    save_pretrained(network, tmp_path / "net")
    video = write_video(tmp_path / "a b.mkv", numbered(21, 40, 48))
    code, out, _ = p3d(capsys, "visualize", "gradcam", video, "--weights", tmp_path / "net", "--out", tmp_path / "maps",
                       "--target", "tai chi", "--device", "cpu")  # fmt: skip
    assert code == 0
    assert "a_b.mp4: tai chi, probability " in out
    assert read_video(tmp_path / "maps" / "a_b.mp4").frames.shape == (21, 32, 64, 3)
    assert Image.open(tmp_path / "maps" / "a_b.png").width == 2 * 2 * 160 + 3 * 20  # enlarged five times
    assert p3d(capsys, "visualize", "gradcam", video, "--weights", tmp_path / "net", "--out", tmp_path / "two")[0] == 0


def test_sheet_says_what_it_shows(tmp_path, monkeypatch):
    """Class, probability, times and scale; pairs stand apart; the maps are on the scale of the whole video."""
    said = []
    draw = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, place, text, **more: (said.append(text), draw(self, place, text, **more)),
    )
    frames = np.full((30, 160, 160, 3), 90, np.uint8)
    maps = np.zeros((30, 160, 160), np.float32)
    maps[20], maps[5] = 0.5, 0.125
    path = save_gradcam_sheet(
        frames, maps, [0, 5, 20], [0.0, 1.25, 61.0], tmp_path / "new" / "sheet.png", title="tai chi, probability 83.2%",
        note="Grad-CAM on res5: a.mp4",
    )  # fmt: skip
    assert said == [
        "tai chi, probability 83.2%", "Grad-CAM on res5: a.mp4", "0:00.0", "0:01.2", "1:01.0", "0", "0.5, the highest",
        "speaks for the class",
    ]  # fmt: skip
    sheet = np.array(Image.open(path)).astype(int)
    colours = mpl.colormaps["plasma"]([0.25, 1.0])[:, :3] * 255
    for share, colour in zip((0.25, 1.0), colours, strict=True):
        expected = np.round(90 * 0.4 + 0.6 * colour)
        places = np.argwhere((np.abs(sheet - expected) <= 2).all(axis=-1))
        assert len(places) >= 160 * 160, share
    row = sheet[(sheet[:, 100] == 90).all(axis=-1).argmax() + 80]
    white = (row == 255).all(axis=-1)
    assert white[340:360].all()  # between the pairs
    assert not white[20:340].any()
    monkeypatch.undo()


def test_sheet_of_a_map_that_is_0(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, place, text, **more: said.append(text))
    save_gradcam_sheet(np.zeros((1, 8, 9, 3), np.uint8), np.zeros((1, 8, 9), np.float32), [0], [0.0],
                       tmp_path / "a.png", title="x" * 500)  # fmt: skip
    assert len(said[0]) < 60
    assert "…" in said[0]
    assert said[-1].startswith("nothing speaks")


def test_command_mistakes(network, tmp_path, capsys):
    save_pretrained(network, tmp_path / "net")
    video = write_video(tmp_path / "a.mkv", numbered(17, 40, 48))
    more = ("--weights", tmp_path / "net", "--out", tmp_path / "maps")
    assert "give at least one video" in mistake(capsys, "visualize", "gradcam", *more)
    assert "no class 'tai'; did you mean 'tai chi'" in mistake(
        capsys, "visualize", "gradcam", video, *more, "--target", "tai"
    )
    assert "pool5 has no places" in mistake(capsys, "visualize", "gradcam", video, *more, "--layer", "pool5")
    code, _, err = p3d(capsys, "visualize", "gradcam", video, tmp_path / "gone.mkv", *more)
    assert code == 1
    assert "gone.mkv" in err[0]


def test_command_writes_over_no_video(network, tmp_path, capsys):
    """NAME.mp4 beside NAME.mp4 would be the video itself."""
    save_pretrained(network, tmp_path / "net")
    video = write_video(tmp_path / "a.mp4", numbered(17, 40, 48), codec="libx264", pix_fmt="yuv420p")
    before = video.read_bytes()
    said = mistake(capsys, "visualize", "gradcam", video, "--weights", tmp_path / "net", "--out", tmp_path)
    assert "a.mp4 is one of the videos and would be overwritten" in said
    assert video.read_bytes() == before


def test_command_writes_over_nothing_of_others(network, tmp_path, capsys):
    """Its own pictures are drawn anew."""
    save_pretrained(network, tmp_path / "net")
    video, out = write_video(tmp_path / "a.mkv", numbered(17, 40, 48)), tmp_path / "maps"
    command = ("visualize", "gradcam", video, "--weights", tmp_path / "net", "--device", "cpu", "--out", out)
    assert p3d(capsys, *command)[0] == 0
    assert p3d(capsys, *command)[0] == 0
    for name in ("a.png", "a.mp4"):
        ours = (out / name).read_bytes()
        (out / name).write_bytes(b"precious")
        assert f"{name} is there and not of p3d visualize; choose another folder" in mistake(capsys, *command)
        assert (out / name).read_bytes() == b"precious"
        (out / name).write_bytes(ours)


def test_results_of_videos_and_segments_keep_apart(tmp_path):
    videos = ("x/a.mp4", "y/a.mp4", "z/a_2.mp4", "b.mp4#t=10.5,20", "b.mp4#t=3", "v1.0.avi")
    assert [stem.name for stem in _stems(videos, tmp_path)] == ["a_1", "a_2_", "a_2", "b_10_5-20", "b_3-inf", "v1_0"]


def test_a_long_video_is_refused_before_it_is_read(network, tmp_path, capsys, monkeypatch):
    save_pretrained(network, tmp_path / "net")
    video = write_video(tmp_path / "a.mkv", numbered(21, 40, 48), fps=10)
    monkeypatch.setattr("pseudo3d.commands.gradcam.MOST_FRAMES", 18)
    read = []
    whole = decode.read_video
    monkeypatch.setattr(decode, "read_video", lambda *args, **more: read.append(args) or whole(*args, **more))
    more = ("--weights", tmp_path / "net", "--out", tmp_path / "maps", "--device", "cpu")
    code, _, err = p3d(capsys, "visualize", "gradcam", video, *more)
    assert (code, read) == (2, [])  # nothing was done
    assert "21 frames, and at most 18 are drawn; name a part" in err[0]
    assert p3d(capsys, "visualize", "gradcam", f"{video}#t=0,1.7", *more)[0] == 0
    assert read_video(tmp_path / "maps" / "a_0-1_7.mp4").frames.shape[0] == 17


def test_every_frame_has_a_map(network, tmp_path, capsys):
    save_pretrained(network, tmp_path / "net")
    video = write_video(tmp_path / "a.mkv", numbered(17, 40, 48))
    said = mistake(capsys, "visualize", "gradcam", video, "--weights", tmp_path / "net", "--out", tmp_path / "maps",
                   "--stride", "17")  # fmt: skip
    assert "--stride 17: frames between clips of 16 would have no map; take at most 16" in said
