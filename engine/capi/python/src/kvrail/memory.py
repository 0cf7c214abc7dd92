"""Addresses of memory that other packages own, without a copy: by the buffer protocol, or by DLPack."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_int32, c_int64, c_ssize_t, c_uint8, c_uint16, c_uint64, c_void_p
from typing import Any

from ._library import U64, integer


class _PyBuffer(ctypes.Structure):
    _fields_ = [
        ("buf", c_void_p),
        ("obj", c_void_p),
        ("len", c_ssize_t),
        ("itemsize", c_ssize_t),
        ("readonly", c_int),
        ("ndim", c_int),
        ("format", c_char_p),
        ("shape", c_void_p),
        ("strides", c_void_p),
        ("suboffsets", c_void_p),
        ("internal", c_void_p),
    ]


class _DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", ctypes.POINTER(c_int64)),
        ("strides", ctypes.POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


_WRITABLE = 0x1
_C_CONTIGUOUS = 0x38
# DLPack's numbers of memory that the CPU reads and writes: its own, and pinned for CUDA or ROCm.
_HOST = {1: "cpu", 3: "cuda_host", 11: "rocm_host"}

_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes, _get_buffer.restype = [ctypes.py_object, c_void_p, c_int], c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes, _release_buffer.restype = [c_void_p], None
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.argtypes, _capsule_pointer.restype = [ctypes.py_object, c_char_p], c_void_p


class Memory:
    """Bytes at an address, which stay as long as this object does.

    `Memory.of(object)` takes numpy arrays, bytearrays, memoryviews and mmaps by the buffer protocol,
    and torch tensors by DLPack. The bytes are contiguous. `Memory(address, nbytes, owner)` names
    memory that the caller knows to be there.
    """

    __slots__ = ("address", "nbytes", "writable", "_owner", "_buffer")

    def __init__(self, address: int, nbytes: int, owner: object = None) -> None:
        address, nbytes = integer("address", address, *U64), integer("nbytes", nbytes, *U64)
        if address == 0 or nbytes == 0 or address + nbytes > U64[1]:
            raise ValueError(f"{nbytes} bytes at address {address:#x} are no memory")
        self.address, self.nbytes, self._owner = address, nbytes, owner
        self.writable = True
        self._buffer: _PyBuffer | None = None

    @classmethod
    def of(cls, source: Any, *, writable: bool = True) -> Memory:
        """The memory of `source`. Raises ValueError, with the reason, if it has none that fits."""
        if isinstance(source, Memory):
            if writable and not source.writable:
                raise ValueError(f"{source!r} must be writable: it was made of bytes that are not")
            return source
        try:
            return cls._of_buffer(source, writable)
        except TypeError:
            if not hasattr(source, "__dlpack__"):
                raise
        return cls._of_dlpack(source)

    @classmethod
    def _of_buffer(cls, source: Any, writable: bool) -> Memory:
        buffer = _PyBuffer()
        flags = _C_CONTIGUOUS | (_WRITABLE if writable else 0)
        try:
            _get_buffer(source, ctypes.byref(buffer), flags)
        except (BufferError, ValueError) as error:
            wanted = "contiguous and writable" if writable else "contiguous"
            raise ValueError(f"the bytes of a {type(source).__name__} must be {wanted}: {error}") from None
        try:
            memory = cls(buffer.buf or 0, buffer.len, source)
        except ValueError:
            _release_buffer(ctypes.byref(buffer))
            raise
        # While it is not released, a bytearray cannot be resized, and an mmap not closed.
        memory._buffer, memory.writable = buffer, not buffer.readonly
        return memory

    @classmethod
    def _of_dlpack(cls, source: Any) -> Memory:
        device = int(source.__dlpack_device__()[0])
        if device not in _HOST:
            raise ValueError(
                f"a {type(source).__name__} on DLPack device {device}: this package registers memory of the host "
                "(1), also pinned (3, 11); copy it there, or use the C interface for a GPU"
            )
        capsule = source.__dlpack__()
        pointer = _capsule_pointer(capsule, b"dltensor")
        tensor = ctypes.cast(pointer, ctypes.POINTER(_DLTensor)).contents
        shape = [tensor.shape[axis] for axis in range(tensor.ndim)]
        expected = 1
        if tensor.strides:
            for axis in reversed(range(tensor.ndim)):
                if shape[axis] != 1 and tensor.strides[axis] != expected:
                    raise ValueError(f"a {type(source).__name__} of shape {shape} is not contiguous: call contiguous()")
                expected *= shape[axis]
        count = 1
        for extent in shape:
            count *= extent
        nbytes = count * tensor.bits * tensor.lanes // 8
        # The capsule is the tensor's right to its memory.
        return cls((tensor.data or 0) + tensor.byte_offset, nbytes, (source, capsule))

    def __del__(self) -> None:
        buffer = getattr(self, "_buffer", None)
        if buffer is not None:
            _release_buffer(ctypes.byref(buffer))
            self._buffer = None

    def __repr__(self) -> str:
        return f"Memory({self.address:#x}, {self.nbytes})"
