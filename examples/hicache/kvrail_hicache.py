"""An SGLang HiCache storage backend over kvrail: pages of the host pool, by key.

SGLang 0.5.23 loads it by its dynamic backend, as README.md beside this file shows. A page of the host
pool becomes a page of kvrail: `batch_set_v1` copies it into the node's own pool, since SGLang reuses
host pages as it likes, and `batch_get_v1` reads pages of any node straight into the host pool, whose
memory is registered once.

What SGLang makes of an answer decides what this backend answers:

- One False in the answer to a get drops all pages behind it, and one thread makes all gets. So each
  call ends within a bound, and says True for exactly the pages that are in place.
- One False in the answer to a set ends the backup of that request.
- A host page whose get has failed is given to somebody else at once. So a call does not return while
  hardware may still write into the page.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import torch
from sglang.srt.mem_cache.hicache_storage import HiCacheStorage
from sglang.srt.runtime_context import get_server_args

import kvrail

logger = logging.getLogger(__name__)

# Planes of a layout.
MAX_PLANES = 8


def host_layout(pool: Any) -> tuple[kvrail.Layout, list[kvrail.Memory], list[int]]:
    """The layout of the pages of a host pool, the memory of each of its regions, and how many bytes
    pages are apart there.

    SGLang names a page by one or several objects: an address and a length each. Object number i of
    all pages lies at equal distances, which is checked, and is a region of the layout.
    """
    page = pool.page_size
    pages = pool.size // page

    def objects(number: int) -> list[tuple[int, int]]:
        indices = torch.arange(number * page, (number + 1) * page)
        addresses, lengths = pool.get_page_buffer_meta(indices)
        return list(zip(addresses, lengths))

    first = objects(0)
    second = objects(1) if pages > 1 else [(address + length, length) for address, length in first]
    strides = [there - here for (here, _), (there, _) in zip(first, second)]
    for number in (pages // 2, pages - 1):
        for (address, length), stride, (base, size) in zip(objects(number), strides, first):
            if (address, length) != (base + number * stride, size):
                raise ValueError(f"page {number} of the host pool is not where its layout {pool.layout} says")
    sizes = [size for _, size in first]
    what = f"{type(pool).__name__} {pool.layout} {pool.dtype} {page} tokens"
    if len(set(sizes)) == 1:
        # The axis is that of the objects, whatever they are: K and V, or layers, or both.
        layout = kvrail.Layout.declare(
            f"sglang {pool.layout}"[:64],
            [{what: ("u8", sizes[0])}],
            axes={"block": len(sizes)},
            order=["regions(block)"],
            page_bytes=sum(sizes),
        )
    elif len(sizes) <= MAX_PLANES:
        planes = [{f"{what} {number}": ("u8", size)} for number, size in enumerate(sizes)]
        layout = kvrail.Layout.declare(
            f"sglang {pool.layout}"[:64], planes, order=["regions(planes)"], page_bytes=sum(sizes)
        )
    else:
        raise ValueError(f"host layout {pool.layout} has {len(sizes)} objects a page, of several lengths")
    memories = [
        kvrail.Memory(base, (pages - 1) * stride + size, pool) for (base, size), stride in zip(first, strides)
    ]
    return layout, memories, strides


def element_of_bytes() -> str:
    """What the bytes of a host pool are whose elements SGLang keeps as bytes: it does so with all
    types of eight bits and fewer, and pages of fp8_e4m3 and of fp8_e5m2 have the same layout."""
    try:
        return str(get_server_args().kv_cache_dtype)
    except Exception:  # There is no server in this process.
        raise ValueError(
            'the host pool has bytes, and nothing says what they are: give "kvrail_element", such as "fp8_e4m3"'
        ) from None


class KvrailStorage(HiCacheStorage):
    """One for each rank of the engine. Its options stand in README.md."""

    def __init__(self, storage_config: Any, kwargs: Any) -> None:
        given = dict(storage_config.extra_config or {})
        if not given.get("interface_v1"):
            raise ValueError('kvrail reads into the host pool: give "interface_v1": 1 in the backend\'s extra config')
        if storage_config.model_name is None:
            raise ValueError("kvrail needs the model's name, which keeps its pages apart from those of others")
        self.config = storage_config
        self.options = {name[7:]: value for name, value in given.items() if name.startswith("kvrail_")}
        self.timeout = float(self.options.pop("timeout", 5.0))
        self.settle = float(self.options.pop("settle", 30.0))
        self.pool_bytes = int(self.options.pop("pool_bytes", 1 << 30))
        self.model = str(self.options.pop("model", storage_config.model_name))
        self.element = self.options.pop("element", None)
        self.node: kvrail.Node | None = None

    # What SGLang calls.

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        super().register_mem_pool_host(mem_pool_host)
        layout, memories, strides = host_layout(mem_pool_host)
        if self.element is None and mem_pool_host.dtype == torch.uint8:
            self.element = element_of_bytes()
        slots = self.pool_bytes // layout.page_bytes
        if slots == 0:
            raise ValueError(f"kvrail_pool_bytes is {self.pool_bytes}, and a page has {layout.page_bytes}")
        given: dict[str, Any] = {"transport": "shm:1", "directory": "embedded", **self.options}
        name = given.pop("name", f"hicache-{os.uname().nodename[:40]}-{os.getpid()}")
        self.node = kvrail.Node(name, pools=[kvrail.Pool(layout, slots)], **given)
        self.space = self.node.space(layout, self.model, self._shape())
        self.page_size = mem_pool_host.page_size
        self.places = self.node.register(layout, memories, strides=strides)
        logger.info("kvrail: %s at %s, %d pages of %d bytes", name, self.node.address, slots, layout.page_bytes)

    def batch_exists(self, keys: list[str], extra_info: Any = None) -> int:
        try:
            return self.space.exists([key.encode() for key in keys], self.timeout).leading
        except kvrail.Error as error:
            logger.error("kvrail: exists: %s", error)
            return 0

    def batch_get_v1(self, keys: list[str], host_indices: torch.Tensor, extra_info: Any = None) -> list[bool]:
        pages = self._pages(host_indices)
        try:
            got = self.space.get_batch([key.encode() for key in keys], self.places, pages, self.timeout)
        except kvrail.Error as error:
            logger.error("kvrail: get: %s", error)
            return [False] * len(keys)
        if got.unsettled and not self.places.settle(pages, self.settle):
            # SGLang would give these pages to another request, and a late write would spoil it.
            logger.critical("kvrail: hardware may still write into host pages after %s s: ending", self.settle)
            os.abort()
        return got.ok

    def batch_set_v1(self, keys: list[str], host_indices: torch.Tensor, extra_info: Any = None) -> list[bool]:
        encoded, pages = [key.encode() for key in keys], self._pages(host_indices)
        until = time.monotonic() + self.timeout
        try:
            put = self.space.put_places(encoded, self.places, pages)
            # Another thread of this process stores the same page: it is there in a moment.
            while kvrail.PUT_UNDERWAY in put.statuses and time.monotonic() < until:
                time.sleep(0.001)
                put = self.space.put_places(encoded, self.places, pages)
        except kvrail.Error as error:
            logger.error("kvrail: set: %s", error)
            return [False] * len(keys)
        return put.ok

    def close(self) -> None:
        if self.node is not None:
            self.node.close()

    def clear(self) -> None:
        if self.node is not None:
            self.node.clear()

    def get_stats(self) -> kvrail.Statistics | None:
        """The node's numbers."""
        return None if self.node is None or self.node.closed else self.node.statistics()

    # The copying interface, which SGLang does not use with "interface_v1": it has no page.

    def exists(self, key: str) -> bool:
        return self.batch_exists([key]) == 1

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> None:
        return None

    def batch_get(self, keys: list[str], target_locations: Any = None, target_sizes: Any = None) -> list[None]:
        return [None] * len(keys)

    def set(self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None) -> bool:
        return False

    def batch_set(
        self, keys: list[str], values: Any = None, target_locations: Any = None, target_sizes: Any = None
    ) -> bool:
        return False

    def _shape(self) -> str:
        """What keeps apart the pages of ranks, and of elements that have the same layout. All ranks of
        MLA have the same pages."""
        config = self.config
        parts = [("pp", config.pp_rank, config.pp_size), ("cp", config.attn_cp_rank, config.attn_cp_size)]
        parts.append(("dcp", config.dcp_rank, config.dcp_size))
        if not config.is_mla_model:
            parts.append(("tp", config.tp_rank, config.tp_size))
        ranks = ", ".join(f"{name} {rank} of {size}" for name, rank, size in parts)
        return ranks if self.element is None else f"{ranks}, {self.element}"

    def _pages(self, host_indices: torch.Tensor) -> list[int]:
        """The numbers of the host pages that these tokens are. SGLang gives whole pages."""
        return (host_indices[:: self.page_size] // self.page_size).tolist()  # type: ignore[no-any-return]
