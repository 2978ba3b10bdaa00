"""Anything that can be given as weights: it opens by its content, or one harmless line says why not."""

import json
import os
import pickle
import re
import struct
import threading
import zipfile

import numpy as np
import pytest
import torch
from reference import randomise, torchvision_state
from safetensors.torch import save_file

from pseudo3d import Pseudo3dError, create_model, load_model, save_pretrained
from pseudo3d.errors import first_few
from pseudo3d.weights.arrays import Arrays
from pseudo3d.weights.caffemodel import CaffeLayer, write_caffemodel
from pseudo3d.weights.export import export_caffemodel
from pseudo3d.weights.sources import class_names_from, near_names, open_weights


@pytest.fixture(scope="module")
def frames():
    return randomise(create_model("resnet14", num_classes=3, style="torchvision")).eval()


@pytest.fixture(scope="module")
def state(frames):
    return {key: value.contiguous() for key, value in torchvision_state(frames).items()}


def refused(source, words, **options):
    """One line with these words, which no terminal obeys."""
    with pytest.raises(Pseudo3dError, match=words) as caught:
        open_weights(source, **options)
    line = str(caught.value)
    assert line.isprintable()
    assert "weights_only" not in line
    return line


def test_to_ask_for_a_name_reads_nothing():
    def read():
        raise AssertionError("read")

    arrays = Arrays({"a": ((1,), read)})
    assert "a" in arrays
    assert "b" not in arrays
    assert 3 not in arrays


def test_styles(state, frames):
    assert open_weights(state).styles == ("torchvision",)
    assert open_weights(frames.state_dict()).styles == ("torchvision",)
    port = {"conv1_custom.weight": torch.zeros(64, 3, 1, 7, 7), **state}
    assert (open_weights(port).styles, open_weights(port).blocks) == (("caffe", "port"), None)
    ours = {key: value for key, value in frames.state_dict().items() if key != "layout"}
    assert open_weights(ours).styles == ()


@pytest.mark.parametrize("source", [None, 5, b"a.pth", ["a.pth"]])
def test_what_is_no_source(source):
    refused(source, f'weights: a value of type {type(source).__name__}; give a path, a state dict .*, "imagenet" or')


def test_an_empty_path():
    refused("", r"weights: an empty path; give a path, a state dict \(model\.state_dict\(\)\)")


def test_state_dicts(state):
    for wrapped in ({"state_dict": state}, {"model": {f"module.{key}": value for key, value in state.items()}}):
        assert open_weights({"epoch": 3, **wrapped}).arrays.keys() == open_weights(state).arrays.keys()
    refused({}, "state dict: holds no arrays")
    refused({"state_dict": {}}, "state dict: holds no arrays")
    refused({**state, "a\x1b": 3}, r"plain tensors: 'a\\x1b' is a value of type int; save model\.state_dict\(\)")
    refused({key: value.numpy() for key, value in state.items()}, r"conv1\.weight is a NumPy .*torch\.from_numpy")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.eye(3).to_sparse(), r"fc\.bias is a sparse tensor; save its to_dense\(\)"),
        (
            lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
            r"fc\.bias is quantised; save its dequantize",
        ),
        (torch.ones(3, device="meta"), r"fc\.bias is on the device meta, where it has no numbers"),
        (torch.ones(3, dtype=torch.complex64), r"fc\.bias is complex"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # PyTorch's, that quantised and sparse tensors will change
def test_tensors_that_cannot_be_copied(state, value, words, tmp_path):
    value = value() if callable(value) else value
    refused({**state, "fc.bias": value}, words)
    torch.save({**state, "fc.bias": value}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", words)


@pytest.mark.parametrize("model", ["resnet", "p3d_resnetfoo", "p3d_resnet", "resnet" + "9" * 5000, "vgg"])
def test_imagenet_for_a_name_without_a_known_depth(model):
    refused("imagenet", '"imagenet" has ResNets of 50, 101, 152 layers, not ', model=model)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    done = []
    thread = threading.Thread(
        target=lambda: done.append(refused(tmp_path / "pipe.pth", "is not a regular file")), daemon=True
    )
    thread.start()
    thread.join(10)
    assert done
    (tmp_path / "f").mkdir()
    save_pretrained(create_model("resnet14", num_classes=2), tmp_path / "f")
    (tmp_path / "f" / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "f" / "model.safetensors")
    refused(tmp_path / "f", r"model\.safetensors: is not a regular file; copy its content into one")
    refused("/dev/zero", "/dev/zero: is not a regular file")


def test_a_net_whose_name_begins_like_a_web_page(tmp_path):
    """A name of 60 bytes: protobuf writes a line break, then "<" for 60."""
    layers = [CaffeLayer("odd", "Convolution", (), (), (np.zeros((1, 1, 1, 1), np.float32),))]
    write_caffemodel(tmp_path / "a.caffemodel", "n" * 60, layers)
    assert (tmp_path / "a.caffemodel").read_bytes()[:2] == b"\n<"
    refused(tmp_path / "a.caffemodel", "a Caffe model, but none of P3D ResNet")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n<!DOCTYPE html><html>Sign in</html>", r"is a web page \(HTML\), not the file itself"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is a git-lfs pointer, not the file itself"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
        (b"", "is empty; copy or download it again"),
    ],
)
@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.caffemodel", "a"])
def test_what_is_often_given_by_mistake(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, words)


