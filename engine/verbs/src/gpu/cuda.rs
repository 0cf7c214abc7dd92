//! CUDA's driver API, opened at run time: calls that find, export and check device memory. They
//! follow the CUDA driver API reference (memory, unified addressing) and the GPUDirect RDMA guide.
#![allow(unsafe_code, reason = "calls into libcuda")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use libloading::Library;

use super::error::{CudaError, GpuError};
use super::window::Window;

/// `CUresult`, as the integer that the driver writes.
type Status = c_int;
type Context = *mut c_void;

// cuda.h: CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING and
// CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER (CUDA 11.3), CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED,
// CU_POINTER_ATTRIBUTE_*, CU_MEMORYTYPE_DEVICE, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD.
pub(super) const ATTRIBUTE_WRITES_ORDERING: c_int = 118;
pub(super) const ORDERED_FOR_OWNER: c_int = 100;
pub(super) const ATTRIBUTE_DMA_BUF_SUPPORTED: c_int = 124;
pub(super) const POINTER_CONTEXT: c_int = 1;
pub(super) const POINTER_MEMORY_TYPE: c_int = 2;
pub(super) const POINTER_SYNC_MEMOPS: c_int = 6;
pub(super) const POINTER_DEVICE_ORDINAL: c_int = 9;
pub(super) const MEMORY_TYPE_DEVICE: c_uint = 2;
pub(super) const HANDLE_DMA_BUF_FD: c_int = 1;

macro_rules! api {
    ($($field:ident = $symbol:literal : fn($($arg:ty),*);)*) => {
        /// The driver's functions, or those of a test.
        #[derive(Clone, Copy)]
        pub(super) struct Api {
            $(pub(super) $field: unsafe extern "C" fn($($arg),*) -> Status,)*
            /// Since CUDA 11.7.
            pub(super) range_handle:
                Option<unsafe extern "C" fn(*mut c_void, u64, usize, c_int, u64) -> Status>,
        }

        impl Api {
            fn load(library: &Library) -> Result<Self, GpuError> {
                Ok(Self {
                    $(
                        // SAFETY: the type is the one that cuda.h gives this function.
                        $field: *unsafe { library.get(concat!($symbol, "\0").as_bytes()) }
                            .map_err(|_| GpuError::OldLibrary { symbol: $symbol })?,
                    )*
                    // SAFETY: as above.
                    range_handle: unsafe { library.get(b"cuMemGetHandleForAddressRange\0") }
                        .ok()
                        .map(|symbol| *symbol),
                })
            }
        }
    };
}

api! {
    init = "cuInit": fn(c_uint);
    error_name = "cuGetErrorName": fn(Status, *mut *const c_char);
    device_count = "cuDeviceGetCount": fn(*mut c_int);
    device_get = "cuDeviceGet": fn(*mut c_int, c_int);
    device_attribute = "cuDeviceGetAttribute": fn(*mut c_int, c_int, c_int);
    device_pci = "cuDeviceGetPCIBusId": fn(*mut c_char, c_int, c_int);
    context_retain = "cuDevicePrimaryCtxRetain": fn(*mut Context, c_int);
    context_push = "cuCtxPushCurrent_v2": fn(Context);
    context_pop = "cuCtxPopCurrent_v2": fn(*mut Context);
    alloc = "cuMemAlloc_v2": fn(*mut u64, usize);
    free = "cuMemFree_v2": fn(u64);
    set = "cuMemsetD8_v2": fn(u64, u8, usize);
    copy_out = "cuMemcpyDtoH_v2": fn(*mut c_void, u64, usize);
    copy_in = "cuMemcpyHtoD_v2": fn(u64, *const c_void, usize);
    address_range = "cuMemGetAddressRange_v2": fn(*mut u64, *mut usize, u64);
    pointer_get = "cuPointerGetAttribute": fn(*mut c_void, c_int, u64);
    pointer_set = "cuPointerSetAttribute": fn(*const c_void, c_int, u64);
}

