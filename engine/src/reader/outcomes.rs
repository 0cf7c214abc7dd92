//! The connects of a reader that are under way, and its events.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use kvrail_core::id::PeerId;
use kvrail_core::time::Time;
use kvrail_session::{Address, PoolId};

use super::peer::{ConnectError, Connecting, Peer, ReaderEvent};
use super::sessions::ConnectRequest;
use crate::layout::PageLayout;

/// The most losses that are kept for [`Outcomes::next_event`], unless the reader has places for
/// more peers. Beyond them the oldest is dropped. Outcomes of connects are never dropped.
const MAX_LOST: usize = 256;

/// The connects of a reader whose outcomes have not been taken, and all events.
pub(super) struct Outcomes {
    /// The most peers of the reader.
    pub(super) limit: usize,
    /// Connects that are under way, by their sessions' numbers.
    pub(super) under_way: HashMap<u64, UnderWay>,
    /// No connect of `under_way` is to be given up before then.
    pub(super) give_up: Time,
    /// How many connects to an address are under way, and those that wait for them.
    pub(super) addresses: HashMap<Address, Queue>,
    /// The connect that `connect` waits for, and its outcome.
    pub(super) awaited: Option<Connecting>,
    pub(super) arrived: Option<Result<Peer, ConnectError>>,
    pub(super) events: VecDeque<ReaderEvent>,
    /// How many of `events` are outcomes of connects.
    pub(super) untaken: usize,
    /// `events` has some, of which no sleep has been refused for since the last one came or was
    /// taken.
    fresh: bool,
}

/// A connect that is under way.
pub(super) struct UnderWay {
    pub(super) address: Address,
    pub(super) give_up: Time,
}

/// The connects to one address: how many are active, and those that wait.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) active: usize,
    pub(super) waiting: VecDeque<(ConnectRequest, Arc<[PageLayout]>)>,
}

impl Outcomes {
    /// No connect, of a reader with room for this many peers.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            under_way: HashMap::new(),
            give_up: Time::NEVER,
            addresses: HashMap::new(),
            awaited: None,
            arrived: None,
            events: VecDeque::new(),
            untaken: 0,
            fresh: false,
        }
    }

    /// Reports a lost peer, or a pool that came, cannot be read or is gone.
    pub(super) fn push(&mut self, event: ReaderEvent) {
        if self.events.len() - self.untaken >= MAX_LOST.max(self.limit) {
            let oldest = self.events.iter().position(|event| outcome_of(event).is_none());
            oldest.map(|at| self.events.remove(at));
        }
        self.put(event);
    }

    /// A pool is not offered any more: removes the event of its coming, or of its refusal, and
    /// returns whether that was not taken. So pools that come and go while a program takes no
    /// events leave none, and displace none of others.
    pub(super) fn forget_pool(&mut self, peer: PeerId, pool: PoolId) -> bool {
        let came = |event: &ReaderEvent| match event {
            ReaderEvent::PoolCame { peer: of, pool: came } => (*of, came.id()) == (peer, pool),
            ReaderEvent::PoolRefused { peer: of, pool: refused, .. } => (*of, *refused) == (peer, pool),
            _ => false,
        };
        let at = self.events.iter().position(came);
        at.is_some_and(|at| self.events.remove(at).is_some())
    }

    /// Puts an event behind the others, however many there are.
    pub(super) fn put(&mut self, event: ReaderEvent) {
        self.untaken += usize::from(outcome_of(&event).is_some());
        self.events.push_back(event);
        self.fresh = true;
    }

    pub(super) fn next_event(&mut self) -> Option<ReaderEvent> {
        let event = self.events.pop_front()?;
        self.untaken -= usize::from(outcome_of(&event).is_some());
        self.fresh = !self.events.is_empty();
        Some(event)
    }

    /// Whether a sleep is to be refused for events that were not taken: once for those of a program
    /// that takes none.
    pub(super) fn take_fresh(&mut self) -> bool {
        std::mem::take(&mut self.fresh) && !self.events.is_empty()
    }

    /// Removes the outcome of a connect from the events.
    pub(super) fn take_outcome(&mut self, connecting: Connecting) -> Option<ReaderEvent> {
        let at = self.events.iter().position(|event| outcome_of(event) == Some(connecting))?;
        self.untaken -= 1;
        self.events.remove(at)
    }

    /// Connects that wait for others to the same address.
    pub(super) fn waiting(&self) -> usize {
        self.addresses.values().map(|queue| queue.waiting.len()).sum()
    }

    /// The next connect to an address whose turn has come.
    pub(super) fn next_to(&mut self, address: &Address) -> Option<(ConnectRequest, Arc<[PageLayout]>)> {
        self.addresses.get_mut(address)?.waiting.pop_front()
    }

    /// One connect to an address has ended, and none waits for it.
    pub(super) fn leave(&mut self, address: &Address) {
        if let Some(queue) = self.addresses.get_mut(address) {
            queue.active -= 1;
            if queue.active == 0 && queue.waiting.is_empty() {
                self.addresses.remove(address);
            }
        }
    }
}

/// The connect whose outcome an event is.
const fn outcome_of(event: &ReaderEvent) -> Option<Connecting> {
    match *event {
        ReaderEvent::Connected { connecting, .. } | ReaderEvent::NotConnected { connecting, .. } => {
            Some(connecting)
        }
        ReaderEvent::Lost { .. }
        | ReaderEvent::PoolCame { .. }
        | ReaderEvent::PoolRefused { .. }
        | ReaderEvent::PoolGone { .. } => None,
    }
}
