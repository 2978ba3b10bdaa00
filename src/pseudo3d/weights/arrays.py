"""Arrays by name that are read when they are asked for, so that loading never holds a network twice."""

import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pseudo3d.errors import Pseudo3dError, printable

Shape = tuple[int, ...]


class Arrays(Mapping[str, Tensor]):
    """A read-only mapping from names to tensors; each look-up reads the array anew.

    Args:
        entries: of each array, its shape and a function that reads it.

    Example:
        >>> import torch
        >>> arrays = Arrays.of({"a": torch.ones(2, 1)})
        >>> arrays.shapes, arrays.renamed({"a": "b"}.__getitem__)["b"].sum().item()
        ({'a': (2, 1)}, 2.0)
    """

    def __init__(self, entries: Mapping[str, tuple[Shape, Callable[[], Tensor]]]) -> None:
        self._entries = dict(entries)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> "Arrays":
        """The tensors of a state dict."""
        return cls({key: (tuple(value.shape), lambda value=value: value) for key, value in state.items()})  # type: ignore[misc]

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every array; nothing is read."""
        return {key: shape for key, (shape, _) in self._entries.items()}

    def __getitem__(self, key: str) -> Tensor:
        return self._entries[key][1]()

    def __contains__(self, key: object) -> bool:
        return key in self._entries  # Mapping's own asks __getitem__, which reads the array

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def renamed(self, rename: Callable[[str], str]) -> "Arrays":
        """The same arrays under other names."""
        return Arrays({rename(key): entry for key, entry in self._entries.items()})

    def without(self, keys: Mapping[str, object] | set[str]) -> "Arrays":
        """The arrays but those of ``keys``."""
        return Arrays({key: entry for key, entry in self._entries.items() if key not in keys})

    def reshaped(self, key: str, shape: Shape) -> "Arrays":
        """One array in another shape of as many numbers, the others as they are."""
        _, read = self._entries[key]
        return Arrays({**self._entries, key: (shape, lambda: read().reshape(shape))})

    def changed(self, key: str, shape: Shape, change: Callable[[Tensor], Tensor]) -> "Arrays":
        """One array computed from itself, the others as they are."""
        _, read = self._entries[key]
        return Arrays({**self._entries, key: (shape, lambda: change(read()))})


def check_regular(path: Path) -> None:
    """Raise unless ``path`` is a regular file: a pipe would be waited for, a device never ends.

    Raises:
        Pseudo3dError: there is no such file, or it is something else.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise Pseudo3dError(f"{path}: no such file") from None
    if stat.S_ISDIR(mode):
        raise Pseudo3dError(f"{path}: is a folder; give the file in it")
    if not stat.S_ISREG(mode):
        raise Pseudo3dError(f"{path}: is not a regular file; copy its content into one")


def open_safetensors(path: Path) -> tuple[Arrays, dict[str, str]]:
    """The arrays of a safetensors file and its metadata.

    Raises:
        Pseudo3dError: the file is missing or broken.
    """
    check_regular(path)
    try:
        file = safe_open(path, framework="pt")
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        metadata = file.metadata() or {}
    except SafetensorError as error:
        raise Pseudo3dError(
            f"{path}: not a whole safetensors file ({printable(error)}); copy or download it again"
        ) from error
    entries: dict[str, tuple[Shape, Callable[[], Tensor]]] = {}
    for key, shape in shapes.items():
        entries[key] = (shape, lambda key=key: file.get_tensor(key))  # type: ignore[misc]
    return Arrays(entries), metadata
