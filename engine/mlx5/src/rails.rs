//! All rails of one thread: their completion queues, doorbell registers and send queues.
#![allow(unsafe_code, reason = "queues are raw memory, on the promise of the caller")]

use kvrail_core::id::{MAX_RAILS, RailIndex, WrId};
use kvrail_core::provider::{Commit, Post as _, Read};
use kvrail_core::verbs_abi::{Wc, WcStatus};

use crate::completion_queue::CompletionQueue;
use crate::cqe::{CqeOutcome, DirectCqe};
use crate::error::{CqeError, DirectQueueError};
use crate::memory::{CompletionQueueMemory, CqEntries, Register, SendQueueMemory};
use crate::post::DirectPost;
use crate::send_queue::{SendQueue, Trust};

/// The queue is distrusted: nothing can be posted to it.
const EIO: i32 = 5;

/// A place for a send queue.
#[derive(Debug)]
pub struct QueuePlace {
    /// Rail and number of the QP that is open here, or was; 0 if none ever was.
    key: u32,
    queue: Option<SendQueue>,
}

impl QueuePlace {
    /// A place that was never used.
    pub const EMPTY: Self = Self { key: 0, queue: None };
}

/// The place of a send queue that is open. It is not `Clone`: closing the queue consumes it.
#[derive(Debug)]
pub struct QueueRef {
    place: u32,
    rail: RailIndex,
}

/// A send queue whose device wrote what cannot be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distrusted {
    /// The rail.
    pub rail: RailIndex,
    /// The QP.
    pub qp_num: u32,
    /// What the device wrote.
    pub error: CqeError,
}

/// The completion queue and the doorbell register of a rail.
#[derive(Debug)]
struct DirectRail {
    cq: CompletionQueue,
    register: Option<Register>,
}

/// All rails of one thread. `P` is memory for the send queues, `&mut [QueuePlace]` or a box: a
/// power of two, and twice as many places as queues, so that a queue is found by its QP's number in
/// a step or two.
#[derive(Debug)]
pub struct DirectRails<P> {
    rails: [Option<DirectRail>; MAX_RAILS],
    places: P,
    distrusted: Option<Distrusted>,
}

/// The key of a QP. No QP has number 0, so no key is 0.
#[inline]
const fn key(rail: RailIndex, qp_num: u32) -> u32 {
    (rail.0 as u32) << 24 | qp_num
}

/// Where the search for a key begins, in a table of `mask` + 1 places. A device gives numbers one
/// after the other, so neighbours are put beside each other, and rails far from each other.
#[inline]
const fn first_place(key: u32, mask: usize) -> usize {
    (key ^ (key >> 24).wrapping_mul(0x9E37_79B9)) as usize & mask
}

/// The place whose key this is, if there is one.
#[inline]
fn find(places: &[QueuePlace], key: u32) -> Option<usize> {
    let mask = places.len() - 1;
    let first = first_place(key, mask);
    for step in 0..places.len() {
        let at = (first + step) & mask;
        match places[at].key {
            found if found == key => return Some(at),
            // Places are given up, never emptied: behind this one no search has gone.
            0 => return None,
            _ => {}
        }
    }
    None
}

impl<P: AsMut<[QueuePlace]>> DirectRails<P> {
    /// Rails without queues, which [`add_rail`](Self::add_rail) and [`open`](Self::open) add.
    ///
    /// # Errors
    ///
    /// The number of places is no power of two from 2 to 2^20.
    pub fn new(mut places: P) -> Result<Self, DirectQueueError> {
        let table = places.as_mut();
        let (entries, least, most) = (table.len(), 2, 1 << 20);
        if !entries.is_power_of_two() || entries < least || entries > most {
            return Err(DirectQueueError::Entries { what: "table of send queues", entries, least, most });
        }
        table.iter_mut().for_each(|place| *place = QueuePlace::EMPTY);
        Ok(Self { rails: [const { None }; MAX_RAILS], places, distrusted: None })
    }

