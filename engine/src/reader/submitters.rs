//! Threads that feed a reader: the engine's hub with its mailboxes, and the outcomes of the
//! reader's own thread.

use std::collections::VecDeque;
use std::fmt;

use kvrail_core::batch::{Done, Ticket};
use kvrail_core::engine::Engine;
use kvrail_core::hub::{Hub, HubSubmitter, Mailbox, Outcome};
use kvrail_core::memory::Slot;
use kvrail_core::provider::Provider;
use kvrail_core::time::Time;

use crate::macro_support::MAX_SUBMITTERS;

/// The hub of a reader that was declared with submitters.
#[allow(unreachable_pub, reason = "in the signature of a sealed trait")]
pub struct Submitters<P: Provider> {
    hub: Hub<'static, 'static, MAX_SUBMITTERS>,
    /// Handles that have not been given out.
    spare: Vec<HubSubmitter<'static, 'static, P::Waker>>,
    /// Batches of the reader's own thread that are done.
    done: VecDeque<Done<'static>>,
    /// Batches of the reader's own thread that are overdue.
    overdue: VecDeque<Ticket>,
    /// Slots of submitters that have been dropped.
    orphans: VecDeque<Slot>,
}

impl<P: Provider> Submitters<P> {
    pub(super) fn new<const N: usize, const NEWS: usize>(
        engine: &Engine<'static, P>,
        mailboxes: impl Iterator<Item = &'static mut Mailbox<'static, N, NEWS>>,
    ) -> Self {
        let mut hub = Hub::new();
        // `engine!` refuses more mailboxes than the hub has places.
        let spare = mailboxes.map_while(|mailbox| hub.submitter(engine, mailbox).ok()).collect();
        let (batches, _) = engine.capacity();
        let (done, overdue) = (VecDeque::with_capacity(batches), VecDeque::with_capacity(2 * batches));
        Self { hub, spare, done, overdue, orphans: VecDeque::new() }
    }

    /// A handle that has not been given out yet.
    pub(super) fn give(&mut self) -> Option<HubSubmitter<'static, 'static, P::Waker>> {
        self.spare.pop()
    }

    /// Takes in submitted batches, polls the engine, and passes outcomes on to their submitters.
    pub(super) fn turn(&mut self, engine: &mut Engine<'static, P>, now: Time) {
        let Self { hub, done, overdue, orphans, .. } = self;
        hub.turn(engine, now, |outcome| match outcome {
            Outcome::Done(batch) => done.push_back(batch),
            Outcome::Overdue(ticket, _) => {
                // The queue is full of notices that the reader has not taken: drop the oldest.
                if overdue.len() == overdue.capacity() {
                    overdue.pop_front();
                }
                overdue.push_back(ticket);
            }
            Outcome::Orphan(slot) => orphans.push_back(slot),
            // Of an earlier hub's batches, which a reader has none of; but no slot is lost.
            Outcome::Page(.., page) => orphans.push_back(page.slot),
            // Submitters alone need these: `Reader::submit` refuses a batch at once, and the
            // reader's own thread knows when the reader ends.
            Outcome::Rejected(_) | Outcome::ReaderGone(_) => {}
        });
    }

    pub(super) fn next_done(&mut self) -> Option<Done<'static>> {
        self.done.pop_front()
    }

    pub(super) fn next_overdue(&mut self) -> Option<Ticket> {
        self.overdue.pop_front()
    }

    pub(super) fn next_orphan(&mut self) -> Option<Slot> {
        self.orphans.pop_front()
    }

    /// Whether a batch of the reader's own thread is done, or an order waits to be taken in.
    pub(super) fn has_work(&mut self) -> bool {
        !self.done.is_empty() || self.hub.has_orders()
    }
}

impl<P: Provider> fmt::Debug for Submitters<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitters").field("spare", &self.spare.len()).finish_non_exhaustive()
    }
}
