"""Time and memory of every way to load weights, beside reading the same bytes with numpy.fromfile.

    python benchmarks/weights_loading.py --out docs/results

Writes each file once into a temporary folder (P3D ResNet-152 with 400 classes, as the release's Kinetics model, and
C3D), then loads it in processes of their own, the ways taking turns. Time is that of ``load_weights`` into a network
that is there already, file in the page cache; the least of the rounds. Memory is the peak of anonymous pages (RssAnon,
so without mapped files) above what the process held with the network, and numpy's is that of the array it returns.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from report import table, write

import pseudo3d
from pseudo3d.weights.export import export_caffemodel


def anonymous_megabytes() -> float:
    """Anonymous pages of this process in MB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("no RssAnon in /proc/self/status: this benchmark needs Linux")


def port_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The numbers of a P3D network under the names of the well-known PyTorch port, in its 5-D shapes."""
    parts = {"conv_a": "conv1", "conv_s": "conv2", "conv_t": "conv3", "conv_c": "conv4", "bn_a": "bn1", "bn_s": "bn2"}
    parts |= {"bn_t": "bn3", "bn_c": "bn4", "conv_shortcut": "downsample.0", "bn_shortcut": "downsample.1"}
    state = {}
    for key, value in model.state_dict().items():
        if key == "layout":
            continue
        names = key.split(".")
        if names[0] == "stem":
            names = [{"conv1": "conv1_custom", "bn_conv1": "bn1"}[names[1]], names[2]]
        elif names[0].startswith("res"):
            flat = names[0] == "res5"
            part = parts[names[2]].replace("2", "_normal") if flat and names[2].endswith("_s") else parts[names[2]]
            names = [f"layer{int(names[0][3]) - 1}", names[1], part, names[3]]
        if value.ndim == 4 and "layer4" not in names:
            value = value.unsqueeze(4 if ".conv_t." in key else 2)
        state[".".join(names)] = value
    return state


def write_files(folder: Path) -> dict[str, tuple[str, Path]]:
    """One file for each loader: the network's name and the path."""
    p3d = pseudo3d.create_model("p3d_resnet152", num_classes=400)
    c3d = pseudo3d.create_model("c3d")
    files = {
        "P3D-152 .caffemodel": ("p3d_resnet152", export_caffemodel(p3d, folder / "p3d.caffemodel")),
        "P3D-152 .safetensors": ("p3d_resnet152", pseudo3d.save_pretrained(p3d, folder / "p3d") / "model.safetensors"),
        "P3D-152 port .pth.tar, legacy": ("p3d_resnet152", folder / "port.pth.tar"),
        "P3D-152 port .pth, zip": ("p3d_resnet152", folder / "port.pth"),
        "C3D .caffemodel": ("c3d", export_caffemodel(c3d, folder / "c3d.caffemodel")),
    }
    state = {"state_dict": port_state(p3d)}
    torch.save(state, folder / "port.pth.tar", _use_new_zipfile_serialization=False)
    torch.save(state, folder / "port.pth")
    return files


def measure(name: str, path: Path) -> dict[str, float]:
    """In this process: load once and say how long it took and how much memory it wanted."""
    how_many = None if name == "numpy" else 487 if name == "c3d" else 400
    model = None if how_many is None else pseudo3d.create_model(name, num_classes=how_many)
    before = peak = anonymous_megabytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous_megabytes())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    if model is None:
        kept = np.fromfile(path, np.uint8)
        assert kept.size == path.stat().st_size
    else:
        pseudo3d.load_weights(model, path)
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    return {"seconds": seconds, "megabytes": peak - before}


def run(rounds: int) -> list[dict[str, float | str]]:
    """All ways in turns, each time in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder))
        results: dict[str, list[dict[str, float]]] = {}
        for _ in range(rounds):
            for label, (name, path) in files.items():
                for kind in ("numpy", name):
                    command = [sys.executable, "-W", "ignore", __file__, "--measure", kind, str(path)]
                    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    results.setdefault(label if kind == name else f"{label} numpy", []).append(json.loads(output))
        rows: list[dict[str, float | str]] = []
        for label, (_, path) in files.items():
            seconds = min(each["seconds"] for each in results[label])
            numpy_seconds = min(each["seconds"] for each in results[f"{label} numpy"])
            rows.append(
                {
                    "file": label,
                    "MB": round(path.stat().st_size / 1e6, 1),
                    "load_weights, s": round(seconds, 2),
                    "numpy.fromfile, s": round(numpy_seconds, 2),
                    "ratio": round(seconds / numpy_seconds, 1),
                    "peak above the network, MB": round(max(each["megabytes"] for each in results[label]), 1),
                    "numpy's peak, MB": round(max(each["megabytes"] for each in results[f"{label} numpy"]), 1),
                }
            )
        return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("MODEL", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], Path(args.measure[1]))))
        return
    rows = run(args.rounds)
    columns = list(rows[0])
    body = table(columns, [[str(row[column]) for column in columns] for row in rows])
    write(args.out, "weights_loading", "Loading weights", body, {"rows": rows})


if __name__ == "__main__":
    main()
