"""kvrail: pulls KV-cache pages out of a peer's memory with one-sided READs.

    layout = kvrail.Layout.opaque(131_072)
    with kvrail.Node("decode-0", transport="shm:1", key=KEY, tag_secret=SECRET,
                     directory="embedded:127.0.0.1:7700", layouts=[layout]) as node:
        space = node.space(layout, model="my-model@3")
        places = node.register(layout, [numpy_array_or_tensor])
        got = space.get_batch([b"key 0", b"key 1"], places, [0, 1], timeout=1.0)
        got.ok          # [True, True]

docs/python.md is the chapter that goes with it.
"""

from ._library import lib as _lib
from ._library import status_meaning, status_name
from .errors import Error, PlaceBusyError, StillReadingError, UnderwayError, UsageError
from .get import Get, GroupGet
from .layout import Layout
from .memory import Memory
from .node import Node, Space
from .places import Places
from .values import (
    MISS_GROUP,
    PUT_UNDERWAY,
    EnginePool,
    EngineRegion,
    Found,
    Got,
    GotGroups,
    GroupPage,
    Pool,
    PutResult,
    Statistics,
)

__version__ = "0.1.0"
library_version: str = _lib.kvrail_version().decode()

__all__ = [
    "MISS_GROUP",
    "PUT_UNDERWAY",
    "EnginePool",
    "EngineRegion",
    "Error",
    "Found",
    "Get",
    "Got",
    "GotGroups",
    "GroupGet",
    "GroupPage",
    "Layout",
    "Memory",
    "Node",
    "PlaceBusyError",
    "Places",
    "Pool",
    "PutResult",
    "Space",
    "Statistics",
    "StillReadingError",
    "UnderwayError",
    "UsageError",
    "library_version",
    "status_meaning",
    "status_name",
]
