"""Pages by key, between two nodes over shared memory: bytes are compared."""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from conftest import KEY, PAGE, SECRET, Nodes

import kvrail


def page(number: int) -> bytes:
    return bytes([number % 251]) * PAGE


def keys(count: int) -> list[bytes]:
    return [b"key %d" % number for number in range(count)]


def pair(nodes: Nodes, layout: kvrail.Layout, slots: int = 64) -> tuple[kvrail.Space, kvrail.Space]:
    """The space of an owner with a pool, and that of another node."""
    owner = nodes.start(pools=[kvrail.Pool(layout, slots)])
    reader = nodes.start(layouts=[layout])
    return owner.space(layout, "m"), reader.space(layout, "m")


def test_pages_that_were_put_are_got_with_their_bytes(nodes: Nodes, layout: kvrail.Layout) -> None:
    owner, reader = pair(nodes, layout)
    put = owner.put_batch(keys(10), [page(number) for number in range(10)])
    assert (put.stored, put.present, put.leading, put.ok) == (10, 0, 10, [True] * 10)
    assert owner.put_batch(keys(3), [page(0)] * 3).present == 3
    owner.node.flush(5)
    found = reader.exists(keys(12), 5)
    assert found.leading == 10 and found.ok == [True] * 10 + [False] * 2
    memory = np.zeros((16, PAGE), np.uint8)
    places = reader.node.register(layout, [memory])
    assert len(places) == 16
    got = reader.get_batch(keys(12), places, range(4, 16), 5)
    assert (got.hits, got.leading_hits, got.unsettled) == (10, 10, 0)
    assert got.ok == [True] * 10 + [False] * 2 and got.statuses[10] == 7200
    assert kvrail.status_name(7200) == "GetMiss::NoOwner" and kvrail.status_meaning(7200)
    for number in range(10):
        assert memory[4 + number].tobytes() == page(number)
    assert owner.remove(keys(2)) == 2
    assert reader.get_batch(keys(3), places, [0, 1, 2], 5).ok == [False, False, True]
    stats = owner.node.statistics()
    assert (stats.pages, stats.puts, stats.puts_present, stats.removed) == (8, 10, 3, 2)
    reader_stats = reader.node.statistics()
    assert reader_stats.misses == 4 and sum(reader_stats.misses_by_reason.values()) == 4
    assert owner.node.clear() == 8
    places.unregister()


def test_the_owner_gets_its_own_pages_and_stores_places(nodes: Nodes, layout: kvrail.Layout) -> None:
    owner, reader = pair(nodes, layout)
    memory = np.arange(4 * PAGE, dtype=np.uint32).view(np.uint8).reshape(16, PAGE)
    places = owner.node.register(layout, [memory])
    put = owner.put_places(keys(8), places, range(8))
    assert put.stored == 8
    got = owner.get_batch(keys(8), places, range(8, 16), 5)
    assert got.hits == 8 and (memory[8:] == memory[:8]).all()
    assert owner.node.statistics().hits_own_pool == 8


def test_regions_of_a_layout_are_buffers_of_their_own(nodes: Nodes) -> None:
    layout = kvrail.Layout.declare(
        "k and v", [{"k": ("bf16", 256)}, {"v": ("bf16", 256)}], order=["regions(planes)"], page_bytes=1024
    )
    assert (layout.regions, layout.page_bytes) == (2, 1024)
    owner, reader = pair(nodes, layout)
    k, v = np.full((2, 512), 1, np.uint8), np.full((2, 512), 2, np.uint8)
    put = owner.put_batch(keys(3), [(k[0], v[0]), [k[1], v[1]], bytes([7]) * 512 + bytes([8]) * 512])
    assert put.stored == 3
    owner.node.flush(5)
    to_k, to_v = bytearray(4 * 512), np.zeros(4 * 1024, np.uint8)
    places = reader.node.register(layout, [to_k, to_v], strides=[512, 1024])
    assert reader.get_batch(keys(3), places, [3, 1, 0], 5).hits == 3
    assert to_k[3 * 512 :] == bytes([1]) * 512 and (to_v[3 * 1024 : 3 * 1024 + 512] == 2).all()
    assert to_k[:512] == bytes([7]) * 512 and (to_v[:512] == 8).all() and not to_v[512:1024].any()
    with pytest.raises(ValueError, match="buffers"):
        owner.put_batch(keys(1), [(k[0],)])
    with pytest.raises(ValueError, match="a page of 12 bytes"):
        owner.put_batch(keys(1), [b"hello world!"])


