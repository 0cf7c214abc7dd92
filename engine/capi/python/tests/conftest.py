from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

import kvrail

KEY = "5a" * 32
SECRET = "7b" * 32
PAGE = 8192
_names = itertools.count()


class Nodes:
    """Nodes of one group, which the first one's directory serves. All are closed after the test."""

    def __init__(self) -> None:
        self.open: list[kvrail.Node] = []
        self.directory = "embedded"

    def start(self, **options: object) -> kvrail.Node:
        given = {"transport": "shm:1", "key": KEY, "tag_secret": SECRET, "directory": self.directory, **options}
        node = kvrail.Node(f"test-{next(_names)}", **given)  # type: ignore[arg-type]
        if self.directory == "embedded" and node.address:
            self.directory = f"embedded:{node.address}"
        self.open.append(node)
        return node


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    for node in reversed(nodes.open):
        node.close()


@pytest.fixture
def layout() -> kvrail.Layout:
    return kvrail.Layout.opaque(PAGE)
