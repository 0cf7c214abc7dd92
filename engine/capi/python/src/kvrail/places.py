"""Registered memory that pages land in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ._library import check, lib, nanoseconds, numbers
from .errors import PlaceBusyError, StillReadingError
from .layout import Layout
from .memory import Memory

if TYPE_CHECKING:
    from .node import Node

# Memory into which hardware may still write after its node was closed. It must stay.
leaked: list[object] = []


class Places:
    """Registered memory: `count` places for pages of a layout, by their numbers from 0."""

    def __init__(self, node: Node, layout: Layout, number: int, count: int, memories: list[Memory]) -> None:
        self.node, self.layout, self.number, self.count = node, layout, number, count
        self._memories = memories

    def settle(self, indices: Iterable[int], timeout: float) -> bool:
        """Waits until each of these places is free: no get uses it, and no hardware writes into it.
        Returns whether they are."""
        made = numbers("indices", indices)
        at, count = made.buffer_info()
        try:
            check(lib.kvrail_node_settle(self.node._handle, self.number, at, count, nanoseconds(timeout)))
        except PlaceBusyError:
            return False
        return True

    def unregister(self) -> None:
        """Gives the memory back. All places must be free."""
        try:
            check(lib.kvrail_node_unregister(self.node._handle, self.number))
        except StillReadingError:
            leaked.append(self._memories)
            raise
        with self.node._lock:
            self.node._places.discard(self)
        self._memories = []

    def __len__(self) -> int:
        return self.count
