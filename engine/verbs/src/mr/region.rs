//! Memory regions (MRs): of one rail, and of all rails of one side.
#![allow(unsafe_code, reason = "libibverbs")]

use std::fmt;
use std::ptr::{NonNull, with_exposed_provenance_mut};
use std::sync::Arc;
use std::time::Instant;

use kvrail_core::id::MAX_RAILS;
use kvrail_core::provider::{DmaBuf, MemoryRange, RailKeys};
use rdma_mummy_sys as sys;

use super::access::{AccessFlags, Rights};
use super::length;
use crate::error::{Errno, MrError, VerbsRegionError};
use crate::rail::Rail;

/// From this size on a registration is logged and, on several rails, has a thread for each.
const LARGE: u64 = 64 << 20;

/// Memory registered on one rail.
pub(crate) struct Mr {
    raw: NonNull<sys::ibv_mr>,
    rail: Arc<Rail>,
}

// SAFETY: libibverbs allows a region to be released from any thread.
unsafe impl Send for Mr {}
// SAFETY: as above; `&Mr` only reads keys.
unsafe impl Sync for Mr {}

impl Mr {
    /// Registers `range`. `rails`: on how many rails the caller registers it, for the error.
    ///
    /// Registering writes nothing. The code that posts a READ is responsible for what the READ
    /// writes.
    pub(crate) fn new(
        rail: &Arc<Rail>,
        range: MemoryRange,
        rights: Rights,
        rails: usize,
    ) -> Result<Self, MrError> {
        let MemoryRange { addr, len } = range;
        let refused = |errno| MrError::new(rail.device(), range, rails, errno);
        length::check(rail.device(), range, rail.max_mr_bytes())?;
        let length = usize::try_from(len).map_err(|_| refused(Errno(libc::EINVAL)))?;
        let at = usize::try_from(addr).map_err(|_| refused(Errno(libc::EINVAL)))?;
        let at = with_exposed_provenance_mut::<libc::c_void>(at);
        let access = rights.access();
        if rail.config().relaxed_ordering {
            let relaxed = (access | AccessFlags::RELAXED_ORDERING).bits();
            // The flag is one of the optional ones, which libibverbs leaves out where the kernel
            // does not know them.
            // SAFETY: a live PD; the kernel checks the range, and pins its pages.
            let raw = unsafe { sys::ibv_reg_mr_iova2(rail.pd(), at, length, addr, relaxed) };
            if let Some(raw) = NonNull::new(raw) {
                return Self { raw, rail: Arc::clone(rail) }.whole(range);
            }
            let errno = Errno::last();
            // These two errnos mean that the library is older than the function, or that the driver
            // refuses the flag.
            if !matches!(errno.0, libc::EOPNOTSUPP | libc::EINVAL) {
                return Err(refused(errno));
            }
            tracing::info!(rail = rail.name(), %errno, "no relaxed ordering");
        }
        // The flags fit a C int.
        // SAFETY: as above.
        let raw = unsafe { sys::ibv_reg_mr(rail.pd(), at, length, access.bits().cast_signed()) };
        let raw = NonNull::new(raw).ok_or_else(|| refused(Errno::last()))?;
        Self { raw, rail: Arc::clone(rail) }.whole(range)
    }

    /// Registers memory that a dma-buf holds.
    pub(crate) fn from_dmabuf(
        rail: &Arc<Rail>,
        range: MemoryRange,
        DmaBuf { fd, offset }: DmaBuf,
        rights: Rights,
    ) -> Result<Self, MrError> {
        let MemoryRange { addr, len } = range;
        // The limit of locked memory does not count another device's memory.
        let refused = |errno| MrError::Refused { device: rail.device().into(), addr, len, errno };
        length::check(rail.device(), range, rail.max_mr_bytes())?;
        let length = usize::try_from(len).map_err(|_| refused(Errno(libc::EINVAL)))?;
        let access = rights.access();
        // SAFETY: a live PD; the kernel checks descriptor and range.
        let raw = unsafe {
            sys::ibv_reg_dmabuf_mr(rail.pd(), offset, length, addr, fd, access.bits().cast_signed())
        };
        match NonNull::new(raw) {
            Some(raw) => Self { raw, rail: Arc::clone(rail) }.whole(range),
            None => {
                let errno = Errno::last();
                let device = rail.device().to_owned();
                Err(match errno.0 {
                    libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::ENOSYS => {
                        MrError::DmabufUnsupported { device, errno }
                    }
                    _ => refused(errno),
                })
            }
        }
    }

