"""The report without a browser: what is in the page, that names stay text, and the previews beside it."""

import base64
import hashlib
import html
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from report_runs import colours, make_scores, write_run, write_store, write_videos
from tiny import p3d, write_two_classes

from pseudo3d import Pseudo3dError
from pseudo3d.commands import report as command
from pseudo3d.evaluation.results import Measurement, Result, save_result
from pseudo3d.evaluation.scores import Scores, save_scores
from pseudo3d.visualize.report import maps
from pseudo3d.visualize.report.runs import View, find_files, read_run, shown_videos
from pseudo3d.visualize.report.sprites import make_sprites
from pseudo3d.visualize.report.writing import write_report

CLASSES = ("walk", "run", "</script><script>alert(1)</script>")
ODD = ["<script>alert(1)<script>.avi", "a \"quote\" & 'one'.avi", "50% #1?.avi", "ünïcode 动作.avi", "back\\slash.avi"]


class Page(HTMLParser):
    """The elements of a page, with the text of those that hold none other."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.text = text
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append([tag, dict(attributes), ""])
        self._open.append(self.elements[-1])

    def handle_endtag(self, tag):
        self._open.append(["", {}, ""])

    def handle_data(self, data):
        if self._open:
            self._open[-1][2] += data

    def all(self, tag, **attributes):
        return [e for e in self.elements if e[0] == tag and attributes.items() <= e[1].items()]

    @property
    def data(self):
        return json.loads(self.all("script", id="data")[0][2])


def read_page(path):
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs on eleven videos, of which five have odd names, one is gone and one is no video; and their page."""
    folder = tmp_path_factory.mktemp("report")
    names = [*ODD, *(f"{'walk' if i % 2 else 'run'}/v{i}.avi" for i in range(6))]
    write_videos(folder / "data", names)
    (folder / "data" / names[9]).write_bytes(b"no video at all")
    (folder / "data" / names[10]).unlink()
    note = "1 video left out: <i>broken</i>"
    one = write_run(
        folder / "one", "first & <b>best</b>", names, CLASSES, folder / "data", wrong={1, 4}, footnotes=(note,)
    )
    two = write_run(folder / "two", "second", names, CLASSES, folder / "data", wrong={1, 2, 5}, seed=1, store=False)
    (one / "deepdraw").mkdir()
    Image.new("RGB", (32, 32)).save(one / "deepdraw" / "walk #1.gif")
    code = command.run([str(one), str(two), "--out", str(folder / "the report.html"), "--workers", "2"])
    assert code == 1  # two videos could not be shown
    return folder


def test_the_page_asks_for_nothing(made):
    page = read_page(made / "the report.html")
    for tag, attributes, _ in page.elements:
        for name in ("src", "srcset", "action", "poster", "background", "ping", "formaction"):
            assert name not in attributes, (tag, attributes)
        assert attributes.get("href", "data:,") == "data:,"
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert "@import" not in page.text
    assert "url(" not in page.all("style")[0][2]
    assert not re.search(r"https?://|//cdn|fetch\(|XMLHttpRequest|WebSocket|sendBeacon|importScripts", page.text)


def test_only_its_own_script_may_run(made):
    page = read_page(made / "the report.html")
    running = [e for e in page.all("script") if "type" not in e[1]]
    assert len(running) == 1
    digest = base64.b64encode(hashlib.sha256(running[0][2].encode()).digest()).decode()
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0][1]["content"]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_names_stay_text(made):
    page = read_page(made / "the report.html")
    assert not page.all("b")
    assert not page.all("i")
    assert "first & <b>best</b> and second" in (e[2] for e in page.all("h1"))
    assert html.escape("1 video left out: <i>broken</i>") in page.text
    data = page.data
    assert data["videos"][:5] == ODD
    assert data["runs"][0]["classes"] == list(CLASSES)
    assert data["clips"] == "the%20report_clips"
    assert data["runs"][0]["pictures"] == ["deepdraw-1-walk%20%231.gif"]
    assert (made / "the report_clips" / "deepdraw-1-walk #1.gif").exists()


