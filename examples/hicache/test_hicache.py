"""SGLang's released classes over kvrail: what was stored is found again with its bytes, and what counts
as loaded is right, whatever happens to the node that has it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engine import KEY, LAYOUTS, SECRET, TOKENS, Engine
from producer import page_bytes

# A call may take its timeout, a tenth of a second, and what a busy machine adds.
TIMEOUT = 3.0
BOUND = TIMEOUT + 2.0


def tokens(pages: int, first: int = 1000) -> list[int]:
    return list(range(first, first + pages * TOKENS))


@pytest.mark.parametrize(("kind", "layout"), LAYOUTS)
def test_pages_come_back_after_the_engine_has_evicted_them(kind: str, layout: str) -> None:
    engine = Engine(kind, layout)
    try:
        stored = engine.back_up(tokens(10))
        # Ten pages are there, and of the rest no full page was asked for.
        found, loaded, pages = engine.prefetch(tokens(10) + [1, 2, 3])
        assert (found, loaded) == (10, 10)
        assert pages == stored
        stats = engine.backend.get_stats()
        assert stats is not None and (stats.puts, stats.hits_own_pool) == (10, 10)
        # Nothing is found of another prompt.
        assert engine.prefetch(tokens(4, first=50_000))[0] == 0
    finally:
        engine.close()


@pytest.mark.parametrize(("kind", "layout"), LAYOUTS)
def test_another_engine_gets_the_pages(kind: str, layout: str) -> None:
    first = Engine(kind, layout)
    second = Engine(kind, layout, directory=first.directory)
    try:
        stored = first.back_up(tokens(12))
        found, loaded, pages = second.prefetch(tokens(12))
        assert (found, loaded) == (12, 12)
        assert pages == stored
        stats = second.backend.get_stats()
        assert stats is not None and stats.hits_own_pool == 0 and stats.hits_directory + stats.hits_cache == 12
    finally:
        second.close()
        first.close()


def test_engines_of_other_models_and_layouts_find_nothing() -> None:
    first = Engine("mla", "page_first")
    others = [
        Engine("mla", "page_first", directory=first.directory, model="another model"),
        Engine("mla", "layer_first", directory=first.directory),
    ]
    try:
        first.back_up(tokens(4))
        for other in others:
            assert other.prefetch(tokens(4))[0] == 0
    finally:
        for engine in [*others, first]:
            engine.close()


def test_more_than_a_batch_is_stored_and_got_in_batches() -> None:
    engine = Engine("mla", "page_first")
    try:
        # The host pool has some 80 pages; the batches of SGLang have up to 128.
        stored = engine.back_up(tokens(30))
        found, loaded, pages = engine.prefetch(tokens(30))
        assert (found, loaded) == (30, 30) and pages == stored
        assert {name for name, _, _ in engine.backend.calls} == {"set", "exists", "get"}
    finally:
        engine.close()


def test_a_full_pool_evicts_and_the_rest_is_right() -> None:
    engine = Engine("mla", "page_first", pool_bytes=8 * 4 * TOKENS * 576 * 2)
    try:
        stored = engine.back_up(tokens(20))
        found, loaded, pages = engine.prefetch(tokens(20))
        assert loaded == found
        assert pages[:loaded] == stored[:loaded]
        stats = engine.backend.get_stats()
        assert stats is not None and stats.evictions == 12 and stats.pages == 8
    finally:
        engine.close()


def test_options_that_cannot_be_are_refused_when_it_is_attached() -> None:
    with pytest.raises(Exception, match="kvrail_pool_bytes"):
        Engine("mla", "page_first", pool_bytes=10)
    with pytest.raises(Exception, match="pigeon"):
        Engine("mla", "page_first", transport="pigeon:1")


class Producer:
    """The process of producer.py, which has the pages of a prompt."""

    def __init__(self, engine: Engine, keys: list[str], directory: str | None = None) -> None:
        storage = engine.backend
        sizes = engine.host.get_page_buffer_meta(torch.arange(TOKENS))[1]
        host = engine.host
        what = f"{type(host).__name__} {host.layout} {host.dtype} {TOKENS} tokens"
        self.length = sum(sizes)
        given = {
            "layout": {"name": f"sglang {host.layout}", "field": what, "bytes": sizes[0], "objects": len(sizes)},
            "keys": keys,
            "slots": len(keys) + 3,
            "model": "org/model",
            "shape": storage._shape(),
            "node": {"transport": "shm:1", "key": KEY, "tag_secret": SECRET},
        }
        given["node"]["directory"] = directory or engine.directory
        program = Path(__file__).with_name("producer.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.tell(json.dumps(given))
        assert self.process.stdout is not None
        ready, self.address = self.process.stdout.readline().split()
        assert ready == "ready"

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine("mha", "page_first", timeout=TIMEOUT)
    yield engine
    engine.close()


def right(keys: list[str], loaded: int, pages: list[bytes], length: int) -> bool:
    """Whether each page that counts as loaded is the one of its key."""
    return all(pages[number] == page_bytes(keys[number], length) for number in range(loaded))


def within_bounds(engine: Engine) -> bool:
    return all(took <= BOUND for _, _, took in engine.backend.calls)


@pytest.mark.parametrize("event", ["none", "dies", "freezes"])
def test_a_producer_that_dies_or_freezes_in_the_middle(engine: Engine, event: str) -> None:
    prompt = tokens(30)
    keys = engine.hashes(prompt)
    producer = Producer(engine, keys)
    random.seed(event)
    try:
        for round in range(2 if event == "none" else 6):
            if producer.process.poll() is not None:
                producer = Producer(engine, keys)

            def meanwhile() -> None:
                time.sleep(random.random() * 0.004)
                if event == "dies" and round > 0:
                    producer.signal(signal.SIGKILL)
                    producer.process.wait()
                if event == "freezes" and round % 2 == 1:
                    producer.signal(signal.SIGSTOP)

            found, loaded, pages = engine.prefetch(prompt, meanwhile)
            if event == "freezes":
                producer.signal(signal.SIGCONT)
            assert right(keys, loaded, pages, producer.length)
            if event == "none":
                assert (found, loaded) == (30, 30)
            # Nothing of the node's memory of owners leads astray after it.
            assert within_bounds(engine), engine.backend.calls
        # What the engine has stored itself is found, whatever has become of the producer.
        stored = engine.back_up(tokens(5, first=90_000))
        assert engine.prefetch(tokens(5, first=90_000))[1:] == (5, stored)
    finally:
        producer.close()


def test_a_producer_that_overwrites_its_pages_meanwhile(engine: Engine) -> None:
    prompt = tokens(30)
    keys = engine.hashes(prompt)
    producer = Producer(engine, keys)
    try:
        assert engine.prefetch(prompt)[:2] == (30, 30)
        producer.tell("churn")
        all_loaded = 0
        for _ in range(30):
            found, loaded, pages = engine.prefetch(prompt)
            assert right(keys, loaded, pages, producer.length)
            all_loaded += loaded
        assert within_bounds(engine)
        print("pages that counted as loaded, of 900:", all_loaded)
    finally:
        producer.close()


def test_engines_of_two_types_of_eight_bits_find_none_of_each_others_pages() -> None:
    """SGLang keeps both as bytes, so their pages have the same layout."""
    prompt, open_engines = tokens(5), []

    def engine_of(dtype: torch.dtype, element: str, **options: str) -> Engine:
        made = Engine("mla", "page_first", dtype, element=element, **options)
        assert made.host.dtype == torch.uint8
        open_engines.append(made)
        return made

    try:
        first = engine_of(torch.float8_e4m3fn, "fp8_e4m3")
        stored = first.back_up(prompt)
        other = engine_of(torch.float8_e5m2, "fp8_e5m2", directory=first.directory)
        same = engine_of(torch.float8_e4m3fn, "fp8_e4m3", directory=first.directory)
        assert other.prefetch(prompt)[:2] == (0, 0)
        assert same.prefetch(prompt) == (5, 5, stored)
    finally:
        for made in reversed(open_engines):
            made.close()


def test_a_frozen_directory_answers_within_the_bound(engine: Engine) -> None:
    """The directory is in another process, which stops, and goes on later."""
    prompt = tokens(30)
    keeper = Producer(engine, engine.hashes(prompt), directory="embedded")
    other = None
    try:
        other = Engine("mha", "page_first", timeout=TIMEOUT, directory=f"embedded:{keeper.address}")
        assert other.prefetch(prompt)[:2] == (30, 30)
        keeper.signal(signal.SIGSTOP)
        absent = [[f"{number * 1000 + at:064x}" for at in range(128)] for number in range(3)]
        answers: list[int] = []
        ask = other.backend.batch_exists
        threads = [threading.Thread(target=lambda keys=keys: answers.append(ask(keys))) for keys in absent]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND)
            assert not thread.is_alive()
        assert answers == [0, 0, 0] and within_bounds(other)
        # A page that is stored meanwhile is found by its own node, whatever the directory does.
        stored = other.back_up(tokens(5, first=70_000), told=False)
        found, loaded, pages = other.prefetch(tokens(5, first=70_000))
        assert (found, loaded) == (5, 5) and pages == stored
        keeper.signal(signal.SIGCONT)
        # A directory that was not reached is asked again after 5 s at most.
        until = time.monotonic() + 20.0
        while other.prefetch(prompt)[1] == 0 and time.monotonic() < until:
            time.sleep(0.2)
        assert other.prefetch(prompt)[1:] == engine_pages(prompt, keeper, engine)
    finally:
        keeper.signal(signal.SIGCONT)
        keeper.close()
        if other is not None:
            other.close()


def engine_pages(prompt: list[int], producer: Producer, engine: Engine) -> tuple[int, list[bytes]]:
    """What a prefetch of all pages of the prompt gives."""
    keys = engine.hashes(prompt)
    return len(keys), [page_bytes(key, producer.length) for key in keys]
