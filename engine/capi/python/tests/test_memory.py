"""Memory of other packages, without a copy."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest

from kvrail import Memory


def test_buffers_have_their_own_addresses() -> None:
    array = np.arange(100, dtype=np.int16)
    memory = Memory.of(array)
    assert (memory.address, memory.nbytes) == (array.ctypes.data, 200)
    assert Memory.of(array[10:]).address == array.ctypes.data + 20
    assert Memory.of(memory) is memory
    assert Memory.of(b"read only", writable=False).nbytes == 9
    with mmap.mmap(-1, 8192) as mapped:
        found = Memory.of(mapped)
        mapped[:5] = b"hello"
        assert ctypes.string_at(found.address, 5) == b"hello"
        with pytest.raises(BufferError):
            mapped.close()
        del found
    kept = bytearray(10)
    holder = Memory.of(kept)
    with pytest.raises(BufferError):
        kept.extend(b"more")
    del holder
    kept.extend(b"more")


def test_memory_that_does_not_fit_is_refused() -> None:
    array = np.zeros((4, 4), np.uint8)
    with pytest.raises(ValueError, match="contiguous"):
        Memory.of(array[:, 1])
    with pytest.raises(ValueError, match="writable"):
        Memory.of(b"read only")
    with pytest.raises(ValueError, match="writable"):
        Memory.of(Memory.of(b"read only", writable=False))
    assert Memory.of(Memory.of(array, writable=False)).nbytes == 16
    array.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        Memory.of(array)
    with pytest.raises(TypeError):
        Memory.of(3.5)
    with pytest.raises(ValueError):
        Memory(0, 10)
    with pytest.raises(ValueError):
        Memory.of(bytearray())


class Tensor:
    """What DLPack asks of a tensor, over an array of numpy, without the buffer protocol."""

    def __init__(self, array: np.ndarray, device: int = 1) -> None:  # type: ignore[type-arg]
        self.array, self.device = array, device

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


def test_tensors_come_by_dlpack() -> None:
    array = np.zeros((3, 5), np.float32)
    memory = Memory.of(Tensor(array))
    assert (memory.address, memory.nbytes) == (array.ctypes.data, 60)
    assert Memory.of(Tensor(array[1:])).address == array.ctypes.data + 20
    with pytest.raises(ValueError, match="contiguous"):
        Memory.of(Tensor(array[:, :2]))
    with pytest.raises(ValueError, match="device 2"):
        Memory.of(Tensor(array, device=2))
