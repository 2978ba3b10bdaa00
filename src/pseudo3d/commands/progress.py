"""How far an extraction is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType

from pseudo3d.commands.output import progress_bar

EVERY_S = 30.0  # from one line to the next, where there is no terminal; the first comes earlier
FIRST_S = 5.0


class ExtractionProgress:
    """Counts videos and clips, and tells of them on the error stream.

    Args:
        total: videos to be done now.

    Attributes:
        videos: done so far.

    Example:
        >>> progress = ExtractionProgress(4)
        >>> progress.advance(clips=20, failed=False)
        >>> progress.text(seconds=2.0)
        '1 of 4 videos, 0.5 videos/s, 10 clips/s, 6.0 s left'
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.videos = 0
        self._clips = self._failed = 0
        self._bar = progress_bar()
        self._task = self._bar.add_task("extracting", total=total, note="")
        self._began = time.monotonic()
        self._next = self._began + FIRST_S

    def __enter__(self) -> "ExtractionProgress":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()

    def advance(self, clips: int, failed: bool) -> None:
        """One more video is done."""
        self.videos += 1
        self._clips += clips
        self._failed += failed
        now = time.monotonic()
        if not self._bar.disable:
            self._bar.update(self._task, advance=1, note=self.text(now - self._began, counted=False))
        elif now >= self._next and self.videos < self.total:
            print(f"p3d: {self.text(now - self._began)}", file=sys.stderr, flush=True)
            self._next = now + EVERY_S

    def text(self, seconds: float, *, counted: bool = True) -> str:
        """What there is to say after so many seconds; without the counts and the time left that a bar shows itself."""
        rate = self.videos / max(seconds, 1e-9)
        parts = [f"{rate:.1f} videos/s", f"{self._clips / max(seconds, 1e-9):.0f} clips/s"]
        if self._failed:
            parts.append(f"{self._failed} failed")
        if counted:
            left = duration((self.total - self.videos) / max(rate, 1e-9))
            parts = [f"{self.videos} of {self.total} videos", *parts, f"{left} left"]
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """A time to wait, as a person says it.

    Example:
        >>> duration(42.3), duration(200), duration(7400)
        ('42.3 s', '3 min 20 s', '2 h 3 min')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