def test_the_content_decides(state, frames, tmp_path):
    caffe = export_caffemodel(create_model("resnet14", num_classes=3), tmp_path / "he.caffemodel").read_bytes()
    for name in ("he.pth", "he.safetensors", "he.CAFFEMODEL", "he"):
        (tmp_path / name).write_bytes(caffe)
        assert open_weights(tmp_path / name).kind == "caffe resnet"
    for zipped in (True, False):
        for name in ("torch.safetensors", "torch.caffemodel", "torch"):
            torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
            assert open_weights(tmp_path / name).kind == "torchvision"
    for name in ("st.pth", "st.caffemodel", "st"):
        save_file(state, tmp_path / name)
        assert open_weights(tmp_path / name).kind == "torchvision"
    for name, words in (("a.PTH", "not a PyTorch file"), ("a.SafeTensors", "not a whole safetensors file")):
        (tmp_path / name).write_bytes(b"12345678 not it")
        refused(tmp_path / name, words)


def zip_file(path, name, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)


def test_damaged_pytorch_files(state, tmp_path):
    """Cut off or changed anywhere, in both formats: our own words."""
    small = {key: value[:1] for key, value in list(state.items())[:3]}
    words = r"not a PyTorch file of plain weights: it (is|holds)|holds no |is a |its arrays|is empty|unknown kind"
    rng = np.random.default_rng(0)
    for zipped in (True, False):
        torch.save(small, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "whole.pth").read_bytes()
        for length in rng.integers(0, len(whole), 40):
            (tmp_path / "a.pth").write_bytes(whole[:length])
            refused(tmp_path / "a.pth", words)
        for _ in range(150):
            damaged = bytearray(whole)
            for at in rng.integers(0, min(len(whole), 1500), 3):
                damaged[at] = rng.integers(0, 256)
            (tmp_path / "a.pth").write_bytes(damaged)
            try:
                open_weights(tmp_path / "a.pth")
            except Pseudo3dError as error:
                assert str(error).isprintable()  # noqa: PT017 (a damaged number is no error)


@pytest.mark.parametrize(
    "program",
    [b"a.", b".", b"0.", b"s.", b"}(K\x01u.", b"G\x00.", b"X\xff\xff\xff\x7f.", b"h\x07.", b"R.", b"]" * 3 + b"Q."],
)
def test_hostile_programs(tmp_path, program):
    """Pickles that end in IndexError, struct.error, KeyError, TypeError, ... within PyTorch's unpickler."""
    (tmp_path / "a.pth").write_bytes(b"\x80\x02" + program)
    refused(tmp_path / "a.pth", "a.pth: not a PyTorch file of plain weights: it is damaged or was not written by")
    zip_file(tmp_path / "b.pth", "b/data.pkl", b"\x80\x02" + program)
    refused(tmp_path / "b.pth", "b.pth: not a PyTorch file of plain weights: it is damaged|b.pth: holds no ")


