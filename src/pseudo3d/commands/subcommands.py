"""Commands that have commands of their own: ``p3d weights inspect``, ``p3d store info``."""

import difflib
from collections.abc import Callable, Mapping, Sequence


def run_subcommand(name: str, text: str, commands: Mapping[str, Callable[..., int]], args: Sequence[str]) -> int:
    """Parse and run the one that the first word names; without a word, print what there is.

    Args:
        name: of the command.
        text: its help.
        commands: the functions by word.
        args: the words after ``name``.

    Raises:
        Pseudo3dError: no such command, or wrong usage, told in one line.
    """
    from pseudo3d.cli import parse
    from pseudo3d.errors import Pseudo3dError

    if not args or args[0] in ("-h", "--help"):
        print(text, end="")
        return 0
    if args[0] not in commands:
        near = difflib.get_close_matches(args[0], commands, n=1)
        meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(commands)}."
        raise Pseudo3dError(f"no command {args[0]!r}; {meant} See p3d {name} --help")
    return parse(commands[args[0]], f"{name} {args[0]}", args[1:])
