//! Rails that cannot take device memory refuse it. The tests need no GPU: a file stands for the
//! export of a GPU's memory.
#![allow(missing_docs, reason = "tests")]
#![allow(unsafe_code, reason = "memory that other code has exported")]
#![cfg(feature = "cuda")]

mod lane;

use kvrail::core::memory::RegionError;
use kvrail::core::provider::RegisterError;
use kvrail::gpu::DeviceMemory;
use kvrail::{Config, DeviceError, Reader, ReaderTransport, shm, verbs};
use lane::{Devices, LAYOUT, said};

fn exported(pages: u64) -> DeviceMemory {
    let bytes = pages * u64::from(LAYOUT.page_bytes());
    let file = rustix::fs::memfd_create("stand-in", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, bytes).unwrap();
    // SAFETY: no code writes to it.
    unsafe { DeviceMemory::from_dmabuf(file, 0, 0x7F00_0000_0000, bytes) }.unwrap()
}

/// Checks that these rails refuse the memory and leave it free for others, and returns the refusal.
fn refusal<N: ReaderTransport>(rails: N) -> RegisterError {
    let memory = exported(4);
    let mut reader = Reader::start(LAYOUT, rails, Config::default()).unwrap();
    let error = reader.register_device(&memory).unwrap_err();
    let DeviceError::Refused(refused) = error else { panic!("{error}") };
    assert_eq!(refused.range, memory.range());
    let text = error.to_string();
    assert!(text.contains("modprobe nvidia-peermem") && text.contains("rdma-core 34"), "{text}");
    assert!(memory.claim(), "what was refused is not registered");
    assert!(matches!(reader.register_device(&memory).unwrap_err(), DeviceError::Registered));
    // Memory that is too small for a page is refused for that first.
    let error = reader.register_device(&small()).unwrap_err();
    assert!(matches!(error, DeviceError::Region(RegionError::TooSmall { .. })), "{error}");
    refused
}

fn small() -> DeviceMemory {
    let file = rustix::fs::memfd_create("stand-in", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 4096).unwrap();
    // SAFETY: no code writes to it.
    unsafe { DeviceMemory::from_dmabuf(file, 0, 0x7F00_0000_0000, 4096) }.unwrap()
}

#[test]
fn rails_without_a_nic_refuse_device_memory_and_say_what_is_needed() {
    assert_eq!(refusal(shm::rails(2).unwrap()).errno, 95);
}

#[test]
fn a_device_without_dmabufs_refuses_device_memory_and_says_what_is_needed() {
    const TEST: &str = "device memory on SoftRoCE";
    let Some(fabric) = Devices::find(TEST) else { return };
    let refused = refusal(verbs::rails(&fabric.reader).unwrap());
    if fabric.breakable {
        assert_eq!(refused.errno, 95, "rxe takes no dmabuf: {refused}");
    }
    said(&format!("{TEST}: refused with errno {}, as it must be", refused.errno));
}