def test_numbers_are_those_of_the_runs(made):
    page = read_page(made / "the report.html")
    best = [e[2] for e in page.all("td") if e[1].get("class") == "number best"]
    assert best == ["81.8%"]  # 9 of 11
    data = page.data
    for run, wrong in zip(data["runs"], ({1, 4}, {1, 2, 5}), strict=True):
        view = run["views"][0]
        hits = [top[0] in truth for top, truth in zip(view["top"], view["truth"], strict=True)]
        assert {i for i, hit in enumerate(hits) if not hit} == wrong
        assert sum(n for true, said, n in view["confusion"] if true == said) == 11 - len(wrong)
        assert sum(n for _, _, n in view["confusion"]) == 11
        assert all(0 <= x <= 1 and 0 <= y <= 1 for _, x, y in view["map"])
    first, second = (run["views"][0] for run in data["runs"])
    assert sorted(video for video, _, _ in first["map"]) == list(range(11))
    assert second["map"] == []
    assert second["noMap"] == "the run does not name a feature store"


def test_what_cannot_be_shown_is_told(made):
    data = read_page(made / "the report.html").data
    assert set(data["reasons"]) == {"9", "10"}
    assert "is not a video" in data["reasons"]["9"]
    assert data["reasons"]["10"].startswith("there is no such file")
    assert data["sprite"][8:] == [8, -1, -1]
    assert data["clip"][9:] == [None, None]


def test_every_video_has_its_own_thumbnail(made):
    page = read_page(made / "the report.html")
    data = page.data
    width, height, columns = data["tile"]
    sheet = Image.open(io.BytesIO(base64.b64decode(page.all("script", id="sheet-0")[0][2])))
    for video, colour in list(enumerate(colours(11)))[:9]:
        place = data["sprite"][video]
        x, y = place % columns * width + width // 2, place // columns * height + height // 2
        assert np.abs(np.subtract(sheet.getpixel((x, y)), colour)).max() < 40, video
    assert 100 <= width <= 160
    assert width / height == pytest.approx(4 / 3, abs=0.05)


def test_a_second_page_finds_the_previews(made, capsys):
    clips = made / "the report_clips"
    before = {path: path.stat().st_mtime_ns for path in clips.iterdir() if not path.name.startswith("deepdraw")}
    page = read_page(made / "the report.html").data
    assert command.run([str(made / "one"), "--out", str(made / "the report.html"), "--workers", "1"]) == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read_page(made / "the report.html").data["runs"][0] == page["runs"][0]  # the map too
    out, err = capsys.readouterr()
    assert "11 videos, 9 of them with a clip" in out
    assert "2 of 11 videos could not be shown" in err


def test_without_its_videos_the_page_is_made(made, tmp_path, capsys):
    run = write_run(tmp_path / "run", "r", ["a.avi", "b.avi", "c.avi"], CLASSES, tmp_path / "gone")
    assert command.run([str(run), "--out", str(tmp_path / "p.html")]) == 1
    data = read_page(tmp_path / "p.html").data
    assert data["sheets"] == 0
    assert data["sprite"] == [-1] * 3
    assert len(data["runs"][0]["views"][0]["map"]) == 3
    assert "--root FOLDER" in capsys.readouterr().err


def view_of(values, truth, kind="probability"):
    names = tuple("abc")[: np.shape(values)[1]]
    videos = tuple(f"v{i}" for i in range(len(values)))
    return View("", Scores(videos, names, np.array(truth, bool), np.array(values, np.float32), kind))


def test_the_surest_mistakes_come_first():
    values = [[0.9, 0.1, 0], [0.6, 0.4, 0], [0.3, 0.7, 0], [0.05, 0.95, 0], [0.2, 0.2, 0.6]]
    truth = [[0, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]]
    view = view_of(values, truth)
    assert view.worst().tolist() == [3, 0, 2]  # v4's class is not known
    assert sorted(view.confusion()) == [(0, 0, 1), (0, 1, 2), (1, 0, 1)]
    margins = view_of([[5, 4, 0], [3, 0, 0], [1, 0, 9]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]], "decision")
    assert margins.confidence.tolist() == [1, 3, 8]
    assert margins.worst().tolist() == [2, 1, 0]


def test_a_video_of_several_classes_counts_once():
    view = view_of([[0.1, 0.9, 0], [0, 0.1, 0.9]], [[1, 1, 0], [1, 1, 0]])
    assert view.confusion() == [(0, 2, 1), (1, 1, 1)]


def test_many_videos_are_thinned_but_mistakes_stay(tmp_path):
    videos = [f"v{i:03d}.avi" for i in range(300)]
    run = read_run(write_run(tmp_path / "run", "r", videos, CLASSES, tmp_path, wrong={7, 123}, store=False))
    shown = shown_videos([run], 20)
    assert {"v000.avi", "v007.avi", "v123.avi", "v299.avi"} <= set(shown)
    assert shown == sorted(shown)
    assert 20 <= len(shown) <= 22
    assert shown_videos([run], 300) == videos
    assert shown_videos([run], 0) == ["v007.avi", "v123.avi"]


