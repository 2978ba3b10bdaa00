"""The graph of OpenVINO's operations against plain 3-D convolutions, and that OpenVINO stays silent."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from networks import CAFFE, IMAGENET, inputs_of, network, random_clips
from reference import c3d_network, conv3d_network, relative_error

from pseudo3d import Pseudo3dError
from pseudo3d.inference import fold_batch_norms
from pseudo3d.inference.openvino import OpenVinoEngine

pytest.importorskip("openvino")
pytestmark = pytest.mark.usefixtures("one_thread")
LAYERS = ("res2", "res3", "res4", "res5", "pool5", "logits", "prob")


def computed(model, clips, layers):
    with torch.inference_mode():
        return OpenVinoEngine(fold_batch_norms(model), torch.float32)(torch.from_numpy(clips), layers)


@pytest.mark.parametrize(
    ("style", "blocks", "size", "preprocessing"),
    [
        ("caffe", "ABC", (33, 47), CAFFE),
        ("torchvision", "BCA", (47, 64), IMAGENET),
        ("port", "CAB", (64, 33), IMAGENET),
    ],
)
@torch.no_grad()
def test_p3d_is_that_of_plain_convolutions(style, blocks, size, preprocessing):
    model = network(size=size, preprocessing=preprocessing, style=style, blocks=blocks)
    clips = random_clips(2, model.preprocessing)
    expected = conv3d_network(model, inputs_of(clips, model.preprocessing), (1, 1, 1, 1), blocks, style)
    got = computed(model, clips, LAYERS)
    for layer in LAYERS:
        assert got[layer].shape == expected[layer].shape
        assert relative_error(got[layer], expected[layer]) < 1e-4, layer


@torch.no_grad()
def test_c3d_is_that_of_sums_of_shifts():
    model = network("c3d")
    clips = random_clips(1, model.preprocessing)
    expected = c3d_network(model, inputs_of(clips, model.preprocessing))  # every place has the channel's mean
    got = computed(model, clips, model.layers)
    for layer in model.layers:
        assert relative_error(got[layer], expected[layer]) < 1e-4, layer
    assert list(computed(model, clips, ("conv5b",))) == ["conv5b"]


def test_results_are_kept_when_the_engine_computes_again():
    model = network("resnet14")
    engine = OpenVinoEngine(fold_batch_norms(model), torch.float32)
    batches = [torch.from_numpy(random_clips(1, model.preprocessing, seed)) for seed in (0, 1)]
    with torch.inference_mode():
        first = engine(batches[0], ("res5", "pool5"))
        kept = {name: value.clone() for name, value in first.items()}
        engine(batches[1], ("res5", "pool5"))
    assert all(torch.equal(first[name], kept[name]) for name in kept)


def test_wrong_clips_and_layers():
    with pytest.raises(Pseudo3dError, match=r"clips of shape \(1, 3, 8, 32, 32\).*T a multiple of 16"):
        computed(network(), np.zeros((1, 8, 32, 32, 3), np.uint8), ("pool5",))
    with pytest.raises(Pseudo3dError, match=r"clips of shape \(1, 3, 16, 32, 32\).*112, 112"):
        computed(network("c3d"), np.zeros((1, 16, 32, 32, 3), np.uint8), ("fc6",))
    with pytest.raises(Pseudo3dError, match="no layer 'pool6'"):
        computed(network("resnet14"), np.zeros((1, 1, 32, 32, 3), np.uint8), ("pool6",))


def test_openvino_prints_and_reports_nothing(tmp_path):
    code = """
        import sys
        from pseudo3d.inference.openvino import load_openvino
        import numpy as np
        from networks import network, random_clips
        from pseudo3d.inference import ClipRunner
        model = network("resnet14")
        runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=1, engine="openvino")
        runner(list(random_clips(1, model.preprocessing)), ("pool5",))
        assert "openvino" in sys.modules
        assert [name for name in sys.modules if name.startswith("openvino_telemetry.")] == []
    """
    tests = str(__file__).rpartition("inference")[0]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env={"PYTHONPATH": tests, "HOME": str(tmp_path)},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []  # it keeps a number of its user in the home folder otherwise
