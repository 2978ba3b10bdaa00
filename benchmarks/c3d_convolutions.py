"""Three ways to compute C3D's convolutions and pools, timed on this machine: python benchmarks/c3d_convolutions.py."""

import time

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudo3d.models.c3d import CLIP, CONVOLUTIONS

BATCH = 4
Filters = list[tuple[Tensor, Tensor]]


def conv3d(clips: Tensor, filters: Filters) -> Tensor:
    """As ``C3D`` does it; the memory format is that of ``clips`` and ``filters``."""
    x = clips
    for (weight, bias), (_, _, window) in zip(filters, CONVOLUTIONS, strict=True):
        x = F.relu(F.conv3d(x, weight, bias, padding=1), inplace=True)
        if window is not None:
            x = F.max_pool3d(x, window, window, ceil_mode=True)
    return x


def sums_of_conv2d(clips: Tensor, filters: list[tuple[list[Tensor], Tensor]]) -> Tensor:
    """One 2-D convolution for each of the three steps, on channels-last frames whose first axis is (T, N)."""
    n, c, t, h, w = clips.shape
    x = clips.permute(2, 0, 3, 4, 1).reshape(t * n, h, w, c).permute(0, 3, 1, 2)
    for (taps, bias), (_, _, window) in zip(filters, CONVOLUTIONS, strict=True):
        y = F.conv2d(x, taps[1], bias, padding=1)
        y[n:] += F.conv2d(x[:-n], taps[0], padding=1)
        y[:-n] += F.conv2d(x[n:], taps[2], padding=1)
        x = F.relu(y, inplace=True)
        if window is not None:
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            x = x.unflatten(0, (-1, window[0], n)).amax(1).flatten(0, 1)
    return x.unflatten(0, (-1, n)).permute(1, 2, 0, 3, 4)


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {BATCH}; ms a clip, best of 5")
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        clips, filters, channels = torch.randn(BATCH, 3, *CLIP).to(dtype), [], 3
        for _, width, _ in CONVOLUTIONS:
            weight = torch.randn(width, channels, 3, 3, 3) * (2 / (27 * channels)) ** 0.5
            filters.append((weight.to(dtype), torch.zeros(width, dtype=dtype)))
            channels = width
        last = torch.channels_last_3d
        clips_last, filters_last = clips.to(memory_format=last), [(w.to(memory_format=last), b) for w, b in filters]
        taps = [([w[:, :, k].contiguous(memory_format=torch.channels_last) for k in range(3)], b) for w, b in filters]
        ways = {
            "conv3d, (N, C, T, H, W) memory": lambda c=clips, f=filters: conv3d(c, f),
            "conv3d, (N, T, H, W, C) memory": lambda c=clips_last, f=filters_last: conv3d(c, f),
            "sums of three conv2d": lambda c=clips, f=taps: sums_of_conv2d(c, f),
        }
        with torch.inference_mode():
            first = conv3d(clips, filters).float()
            for name, way in ways.items():
                error = ((way().float() - first).abs().max() / first.abs().max()).item()
                times = []
                for _ in range(5):
                    started = time.perf_counter()
                    way()
                    times.append(time.perf_counter() - started)
                print(f"{dtype!s:15} {name:32} {min(times) / BATCH * 1e3:6.0f}   relative difference {error:.0e}")


if __name__ == "__main__":
    main()
