//! The contract between an engine and its provider: the trait [`Provider`], its seven promises, and
//! the types in its signatures.
#![allow(
    unsafe_code,
    reason = "an unsafe trait: the engine hands memory out again when the provider says so"
)]

use core::fmt;

use super::post::Post;
use crate::class::Class;
use crate::id::{LaneId, MAX_RAILS, RailIndex, WrId};
use crate::time::{Nanos, Time};
use crate::verbs_abi::Wc;

/// A provider's report that is not a completion: a change of a lane or of a rail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderEvent {
    /// The lane is in the error state now: [`Provider::fail`] took effect, or the lane failed by
    /// itself. No further wr of it is executed, and every posted wr is flushed. The id is the one
    /// that [`Provider::open`] was given.
    LaneFailed(LaneId),
    /// The lane's QP has been destroyed ([`Provider::close`] took effect), and writes no more.
    LaneClosed(LaneId),
    /// The rail's port went down. Its lanes will fail one by one, or already have.
    RailDown(RailIndex),
    /// The rail's port came up. Lanes on it may be connected again.
    RailUp(RailIndex),
}

/// A rail, as the scheduler sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RailInfo {
    /// The most that the port carries, in bytes per second: 49,000,000,000 for 400 Gb/s with MTU
    /// 4096.
    pub nominal_bytes_per_sec: u64,
    /// The NUMA node of the port, if known.
    pub numa: Option<u8>,
    /// Entries of the rail's completion queue. The engine refuses a lane with which the lanes of
    /// the rail, flushes included, could need more.
    pub cq_entries: u32,
}

/// A raw range of local memory, to be registered for local write only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// Address of the first byte.
    pub addr: u64,
    /// Bytes, at least 1.
    pub len: u64,
}

/// Memory of another device, a GPU for instance, exported as a Linux dmabuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaBuf {
    /// The file descriptor. It must stay open until the call that registers the memory has
    /// returned.
    pub fd: i32,
    /// The byte of the dmabuf at which the range begins: at the same place within a host page as
    /// the range's address.
    pub offset: u64,
}

/// The key of one region on each rail.
pub type RailKeys = [u32; MAX_RAILS];

/// Why memory could not be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "rail {rail} could not register {} bytes at {:#x}: errno {errno} (12: raise the locked-memory limit, ulimit -l, which counts the memory once for each rail, or free registrations; 14: the range is not mapped; 90: the range is longer than the rail registers at once, so register it in parts; 95: not memory of this kind)",
    range.len, range.addr
)]
pub struct RegisterError {
    /// The rail that refused.
    pub rail: u8,
    /// The memory that was to be registered.
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

/// Wakes an engine that sleeps in [`Provider::wait`] or on the provider's descriptor, from any
/// thread.
pub trait Wake: Send + Sync {
    /// Makes the present or the next `wait` return, or the descriptor readable if it is armed, or
    /// else the next `arm` return false. It is cheap while the engine is awake.
    fn wake(&self);
}

/// When a [`Provider::wait`] should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitFor {
    /// The time now.
    pub now: Time,
    /// The latest time at which to return.
    pub until: Time,
    /// Return once this many of the wrs that were outstanding at the call have completed, signaled
    /// or not. With 0 a successful completion is no reason to return. An error or a
    /// [`ProviderEvent`] always is one.
    pub completions: u32,
}

impl WaitFor {
    /// The longest time to sleep.
    #[must_use]
    pub const fn timeout(&self) -> Nanos {
        self.until.since(self.now)
    }
}

