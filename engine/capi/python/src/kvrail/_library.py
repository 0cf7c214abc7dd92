"""The shared library: where it is, and its functions with their types.

Every function is called by ctypes, which releases the interpreter's lock while it runs. The
structures and the numbers of arguments are those of kvrail.h; tests/test_header.py compares them.
"""

from __future__ import annotations

import ctypes
import operator
import os
from array import array
from collections.abc import Iterable
from ctypes import c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_uint8, c_void_p
from pathlib import Path
from typing import SupportsIndex

from .errors import UsageError, error_class

ABI_VERSION = 1


class Keys(ctypes.Structure):
    _fields_ = [("hex", c_char_p), ("file", c_char_p), ("other_hex", c_char_p), ("other_file", c_char_p)]


class Pool(ctypes.Structure):
    _fields_ = [
        ("layout", c_void_p),
        ("regions", c_void_p),
        ("region_count", c_size_t),
        ("slots", c_uint32),
        ("reserved", c_uint32),
    ]


class PoolRegion(ctypes.Structure):
    _fields_ = [
        ("memory", c_void_p),
        ("first", c_uint64),
        ("bytes", c_uint64),
        ("stride", c_uint64),
        ("offset", c_uint64),
    ]


class NodeConfig(ctypes.Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("permit_any_reader", c_uint32),
        ("name", c_char_p),
        ("listen", c_char_p),
        ("advertise", c_char_p),
        ("zone", c_char_p),
        ("transport", c_char_p),
        ("keys", ctypes.POINTER(Keys)),
        ("tag_secret_hex", c_char_p),
        ("tag_secret_file", c_char_p),
        ("directory", c_char_p),
        ("pools", ctypes.POINTER(Pool)),
        ("pool_count", c_size_t),
        ("layouts", ctypes.POINTER(c_void_p)),
        ("layout_count", c_size_t),
        ("readers", c_uint32),
        ("batch_pages", c_uint32),
        ("cache_records", c_uint64),
        ("cache_ttl_ns", c_uint64),
        ("spin_ns", c_uint64),
    ]


class PageKeys(ctypes.Structure):
    _fields_ = [("bytes", c_char_p), ("byte_count", c_size_t), ("lengths", c_void_p), ("count", c_size_t)]


class GroupPage(ctypes.Structure):
    _fields_ = [("space", c_uint32), ("places", c_uint32), ("index", c_uint32), ("joined", c_uint32)]


class GetCounts(ctypes.Structure):
    _fields_ = [("hits", c_size_t), ("leading_hits", c_size_t), ("unsettled", c_size_t)]


class PutCounts(ctypes.Structure):
    _fields_ = [("stored", c_size_t), ("present", c_size_t), ("leading", c_size_t)]


class EndedGet(ctypes.Structure):
    _fields_ = [("ticket", c_uint64), ("tag", c_uint64)]


class NodeStats(ctypes.Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("connected_readers", c_uint32),
        ("gets", c_uint64),
        ("hits_own_pool", c_uint64),
        ("hits_cache", c_uint64),
        ("hits_directory", c_uint64),
        ("misses", c_uint64),
        ("misses_by_reason", c_uint64 * 16),
        ("look_ups", c_uint64),
        ("keys_looked_up", c_uint64),
        ("late_places", c_uint64),
        ("reading", c_uint64),
        ("slots", c_uint64),
        ("pages", c_uint64),
        ("puts", c_uint64),
        ("put_bytes", c_uint64),
        ("puts_present", c_uint64),
        ("puts_refused", c_uint64),
        ("evictions", c_uint64),
        ("removed", c_uint64),
        ("engine_pages", c_uint64),
    ]


class Destination(ctypes.Structure):
    _fields_ = [("address", c_void_p), ("bytes", c_uint64), ("stride", c_uint64)]


class LayoutInfo(ctypes.Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("regions", c_uint32),
        ("page_bytes", c_uint64),
        ("tokens", c_uint64),
        ("fingerprint", c_uint8 * 16),
        ("fingerprint_of_any_rank", c_uint8 * 16),
        ("complete", c_uint32),
        ("synthetic", c_uint32),
    ]


