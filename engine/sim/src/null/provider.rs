//! The provider over the null device.
#![allow(unsafe_code, reason = "implements the provider contract over raw queues")]

use core::marker::PhantomData;
use core::ptr::{self, NonNull};

use kvrail_core::id::{LaneId, MAX_RAILS, ProviderId, RailIndex, WrId};
use kvrail_core::provider::{
    Commit, Ends, KeyedEnds, KeyedReads, MemoryRange, Piece, Post, Provider, ProviderEvent, RailInfo,
    RailKeys, Read, RegisterError, UniformReads, WaitFor, Wake,
};
use kvrail_core::verbs_abi::{Chain, ChainStorage, Posting, SendFlags, SendWr, Sge, Wc};

use super::device::{Cq, Cqe, MAX_SGES, Qp, Wqe, ibv_poll_cq, ibv_post_send, purge};

/// The memory of null rails.
#[derive(Debug)]
pub struct NullParts<'m> {
    /// One for each rail; 1 to [`MAX_RAILS`].
    pub cqs: &'m mut [Cq],
    /// Divided evenly among the rails; each rail's share must be a power of two.
    pub cqes: &'m mut [Cqe],
    /// One for each lane.
    pub qps: &'m mut [Qp],
    /// Divided evenly among the lanes; each lane's share must be a power of two.
    pub wqes: &'m mut [Wqe],
}

/// Why [`NullParts`] do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NullPartsError {
    /// There is no rail, or there are too many.
    #[error("the parts have {rails} completion queues: give one for each rail, 1 to {MAX_RAILS}")]
    Rails {
        /// How many completion queues there are.
        rails: usize,
    },
    /// The entries of a part cannot be divided into shares of a power of two.
    #[error(
        "{entries} {what} cannot be divided among {among}: each needs the same power of two, at most 2^31"
    )]
    Uneven {
        /// The part.
        what: &'static str,
        /// How many entries it has.
        entries: usize,
        /// How many lanes or rails there are.
        among: usize,
    },
}

impl NullPartsError {
    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Rails { .. } => 9100,
            Self::Uneven { .. } => 9101,
        }
    }
}

/// Why a null lane cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NullLaneError {
    /// There is no such rail.
    #[error("there is no rail {rail}: the null device has {rails}, numbered from 0")]
    NoSuchRail {
        /// The requested rail.
        rail: u8,
        /// How many rails there are.
        rails: usize,
    },
    /// No lane is free.
    #[error("all lanes are in use: close one and read its LaneClosed, or give NullParts more qps")]
    Full,
}

impl NullLaneError {
    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoSuchRail { .. } => 9110,
            Self::Full => 9111,
        }
    }
}

/// How many of `entries` each of `among` gets, if that is a power of two.
fn share(what: &'static str, entries: usize, among: usize) -> Result<u32, NullPartsError> {
    let even = among != 0 && entries.is_multiple_of(among);
    let share = if even { u32::try_from(entries / among).ok().filter(|s| s.is_power_of_two()) } else { None };
    share.ok_or(NullPartsError::Uneven { what, entries, among })
}

/// The errno for a lane of another provider.
const EINVAL: i32 = 22;

/// The events of a QP that have not been read.
const FAILED: u8 = 1;
const CLOSED: u8 = 2;

/// Rails that move nothing, with commits of at most `CHAIN` wrs, each of at most `SGES` pieces.
///
/// A wr of more than two pieces takes more than one work queue entry of its lane: one more for
/// every four.
#[derive(Debug)]
pub struct NullRails<'m, const CHAIN: usize, const SGES: usize = 1> {
    chain: Chain<'m, CHAIN, SGES>,
    cqs: NonNull<Cq>,
    rails: usize,
    cq_entries: u32,
    /// QPs without a lane, linked.
    free: *mut Qp,
    /// QPs with unread events, linked from the first to the last.
    first_unread: *mut Qp,
    last_unread: *mut Qp,
    id: ProviderId,
    parts: PhantomData<&'m mut Qp>,
}

/// A lane of null rails: one QP.
#[derive(Debug)]
pub struct NullLane<'m> {
    qp: NonNull<Qp>,
    provider: ProviderId,
    id: LaneId,
    parts: PhantomData<&'m mut Qp>,
}

impl NullLane<'_> {
    /// The id that it was opened with.
    #[must_use]
    pub const fn id(&self) -> LaneId {
        self.id
    }

    /// The QP, for a hand-written loop over [`ibv_post_send`].
    #[inline]
    #[must_use]
    pub fn qp(&mut self) -> *mut Qp {
        self.qp.as_ptr()
    }
}

