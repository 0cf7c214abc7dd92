"""The keys and numbers of one call, as the library takes them."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Iterable, Sequence

from . import _library


class Keys:
    """The keys of one call, as the library takes them: one behind the other."""

    __slots__ = ("count", "at", "_kept")

    def __init__(self, keys: Sequence[bytes]) -> None:
        joined = b"".join(keys)
        lengths = array("I", map(len, keys))
        lengths_at, self.count = lengths.buffer_info()
        given = _library.PageKeys(joined, len(joined), lengths_at, self.count)
        self.at = ctypes.addressof(given)
        # The library reads them during the call.
        self._kept = (given, lengths)


_ZEROS = bytes(4 * 4096)


def new_statuses(count: int) -> array[int]:
    """Places for the statuses of so many keys."""
    return array("i", _ZEROS[: 4 * count] if count <= 4096 else bytes(4 * count))


def indices_of(indices: Iterable[int], count: int, name: str = "indices") -> array[int]:
    """The numbers of places or slots, one for each key."""
    made = _library.numbers(name, indices)
    if len(made) != count:
        raise ValueError(f"{len(made)} {name} for {count} keys")
    return made
