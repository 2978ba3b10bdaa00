"""From labelled video files to a trained network, predictions and features, in Python.

    python examples/quickstart.py [FOLDER]

Writes a very small set of videos, trains for one epoch (far too little to be good at it), and shows what the trained
folder is used for. With your own videos, start from ``read_samples("my_videos")``.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pseudo3d
from pseudo3d.data.annotations import read_samples
from pseudo3d.data.synthetic import write_moving_digits
from pseudo3d.training.loop import train
from pseudo3d.training.recipes import get_recipe


def main(folder: Path) -> None:
    videos = write_moving_digits(folder / "videos", train_per_class=4, test_per_class=1)
    samples = read_samples(videos)  # a folder per class, split/class/file, a list or a CSV
    print(f"{len(samples)} videos of the classes {', '.join(samples.class_names)}")

    config = replace(get_recipe("demo"), epochs=1, test_clips=2)
    result = train(samples, config, folder / "run", quiet=True)
    print({name: f"{value:.1%}" for name, value in result.test.items()})

    path = videos / samples.split("test").samples[0].path
    clip = pseudo3d.read_video(path, indices=range(16))
    print(clip)

    encoder = pseudo3d.VideoEncoder(weights=result.checkpoint, clips=4)
    feature = encoder.encode(path)
    print(feature.shape, feature.dtype)

    model = pseudo3d.from_pretrained(result.checkpoint)
    print(model.architecture.name, model.preprocessing.crop, model.class_names)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
