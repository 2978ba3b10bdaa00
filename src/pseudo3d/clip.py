"""The one noun that everything shares: a run of upright RGB frames with their times."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of one video and when each is shown.

    Args:
        frames: (T, H, W, 3), RGB, 0..255, upright, T >= 1.
        timestamps: (T,), seconds from the start of the file's own clock, finite. They need not increase: a video
            shorter than a clip is looped (``video.sampling``), and its times then start again.
        source: the file the frames come from, for messages; "" when there is none.
        undecodable_packets: how many packets of the file FFmpeg could not decode while these frames were read.
            0 for a sound file.

    Raises:
        ValueError: an array has another shape or type, or their lengths differ.

    Example:
        >>> import numpy as np
        >>> clip = Clip(np.zeros((16, 240, 320, 3), np.uint8), np.arange(16) / 25, source="a.mp4")
        >>> clip
        Clip(16 frames of 320x240, 0.000 s to 0.600 s, 'a.mp4')
        >>> len(clip), clip[4:8].timestamps[0]
        (16, np.float64(0.16))
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    timestamps: Float64[np.ndarray, "T"]
    source: str = ""
    undecodable_packets: int = 0

    def __post_init__(self) -> None:
        frames, timestamps = self.frames, self.timestamps
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f"frames must be uint8 (T, H, W, 3) with T >= 1, got {frames.dtype} {frames.shape}")
        if timestamps.dtype != np.float64 or timestamps.shape != frames.shape[:1]:
            raise ValueError(
                f"timestamps must be float64 ({len(frames)},), one for each frame, "
                f"got {timestamps.dtype} {timestamps.shape}"
            )
        if not np.isfinite(timestamps).all():
            raise ValueError("timestamps must be finite")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: slice | np.ndarray) -> "Clip":
        """The clip of the chosen frames: a slice shares memory, an index array copies."""
        return Clip(self.frames[index], self.timestamps[index], self.source, self.undecodable_packets)

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.frames.shape[1]

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.frames.shape[2]

    def __repr__(self) -> str:
        marks = [f"{len(self)} frame{'s' if len(self) > 1 else ''} of {self.width}x{self.height}"]
        marks.append(f"{self.timestamps[0]:.3f} s to {self.timestamps[-1]:.3f} s")
        if self.source:
            marks.append(repr(self.source))
        if self.undecodable_packets:
            marks.append(f"{self.undecodable_packets} undecodable packets")
        return f"Clip({', '.join(marks)})"
