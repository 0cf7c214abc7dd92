//! Device memory against a stand-in for the driver: missing drivers, refusals, and which pages are
//! exported.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::path::Path;

use super::cuda::{
    ATTRIBUTE_DMA_BUF_SUPPORTED, ATTRIBUTE_WRITES_ORDERING, Api, HANDLE_DMA_BUF_FD, MEMORY_TYPE_DEVICE,
    POINTER_CONTEXT, POINTER_DEVICE_ORDINAL, POINTER_MEMORY_TYPE, POINTER_SYNC_MEMOPS,
};
use super::*;

/// The stand-in's answers, and the calls that it got.
#[derive(Clone, Debug)]
struct Driver {
    /// The ordering of a NIC's writes; `None`: the driver does not know the attribute.
    ordering: Option<c_int>,
    dmabuf: c_int,
    refuse_export: c_int,
    /// The one allocation.
    base: u64,
    size: usize,
    kind: c_uint,
    exported: Vec<(u64, usize)>,
    synchronised: Vec<u64>,
    freed: Vec<u64>,
    contexts: i32,
    /// Calls that came without a context.
    outside: u32,
}

const DRIVER: Driver = Driver {
    ordering: Some(100),
    dmabuf: 1,
    refuse_export: 0,
    base: 0x7F00_0000_0000,
    size: 1 << 20,
    kind: MEMORY_TYPE_DEVICE,
    exported: Vec::new(),
    synchronised: Vec::new(),
    freed: Vec::new(),
    contexts: 0,
    outside: 0,
};

thread_local! {
    static IT: RefCell<Driver> = const { RefCell::new(DRIVER) };
}

fn with<T>(work: impl FnOnce(&mut Driver) -> T) -> T {
    IT.with_borrow_mut(work)
}

/// Counts a call that the real driver allows only in a context.
fn in_context() {
    with(|d| d.outside += u32::from(d.contexts == 0));
}