def test_videos_that_have_moved_are_found(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    videos = ["x/a.avi", str(old / "y" / "b.avi"), "x/a.avi#t=1,2", "gone.avi"]
    run = read_run(write_run(tmp_path / "run", "r", videos, CLASSES, old, store=False))
    for name in ("x/a.avi", "y/b.avi"):
        (new / name).parent.mkdir(parents=True)
        (new / name).write_text("x")
    want = [str(new / "x/a.avi"), str(new / "y/b.avi"), str(new / "x/a.avi") + "#t=1,2", str(new / "gone.avi")]
    assert find_files([run], videos, new) == [(path,) for path in want]
    assert find_files([run], videos, None)[0] == (str(old / "x/a.avi"),)


def test_the_store_says_where_its_videos_are(tmp_path):
    """Lists start from a data set's folder, the store perhaps from the folder above."""
    (tmp_path / "data" / "set" / "x").mkdir(parents=True)
    (tmp_path / "data" / "set" / "x" / "a.avi").write_text("x")
    run = write_run(tmp_path / "run", "r", ["x/a.avi"], CLASSES, tmp_path / "nowhere", store=False)
    write_store(run / "features", ["set/x/a.avi"], CLASSES, tmp_path / "data")
    assert find_files([read_run(run)], ["x/a.avi"], None) == [(str(tmp_path / "data" / "set" / "x" / "a.avi"),)]


def test_what_moves_goes_before_its_sheet(tmp_path):
    run = write_run(tmp_path / "run", "r", ["a.avi"], CLASSES, tmp_path, store=False)
    (run / "deepdraw").mkdir()
    for name in ("b.gif", "b.mp4", "b.png", "a.png"):
        (run / "deepdraw" / name).write_text("x")
    assert [picture.name for picture in read_run(run).pictures] == ["a.png", "b.gif"]


def test_thumbnails_of_a_thousand_videos_take_little(tmp_path):
    """The budget of docs/report.md, with pictures as busy as real ones."""
    rng = np.random.default_rng(0)
    pictures = []
    for i in range(20):
        noise = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8)).resize(
            (160, 120), Image.Resampling.BICUBIC
        )
        noise.save(tmp_path / f"{i}.jpg")
        pictures.append(tmp_path / f"{i}.jpg")
    few = make_sprites([pictures[i % 20] for i in range(200)])
    many = make_sprites([pictures[i % 20] for i in range(1100)])
    assert (few.width, many.width) == (128, 64)
    assert max(few.places) == 199
    assert (len(few.sheets), len(many.sheets)) == (4, 5)
    assert sum(map(len, few.sheets)) / 200 < 6000
    assert sum(map(len, many.sheets)) / 1100 < 2500


def test_published_rows_stand_beside_ours(tmp_path):
    run = write_run(
        tmp_path / "run", "mine <3", ["a.avi", "b.avi", "c.avi"], CLASSES, tmp_path, store=False, protocol="sports1m"
    )
    command.run([str(run), "--out", str(tmp_path / "p.html")])
    page = read_page(tmp_path / "p.html")
    assert any("Table 2" in e[2] for e in page.all("summary"))
    assert "66.4%" in page.text  # P3D ResNet, section 4.3
    assert len([e for e in page.all("tr") if e[1].get("class") == "own"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--out must be given"),
        (("--out", "{}/p.html"), "give at least one run"),
        (("{}/nothing", "--out", "{}/p.html"), "give the folder of a run"),
        (("{}/run", "--out", "{}/p.txt"), "ends in .html"),
        (("{}/run", "--out", "{}/mine.html"), "is no page of p3d report"),
        (("{}/run", "--out", "{}/p.html", "--root", "{}/nothing"), "no such folder"),
        (("{}/run", "--out", "{}/p.html", "--videos", "-1"), "--videos must be 0 or more"),
        (("{}/run", "--out", "{}/f.html"), "is a file, where the folder of clips must be"),
        (("{}/run", "--out", "{}/p.html", "--previews", "some"), "it takes auto, all, mistakes, none"),
    ],
)
def test_mistakes_are_told(arguments, message, tmp_path):
    write_run(tmp_path / "run", "r", ["a.avi"], CLASSES, tmp_path, store=False)
    (tmp_path / "mine.html").write_text("my thesis")
    (tmp_path / "f_clips").write_text("")
    with pytest.raises(Pseudo3dError, match=re.escape(message)):
        command.run([word.format(tmp_path) for word in arguments])
    assert (tmp_path / "mine.html").read_text() == "my thesis"
    assert not (tmp_path / "p.html").exists()


