"""A node that has pages which the tests get: a process of its own, to be killed and stopped.

Its standard input is a line of JSON that describes it; it prints a line with its address when its pages are there. After
a line "churn" it clears its pool and stores the pages again, over and over.
"""

from __future__ import annotations

import json
import select
import sys
from typing import Any

import kvrail


def page_bytes(key: str, length: int) -> bytes:
    """The page of a key: bytes that no other key has."""
    digest = bytes.fromhex(key)
    return (digest * (length // len(digest) + 1))[:length]


def main() -> None:
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    declared = given["layout"]
    layout = kvrail.Layout.declare(
        declared["name"],
        [{declared["field"]: ("u8", declared["bytes"])}],
        axes={"block": declared["objects"]},
        order=["regions(block)"],
    )
    keys: list[str] = given["keys"]
    pool = kvrail.Pool(layout, given.get("slots", len(keys)))
    with kvrail.Node("producer", pools=[pool], **given["node"]) as node:
        space = node.space(layout, given["model"], given["shape"])
        encoded = [key.encode() for key in keys]
        pages = [page_bytes(key, layout.page_bytes) for key in keys]
        space.put_batch(encoded, pages)
        node.flush(10)
        print("ready", node.address, flush=True)
        if sys.stdin.readline().strip() == "churn":
            order = 0
            while not select.select([sys.stdin], [], [], 0)[0]:
                node.clear()
                # Pages come back in other slots.
                order = (order + 1) % len(keys)
                space.put_batch(encoded[order:] + encoded[:order], pages[order:] + pages[:order])


if __name__ == "__main__":
    main()
