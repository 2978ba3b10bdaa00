import inspect

import pytest
import torch
from networks import CPU, network

from pseudo3d import Pseudo3dError
from pseudo3d.inference import ClipRunner, bfloat16_is_native, choose_device, choose_dtype


def test_devices():
    for name in ("gpu", "cpu:x", "meta", "xla", ""):
        with pytest.raises(Pseudo3dError, match=f"no device '{name}'; use auto, cpu, cuda"):
            choose_device(name)
    for name in ("cuda:99", "mps:9", "cpu:1"):
        with pytest.raises(Pseudo3dError, match=f"device '{name}' is not available on this machine; use .* cpu"):
            choose_device(name)
    with pytest.raises(Pseudo3dError, match="no device 'tpu'"):
        ClipRunner(network("resnet14"), device="tpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_device(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto").type == expected


@pytest.mark.parametrize("native", [True, False])
def test_auto_takes_bfloat16_where_it_is_native(monkeypatch, native):
    monkeypatch.setattr("pseudo3d.inference.devices.bfloat16_is_native", lambda device: native)
    assert choose_dtype("auto", CPU) == (torch.bfloat16 if native else torch.float32)
    assert choose_dtype("float32", CPU) == torch.float32
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize("feature", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_bfloat16_is_native_where_the_processor_says_so(monkeypatch, feature):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert not bfloat16_is_native(CPU)
    monkeypatch.setattr(torch.cpu, feature, lambda: True)
    assert bfloat16_is_native(CPU)
    assert not bfloat16_is_native(torch.device("meta"))


def test_float16_is_for_gpus():
    assert choose_dtype("float16", torch.device("cuda")) == torch.float16
    with pytest.raises(Pseudo3dError, match="float16 is for GPUs, the device is cpu; use --dtype auto"):
        choose_dtype("float16", CPU)
    with pytest.raises(Pseudo3dError, match="no dtype 'float64'; use auto, float32, bfloat16, float16 or int8"):
        inspect.unwrap(choose_dtype)("float64", CPU)  # without the tests' own check of types