def test_other_archives(tmp_path):
    import tarfile

    zip_file(tmp_path / "a.pth", "readme.txt", "hello")
    refused(tmp_path / "a.pth", "it is an archive of something else; unpack it")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a.pth", "a.pth")
    refused(tmp_path / "a.tar", "it is a tar archive; unpack it and give the file in it")
    torch.jit.script(torch.nn.Linear(1, 1)).save(tmp_path / "script.pt")
    refused(tmp_path / "script.pt", r"it holds a TorchScript program; save model\.state_dict\(\)")


class Evil:
    def __reduce__(self):
        return os.system, ("echo evil",)


def test_objects_are_not_unpickled(tmp_path, state):
    words = r"it holds Python objects \({}\); they are not unpickled because code could run; save model\.state_dict\(\)"
    torch.save({**state, "x": Evil()}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", words.format(r"posix\.system"))
    torch.save({"state_dict": state, "args": json.JSONDecoder}, tmp_path / "b.pth")
    refused(tmp_path / "b.pth", words.format(r"json\.decoder\.JSONDecoder"))
    (tmp_path / "c.pth").write_bytes(b"\x80\x02ca\x1b[31m\nb\n.")
    refused(tmp_path / "c.pth", re.escape(r"('a\x1b[31m.b')"))


@pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("error")
def test_numpy_values_beside_the_state_dict(state, tmp_path, core, zipped):
    """The best accuracy as a NumPy number, written by NumPy 1 or 2."""
    beside = {"best_prec1": np.float64(91.2), "seen": np.arange(3), "flag": np.bool_(True), "name": np.str_("a")}

    class Renamed:
        """Python's pickle, writing the names of the other NumPy."""

        Unpickler = pickle.Unpickler
        dump, dumps, load, loads = pickle.dump, pickle.dumps, pickle.load, pickle.loads

        class Pickler(pickle._Pickler):
            dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

            def save_global(self, obj, name=None):
                module = getattr(obj, "__module__", None) or ""
                if module.startswith("numpy._core"):
                    self.write(f"c{module.replace('numpy._core', core)}\n{obj.__name__}\n".encode())
                    self.memoize(obj)
                else:
                    super().save_global(obj, name)

    Renamed.Pickler.dispatch[type(os.path.join)] = Renamed.Pickler.save_global
    Renamed.Pickler.dispatch[type(len)] = Renamed.Pickler.save_global
    torch.save(
        {"state_dict": state, **beside},
        tmp_path / "a.pth",
        pickle_module=Renamed,
        _use_new_zipfile_serialization=zipped,
    )
    assert f"c{core}.multiarray\nscalar".encode() in (tmp_path / "a.pth").read_bytes()
    assert torch.equal(open_weights(tmp_path / "a.pth").arrays["stem.conv1.weight"], state["conv1.weight"])
    torch.save({"state_dict": {"conv1.weight": np.zeros(3)}}, tmp_path / "b.pth")
    refused(tmp_path / "b.pth", r"conv1\.weight is a NumPy array; make each a tensor with torch\.from_numpy")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", [3, 4])
def test_old_protocols_without_a_word(state, tmp_path, protocol):
    torch.save(state, tmp_path / "a.pth", pickle_protocol=protocol)
    try:
        assert open_weights(tmp_path / "a.pth").kind == "torchvision"
    except Pseudo3dError as error:
        assert "not a PyTorch file of plain weights" in str(error)  # noqa: PT017 (PyTorch does not read it)


def lone(path, frames, config):
    """A lone file of ours with this in place of its config."""
    arrays = {key: value.contiguous() for key, value in frames.state_dict().items()}
    save_file(arrays, path, metadata=None if config is None else {"pseudo3d": config})
    return path


def test_the_metadata_of_a_lone_file(frames, tmp_path):
    from pseudo3d.weights.pretrained import model_config

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


@pytest.mark.parametrize(
    "layout",
    [
        torch.zeros(3, dtype=torch.uint8),
        torch.zeros(0, dtype=torch.uint8),
        torch.zeros(()),
        torch.full((2, 2), 65, dtype=torch.uint8),
        *(torch.tensor(list(text), dtype=torch.uint8) for text in (b"caffe", b"caffe ABD", b"oil ABC", b"caffe A B")),
        torch.tensor([255, 254], dtype=torch.uint8),
        torch.tensor([99.0, 32.0]),
    ],
)
def test_a_damaged_layout(frames, layout):
    refused({**frames.state_dict(), "layout": layout}, "state dict: its layout array is damaged")


def test_safetensors_with_odd_words_in_them(tmp_path):
    header = b'{"\\u001b[31m":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    refused(tmp_path / "a", "a: not a whole safetensors file")
    save_file({"a\nb\x1b[31m": torch.zeros(1)}, tmp_path / "b")
    refused(tmp_path / "b", r"the first are 'a\\nb\\x1b\[31m'")
    assert first_few(["a", "b\n", "c", "d"]) == "a, 'b\\n', c, ..."


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


def write(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfwalk\r\nrun fast\r\n\r\nfall\r\n",
        b"walk\rrun fast\rfall",
        b" walk\nrun fast\t\nfall",
        b"0 walk\n1 run fast\n2 fall\n",
        b"1\twalk\n2\trun fast\n3\tfall\n",
    ],
)
def test_class_name_files(tmp_path, content):
    assert class_names_from(write(tmp_path / "a.txt", content), 3, "mine") == ("walk", "run fast", "fall")


