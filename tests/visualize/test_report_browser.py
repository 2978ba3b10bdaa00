"""The report in a real browser: nothing goes wrong, nothing is asked for, and what a person does has its effect."""

import io
import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest
from browser import Browser, find_chromium
from PIL import Image
from report_runs import colours, make_scores, write_run, write_videos

from pseudo3d.commands import report as command
from pseudo3d.evaluation.results import Measurement, Result, read_result, save_result
from pseudo3d.visualize.report.maps import VideoMap
from pseudo3d.visualize.report.page import Content, build_page
from pseudo3d.visualize.report.runs import Run, Stored, View
from pseudo3d.visualize.report.sidecar import Preview
from pseudo3d.visualize.report.sprites import make_sprites

pytestmark = pytest.mark.slow
CLASSES = ("walk", "run", "</script><script>window.broken = 1</script>", "a & b")
ODD = ["<img src=x onerror='window.broken=1'>.avi", 'a "quote" and #1.avi', "50%20 x.avi", "ünïcode 动作.avi"]
NAMES = [*ODD, *(f"dir {i % 4}/v{i:02d}.avi" for i in range(4, 28))]
WRONG = ({1, 6, 9, 27}, {6, 10, 11, 26})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    find_chromium()
    made = tmp_path_factory.mktemp("100% #1 report")
    write_videos(made / "data", NAMES)
    (made / "data" / NAMES[27]).unlink()
    for i, wrong in enumerate(WRONG):
        write_run(
            made / f"run{i}", f"<u>run</u> {i}", NAMES, CLASSES, made / "data", wrong=wrong, seed=i, splits=("1", "2")
        )
    runs = [str(made / "run0"), str(made / "run1")]
    assert command.run([*runs, "--out", str(made / "the report #1.html"), "--workers", "2"]) == 1
    return made


@pytest.fixture(scope="module")
def shared(folder):
    with Browser(folder / "profile") as opened:
        yield opened


@pytest.fixture
def browser(shared, folder):
    """The page as it is when it has just been opened, at 1280x900; whatever a test does, no error may come of it."""
    shared.media()
    shared.size(1280, 900)
    shared.point(2, 2)
    shared.console.clear()
    shared.requests.clear()
    shared.open(folder / "the report #1.html")
    yield shared
    assert shared.console == []
    assert shared.run("window.broken") is None
    page = (folder / "the report #1.html").as_uri()
    clips = (folder / "the report #1_clips").as_uri() + "/"
    others = [url for url in shared.requests if not url.startswith((page, clips, "blob:", "data:"))]
    assert others == []


def place_of(browser, run, video):
    """Where a video's point is in the window, by the formula of the map: as large as fits, with a margin."""
    browser.middle(f".map-canvas[data-run='{run}']")
    left, top, width, height = browser.run(
        f"(({{x, y, width, height}}) => [x, y, width, height])"
        f"(document.querySelector(\".map-canvas[data-run='{run}']\").getBoundingClientRect())"
    )
    points = np.array(browser.run(f"D.runs[{run}].map"))
    room = min((np.array([width, height]) - 28) / (2 * np.abs(points[:, 1:] - 0.5)).max(axis=0))
    x, y = points[points[:, 0] == video][0, 1:] - 0.5
    return left + width / 2 + room * x, top + height / 2 + room * y


def colour_at(browser, selector):
    """The colour in the middle of an element, as the screen shows it."""
    browser.settle()
    x, y = browser.run(
        "(b => [b.x + b.width / 2, b.y + b.height / 2])"
        f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
    )
    with Image.open(io.BytesIO(browser.screenshot())) as picture:
        return np.array(picture.convert("RGB").getpixel((round(x), round(y))), int)


def is_video(colour, video):
    """Whether a colour is that of a video, and of no other."""
    distances = [np.abs(colour - other).max() for other in colours(len(NAMES))]
    return int(np.argmin(distances)) == video and distances[video] < 40


@pytest.mark.parametrize(("run", "video"), [(0, 0), (0, 13), (1, 2), (1, 26)])
def test_pointing_at_a_video_shows_its_thumbnail(browser, run, video):
    assert browser.run("tip.hidden")
    x, y = place_of(browser, run, video)
    browser.point(x, y)
    browser.wait("!tip.hidden && tip.querySelector('img').complete")
    shown = browser.run("Number(tip.querySelector('img').dataset.video)")  # perhaps a neighbour that lies on top of it
    assert browser.run("tip.querySelector('b').textContent") == NAMES[shown]
    assert np.hypot(*np.subtract(place_of(browser, run, shown), (x, y))) < 9
    assert is_video(colour_at(browser, "#tip .thumb"), shown)
    assert browser.run("tip.querySelector('img').alt") == f"a frame of {NAMES[shown]}"
    browser.point(2, 2)
    browser.wait("tip.hidden")