/// All rails of one engine thread.
///
/// # Safety
///
/// The engine hands memory out again (slots to their user, regions to their owner) when the
/// provider says that nothing writes into it any more. An implementation promises:
///
/// 1. A READ writes only to `local_addr .. local_addr + len` of its descriptor, a scattered one
///    only to its pieces.
/// 2. A READ writes nothing more after it has been reported a success: by its own completion, or by
///    a successful completion of a later wr of the same lane; completions of one lane come in the
///    order of posting. (A failed or flushed wr may still be writing: see 3 and 4.)
/// 3. After [`ProviderEvent::LaneFailed`], a wr posted by [`drain`](Provider::drain) completes only
///    when no earlier wr of the lane writes any more.
/// 4. After [`ProviderEvent::LaneClosed`] no wr of the lane writes any more.
/// 5. When the provider has been dropped, none of its lanes writes any more; an implementation that
///    cannot make sure of that does not return from `drop` normally (it leaks what the hardware may
///    still touch, or aborts).
/// 6. An `accepted` prefix is exact: no descriptor beyond it has been or will be executed.
/// 7. An event names a lane by the id that [`open`](Provider::open) was given for it, and reports
///    only what has happened to that lane. [`fail`](Provider::fail), [`drain`](Provider::drain) and
///    [`close`](Provider::close) touch no lane that another provider has opened, not even after
///    that provider was dropped: a lane carries the [`ProviderId`] of the provider that opened it.
///
/// [`ProviderId`]: crate::id::ProviderId
pub unsafe trait Provider {
    /// The most descriptors in one commit, at least 1.
    const CHAIN: usize;
    /// A lane that is connected and that no provider has opened yet. Dropping one releases what it
    /// holds.
    type Unopened;
    /// The provider's part of a lane; for verbs, a QP. The engine gives no other code access to it,
    /// so only the engine closes lanes.
    type Lane;
    /// The reason why a lane cannot be opened.
    type OpenError: core::error::Error;
    /// A commit that is being built.
    type Post<'a>: Post
    where
        Self: 'a;
    /// A handle that wakes a sleeping engine.
    type Waker: Wake + Clone + fmt::Debug;

    /// The number of rails, at most [`MAX_RAILS`]. It does not change.
    fn rails(&self) -> usize;

    /// The facts of one rail. They do not change.
    fn rail(&self, rail: RailIndex) -> RailInfo;

    /// The most local pieces of one READ, on every rail; at least 1. It does not change.
    fn sges(&self) -> u32 {
        1
    }

    /// How many bytes more of one READ cost as much as a READ of their own, on every rail; 0, as
    /// this default says, if READs are not to be joined. It does not change.
    ///
    /// Validating READs whose table entries stand at most this far apart (and at most 2 KiB) become
    /// one [scattered](Post::scatter) READ, if [`sges`](Self::sges) is 3 or more. What stands
    /// between the entries goes to a piece of the engine's memory that nothing reads and that
    /// several READs may write at the same time, within one READ too. So rails that copy bytes by
    /// threads of the program leave this at 0.
    fn read_overhead(&self) -> u32 {
        0
    }

    /// The most bytes of one registration, on every rail; it does not change. Longer memory is
    /// registered in parts. A rail that registers whole pages of the host counts them.
    fn max_region_bytes(&self) -> u64 {
        u64::MAX
    }

    /// Registers memory on every rail for local write, and returns its key on each.
    ///
    /// # Errors
    ///
    /// The first rail that refused; nothing stays registered then.
    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError>;

    /// Registers memory that another device has exported on every rail for local write. READs
    /// address it by the addresses of `range`.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register). Errno 95 (EOPNOTSUPP) is that of rails that cannot register
    /// such memory; it is what this default gives.
    fn register_dmabuf(&mut self, range: MemoryRange, dmabuf: DmaBuf) -> Result<RailKeys, RegisterError> {
        let _ = dmabuf;
        Err(RegisterError { rail: 0, range, errno: 95 })
    }

    /// Registers ranges that are to be [`register`](Self::register)ed next, as many at the same
    /// time as the rails have a use for. A call of `register` for exactly such a range takes what
    /// was made here, and [`release_ahead`](Self::release_ahead) releases what no call has taken.
    /// By default nothing is done ahead.
    ///
    /// # Errors
    ///
    /// The first range that was refused; nothing of `ranges` stays registered then.
    fn register_ahead(&mut self, ranges: &[MemoryRange]) -> Result<(), RegisterError> {
        let _ = ranges;
        Ok(())
    }

    /// Releases what was made by [`register_ahead`](Self::register_ahead) and not taken, and
    /// returns how many ranges that were.
    fn release_ahead(&mut self) -> usize {
        0
    }

    /// Releases a registration made by [`register`](Self::register) or
    /// [`register_dmabuf`](Self::register_dmabuf).
    fn deregister(&mut self, range: MemoryRange, keys: &RailKeys);

