"""Whole networks in Caffe's format, as Caffe saves them: random numbers for a table of layers, with Split layers."""

import numpy as np
import torch
from caffe_files import layer, net


def random_blobs(rows, in_channels=3, seed=0):
    """Random numbers for every learned layer of a table, in the shapes that the release's layers give them."""
    rng = np.random.default_rng(seed)
    width, blobs = {"data": in_channels}, {}

    def uniform(low, high, *shape):
        return rng.uniform(low, high, shape).astype(np.float32)

    for row in rows:
        channels = width[row.bottoms[0]] if row.bottoms else in_channels
        last = row.name.endswith("branch2c")
        if row.type == "Convolution":
            shape = (row.num_output, channels, *row.kernel)
            blobs[row.name] = [(rng.standard_normal(shape) * np.prod(shape[1:]) ** -0.5).astype(np.float32)]
        elif row.type == "BN":
            scale = (0.1, 0.3) if last else (0.6, 1.4)
            ranges = (scale, (-0.3, 0.3), (-0.3, 0.3), (0.5, 1.5))
            blobs[row.name] = [uniform(*each, 1, channels) for each in ranges]
        elif row.type == "BatchNorm":
            divisor = np.float32(999.98)
            mean, variance = uniform(-0.3, 0.3, channels), uniform(0.5, 1.5, channels)
            blobs[row.name] = [mean * divisor, variance * divisor, np.array([divisor])]
        elif row.type == "Scale":
            blobs[row.name] = [uniform(*((0.1, 0.3) if last else (0.6, 1.4)), channels), uniform(-0.3, 0.3, channels)]
        elif row.type == "InnerProduct":
            blobs[row.name] = [uniform(-0.2, 0.2, row.num_output, channels), uniform(-1, 1, row.num_output)]
        width[row.top] = row.num_output or channels
    return blobs


def with_splits(rows):
    """(name, type, bottoms, tops) of every layer, with the Split layers that Caffe puts in when it sets a network up.

    A top with several readers goes through a Split layer, whose tops are named after the layer that made it (the last
    one, if others changed it in place).
    """
    maker, readers = {}, {}
    for i, row in enumerate(rows):
        for bottom in row.bottoms:
            if bottom in maker:
                readers.setdefault(maker[bottom], []).append(i)
        maker[row.top] = i
    current, layers, taken = {}, [], {}
    for i, row in enumerate(rows):
        bottoms = []
        for bottom in row.bottoms:
            source = current.get(bottom)
            if source is not None and len(readers.get(source, [])) > 1:
                number = taken[source] = taken.get(source, -1) + 1
                bottoms.append(f"{bottom}_{rows[source].name}_0_split_{number}")
            else:
                bottoms.append(bottom)
        layers.append((row.name, row.type, bottoms, [row.top]))
        current[row.top] = i
        if len(readers.get(i, [])) > 1:
            split = f"{row.top}_{row.name}_0_split"
            layers.append((split, "Split", [row.top], [f"{split}_{k}" for k in range(len(readers[i]))]))
    return layers


def write_net(path, rows, blobs, name="net"):
    """A .caffemodel with all layers of a table, as Caffe writes it."""
    layers = [
        layer(n, kind, blobs.get(n, []), bottoms=bottoms, tops=tops) for n, kind, bottoms, tops in with_splits(rows)
    ]
    path.write_bytes(net(name, layers))
    return path


def tensors(blobs):
    return {name: tuple(torch.from_numpy(each) for each in arrays) for name, arrays in blobs.items()}
