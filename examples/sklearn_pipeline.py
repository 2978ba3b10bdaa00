"""A video classifier as a scikit-learn pipeline: file paths in, labels out.

    python examples/sklearn_pipeline.py WEIGHTS VIDEOS

WEIGHTS is a pretrained folder (RUN/checkpoints/best of `p3d train`), VIDEOS a folder per class or split/class/file.
"""

import sys

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import LinearSVC

from pseudo3d import VideoEncoder
from pseudo3d.data.annotations import read_samples
from pseudo3d.data.splits import train_test_split


def main(weights: str, videos: str) -> None:
    train, test = train_test_split(read_samples(videos))
    classifier = make_pipeline(VideoEncoder(weights=weights), Normalizer(), LinearSVC())
    classifier.fit([train.root / s.path for s in train.samples], [s.label for s in train.samples])
    accuracy = classifier.score([test.root / s.path for s in test.samples], [s.label for s in test.samples])
    print(f"accuracy {accuracy:.1%} on {len(test)} videos that it was not fitted on")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/sklearn_pipeline.py WEIGHTS VIDEOS")
    main(*sys.argv[1:])
