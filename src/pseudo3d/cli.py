"""The command ``p3d``: which commands there are, and how their mistakes and failures are told.

Exit codes: 0 all done, 1 done but some videos failed (each is named), 2 wrong usage or unusable input.
"""

import contextlib
import difflib
import errno
import importlib
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tyro
from tyro import _errors as tyro_errors

from pseudo3d.errors import Pseudo3dError
from pseudo3d.nearest import nearest

COMMANDS = {
    "demo": "train, extract and evaluate on a small set of real video files that it writes itself",
    "train": "train a network on labelled videos",
    "extract": "write one representation of each video into a store",
    "evaluate": "judge a store's features by a linear SVM, or run a protocol of the paper",
    "predict": "name the most likely classes of videos",
    "visualize": "draw maps of videos, the paper's figures, and what a network looks at",
    "report": "write one HTML page of what runs found",
    "bench": "measure and print the paper's tables",
    "data": "list the official data sets, check their files",
    "store": "say what is in a store, check it, export it",
    "search": "find the videos of a store that are most like a video",
    "duplicates": "find videos of a store that are nearly the same",
    "cluster-labels": "group a store's videos, as a first draft of labels",
    "weights": "inspect, convert, verify and publish weights",
    "models": "list the networks with their size and arithmetic",
}

_HELP = """usage: p3d COMMAND [...]

Videos to labels and 2048-number representations with Pseudo-3D Residual Networks (Qiu, Yao, Mei, ICCV 2017).

{commands}

`p3d COMMAND --help` explains a command and shows an example.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Example:
        >>> main(["predcit"])
        2
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        print(_HELP.format(commands="\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())), end="")
        return 0
    if args[0] == "--version":
        from pseudo3d import __version__

        print(__version__)
        return 0
    name = args[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.0)[0]
        return _fail("", f"no command {name!r}; did you mean {near!r}? See p3d --help")
    with _notes_on_stderr():
        try:
            code = importlib.import_module(f"pseudo3d.commands.{name.replace('-', '_')}").run(args[1:])
            sys.stdout.flush()
            return code
        except Pseudo3dError as error:
            return _fail(name, str(error))
        except BrokenPipeError:  # `p3d predict ... | head`: nobody reads on, and that is no mistake
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + 13  # as a shell reports SIGPIPE
        except OSError as error:
            if error.errno is None:
                raise
            return _fail(name, _explain(error, name))
        except KeyboardInterrupt:
            return _fail(name, "stopped; what was written so far is whole", code=130)


def parse(function: Callable[..., Any], name: str, args: Sequence[str]) -> Any:
    """Call ``function`` with the arguments that its signature finds in ``args`` (tyro).

    Raises:
        Pseudo3dError: wrong usage, told in one line.
    """

    def one_line(event: tyro_errors.ParseErrorEvent) -> None:
        raise Pseudo3dError(f"{_describe(event, function)}; see p3d {name} --help")

    with tyro_errors.on_parse_error(one_line):
        return tyro.cli(function, prog=f"p3d {name}", args=list(args))


def _describe(event: tyro_errors.ParseErrorEvent, function: Callable[..., Any]) -> str:
    match event:
        case tyro_errors.MissingArgs():
            # A misspelt option shows up as a missing one too: the word that was typed says more.
            missing = ", ".join(_flag(arg.arg) for arg in event.missing_arguments)
            typed = _unknown(event.unrecognized_tokens[0], function) + "; " if event.unrecognized_tokens else ""
            return f"{typed}{missing} must be given"
        case tyro_errors.UnrecognizedArgs():
            return _unknown(event.tokens[0], function)
        case tyro_errors.InvalidChoice():
            return f"{_flag(event.argument)} cannot be {event.value!r}; it takes {', '.join(event.choices)}"
        case tyro_errors.BadValue():
            got = "nothing" if event.offending_value is None else repr(event.offending_value)
            return f"{_flag(event.argument)} takes {_kind(event.argument)}, got {got}"
        case tyro_errors.InstantiationFailure():
            message = event.message.splitlines()[0]
            if event.argument is None:
                return message
            words = re.search(r"'.*'", message)
            return f"{_flag(event.argument)} takes {_kind(event.argument)}" + (f", got {words[0]}" if words else "")
    return "wrong usage"


_KINDS = {
    "INT": "a whole number",
    "FLOAT": "a number",
    "PATH": "a path",
    "INT INT": "two whole numbers",
    "[FLOAT [FLOAT ...]]": "numbers",
}


def _kind(argument: Any) -> str:
    """What an option takes, in words."""
    optional, _, name = argument.lowered.metavar.rpartition("{None}|")
    words = _KINDS.get(name.removeprefix("{").removesuffix("}"), name)
    return f"{words} or None" if optional or "{None}|" in argument.lowered.metavar else words


def _flag(argument: Any) -> str:
    """The option's long name, or the name of a positional argument."""
    names = argument.lowered.name_or_flags
    return names[-1] if names[-1].startswith("-") else names[-1].upper()


def _unknown(word: str, function: Callable[..., Any]) -> str:
    if not word.startswith("-"):
        return f"one word too many: {word!r}"
    typed = word.partition("=")[0]
    near, alike = nearest(typed.lstrip("-"), [option.removeprefix("--") for option in _options(function)])
    return f"unknown option {typed}" + (f", did you mean --{near}?" if alike else f"; the nearest is --{near}")


def _options(function: Callable[..., Any]) -> list[str]:
    """All long options, read from the help text: tyro has no lasting way to list them."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(function, args=["--help"])
    return re.findall(r"(?<=\s)--[a-z0-9][a-z0-9.-]*", text.getvalue())


def _explain(error: OSError, command: str) -> str:
    assert error.errno is not None
    where = f"{error.filename}: " if error.filename else ""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            again = "again with --resume auto" if command == "train" else "again"
            advice = f"; make space and run the same command {again} (what was written before is whole)"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            advice = "; choose a folder that you may write to (or a file that you may read)"
        case errno.EEXIST | errno.ENOTDIR:
            advice = "; a file is where a folder is needed: choose another name"
        case _:
            advice = ""
    return f"{where}{os.strerror(error.errno)}{advice}"


def _fail(name: str, text: str, code: int = 2) -> int:
    print(f"p3d {name}: {text}" if name else f"p3d: {text}", file=sys.stderr)
    return code


@contextlib.contextmanager
def _notes_on_stderr() -> Iterator[None]:
    """The package's log lines and warnings, one line each and without the place in the code they come from."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("p3d: %(message)s"))
    logger = logging.getLogger("pseudo3d")
    logger.addHandler(handler)

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        print(f"p3d: note: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        warnings.filterwarnings("always", category=UserWarning, module="pseudo3d")
        try:
            yield
        finally:
            logger.removeHandler(handler)


def _end_process(code: int) -> None:
    """End with this exit code, whatever the threads of torch.distributed do.

    Of the processes that torchrun starts, one in some dozens on a busy machine aborts while the interpreter is taken
    down ("terminate called without an active exception"), after all is written: a thread of gloo is still there.
    torchrun would take that for a failed run.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _end_process(main())
