"""The README and the docs speak of what is there."""

import re
from pathlib import Path

import pytest

from pseudo3d.cli import COMMANDS

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "protocols").glob("*.md")),
)
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
TREE_ROOTS = ("src/pseudo3d/", "tests/", "examples/", "docs/")


def tree_files(text):
    """``(place, name)`` of every file and folder that README's tree names; ``place`` is the folder it must lie in.

    A line begins with a root and what lies in it, or, indented under ``src/pseudo3d/``, with a folder; a line that
    begins with neither goes on with the folder above.
    """
    tree = re.search(r"## The files\n\n((?:    .*\n)+)", text)[1]
    found, root, place = [], "", ""
    for line in tree.splitlines():
        first = line.split()[0]
        indent = len(line) - len(line.lstrip())
        if indent == 4:
            root = place = first
            found.append(("", root))
            line = line.replace(first, "", 1)
        elif indent == 6:
            place = root + first if first.endswith("/") else root
        for name in re.findall(r"(?<![\w/.])\w+(?:\.py\b|\.md\b|/(?=\s))", line):
            found.append((root if name.endswith("/") else place, name))
    return found


@each_document
def test_no_placeholder_is_left(document):
    lines = [line for line in document.read_text(encoding="utf-8").splitlines() if "@@" in line]
    assert lines == []


@each_document
def test_links_and_images_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    missing = {target for target in targets if ":" not in target and not (document.parent / target).exists()}
    assert missing == set()


def test_the_tree_names_files_that_exist():
    files = tree_files((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {place for place, _ in files} >= set(TREE_ROOTS)  # or nothing would be tested
    assert [place + name for place, name in files if not (ROOT / place / name).exists()] == []


def test_the_tree_is_read_right():
    text = """## The files

    src/pseudo3d/
      clip.py            words about other.things
      errors.py files.py two
      video/             sampling.py (index arithmetic), decode.py,
                         clips.py (crops)
      cli.py commands/   p3d
    docs/                data.md, x.md

    More
"""
    assert set(tree_files(text)) == {
        ("", "src/pseudo3d/"), ("src/pseudo3d/", "clip.py"), ("src/pseudo3d/", "errors.py"),
        ("src/pseudo3d/", "files.py"), ("src/pseudo3d/", "video/"), ("src/pseudo3d/video/", "sampling.py"),
        ("src/pseudo3d/video/", "decode.py"), ("src/pseudo3d/video/", "clips.py"), ("src/pseudo3d/", "cli.py"),
        ("src/pseudo3d/", "commands/"), ("", "docs/"), ("docs/", "data.md"), ("docs/", "x.md"),
    }  # fmt: skip


@each_document
def test_commands_exist(document):
    text = document.read_text(encoding="utf-8")
    # in a block of commands, or between backticks; prose has "p3d and its commands"
    used = set(re.findall(r"^    (?:\$ )?(?:\S*/)?p3d ([a-z-]+)", text, re.M)) | set(
        re.findall(r"`p3d ([a-z-]+)", text)
    )
    assert used <= set(COMMANDS)
    assert used or document.name != "README.md"
