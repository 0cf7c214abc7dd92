//! The contract between an engine and its provider.
#![allow(unsafe_code, reason = "an unsafe trait: memory is handed out again on a provider's word")]

use core::fmt;

use super::post::Post;
use crate::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use crate::time::{Nanos, Time};
use crate::verbs_abi::Wc;

/// What a provider reports that is not a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderEvent {
    /// The lane is in the error state now ([`Provider::fail`] took effect, or it got there by
    /// itself): nothing new will be executed, everything posted will be flushed. The id is the one
    /// that [`Provider::open`] was given.
    LaneFailed(LaneId),
    /// The lane's QP has been destroyed ([`Provider::close`] took effect): it writes no more.
    LaneClosed(LaneId),
    /// The rail's port went down. Its lanes will fail one by one, or already have.
    RailDown(RailIndex),
    /// The rail's port came up. Lanes on it may be made again.
    RailUp(RailIndex),
}

/// A rail, as the scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RailInfo {
    /// What the port carries at best, in bytes per second: 49,000,000,000 for 400 Gb/s with MTU
    /// 4096.
    pub nominal_bytes_per_sec: u64,
    /// The NUMA node it hangs on, if known.
    pub numa: Option<u8>,
    /// Entries of its completion queue. All lanes of the rail together, flushes included, never
    /// need more: the engine refuses the lane that would.
    pub cq_entries: u32,
}

/// A raw range of local memory, to be registered for local write only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// Start.
    pub addr: u64,
    /// Bytes, at least 1.
    pub len: u64,
}

/// Memory of another device, a GPU for instance, exported as a Linux dmabuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaBuf {
    /// The file descriptor, open for as long as the registration is made.
    pub fd: i32,
    /// Where in it the range begins: at the same place within a host page as the range's address.
    pub offset: u64,
}

/// The local key of a region, per rail.
pub type RailKeys = [u32; MAX_RAILS];

/// Why memory could not be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "rail {rail} could not register {} bytes at {:#x}: errno {errno} (12: raise the locked-memory limit, ulimit -l, which counts the memory once for each rail, or free registrations; 14: the range is not mapped; 95: not memory of this kind)",
    range.len, range.addr
)]
pub struct RegisterError {
    /// The rail that refused.
    pub rail: u8,
    /// What was to be registered.
    pub range: MemoryRange,
    /// The provider's errno.
    pub errno: i32,
}

impl RegisterError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        2180
    }
}

/// Wakes an engine that sleeps in [`Provider::wait`], from any thread.
pub trait Wake: Send + Sync {
    /// Makes the present or the next `wait` return. Cheap while the engine is awake.
    fn wake(&self);
}

/// When a [`Provider::wait`] should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitFor {
    /// The time now.
    pub now: Time,
    /// Return at this time at the latest.
    pub until: Time,
    /// Return once so many of the wrs outstanding at the call have completed, signaled or not.
    /// 0: completions are no reason to return. An error or an [`ProviderEvent`] always is.
    pub completions: u32,
}

impl WaitFor {
    /// How long at most.
    #[must_use]
    pub const fn timeout(&self) -> Nanos {
        self.until.since(self.now)
    }
}

/// All rails of one engine thread.
///
/// # Safety
///
/// The engine hands out memory again (slots to their user, regions to their owner) on a provider's
/// word. An implementation promises:
///
/// 1. A READ writes only to `local_addr .. local_addr + len` of its descriptor, a scattered one
///    only to its pieces.
/// 2. It writes nothing more after it has been reported a success: by its own completion, or by a
///    successful completion of a later wr of the same lane; completions of one lane come in the
///    order of posting. (A failed or flushed wr may still be writing: see 3 and 4.)
/// 3. After [`ProviderEvent::LaneFailed`], a wr posted by [`drain`](Provider::drain) completes only
///    when no earlier wr of the lane writes any more.
/// 4. After [`ProviderEvent::LaneClosed`] no wr of the lane writes any more.
/// 5. When the provider has been dropped, none of its lanes writes any more; an implementation that
///    cannot make sure of that does not return from `drop` normally (it leaks what the hardware may
///    still touch, or aborts).
/// 6. An `accepted` prefix is exact: what is beyond it has not been and will not be executed.
/// 7. An event names a lane by the id that [`open`](Provider::open) was given for it, and only what
///    has happened to that lane. [`fail`](Provider::fail), [`drain`](Provider::drain) and
///    [`close`](Provider::close) touch no lane that another provider has opened, whatever has
///    become of it: a lane carries the [`ProviderId`] of its own.
///
/// [`ProviderId`]: crate::id::ProviderId
pub unsafe trait Provider {
    /// The most descriptors in one commit, at least 1.
    const CHAIN: usize;
    /// A lane that is connected and that no provider has opened yet. Dropping one releases what it
    /// holds.
    type Unopened;
    /// The provider's part of a lane: what a QP is to verbs. An engine keeps it to itself, so that
    /// no lane is closed behind its back.
    type Lane;
    /// Why a lane cannot be opened.
    type OpenError: core::error::Error;
    /// A commit being built.
    type Post<'a>: Post
    where
        Self: 'a;
    /// Wakes a sleeping engine.
    type Waker: Wake + Clone + fmt::Debug;