def test_which_clips_are_made(tmp_path, monkeypatch):
    from pseudo3d.visualize.report import writing

    run = read_run(write_run(tmp_path / "run", "r", list("abcdef"), CLASSES, tmp_path, wrong={1, 4}, store=False))
    videos = list("abcdef")
    assert writing._wanted_clips([run], videos, "none") == set()
    assert writing._wanted_clips([run], videos, "mistakes") == {"b", "e"}
    assert writing._wanted_clips([run], videos, "auto") == set(videos)
    monkeypatch.setattr(writing, "ALL_UP_TO", 5)
    assert writing._wanted_clips([run], videos, "auto") == {"b", "e"}
    assert writing._wanted_clips([run], videos, "all") == set(videos)


def test_a_run_without_scores_has_its_numbers(tmp_path):
    run = write_run(tmp_path / "run", "r", ["a.avi"], CLASSES, tmp_path, store=False)
    (run / "scores.parquet").unlink()
    assert command.run([str(run), "--out", str(tmp_path / "p.html")]) == 0
    assert "100.0%" in read_page(tmp_path / "p.html").text


def test_a_page_whose_name_is_not_utf8(tmp_path):
    """Its folder of clips is named byte for byte."""
    write_run(tmp_path / "run", "a", ["v.avi"], CLASSES, tmp_path, store=False)
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xff.html"))
    try:
        out.touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    out.unlink()
    write_report([read_run(tmp_path / "run")], out)
    assert Page(out.read_text()).data["clips"] == "r%FF_clips"


def test_splits_are_kept_apart(tmp_path):
    run = write_run(tmp_path / "run", "r", list("abcdef"), CLASSES, tmp_path, wrong={0}, splits=("1", "2"), store=False)
    (run / "scores-1-train.parquet").write_bytes(b"never read")
    read = read_run(run)
    assert [view.split for view in read.views] == ["1", "2"]
    assert make_scores(list("abcdef"), CLASSES, wrong={0}, seed=1).values == pytest.approx(read.views[1].scores.values)


def test_training_scores_are_not_shown(tmp_path):
    run = write_run(tmp_path / "run", "r", list("abcdef"), CLASSES, tmp_path, store=False)
    (run / "scores-train.parquet").write_bytes(b"never read")
    assert [(view.split, view.scores.videos) for view in read_run(run).views] == [("", tuple("abcdef"))]


def test_a_fusion_of_pairs_is_of_pairs(tmp_path):
    pairs = ["fold 1, pair 1: a.avi | b.avi", "fold 1, pair 2: b.avi | c.avi"]
    kinds = {"aslan": {}, "fusion": {"data": "aslan"}}
    runs = [
        read_run(write_run(tmp_path / kind, kind, pairs, ("not same", "same"), tmp_path, store=False, protocol=kind,
                           facts=facts)) for kind, facts in kinds.items()
    ]  # fmt: skip
    assert find_files(runs, pairs, None) == [
        tuple(str(tmp_path / name) for name in ("a.avi", "b.avi")),
        tuple(str(tmp_path / name) for name in ("b.avi", "c.avi")),
    ]


