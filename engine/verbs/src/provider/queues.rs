//! The completion queues of all rails, as the engine's thread polls them.

use std::mem;
use std::sync::Arc;

use kvrail_core::id::RailIndex;
use kvrail_core::provider::RailInfo;
use kvrail_core::verbs_abi::Wc;

use super::losses::Losses;
use super::progress::{Progress, Seen};
use crate::encoder::Encoder;
use crate::error::Errno;
use crate::rail::Rail;

/// All rails, the wrs that are outstanding on them, and the rails that are lost.
pub(super) struct Queues {
    pub(super) rails: Vec<RailQueue>,
    pub(super) progress: Progress,
    pub(super) losses: Losses,
}

/// One rail's completion queue, and its lanes.
pub(super) struct RailQueue {
    pub(super) rail: Arc<Rail>,
    pub(super) info: RailInfo,
    /// Lanes whose completions may be in the queue: open ones, those that are being closed, and
    /// closed ones whose last completions may still lie in the queue.
    pub(super) lanes: usize,
    /// How many of `lanes` are closed.
    pub(super) closed: usize,
    pub(super) max_lanes: usize,
    /// Completions that were found while falling asleep: `from .. to` of `stash` are not yet handed
    /// to the engine.
    stash: Box<[Wc]>,
    from: usize,
    to: usize,
    /// The next completion makes the channel readable.
    armed: bool,
    /// Events taken from the channel and not acknowledged.
    events: u32,
}

impl RailQueue {
    fn new(rail: &Arc<Rail>) -> Self {
        let info = rail.info();
        Self {
            info,
            lanes: 0,
            closed: 0,
            max_lanes: (info.cq_entries / rail.depth().max(1)) as usize,
            stash: vec![Wc::default(); info.cq_entries as usize].into_boxed_slice(),
            from: 0,
            to: 0,
            armed: false,
            events: 0,
            rail: Arc::clone(rail),
        }
    }

    /// Whether completions wait in the stash.
    pub(super) const fn has_stashed(&self) -> bool {
        self.from < self.to
    }

    /// Whether the queue was armed, and no event of its channel has been taken since.
    pub(super) const fn is_armed(&self) -> bool {
        self.armed
    }

    /// Takes the events of the channel, which is readable.
    ///
    /// # Errors
    ///
    /// The channel reports no more events: its device is gone.
    pub(super) fn take_events(&mut self) -> Result<(), Errno> {
        let Some(channel) = self.rail.channel() else { return Ok(()) };
        while channel.take()? {
            self.armed = false;
            self.events += 1;
        }
        // The library compares a counter of 32 bits with this one when the queue is destroyed.
        if self.events >= 1 << 16 {
            self.rail.cq().acknowledge(mem::take(&mut self.events));
        }
        Ok(())
    }
}

impl Drop for RailQueue {
    fn drop(&mut self) {
        // A queue with events that were not acknowledged cannot be destroyed.
        self.rail.cq().acknowledge(self.events);
    }
}

impl Queues {
    pub(super) fn new(rails: &[Arc<Rail>]) -> Self {
        Self {
            rails: rails.iter().map(RailQueue::new).collect(),
            progress: Progress::new(),
            losses: Losses::default(),
        }
    }

    /// Polls a rail for the engine: the stash first, then the queue.
    #[inline]
    pub(super) fn poll<E: Encoder>(&mut self, encoder: &mut E, rail: RailIndex, out: &mut [Wc]) -> usize {
        let index = rail.get();
        let Some(queue) = self.rails.get_mut(index) else { return 0 };
        if queue.has_stashed() {
            let n = out.len().min(queue.to - queue.from);
            out[..n].copy_from_slice(&queue.stash[queue.from..queue.from + n]);
            queue.from += n;
            if queue.from == queue.to {
                (queue.from, queue.to) = (0, 0);
            }
            return n;
        }
        let n = self.take(encoder, index, out);
        self.progress.count(rail, &out[..n]);
        n
    }

    /// Takes completions out of a rail's queue, unless the queue is broken.
    #[inline]
    fn take<E: Encoder>(&mut self, encoder: &mut E, rail: usize, out: &mut [Wc]) -> usize {
        if !self.losses.polls(rail) {
            return 0;
        }
        let queue = &mut self.rails[rail];
        // Rails are at most 16.
        match encoder.poll(RailIndex(rail as u8), queue.rail.cq(), out) {
            Ok(n) => {
                if n < out.len() {
                    // The queue is empty, so it holds no completion of a closed lane.
                    queue.lanes -= mem::take(&mut queue.closed);
                }
                n
            }
            Err(_) => {
                self.losses.break_queue(rail);
                0
            }
        }
    }

    /// Arms a rail's queue, if it is not armed and its channel can wake the engine.
    pub(super) fn arm<E: Encoder>(&mut self, encoder: &mut E, rail: RailIndex) {
        let wakes = self.losses.wakes(rail.get());
        let queue = &mut self.rails[rail.get()];
        if wakes && !queue.armed {
            queue.armed = encoder.arm(rail, queue.rail.cq());
        }
    }

    /// Polls a rail's queue into its stash, and returns what the new completions cover.
    pub(super) fn stash<E: Encoder>(&mut self, encoder: &mut E, rail: RailIndex) -> Seen {
        let index = rail.get();
        let to = self.rails[index].to;
        let mut stash = mem::take(&mut self.rails[index].stash);
        let n = self.take(encoder, index, &mut stash[to..]);
        let seen = self.progress.count(rail, &stash[to..to + n]);
        self.rails[index].stash = stash;
        self.rails[index].to = to + n;
        seen
    }
}
