"""Layouts: which byte of a page is what."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import c_uint64, c_void_p

from . import _library
from ._library import U32, U64, c_text, check, integer, lib

ELEMENTS = {"u8": 1, "i8": 2, "f32": 3, "f16": 4, "bf16": 5, "e4m3": 6, "e5m2": 7, "ue8m0": 8, "fp4x2": 9}
AXES = {"layer": 1, "token": 2, "part": 3, "head": 4, "block": 5}
_LEVEL_AXIS, _LEVEL_REGIONS, _LEVEL_PLANES, _LEVEL_REGION_PLANES = 1, 3, 4, 6


class Layout:
    """A layout of pages. It lives as long as the process, and equal declarations are equal."""

    __slots__ = (
        "handle", "page_bytes", "regions", "region_bytes", "tokens", "fingerprint", "complete", "synthetic"
    )

    def __init__(self, handle: int) -> None:
        info = _library.LayoutInfo(struct_bytes=ctypes.sizeof(_library.LayoutInfo))
        check(lib.kvrail_layout_query(handle, ctypes.addressof(info)))
        self.handle = handle
        self.page_bytes = int(info.page_bytes)
        self.regions = int(info.regions)
        self.region_bytes = tuple(_region_bytes(handle, region) for region in range(self.regions))
        self.tokens = int(info.tokens)
        self.fingerprint = bytes(info.fingerprint)
        self.complete = bool(info.complete)
        self.synthetic = bool(info.synthetic)

    @classmethod
    def named(cls, name: str) -> Layout:
        """A layout of the catalogue (docs/layouts.md)."""
        handle = c_void_p()
        check(lib.kvrail_layout_named(c_text(name), ctypes.addressof(handle)))
        return cls(handle.value or 0)

    @classmethod
    def opaque(cls, page_bytes: int) -> Layout:
        """Pages of so many bytes without structure: for measuring."""
        handle = c_void_p()
        page_bytes = integer("page_bytes", page_bytes, *U64)
        check(lib.kvrail_layout_opaque(page_bytes, ctypes.addressof(handle)))
        return cls(handle.value or 0)

    @classmethod
    def declare(
        cls,
        name: str,
        planes: Sequence[Mapping[str, tuple[str, int]]],
        *,
        axes: Mapping[str, int] | None = None,
        order: Sequence[str] = (),
        page_bytes: int = 0,
        version: int = 0,
    ) -> Layout:
        """A layout of your own.

        Each plane maps the names of its fields to (element, number): the bytes of one row. `axes`
        maps "layer", "token", "part", "head" and "block" to extents. `order` lists the levels from
        the outside in: the name of an axis, "regions(layer)" for a region for each index of it,
        "planes", or "regions(planes)" for a region for each plane. The model is that of
        docs/layouts.md. `page_bytes` is checked, unless it is 0.
        """
        extents = dict(axes or {})
        levels = (_library.Level * max(len(order), 1))()
        for level, text in zip(levels, order):
            inner = text[8:-1] if text.startswith("regions(") and text.endswith(")") else None
            if text == "planes":
                level.kind = _LEVEL_PLANES
            elif inner == "planes":
                level.kind = _LEVEL_REGION_PLANES
            else:
                axis = inner or text
                if axis not in AXES:
                    raise ValueError(f"{text!r} is no level: give planes, or one of {', '.join(AXES)}")
                level.kind, level.axis = (_LEVEL_REGIONS if inner else _LEVEL_AXIS), AXES[axis]
        unknown = [axis for axis in extents if axis not in AXES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no axis: give one of {', '.join(AXES)}")
        given_axes = (_library.Axis * max(len(extents), 1))()
        for into, (axis, extent) in zip(given_axes, extents.items()):
            into.kind, into.extent = AXES[axis], integer(f"axes[{axis!r}]", extent, *U64)
        given_planes = (_library.Plane * max(len(planes), 1))()
        kept: list[object] = []
        for plane, fields in zip(given_planes, planes):
            rows = (_library.Field * max(len(fields), 1))()
            for row, (field, (element, count)) in zip(rows, fields.items()):
                if element not in ELEMENTS:
                    raise ValueError(f"{element!r} is no element: give one of {', '.join(ELEMENTS)}")
                row.name, row.element = c_text(field), ELEMENTS[element]
                row.count = integer(f"the number of elements of {field!r}", count, *U64)
            kept.append(rows)
            plane.fields, plane.field_count = rows, len(fields)
        declaration = _library.Declaration(
            struct_bytes=ctypes.sizeof(_library.Declaration),
            version=integer("version", version, *U32),
            name=c_text(name),
            axes=given_axes,
            axis_count=len(extents),
            order=levels,
            order_count=len(order),
            planes=given_planes,
            plane_count=len(planes),
            bytes=integer("page_bytes", page_bytes, *U64),
        )
        handle = c_void_p()
        check(lib.kvrail_layout_declare(ctypes.addressof(declaration), ctypes.addressof(handle)))
        return cls(handle.value or 0)

    def at_rank(self, axis: str, rank: int) -> Layout:
        """The same layout as a rank holds it, where the declaration leaves the rank open."""
        if axis not in AXES:
            raise ValueError(f"{axis!r} is no axis: give one of {', '.join(AXES)}")
        handle, rank = c_void_p(), integer("rank", rank, *U32)
        check(lib.kvrail_layout_at_rank(self.handle, AXES[axis], rank, ctypes.addressof(handle)))
        return Layout(handle.value or 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and other.handle == self.handle

    def __hash__(self) -> int:
        return hash(self.handle)

    def __str__(self) -> str:
        text = ctypes.create_string_buffer(4096)
        check(lib.kvrail_layout_text(self.handle, ctypes.addressof(text), len(text)))
        return text.value.decode()

    def __repr__(self) -> str:
        return f"<kvrail.Layout {self.page_bytes} bytes, {self.regions} regions, {self.fingerprint.hex()}>"


def _region_bytes(handle: int, region: int) -> int:
    found = c_uint64()
    check(lib.kvrail_layout_region_bytes(handle, region, ctypes.addressof(found)))
    return found.value
