"""The structures and functions of this package are those of kvrail.h."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from kvrail import MISS_GROUP, PUT_UNDERWAY, _library, layout

HEADER = Path(__file__).resolve().parents[2] / "include" / "kvrail.h"
SIZES = {"uint32_t": 4, "int32_t": 4, "uint64_t": 8, "size_t": 8, "uint8_t": 1}


def header() -> str:
    return re.sub(r"//.*", "", HEADER.read_text())


@pytest.mark.parametrize("name", _library.STRUCTURES)
def test_a_structure_has_the_fields_of_the_header(name: str) -> None:
    body = re.search(rf"typedef struct {name} {{(.*?)}} {name};", header(), re.S)
    assert body, name
    there = []
    for declared in filter(None, (line.strip() for line in body[1].split(";"))):
        kind, field, many = re.fullmatch(r"(.*?[\s*])(\w+)(?:\[(\d+)\])?", declared, re.S).groups()  # type: ignore[union-attr]
        bytes_each = 8 if "*" in kind or "kvrail_" in kind else SIZES[kind.replace("const", "").strip()]
        there.append((field, bytes_each * int(many or 1)))
    here = [(field, ctypes.sizeof(kind)) for field, kind in _library.STRUCTURES[name]._fields_]
    assert here == there


@pytest.mark.parametrize("name", [*_library.FUNCTIONS, *_library.OTHERS])
def test_a_function_has_the_arguments_of_the_header(name: str) -> None:
    declared = re.search(rf"([\w\s*]*?)\b{name}\(([^)]*)\);", header())
    assert declared, name
    given = _library.FUNCTIONS.get(name) or _library.OTHERS.get(name, ([], None))[0]
    arguments = [text.strip() for text in declared[2].split(",") if text.strip() not in ("", "void")]
    assert len(arguments) == len(given)
    for text, kind in zip(arguments, given):
        assert ctypes.sizeof(kind) == (8 if "*" in text else SIZES[text.split()[0]]), text


def test_constants_are_those_of_the_header() -> None:
    text = header()

    def constant(name: str) -> int:
        found = re.search(rf"#define KVRAIL_{name} (\d+)", text)
        assert found, name
        return int(found[1])

    assert constant("ABI_VERSION") == _library.ABI_VERSION
    for name, number in layout.ELEMENTS.items():
        assert constant(f"ELEMENT_{name.upper()}") == number
    for name, number in layout.AXES.items():
        assert constant(f"AXIS_{name.upper()}") == number
    assert constant("LEVEL_REGIONS") == layout._LEVEL_REGIONS
    assert constant("LEVEL_REGION_PLANES") == layout._LEVEL_REGION_PLANES
    assert constant("PUT_UNDERWAY") == PUT_UNDERWAY
    assert constant("MISS_GROUP") == MISS_GROUP
    assert constant("ERROR_UNDERWAY") == 8055 and constant("ERROR_PLACE_BUSY") == 8052
