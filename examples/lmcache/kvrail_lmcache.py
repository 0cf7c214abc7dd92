"""An LMCache "native_plugin" L2 adapter over kvrail: chunks by key.

LMCache 0.5.6 calls six functions: three submit a batch and return a number at once, one descriptor
becomes readable when a batch has ended, `drain_completions` names those that have, and `close`. What
LMCache makes of answers decides what this adapter answers:

- A load that is never answered keeps its buffer for ever. So each batch has a deadline from the moment
  when it is submitted, and is answered by then, a chunk that is not there with False.
- Loads and look-ups are answered with a flag for each key: without flags a load counts as all, and a
  look-up as none. A look-up that says "failed" counts as none, too. A store is all or nothing.
- A buffer whose load has failed is used again at once. So pages land in memory of this adapter and are
  copied into the buffer: hardware never writes into memory of LMCache's.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import kvrail

logger = logging.getLogger(__name__)

# The longest key of kvrail.
MAX_KEY_BYTES = 256


def key_bytes(key: str) -> bytes:
    """The bytes of a key of LMCache, which has the model, the ranks and the element type in it."""
    plain = key.encode()
    return plain if len(plain) <= MAX_KEY_BYTES else hashlib.sha256(plain).digest()


class KvrailConnector:
    """`chunk_bytes` is the length of a full chunk: buffers of other lengths are not cached.
    `pool_bytes` is for chunks that are stored here, and `staging_chunks` chunks are loaded at a time.
    `timeout` bounds each batch. All other parameters are those of kvrail.Node."""

    def __init__(
        self,
        chunk_bytes: int,
        pool_bytes: int = 1 << 30,
        staging_chunks: int = 32,
        timeout: float = 5.0,
        workers: int = 3,
        model: str = "lmcache",
        **node: Any,
    ) -> None:
        self.chunk_bytes, self.timeout = chunk_bytes, timeout
        layout = kvrail.Layout.declare(
            "lmcache chunk", [{"lmcache chunk": ("u8", chunk_bytes)}], page_bytes=chunk_bytes
        )
        given: dict[str, Any] = {"transport": "shm:1", "directory": "embedded", **node}
        name = given.pop("name", f"lmcache-{os.uname().nodename[:40]}-{os.getpid()}")
        slots = max(pool_bytes // chunk_bytes, 1)
        self.node = kvrail.Node(name, pools=[kvrail.Pool(layout, slots)], **given)
        self.space = self.node.space(layout, model)
        self.staging = kvrail.Memory.of(bytearray(staging_chunks * chunk_bytes))
        self.places = self.node.register(layout, [self.staging])
        # Places that no load has. One into which hardware may still write comes back later.
        self.free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for place in range(staging_chunks):
            self.free.put(place)
        self.unsettled: set[int] = set()

        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.lock = threading.Lock()
        self.number = 0
        self.closed = False
        self.ended: deque[tuple[int, bool, str, list[bool] | None]] = deque()
        self.jobs: queue.SimpleQueue[tuple[int, Callable[[float], Any], int, bool, float] | None] = queue.SimpleQueue()
        self.threads = [
            threading.Thread(target=self._work, name=f"kvrail-lmcache-{at}", daemon=True) for at in range(workers)
        ]
        for thread in self.threads:
            thread.start()

    # What LMCache calls, the submitting functions while it holds a lock.

    def event_fd(self) -> int:
        return self.fd

    def submit_batch_get(self, keys: list[str], buffers: list[memoryview]) -> int:
        return self._submit(lambda until: self._get(keys, buffers, until), len(keys))

    def submit_batch_set(self, keys: list[str], buffers: list[memoryview]) -> int:
        return self._submit(lambda until: self._set(keys, buffers), len(keys))

    def submit_batch_exists(self, keys: list[str]) -> int:
        return self._submit(lambda until: self._exists(keys, until), len(keys), look_up=True)

    def submit_batch_delete(self, keys: list[str]) -> int:
        return self._submit(lambda until: self._delete(keys), len(keys))

    def drain_completions(self) -> list[tuple[int, bool, str, list[bool] | None]]:
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        with self.lock:
            ended, self.ended = list(self.ended), deque()
        return ended

    def close(self) -> None:
        with self.lock:
            if self.closed:
                return
            self.closed = True
        for _ in self.threads:
            self.jobs.put(None)
        # A job ends by its deadline.
        for thread in self.threads:
            thread.join(self.timeout + 1)
        self.node.close()
        if not any(thread.is_alive() for thread in self.threads):
            os.close(self.fd)

    # What the workers do.

    def _submit(self, job: Callable[[float], Any], count: int, look_up: bool = False) -> int:
        with self.lock:
            if self.closed:
                # No worker would answer it, and LMCache would wait for ever.
                raise RuntimeError("the adapter is closed")
            self.number += 1
            number = self.number
            # Under the lock, so that close() puts the workers' end behind it.
            self.jobs.put((number, job, count, look_up, time.monotonic() + self.timeout))
        return number

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            number, run, count, look_up, until = job
            try:
                if self.closed or time.monotonic() >= until:
                    raise TimeoutError("the batch was not begun in time")
                flags, why = run(until)
                # A look-up that has found some keys succeeded; LMCache takes a failed one for none.
                answer = (number, look_up or all(flags), why, flags)
            except Exception as error:  # Whatever happened, the batch is answered.
                logger.warning("kvrail: %s", error)
                answer = (number, False, str(error), [False] * count)
            with self.lock:
                self.ended.append(answer)
                # The descriptor is closed after the last worker has ended.
                os.eventfd_write(self.fd, 1)

    def _get(self, keys: list[str], buffers: list[memoryview], until: float) -> tuple[list[bool], str]:
        flags = [len(buffer) == self.chunk_bytes for buffer in buffers]
        wanted = [at for at, fits in enumerate(flags) if fits]
        why = "" if all(flags) else f"a buffer has not the {self.chunk_bytes} bytes of a chunk"
        while wanted:
            places = self._take_places(len(wanted), until)
            batch, wanted = wanted[: len(places)], wanted[len(places) :]
            left = max(until - time.monotonic(), 0.0)
            settled = False
            try:
                got = self.space.get_batch([key_bytes(keys[at]) for at in batch], self.places, places, left)
                settled = got.unsettled == 0
                for at, place, status in zip(batch, places, got.statuses):
                    if status == 0:
                        # LMCache's memoryviews have the format "<B": Python does not assign to it.
                        to, came = kvrail.Memory.of(buffers[at]), self.staging.address + place * self.chunk_bytes
                        ctypes.memmove(to.address, came, self.chunk_bytes)
                    else:
                        flags[at], why = False, kvrail.status_meaning(status)
            finally:
                self._give_back(places, settled)
        return flags, why

    def _take_places(self, most: int, until: float) -> list[int]:
        """Free places, at least one, `most` at most."""
        self._look_at_unsettled()
        places: list[int] = []
        try:
            places.append(self.free.get(timeout=max(until - time.monotonic(), 0.0)))
            while len(places) < most:
                places.append(self.free.get_nowait())
        except queue.Empty:
            if not places:
                raise TimeoutError("no memory for a load became free in time: raise staging_chunks") from None
        return places

    def _give_back(self, places: list[int], settled: bool) -> None:
        for place in places:
            if settled or self.places.settle([place], 0):
                self.free.put(place)
            else:
                with self.lock:
                    self.unsettled.add(place)

    def _look_at_unsettled(self) -> None:
        with self.lock:
            unsettled, self.unsettled = self.unsettled, set()
        self._give_back(list(unsettled), settled=False)

    def _set(self, keys: list[str], buffers: list[memoryview]) -> tuple[list[bool], str]:
        if any(len(buffer) != self.chunk_bytes for buffer in buffers):
            lengths = sorted({len(buffer) for buffer in buffers})
            raise ValueError(f"buffers of {lengths} bytes, and chunk_bytes is {self.chunk_bytes}")
        put = self.space.put_batch([key_bytes(key) for key in keys], buffers)
        bad = next((status for status in put.statuses if status), 0)
        return put.ok, kvrail.status_meaning(bad) if bad else ""

    def _exists(self, keys: list[str], until: float) -> tuple[list[bool], str]:
        left = max(until - time.monotonic(), 0.0)
        return self.space.exists([key_bytes(key) for key in keys], left).ok, ""

    def _delete(self, keys: list[str]) -> tuple[list[bool], str]:
        return [self.space.remove([key_bytes(key)]) == 1 for key in keys], ""
