import numpy as np
import pytest
import torch
from networks import NAMES, lowest_cosine, network, random_clips
from reference import relative_error

from pseudo3d import Pseudo3dError
from pseudo3d.inference import ClipRunner, to_input
from pseudo3d.inference.runner import ClipBatches

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return network(request.param)


def test_features_are_those_of_the_network_itself(model):
    clips = random_clips(3, model.preprocessing)
    got = ClipRunner(model, device="cpu", dtype="float32", batch_size=3)(list(clips), ("pool5", "res5"))
    with torch.no_grad():
        inputs = to_input(torch.from_numpy(clips), model.preprocessing).contiguous()
        expected = model.forward_features(inputs, ("pool5", "res5"))
    for layer, value in got.items():
        assert value.dtype == np.float32
        assert relative_error(torch.from_numpy(value), expected[layer]) < 1e-5


def test_every_batch_has_one_shape(monkeypatch):
    model = network("resnet14")
    runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=3)
    shapes, inner = [], runner._compute

    def spy(frames, layers):
        shapes.append(tuple(frames.shape))
        return inner(frames, layers)

    monkeypatch.setattr(runner, "_compute", spy)
    clips = random_clips(5, model.preprocessing)
    assert runner(list(clips[:3]), ("pool5",))["pool5"].shape == (3, 2048)
    assert runner(list(clips[3:]), ("pool5",))["pool5"].shape == (2, 2048)
    batches = ClipBatches(runner, ("pool5",))
    assert [len(batches.add(key, clip)) for key, clip in enumerate(clips)] == [0, 0, 3, 0, 0]
    assert len(batches.flush()) == 2
    assert shapes == [(3, 1, 32, 32, 3)] * 4


def test_clips_come_back_with_their_keys():
    model = network("resnet14")
    runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=4)
    clips = random_clips(11, model.preprocessing)
    batches = ClipBatches(runner, ("pool5", "prob"))
    assert batches.flush() == []
    done = [item for key, clip in enumerate(clips) for item in batches.add(key, clip)]
    done += batches.flush()
    assert batches.flush() == []
    assert [key for key, _ in done] == list(range(11))
    for key, values in done:  # all kept: none may lie in the memory of the batch or of the next results
        alone = runner([clips[key]], ("pool5", "prob"))
        assert sorted(values) == ["pool5", "prob"]
        assert all(np.array_equal(values[layer], alone[layer][0]) for layer in values)


def test_clips_of_another_shape_do_not_fit_into_a_batch():
    model = network("resnet14")
    batches = ClipBatches(ClipRunner(model, device="cpu", batch_size=2), ("pool5",))
    clip = random_clips(1, model.preprocessing)[0]
    batches.add("a", clip)
    with pytest.raises(ValueError, match="broadcast"):
        batches.add("b", clip[:, :16])


def test_bfloat16_is_near_float32(model):
    clips = random_clips(2, model.preprocessing)
    full = ClipRunner(model, device="cpu", dtype="float32", batch_size=2)(list(clips), ("pool5",))["pool5"]
    half = ClipRunner(model, device="cpu", dtype="bfloat16", batch_size=2)(list(clips), ("pool5",))["pool5"]
    assert half.dtype == np.float32
    assert not np.array_equal(full, half)
    assert lowest_cosine(full, half) >= 0.999


def test_wrong_batches():
    model = network("resnet14")
    runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=2)
    clips = random_clips(3, model.preprocessing)
    with pytest.raises(ValueError, match="a batch has 1 to 2 clips, got 3"):
        runner(list(clips), ("pool5",))
    with pytest.raises(ValueError, match="a batch has 1 to 2 clips, got 0"):
        runner([], ("pool5",))
    with pytest.raises(ValueError, match="no layer 'pool6'"):
        runner([clips[0]], ("pool6",))
    with pytest.raises(ValueError, match="same shape"):
        runner([clips[0], clips[0, :, :1]], ("pool5",))  # one row would fit by broadcasting
    with pytest.raises(ValueError, match="H and W at least 32"):
        runner([clips[0, :, :16]], ("pool5",))


def test_wrong_options():
    model = network("resnet14")
    with pytest.raises(Pseudo3dError, match="batch size must be at least 1, got 0"):
        ClipRunner(model, device="cpu", batch_size=0)
    with pytest.raises(Pseudo3dError, match="float16 is for GPUs, the device is cpu"):
        ClipRunner(model, device="cpu", dtype="float16")


def test_describe():
    runner = ClipRunner(network("resnet14"), device="cpu", dtype="bfloat16", batch_size=5, engine="eager")
    assert runner.describe() == {
        "engine": "eager", "device": "cpu", "dtype": "bfloat16", "batch_size": 5, "threads": torch.get_num_threads()
    }  # fmt: skip
    assert ClipRunner(network("resnet14"), device="cpu").batch_size == 4


def test_the_network_given_stays_as_it_is():
    model = network("resnet14")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    runner = ClipRunner(model, device="cpu", dtype="bfloat16", batch_size=1)
    runner(list(random_clips(1, model.preprocessing)), ("prob",))
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