def test_every_point_can_be_hit(browser):
    found = set()
    for video in range(len(NAMES)):
        browser.point(*place_of(browser, 0, video))
        found.add(browser.run("tip.querySelector('.thumb img, .thumb.none') && tip.querySelector('b').textContent"))
    assert len(found) > 0.7 * len(NAMES)  # some hide others


def test_a_click_plays_the_clip(browser):
    browser.click(*place_of(browser, 0, 8))
    browser.wait("player.open && player.querySelector('video').readyState >= 2")
    browser.wait("player.querySelector('video').currentTime > 0.2")
    name = browser.run("player.querySelector('h2').textContent")
    shown = NAMES.index(name)
    assert browser.run("player.querySelector('video').videoWidth") == 64
    assert is_video(colour_at(browser, "#player video"), shown)
    assert browser.run("player.querySelectorAll('.said > div').length") == 2  # what each run says
    assert browser.run("document.activeElement.closest('dialog') === player")
    browser.press("Escape")
    browser.wait("!player.open && !player.querySelector('video')")
    assert browser.run("state.selected") == shown


@pytest.mark.parametrize("name", ODD)
def test_clips_of_odd_names_play(browser, name):
    browser.run(f"openVideo({NAMES.index(name)})")
    browser.wait("player.querySelector('video').currentTime > 0.1")
    assert browser.run("player.querySelector('h2').textContent") == name


def test_the_keyboard_does_all_of_it(browser):
    browser.run("document.querySelector('.map-canvas').focus()")
    browser.press("ArrowRight")
    browser.wait("!tip.hidden")
    first = browser.run("tip.querySelector('b').textContent")
    for key in ("ArrowDown", "ArrowLeft", "ArrowUp", "ArrowRight"):
        browser.press(key)
    assert browser.run("document.getElementById('live').textContent").startswith(tuple(NAMES))
    browser.press("Enter")
    browser.wait("player.open")
    browser.press("Escape")
    browser.wait("!player.open")
    assert first in NAMES
    browser.run("document.querySelector('.matrix-canvas').focus()")
    browser.press("ArrowDown")
    browser.press("ArrowDown")
    browser.press("ArrowRight")
    assert browser.run("document.getElementById('live').textContent").startswith("true: run, predicted: run, 5 of 7")
    browser.press("Enter")
    assert (
        browser.run("document.getElementById('videos-count').textContent")
        == "5 videos that are run and were taken for run"
    )


def test_headings_sort(browser):
    def column(number):
        return browser.run(
            f"[...document.querySelectorAll('#classes tbody tr')].map(r => r.children[{number}].textContent)"
        )

    def press(number):
        browser.run(f"document.querySelectorAll('#classes .sort')[{number}].click()")
        return browser.run(f"document.querySelectorAll('#classes thead th')[{number}].getAttribute('aria-sort')")

    shares = [float(text.strip("%")) for text in column(2)]
    assert shares == sorted(shares)  # the worst class first
    assert press(0) == "ascending"
    assert column(0) == [CLASSES[2], CLASSES[3], "run", "walk"]
    assert press(0) == "descending"
    assert press(3) == "descending"
    shares = [float(text.strip("%")) for text in column(3)]
    assert shares == sorted(shares, reverse=True)
    assert press(3) == "ascending"
    shares = [float(text.strip("%")) for text in column(3)]
    assert shares == sorted(shares)


def cards(browser):
    return [NAMES[i] for i in browser.run("[...document.querySelectorAll('.card')].map(c => Number(c.dataset.video))")]


def choose(browser, selector, value, event="change"):
    browser.run(
        f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('{event}')); }})"
        f"(document.querySelector('{selector}'))"
    )


def test_mistakes_come_with_the_surest_first(browser):
    scores = make_scores(NAMES, CLASSES, wrong=WRONG[0], seed=0)
    surest = sorted(WRONG[0], key=lambda i: -scores.values[i].max())
    assert cards(browser) == [NAMES[i] for i in surest]
    kinds = browser.run("[...document.getElementById('videos-kind').options].map(o => o.textContent)")
    assert kinds[2] == "right in 1  <u>run</u> 0, wrong in 2  <u>run</u> 1"
    choose(browser, "#videos-kind", 2)
    assert set(cards(browser)) == {NAMES[i] for i in WRONG[1] - WRONG[0]}
    choose(browser, "#videos-kind", 4)
    assert cards(browser) == [NAMES[6]]  # wrong in every run
    choose(browser, "#videos-kind", 5)
    assert len(cards(browser)) == 24
    browser.run("document.querySelector('#videos .button').click()")
    assert cards(browser) == NAMES
    choose(browser, "#videos-search", "V2", "input")
    assert cards(browser) == [name for name in NAMES if "v2" in name]


