"""Our own format: what is written, now or by an earlier version, is read again; what cannot be read is said."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from reference import randomise
from safetensors.torch import save_file
from tiny import names

import pseudo3d
from pseudo3d import Pseudo3dError, create_model, from_pretrained, save_pretrained
from pseudo3d.models import Architecture
from pseudo3d.preprocessing import Preprocessing
from pseudo3d.weights import pretrained
from pseudo3d.weights.sources import open_weights

CONFIGS = Path(__file__).parent / "configs"


@pytest.fixture
def saved(tmp_path):
    model = randomise(create_model("p3d_resnet14", num_classes=3, blocks="CA", dropout=0.4)).eval()
    model.class_names = ("b", "a", "c")
    model.preprocessing = model.preprocessing.with_size(48)
    return model, save_pretrained(model, tmp_path / "saved", facts={"video hit@1": "not measured"})


def test_round_trip(saved):
    model, folder = saved
    for again in (from_pretrained(folder), from_pretrained(str(folder))):
        assert not again.training
        assert again.architecture == model.architecture
        assert again.preprocessing == model.preprocessing
        assert again.class_names == ("b", "a", "c")
        for key, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[key], value), key
    assert names(folder) == ["README.md", "config.json", "model.safetensors"]
    card = (folder / "README.md").read_text()
    assert "| video hit@1 | not measured |" in card
    assert "b, a, c" in card


def test_a_config_of_version_1_loads(tmp_path, monkeypatch):
    """configs/v1.json was written by pseudo3d 0.1.0 and is never changed; a later version adds a file beside it."""
    config = json.loads((CONFIGS / "v1.json").read_text())
    assert config["format_version"] == 1
    model = create_model("p3d_resnet14", num_classes=3, blocks="CA")
    folder = save_pretrained(model, tmp_path / "old")
    shutil.copy(CONFIGS / "v1.json", folder / "config.json")
    for version in (pretrained.FORMAT_VERSION, pretrained.FORMAT_VERSION + 1):
        monkeypatch.setattr(pretrained, "FORMAT_VERSION", version)
        again = from_pretrained(folder)
        assert again.architecture == Architecture("p3d_resnet14", 3, "CA", 3, "caffe", 0.4)
        assert again.class_names == ("left", "right", "none: other")
        assert again.preprocessing == Preprocessing(
            16, (48, 48), (48, 48), (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), "BGR", (0.0, 255.0), "bilinear"
        )
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in again.state_dict().items())


def test_damaged_folders(saved, tmp_path):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())

    def with_config(**changes):
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return folder

    for version, words in (
        (2, "format_version 2, this pseudo3d reads 1; upgrade pseudo3d"),
        (None, "format_version None: it was not written by pseudo3d; give a folder that save_pretrained"),
        (0, "format_version 0: it was not written by pseudo3d"),
        ("1", "format_version 1: it was not written by pseudo3d"),
        (True, "format_version True: it was not written by pseudo3d"),
    ):
        with pytest.raises(Pseudo3dError, match=re.escape(words)):
            from_pretrained(with_config(format_version=version))
    with pytest.raises(Pseudo3dError, match="2 class names for 3 classes"):
        from_pretrained(with_config(class_names=["a", "b"]))
    with pytest.raises(Pseudo3dError, match=r"preprocessing has unknown fields \['flip'\]"):
        from_pretrained(with_config(preprocessing={"flip": True}))
    with pytest.raises(Pseudo3dError, match="lacks or adds a field"):
        from_pretrained(with_config(architecture={"name": "resnet14"}))
    (folder / "config.json").write_text("{")
    with pytest.raises(Pseudo3dError, match="not valid JSON"):
        from_pretrained(folder)
    with_config()
    (folder / "model.safetensors").unlink()
    with pytest.raises(Pseudo3dError, match=r"model\.safetensors: no such file"):
        from_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(Pseudo3dError, match=r"has no config\.json"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("class_names", "abc", "class_names must be null or a list of texts, got 'abc'; was it edited by hand"),
        ("class_names", [1, 2, 3], "class_names must be null or a list of texts, got a list of 3"),
        ("class_names", ["a", "b", "a"], "a stands twice in class_names; correct config"),
        ("class_names", [], "class_names must be null or a list of texts, got a list of 0"),
        ("sampler", [], "sampler must be an object, got a list of 0"),
        ("extra", 1, r"its config lacks or adds a field \(extra\)"),
        ("extra\x1b", 1, r"its config lacks or adds a field \('extra\\x1b'\)"),
        ("architecture", None, "architecture must be an object, got None"),
        ("architecture", [], "architecture must be an object, got a list of 0"),
        ("architecture.depth", 3, r"its config lacks or adds a field \(depth\)"),
        ("architecture.name", ["a"], "name must be a text, got a list of 1"),
        ("architecture.name", "p3d_resnet15", r"config\.json: no model 'p3d_resnet15'; did you mean 'p3d_resnet1"),
        ("architecture.num_classes", "3", "num_classes must be a positive whole number, got '3'"),
        ("architecture.num_classes", True, "num_classes must be a positive whole number, got True"),
        ("architecture.num_classes", 10**12, "num_classes must be a positive whole number, got 1000000000000"),
        ("architecture.num_classes", 10**8, "3 class names for 100000000 classes"),
        ("architecture.in_channels", 2, "the mean has 3 numbers for 2 input channels"),
        ("architecture.dropout", None, "dropout must be a number, got None"),
        ("architecture.dropout", 1.5, r"saved: num_classes and in_channels must .* dropout in \[0, 1\)"),
        ("architecture.blocks", "ABC", "the arrays are for 'caffe CA', the config says 'caffe ABC'; copy the whole"),
        (
            "architecture.blocks",
            "AC",
            "do not belong together: the arrays are for 'caffe CA', the config says 'caffe AC'",
        ),
        ("architecture.style", "port", "the arrays are for 'caffe CA', the config says 'port CA'"),
        ("preprocessing", [], "preprocessing must be an object, got a list of 0"),
        ("preprocessing.mean", "abc", r"config\.json: mean must be a list of numbers, got 'abc'"),
        ("preprocessing.mean", [1, 2], "mean and std need one number a channel"),
        ("preprocessing.mean", [1, 2, float("nan")], "mean must be a list of numbers, got a list of 3"),
        ("preprocessing.num_frames", "16", "num_frames must be a positive whole number, got '16'"),
        ("preprocessing.resize", [1], r"resize must be a number or \[height, width\], got a list of 1"),
        ("preprocessing.crop", 48, r"crop must be \[height, width\], got 48"),
        ("preprocessing.value_range", None, r"value_range must be \[low, high\], got None"),
        ("preprocessing.channel_order", {}, "channel_order must be a text, got an object"),
        ("preprocessing.channel_order", "GBR", r"config\.json: channel_order must be 'RGB' or 'BGR', got 'GBR'"),
    ],
)
def test_fields_of_another_kind(saved, path, value, words):
    """Whoever opens the folder, as what it is or as any weights, gets the same line."""
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    *outer, key = path.split(".")
    (config[outer[0]] if outer else config)[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(Pseudo3dError, match=words) as caught:
        from_pretrained(folder)
    assert str(caught.value).isprintable()
    if value != 1.5:  # which only the network that is built refuses
        with pytest.raises(Pseudo3dError, match=words):
            open_weights(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, r"not valid JSON \(nested too deep\)"),
        ("3", "format_version None: it was not written by pseudo3d"),
        ("1" * 5000, "not valid JSON"),
        ('{"format_version": 1}', r"lacks or adds a field \(architecture, class_names, preprocessing, \.\.\.\)"),
    ],
)
def test_a_config_that_is_none(saved, text, words):
    _, folder = saved
    (folder / "config.json").write_text(text)
    with pytest.raises(Pseudo3dError, match=rf"config\.json: .*{words}"):
        from_pretrained(folder)


def test_arrays_that_are_not_the_configs(saved):
    model, folder = saved
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    for changed, words in (
        ({**state, "layout": torch.zeros(3, dtype=torch.uint8)}, "saved: its layout array is damaged"),
        ({k: v for k, v in state.items() if k != "layout"}, "do not belong together: the array layout is not there"),
        (
            {"a": torch.zeros(1)},
            r"the arrays are of no network of ours, the config is of p3d_resnet14 \(3 classes, 3 in",
        ),
        ({k: v for k, v in state.items() if k != "res3.0.bn_a.bias"}, r"they differ in res3\.0\.bn_a\.bias"),
    ):
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(Pseudo3dError, match=words):
            from_pretrained(folder)


def test_a_newer_pseudo3d_reads_all_before(saved, monkeypatch):
    monkeypatch.setattr(pretrained, "FORMAT_VERSION", 3)
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format_version": 4}))
    with pytest.raises(Pseudo3dError, match=r"format_version 4, this pseudo3d reads 1 to 3; upgrade pseudo3d$"):
        from_pretrained(folder)


def test_a_folder_that_is_not_there(tmp_path, monkeypatch):
    (tmp_path / "runs" / "first" / "checkpoints" / "best").mkdir(parents=True)
    (tmp_path / "runs" / "first.txt").write_text("no folder")
    (tmp_path / "runs" / "fist").mkdir()
    monkeypatch.chdir(tmp_path)
    end = "; give a folder that save_pretrained or `p3d train` wrote, or an id of the Hugging Face hub, owner/name$"
    for given, words in (
        ("runs/first/checkpoints/bset", r"bset: no such folder \(did you mean runs/first/checkpoints/best\?\)"),
        ("runs/frst/checkpoints/best", r"best: no such folder \(did you mean runs/first or runs/fist\?\)"),
        (Path("rnus/first"), r"rnus/first: no such folder \(did you mean runs\?\)"),
        (tmp_path / "run", r"run: no such folder \(did you mean .*/runs\?\)"),
        ("nowhere", "nowhere: no such folder"),
        ("/no/such/place", "/no/such/place: no such folder"),
    ):
        with pytest.raises(Pseudo3dError, match=words + end):
            from_pretrained(given)
    with pytest.raises(
        Pseudo3dError, match=r"first\.txt: is a file; give the folder it lies in, or load_model a name and"
    ):
        from_pretrained(tmp_path / "runs" / "first.txt")


def test_a_full_disk_leaves_the_old_weights_whole(saved, monkeypatch):
    model, folder = saved
    before = (folder / "model.safetensors").read_bytes()

    def full(_state, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pseudo3d.weights.pretrained, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_pretrained(model, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert len(list(folder.iterdir())) == 3