    /// Adds a rail with its completion queue.
    ///
    /// # Errors
    ///
    /// There is such a rail, or the queue is not one that this crate reads.
    ///
    /// # Safety
    ///
    /// The entries of the queue are valid for reads and writes as long as this value lives, and so
    /// are the words of its doorbell record and, if it has one, the first 64 bytes of its register
    /// page for writes. No other code uses them; only the device does. No entry has been read.
    pub unsafe fn add_rail(
        &mut self,
        rail: RailIndex,
        memory: CompletionQueueMemory,
    ) -> Result<(), DirectQueueError> {
        memory.check()?;
        match self.rails.get_mut(rail.get()) {
            Some(place @ None) => {
                // SAFETY: checked just now; the rest is our caller's promise.
                let entries = unsafe { CqEntries::new(memory) };
                *place = Some(DirectRail { cq: CompletionQueue::new(entries), register: None });
                Ok(())
            }
            _ => Err(DirectQueueError::Rail { rail: rail.0 }),
        }
    }

    /// Opens the send queue of a QP that completes into the rail's queue.
    ///
    /// # Errors
    ///
    /// There is no such rail, no place is left, or the queue is not one that this crate writes.
    ///
    /// # Safety
    ///
    /// The blocks, the notes and the words of the doorbell record are valid for reads and writes
    /// until the queue is [closed](Self::close), and the doorbell register for writes of twice its
    /// bytes, at least 8, as long as this value lives. No other code uses them; of the blocks and
    /// the record only the device does. Nothing has been posted to the QP, and it posts what is
    /// written to these blocks when its register says so. A QP that had the same number has been
    /// destroyed.
    pub unsafe fn open(
        &mut self,
        rail: RailIndex,
        memory: SendQueueMemory,
    ) -> Result<QueueRef, DirectQueueError> {
        let this = self.rails.get_mut(rail.get()).and_then(Option::as_mut);
        let this = this.ok_or(DirectQueueError::Rail { rail: rail.0 })?;
        // SAFETY: our caller's promise.
        let queue = unsafe { SendQueue::new(&memory)? };
        let qp_num = memory.qp_num;
        match &this.register {
            Some(register) if register.register() == memory.register => {}
            Some(_) => return Err(DirectQueueError::OtherRegister { qp_num }),
            // SAFETY: `SendQueue::new` has checked it; the rest is our caller's promise.
            None => this.register = Some(unsafe { Register::new(memory.register) }),
        }
        let (places, key) = (self.places.as_mut(), key(rail, qp_num));
        let mask = places.len() - 1;
        let at = match find(places, key) {
            Some(at) if places[at].queue.is_some() => return Err(DirectQueueError::Twice { qp_num }),
            Some(at) => at,
            None => {
                let first = first_place(key, mask);
                let mut free = (0..places.len()).map(|step| (first + step) & mask);
                let free = free.find(|&at| places[at].queue.is_none());
                free.ok_or(DirectQueueError::Full { places: mask + 1 })?
            }
        };
        this.cq.forget(qp_num);
        places[at] = QueuePlace { key, queue: Some(queue) };
        // A place of 2^20.
        Ok(QueueRef { place: at as u32, rail })
    }

    /// Gives a send queue up. What still completes of it is passed over.
    pub fn close(&mut self, queue: QueueRef) {
        if let Some(place) = self.places.as_mut().get_mut(queue.place as usize) {
            place.queue = None;
        }
    }