impl<'m, const CHAIN: usize, const SGES: usize> NullRails<'m, CHAIN, SGES> {
    /// Rails over these parts, with all lanes free.
    ///
    /// # Errors
    ///
    /// The parts do not fit each other.
    pub fn new(
        parts: NullParts<'m>,
        chain: &'m mut ChainStorage<CHAIN, SGES>,
    ) -> Result<Self, NullPartsError> {
        const { assert!(SGES >= 1 && SGES <= MAX_SGES as usize, "a wr has 1 to 30 pieces") };
        let NullParts { cqs, cqes, qps, wqes } = parts;
        let (rails, lanes) = (cqs.len(), qps.len());
        if rails == 0 || rails > MAX_RAILS {
            return Err(NullPartsError::Rails { rails });
        }
        let cq_entries = share("completion queue entries", cqes.len(), rails)?;
        let depth = share("work queue entries", wqes.len(), lanes)?;
        for (cq, ring) in cqs.iter_mut().zip(cqes.chunks_exact_mut(cq_entries as usize)) {
            *cq = Cq::over(ring.as_mut_ptr(), cq_entries);
        }
        // Linked from the last to the first, so that the first is used first.
        let cqs = NonNull::from(cqs).cast::<Cq>();
        let mut free: *mut Qp = ptr::null_mut();
        // QP numbers have 24 bits.
        let numbers = (0..0x100_0000_u32).cycle();
        let rings = wqes.chunks_exact_mut(depth as usize);
        let first = NonNull::from(qps).cast::<Qp>();
        for (i, (ring, number)) in rings.zip(numbers).enumerate() {
            let lane = lanes - 1 - i;
            // SAFETY: lane < lanes, within the array.
            let qp = unsafe { first.add(lane) };
            // SAFETY: an element of `qps`, which is borrowed for 'm and not used as a slice again.
            unsafe { qp.write(Qp::over(ring.as_mut_ptr(), depth, number, free)) };
            free = qp.as_ptr();
        }
        Ok(Self {
            chain: Chain::new(chain),
            cqs,
            rails,
            cq_entries,
            free,
            first_unread: ptr::null_mut(),
            last_unread: ptr::null_mut(),
            id: ProviderId::new(),
            parts: PhantomData,
        })
    }

    /// The rail's CQ, for a hand-written loop over [`ibv_poll_cq`].
    ///
    /// # Panics
    ///
    /// If there is no such rail.
    #[inline]
    #[must_use]
    pub fn cq(&mut self, rail: RailIndex) -> *mut Cq {
        assert!(rail.get() < self.rails, "there is no rail {} of {}", rail.0, self.rails);
        // SAFETY: within the array of `rails`.
        unsafe { self.cqs.add(rail.get()) }.as_ptr()
    }

    /// Adds an event of a QP to those that have not been read.
    fn queue_event(&mut self, mut qp: NonNull<Qp>, what: u8) {
        // SAFETY: the QP of a lane of these rails, which our caller has; nothing else uses it now.
        let state = unsafe { qp.as_mut() };
        let listed = state.unread != 0;
        state.unread |= what;
        if listed {
            return;
        }
        state.link = ptr::null_mut();
        match NonNull::new(self.last_unread) {
            None => self.first_unread = qp.as_ptr(),
            Some(mut last) => {
                // SAFETY: a QP of the list, another one than `qp`, which was not listed.
                unsafe { last.as_mut() }.link = qp.as_ptr();
            }
        }
        self.last_unread = qp.as_ptr();
    }
}

/// A commit on a null lane.
#[derive(Debug)]
pub struct NullPost<'a, 'm, const CHAIN: usize, const SGES: usize = 1> {
    posting: Posting<'a, 'm, CHAIN, SGES>,
    qp: *mut Qp,
}

impl<const CHAIN: usize, const SGES: usize> Post for NullPost<'_, '_, CHAIN, SGES> {
    #[inline]
    fn read(&mut self, read: Read) {
        self.posting.push(&read);
    }

    #[inline]
    fn read_uniform(&mut self, uniform: UniformReads, ends: impl ExactSizeIterator<Item = Ends>) {
        self.posting.push_uniform(&uniform, ends);
    }

    #[inline]
    fn read_keyed(&mut self, reads: KeyedReads, ends: impl Iterator<Item = KeyedEnds>) {
        self.posting.push_keyed(&reads, ends);
    }

    #[inline]
    fn scatter(&mut self, read: Read, pieces: &[Piece]) {
        self.posting.push_scattered(&read, pieces);
    }

    #[inline]
    fn commit(self) -> Commit {
        let qp = self.qp;
        self.posting.post(|head| {
            let mut bad_wr = ptr::null_mut();
            // SAFETY: the QP of a lane that `begin` has borrowed along with the rails; the head of
            // a chain that ends in null, of live templates with live sges; a local.
            let errno = unsafe { ibv_post_send(qp, head, &raw mut bad_wr) };
            (errno, bad_wr)
        })
    }
}

/// A waker that does nothing, since `wait` of null rails never sleeps.
#[derive(Clone, Copy, Debug)]
pub struct NullWaker;

impl Wake for NullWaker {
    fn wake(&self) {}
}

// SAFETY: READs write only into the rings of the parts, so no slot is written too late. `post_send`
// reports the first wr that it did not take as its bad_wr. Events carry the lane's own id, and
// `fail`, `drain` and `close` compare the lane's `ProviderId`.
unsafe impl<'m, const CHAIN: usize, const SGES: usize> Provider for NullRails<'m, CHAIN, SGES> {
    const CHAIN: usize = CHAIN;
    type Unopened = ();
    type Lane = NullLane<'m>;
    type OpenError = NullLaneError;
    type Post<'a>
        = NullPost<'a, 'm, CHAIN, SGES>
    where
        Self: 'a;
    type Waker = NullWaker;

