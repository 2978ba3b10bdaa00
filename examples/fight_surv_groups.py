"""Groups for the fight_surv clips: the recording that each clip is cut from, as lines ``path group``.

    python examples/fight_surv_groups.py fight_surv > groups.txt

The folder holds fight/, noFight/ and videos.txt, which lists under each recording's address the clips cut from it and
ends with ranges of clips that come from other collections. Where two recordings share a clip (an address that stands
twice, two ranges that overlap) nobody can tell which one it is from, so both are one group.
"""

import re
import sys
from pathlib import Path

CLIP = re.compile(r"((?:no)?fi)(\d+)\s*:")  # "nofi022: 0.14.20 - 0.16.20"
RANGE = re.compile(r"nofi(\d+)\s*-\s*nofi(\d+)\s*:\s*(.+)")  # "nofi062 - nofi076 : CamNet Dataset"


def read_sources(text: str) -> dict[str, set[str]]:
    """The clips of each recording or collection."""
    sources: dict[str, set[str]] = {}
    address = ""
    for number, line in enumerate(map(str.strip, text.splitlines()), start=1):
        if match := RANGE.match(line):
            clips = {f"nofi{clip:03d}" for clip in range(int(match[1]), int(match[2]) + 1)}
            sources.setdefault(match[3].replace(" ", "_"), set()).update(clips)
        elif line.startswith("http"):
            address = line
        elif (match := CLIP.match(line)) and address:
            sources.setdefault(address, set()).add(match[1] + match[2])
        elif line:
            raise ValueError(f"videos.txt, line {number}: neither an address nor a clip: {line!r}")
    return sources


def merge_sources(sources: dict[str, set[str]]) -> dict[str, str]:
    """The group of each clip: its recording, and for recordings that share a clip the first of them."""
    merged: dict[str, set[str]] = {}
    for name, clips in sources.items():
        sharing = [group for group, members in merged.items() if members & clips]
        target = sharing[0] if sharing else name
        merged.setdefault(target, set()).update(clips, *(merged.pop(group) for group in sharing[1:]))
    return {clip: group for group, clips in merged.items() for clip in clips}


def main(folder: Path) -> None:
    groups = merge_sources(read_sources((folder / "videos.txt").read_text(encoding="utf-8")))
    videos = sorted(path for kind in ("fight", "noFight") for path in (folder / kind).iterdir())
    without = [path.name for path in videos if path.stem not in groups]
    if without:
        sys.exit(f"videos.txt says nothing about {len(without)} clips, the first of them {without[0]}")
    for path in videos:
        print(path.relative_to(folder).as_posix(), groups[path.stem])


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "videos.txt").is_file():
        sys.exit("usage: python examples/fight_surv_groups.py FOLDER, the one with videos.txt, fight/ and noFight/")
    main(Path(sys.argv[1]))
