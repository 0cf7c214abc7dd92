"""SGLang's own classes, as an engine uses them, on a CPU: its pools and its cache controller, with all
of its threads. Nothing of it is replaced."""

from __future__ import annotations

import ctypes
import queue
import time
from collections.abc import Callable
from typing import Any

import torch
from kvrail_hicache import KvrailStorage
from sglang.srt.managers.cache_controller import HiCacheController
from sglang.srt.mem_cache.allocator import PagedTokenToKVPoolAllocator
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool, MLATokenToKVPool
from sglang.srt.mem_cache.pool_host.mha import MHATokenToKVPoolHost
from sglang.srt.mem_cache.pool_host.mla import MLATokenToKVPoolHost
from sglang.srt.runtime_context import get_parallel

TOKENS, PAGES, LAYERS = 64, 40, 4
KEY, SECRET = "5a" * 32, "7b" * 32
LAYOUTS = [
    ("mla", "layer_first"),
    ("mla", "page_first"),
    ("mla", "page_first_direct"),
    ("mha", "layer_first"),
    ("mha", "page_first"),
    ("mha", "page_first_direct"),
    ("mha", "page_head"),
]

get_parallel().override_permanently(tp_rank=0, tp_size=1, pp_rank=0, pp_size=1, attn_dcp_size=1, attn_dcp_rank=0)


class TimedStorage(KvrailStorage):
    """The backend, with a note of how long each of its calls takes."""

    def __init__(self, storage_config: Any, kwargs: Any) -> None:
        super().__init__(storage_config, kwargs)
        self.calls: list[tuple[str, int, float]] = []

    def timed(self, name: str, call: Callable[..., Any], keys: list[str], *rest: Any) -> Any:
        began = time.monotonic()
        answer = call(keys, *rest)
        self.calls.append((name, len(keys), time.monotonic() - began))
        return answer

    def batch_exists(self, keys: list[str], *rest: Any) -> int:
        return self.timed("exists", super().batch_exists, keys, *rest)  # type: ignore[no-any-return]

    def batch_get_v1(self, keys: list[str], *rest: Any) -> list[bool]:
        return self.timed("get", super().batch_get_v1, keys, *rest)  # type: ignore[no-any-return]

    def batch_set_v1(self, keys: list[str], *rest: Any) -> list[bool]:
        return self.timed("set", super().batch_set_v1, keys, *rest)  # type: ignore[no-any-return]


class Engine:
    """A controller with its device pool, its host pool, and this backend."""

    def __init__(self, kind: str, layout: str, dtype: torch.dtype = torch.bfloat16, **options: Any) -> None:
        if kind == "mla":
            device: Any = MLATokenToKVPool(
                TOKENS * PAGES, TOKENS, dtype, 512, 64, LAYERS, "cpu", False
            )
            self.host: Any = MLATokenToKVPoolHost(
                device.get_device_pool_infos()[0].buffer_info,
                2.0,
                0,
                TOKENS,
                layout,
                pin_memory=False,
                device_capacity_tokens=device.size,
                start_layer=device.start_layer,
                end_layer=device.end_layer,
                target_layer_num=LAYERS,
            )
        else:
            device = MHATokenToKVPool(TOKENS * PAGES, TOKENS, dtype, 4, 64, LAYERS, "cpu", False)
            self.host = MHATokenToKVPoolHost(
                device.get_device_pool_infos()[0].buffer_info,
                2.0,
                0,
                TOKENS,
                layout,
                pin_memory=False,
                device_capacity_tokens=device.size,
                start_layer=device.start_layer,
                end_layer=device.end_layer,
            )
        allocator = PagedTokenToKVPoolAllocator(device.size, TOKENS, dtype, "cpu", device, False)
        given = {
            "backend_name": "kvrail",
            "module_path": "engine",
            "class_name": "TimedStorage",
            "interface_v1": 1,
            "kvrail_key": KEY,
            "kvrail_tag_secret": SECRET,
            "kvrail_pool_bytes": 64 << 20,
            **{f"kvrail_{name}": value for name, value in options.items()},
        }
        self.controller = HiCacheController(
            allocator,
            self.host,
            TOKENS,
            tp_group=None,
            load_cache_event=None,
            write_policy="write_through",
            io_backend="direct",
            storage_backend="dynamic",
            prefetch_threshold=TOKENS,
            model_name="org/model",
            storage_backend_extra_config=given,
        )
        self.backend: TimedStorage = self.controller.storage_backend
        assert type(self.backend).__name__ == "TimedStorage"

    @property
    def directory(self) -> str:
        """The directory that this engine's node keeps, for other nodes."""
        assert self.backend.node is not None
        return f"embedded:{self.backend.node.address}"

    def hashes(self, tokens: list[int]) -> list[str]:
        """The keys of the pages of these tokens, as SGLang makes them."""
        return self.controller.get_hash_str(tokens, None, page_size=TOKENS)  # type: ignore[no-any-return]

    def page(self, indices: torch.Tensor, number: int) -> bytes:
        """The bytes of a page of the host pool, object by object."""
        addresses, lengths = self.host.get_page_buffer_meta(indices[number * TOKENS : (number + 1) * TOKENS])
        return b"".join(ctypes.string_at(address, length) for address, length in zip(addresses, lengths))

    def back_up(self, tokens: list[int], told: bool = True) -> list[bytes]:
        """Writes pages of random bytes into the host pool, has the engine back them up, and evicts
        them. Returns their bytes. `told`: the directory is told before it returns."""
        indices = self.host.alloc(len(tokens))
        assert indices is not None
        self.host.kv_buffer.view(torch.int16).random_(-30000, 30000)
        pages = [self.page(indices, number) for number in range(len(tokens) // TOKENS)]
        operation = self.controller.write_storage(indices, tokens, hash_value=self.hashes(tokens))
        ended = self.wait(self.controller.ack_backup_queue, lambda ack: ack.id == operation)
        assert ended.completed_tokens == len(tokens)
        self.host.free(indices)
        self.host.kv_buffer.zero_()
        assert self.backend.node is not None
        if told:
            self.backend.node.flush(20)
        return pages

    def prefetch(self, tokens: list[int], meanwhile: Callable[[], None] = lambda: None) -> tuple[int, int, list[bytes]]:
        """Has the engine get pages: how many pages it found, how many it counts as loaded, and the
        bytes of all that it asked for. `meanwhile` runs after it was told to read them."""
        operation = self.controller.prefetch("request", tokens, None)
        hit = self.controller.prefetch_hit_queue.get(timeout=60)
        if hit.storage_hit_count == 0:
            meanwhile()
            return 0, 0, []
        indices = self.controller.alloc_prefetch_host_buffers(operation, hit.storage_hit_count)
        operation.host_indices = indices
        self.controller.prefetch_buffer.put(operation)
        meanwhile()
        loaded = 0
        while True:
            ack = self.wait(self.controller.ack_prefetch_queue, lambda ack: True)
            loaded = max(loaded, ack.completed_tokens or 0)
            if ack.completed_req:
                break
        pages = [self.page(indices, number) for number in range(len(indices) // TOKENS)]
        self.host.free(indices)
        return hit.storage_hit_count // TOKENS, loaded // TOKENS, pages

    @staticmethod
    def wait(acks: queue.Queue[Any], wanted: Callable[[Any], bool]) -> Any:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                ack = acks.get(timeout=0.2)
            except queue.Empty:
                continue
            if wanted(ack):
                return ack
        raise TimeoutError("the engine did not answer within a minute")

    def close(self) -> None:
        self.controller.detach_storage_backend()
