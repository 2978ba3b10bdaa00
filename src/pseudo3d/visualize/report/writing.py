"""From runs to the page and the folder beside it."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pseudo3d import files
from pseudo3d.errors import Pseudo3dError
from pseudo3d.visualize.report.maps import VideoMap, maps_of
from pseudo3d.visualize.report.page import Content, build_page
from pseudo3d.visualize.report.runs import Run, find_files, shown_videos, title_of, wrong_videos
from pseudo3d.visualize.report.sidecar import make_previews
from pseudo3d.visualize.report.sprites import make_sprites

ALL_UP_TO = 2000
"""Videos: with more, ``previews="auto"`` makes clips of the mistakes only."""

Previews = Literal["auto", "all", "mistakes", "none"]


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        page: the HTML file.
        clips: the folder beside it.
        videos: that the page shows one by one.
        playable: of them, those with a clip.
        failures: why there is no picture of a video, "path: reason".
        no_maps: why there is no map of a run, by the run's name (and split, where it has a map of each).
    """

    page: Path
    clips: Path
    videos: int
    playable: int
    failures: dict[str, str]
    no_maps: dict[str, str]


def write_report(
    runs: Sequence[Run],
    out: Path,
    *,
    title: str = "",
    root: Path | None = None,
    previews: Previews = "auto",
    most: int = 10_000,
    workers: int | None = None,
    on_start: Callable[[int], None] = lambda total: None,
    on_video: Callable[[], None] = lambda: None,
) -> Written:
    """Write the page and the folder of clips beside it (``report.html``, ``report_clips/``).

    Args:
        runs: at least one.
        out: the page; ends in .html or .htm.
        title: of the page; "" for the runs' names.
        root: the folder that the videos' paths start from, in place of those that the runs tell.
        previews: clips of all videos, of those that a run takes for another class, or of none; "auto": of all up to
            ``ALL_UP_TO``, then of mistakes.
        most: videos that are shown one by one, apart from the worst mistakes; the numbers are always of all.
        workers: processes that make previews; None: one for each core.
        on_start: called with the number of videos whose previews are looked for.
        on_video: called after each of them.

    Raises:
        Pseudo3dError: no runs, another ending, a page that is none of ours, or ``root`` is no folder.
        OSError: something cannot be written.
    """
    clips = _folder_of_clips(runs, out, root)
    videos = shown_videos(runs, most)
    playing = _wanted_clips(runs, videos, previews)
    places = find_files(runs, videos, root)
    jobs = [(video, found, video in playing) for video, found in zip(videos, places, strict=True)]
    on_start(len(jobs))
    made = make_previews(clips, jobs, workers=workers, on_done=on_video)
    maps = [maps_of(run, videos, clips) for run in runs]
    content = Content(
        title or " and ".join(dict.fromkeys(run.result.name for run in runs)),
        runs,
        videos,
        made,
        make_sprites([preview.picture for preview in made]),
        maps,
        clips.name,
        [_copied(run, number, clips) for number, run in enumerate(runs, start=1)],
        left_out=len({video for run in runs for video in run.videos}) - len(videos),
        titles=[title_of(*each) for each in zip(videos, places, strict=True)],
    )
    files.write_text(out, build_page(content, datetime.now()))
    failures = {
        video: f"{video}: {preview.reason}" for video, preview in zip(videos, made, strict=True) if preview.reason
    }
    no_maps = {name: reason for run, own in zip(runs, maps, strict=True) for name, reason in _lacking(run, own)}
    playable = sum(preview.clip is not None for preview in made)
    return Written(out, clips, len(videos), playable, failures, no_maps)


def _folder_of_clips(runs: Sequence[Run], out: Path, root: Path | None) -> Path:
    """The folder beside the page, whose own folder is made if it is not there.

    Raises:
        Pseudo3dError: as ``write_report``.
    """
    check_out(out)
    if not runs:
        raise Pseudo3dError("give at least one run")
    if root is not None and not root.is_dir():
        raise Pseudo3dError(f"--root {root}: no such folder; give the one that the videos' paths start from")
    clips = out.with_name(f"{out.stem}_clips")
    if clips.exists() and not clips.is_dir():
        raise Pseudo3dError(f"{clips}: is a file, where the folder of clips must be; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    return clips


def check_out(out: Path) -> None:
    """Refuse what is no name for a page, before any work is done.

    Raises:
        Pseudo3dError: another ending, a folder, or a file that this command did not write.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise Pseudo3dError(f"{out}: the page is an HTML file; give a name that ends in .html")
    if out.is_dir():
        raise Pseudo3dError(f"{out}: is a folder; give the name of the page")
    if out.exists() and b"<code>p3d report</code>" not in out.read_bytes():
        raise Pseudo3dError(f"{out}: is there already and is no page of p3d report; choose another --out")


def _wanted_clips(runs: Sequence[Run], videos: Sequence[str], previews: Previews) -> set[str]:
    if previews == "none":
        return set()
    if previews == "all" or (previews == "auto" and len(videos) <= ALL_UP_TO):
        return set(videos)
    return wrong_videos(runs)


def _lacking(run: Run, maps: Sequence[VideoMap]) -> Iterator[tuple[str, str]]:
    """What has no map, and why."""
    for view, drawn in zip(run.views, maps, strict=True):
        if drawn.reason:
            alone = len({each.reason for each in maps}) == 1
            yield run.result.name if alone else f"{run.result.name}, split {view.split}", drawn.reason


def _copied(run: Run, number: int, clips: Path) -> list[str]:
    """DeepDraw's pictures into the folder of clips; their names there."""
    names = []
    for picture in run.pictures:
        clips.mkdir(parents=True, exist_ok=True)
        name = f"deepdraw-{number}-{picture.name}"
        with files.replacing(clips / name, flush=False) as temporary:
            shutil.copyfile(picture, temporary)
        names.append(name)
    return names