def test_a_video_that_is_gone_says_so(browser):
    assert browser.run("document.querySelector('.card[data-video=\"27\"] .thumb').textContent").startswith(
        "no picture: there is no such file"
    )
    browser.run("openVideo(27)")
    assert browser.run("player.querySelector('video')") is None
    assert "no such file" in browser.run("player.querySelector('.thumb').textContent")


def test_pointing_at_the_matrix_tells_its_cell(browser):
    x, y = browser.middle(".matrix-canvas")
    width, height = browser.run("(c => [c.clientWidth, c.clientHeight])(document.querySelector('.matrix-canvas'))")
    browser.point(x + width / 5, y + height / 5)  # beyond the names
    browser.wait("!tip.hidden")
    said = browser.run("[...tip.children].map(line => line.textContent)")
    assert said[0].startswith("true: ")
    assert "of 7 videos (" in said[2]
    told = browser.run("document.querySelector('#confusion .pairs li').textContent")
    browser.run("document.querySelector('#confusion .pairs .link').click()")
    assert told.endswith(f"{len(cards(browser))} of 7")


def test_a_class_stands_alone(browser):
    browser.settle()
    before = browser.run("document.querySelector('.map-canvas').toDataURL()")
    browser.run("document.querySelector('.legend button').click()")
    assert browser.run("document.querySelector('.legend button').getAttribute('aria-pressed')") == "true"
    assert browser.run("document.querySelector('.map-canvas').toDataURL()") != before
    browser.run("document.querySelector('.legend button').click()")
    assert browser.run("document.querySelector('.map-canvas').toDataURL()") == before


def test_zooming_keeps_what_is_pointed_at(browser):
    x, y = place_of(browser, 0, 5)
    browser.point(x, y)
    before = browser.run("tip.querySelector('b').textContent")
    browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-300, modifiers=2)
    browser.settle()
    browser.point(x + 1, y)
    assert browser.run("tip.querySelector('b').textContent") == before


def test_splits_are_chosen(browser):
    assert browser.run("[...document.getElementById('split').options].map(o => o.value)") == ["1", "2"]
    first = cards(browser)
    choose(browser, "#split", "2")
    assert sorted(cards(browser)) == sorted(first)  # the same mistakes, with other scores
    assert browser.run("document.getElementById('split').value") == "2"
    assert browser.run("document.querySelectorAll('main > section').length") == 5


@pytest.mark.parametrize("width", [320, 480, 800])
def test_a_narrow_window_needs_no_scrolling_sideways(browser, width):
    browser.size(width, 700)
    browser.settle()
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("openVideo(3)")
    assert browser.run("player.getBoundingClientRect().width") <= width


def test_light_and_dark_and_paper(browser):
    paper = "getComputedStyle(document.body).backgroundColor"
    browser.media(prefers_color_scheme="light")
    browser.settle()
    light, drawn = browser.run(paper), browser.run("document.querySelector('.matrix-canvas').toDataURL()")
    browser.media(prefers_color_scheme="dark")
    browser.wait(f"document.querySelector('.matrix-canvas').toDataURL() !== {json.dumps(drawn)}")
    assert light == "rgb(255, 255, 255)"
    assert browser.run(paper) != light
    browser.media("print", prefers_color_scheme="dark")
    assert browser.run(paper) == light
    browser.media()
    assert browser.pdf().startswith(b"%PDF")


def test_every_picture_and_control_has_a_name(browser):
    browser.run("openVideo(2)")
    unnamed = browser.run("""[...document.querySelectorAll('img, canvas, button, select, input, video')].filter(e =>
        !(e.alt || e.ariaLabel || e.getAttribute('aria-label') || e.ariaHidden === 'true' || e.textContent.trim()
          || (e.labels && e.labels.length))).map(e => e.outerHTML.slice(0, 80))""")
    assert unnamed == []
    ids = browser.run("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_a_clip_that_was_deleted_is_told(folder, tmp_path):
    page = folder / "the report #1.html"
    (tmp_path / "alone.html").write_bytes(page.read_bytes())
    with Browser(tmp_path / "profile") as browser:
        browser.open(tmp_path / "alone.html")
        browser.run("openVideo(0)")
        text = browser.wait("player.querySelector('.bad') && player.querySelector('.bad').textContent")
        assert text.startswith("The clip is not there")


def big_page(folder, count, classes, name="many videos"):
    """A page of so many videos, with pictures as busy as real ones, made without decoding anything."""
    rng = np.random.default_rng(0)
    names = [f"class {i % classes:03d}/v_{i:05d}.avi" for i in range(count)]
    pictures = []
    for i in range(50):
        noise = rng.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        pictures.append(folder / f"{i}.jpg")
        Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC).save(pictures[-1])
    previews = [Preview(pictures[i % 50], f"{i:020x}.mp4") for i in range(count)]
    scores = make_scores(names, [f"class {i:03d}" for i in range(classes)], wrong=range(0, count, 7))
    result = Result("hits", name, (Measurement("video hit@1", 0.857),))
    run = Run(folder, result, (View("", scores),), (Stored(None, "", "pool5"),), ())
    places = dict(zip(names, rng.uniform(0, 1, (count, 2)), strict=True))
    sprites = make_sprites([preview.picture for preview in previews])
    content = Content("many videos", [run], names, previews, sprites, [[VideoMap(places)]], "big_clips", [()])
    (folder / "big.html").write_text(build_page(content, datetime(2026, 1, 1)))
    return folder / "big.html"


