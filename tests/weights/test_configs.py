"""Configs in metadata, of timm, of transformers and of nobody: what is our ResNet opens, the others are refused."""

import json

import pytest
from reference import randomise, torchvision_state
from safetensors.torch import save_file

from pseudo3d import Pseudo3dError, create_model, load_model
from pseudo3d.weights.pretrained import model_config
from pseudo3d.weights.sources import open_weights


@pytest.fixture(scope="module")
def frames():
    return randomise(create_model("resnet14", num_classes=3, style="torchvision"))


@pytest.fixture(scope="module")
def state(frames):
    return {key: value.contiguous() for key, value in torchvision_state(frames).items()}


def refused(source, words):
    """One line with these words, which no terminal obeys."""
    with pytest.raises(Pseudo3dError, match=words) as caught:
        open_weights(source)
    assert str(caught.value).isprintable()


def folder_of(tmp_path, state, config, processor=None):
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if processor is not None:
        (tmp_path / "preprocessor_config.json").write_text(processor)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["resnet50", "tv_resnet50", "gluon_resnet50_v1b", "resnet152", "swsl_resnet50", "ssl_resnet50", "resnet14"]
)
def test_timms_resnets(state, tmp_path, name):
    config = {"architecture": name, "pretrained_cfg": None, "model_args": {"num_classes": 3, "output_stride": 32}}
    assert open_weights(folder_of(tmp_path, state, config)).kind == "torchvision"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        *(
            ({"architecture": name}, rf"architecture '{name}' is not a ResNet of ours; of timm's, resnet50, ")
            for name in ("resnet50d", "resnetblur50", "gluon_resnet50_v1c", "seresnet50", "resnetaa50", "resnet18")
        ),
        ({}, "architecture None is not a ResNet of ours"),
        ({"model_args": {"act_layer": "silu"}}, "act_layer is 'silu', with which timm computes something else"),
        ({"model_args": {"block_args": {"attn_layer": "se"}}}, "block_args is an object, with which timm"),
        ({"model_args": {"output_stride": 16}}, "output_stride is 16, with which timm computes something else"),
        ({"model_args": {"avg_down": True}}, "avg_down is True, with which timm computes something else"),
        ({"model_args": []}, None),
        ({"model_args": [1]}, "model_args must be an object, got a list of 1"),
        ({"global_pool": "max"}, "global_pool is 'max', with which timm"),
        ({"pretrained_cfg": [1]}, "pretrained_cfg must be an object, got a list of 1"),
        ({"pretrained_cfg": {"mean": [0.5]}}, "mean must be three numbers, one a colour, got a list of 1"),
        ({"pretrained_cfg": {"std": "abc"}}, "std must be three numbers, one a colour, got 'abc'"),
        ({"pretrained_cfg": {"std": [0, 1, 1]}}, "std must be above 0"),
    ],
)
def test_timm_configs(state, tmp_path, config, words):
    base = {"pretrained_cfg": {}} if not config or "architecture" in config else {"architecture": "resnet50"}
    folder = folder_of(tmp_path, state, {"pretrained_cfg": {}, **base, **config})
    if words is None:
        assert open_weights(folder).kind == "torchvision"
    else:
        refused(folder, words)


@pytest.mark.parametrize(
    ("config", "processor", "words"),
    [
        ({"model_type": "resnet"}, None, None),
        ({"model_type": "regnet"}, None, "model_type 'regnet' is not a ResNet of ours"),
        ({"layer_type": "basic"}, None, 'layer_type is "basic", the ResNets here have "bottleneck"'),
        ({"hidden_act": "gelu"}, None, 'hidden_act is "gelu", the ResNets here have "relu"'),
        ({"downsample_in_first_stage": True}, None, "downsample_in_first_stage is true, the ResNets here have false"),
        ({"downsample_in_bottleneck": True}, None, "downsample_in_bottleneck is true, .*; no style fits"),
        ({"embedding_size": 32}, None, "embedding_size is 32, .* has another stem; no style fits"),
        ({"hidden_sizes": [64, 128, 256, 512]}, None, r"hidden_sizes is \[64, 128, 256, 512\], the ResNets here have"),
        ({"id2label": {"a": "b"}}, None, "id2label must have whole numbers for keys"),
        ({"id2label": {"0": 1}}, None, "the class names must be texts"),
        ({}, "[]", r"preprocessor_config\.json: must be an object, is a list of 0"),
        ({}, "{", r"preprocessor_config\.json: not valid JSON"),
        ({}, '{"image_mean": [1, 2]}', r"preprocessor_config\.json: image_mean must be three numbers"),
        ({}, '{"image_std": [1, 2, NaN]}', r"preprocessor_config\.json: image_std must be three numbers"),
    ],
)
def test_hugging_face_configs(state, tmp_path, config, processor, words):
    """The arrays may have any names of a 2-D ResNet; the config is what is judged."""
    folder = folder_of(tmp_path, state, {"model_type": "resnet", **config}, processor)
    if words is None:
        assert open_weights(folder).kind == "torchvision"
    else:
        refused(folder, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, r"config\.json: not valid JSON \(nested too deep\)"),
        ("{", r"config\.json: not valid JSON"),
        ("[]", r"config\.json: format_version None"),
        ('"model_type"', r"config\.json: format_version None"),
        ("1" * 5000, r"config\.json: not valid JSON"),
    ],
)
def test_configs_of_nobody(state, tmp_path, text, words):
    refused(folder_of(tmp_path, state, text), words)


def test_class_names_of_the_hub_are_made_to_differ(state, tmp_path):
    labels = {"0": "crane", "2": "crane", "1": "maillot"}
    model = load_model("auto", folder_of(tmp_path, state, {"model_type": "resnet", "id2label": labels}))
    assert model.class_names == ("crane (0)", "maillot", "crane (2)")


def lone(path, frames, config):
    """A lone file of ours with this in place of its config."""
    arrays = {key: value.contiguous() for key, value in frames.state_dict().items()}
    save_file(arrays, path, metadata=None if config is None else {"pseudo3d": config})
    return path


def test_the_metadata_of_a_lone_file(frames, tmp_path):
    config = model_config(frames)
    assert open_weights(lone(tmp_path / "a", frames, None)).config == {}
    assert open_weights(lone(tmp_path / "a", frames, json.dumps(config))).config == config
    for text, words in (
        ("{", r"\(its metadata\): not valid JSON"),
        ("[" * 100_000, r"\(its metadata\): not valid JSON \(nested too deep\)"),
        ("[]", r"\(its metadata\): format_version None: it was not written by pseudo3d"),
        (json.dumps({**config, "format_version": 2}), "format_version 2, this pseudo3d reads 1; upgrade pseudo3d"),
        (json.dumps({**config, "class_names": "abc"}), "class_names must be null or a list of texts, got 'abc'"),
        (json.dumps({**config, "preprocessing": 3}), "preprocessing must be an object, got 3"),
        (
            json.dumps({**config, "architecture": {**config["architecture"], "style": "caffe"}}),
            "its arrays and its metadata do not belong together: the arrays are for 'torchvision 2D', the config says "
            "'caffe 2D'; copy the file again",
        ),
    ):
        refused(lone(tmp_path / "a", frames, text), words)
