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

from pseudo3d import Pseudo3dError, create_model, save_pretrained
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
@pytest.mark.parametrize("zipped", [True, False])
def test_other_protocols(state, tmp_path, zipped):
    """PyTorch reads 2, its own, and 3, of which it warns."""
    for protocol in range(6):
        path = tmp_path / f"{protocol}.pth"
        torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        if protocol in (2, 3):
            assert open_weights(path).kind == "torchvision"
        else:
            refused(path, "was not written by torch.save in its usual protocol; .* or save model.state_dict")


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