unsafe extern "C" fn init(_: c_uint) -> c_int {
    0
}
unsafe extern "C" fn error_name(code: c_int, name: *mut *const c_char) -> c_int {
    if code != 801 {
        return 1;
    }
    // SAFETY: the caller's pointer, to be written.
    unsafe { *name = c"CUDA_ERROR_NOT_SUPPORTED".as_ptr() };
    0
}
unsafe extern "C" fn device_count(count: *mut c_int) -> c_int {
    // SAFETY: as above.
    unsafe { *count = 2 };
    0
}
unsafe extern "C" fn device_get(device: *mut c_int, ordinal: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { *device = ordinal };
    0
}
unsafe extern "C" fn device_attribute(value: *mut c_int, attribute: c_int, _: c_int) -> c_int {
    let told = match attribute {
        ATTRIBUTE_DMA_BUF_SUPPORTED => Some(with(|d| d.dmabuf)),
        ATTRIBUTE_WRITES_ORDERING => with(|d| d.ordering),
        other => panic!("attribute {other}"),
    };
    let Some(told) = told else { return 1 };
    // SAFETY: as above.
    unsafe { *value = told };
    0
}
unsafe extern "C" fn device_pci(_: *mut c_char, _: c_int, _: c_int) -> c_int {
    101
}
unsafe extern "C" fn context_retain(context: *mut *mut c_void, _: c_int) -> c_int {
    // SAFETY: as above.
    unsafe { *context = std::ptr::without_provenance_mut(0xC0) };
    0
}
unsafe extern "C" fn context_push(context: *mut c_void) -> c_int {
    assert_eq!(context.addr(), 0xC0);
    with(|d| d.contexts += 1);
    0
}
unsafe extern "C" fn context_pop(_: *mut *mut c_void) -> c_int {
    with(|d| d.contexts -= 1);
    0
}
unsafe extern "C" fn alloc(addr: *mut u64, len: usize) -> c_int {
    in_context();
    // SAFETY: as above.
    unsafe { *addr = with(|d| d.base) };
    with(|d| d.size = len);
    0
}
unsafe extern "C" fn free(addr: u64) -> c_int {
    in_context();
    with(|d| d.freed.push(addr));
    0
}
unsafe extern "C" fn set(_: u64, _: u8, _: usize) -> c_int {
    in_context();
    0
}
unsafe extern "C" fn copy_out(to: *mut c_void, addr: u64, len: usize) -> c_int {
    in_context();
    // SAFETY: the caller's buffer of `len` bytes.
    unsafe { to.cast::<u8>().write_bytes(addr as u8, len) };
    0
}
unsafe extern "C" fn copy_in(_: u64, _: *const c_void, _: usize) -> c_int {
    in_context();
    0
}
unsafe extern "C" fn address_range(base: *mut u64, size: *mut usize, _: u64) -> c_int {
    in_context();
    // SAFETY: as above.
    unsafe { *base = with(|d| d.base) };
    // SAFETY: as above.
    unsafe { *size = with(|d| d.size) };
    0
}
unsafe extern "C" fn pointer_get(value: *mut c_void, attribute: c_int, addr: u64) -> c_int {
    let (base, size, kind) = with(|d| (d.base, d.size as u64, d.kind));
    if !(base..base + size).contains(&addr) {
        return 1;
    }
    match attribute {
        // SAFETY: the caller's unsigned int.
        POINTER_MEMORY_TYPE => unsafe { value.cast::<c_uint>().write(kind) },
        // SAFETY: the caller's int.
        POINTER_DEVICE_ORDINAL => unsafe { value.cast::<c_int>().write(1) },
        // SAFETY: the caller's pointer. Null, as memory of the virtual memory interface has it.
        POINTER_CONTEXT => unsafe { value.cast::<*mut c_void>().write(std::ptr::null_mut()) },
        other => panic!("attribute {other}"),
    }
    0
}
unsafe extern "C" fn pointer_set(_: *const c_void, attribute: c_int, addr: u64) -> c_int {
    assert_eq!(attribute, POINTER_SYNC_MEMOPS);
    with(|d| d.synchronised.push(addr));
    0
}
unsafe extern "C" fn range_handle(fd: *mut c_void, addr: u64, len: usize, kind: c_int, flags: u64) -> c_int {
    in_context();
    assert_eq!((kind, flags), (HANDLE_DMA_BUF_FD, 0));
    let refuse = with(|d| {
        d.exported.push((addr, len));
        d.refuse_export
    });
    if refuse == 0 {
        let file = rustix::fs::memfd_create("stand-in", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        // SAFETY: the caller's int.
        unsafe { fd.cast::<c_int>().write(file.into_raw_fd()) };
    }
    refuse
}

const API: Api = Api {
    init,
    error_name,
    device_count,
    device_get,
    device_attribute,
    device_pci,
    context_retain,
    context_push,
    context_pop,
    alloc,
    free,
    set,
    copy_out,
    copy_in,
    address_range,
    pointer_get,
    pointer_set,
    range_handle: Some(range_handle),
};

fn loaded() -> &'static Path {
    Path::new("/")
}
fn not_loaded() -> &'static Path {
    Path::new("/nonexistent/nvidia_peermem")
}
fn cuda() -> Cuda {
    Cuda::fake(API).unwrap()
}
fn raw(addr: u64, len: u64, peermem: &Path) -> Result<DeviceMemory, GpuError> {
    DeviceMemory::from_raw_with(cuda(), peermem, addr, len)
}

