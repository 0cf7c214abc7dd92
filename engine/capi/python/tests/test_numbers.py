"""Every integer that a caller gives is checked: ctypes would keep the bits that fit."""

from __future__ import annotations

import ctypes
import re
from array import array
from collections.abc import Callable

import numpy as np
import pytest
from conftest import PAGE, Nodes

import kvrail

U32, U64, I32 = (0, (1 << 32) - 1), (0, (1 << 64) - 1), (-(1 << 31), (1 << 31) - 1)
# What is called, the name of the argument in the error, and its range.
Case = tuple[Callable[[int], object], str, tuple[int, int]]


def cases(nodes: Nodes, layout: kvrail.Layout) -> list[Case]:
    node = nodes.start(pools=[kvrail.Pool(layout, 4)])
    space, places = node.space(layout, "m"), node.register(layout, [np.zeros(4 * PAGE, np.uint8)])
    opaque, declare = kvrail.Layout.opaque, kvrail.Layout.declare
    plane = [{"a": ("u8", 8)}]

    def start(**options: object) -> kvrail.Node:
        # Closed at the end of the test, should it start after all.
        return nodes.start(**{"directory": "none", "layouts": [layout], **options})

    def engine_pool(**options: int) -> kvrail.EnginePool:
        return kvrail.EnginePool(layout, [kvrail.EngineRegion(bytearray(2 * PAGE), **options)])

    def register(**options: object) -> kvrail.Places:
        return node.register(layout, [np.zeros(PAGE, np.uint8)], **options)  # type: ignore[arg-type]

    return [
        (lambda n: start(readers=n), "readers", U32),
        (lambda n: start(batch_pages=n), "batch_pages", U32),
        (lambda n: start(cache_records=n), "cache_records", U64),
        (lambda n: start(pools=[kvrail.Pool(layout, n)]), "Pool.slots", U32),
        (lambda n: start(pools=[engine_pool(stride=n)]), "EngineRegion.stride", U64),
        (lambda n: start(pools=[engine_pool(offset=n)]), "EngineRegion.offset", U64),
        (lambda n: register(strides=[n]), "strides[0]", U64),
        (lambda n: register(numa=n), "numa", I32),
        (lambda n: node.begin_slots(n, [0]), "pool", U32),
        (lambda n: node.begin_slots(0, [0, n]), "slots[1]", U32),
        (lambda n: places.settle([n], 1), "indices[0]", U32),
        (lambda n: space.get_batch([b"k"], places, [n], 1), "indices[0]", U32),
        (lambda n: space.get_batch([b"k"], places, iter([n]), 1), "indices[0]", U32),
        (lambda n: space.begin_get([b"k"], places, [n], 1), "indices[0]", U32),
        (lambda n: space.begin_get([b"k"], places, [0], 1, n), "tag", U64),
        (lambda n: space.put_places([b"k"], places, [n]), "indices[0]", U32),
        (lambda n: space.publish_slots(n, [b"k"], [0]), "pool", U32),
        (lambda n: space.publish_slots(0, [b"k"], [n]), "slots[0]", U32),
        (
            lambda n: node.get_groups([[kvrail.GroupPage(space, b"k", places, n)]], 1),
            "the place of page 0 of group 0",
            U32,
        ),
        (lambda n: node.begin_get_groups([[(space, b"k", places, 0)]], 1, n), "tag", U64),
        (opaque, "page_bytes", U64),
        (lambda n: declare("d", plane, page_bytes=n), "page_bytes", U64),
        (lambda n: declare("d", plane, version=n), "version", U32),
        (lambda n: declare("d", plane, axes={"layer": n}, order=["layer"]), "axes['layer']", U64),
        (lambda n: declare("d", [{"a": ("u8", n)}]), "the number of elements of 'a'", U64),
        (lambda n: layout.at_rank("head", n), "rank", U32),
        (lambda n: kvrail.Memory(n, 1), "address", U64),
        (lambda n: kvrail.Memory(1, n), "nbytes", U64),
        (kvrail.status_name, "status", I32),
        (kvrail.status_meaning, "status", I32),
    ]


def test_a_number_that_does_not_fit_is_an_error_that_names_it(nodes: Nodes, layout: kvrail.Layout) -> None:
    for number, (call, name, (least, most)) in enumerate(cases(nodes, layout)):
        for wrong in (least - 1, most + 1, most + 2, 1 << 70):
            expected = re.escape(f"{name} is {wrong}: give {least} to {most}")
            with pytest.raises(kvrail.UsageError, match=expected) as raised:
                call(wrong)
                pytest.fail(f"case {number}, {name} = {wrong}")
            assert (raised.value.code, raised.value.name) == (8004, kvrail.status_name(8004))
            assert isinstance(raised.value, ValueError)
        for wrong in (1.0, "1", None):
            with pytest.raises(TypeError, match=re.escape(name)):
                call(wrong)  # type: ignore[arg-type]
                pytest.fail(f"case {number}, {name} = {wrong!r}")


def test_integers_of_other_packages_and_arrays_are_taken(nodes: Nodes, layout: kvrail.Layout) -> None:
    node = nodes.start(pools=[kvrail.Pool(layout, np.int64(4))])
    space, memory = node.space(layout, "m"), np.zeros((4, PAGE), np.uint8)
    places = node.register(layout, [memory], numa=np.int32(-1), strides=[np.uint64(PAGE)])
    assert space.put_places([b"k"], places, np.array([1])).stored == 1
    for indices in ([2], (2,), range(2, 3), iter([2]), np.array([2]), array("I", [2]), array("q", [2]), [True + 1]):
        assert space.get_batch([b"k"], places, indices, 5).hits == 1


def test_an_array_that_another_thread_lengthens_is_read_where_it_was(nodes: Nodes, layout: kvrail.Layout) -> None:
    node = nodes.start(layouts=[layout], directory="none")
    space, places = node.space(layout, "m"), node.register(layout, [np.zeros(4 * PAGE, np.uint8)])
    indices = array("I", [3, 1])
    seen: list[list[int]] = []

    def get(handle: int, number: int, keys: int, of: int, address: int, *_: int) -> int:
        # As another thread does that has the interpreter's lock meanwhile.
        assert address != indices.buffer_info()[0]
        indices.extend(range(1 << 20))
        seen.append(list((ctypes.c_uint32 * 2).from_address(address)))
        return 0

    space._get = get  # type: ignore[assignment]
    space.get_batch([b"a", b"b"], places, indices, 1)
    assert seen == [[3, 1]]