    /// Takes a connected lane into use on `rail`. From now on its name is `id`, in events and in
    /// the wr_ids of its wrs, whose sequence numbers begin at 0.
    ///
    /// # Errors
    ///
    /// There is no such rail, the rail has no place left, or the lane was not connected for this
    /// rail. The lane is released then.
    fn open(
        &mut self,
        id: LaneId,
        rail: RailIndex,
        unopened: Self::Unopened,
    ) -> Result<Self::Lane, Self::OpenError>;

    /// The class of the work that a lane is to carry, where the rails treat the classes differently
    /// (for verbs: by a traffic class or service level of its own). READs of a batch go over lanes
    /// of the batch's class for as long as the peer has one, on whatever rail, and over the peer's
    /// other lanes otherwise. So a provider that makes no difference says `Urgent` of every lane,
    /// as this default does, and each lane carries the work of both classes.
    fn class(&self, unopened: &Self::Unopened) -> Class {
        let _ = unopened;
        Class::Urgent
    }

    /// Begins a commit on `lane`.
    ///
    /// # Safety
    ///
    /// This provider has opened the lane. For each READ that is added and committed: its local
    /// range is either not registered, or no other code reads or writes it until the READ is known
    /// to write no more. Only what lies between entries of a validating READ
    /// ([`read_overhead`](Self::read_overhead)) goes where other READs may write at the same time,
    /// and there no code ever reads or writes. (The caller answers for the memory here, since
    /// posting writes it; registering a range writes nothing.)
    unsafe fn begin<'a>(&'a mut self, lane: &'a mut Self::Lane) -> Self::Post<'a>;

    /// Moves completions of all the rail's lanes, oldest first, into the front of `out`, and
    /// returns how many.
    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize;

    /// Starts moving `lane` to the error state and returns at once. [`ProviderEvent::LaneFailed`]
    /// follows. Does nothing to a lane of another provider.
    fn fail(&mut self, lane: &mut Self::Lane);

    /// Posts a signaled wr to a lane in the error state. Its completion says that the lane has been
    /// flushed. The engine keeps one SQ and one CQ entry in reserve for it.
    ///
    /// # Errors
    ///
    /// The provider's errno; nothing was posted then. EINVAL (22) for a lane of another provider.
    fn drain(&mut self, lane: &mut Self::Lane, wr_id: WrId) -> Result<(), i32>;

    /// Starts destroying `lane` and returns at once. [`ProviderEvent::LaneClosed`] follows once the
    /// lane is destroyed. If it cannot be destroyed, no event follows, and the engine never uses
    /// the lane's place again. A lane of another provider stays untouched, and no event follows.
    fn close(&mut self, lane: Self::Lane);

    /// The next event, if any. An event does not wait until completions are polled.
    fn next_event(&mut self) -> Option<ProviderEvent>;

    /// Sleeps until one of the reasons in `wait` holds. It may return early. It returns late only
    /// by as much as the operating system's scheduler delays it.
    fn wait(&mut self, wait: WaitFor);

    /// Prepares a sleep in poll(2) or epoll(7) on the provider's descriptor, which `std`'s `AsFd`
    /// gives. If it returns true, the caller may sleep until `wait.until`: the descriptor becomes
    /// readable as soon as one of the other reasons in `wait` holds, or a [waker](Self::waker) is
    /// called. It may become readable early, after the first completion for instance. If it returns
    /// false, a reason holds already, or the provider cannot do it (as this default): the caller
    /// polls.
    ///
    /// It makes system calls, as [`wait`](Self::wait) does, but does not sleep. Each `true` is
    /// followed by [`disarm`](Self::disarm), before the next `arm` or `wait`.
    ///
    /// No wake-up is lost if an implementation first arms what makes the descriptor readable, then
    /// looks for reasons, and then returns: a reason from before the arming is found by the look, a
    /// later one makes the descriptor readable.
    #[must_use = "the caller sleeps only if it is true"]
    fn arm(&mut self, wait: WaitFor) -> bool {
        let _ = wait;
        false
    }

    /// Ends what [`arm`](Self::arm) began: makes the descriptor unreadable, and wakers and
    /// completions cheap again. Calls of wakers that no `wait` or `arm` has returned for stay
    /// noted, since what they announce may not have been seen. The engine calls it when it polls
    /// for the first time after a sleep.
    fn disarm(&mut self) {}

    /// A handle that wakes this provider's [`wait`](Self::wait), and makes its descriptor readable
    /// while it is [armed](Self::arm).
    fn waker(&self) -> Self::Waker;
}
