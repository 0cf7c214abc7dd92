"""Nodes: pages by key."""

from __future__ import annotations

import ctypes
import os
import threading
from array import array
from collections.abc import Iterable, Sequence
from ctypes import c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from itertools import accumulate
from typing import Any

from . import _library
from ._batch import Keys, indices_of, new_statuses
from ._library import I32, U32, U64, c_text, check, integer, lib, nanoseconds, numbers
from .errors import StillReadingError
from .get import Get, GroupGet
from .layout import Layout
from .memory import Memory
from .places import Places, leaked
from .values import EnginePool, Found, Got, GotGroups, GroupPage, Pool, PutResult, Statistics

NO_CACHE = (1 << 64) - 1


class Node:
    """Pages by key: those of its own pools, and those that it gets from other nodes.

    Any number of threads share it. No page is ever given out wrong: what directories and other nodes
    say are hints, and a page counts only when its owner confirms it after it has been read.

    `transport` is "shm:2", "tcp:192.0.2.1:1" or "verbs:auto". `key` is the group's key as 64
    hexadecimal digits and `tag_secret` the secret under which keys of pages are hashed; each can be
    a file instead. `directory` is "none", "embedded" (this node keeps it), "embedded:host:port,..."
    or "redis://host". Times are seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        transport: str,
        tag_secret: str | None = None,
        tag_secret_file: str | None = None,
        key: str | None = None,
        key_file: str | None = None,
        directory: str = "none",
        pools: Sequence[Pool | EnginePool] = (),
        layouts: Sequence[Layout] = (),
        listen: str | None = None,
        advertise: str | None = None,
        zone: str | None = None,
        readers: int = 1,
        batch_pages: int = 0,
        cache_records: int = 0,
        cache_seconds: float | None = None,
        spin_seconds: float = 0.0,
        permit_any_reader: bool = False,
    ) -> None:
        self._handle = 0
        self._kept: list[object] = []
        self._places: set[Places] = set()
        self._lock = threading.Lock()
        self._process = os.getpid()
        keys = _library.Keys(hex=_text(key), file=_text(key_file))
        given_pools = (_library.Pool * max(len(pools), 1))()
        memories: list[c_void_p] = []
        try:
            for into, pool in zip(given_pools, pools):
                self._describe(into, pool, memories)
            given_layouts = (c_void_p * max(len(layouts), 1))(*[layout.handle for layout in layouts])
            config = _library.NodeConfig(
                struct_bytes=ctypes.sizeof(_library.NodeConfig),
                permit_any_reader=int(bool(permit_any_reader)),
                name=c_text(name),
                listen=_text(listen),
                advertise=_text(advertise),
                zone=_text(zone),
                transport=c_text(transport),
                keys=ctypes.pointer(keys) if key is not None or key_file is not None else None,
                tag_secret_hex=_text(tag_secret),
                tag_secret_file=_text(tag_secret_file),
                directory=c_text(directory),
                pools=given_pools,
                pool_count=len(pools),
                layouts=given_layouts,
                layout_count=len(layouts),
                readers=integer("readers", readers, *U32),
                batch_pages=integer("batch_pages", batch_pages, *U32),
                cache_records=integer("cache_records", cache_records, *U64),
                cache_ttl_ns=_ttl(cache_seconds),
                spin_ns=nanoseconds(spin_seconds),
            )
            handle = c_void_p()
            check(lib.kvrail_node_start(ctypes.addressof(config), ctypes.addressof(handle)))
        finally:
            for memory in memories:
                lib.kvrail_memory_release(memory)
        self._handle = handle.value or 0

    def _describe(self, into: _library.Pool, pool: Pool | EnginePool, memories: list[c_void_p]) -> None:
        into.layout = pool.layout.handle
        if isinstance(pool, Pool):
            into.slots = integer("Pool.slots", pool.slots, *U32)
            return
        regions = (_library.PoolRegion * max(len(pool.regions), 1))()
        for region, given in zip(regions, pool.regions):
            memory = Memory.of(given.memory)
            handle = c_void_p()
            check(lib.kvrail_memory_host(memory.address, memory.nbytes, ctypes.addressof(handle)))
            memories.append(handle)
            self._kept.append(memory)
            region.memory = handle.value
            region.stride = integer("EngineRegion.stride", given.stride, *U64)
            region.offset = integer("EngineRegion.offset", given.offset, *U64)
        self._kept.append(regions)
        into.regions, into.region_count = ctypes.addressof(regions), len(pool.regions)

    @property
    def address(self) -> str | None:
        """Where other nodes reach it; None for a node without pools."""
        text = ctypes.create_string_buffer(300)
        check(lib.kvrail_node_address(self._handle, ctypes.addressof(text), len(text)))
        return text.value.decode() or None

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._handle == 0

    def space(self, layout: Layout, model: str, shape: str = "") -> Space:
        """A space of keys for pages of `layout`. Pages of two spaces never meet, whatever their keys
        are: `model` is the model and its revision, `shape` what else keeps keys apart. Nodes find
        each other's pages where layout, model and shape are the same."""
        number = c_uint32()
        at = ctypes.addressof(number)
        check(lib.kvrail_node_space(self._handle, layout.handle, c_text(model), c_text(shape), at))
        return Space(self, layout, number.value)

    def register(
        self, layout: Layout, regions: Sequence[Any], *, strides: Sequence[int] | None = None, numa: int = -1
    ) -> Places:
        """Registers memory that pages land in: for each region of the layout an array, a tensor or
        a Memory. Place i of it is the i-th page: `strides` says how many bytes pages are apart in
        each region, those of a page unless it is given. The memory is kept until it is
        unregistered, and no other registration has it."""
        memories = [Memory.of(region) for region in regions]
        if strides is not None and len(strides) != len(memories):
            raise ValueError(f"{len(strides)} strides for {len(memories)} regions")
        given = (_library.Destination * max(len(memories), 1))()
        for at, memory in enumerate(memories):
            given[at].address, given[at].bytes = memory.address, memory.nbytes
            if strides is not None:
                given[at].stride = integer(f"strides[{at}]", strides[at], *U64)
        numa = integer("numa", numa, *I32)
        number, count = c_uint32(), c_uint32()
        check(
            lib.kvrail_node_register(
                self._handle,
                layout.handle,
                ctypes.addressof(given),
                len(memories),
                numa,
                ctypes.addressof(number),
                ctypes.addressof(count),
            )
        )
        places = Places(self, layout, number.value, count.value, memories)
        with self._lock:
            self._places.add(places)
        return places

    def flush(self, timeout: float) -> None:
        """Waits until the directory knows of every page that was put or removed before."""
        check(lib.kvrail_node_flush(self._handle, nanoseconds(timeout)))

    def clear(self) -> int:
        """Removes all pages of its pools. Returns how many."""
        removed = c_uint64()
        check(lib.kvrail_node_clear(self._handle, ctypes.addressof(removed)))
        return removed.value

    def begin_slots(self, pool: int, slots: Iterable[int]) -> None:
        """Makes the pages in these slots of an EnginePool misses, before the first byte is written."""
        made = numbers("slots", slots)
        pool = integer("pool", pool, *U32)
        check(lib.kvrail_node_begin_slots(self._handle, pool, made.buffer_info()[0], len(made)))

    def get_groups(self, groups: Sequence[Sequence[GroupPage]], timeout: float) -> GotGroups:
        """Gets groups of pages, each whole or not at all: pages of several spaces that belong to the
        same tokens, such as those of the pools of a hybrid model. A page that was found in a group
        of which another page is a miss has the status MISS_GROUP, and the bytes of its place are
        unspecified. Blocks as Space.get_batch."""
        given, pages, sizes = self._groups(groups)
        statuses, got = new_statuses(given.count), _library.GetCounts()
        check(
            lib.kvrail_node_get_groups(
                self._handle,
                given.at,
                pages.buffer_info()[0],
                nanoseconds(timeout),
                statuses.buffer_info()[0],
                ctypes.addressof(got),
            )
        )
        return GotGroups(got.hits, got.leading_hits, got.unsettled, statuses, sizes)

    def begin_get_groups(self, groups: Sequence[Sequence[GroupPage]], timeout: float, tag: int = 0) -> GroupGet:
        """Begins to get groups of pages, and does not wait."""
        given, pages, sizes = self._groups(groups)
        tag = integer("tag", tag, *U64)
        get = GroupGet(self, tag, given.count, sizes)
        check(
            lib.kvrail_node_begin_get_groups(
                self._handle,
                given.at,
                pages.buffer_info()[0],
                nanoseconds(timeout),
                tag,
                ctypes.addressof(get._ticket),
            )
        )
        return get

    def _groups(self, groups: Sequence[Sequence[GroupPage]]) -> tuple[Keys, array[int], tuple[int, ...]]:
        """The keys of groups, their pages as kvrail_group_page, and how many pages each group has."""
        keys: list[bytes] = []
        pages: list[int] = []
        for number, group in enumerate(groups):
            if not group:
                raise ValueError(f"group {number} has no page")
            for at, (space, key, places, place) in enumerate(group):
                if space.node is not self or places.node is not self:
                    raise ValueError(f"page {at} of group {number} is of another node")
                keys.append(key)
                place = integer(f"the place of page {at} of group {number}", place, *U32)
                pages += (space.number, places.number, place, int(at > 0))
        return Keys(keys), array("I", pages), tuple(map(len, groups))

    def statistics(self) -> Statistics:
        """Its numbers."""
        stats = _library.NodeStats(struct_bytes=ctypes.sizeof(_library.NodeStats))
        check(lib.kvrail_node_query(self._handle, ctypes.addressof(stats)))
        reasons = {7200 + at: count for at, count in enumerate(stats.misses_by_reason) if count}
        plain = {name: int(getattr(stats, name)) for name in Statistics.__dataclass_fields__ if name != "misses_by_reason"}
        return Statistics(misses_by_reason=reasons, **plain)

    def fileno(self) -> int:
        """A descriptor for select and epoll: readable while ended() has gets to name."""
        fd = c_int32()
        check(lib.kvrail_node_fd(self._handle, ctypes.addressof(fd)))
        return fd.value

    def ended(self) -> list[tuple[int, int]]:
        """The (ticket, tag) of gets that were begun and have ended, each once."""
        named: list[tuple[int, int]] = []
        places, count = (_library.EndedGet * 64)(), c_size_t(64)
        while count.value == 64:
            check(lib.kvrail_node_ended(self._handle, ctypes.addressof(places), 64, ctypes.addressof(count)))
            named += [(places[at].ticket, places[at].tag) for at in range(count.value)]
        return named

    def close(self) -> None:
        """Ends it: gets that are under way become misses, and others miss its pages. It waits for
        calls of other threads, and then takes some seconds at most. Raises StillReadingError if hardware may still write into registered
        memory, which is kept then until the process ends."""
        if self._process != os.getpid():
            # A child of a fork has a copy, and a thread of its parent may have held the lock. The
            # library refuses the other calls of the copy.
            self._handle = 0
            return
        with self._lock:
            handle, self._handle = self._handle, 0
        if handle == 0:
            return
        try:
            check(lib.kvrail_node_close(handle))
        except StillReadingError:
            leaked.append([places._memories for places in self._places])
            raise
        self._places.clear()
        self._kept.clear()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            try:
                self.close()
            except Exception:  # An error of a finalizer goes nowhere, and the memory is kept.
                pass