/// The driver, initialised.
pub(super) struct Cuda {
    api: Api,
    // Keeps the functions of `api` mapped. `None` in tests.
    _library: Option<Library>,
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cuda(..)")
    }
}

/// The GPU and the allocation of an address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whereabouts {
    pub(super) context: Current,
    pub(super) ordinal: c_int,
    pub(super) base: u64,
    pub(super) size: u64,
}

/// A CUDA context, in which calls are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current(Context);

// SAFETY: a context may be made current in any thread, and nothing else is done with it here.
unsafe impl Send for Current {}
// SAFETY: as above.
unsafe impl Sync for Current {}

impl Cuda {
    /// Opens `library`, normally `libcuda.so.1`.
    pub(super) fn open(library: &str) -> Result<Self, GpuError> {
        let no_library = |reason: libloading::Error| GpuError::NoLibrary { reason: reason.to_string() };
        // SAFETY: libcuda's initialisers are made to be run by any process.
        let library = unsafe { Library::new(library) }.map_err(no_library)?;
        let api = Api::load(&library)?;
        Self { api, _library: Some(library) }.initialised()
    }

    #[cfg(test)]
    pub(super) fn fake(api: Api) -> Result<Self, GpuError> {
        Self { api, _library: None }.initialised()
    }

    fn initialised(self) -> Result<Self, GpuError> {
        // SAFETY: may be called any number of times, by any thread.
        let status = unsafe { (self.api.init)(0) };
        self.check("cuInit", status)?;
        Ok(self)
    }

    fn check(&self, call: &'static str, code: Status) -> Result<(), CudaError> {
        if code == 0 {
            return Ok(());
        }
        let mut name = std::ptr::null();
        // SAFETY: it writes one pointer, to a string that lives as long as the library.
        let known = unsafe { (self.api.error_name)(code, &mut name) } == 0 && !name.is_null();
        let name = if known {
            // SAFETY: not null, so a string that ends in 0 and lives as long as the library.
            unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
        } else {
            "unknown to this driver".into()
        };
        Err(CudaError { call, code, name })
    }

    /// The primary context of a GPU.
    pub(super) fn device(&self, ordinal: c_int) -> Result<Current, GpuError> {
        let mut count = 0;
        // SAFETY: it writes one integer.
        let status = unsafe { (self.api.device_count)(&mut count) };
        self.check("cuDeviceGetCount", status)?;
        if !(0..count).contains(&ordinal) {
            return Err(GpuError::NoDevice { ordinal, count });
        }
        let device = self.handle(ordinal)?;
        let mut context = std::ptr::null_mut();
        // SAFETY: it writes one pointer. The context is retained for the life of the process.
        let status = unsafe { (self.api.context_retain)(&mut context, device) };
        self.check("cuDevicePrimaryCtxRetain", status)?;
        Ok(Current(context))
    }

    fn handle(&self, ordinal: c_int) -> Result<c_int, CudaError> {
        let mut device = 0;
        // SAFETY: it writes one integer.
        let status = unsafe { (self.api.device_get)(&mut device, ordinal) };
        self.check("cuDeviceGet", status)?;
        Ok(device)
    }

    /// Checks that a GPU sees what a NIC has written into its memory as soon as the host sees the
    /// completion. The error says why it does not.
    ///
    /// Data goes to the GPU and the completion to the host, on different paths through PCIe, so
    /// this is a property of GPU and platform. Without it, `cuFlushGPUDirectRDMAWrites` would have
    /// to be called before a completion is reported.
    pub(super) fn writes_ordered(&self, ordinal: c_int) -> Result<(), String> {
        let device = self.handle(ordinal).map_err(|e| e.to_string())?;
        let mut ordering = 0;
        // SAFETY: it writes one integer.
        let status = unsafe { (self.api.device_attribute)(&mut ordering, ATTRIBUTE_WRITES_ORDERING, device) };
        self.check("cuDeviceGetAttribute(GPU_DIRECT_RDMA_WRITES_ORDERING)", status)
            .map_err(|e| format!("{e}: a driver of CUDA 11.3 or later knows it"))?;
        if ordering < ORDERED_FOR_OWNER {
            return Err(format!(
                "its attribute GPU_DIRECT_RDMA_WRITES_ORDERING is {ordering}, less than 100 (owner)"
            ));
        }
        Ok(())
    }