    /// How many rails, at most [`MAX_RAILS`]. Does not change.
    fn rails(&self) -> usize;

    /// One of them. Does not change.
    fn rail(&self, rail: RailIndex) -> RailInfo;

    /// The most local pieces of one READ, on every rail; at least 1. Does not change.
    fn sges(&self) -> u32 {
        1
    }

    /// Registers memory on every rail for local write, and tells its key on each.
    ///
    /// # Errors
    ///
    /// The first rail that refused; nothing stays registered then.
    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError>;

    /// The same of memory that another device has exported. `range` says by which addresses it
    /// goes.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register); errno 95 (EOPNOTSUPP) of rails that take no memory of that
    /// kind.
    fn register_dmabuf(&mut self, range: MemoryRange, dmabuf: DmaBuf) -> Result<RailKeys, RegisterError> {
        let _ = dmabuf;
        Err(RegisterError { rail: 0, range, errno: 95 })
    }

    /// Releases a registration made by [`register`](Self::register) or
    /// [`register_dmabuf`](Self::register_dmabuf).
    fn deregister(&mut self, range: MemoryRange, keys: &RailKeys);

    /// Takes a connected lane into use on `rail`. From now on it is `id`, in events and in the
    /// wr_ids of its wrs, whose sequence numbers begin at 0.
    ///
    /// # Errors
    ///
    /// There is no such rail, it has no place left, or the lane was not connected for it. The lane
    /// is released.
    fn open(
        &mut self,
        id: LaneId,
        rail: RailIndex,
        unopened: Self::Unopened,
    ) -> Result<Self::Lane, Self::OpenError>;

    /// Begins a commit on `lane`.
    ///
    /// # Safety
    ///
    /// This provider has opened the lane. For each READ that is added and committed: its local
    /// range is either not registered, or no other code reads or writes it until the READ is known
    /// to write no more. (This is where memory is written on somebody's word; to register a range
    /// writes nothing.)
    unsafe fn begin<'a>(&'a mut self, lane: &'a mut Self::Lane) -> Self::Post<'a>;

    /// Takes completions of all the rail's lanes, oldest first, into the front of `out`, and says
    /// how many.
    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize;

    /// Starts moving `lane` to the error state and returns at once. [`ProviderEvent::LaneFailed`]
    /// follows. Does nothing to a lane of another provider.
    fn fail(&mut self, lane: &mut Self::Lane);

    /// Posts a signaled wr to a lane in the error state, to learn when it has been flushed. The
    /// engine keeps one SQ and one CQ entry in reserve for it.
    ///
    /// # Errors
    ///
    /// The provider's errno; nothing was posted. EINVAL (22) for a lane of another provider.
    fn drain(&mut self, lane: &mut Self::Lane, wr_id: WrId) -> Result<(), i32>;

    /// Starts destroying `lane` and returns at once. [`ProviderEvent::LaneClosed`] follows; if it
    /// cannot be destroyed, nothing follows, and the lane's place is never used again. Nothing
    /// follows either for a lane of another provider, which is left as it is.
    fn close(&mut self, lane: Self::Lane);

    /// The next event, if any.
    fn next_event(&mut self) -> Option<ProviderEvent>;

    /// Sleeps until `wait` says. May return early, never late by more than the scheduler's doing.
    fn wait(&mut self, wait: WaitFor);

    /// Something that wakes this provider's [`wait`](Self::wait).
    fn waker(&self) -> Self::Waker;
}
