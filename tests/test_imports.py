"""Who may import whom (DESIGN 1), and what a first import costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pseudo3d

SOURCE = Path(pseudo3d.__file__).parent
# Bottom to top. A module imports from lower rows and from its own package only. `errors`, `choices` (words that several
# parts take as arguments), `nearest` (names that were meant), `cpus` and `files` know nothing of videos; `commands` is
# the inside of `cli`, so that the two count as one.
ROWS = (
    ("errors", "choices", "nearest", "cpus"),
    ("clip", "preprocessing", "files"),
    ("video", "models"),
    ("inference", "data", "weights"),
    ("features",),
    ("evaluation",),
    ("visualize",),
    ("training", "export"),
    ("cli",),
)
ROW_OF = {name: row for row, names in enumerate(ROWS) for name in names}
HEAVY = ("av", "matplotlib", "numpy", "pyarrow", "scipy", "sklearn", "torch")
PUBLIC = (
    "Clip", "FeatureStore", "Preprocessing", "Pseudo3dError", "VideoEncoder", "VideoError", "create_model",
    "from_pretrained", "list_models", "load_model", "load_weights", "read_video", "sample_clips", "save_pretrained",
)  # fmt: skip


def imported_packages(node):
    """The first name below ``pseudo3d`` of everything that an import statement asks for."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif node.level:
        return ["a relative import"]
    elif node.module == "pseudo3d":
        names = [f"pseudo3d.{alias.name}" for alias in node.names]
    else:
        names = [node.module or ""]
    below = [name.split(".")[1] for name in names if name.startswith("pseudo3d.")]
    return [name for name in below if not name.startswith("__")]  # __version__ belongs to nobody


def forbidden_arrows(source):
    """``file:line: one -> other`` for every import that DESIGN 1 does not allow."""
    found = []
    for path in sorted(source.rglob("*.py")):
        place = path.relative_to(source)
        if place.as_posix() == "__init__.py":  # the public names, from everywhere
            continue
        own = "cli" if place.parts[0] == "commands" else place.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            for other in imported_packages(node):
                other = "cli" if other == "commands" else other
                if own != other and not ROW_OF.get(other, 99) < ROW_OF.get(own, -1):
                    found.append(f"{place.as_posix()}:{node.lineno}: {own} -> {other}")
    return found


def test_imports_point_down():
    assert forbidden_arrows(SOURCE) == []


def test_every_package_has_its_row():
    names = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert names - {"__init__", "__pycache__", "commands"} <= set(ROW_OF)


@pytest.mark.parametrize(
    ("file", "line", "arrow"),
    [
        ("video/decode.py", "import pseudo3d.models.resnet", "video -> models"),
        ("models/resnet.py", "from pseudo3d.data.splits import train_test_split", "models -> data"),
        ("data/collect.py", "from pseudo3d import inference", "data -> inference"),
        ("errors.py", "from pseudo3d import files", "errors -> files"),
        ("training/loop.py", "from pseudo3d.cli import main", "training -> cli"),
        ("features/extract.py", "from pseudo3d.newcomer import x", "features -> newcomer"),
        ("features/extract.py", "from . import store", "features -> a relative import"),
    ],
)
def test_a_forbidden_arrow_is_found(tmp_path, file, line, arrow):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"from pseudo3d import __version__\n\ndef late():\n    {line}\n")
    assert forbidden_arrows(tmp_path) == [f"{file}:4: {arrow}"]


def test_public_names_resolve():
    for name in PUBLIC:
        assert getattr(pseudo3d, name) is not None
        assert name in dir(pseudo3d)
        assert name in pseudo3d.__all__
    assert re.fullmatch(r"\d+\.\d+\.\d+", pseudo3d.__version__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = pseudo3d.nonsense


def loaded(statement):
    """Which of the heavy packages a new interpreter has loaded after ``statement``."""
    code = f"import sys\n{statement}\nprint('LOADED', *(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "statement",
    [
        "import pseudo3d; dir(pseudo3d)",
        "from pseudo3d.cli import main; main(['--help'])",
        "from pseudo3d.cli import main; main(['--version'])",
        "from pseudo3d.cli import main; main(['nonsense'])",
    ],
)
def test_first_steps_are_light(statement):
    assert loaded(statement) == set()


def test_only_what_is_named_is_loaded():
    assert loaded("import pseudo3d; pseudo3d.Pseudo3dError") == set()
    assert "torch" not in loaded("import pseudo3d; pseudo3d.read_video, pseudo3d.sample_clips, pseudo3d.Preprocessing")


def test_recipes_and_the_training_command_never_load_torch():
    assert loaded("import pseudo3d.training.config, pseudo3d.training.recipes, pseudo3d.commands.train") == set()


def test_video_never_loads_torch():
    """A process that only decodes stays small."""
    got = loaded("import pseudo3d.video.clips, pseudo3d.video.decode, pseudo3d.video.transforms")
    assert got == {"av", "numpy"}


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "extract",
        "evaluate",
        "predict",
        "visualize",
        "models",
        "demo",
        "store",
        "search",
        "duplicates",
        "cluster-labels",
        "data",
        "bench",
        "report",
    ],
)
def test_help_of_a_command_is_light(command):
    statement = f"from pseudo3d.cli import main\ntry: main(['{command}', '--help'])\nexcept SystemExit: pass"
    assert loaded(statement) == set()