    /// The region, if it is as long as `range`; a shorter one is released.
    fn whole(self, range: MemoryRange) -> Result<Self, MrError> {
        // SAFETY: a live region, whose length no code changes.
        let registered = unsafe { (*self.raw.as_ptr()).length } as u64;
        length::compare(self.rail.device(), range, registered)?;
        Ok(self)
    }

    pub(crate) fn lkey(&self) -> u32 {
        // SAFETY: a live region.
        unsafe { (*self.raw.as_ptr()).lkey }
    }

    pub(crate) fn rkey(&self) -> u32 {
        // SAFETY: a live region.
        unsafe { (*self.raw.as_ptr()).rkey }
    }
}

impl Drop for Mr {
    fn drop(&mut self) {
        // SAFETY: registered once, released once.
        let errno = unsafe { sys::ibv_dereg_mr(self.raw.as_ptr()) };
        if errno != 0 {
            tracing::warn!(
                rail = self.rail.name(),
                errno,
                "a memory region was not released: it stays pinned"
            );
        }
    }
}

/// Memory registered on all rails of one side. Released when dropped.
pub struct VerbsRegion {
    mrs: Vec<Mr>,
    range: MemoryRange,
    rights: Rights,
}

impl VerbsRegion {
    /// Registers `range` on every rail; a large range on all rails at the same time.
    ///
    /// # Errors
    ///
    /// Names the first rail that refused; nothing stays registered.
    pub fn new(rails: &[Arc<Rail>], range: MemoryRange, rights: Rights) -> Result<Self, VerbsRegionError> {
        Self::with(rails, range, rights, |rail| Mr::new(rail, range, rights, rails.len()))
    }

    /// Registers memory that a dma-buf holds, a GPU's for example. READs name it by the addresses
    /// of `range`, whose first must have the same offset within a host page as the place in the
    /// dma-buf.
    ///
    /// # Errors
    ///
    /// Names the first rail that refused; nothing stays registered.
    pub fn from_dmabuf(
        rails: &[Arc<Rail>],
        range: MemoryRange,
        dmabuf: DmaBuf,
        rights: Rights,
    ) -> Result<Self, VerbsRegionError> {
        Self::with(rails, range, rights, |rail| Mr::from_dmabuf(rail, range, dmabuf, rights))
    }

    fn with(
        rails: &[Arc<Rail>],
        range: MemoryRange,
        rights: Rights,
        register: impl Fn(&Arc<Rail>) -> Result<Mr, MrError> + Sync,
    ) -> Result<Self, VerbsRegionError> {
        let began = Instant::now();
        let made: Vec<Result<Mr, MrError>> = if range.len >= LARGE && rails.len() > 1 {
            std::thread::scope(|scope| {
                let register = &register;
                let threads: Vec<_> = rails
                    .iter()
                    .map(|rail| {
                        let thread = std::thread::Builder::new().name("kvrail-register".into());
                        (rail, thread.spawn_scoped(scope, move || register(rail)))
                    })
                    .collect();
                let done = threads.into_iter().map(|(rail, thread)| match thread {
                    Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                    // Without a thread, registering one after the other only takes longer.
                    Err(_) => register(rail),
                });
                done.collect()
            })
        } else {
            rails.iter().map(&register).collect()
        };
        let mut mrs = Vec::with_capacity(rails.len());
        for (rail, mr) in made.into_iter().enumerate() {
            // Rails are at most 16.
            mrs.push(mr.map_err(|reason| VerbsRegionError { rail: rail as u8, reason })?);
        }
        if range.len >= LARGE {
            tracing::info!(
                bytes = range.len,
                rails = rails.len(),
                ms = began.elapsed().as_millis() as u64,
                gb_per_s = %length::rate(range.len, began.elapsed()),
                ?rights,
                "memory registered"
            );
        }
        Ok(Self { mrs, range, rights })
    }

    /// The registered range.
    #[must_use]
    pub const fn range(&self) -> MemoryRange {
        self.range
    }

    /// The key on each rail: local keys of a destination, remote keys of published memory.
    #[must_use]
    pub fn keys(&self) -> RailKeys {
        let mut keys = [0; MAX_RAILS];
        for (key, mr) in keys.iter_mut().zip(&self.mrs) {
            *key = match self.rights {
                Rights::RemoteRead => mr.rkey(),
                Rights::LocalWrite => mr.lkey(),
            };
        }
        keys
    }
}

impl fmt::Debug for VerbsRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerbsRegion")
            .field("range", &self.range)
            .field("rights", &self.rights)
            .field("rails", &self.mrs.len())
            .finish()
    }
}