def test_regions_of_several_lengths_keep_their_own(nodes: Nodes) -> None:
    layout = kvrail.Layout.declare(
        "uneven", [{"a": ("u8", 1024)}, {"b": ("u8", 3072)}], order=["regions(planes)"], page_bytes=4096
    )
    assert layout.region_bytes == (1024, 3072)
    owner, reader = pair(nodes, layout)
    a, b = bytes([1]) * 1024, bytes([2]) * 3072
    assert owner.put_batch(keys(2), [a + b, (a, b)]).stored == 2
    # As long as a page, and yet each of the wrong length.
    with pytest.raises(ValueError, match="2048, 2048"):
        owner.put_batch([b"other"], [(bytes(2048), bytes(2048))])
    owner.node.flush(5)
    to_a, to_b = np.zeros((2, 1024), np.uint8), np.zeros((2, 3072), np.uint8)
    places = reader.node.register(layout, [to_a, to_b])
    assert reader.get_batch(keys(2), places, [0, 1], 5).hits == 2
    assert (to_a == 1).all() and (to_b == 2).all()


def test_places_name_only_the_memory_that_they_were_made_of(nodes: Nodes, layout: kvrail.Layout) -> None:
    owner, reader = pair(nodes, layout)
    owner.put_batch(keys(1), [page(7)])
    owner.node.flush(5)
    gone, there, others = np.zeros(PAGE, np.uint8), np.zeros(PAGE, np.uint8), np.zeros(PAGE, np.uint8)
    released = reader.node.register(layout, [gone])
    released.unregister()
    places = reader.node.register(layout, [there])
    with pytest.raises(kvrail.UsageError, match="released"):
        reader.get_batch(keys(1), released, [0], 5)
    with pytest.raises(kvrail.UsageError, match="released"):
        released.unregister()
    of_owner = owner.node.register(layout, [others])
    for call in (reader.get_batch, reader.begin_get):
        with pytest.raises(ValueError, match="another node"):
            call(keys(1), of_owner, [0], 5)
    with pytest.raises(ValueError, match="another node"):
        owner.put_places(keys(1), places, [0])
    assert not gone.any() and not there.any() and not others.any()
    assert reader.get_batch(keys(1), places, [0], 5).hits == 1 and there.tobytes() == page(7)


def test_a_get_that_is_dropped_gives_its_places_back(nodes: Nodes, layout: kvrail.Layout) -> None:
    owner, reader = pair(nodes, layout)
    places = reader.node.register(layout, [np.zeros((4, PAGE), np.uint8)])
    reader.begin_get(keys(4), places, range(4), 5)
    gc.collect()
    assert places.settle(range(4), 10)
    assert not select.select([reader.node], [], [], 0)[0] and reader.node.ended() == []


def test_a_thread_that_waits_for_a_get_is_told_that_it_was_given_up(nodes: Nodes, layout: kvrail.Layout) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        directory = f"embedded:127.0.0.1:{silent.getsockname()[1]}"
        node = nodes.start(layouts=[layout], directory=directory)
        places = node.register(layout, [np.zeros(PAGE, np.uint8)])
        get = node.space(layout, "m").begin_get(keys(1), places, [0], 300)
        told: list[BaseException] = []

        def wait() -> None:
            try:
                get.result(300)
            except kvrail.UsageError as error:
                told.append(error)

        thread = threading.Thread(target=wait)
        thread.start()
        # The test holds either way; with this the thread most likely waits.
        time.sleep(0.2)
        get.abandon()
        thread.join(60)
        assert not thread.is_alive() and len(told) == 1
        assert places.settle([0], 10)


def test_texts_that_c_would_cut_are_refused(nodes: Nodes, layout: kvrail.Layout) -> None:
    node = nodes.start(layouts=[layout], directory="none")
    for model, shape in (("m\0one", ""), ("m", "s\0two")):
        with pytest.raises(ValueError, match="zero"):
            node.space(layout, model, shape)
    with pytest.raises(ValueError, match="zero"):
        kvrail.Layout.declare("a\0b", [{"a": ("u8", 1)}])


def test_a_child_of_a_fork_ends_without_its_parents_node(nodes: Nodes, layout: kvrail.Layout) -> None:
    owner, reader = pair(nodes, layout)
    places = reader.node.register(layout, [np.zeros((2, PAGE), np.uint8)])
    begun = reader.begin_get(keys(1), places, [0], 5)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        # As finalizers do at the end of an interpreter.
        reader.node.close()
        owner.node.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert begun.result(10).hits == 0
    owner.put_batch(keys(1), [page(3)])
    owner.node.flush(5)
    assert reader.get_batch(keys(1), places, [1], 5).hits == 1