def test_ten_thousand_videos(tmp_path):
    find_chromium()
    page = big_page(tmp_path, 10_000, 400)
    assert page.stat().st_size < 35e6
    with Browser(tmp_path / "profile") as browser:
        browser.size(1280, 900)
        browser.open(page)
        assert browser.run("D.videos.length") == 10_000
        assert browser.run("document.querySelectorAll('*').length") < 8000  # not a node for each video
        assert browser.run("document.querySelectorAll('.card').length") == 24
        assert browser.run("sheetURLs.filter(url => url).length") <= 24  # sheets are decoded when they are shown
        for video in (5, 7777):
            x, y = place_of(browser, 0, video)
            browser.point(x, y)
            browser.wait("!tip.hidden && tip.querySelector('img').complete")
            shown = browser.run("Number(tip.querySelector('img').dataset.video)")
            assert np.hypot(*np.subtract(place_of(browser, 0, shown), (x, y))) < 3
        choice = browser.run("document.getElementById('videos-count').textContent")
        assert choice.replace("\u2009", "") == "1429 videos"
        assert browser.console == []


def test_a_long_name_pushes_no_number_out_of_a_narrow_window(tmp_path):
    """The heading of a column is the run's name; the accuracy under it stays in sight."""
    find_chromium()
    page = big_page(tmp_path, 8, 4, "p3d_resnet152, runs/a_folder_of_many_words/checkpoints/best " * 2)
    with Browser(tmp_path / "profile") as browser:
        browser.size(360, 700)
        browser.open(page)
        assert browser.run("document.querySelector('#classes td:last-child').getBoundingClientRect().right") <= 360
        assert browser.run("document.documentElement.scrollWidth") <= 360


def write_page(folder, measurements, classes):
    """The page of a run with these measurements and eight videos of so many classes."""
    names = [f"v{i}.avi" for i in range(8)]
    write_videos(folder / "data", names, frames=2)
    run = write_run(
        folder / "run", "p3d_resnet152, runs/best", names, classes, folder / "data", splits=("1",),
        protocol="ucf101-network",
    )  # fmt: skip
    save_result(replace(read_result(run), measurements=measurements), run)
    assert command.run([str(run), "--out", str(folder / "page.html"), "--workers", "1"]) == 0
    return folder / "page.html"


@pytest.mark.parametrize("width", [1180, 1000])
def test_the_numbers_of_three_splits_are_all_in_sight(tmp_path, width):
    measurements = [
        Measurement(metric, 0.912, split, 0.011 if split == "mean" else None)
        for split in ("1", "2", "3", "mean")
        for metric in ("clip hit@1", "accuracy")
    ]
    page = write_page(tmp_path, tuple(measurements), CLASSES)
    with Browser(tmp_path / "profile") as browser:
        browser.size(width, 900)
        browser.open(page)
        box = "document.querySelector('#results .scroll')"
        assert browser.run(f"{box}.scrollWidth <= {box}.clientWidth")
        assert browser.run(f"{box}.querySelectorAll('td').length") == 8


def test_names_in_the_matrix_are_whole_where_there_is_room(tmp_path):
    classes = [f"a class with quite a long name, {word}" for word in ("one", "two", "three", "four")]
    page = write_page(tmp_path, (Measurement("accuracy", 1.0, "1"),), classes)
    with Browser(tmp_path / "profile") as browser:
        browser.size(1180, 900)
        browser.open(page)
        browser.run("""window.drawn = []; CanvasRenderingContext2D.prototype.fillText = function (text) {
            window.drawn.push(text); }; redraw()""")
        drawn = browser.run("window.drawn")
        assert all(drawn.count(name) == 2 for name in classes), drawn
