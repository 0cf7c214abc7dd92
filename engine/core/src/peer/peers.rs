//! All peers of an engine, and the queues in which they wait for their turn.

use core::ops::{Index, IndexMut};

use super::turns::{Seat, TurnRoom, Turns};
use super::{Peer, PeerState};
use crate::id::PeerId;
use crate::limits::CLASSES;
use crate::page::list::{List, Queued};
use crate::ring::fifo::Fifo;

/// The places of peers, and their queues. Invariants: a peer that [has work](Peer::has_work) of a
/// class, and a rail with room, is in a queue of that class; `ready` and its seat say in which. A
/// peer with suspects is in `trials`, and `in_trials` is true. No place below `first_free` is free.
#[derive(Debug)]
pub(crate) struct Peers<'s> {
    pub(crate) all: &'s mut [Peer],
    pub(crate) first_free: usize,
    pub(crate) turns: Turns<'s>,
    /// Segments that were put aside, since they could not make their deadlines.
    pub(crate) parked: [List<Queued>; CLASSES],
    /// Peers with suspects, in the order in which they are tried.
    pub(crate) trials: Fifo<'s, u16>,
}

impl Index<usize> for Peers<'_> {
    type Output = Peer;

    #[inline]
    fn index(&self, peer: usize) -> &Peer {
        &self.all[peer]
    }
}

impl IndexMut<usize> for Peers<'_> {
    #[inline]
    fn index_mut(&mut self, peer: usize) -> &mut Peer {
        &mut self.all[peer]
    }
}

impl<'s> Peers<'s> {
    pub(crate) fn new(
        all: &'s mut [Peer],
        turns: TurnRoom<'s>,
        seats: &'s mut [Seat],
        trials: &'s mut [u16],
    ) -> Self {
        let (turns, trials) = (Turns::new(turns, seats), Fifo::new(trials));
        Self { all, first_free: 0, turns, parked: [List::EMPTY; CLASSES], trials }
    }

    pub(crate) const fn len(&self) -> usize {
        self.all.len()
    }

    /// The peer named `id`, unless it has been removed.
    pub(crate) fn find(&self, id: PeerId) -> Option<&Peer> {
        let peer = self.all.get(id.index())?;
        (peer.life == id.life && peer.state == PeerState::Up).then_some(peer)
    }

    /// The first free place.
    pub(crate) fn find_free(&self) -> Option<usize> {
        let free = self.all[self.first_free..].iter().position(|peer| peer.state == PeerState::Free);
        free.map(|at| at + self.first_free)
    }

    /// Queues a peer for a turn in a class.
    #[inline]
    pub(crate) fn enroll_class(&mut self, peer: u16, class: usize) {
        self.turns.make_ready(self.all, peer, class);
    }

    /// Queues a peer for a turn in each class in which it has work.
    // A function of its own: it is needed only when a peer has room again that had none, and takes
    // no registers of `poll` so.
    #[inline(never)]
    pub(crate) fn enroll(&mut self, peer: u16) {
        for class in 0..CLASSES {
            if self.all[usize::from(peer)].has_work(class) {
                self.enroll_class(peer, class);
            }
        }
    }

    /// Takes the next peer that could be served over the rails in `open`, and its class.
    #[inline]
    pub(crate) fn next_turn(&mut self, open: u16) -> Option<(u16, usize)> {
        self.turns.next(self.all, open)
    }

    /// Queues a peer at each rail over which it has room for work of `class`, to wait until one of
    /// them is open.
    #[inline]
    pub(crate) fn wait_for_rails(&mut self, peer: u16, class: usize) {
        let rails = self.all[usize::from(peer)].circles.room(class);
        self.turns.wait_for(self.all, peer, class, rails);
    }

    /// Queues a peer that has a suspect, unless it is queued.
    pub(crate) fn queue_trial(&mut self, peer: u16) {
        let p = &mut self.all[usize::from(peer)];
        if !p.in_trials {
            p.in_trials = true;
            self.trials.push(peer);
        }
    }

    /// Whether segments have been put aside.
    #[inline]
    pub(crate) fn any_parked(&self) -> bool {
        self.parked.iter().any(|list| !list.is_empty())
    }
}