class Axis(ctypes.Structure):
    _fields_ = [
        ("kind", c_uint32),
        ("spread", c_uint32),
        ("extent", c_uint64),
        ("ranks", c_uint32),
        ("rank", c_uint32),
        ("first", c_uint64),
        ("of", c_uint64),
    ]


class Level(ctypes.Structure):
    _fields_ = [("kind", c_uint32), ("axis", c_uint32), ("pad", c_uint64)]


class Field(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("element", c_uint32), ("reserved", c_uint32), ("count", c_uint64)]


class Plane(ctypes.Structure):
    _fields_ = [
        ("fields", ctypes.POINTER(Field)),
        ("field_count", c_size_t),
        ("order", ctypes.POINTER(Level)),
        ("order_count", c_size_t),
    ]


class Declaration(ctypes.Structure):
    _fields_ = [
        ("struct_bytes", c_uint32),
        ("version", c_uint32),
        ("name", c_char_p),
        ("axes", ctypes.POINTER(Axis)),
        ("axis_count", c_size_t),
        ("order", ctypes.POINTER(Level)),
        ("order_count", c_size_t),
        ("planes", ctypes.POINTER(Plane)),
        ("plane_count", c_size_t),
        ("tokens_per_state", c_uint64),
        ("align", c_uint64),
        ("bytes", c_uint64),
        ("distances", c_void_p),
        ("distance_count", c_size_t),
        ("swizzle", c_uint32),
        ("reserved", c_uint32),
    ]


STRUCTURES: dict[str, type[ctypes.Structure]] = {
    "kvrail_keys": Keys,
    "kvrail_pool": Pool,
    "kvrail_pool_region": PoolRegion,
    "kvrail_node_config": NodeConfig,
    "kvrail_page_keys": PageKeys,
    "kvrail_group_page": GroupPage,
    "kvrail_get_counts": GetCounts,
    "kvrail_put_counts": PutCounts,
    "kvrail_ended_get": EndedGet,
    "kvrail_node_stats": NodeStats,
    "kvrail_destination": Destination,
    "kvrail_layout_info": LayoutInfo,
    "kvrail_axis": Axis,
    "kvrail_level": Level,
    "kvrail_field": Field,
    "kvrail_plane": Plane,
    "kvrail_declaration": Declaration,
}

# The types of the arguments. All of these functions return a status, but for those below.
P = c_void_p
FUNCTIONS: dict[str, list[type]] = {
    "kvrail_layout_named": [c_char_p, P],
    "kvrail_layout_opaque": [c_uint64, P],
    "kvrail_layout_declare": [P, P],
    "kvrail_layout_at_rank": [P, c_uint32, c_uint32, P],
    "kvrail_layout_query": [P, P],
    "kvrail_layout_region_bytes": [P, c_uint32, P],
    "kvrail_layout_text": [P, P, c_size_t],
    "kvrail_memory_host": [P, c_uint64, P],
    "kvrail_memory_file": [c_int32, c_uint64, P, c_uint64, P],
    "kvrail_memory_release": [P],
    "kvrail_node_start": [P, P],
    "kvrail_node_close": [P],
    "kvrail_node_address": [P, P, c_size_t],
    "kvrail_node_space": [P, P, c_char_p, c_char_p, P],
    "kvrail_node_register": [P, P, P, c_size_t, c_int32, P, P],
    "kvrail_node_unregister": [P, c_uint32],
    "kvrail_node_settle": [P, c_uint32, P, c_size_t, c_uint64],
    "kvrail_node_flush": [P, c_uint64],
    "kvrail_node_clear": [P, P],
    "kvrail_node_query": [P, P],
    "kvrail_node_begin_slots": [P, c_uint32, P, c_size_t],
    "kvrail_node_publish_slots": [P, c_uint32, c_uint32, P, P, P],
    "kvrail_node_put": [P, c_uint32, P, P, P, P],
    "kvrail_node_put_places": [P, c_uint32, P, c_uint32, P, P, P],
    "kvrail_node_get": [P, c_uint32, P, c_uint32, P, c_uint64, P, P],
    "kvrail_node_get_groups": [P, P, P, c_uint64, P, P],
    "kvrail_node_begin_get_groups": [P, P, P, c_uint64, c_uint64, P],
    "kvrail_node_begin_get": [P, c_uint32, P, c_uint32, P, c_uint64, c_uint64, P],
    "kvrail_node_end_get": [P, c_uint64, c_uint64, P, c_size_t, P],
    "kvrail_node_abandon_get": [P, c_uint64],
    "kvrail_node_fd": [P, P],
    "kvrail_node_ended": [P, P, c_size_t, P],
    "kvrail_node_exists": [P, c_uint32, P, c_uint64, P, P],
    "kvrail_node_remove": [P, c_uint32, P, P],
}
OTHERS: dict[str, tuple[list[type], type]] = {
    "kvrail_last_error": ([P, c_size_t], c_size_t),
    "kvrail_abi_version": ([], c_uint32),
    "kvrail_version": ([], c_char_p),
    "kvrail_status_name": ([c_int32], c_char_p),
    "kvrail_status_meaning": ([c_int32], c_char_p),
}


