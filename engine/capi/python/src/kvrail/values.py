"""Pools, results and numbers: plain values."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from .layout import Layout

if TYPE_CHECKING:
    from .node import Space
    from .places import Places

# A status of a page in a group: another page of the group is a miss.
MISS_GROUP = 7212
# A status of a put: another thread is storing the page.
PUT_UNDERWAY = 8058


@dataclass(frozen=True)
class Pool:
    """A pool of a node: `slots` pages of `layout`, in memory of the node's own."""

    layout: Layout
    slots: int


@dataclass(frozen=True)
class EngineRegion:
    """One region of a layout in the memory of an inference engine, a page a slot."""

    memory: Any
    stride: int = 0
    offset: int = 0


@dataclass(frozen=True)
class EnginePool:
    """A pool whose pages are in the memory of an inference engine: a region for each of the layout.

    The bytes of a slot are written only between Node.begin_slots and Space.publish_slots.
    """

    layout: Layout
    regions: Sequence[EngineRegion]


@dataclass(frozen=True)
class Got:
    """What became of the keys of a get. `statuses[i]` is 0 if page i is in its place, and the reason
    of the miss otherwise (docs/errors.md, 7200 and up)."""

    hits: int
    leading_hits: int
    # Places that hardware may still write into: Places.settle waits for them.
    unsettled: int
    statuses: array[int]

    @property
    def ok(self) -> list[bool]:
        """Whether each page is in its place."""
        return [status == 0 for status in self.statuses]


class GroupPage(NamedTuple):
    """A page of a group: its key in a space, and the place that it lands in."""

    space: Space
    key: bytes
    places: Places
    place: int


@dataclass(frozen=True)
class GotGroups(Got):
    """What became of groups of pages, of which each is in its places whole, or not at all. `hits` and
    the others count pages, and `statuses` has one for each, those of the first group first."""

    sizes: tuple[int, ...] = ()

    @property
    def groups(self) -> list[bool]:
        """Whether each group is in its places."""
        ends = accumulate(self.sizes)
        return [not any(self.statuses[end - size : end]) for end, size in zip(ends, self.sizes)]


@dataclass(frozen=True)
class PutResult:
    """What became of the keys of a put. `statuses[i]` is 0 if page i is there, stored or before."""

    stored: int
    present: int
    leading: int
    statuses: array[int]

    @property
    def ok(self) -> list[bool]:
        """Whether each page is there."""
        return [status == 0 for status in self.statuses]


@dataclass(frozen=True)
class Found:
    """Which keys have pages: 0, or 7200 where none is known, or 7202 where the directory did not
    answer."""

    leading: int
    statuses: array[int]

    @property
    def ok(self) -> list[bool]:
        """Whether each key has a page."""
        return [status == 0 for status in self.statuses]


@dataclass(frozen=True)
class Statistics:
    """The numbers of a node since its start: kvrail_node_stats."""

    connected_readers: int
    gets: int
    hits_own_pool: int
    hits_cache: int
    hits_directory: int
    misses: int
    misses_by_reason: dict[int, int] = field(repr=False)
    look_ups: int
    keys_looked_up: int
    late_places: int
    reading: int
    slots: int
    pages: int
    puts: int
    put_bytes: int
    puts_present: int
    puts_refused: int
    evictions: int
    removed: int
    engine_pages: int
