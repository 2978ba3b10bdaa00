"""Which engine runs and why; that all of them give the same; what compiled code leaves for the next run."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import CPU, NAMES, lowest_cosine, network, random_clips
from reference import randomise, relative_error

from pseudo3d import Pseudo3dError, create_model
from pseudo3d.inference import ClipRunner, engines, fold_batch_norms
from pseudo3d.inference.engines import (
    Choice,
    EagerEngine,
    Engine,
    GraphEngine,
    choose_engine,
    engines_for,
    make_engine,
)

CUDA = torch.device("cuda")
ALWAYS_HERE = ("fused", "eager", "openvino")  # "compile" is slow to make and has a slow test


@pytest.fixture(scope="module", params=[*NAMES, "c3d"])
def model(request):
    return network(request.param)


def runner_of(model, engine, dtype="float32", batch_size=3):
    if engine == "openvino":
        pytest.importorskip("openvino")
    return ClipRunner(model, device="cpu", dtype=dtype, batch_size=batch_size, engine=engine)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("engine", ["fused", "openvino"])
def test_engines_give_what_eager_gives(model, engine):
    clips = list(random_clips(3, model.preprocessing))
    expected = runner_of(model, "eager")(clips, model.layers)
    got = runner_of(model, engine)(clips, model.layers)
    assert list(got) == list(expected)
    for layer in model.layers:
        assert got[layer].dtype == np.float32
        assert got[layer].shape == expected[layer].shape
        assert relative_error(*map(torch.from_numpy, (got[layer], expected[layer]))) < 1e-5, layer
    half = runner_of(model, engine, "bfloat16")(clips, (model.layers[0],))[model.layers[0]]
    assert not np.array_equal(half, expected[model.layers[0]])
    assert lowest_cosine(half, expected[model.layers[0]]) >= 0.999


@pytest.mark.parametrize(
    ("engine", "dtype", "threads"),
    [("fused", "float32", 2), ("fused", "bfloat16", 1), ("eager", "float32", 2), ("openvino", "bfloat16", 1)],
)
def test_bit_equal_whatever_the_neighbours_and_the_place(model, engine, dtype, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        check_places(runner_of(model, engine, dtype, 5), (*model.layers[:1], "pool5", "logits"))
    finally:
        torch.set_num_threads(before)


def check_places(runner, layers):
    """One clip at every place of a batch, beside others and beside the zeros of a batch that is not full."""
    clips = random_clips(runner.batch_size + 1, runner.preprocessing)
    alone = runner([clips[0]], layers)
    for place in range(runner.batch_size):
        others = list(clips[1 : runner.batch_size])
        others.insert(place, clips[0])
        got = runner(others, layers)
        assert [name for name in layers if not np.array_equal(got[name][place], alone[name][0])] == [], place
    got = runner([clips[0], clips[-1]], layers)
    assert all(np.array_equal(got[name][0], alone[name][0]) for name in layers)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("engine", ALWAYS_HERE)
@pytest.mark.parametrize(("name", "batch_size"), [("p3d_resnet50", 4), ("p3d_resnet50", 5), ("resnet50", 7)])
def test_bit_equal_in_every_place_at_full_size(name, batch_size, engine, dtype):
    model = randomise(create_model(name, num_classes=101)).eval()
    check_places(runner_of(model, engine, dtype, batch_size), ("res5", "pool5", "logits", "prob"))


@pytest.mark.parametrize("name", [*NAMES, "c3d"])
def test_auto_for_one_clip_and_for_many(monkeypatch, name):
    model = network(name)
    monkeypatch.setattr(engines, "_no_cpp_compiler", lambda: None)
    monkeypatch.setattr(engines, "convolutions_can_be_fused", lambda: True)
    for clips, words in ((1, "1 clips"), (None, "many clips")):
        choice = choose_engine("auto", model, CPU, clips)
        assert choice.name == "fused"
        assert choice.reason == f"the fastest of fused, eager, compile for {words}, getting ready included"
    monkeypatch.setattr(engines, "convolutions_can_be_fused", lambda: False)
    assert choose_engine("auto", model, CPU, 1).name == "eager"  # nobody waits for a compiler for one clip
    assert choose_engine("auto", model, CPU, 100_000).name == "compile"
    assert choose_engine("auto", model, CPU).name == "compile"
    monkeypatch.setattr(engines, "_no_cpp_compiler", lambda: "needs a C++ compiler")
    assert choose_engine("auto", model, CPU) == Choice(
        "eager", "the fastest of eager for many clips, getting ready included"
    )


def test_auto_on_other_devices():
    model = network("resnet14")
    assert choose_engine("auto", model, torch.device("mps")) == Choice("eager", "the only one for mps")
    assert choose_engine("auto", model, CUDA).name == "graph"
    assert choose_engine("auto", model, CUDA, 1).name == "eager"


def test_engines_that_cannot_run_here_say_why():
    model = network("resnet14")
    with pytest.raises(Pseudo3dError, match="no engine 'tensorrt'; use auto, fused, eager, compile, graph, openvino"):
        choose_engine("tensorrt", model, CPU)
    with pytest.raises(Pseudo3dError, match=r"engine graph cannot be used: it records CUDA graphs.* use --engine auto"):
        ClipRunner(model, device="cpu", engine="graph")
    for name, words in (("fused", "is made of oneDNN's calls for processors"), ("openvino", "runs on processors here")):
        with pytest.raises(Pseudo3dError, match=f"engine {name} cannot be used: it {words}, the device is cuda"):
            choose_engine(name, model, CUDA)
    assert choose_engine("eager", model, CPU).reason == "asked for"


def test_without_a_compiler(monkeypatch, tmp_path):
    model = network("resnet14")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Pseudo3dError, match=r"engine compile cannot be used: it needs a C\+\+ compiler, and there is"):
        choose_engine("compile", model, CPU)
    compiler = tmp_path / "my-c++"
    compiler.touch(mode=0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert choose_engine("compile", model, CPU).name == "compile"
    monkeypatch.setenv("CXX", "gone-c++")
    with pytest.raises(Pseudo3dError, match=r"there is no gone-c\+\+ \(set CXX to one\)"):
        choose_engine("compile", model, CPU)
    assert choose_engine("compile", model, CUDA).name == "compile"  # Triton


def test_without_openvino(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    with pytest.raises(Pseudo3dError, match=r"openvino cannot be used: it is not installed \(pip install 'pseudo3d"):
        choose_engine("openvino", network("resnet14"), CPU)


@pytest.mark.parametrize("name", ["fused", "eager", "compile", "graph"])
def test_make_engine(name):
    model = fold_batch_norms(network("resnet14"))
    engine = make_engine(Choice(name, "asked for"), model, CPU, torch.float32)  # none does anything before a call
    assert isinstance(engine, Engine)
    assert type(engine).__name__ == {"compile": "CompiledEngine"}.get(name, f"{name.title()}Engine")


class FakeGraph(torch.cuda.CUDAGraph):
    """What a CUDA graph is for its user: ``replay`` computes anew, from and into the memory that was recorded."""

    made = ()

    def __new__(cls):
        return object.__new__(cls)

    def __init__(self):
        FakeGraph.made = (*FakeGraph.made, self)
        self.replays = 0

    def replay(self):
        self.replays += 1
        ((layers, _), (_, static, features)) = next(
            item for item in self.engine._recorded.items() if item[1][0] is self
        )
        constants = self.engine.constants(static.shape[-2])
        for name, value in EagerEngine.compute(self.engine, static, layers, *constants).items():
            features[name].copy_(value)


class Nothing:
    """A context, a stream, or whatever else is asked for."""

    def __init__(self, *args):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def wait_stream(self, other):
        pass


@pytest.mark.usefixtures("one_thread")
def test_graphs_are_recorded_once_for_each_shape_and_choice(monkeypatch):
    model = fold_batch_norms(network("resnet14"))
    monkeypatch.setattr(
        engines.torch, "cuda", SimpleNamespace(CUDAGraph=FakeGraph, graph=Nothing, stream=Nothing, Stream=Nothing,
                                               current_stream=Nothing)
    )  # fmt: skip
    engine = GraphEngine(model, CPU, torch.float32)
    FakeGraph.engine, FakeGraph.made = engine, ()
    eager = EagerEngine(model, CPU, torch.float32)
    batches = [torch.from_numpy(random_clips(2, model.preprocessing, seed)) for seed in range(3)]
    with torch.inference_mode():
        got = [engine(batch, ("pool5",)) for batch in batches]  # all kept: none may share the graph's memory
        for batch, features in zip(batches, got, strict=True):
            assert torch.equal(features["pool5"], eager(batch, ("pool5",))["pool5"])
        assert [graph.replays for graph in FakeGraph.made] == [3]
        engine(batches[0], ("pool5", "prob"))
        engine(batches[0][:1], ("pool5",))
        engine(batches[0], ("pool5",))
    assert [graph.replays for graph in FakeGraph.made] == [4, 1, 1]


COMPILED = """
import json, sys, time
from networks import network, random_clips
from pseudo3d.inference import ClipRunner
from torch._dynamo.utils import counters
model = network("resnet14")
clips = list(random_clips(3, model.preprocessing))
eager = ClipRunner(model, device="cpu", dtype="float32", batch_size=3, engine="eager")(clips, ("pool5", "prob"))
started = time.perf_counter()
runner = ClipRunner(model, device="cpu", dtype="float32", batch_size=3, engine="compile")
got = runner(clips, ("pool5", "prob"))
seconds = time.perf_counter() - started
errors = [float(abs(got[name] - eager[name]).max() / abs(eager[name]).max()) for name in eager]
turned = runner(clips[1:] + clips[:1], ("pool5", "prob"))
places = all((turned[name][[2, 0, 1]] == got[name]).all() for name in got)
print(json.dumps({"seconds": seconds, "errors": errors, "places": bool(places), "inductor": counters["inductor"]}))
"""


@pytest.mark.slow
def test_compiled_code_is_found_again(tmp_path):
    if engines_for(network("resnet14"), CPU)["compile"]:
        pytest.skip("no C++ compiler")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TORCHINDUCTOR")}
    environment |= {"PSEUDO3D_CACHE": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    found = []
    for _ in range(2):
        started = time.time()
        out = subprocess.run(
            [sys.executable, "-c", COMPILED], env=environment, check=True, capture_output=True, text=True
        ).stdout
        found.append(json.loads(out.splitlines()[-1]))
        new = [path for path in tmp_path.rglob("*.so") if path.stat().st_mtime >= started - 1]
        assert bool(new) == (len(found) == 1), new
    print("seconds to the first result:", [round(each["seconds"], 1) for each in found])
    for each in found:
        assert max(each["errors"]) < 1e-5
        assert each["places"]


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_fused_computes_groups_of_clips_side_by_side(monkeypatch, threads):
    """Every group of one size, whatever the threads; all clips back in order; nobody else's threads changed."""
    sizes, inner = [], []

    def compute(network, frames, layers):
        sizes.append(len(frames))
        inner.append(torch.get_num_threads())
        return {"pool5": frames[:, 0, 0, 0, :1].float()}

    monkeypatch.setattr(engines.FusedResNet, "__call__", compute)
    engine = make_engine(Choice("fused", "asked for"), fold_batch_norms(network("resnet14")), CPU, torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        frames = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1, 1).expand(5, 1, 2, 2, 3)
        for _ in range(2):
            assert engine(frames, ("pool5",))["pool5"].flatten().tolist() == [0, 1, 2, 3, 4]
        assert sizes == {1: [5], 2: [3, 3], 3: [2, 2, 2], 8: [1] * 5}[threads] * 2
        assert set(inner) == {1}
        assert engine(frames[:2], ("pool5",))["pool5"].flatten().tolist() == [0, 1]
        assert inner[-1] == {1: 1, 2: 1, 3: 1, 8: 4}[threads]
        assert torch.get_num_threads() == threads
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == threads
    finally:
        torch.set_num_threads(before)