def _open() -> ctypes.CDLL:
    named = os.environ.get("KVRAIL_LIBRARY")
    path = Path(named) if named else Path(__file__).with_name("libkvrail.so")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(
            f"{path} cannot be loaded: {error}. Install the wheel, or let KVRAIL_LIBRARY name libkvrail.so"
        ) from None
    for name, (arguments, result) in OTHERS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    found = library.kvrail_abi_version()
    if found != ABI_VERSION:
        raise ImportError(f"{path} has interface {found}, and this package needs {ABI_VERSION}: install both anew")
    for name, types in FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, c_int32
    return library


lib = _open()


def last_error() -> str:
    """The text of this thread's last error."""
    text = ctypes.create_string_buffer(1025)
    lib.kvrail_last_error(ctypes.addressof(text), len(text))
    return text.value.decode(errors="replace")


def check(status: int) -> None:
    """Raises the error of a status that is not 0."""
    if status:
        raise error_class(status)(status, last_error(), status_name(status))


def status_name(status: int) -> str:
    """The name of a status, such as "GetMiss::NoOwner"."""
    status = integer("status", status, *I32)
    found = lib.kvrail_status_name(status)
    return str(found.decode())


def status_meaning(status: int) -> str:
    """What a status means, and what to do about it."""
    status = integer("status", status, *I32)
    found = lib.kvrail_status_meaning(status)
    return str(found.decode())


U32 = (0, (1 << 32) - 1)
U64 = (0, (1 << 64) - 1)
I32 = (-(1 << 31), (1 << 31) - 1)
# The library's name of what it answers to a number that an argument cannot have, and its code.
_VALUE = (8004, "CapiError::Value")


def integer(name: str, value: SupportsIndex, least: int, most: int) -> int:
    """A number that C takes. ctypes takes any integer, and keeps the bits that fit."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is a {type(value).__name__}: give an integer") from None
    if not least <= number <= most:
        raise out_of_range(name, number, least, most)
    return number


def out_of_range(name: str, number: int, least: int, most: int) -> UsageError:
    """The error of a number that does not fit."""
    return UsageError(_VALUE[0], f"{name} is {number}: give {least} to {most}", _VALUE[1])


def numbers(name: str, values: Iterable[SupportsIndex]) -> array[int]:
    """Numbers of places or slots, as the library takes them. They are the call's own: while it runs,
    another thread can append to an array of the caller's, whose memory may move then."""
    if type(values) is array and values.typecode == "I":
        return values[:]
    given = values if isinstance(values, (list, tuple, range)) else list(values)
    try:
        return array("I", given)
    except (OverflowError, TypeError):
        return array("I", [integer(f"{name}[{at}]", value, *U32) for at, value in enumerate(given)])


def c_text(text: str) -> bytes:
    """A text as C takes it. C ends a text at its first zero, and would take two texts for one."""
    if "\0" in text:
        raise ValueError(f"{text!r} has a zero character in it: leave it out")
    return text.encode()


def nanoseconds(seconds: float) -> int:
    """A time in nanoseconds, of which the library takes a day at most."""
    if not seconds >= 0:
        raise ValueError(f"a timeout of {seconds} seconds: give 0 or more")
    return int(min(seconds, 86_400.0) * 1e9)
