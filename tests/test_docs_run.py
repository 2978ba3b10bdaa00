"""What the pages say that one can do, done: their `p3d` commands and their Python, in order, in one folder a page.

Commands are indented or in a fence. Lines without a blank one between them, one of which begins with `p3d`, are all
commands; each ends with code 0, or with what its comment names (`# exit code 1`). Blocks of python share their names.
`<!-- not run: reason -->` before a block leaves it out.
"""

import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt
from tiny import p3d
from videos import write_video

from pseudo3d import FeatureStore, create_model, save_pretrained
from pseudo3d.features.rows import COLUMNS

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("features.md", "store.md", "search.md", "training.md", "visualize.md", "tables.md", "report.md")
MOTIONS = {"left": (0, -2), "right": (0, 2), "up": (-2, 0)}


class Block(NamedTuple):
    """Commands or Python of a page; ``not_run`` says why it is left out."""

    kind: str
    text: str
    line: int
    not_run: str | None


def blocks(text):
    """The blocks of a page that can be run."""
    not_run = None
    for token in MarkdownIt().parse(text):
        if token.type in ("fence", "code_block"):
            line = token.map[0] + 1
            if token.info == "python":
                yield Block("python", token.content, line, not_run)
            elif lines := [part for part in token.content.split("\n\n") if re.search("^p3d ", part, re.MULTILINE)]:
                yield Block("commands", "\n".join(lines), line, not_run)
        marked = token.type == "html_block" and re.match(r"<!-- not run: (.+?) -->", token.content, re.S)
        not_run = marked[1] if marked else None


def commands(text):
    """The words of each command, and the code that it ends with; a line that ends in a backslash goes on."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            named = re.search(r"#.*exit code (\d)", line)
            yield shlex.split(line, comments=True), int(named[1]) if named else 0


def moving_square(number, motion, frames=24, size=64):
    """A bright square on a dark ground that goes one way."""
    rng = np.random.default_rng(number)
    ground, start = rng.integers(0, 60, (size, size, 3), np.uint8), rng.integers(0, size, 2)
    pictures = []
    for i in range(frames):
        y, x = (start + i * np.array(motion)) % size
        picture = ground.copy()
        picture[y : y + 16, x : x + 16] = (250, 200, 150)
        pictures.append(picture)
    return pictures


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """What the pages take for granted: ``my_videos/``, ``new.mp4``, ``labels.csv`` and the weights ``W``; read only."""
    folder = tmp_path_factory.mktemp("material")
    paths = {}
    for number, (side, label, name) in enumerate(
        (side, label, name) for side in ("train", "test") for label in MOTIONS for name in "01"
    ):
        path = folder / "my_videos" / side / label / f"{name}.mkv"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_square(number, MOTIONS[label]))
        paths[path.relative_to(folder / "my_videos").as_posix()] = label
    new = moving_square(99, MOTIONS["left"])
    write_video(folder / "new.mp4", new, codec="mpeg4", pix_fmt="yuv420p")
    (folder / "labels.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in paths.items()))
    torch.manual_seed(0)
    model = create_model("p3d_resnet14", num_classes=len(MOTIONS))
    model.preprocessing, model.class_names = model.preprocessing.with_size(32), tuple(sorted(MOTIONS))
    save_pretrained(model, folder / "W")
    return folder


def run_page(page, capsys):
    """Run a page's blocks where we are; the names of its Python."""
    names, ran, left_out = {}, 0, []
    for block in blocks((DOCS / page).read_text(encoding="utf-8")):
        where = f"docs/{page}, line {block.line}"
        if block.not_run is not None:
            left_out.append(f"{where}: {block.not_run}")
        elif block.kind == "python":
            exec(compile(block.text, where, "exec"), names)
            ran += 1
        else:
            for words, expected in commands(block.text):
                assert words[0] == "p3d", f"{where}: {shlex.join(words)} is none of our commands; mark the block"
                code, _, err = p3d(capsys, *words[1:])
                assert code == expected, f"{where}: {shlex.join(words)}: {err}"
                ran += 1
    with capsys.disabled():
        print(f"\ndocs/{page}: {ran} commands and blocks of Python ran", *left_out, sep="\n  left out: ")
    assert ran
    return names


def check_features(names):
    """pandas, DuckDB and NumPy agree."""
    frame, store, x = names["frame"], names["store"], names["x"]
    assert frame["video"].tolist() == store.videos
    assert set(names["said"]) <= set(MOTIONS)
    assert names["means"].shape == (3, 2048)
    for label in MOTIONS:
        chosen = [i for i, video in enumerate(store.videos) if video.startswith(f"train/{label}/")]
        assert np.allclose(names["means"].loc[label], x[chosen].mean(axis=0), atol=1e-6)
    test = frame["split"] == "test"
    expected = list(zip(frame["video"][test], frame["label"][test], names["said"], strict=True))
    assert names["said_by_duckdb"].fetchall() == expected
    assert names["nearest"].fetchall() == list(zip(frame["video"], frame["nearest"], strict=True))


def check_store(names):
    """The examples read what the store holds; what was removed is gone."""
    left = FeatureStore("features")
    assert len(left) == len(names["store"]) - 2
    assert left.layers == ["pool5", "idt"]
    by_video = dict(zip(names["table"]["video"], names["values"], strict=True))
    assert np.array_equal(np.stack([by_video[video] for video in left.videos]), left.features())
    (best, same), *others = names["similar"].fetchall()
    assert best == names["store"].videos[0]
    assert abs(same - 1) < 1e-6
    assert len(others) == 11


SLOW = {"training.md": pytest.mark.slow}
CHECKS = {"features.md": check_features, "store.md": check_store}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("page", [pytest.param(page, marks=SLOW.get(page, ())) for page in PAGES])
def test_a_page(page, material, tmp_path, monkeypatch, capsys):
    shutil.copytree(material, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names = run_page(page, capsys)
    CHECKS.get(page, lambda names: None)(names)


def test_every_column_is_explained():
    text = (DOCS / "store.md").read_text(encoding="utf-8")
    for name in COLUMNS.names:
        assert re.search(rf"^\| (\w+, )*{name}(, \w+)* \|", text, re.MULTILINE), name


PAGE = """
Text, `p3d inline`.

    p3d one a\\ b  # exit code 1
    # a comment
    p3d two \\
      --long

    features/
      a tree

<!-- not run: no such package -->
```python
import no_such_package
```

<!-- not run: it is far from its block -->

Text.

```python
x = 1
```

```sh
p3d three
```

```json
{}
```
"""


def test_blocks_are_found():
    found = list(blocks(PAGE))
    assert [(block.kind, block.not_run) for block in found] == [
        ("commands", None), ("python", "no such package"), ("python", None), ("commands", None)
    ]  # fmt: skip
    assert list(commands(found[0].text)) == [(["p3d", "one", "a b"], 1), (["p3d", "two", "--long"], 0)]
    assert PAGE.splitlines()[found[2].line].startswith("x = 1")