    /// Checks that the GPU's memory can be exported. The error says why it cannot.
    pub(super) fn dmabuf_supported(&self, ordinal: c_int) -> Result<(), String> {
        if self.api.range_handle.is_none() {
            return Err("the driver is older than CUDA 11.7".into());
        }
        let device = self.handle(ordinal).map_err(|e| e.to_string())?;
        let mut yes = 0;
        // SAFETY: it writes one integer.
        let status = unsafe { (self.api.device_attribute)(&mut yes, ATTRIBUTE_DMA_BUF_SUPPORTED, device) };
        self.check("cuDeviceGetAttribute(DMA_BUF_SUPPORTED)", status).map_err(|e| e.to_string())?;
        if yes == 0 {
            return Err("its attribute DMA_BUF_SUPPORTED is 0".into());
        }
        Ok(())
    }

    /// The NUMA node that the GPU is attached to, where known.
    pub(super) fn numa(&self, ordinal: c_int) -> Option<u8> {
        let device = self.handle(ordinal).ok()?;
        let mut id: [c_char; 32] = [0; 32];
        // SAFETY: it writes at most 32 bytes, the last of them 0.
        let status = unsafe { (self.api.device_pci)(id.as_mut_ptr(), 32, device) };
        self.check("cuDeviceGetPCIBusId", status).ok()?;
        let id: String =
            id.iter().map(|&c| c.cast_unsigned()).take_while(|&c| c != 0).map(char::from).collect();
        let path = format!("/sys/bus/pci/devices/{}/numa_node", id.to_lowercase());
        // The kernel writes -1 for not known.
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// The GPU and the allocation of `addr`.
    pub(super) fn locate(&self, addr: u64) -> Result<Whereabouts, GpuError> {
        let mut kind: c_uint = 0;
        // The call fails for memory that CUDA does not know, which is no device memory either.
        // SAFETY: this attribute is an unsigned int.
        let status = unsafe { (self.api.pointer_get)((&raw mut kind).cast(), POINTER_MEMORY_TYPE, addr) };
        if status != 0 || kind != MEMORY_TYPE_DEVICE {
            return Err(GpuError::NotDevice { addr, kind: if status == 0 { kind } else { 0 } });
        }
        let mut ordinal: c_int = 0;
        // SAFETY: this attribute is an int.
        let status =
            unsafe { (self.api.pointer_get)((&raw mut ordinal).cast(), POINTER_DEVICE_ORDINAL, addr) };
        self.check("cuPointerGetAttribute(DEVICE_ORDINAL)", status)?;
        let mut context: Context = std::ptr::null_mut();
        // SAFETY: this attribute is a context.
        let status = unsafe { (self.api.pointer_get)((&raw mut context).cast(), POINTER_CONTEXT, addr) };
        self.check("cuPointerGetAttribute(CONTEXT)", status)?;
        // Memory of CUDA's virtual memory interface has no context of its own.
        let context = if context.is_null() { self.device(ordinal)? } else { Current(context) };
        let (mut base, mut size) = (0, 0);
        self.within(context, || {
            // SAFETY: it writes two words.
            let status = unsafe { (self.api.address_range)(&mut base, &mut size, addr) };
            self.check("cuMemGetAddressRange", status)
        })?;
        Ok(Whereabouts { context, ordinal, base, size: size as u64 })
    }

    /// Makes CUDA's synchronous calls on the memory wait for each other, as GPUDirect requires.
    pub(super) fn synchronise(&self, addr: u64) -> Result<(), CudaError> {
        let on: c_uint = 1;
        // SAFETY: this attribute is an unsigned int, which is read.
        let status = unsafe { (self.api.pointer_set)((&raw const on).cast(), POINTER_SYNC_MEMOPS, addr) };
        self.check("cuPointerSetAttribute(SYNC_MEMOPS)", status)
    }

    /// Exports whole host pages as a dmabuf.
    pub(super) fn export(&self, context: Current, window: Window) -> Result<OwnedFd, CudaError> {
        const CALL: &str = "cuMemGetHandleForAddressRange";
        let missing = || CudaError { call: CALL, code: 500, name: "not in this driver".into() };
        let export = self.api.range_handle.ok_or_else(missing)?;
        let mut fd: RawFd = -1;
        self.within(context, || {
            let len = window.len as usize;
            // SAFETY: for this type of handle it writes one file descriptor.
            let status = unsafe { export((&raw mut fd).cast(), window.start, len, HANDLE_DMA_BUF_FD, 0) };
            self.check(CALL, status)
        })?;
        if fd < 0 {
            return Err(CudaError { call: CALL, code: 0, name: "success without a file descriptor".into() });
        }
        // SAFETY: made by the call for its caller alone, which closes it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    pub(super) fn allocate(&self, context: Current, len: usize) -> Result<u64, CudaError> {
        let mut addr = 0;
        self.within(context, || {
            // SAFETY: it writes one address.
            let status = unsafe { (self.api.alloc)(&mut addr, len) };
            self.check("cuMemAlloc", status)
        })?;
        Ok(addr)
    }

    /// # Safety
    ///
    /// `addr` came from `allocate` in this context and is not used any more.
    pub(super) unsafe fn free(&self, context: Current, addr: u64) -> Result<(), CudaError> {
        self.within(context, || {
            // SAFETY: the caller's promise.
            let status = unsafe { (self.api.free)(addr) };
            self.check("cuMemFree", status)
        })
    }

    /// # Safety
    ///
    /// The range is device memory, and no other code uses it.
    pub(super) unsafe fn fill(
        &self,
        context: Current,
        addr: u64,
        len: usize,
        byte: u8,
    ) -> Result<(), CudaError> {
        self.within(context, || {
            // SAFETY: the caller's promise.
            let status = unsafe { (self.api.set)(addr, byte, len) };
            self.check("cuMemsetD8", status)
        })
    }

    /// # Safety
    ///
    /// `to.len()` bytes at `addr` are device memory.
    pub(super) unsafe fn read(&self, context: Current, addr: u64, to: &mut [u8]) -> Result<(), CudaError> {
        self.within(context, || {
            // SAFETY: the caller's promise, and `to` is exclusive for the call, which is
            // synchronous.
            let status = unsafe { (self.api.copy_out)(to.as_mut_ptr().cast(), addr, to.len()) };
            self.check("cuMemcpyDtoH", status)
        })
    }

    /// # Safety
    ///
    /// `from.len()` bytes at `addr` are device memory, and no other code uses them.
    pub(super) unsafe fn write(&self, context: Current, addr: u64, from: &[u8]) -> Result<(), CudaError> {
        self.within(context, || {
            // SAFETY: the caller's promise; the call is synchronous.
            let status = unsafe { (self.api.copy_in)(addr, from.as_ptr().cast(), from.len()) };
            self.check("cuMemcpyHtoD", status)
        })
    }

    /// Calls `work` with a context current, and restores the thread's own.
    fn within(
        &self,
        context: Current,
        work: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        // SAFETY: a context that CUDA named, of a device that stays.
        let status = unsafe { (self.api.context_push)(context.0) };
        self.check("cuCtxPushCurrent", status)?;
        let result = work();
        let mut popped = std::ptr::null_mut();
        // SAFETY: it writes one pointer; there is a context to pop, pushed above.
        let status = unsafe { (self.api.context_pop)(&mut popped) };
        result.and(self.check("cuCtxPopCurrent", status))
    }
}
