"""Gets that were begun."""

from __future__ import annotations

import ctypes
from array import array
from ctypes import c_uint64
from typing import TYPE_CHECKING

from . import _library
from ._batch import new_statuses
from ._library import check, lib, nanoseconds
from .errors import UnderwayError
from .values import Got, GotGroups

if TYPE_CHECKING:
    from .node import Node


class Get:
    """A get that was begun. Its places are the library's until its result was taken. One that is
    dropped without that is given up, as by abandon()."""

    __slots__ = ("node", "tag", "count", "_ticket", "_got")

    def __init__(self, node: Node, tag: int, count: int) -> None:
        self.node, self.tag, self.count = node, tag, count
        self._ticket = c_uint64()
        self._got: Got | None = None

    @property
    def ticket(self) -> int:
        """Its number, which Node.ended() names."""
        return self._ticket.value

    def done(self) -> bool:
        """Whether it has ended."""
        try:
            self.result(0.0)
        except UnderwayError:
            return False
        return True

    def result(self, timeout: float) -> Got:
        """Its result. Waits for it; raises UnderwayError, a TimeoutError, if it is not there in time."""
        if self._got is None:
            statuses, counts = new_statuses(self.count), _library.GetCounts()
            check(
                lib.kvrail_node_end_get(
                    self.node._handle,
                    self.ticket,
                    nanoseconds(timeout),
                    statuses.buffer_info()[0],
                    self.count,
                    ctypes.addressof(counts),
                )
            )
            self._got = self._make(counts, statuses)
        return self._got

    def _make(self, counts: _library.GetCounts, statuses: array[int]) -> Got:
        return Got(counts.hits, counts.leading_hits, counts.unsettled, statuses)

    def abandon(self) -> None:
        """Gives it up. Its places are free when nothing writes into them any more: Places.settle."""
        check(lib.kvrail_node_abandon_get(self.node._handle, self.ticket))

    def __del__(self) -> None:
        if self._got is None and self._ticket.value and self.node._handle:
            lib.kvrail_node_abandon_get(self.node._handle, self._ticket)


class GroupGet(Get):
    """A get of groups that was begun: a Get whose result is a GotGroups."""

    __slots__ = ("_sizes",)

    def __init__(self, node: Node, tag: int, count: int, sizes: tuple[int, ...]) -> None:
        super().__init__(node, tag, count)
        self._sizes = sizes

    def result(self, timeout: float) -> GotGroups:
        """Its result. Waits for it; raises UnderwayError, a TimeoutError, if it is not there in time."""
        got = super().result(timeout)
        assert isinstance(got, GotGroups)
        return got

    def _make(self, counts: _library.GetCounts, statuses: array[int]) -> GotGroups:
        return GotGroups(counts.hits, counts.leading_hits, counts.unsettled, statuses, self._sizes)
