"""Videos without features: ``failures.jsonl``, a line for each.

The file is replaced as a whole when the rows are written, so that it is never torn; in between, what is new waits in
memory as the rows do. A video that has a row has not failed, whatever a line says: the row was written first.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pseudo3d.errors import Pseudo3dError
from pseudo3d.features.folders import Folder
from pseudo3d.features.rows import UNKNOWN_FILE, SourceFile

FAILURES = "failures.jsonl"


@dataclass(frozen=True)
class Failure:
    """Why a video has no features.

    Args:
        reason: one line, beginning with the path.
        source: the file that was tried.
        attempts: how often it was tried.
    """

    reason: str
    source: SourceFile = UNKNOWN_FILE
    attempts: int = 1


def read_failures(folder: Folder, below: str = "") -> dict[str, Failure]:
    """The failures by video.

    Args:
        folder: the store.
        below: a folder in it, with a slash at the end: that of a shard.

    Raises:
        Pseudo3dError: a line that is none of ours.
    """
    try:
        text = folder.read(f"{below}{FAILURES}").decode("utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    failures = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            told = json.loads(line)
            source = SourceFile(told["size"], told["modified"], told["sha256"])
            failures[str(told["video"])] = Failure(str(told["reason"]), source, int(told["attempts"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Pseudo3dError(
                f"{folder.location}/{below}{FAILURES}, line {number}: cannot be read ({error!r}); remove the line"
            ) from None
    return failures


def write_failures(folder: Folder, failures: Mapping[str, Failure]) -> None:
    """Replace the file; without failures there is none."""
    if not failures:
        folder.delete(FAILURES)
        return
    lines = (
        json.dumps({"video": video, "reason": failed.reason, **failed.source._asdict(), "attempts": failed.attempts})
        for video, failed in sorted(failures.items())
    )
    folder.write(FAILURES, "".join(f"{line}\n" for line in lines).encode())