    /// Begins a commit. `None` only for a reference of other rails than these.
    ///
    /// # Safety
    ///
    /// The QP has not been destroyed and is not while the commit lives. Each READ that is added and
    /// committed may be executed, as
    /// [`Provider::begin`](kvrail_core::provider::Provider::begin) has it.
    #[inline]
    pub unsafe fn begin(&mut self, queue: &QueueRef) -> Option<DirectPost<'_>> {
        let place = self.places.as_mut().get_mut(queue.place as usize)?;
        let rail = self.rails.get_mut(queue.rail.get())?.as_mut()?;
        Some(DirectPost::new(place.queue.as_mut()?, rail.register.as_mut()?))
    }

    /// Posts a signaled READ that moves no byte.
    ///
    /// # Errors
    ///
    /// Nothing was posted: EIO (5) where the queue is distrusted, or ENOMEM (12).
    ///
    /// # Safety
    ///
    /// The QP has not been destroyed.
    pub unsafe fn drain(&mut self, queue: &QueueRef, wr_id: WrId) -> Result<(), i32> {
        // SAFETY: our caller's promise; no READ that is added moves a byte.
        let Some(mut post) = (unsafe { self.begin(queue) }) else { return Err(EIO) };
        let read = Read { wr_id, remote_addr: 0, local_addr: 0, len: 0, rkey: 0, lkey: 0, signaled: true };
        post.write(&read, &[]);
        match post.commit() {
            Commit::All => Ok(()),
            Commit::Prefix { errno, .. } | Commit::Unknown { errno } => Err(errno),
        }
    }

    /// Takes completions of a rail, oldest first, into the front of `out`, and returns how many.
    ///
    /// Entries of QPs that are not open are passed over: a destroyed QP may have left some. An
    /// entry that cannot be right becomes a failure of its QP's oldest wr, `IBV_WC_GENERAL_ERR`
    /// with the code of the [`CqeError`] as its vendor's error, and the QP is distrusted.
    #[inline]
    pub fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        let Some(Some(this)) = self.rails.get_mut(rail.get()) else { return 0 };
        let places = self.places.as_mut();
        let (mut n, mut read) = (0, false);
        // Entries that give no completion are bounded, too: by a lap of the queue.
        let mut passed = 0;
        while n < out.len() && passed < this.cq.entries() {
            let Some(entry) = this.cq.next() else { break };
            read = true;
            let qp_num = DirectCqe::qp_num(entry.last);
            let at = find(places, key(rail, qp_num));
            let Some(queue) = at.and_then(|at| places[at].queue.as_mut()) else {
                passed += 1;
                continue;
            };
            if queue.trust == Trust::None {
                passed += 1;
                continue;
            }
            let parsed = DirectCqe::parse(entry.last, || entry.before());
            match parsed.and_then(|cqe| queue.complete(cqe).map(|wr_id| (wr_id, cqe.outcome))) {
                Ok((wr_id, outcome)) => {
                    out[n] = match outcome {
                        CqeOutcome::Success => Wc::new(wr_id, WcStatus::SUCCESS, 0, qp_num),
                        CqeOutcome::Error { syndrome, vendor } => {
                            Wc::new(wr_id, syndrome.status(), vendor.into(), qp_num)
                        }
                    };
                    n += 1;
                }
                Err(error) => {
                    queue.trust = Trust::None;
                    self.distrusted.get_or_insert(Distrusted { rail, qp_num, error });
                    match queue.oldest() {
                        Some(wr_id) => {
                            out[n] = Wc::new(wr_id, WcStatus::GENERAL_ERR, error.code(), qp_num);
                            n += 1;
                        }
                        // Nothing is outstanding: the next commit is refused.
                        None => passed += 1,
                    }
                }
            }
        }
        if read {
            this.cq.give_back();
        }
        n
    }

    /// Arms a rail's completion queue: its next completion makes the rail's channel readable. It is
    /// called once for the first event, and then once after each event. Returns false where the
    /// queue has no register for it.
    pub fn arm(&mut self, rail: RailIndex) -> bool {
        let rail = self.rails.get_mut(rail.get()).and_then(Option::as_mut);
        rail.is_some_and(|rail| rail.cq.arm())
    }

    /// Whether there is something for [`take_distrusted`](Self::take_distrusted) to tell.
    #[inline]
    #[must_use]
    pub const fn has_distrusted(&self) -> bool {
        self.distrusted.is_some()
    }

    /// The first queue that was distrusted since this was asked last, for logs.
    pub fn take_distrusted(&mut self) -> Option<Distrusted> {
        self.distrusted.take()
    }
}