class Space:
    """A space of keys of a node: put, get, exists and remove, for batches of keys.

    Each call crosses into the library once, and the interpreter's lock is released meanwhile. Any
    number of threads share it. A place is used by one call at a time.
    """

    __slots__ = ("node", "layout", "number", "_get")

    def __init__(self, node: Node, layout: Layout, number: int) -> None:
        self.node, self.layout, self.number = node, layout, number
        self._get = lib.kvrail_node_get

    def get_batch(self, keys: Sequence[bytes], places: Places, indices: Iterable[int], timeout: float) -> Got:
        """Gets the page of each key into its place. Blocks until all have results, a tenth of a
        second after `timeout` at the latest."""
        if places.node is not self.node:
            raise _other_node(places)
        given = Keys(keys)
        count = given.count
        made = indices_of(indices, count)
        statuses = new_statuses(count)
        got = _library.GetCounts()
        status = self._get(
            self.node._handle,
            self.number,
            given.at,
            places.number,
            made.buffer_info()[0],
            nanoseconds(timeout),
            statuses.buffer_info()[0],
            ctypes.addressof(got),
        )
        if status:
            check(status)
        return Got(got.hits, got.leading_hits, got.unsettled, statuses)

    def begin_get(
        self, keys: Sequence[bytes], places: Places, indices: Iterable[int], timeout: float, tag: int = 0
    ) -> Get:
        """Begins to get pages, and does not wait."""
        if places.node is not self.node:
            raise _other_node(places)
        given = Keys(keys)
        count = given.count
        made = indices_of(indices, count)
        tag = integer("tag", tag, *U64)
        # Made before the call: an exception right behind it (a KeyboardInterrupt) loses no ticket.
        get = Get(self.node, tag, count)
        check(
            lib.kvrail_node_begin_get(
                self.node._handle,
                self.number,
                given.at,
                places.number,
                made.buffer_info()[0],
                nanoseconds(timeout),
                tag,
                ctypes.addressof(get._ticket),
            )
        )
        return get

    def put_batch(self, keys: Sequence[bytes], pages: Sequence[Any]) -> PutResult:
        """Stores pages in the node's own pool of the layout. A page is its bytes in one buffer, all
        regions one behind the other, or a sequence of one buffer for each region."""
        given = Keys(keys)
        count = given.count
        if len(pages) != count:
            raise ValueError(f"{len(pages)} pages for {count} keys")
        regions, whole, lengths = self.layout.regions, self.layout.page_bytes, self.layout.region_bytes
        addresses = array("Q")
        kept: list[Memory] = []
        for page in pages:
            if regions == 1 or not isinstance(page, (list, tuple)):
                if isinstance(page, (list, tuple)) and len(page) != 1:
                    raise ValueError(f"{len(page)} buffers for a page of one region: {self.layout!r}")
                memory = Memory.of(page[0] if isinstance(page, (list, tuple)) else page, writable=False)
                if memory.nbytes != whole:
                    raise ValueError(f"a page of {memory.nbytes} bytes: {self.layout!r}")
                kept.append(memory)
                if regions == 1:
                    addresses.append(memory.address)
                    continue
                addresses.extend(accumulate(lengths[:-1], initial=memory.address))
                continue
            parts = [Memory.of(part, writable=False) for part in page]
            found = tuple(part.nbytes for part in parts)
            if found != lengths:
                raise ValueError(f"buffers of {found} bytes, and the regions have {lengths}: {self.layout!r}")
            kept += parts
            addresses.extend(part.address for part in parts)
        statuses, put = new_statuses(count), _library.PutCounts()
        check(
            lib.kvrail_node_put(
                self.node._handle,
                self.number,
                given.at,
                addresses.buffer_info()[0],
                statuses.buffer_info()[0],
                ctypes.addressof(put),
            )
        )
        del kept
        return PutResult(put.stored, put.present, put.leading, statuses)

    def put_places(self, keys: Sequence[bytes], places: Places, indices: Iterable[int]) -> PutResult:
        """Stores the pages that are in these places of registered memory: a copy."""
        if places.node is not self.node:
            raise _other_node(places)
        given = Keys(keys)
        count = given.count
        made = indices_of(indices, count)
        statuses, put = new_statuses(count), _library.PutCounts()
        check(
            lib.kvrail_node_put_places(
                self.node._handle,
                self.number,
                given.at,
                places.number,
                made.buffer_info()[0],
                statuses.buffer_info()[0],
                ctypes.addressof(put),
            )
        )
        return PutResult(put.stored, put.present, put.leading, statuses)

    def publish_slots(self, pool: int, keys: Sequence[bytes], slots: Iterable[int]) -> array[int]:
        """Publishes the pages that the engine has written into slots of an EnginePool. Returns a
        status for each: 0, or why it is not published."""
        given = Keys(keys)
        count = given.count
        made, statuses = indices_of(slots, count, "slots"), new_statuses(count)
        pool = integer("pool", pool, *U32)
        check(
            lib.kvrail_node_publish_slots(
                self.node._handle,
                pool,
                self.number,
                given.at,
                made.buffer_info()[0],
                statuses.buffer_info()[0],
            )
        )
        return statuses

    def exists(self, keys: Sequence[bytes], timeout: float) -> Found:
        """Which keys have pages: in the node's own pools, or somewhere, as the directory says. It is
        a hint."""
        given = Keys(keys)
        count = given.count
        statuses, leading = new_statuses(count), c_size_t()
        check(
            lib.kvrail_node_exists(
                self.node._handle,
                self.number,
                given.at,
                nanoseconds(timeout),
                statuses.buffer_info()[0],
                ctypes.addressof(leading),
            )
        )
        return Found(leading.value, statuses)

    def remove(self, keys: Sequence[bytes]) -> int:
        """Removes pages from the node's own pools. Returns how many there were."""
        given = Keys(keys)
        removed = c_size_t()
        check(lib.kvrail_node_remove(self.node._handle, self.number, given.at, ctypes.addressof(removed)))
        return removed.value


def _other_node(places: Places) -> ValueError:
    return ValueError(f"places {places.number} are registered with another node than the space's")


def _text(text: str | None) -> bytes | None:
    return None if text is None else c_text(text)


def _ttl(seconds: float | None) -> int:
    if seconds is None:
        return 0
    return nanoseconds(seconds) or NO_CACHE