def test_every_split_may_have_a_store_of_its_own(tmp_path, capsys, monkeypatch):
    """Of videos that the stores call otherwise than the lists; a video in two splits has a place in both maps."""
    monkeypatch.setattr(maps, "tsne", lambda features: features[:, :2])
    names = [f"v{i}.avi" for i in range(16)]
    write_videos(tmp_path / "data" / "set", names)
    run = tmp_path / "run"
    run.mkdir()
    tested = {"2": names[:6], "1": names[4:11], "3": names[9:]}  # in the order of --splits
    for number, (split, videos) in enumerate(tested.items(), start=1):
        save_scores(make_scores(videos, CLASSES), run / f"scores-{split}.parquet")
        write_store(run / f"features-{number}", [f"set/{name}" for name in videos], CLASSES, tmp_path / "data",
                    seed=number)  # fmt: skip
    stores = [f"gone/features-{number}" for number in (1, 2, 3)]  # the run has moved since
    facts = {"store": stores[0], "stores": stores, "root": str(tmp_path / "was_here"), "asked": {"splits": [*tested]}}
    measured = tuple(Measurement("accuracy", 1.0, split) for split in tested)
    save_result(Result("ucf101-network", "nets", measured, facts), run)
    assert command.run([str(run), "--out", str(tmp_path / "p.html"), "--workers", "2"]) == 0
    assert capsys.readouterr().err == ""
    data = read_page(tmp_path / "p.html").data
    assert data["reasons"] == {}
    views = {view["split"]: view for view in data["runs"][0]["views"]}
    for split, videos in tested.items():
        assert [data["videos"][place[0]] for place in views[split]["map"]] == videos
    read = read_run(run)
    for view, stored in zip(read.views, read.stored, strict=True):
        row = {video.removeprefix("set/"): values[:2] for video, values in
               zip(stored.store.videos, stored.store.features("pool5"), strict=True)}  # fmt: skip
        points = np.array([row[video] for video in view.scores.videos])
        found = np.array([place[1:] for place in views[view.split]["map"]])
        assert found - found[0] == pytest.approx((points - points[0]) / np.ptp(points, axis=0).max(), abs=2e-4)
    shutil.rmtree(run / "features-2")  # of split 1
    assert command.run([str(run), "--out", str(tmp_path / "q.html"), "--workers", "2"]) == 1
    told = capsys.readouterr().err
    assert "no map of nets, split 1: its feature store is not there any more: gone/features-2" in told
    views = {view["split"]: view for view in read_page(tmp_path / "q.html").data["runs"][0]["views"]}
    assert {split: bool(view["map"]) for split, view in views.items()} == {"1": False, "2": True, "3": True}


def test_pairs_are_shown_side_by_side(tmp_path, capsys):
    names = ["a b.avi", "c.avi", "d.avi", "e.avi"]
    write_videos(tmp_path / "data" / "x y", names)
    called = [f"x y/{name}" for name in names]
    pairs = [f"fold 1, pair {i + 1}: {called[i]} | {called[j]}" for i, j in ((0, 1), (1, 0), (2, 3), (3, 3), (2, 1))]
    run = write_run(
        tmp_path / "run", "pairs", pairs, ("not same", "same"), tmp_path / "data/x y", store=False, protocol="aslan"
    )
    write_store(run / "features", names, CLASSES, tmp_path / "data" / "x y")  # which starts at another folder
    assert command.run([str(run), "--out", str(tmp_path / "p.html"), "--workers", "2"]) == 0
    told = capsys.readouterr()
    assert told.err == "p3d: no map of pairs: its scores are of pairs of videos, and a map shows single ones\n"
    assert "5 videos, 5 of them with a clip" in told.out
    page = read_page(tmp_path / "p.html")
    data = page.data
    assert "5 pairs of videos" in page.text
    assert data["videos"][:2] == ["fold 1, pair 1: a b.avi and c.avi", "fold 1, pair 2: c.avi and a b.avi"]
    colour = dict(zip(names, colours(4), strict=True))
    for clip, (left, right) in zip(data["clip"], ((0, 1), (1, 0), (2, 3), (3, 3), (2, 1)), strict=True):
        with av.open(str(tmp_path / "p_clips" / clip)) as file:
            frame = next(file.decode(video=0)).to_ndarray(format="rgb24")
        assert frame.shape == (48, 64 + 4 + 64, 3)
        for half, video in ((frame[:, :60], left), (frame[:, 72:], right)):
            assert np.abs(half.mean(axis=(0, 1)) - colour[names[video]]).max() < 12
    (tmp_path / "data" / called[3]).unlink()
    assert command.run([str(run), "--out", str(tmp_path / "q.html"), "--workers", "2"]) == 1
    told = capsys.readouterr().err
    (line,) = [line for line in told.splitlines() if line.startswith(f"failed: {pairs[2]}: ")]
    assert "e.avi: there is no such file" in line  # which of both
    assert "2 of 5 videos could not be shown" in told


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_from_videos_to_the_page(weights, tmp_path, capsys):
    """What ``p3d evaluate`` leaves is what the report reads."""
    data = write_two_classes(tmp_path / "data", 3, frames=20, prefix="new")
    words = ["evaluate", "hits", "--data", data, "--weights", weights, "--out", tmp_path / "run", "--clips", "2"]
    code, _, err = p3d(capsys, *words, "--device", "cpu", "--dtype", "float32")
    assert code == 0, err
    assert command.run([str(tmp_path / "run"), "--out", str(tmp_path / "p.html"), "--workers", "1"]) == 0
    data = read_page(tmp_path / "p.html").data
    assert len(data["videos"]) == 6
    assert None not in data["clip"]
    assert len(data["runs"][0]["views"][0]["map"]) == 6
