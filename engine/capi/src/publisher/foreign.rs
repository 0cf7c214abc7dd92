//! Memory of the caller's that a publisher publishes.
#![allow(unsafe_code, reason = "foreign memory, on the caller's word")]

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use engine::ForeignMemory;
use engine::core::provider::MemoryRange;

use crate::abi::publisher_types::kvrail_memory;
use crate::error::CapiError;
use crate::registry::Registry;

static MEMORIES: Registry<ForeignMemory> = Registry::new("memory");

/// How a transport may reach memory, besides its address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Host,
    File { fd: RawFd, offset: u64 },
    Dmabuf { fd: RawFd, offset: u64 },
}

/// A handle of the memory of `bytes` bytes from `address` on.
///
/// # Safety
///
/// The promise of [`ForeignMemory`]; the descriptor of `way`, if it has one, is the caller's, and
/// stays open during the call.
pub(crate) unsafe fn memory(address: u64, bytes: u64, way: Way) -> Result<*mut kvrail_memory, CapiError> {
    let range = MemoryRange { addr: address, len: bytes };
    if bytes == 0 {
        return Err(CapiError::Value { what: "bytes", value: 0, allowed: "1 or more" });
    }
    if address == 0 && !matches!(way, Way::Dmabuf { .. }) {
        return Err(CapiError::Null { what: "address" });
    }
    if address.checked_add(bytes).is_none() {
        return Err(CapiError::Value { what: "bytes", value: bytes, allowed: "memory that ends below 2^64" });
    }
    let memory = match way {
        // SAFETY: the caller's promise is the same.
        Way::Host => unsafe { ForeignMemory::host(range) },
        Way::File { fd, offset } => {
            // SAFETY: as this function asks for.
            let file = unsafe { own(fd) }?;
            // SAFETY: the caller's promise is the same.
            unsafe { ForeignMemory::file(file, offset, range) }
        }
        Way::Dmabuf { fd, offset } => {
            // SAFETY: as this function asks for.
            let file = unsafe { own(fd) }?;
            // SAFETY: the caller's promise is the same.
            unsafe { ForeignMemory::dmabuf(file, offset, range) }
        }
    };
    MEMORIES.open(memory)
}

/// A duplicate of a descriptor of the caller's.
///
/// # Safety
///
/// If `fd` is not negative, it stays open during the call; one that is not open is an error.
unsafe fn own(fd: RawFd) -> Result<OwnedFd, CapiError> {
    if fd < 0 {
        return Err(CapiError::Value { what: "fd", value: 0, allowed: "a descriptor that is open" });
    }
    // SAFETY: it is not -1, and is used in this call alone.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    borrowed.try_clone_to_owned().map_err(CapiError::Descriptor)
}

/// The memory of a handle.
pub(crate) fn of_handle(handle: *const kvrail_memory) -> Result<ForeignMemory, CapiError> {
    Ok((*MEMORIES.get(handle)?).clone())
}

/// Gives a handle back. Publishers that have pools in the memory keep their own.
pub(crate) fn release(handle: *const kvrail_memory) -> Result<(), CapiError> {
    MEMORIES.close(handle).map(drop)
}
