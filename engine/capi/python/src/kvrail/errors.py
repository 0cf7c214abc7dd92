"""Errors of the library: each has the status as a number, its name, and the text."""

from __future__ import annotations


class Error(Exception):
    """A call of the library failed. Nothing has changed, unless its documentation says otherwise.

    `code` is a number that never changes its meaning (docs/errors.md), `name` its name there, and
    `text` says what happened, with names and numbers, and what to do.
    """

    def __init__(self, code: int, text: str, name: str) -> None:
        super().__init__(code, text, name)
        self.code, self.text, self.name = code, text, name

    def __str__(self) -> str:
        return f"{self.text} [{self.name}, {self.code}]"


class UsageError(Error, ValueError):
    """A caller's mistake: an argument that cannot be, a handle that is closed."""


class PlaceBusyError(Error):
    """A place of registered memory is not free: a get or a put uses it, or hardware may still write
    into it."""


class UnderwayError(Error, TimeoutError):
    """A get that was begun has not ended within the time."""


class StillReadingError(Error):
    """Hardware may still write into registered memory, which stays mapped until the process ends."""


def error_class(status: int) -> type[Error]:
    """The class of a status."""
    if status == 8055:
        return UnderwayError
    if status == 8052:
        return PlaceBusyError
    if status == 8029:
        return StillReadingError
    return UsageError if 8000 <= status < 8060 else Error
