"""LMCache's released classes over kvrail: its storage manager with its controllers stores chunks, evicts
them from its own memory, and loads them again. Nothing of LMCache is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import kvrail_lmcache
import pytest
import torch
from lmcache.v1.distributed.api import (
    GroupedObjectKeys,
    MemoryLayoutDesc,
    ObjectKey,
    PrefetchTaskSpec,
)
from lmcache.v1.distributed.config import (
    EvictionConfig,
    L1ManagerConfig,
    L1MemoryManagerConfig,
    StorageManagerConfig,
)
from lmcache.v1.distributed.l2_adapters.config import L2AdaptersConfig
from lmcache.v1.distributed.l2_adapters.native_plugin_l2_adapter import NativePluginL2AdapterConfig
from lmcache.v1.distributed.storage_manager import StorageManager

import kvrail

KEY, SECRET = "5a" * 32, "7b" * 32
TIMEOUT = 3.0
# LMCache's chunks: of MLA one plane of 576 values a token, of MHA K and V.
SHAPES = {"mla": torch.Size([1, 4, 256, 576]), "mha": torch.Size([2, 4, 256, 256])}


class Connector(kvrail_lmcache.KvrailConnector):
    """The adapter, which the tests find again after LMCache has made it."""

    last: Connector

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        type(self).last = self


class Cache:
    """A storage manager of LMCache over the adapter."""

    def __init__(self, kind: str, **parameters: Any) -> None:
        self.layout = MemoryLayoutDesc([SHAPES[kind]], [torch.bfloat16])
        self.chunk_bytes = 2 * SHAPES[kind].numel()
        spec = {
            "type": "native_plugin",
            "module_path": __name__,
            "class_name": "Connector",
            "adapter_params": {
                "chunk_bytes": self.chunk_bytes,
                "key": KEY,
                "tag_secret": SECRET,
                "pool_bytes": 64 << 20,
                "timeout": TIMEOUT,
                **parameters,
            },
        }
        adapters = L2AdaptersConfig([NativePluginL2AdapterConfig.from_dict(spec)])
        memory = L1MemoryManagerConfig(64 << 20, False, shm_name="")
        self.manager = StorageManager(
            StorageManagerConfig(L1ManagerConfig(memory), EvictionConfig("LRU"), adapters)
        )
        self.connector = Connector.last

    @property
    def directory(self) -> str:
        return f"embedded:{self.connector.node.address}"

    def store(self, keys: list[ObjectKey]) -> list[bytes]:
        """Writes chunks of random bytes, has them stored, and evicts them. Returns their bytes."""
        objects = self.manager.reserve_write(keys, self.layout)
        for held in objects.values():
            held.tensor.view(torch.int16).random_(-30000, 30000)
        chunks = [bytes(objects[key].byte_array) for key in keys]
        before = self.connector.node.statistics().puts
        self.manager.finish_write(keys)
        until = time.monotonic() + 30
        while self.connector.node.statistics().puts < before + len(keys):
            assert time.monotonic() < until, "LMCache stored nothing within 30 seconds"
            time.sleep(0.01)
        self.connector.node.flush(20)
        self.evict(keys)
        return chunks

    def evict(self, keys: list[ObjectKey]) -> None:
        """Takes the chunks out of LMCache's own memory."""
        until = time.monotonic() + 30
        while self.manager.delete_l1_keys(keys, force=True)[1]:
            assert time.monotonic() < until
            time.sleep(0.01)

    def load(self, keys: list[ObjectKey]) -> tuple[int, list[bytes]]:
        """Has chunks loaded. Returns how many there are from the first on, and their bytes."""
        task = self.manager.submit_prefetch_task(PrefetchTaskSpec([GroupedObjectKeys(keys, 0, self.layout)]))
        began = time.monotonic()
        assert self.manager.wait_prefetch_status(task, 2 * TIMEOUT + 4), "LMCache waits for an answer"
        assert time.monotonic() - began < 2 * TIMEOUT + 4
        hits = self.manager.query_prefetch_status(task).hit_cells[0].popcount()
        if hits == 0:
            return 0, []
        with self.manager.read_prefetched_results(keys[:hits]) as objects:
            assert objects is not None
            chunks = [bytes(held.byte_array) for held in objects]
        self.manager.finish_read_prefetched(keys[:hits])
        self.evict(keys[:hits])
        return hits, chunks

    def close(self) -> None:
        self.manager.close()


def keys_of(count: int, first: int = 0) -> list[ObjectKey]:
    rank = ObjectKey.ComputeKVRank(1, 0, 1, 0)
    return [ObjectKey(bytes([first + number]) * 32, "org/model", rank) for number in range(count)]


@pytest.fixture(params=["mla", "mha"])
def cache(request: pytest.FixtureRequest) -> Iterator[Cache]:
    cache = Cache(request.param)
    yield cache
    cache.close()


