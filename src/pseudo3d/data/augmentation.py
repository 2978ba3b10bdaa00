"""How the clips that a network learns from vary; plain data, so that a config needs no torch."""

from dataclasses import dataclass

from pseudo3d.errors import Pseudo3dError


@dataclass(frozen=True)
class Augmentation:
    """How a training clip differs from a test clip; the same for every frame of a clip.

    Args:
        random_crop: a random window instead of the centre.
        flip: mirror half of the clips left to right. It changes the label of direction classes (left and right,
            rotations), so it is a choice for each data set.
        pieces: clips come from so many random pieces of each video only, the same ones in the whole run (five for
            Sports-1M, paper section 4). None: from anywhere in the video.
        piece_seconds: how long a piece is (5 in the paper). A video that is not longer is one piece.

    Raises:
        Pseudo3dError: ``pieces`` is below 1 or ``piece_seconds`` is not above 0.

    Example:
        >>> Augmentation(pieces=5)
        Augmentation(random_crop=True, flip=False, pieces=5, piece_seconds=5.0)
    """

    random_crop: bool = True
    flip: bool = False
    pieces: int | None = None
    piece_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.pieces is not None and self.pieces < 1:
            raise Pseudo3dError(f"--augment.pieces must be at least 1, got {self.pieces}")
        if not 0 < self.piece_seconds < float("inf"):
            raise Pseudo3dError(f"--augment.piece-seconds must be above 0, got {self.piece_seconds}")