#[test]
fn without_a_driver_the_error_says_what_brings_one() {
    let error = Cuda::open("libkvrail-has-no-such-driver.so.1").unwrap_err();
    assert!(matches!(error, GpuError::NoLibrary { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("libkvrail-has-no-such-driver.so.1") && text.contains("NVIDIA's driver"), "{text}");
    // Another library under the driver's name.
    let error = Cuda::open("libc.so.6").unwrap_err();
    assert!(matches!(error, GpuError::OldLibrary { symbol: "cuInit" }), "{error}");
}

#[test]
fn whole_host_pages_are_exported_and_the_offset_leads_to_the_range() {
    let page = host_page();
    let memory = raw(DRIVER.base + page + 512, 2 * page, not_loaded()).unwrap();
    assert_eq!(with(|d| d.exported.clone()), [(DRIVER.base + page, 3 * page as usize)]);
    assert_eq!(memory.dmabuf().unwrap().offset, 512);
    assert_eq!(memory.range(), MemoryRange { addr: DRIVER.base + page + 512, len: 2 * page });
    assert_eq!(with(|d| d.synchronised.clone()), [DRIVER.base + page + 512]);
    drop(memory);
    assert!(with(|d| d.freed.is_empty()), "other code's memory");
    assert_eq!(with(|d| (d.contexts, d.outside)), (0, 0), "every call in a context, none left behind");
}

#[test]
fn an_allocation_of_our_own_lives_as_long_as_its_last_handle() {
    let memory = DeviceMemory::allocate_with(cuda(), not_loaded(), 1, 10_000).unwrap();
    let other = memory.clone();
    assert!(memory.claim() && !other.claim(), "one registration at a time");
    other.release();
    assert!(memory.claim());
    drop(memory);
    assert!(with(|d| d.freed.is_empty()));
    drop(other);
    assert_eq!(with(|d| d.freed.clone()), [DRIVER.base]);
    assert_eq!(with(|d| (d.contexts, d.outside)), (0, 0));

    let error = DeviceMemory::allocate_with(cuda(), not_loaded(), 2, 1).unwrap_err();
    assert!(matches!(error, GpuError::NoDevice { ordinal: 2, count: 2 }), "{error}");
    assert!(matches!(
        DeviceMemory::allocate_with(cuda(), not_loaded(), 0, 0).unwrap_err(),
        GpuError::Range { len: 0, .. }
    ));
}

#[test]
fn memory_that_cannot_be_exported_is_peer_memory_or_is_refused_with_what_is_missing() {
    // The attribute says no.
    with(|d| d.dmabuf = 0);
    let memory = raw(DRIVER.base, 4096, loaded()).unwrap();
    assert!(memory.dmabuf().is_none() && memory.is_peer_memory());
    let text = raw(DRIVER.base, 4096, not_loaded()).unwrap_err().to_string();
    for word in ["GPU 1", "DMA_BUF_SUPPORTED is 0", "modprobe nvidia-peermem", "open kernel modules"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(with(|d| d.exported.is_empty()), "nothing is tried that the driver denies");

    // The attribute says yes, the export no.
    with(|d| (d.dmabuf, d.refuse_export) = (1, 801));
    assert!(raw(DRIVER.base, 4096, loaded()).unwrap().dmabuf().is_none());
    let text = raw(DRIVER.base, 4096, not_loaded()).unwrap_err().to_string();
    assert!(text.contains("CUDA_ERROR_NOT_SUPPORTED (801)"), "{text}");
    with(|d| d.refuse_export = 999);
    let text = raw(DRIVER.base, 4096, not_loaded()).unwrap_err().to_string();
    assert!(text.contains("unknown to this driver (999)"), "{text}");

    // The driver is older than the call.
    let old = Cuda::fake(Api { range_handle: None, ..API }).unwrap();
    let error = DeviceMemory::from_raw_with(old, not_loaded(), DRIVER.base, 4096).unwrap_err();
    assert!(error.to_string().contains("older than CUDA 11.7"), "{error}");
}

#[test]
fn a_gpu_that_does_not_order_a_nics_writes_is_refused() {
    for ordering in [Some(100), Some(200)] {
        with(|d| d.ordering = ordering);
        assert!(raw(DRIVER.base, 4096, not_loaded()).is_ok(), "{ordering:?}");
    }
    with(|d| d.exported.clear());
    for (ordering, says) in
        [(Some(0), "WRITES_ORDERING is 0"), (Some(99), "is 99"), (None, "CUDA 11.3 or later")]
    {
        with(|d| d.ordering = ordering);
        // By dmabuf and by peer memory alike.
        for peermem in [loaded(), not_loaded()] {
            let error = raw(DRIVER.base, 4096, peermem).unwrap_err();
            assert!(matches!(error, GpuError::Unordered { ordinal: 1, .. }), "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
        let error = DeviceMemory::allocate_with(cuda(), loaded(), 1, 4096).unwrap_err();
        assert!(matches!(error, GpuError::Unordered { .. }), "{error}");
    }
    assert!(with(|d| d.exported.is_empty()), "nothing is exported that would not be read into");
    assert_eq!(with(|d| d.freed.clone()), [DRIVER.base; 3], "allocations of our own are not kept");
}

#[test]
fn an_allocation_that_cannot_be_handed_over_is_not_kept() {
    with(|d| d.dmabuf = 0);
    let error = DeviceMemory::allocate_with(cuda(), not_loaded(), 0, 4096).unwrap_err();
    assert!(matches!(error, GpuError::NoWay { .. }), "{error}");
    assert_eq!(with(|d| d.freed.clone()), [DRIVER.base]);
}

#[test]
fn a_range_outside_of_one_allocation_is_refused() {
    let (base, size) = (DRIVER.base, DRIVER.size as u64);
    assert!(raw(base, size, not_loaded()).is_ok());
    let error = raw(base + 1, size, not_loaded()).unwrap_err();
    assert!(matches!(error, GpuError::Allocation { .. }), "{error}");
    assert!(error.to_string().contains("1048576 bytes"), "{error}");
    let error = raw(0x1000, 1, not_loaded()).unwrap_err();
    assert!(matches!(error, GpuError::NotDevice { kind: 0, .. }), "{error}");
    with(|d| d.kind = 1);
    let error = raw(base, 1, not_loaded()).unwrap_err();
    assert!(matches!(error, GpuError::NotDevice { kind: 1, .. }), "pinned host memory: {error}");
    assert!(matches!(raw(base, 0, not_loaded()).unwrap_err(), GpuError::Range { .. }));
    assert!(matches!(raw(u64::MAX, 2, not_loaded()).unwrap_err(), GpuError::Range { .. }));
}

#[test]
fn copies_outside_of_the_memory_are_refused() {
    let memory = raw(DRIVER.base + 100, 1000, not_loaded()).unwrap();
    let mut bytes = [0_u8; 10];
    memory.copy_to_host(DRIVER.base + 100 + 990, &mut bytes).unwrap();
    assert_eq!(bytes, [(DRIVER.base + 100 + 990) as u8; 10]);
    memory.copy_from_host(DRIVER.base + 100, &bytes).unwrap();
    memory.fill(7).unwrap();
    for addr in [DRIVER.base + 99, DRIVER.base + 100 + 991, 0, u64::MAX] {
        let error = memory.copy_to_host(addr, &mut bytes).unwrap_err();
        assert!(matches!(error, GpuError::Outside { len: 10, .. }), "{addr:#x}: {error}");
    }
}

fn file(bytes: u64) -> OwnedFd {
    let file = rustix::fs::memfd_create("stand-in", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, bytes).unwrap();
    file
}

#[test]
fn a_dmabuf_of_other_code_is_measured_and_must_be_congruent() {
    let page = host_page();
    let take = |offset, iova, len| {
        // SAFETY: it is never registered.
        unsafe { DeviceMemory::from_dmabuf(file(4 * page), offset, iova, len) }
    };
    let memory = take(page + 8, 0x7F00_0000_0000 + 8, 3 * page - 8).unwrap();
    assert_eq!(memory.dmabuf().unwrap().offset, page + 8);
    assert!(!memory.is_peer_memory());
    assert!(matches!(memory.fill(0).unwrap_err(), GpuError::NotCudas));
    let error = take(page + 8, 0x7F00_0000_0000, 1).unwrap_err();
    assert!(matches!(error, GpuError::Congruence { .. }), "{error}");
    let error = take(page + 8, 0x7F00_0000_0000 + 8, 3 * page - 7).unwrap_err();
    assert!(matches!(error, GpuError::BeyondDmaBuf { .. }), "{error}");
    assert!(matches!(take(0, 0, 0).unwrap_err(), GpuError::Range { .. }));
    assert!(matches!(take(u64::MAX - page + 1, 0, page).unwrap_err(), GpuError::BeyondDmaBuf { .. }));
    // A pipe has no size: not a dmabuf.
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    // SAFETY: as above.
    let error = unsafe { DeviceMemory::from_dmabuf(pipe, 0, 0, 1) }.unwrap_err();
    assert!(matches!(error, GpuError::DmaBuf(_)), "{error}");
}