def test_chunks_come_back_after_lmcache_has_evicted_them(cache: Cache) -> None:
    keys = keys_of(8)
    stored = cache.store(keys)
    assert cache.load(keys) == (8, stored)
    assert cache.load(keys_of(3, first=100)) == (0, [])
    # One that is gone ends the prefix.
    assert cache.connector.space.remove([kvrail_lmcache.key_bytes(cache_key(keys[4]))]) == 1
    assert cache.load(keys) == (4, stored[:4])


def cache_key(key: ObjectKey) -> str:
    from lmcache.v1.distributed.l2_adapters.native_connector_l2_adapter import _object_key_to_string

    return _object_key_to_string(key)  # type: ignore[no-any-return]


def test_another_cache_loads_the_chunks(cache: Cache) -> None:
    kind = "mla" if cache.layout.shapes[0] == SHAPES["mla"] else "mha"
    other = Cache(kind, directory=cache.directory)
    try:
        keys = keys_of(6)
        stored = cache.store(keys)
        assert other.load(keys) == (6, stored)
        assert other.connector.node.statistics().hits_own_pool == 0
    finally:
        other.close()


def test_buffers_of_another_length_are_answered_with_false() -> None:
    connector = Connector(chunk_bytes=4096, key=KEY, tag_secret=SECRET, timeout=TIMEOUT)
    try:
        buffers = [memoryview(bytearray(100)), memoryview(bytearray(4096))]
        answers: dict[int, Any] = {}
        numbers = [connector.submit_batch_set(["a", "b"], buffers), connector.submit_batch_get(["a", "b"], buffers)]
        until = time.monotonic() + 10
        while len(answers) < 2 and time.monotonic() < until:
            answers.update({answer[0]: answer[1:] for answer in connector.drain_completions()})
            time.sleep(0.01)
        assert answers[numbers[0]][0] is False and "chunk_bytes" in answers[numbers[0]][1]
        assert answers[numbers[1]][2] == [False, False]
    finally:
        connector.close()


def answer(connector: Connector, number: int) -> Any:
    """The answer to a batch, with this number."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for ended in connector.drain_completions():
            assert ended[0] == number
            return ended[1:]
        time.sleep(0.01)
    raise TimeoutError("no answer")


def test_a_load_that_fails_in_its_middle_loses_no_place() -> None:
    connector = Connector(chunk_bytes=4096, key=KEY, tag_secret=SECRET, timeout=TIMEOUT, staging_chunks=2)
    try:
        assert answer(connector, connector.submit_batch_set(["a"], [memoryview(bytes(range(256)) * 16)]))[0]
        # Bytes that cannot be written: found after the chunk has come.
        for _ in range(4):
            ok, why, flags = answer(connector, connector.submit_batch_get(["a"], [memoryview(bytes(4096))]))
            assert not ok and "writable" in why and flags == [False]
        buffer = bytearray(4096)
        assert answer(connector, connector.submit_batch_get(["a"], [memoryview(buffer)]))[0]
        assert buffer == bytes(range(256)) * 16 and connector.free.qsize() == 2
    finally:
        connector.close()
    with pytest.raises(RuntimeError, match="closed"):
        connector.submit_batch_exists(["a"])


PRODUCER = """
import sys, kvrail, kvrail_lmcache
chunk, directory, *keys = sys.argv[1:]
chunk = int(chunk)
c = kvrail_lmcache.KvrailConnector(chunk_bytes=chunk, key="5a" * 32, tag_secret="7b" * 32, directory=directory)
encoded = [kvrail_lmcache.key_bytes(key) for key in keys]
pages = [bytes([number + 1]) * chunk for number in range(len(keys))]
c.space.put_batch(encoded, pages)
c.node.flush(10)
print("ready", flush=True)
order = 0
while sys.stdin.readline() if order == 0 else True:
    c.node.clear()
    order += 1
    at = order % len(keys)
    c.space.put_batch(encoded[at:] + encoded[:at], pages[at:] + pages[:at])
"""


@pytest.mark.parametrize("event", ["dies", "freezes", "overwrites"])
def test_a_producer_in_trouble(cache: Cache, event: str) -> None:
    keys = keys_of(8, first=50)
    arguments = [str(cache.chunk_bytes), cache.directory, *[cache_key(key) for key in keys]]
    for round in range(4):
        producer = subprocess.Popen(
            [sys.executable, "-c", PRODUCER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert producer.stdout is not None and producer.stdin is not None
            assert producer.stdout.readline() == "ready\n"
            if event == "overwrites":
                producer.stdin.write("churn\n")
                producer.stdin.flush()
            elif round > 0:
                os.kill(producer.pid, signal.SIGKILL if event == "dies" else signal.SIGSTOP)
            hits, chunks = cache.load(keys)
            assert chunks == [bytes([number + 1]) * cache.chunk_bytes for number in range(hits)]
            if round == 0 and event != "overwrites":
                assert hits == 8
        finally:
            producer.kill()
            producer.wait()
    # What was stored here is found, whatever has become of the producers.
    own = keys_of(3)
    stored = cache.store(own)
    assert cache.load(own) == (3, stored)
    assert len(cache.connector.unsettled) == 0
    assert kvrail.library_version