def test_class_names_with_unicodes_other_spaces(tmp_path):
    path = write(tmp_path / "a.txt", "no\u00a0break\n0.5 speed\n7 up".encode())
    assert class_names_from(path, 3, "mine") == ("no\u00a0break", "0.5 speed", "7 up")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\nb\n", r"a\.txt: 2 class names, but mine has 3 classes"),
        (
            b"2 a\n0 b\n1 c\n",
            r"a\.txt: every line begins with a number, but they are not 0, 1, 2, .* leave the numbers",
        ),
        (b"a\nb\x1b[31m\nc", r"a\.txt: 'b\\x1b\[31m' has a control character"),
        (b"a\tb\nb\nc", r"a\.txt: 'a\\tb' has a control character"),
        ("a\u2028\nb\nc".encode(), r"a\.txt: 'a\\u2028' has a control character"),
        (
            b"crane\nox\ncrane",
            r"a\.txt: crane stands .* more than once; .* differ, so write .* 'crane 1' and 'crane 2'",
        ),
        (b"\xff\xfea\x00", r"a\.txt: not a text file \(UTF-8\)"),
    ],
)
def test_class_name_files_that_cannot_be_used(tmp_path, content, words):
    with pytest.raises(Pseudo3dError, match=words):
        class_names_from(write(tmp_path / "a.txt", content), 3, "mine")


def test_class_names_elsewhere(tmp_path):
    with pytest.raises(Pseudo3dError, match="is a folder; give a file with one class name a line"):
        class_names_from(tmp_path, 3, "mine")
    with pytest.raises(Pseudo3dError, match=r"labels\.txt: no such file of class names"):
        class_names_from(tmp_path / "labels.txt", 3, "mine")
    with pytest.raises(Pseudo3dError, match=r"class_names: 'a\\n' has a control character"):
        class_names_from(["a\n", "b"], 2, "mine")


def test_broken_links(tmp_path):
    (tmp_path / "dangling.pth").symlink_to(tmp_path / "gone.pth")
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    for name in ("dangling.pth", "loop.pth"):
        refused(tmp_path / name, rf"{name}: no such file or folder; it is a broken link")
        with pytest.raises(Pseudo3dError, match="no such file of class names; it is a broken link"):
            class_names_from(tmp_path / name, 3, "mine")
    (tmp_path / "near.pth").touch()
    assert near_names(tmp_path / "neat.pth").endswith("near.pth?")
    assert "near.pth?" not in near_names(tmp_path / "near.pth")


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "a\x1b[31m/b"])
def test_names_that_no_file_can_have(name):
    refused(name, "no such file or folder")
