"""Where a network runs and in which precision."""

from typing import Literal

import torch

from pseudo3d.errors import Pseudo3dError

DType = Literal["auto", "float32", "bfloat16", "float16", "int8"]


def choose_device(name: str = "auto") -> torch.device:
    """The device that ``name`` stands for; "auto" takes CUDA, then MPS, then the processor.

    Raises:
        Pseudo3dError: the device is unknown or not there.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")  # as useless to us as the devices that torch knows and we do not
    present = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if device.type not in present:
        raise Pseudo3dError(f"no device {name!r}; use auto, cpu, cuda, cuda:1, ... or mps")
    if (device.index or 0) >= present[device.type]:
        raise Pseudo3dError(f"device {name!r} is not available on this machine; use --device auto or cpu")
    return device


def bfloat16_is_native(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 in hardware (AVX-512 BF16 or AMX on a processor)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


def int8_is_native() -> bool:
    """Whether the processor multiplies 8-bit integers in hardware (AVX-512 VNNI or AMX).

    Without it int8 is right, and no faster than float32.
    """
    return torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported()


def choose_dtype(name: DType, device: torch.device) -> torch.dtype:
    """The precision of the convolutions; "auto" is bfloat16 where it is native, else float32.

    Raises:
        Pseudo3dError: an unknown name, int8 on another device than a processor, or float16 on a processor.
    """
    if name not in ("auto", "float32", "bfloat16", "float16", "int8"):
        raise Pseudo3dError(f"no dtype {name!r}; use auto, float32, bfloat16, float16 or int8")
    if name == "float16" and device.type == "cpu":
        raise Pseudo3dError("float16 is for GPUs, the device is cpu; use --dtype auto, bfloat16 or float32")
    if name == "int8":
        if device.type != "cpu":
            raise Pseudo3dError(
                f"int8 is for processors, the device is {device.type}; use --device cpu or --dtype auto"
            )
        return torch.int8
    if name == "auto":
        return torch.bfloat16 if bfloat16_is_native(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def forbid_tf32() -> None:
    """Make float32 mean float32 on NVIDIA GPUs, for the whole process.

    By default cuDNN rounds the factors of a float32 convolution to 10 bits (TF32), which moves features by more than
    the 1e-4 that float32 promises here.
    """
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