def child_of_a_fork(run: Callable[[], None]) -> int:
    """The exit status of a child that calls `run`; it is killed by a signal if it hangs."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(60)
            run()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_that_was_forked_while_threads_get_pages_waits_for_none_of_their_locks(
    nodes: Nodes, layout: kvrail.Layout
) -> None:
    owner, reader = pair(nodes, layout)
    owner.put_batch(keys(8), [page(number) for number in range(8)])
    owner.node.flush(5)
    places = reader.node.register(layout, [np.zeros((64, PAGE), np.uint8)])
    stop = threading.Event()

    def get_pages(first: int) -> None:
        while not stop.is_set():
            reader.get_batch(keys(8), places, range(first, first + 8), 5)
            # Begun ones have locks and a thread of their own.
            reader.begin_get(keys(8), places, range(first, first + 8), 5).result(10)

    threads = [threading.Thread(target=get_pages, args=(8 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        begun = [reader.begin_get(keys(1), places, [56], 5)]

        def end_as_an_interpreter_does() -> None:
            with pytest.raises(kvrail.UsageError) as refused:
                reader.get_batch(keys(1), places, [57], 5)
            assert refused.value.name == "CapiError::OtherProcess"
            with pytest.raises(kvrail.UsageError):
                begun[0].result(5)
            # The last reference: a finalizer gives the get up.
            begun.clear()
            reader.node.close()
            owner.node.close()
            # And nodes of its own are like any.
            with kvrail.Node("child", transport="shm:1", key=KEY, tag_secret=SECRET, layouts=[layout]) as own:
                assert own.space(layout, "m").exists(keys(1), 1).leading == 0

        for _ in range(20):
            assert child_of_a_fork(end_as_an_interpreter_does) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # Python's own lock, too, may be one that a thread of the parent holds.
    with reader.node._lock:
        assert child_of_a_fork(reader.node.close) == 0
    assert begun[0].result(10).hits == 1
    assert reader.get_batch(keys(1), places, [1], 5).hits == 1


def test_a_get_that_is_begun_ends_in_an_event_loop(nodes: Nodes, layout: kvrail.Layout) -> None:
    owner, reader = pair(nodes, layout)
    owner.put_batch(keys(8), [page(number) for number in range(8)])
    owner.node.flush(5)
    memory = np.zeros((8, PAGE), np.uint8)
    places = reader.node.register(layout, [memory])
    gets = {tag: reader.begin_get(keys(8)[tag : tag + 1], places, [tag], 5, tag=tag) for tag in range(8)}
    seen: set[int] = set()
    while len(seen) < 8:
        assert select.select([reader.node], [], [], 10)[0]
        for ticket, tag in reader.node.ended():
            assert gets[tag].ticket == ticket and tag not in seen
            assert gets[tag].result(0).hits == 1 and gets[tag].done()
            seen.add(tag)
    assert not select.select([reader.node], [], [], 0)[0]
    assert all(memory[number].tobytes() == page(number) for number in range(8))
    abandoned = reader.begin_get(keys(8), places, range(8), 5)
    abandoned.abandon()
    with pytest.raises(kvrail.UsageError, match="ticket"):
        abandoned.result(0)
    assert places.settle(range(8), 10)


def test_threads_share_a_space(nodes: Nodes, layout: kvrail.Layout) -> None:
    owner, reader = pair(nodes, layout)
    owner.put_batch(keys(8), [page(number) for number in range(8)])
    owner.node.flush(5)
    memory = np.zeros((32, PAGE), np.uint8)
    places = reader.node.register(layout, [memory])
    wrong: list[str] = []

    def work(first: int) -> None:
        for round in range(50):
            memory[first : first + 8] = 255
            got = reader.get_batch(keys(8), places, range(first, first + 8), 5)
            for number in range(8):
                if not got.ok[number] or memory[first + number].tobytes() != page(number):
                    wrong.append(f"{first} {round} {number} {got.statuses[number]}")

    threads = [threading.Thread(target=work, args=(8 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_memory_of_an_engine_is_a_pool(nodes: Nodes, layout: kvrail.Layout) -> None:
    memory = np.zeros((4, PAGE), np.uint8)
    pool = kvrail.EnginePool(layout, [kvrail.EngineRegion(memory)])
    owner = nodes.start(pools=[pool], permit_any_reader=True, cache_seconds=0)
    reader = nodes.start(layouts=[layout]).space(layout, "m")
    owner.begin_slots(0, [2])
    memory[2] = 99
    assert list(owner.space(layout, "m").publish_slots(0, keys(1), [2])) == [0]
    owner.flush(5)
    to = bytearray(PAGE)
    places = reader.node.register(layout, [to])
    assert reader.get_batch(keys(1), places, [0], 5).hits == 1 and to == bytes([99]) * PAGE
    assert owner.statistics().engine_pages == 1


def test_a_rank_is_given_to_a_layout_that_leaves_it_open() -> None:
    layout = kvrail.Layout.named("sgl_llama3_70b_tp8_page_head")
    third = layout.at_rank("head", 3)
    assert not layout.complete and third.complete and third != layout and third == layout.at_rank("head", 3)
    assert "opaque" in str(kvrail.Layout.opaque(64)) and repr(third)


def test_errors_carry_code_name_and_text(nodes: Nodes, layout: kvrail.Layout) -> None:
    with pytest.raises(kvrail.UsageError) as caught:
        kvrail.Node("n", transport="pigeon:1", tag_secret=SECRET, key=KEY, layouts=[layout])
    assert (caught.value.code, caught.value.name) == (8010, "CapiError::Transport")
    assert "pigeon" in caught.value.text and "8010" in str(caught.value)
    with pytest.raises(kvrail.Error) as started:
        kvrail.Node("n", transport="shm:1", tag_secret=SECRET, key=KEY)
    assert started.value.code == 7220
    space = nodes.start(pools=[kvrail.Pool(layout, 4)]).space(layout, "m")
    places = space.node.register(layout, [bytearray(4 * PAGE)])
    with pytest.raises(kvrail.PlaceBusyError):
        space.get_batch(keys(2), places, [1, 1], 1)
    with pytest.raises(kvrail.PlaceBusyError):
        space.get_batch(keys(1), places, [4], 1)
    with pytest.raises(ValueError, match="2 indices for 1 keys"):
        space.get_batch(keys(1), places, [0, 1], 1)
    with pytest.raises(ValueError, match="timeout"):
        space.get_batch(keys(1), places, [0], -1)
    with pytest.raises(kvrail.Error) as long_key:
        space.exists([b"x" * 300], 1)
    assert long_key.value.code == 7000
    with pytest.raises(ValueError, match="no element"):
        kvrail.Layout.declare("x", [{"a": ("u7", 1)}])
    space.node.close()
    with pytest.raises(kvrail.UsageError):
        space.exists(keys(1), 1)
    assert space.node.closed


def test_registered_memory_is_kept_until_it_is_given_back(nodes: Nodes, layout: kvrail.Layout) -> None:
    node = nodes.start(layouts=[layout], directory="none")
    memory = np.zeros(PAGE, np.uint8)
    gone = weakref.ref(memory)
    places = node.register(layout, [memory])
    del memory
    gc.collect()
    assert gone() is not None
    places.unregister()
    gc.collect()
    assert gone() is None
    with pytest.raises(kvrail.UsageError):
        places.unregister()


def test_groups_of_several_layouts_are_had_whole_or_not_at_all(nodes: Nodes, layout: kvrail.Layout) -> None:
    small = kvrail.Layout.opaque(512)
    owner = nodes.start(pools=[kvrail.Pool(layout, 8), kvrail.Pool(small, 8)])
    reader = nodes.start(layouts=[layout, small])
    owner.space(layout, "m").put_batch(keys(2), [page(1), page(2)])
    owner.space(small, "m").put_batch(keys(1), [bytes([9]) * 512])
    owner.flush(5)
    to_pages, to_states = np.zeros((3, PAGE), np.uint8), np.zeros((3, 512), np.uint8)
    large, state = reader.space(layout, "m"), reader.space(small, "m")
    pages, states = reader.register(layout, [to_pages]), reader.register(small, [to_states])
    groups = [
        [kvrail.GroupPage(large, key, pages, at), kvrail.GroupPage(state, key, states, at)]
        for at, key in enumerate(keys(3))
    ]
    # A group of one page, which is there.
    alone = [[kvrail.GroupPage(large, keys(2)[1], pages, 2)]]
    got = reader.get_groups(groups[:2] + alone, 5)
    assert got.groups == [True, False, True] and got.sizes == (2, 2, 1)
    assert (got.hits, got.leading_hits) == (3, 2)
    assert list(got.statuses) == [0, 0, kvrail.MISS_GROUP, 7200, 0]
    assert to_pages[0].tobytes() == page(1) and to_pages[2].tobytes() == page(2) and (to_states[0] == 9).all()
    assert kvrail.status_name(kvrail.MISS_GROUP) == "GetMiss::Group"
    begun = reader.begin_get_groups(groups, 5, tag=4)
    assert begun.result(10).groups == [True, False, False] and begun.done()
    assert reader.ended() == []
    with pytest.raises(ValueError, match="group 1 has no page"):
        reader.get_groups([groups[0], []], 5)
    with pytest.raises(ValueError, match="page 1 of group 0 is of another node"):
        reader.get_groups([[groups[0][0], kvrail.GroupPage(owner.space(small, "m"), b"k", states, 0)]], 5)
    assert reader.get_groups([], 5).groups == []