    fn rails(&self) -> usize {
        self.rails
    }

    fn rail(&self, _: RailIndex) -> RailInfo {
        RailInfo { nominal_bytes_per_sec: 49_000_000_000, numa: None, cq_entries: self.cq_entries }
    }

    fn sges(&self) -> u32 {
        // At most MAX_SGES.
        SGES as u32
    }

    /// The same as for rails over hardware.
    fn read_overhead(&self) -> u32 {
        512
    }

    /// Gives key 1 on every rail for any memory, since no byte is ever written.
    fn register(&mut self, _: MemoryRange) -> Result<RailKeys, RegisterError> {
        Ok([1; MAX_RAILS])
    }

    fn deregister(&mut self, _: MemoryRange, _: &RailKeys) {}

    /// A closed lane's QP is free again when its `LaneClosed` has been read.
    fn open(&mut self, id: LaneId, rail: RailIndex, (): ()) -> Result<NullLane<'m>, NullLaneError> {
        if rail.get() >= self.rails {
            return Err(NullLaneError::NoSuchRail { rail: rail.0, rails: self.rails });
        }
        let qp = NonNull::new(self.free).ok_or(NullLaneError::Full)?;
        let cq = self.cq(rail);
        // SAFETY: a QP of the free list: an element of the parts, which nothing else uses.
        let state = unsafe { &mut *qp.as_ptr() };
        self.free = state.link;
        state.link = ptr::null_mut();
        state.reset(cq);
        state.id = id;
        Ok(NullLane { qp, provider: self.id, id, parts: PhantomData })
    }

    #[inline]
    unsafe fn begin<'a>(&'a mut self, lane: &'a mut NullLane<'m>) -> NullPost<'a, 'm, CHAIN, SGES> {
        NullPost { posting: self.chain.begin(), qp: lane.qp() }
    }

    #[inline]
    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        let room = i32::try_from(out.len()).unwrap_or(i32::MAX);
        let cq = self.cq(rail);
        // SAFETY: the CQ of one of our rails, which are borrowed; `out` has at least `room` places.
        let n = unsafe { ibv_poll_cq(cq, room, out.as_mut_ptr()) };
        n.unsigned_abs() as usize
    }

    /// Takes effect at once: the event can be read when this returns.
    fn fail(&mut self, lane: &mut NullLane<'m>) {
        if lane.provider != self.id {
            return;
        }
        // SAFETY: the QP of a lane of these rails, which is borrowed.
        unsafe { lane.qp.as_mut() }.failed = true;
        self.queue_event(lane.qp, FAILED);
    }

    fn drain(&mut self, lane: &mut NullLane<'m>, wr_id: WrId) -> Result<(), i32> {
        if lane.provider != self.id {
            return Err(EINVAL);
        }
        let mut sge = Sge::default();
        let mut wr = SendWr {
            wr_id: wr_id.0,
            sg_list: &raw mut sge,
            send_flags: SendFlags::SIGNALED,
            ..SendWr::EMPTY
        };
        let mut bad_wr = ptr::null_mut();
        // SAFETY: the QP of a lane that is borrowed along with the rails; a chain of one local wr
        // with one local sge; a local.
        let errno = unsafe { ibv_post_send(lane.qp(), &raw mut wr, &raw mut bad_wr) };
        if errno == 0 { Ok(()) } else { Err(errno) }
    }

    /// Takes effect at once: when this returns the event can be read, and the lane's completions
    /// are gone.
    fn close(&mut self, mut lane: NullLane<'m>) {
        if lane.provider != self.id {
            return;
        }
        let qp = lane.qp();
        // SAFETY: the QP of a lane that is ours now.
        let cq = unsafe { &*qp }.cq();
        // SAFETY: the CQ that `open` gave to the lane, alive for 'm; `self` is borrowed, and the
        // rails are on one thread.
        unsafe { purge(cq, qp) };
        self.queue_event(lane.qp, CLOSED);
    }

    fn next_event(&mut self) -> Option<ProviderEvent> {
        let mut qp = NonNull::new(self.first_unread)?;
        // SAFETY: a QP of the list, an element of the parts; its lane, if it still has one, is not
        // being used while `self` is.
        let state = unsafe { qp.as_mut() };
        let id = state.id;
        let failed = state.unread & FAILED != 0;
        state.unread &= if failed { !FAILED } else { !CLOSED };
        let closed = !failed;
        if state.unread == 0 {
            self.first_unread = state.link;
            if self.first_unread.is_null() {
                self.last_unread = ptr::null_mut();
            }
            state.link = ptr::null_mut();
            if closed {
                state.link = self.free;
                self.free = qp.as_ptr();
            }
        }
        Some(if failed { ProviderEvent::LaneFailed(id) } else { ProviderEvent::LaneClosed(id) })
    }

    /// Returns at once, since every posted wr has completed.
    fn wait(&mut self, _: WaitFor) {}

    fn waker(&self) -> NullWaker {
        NullWaker
    }
}
