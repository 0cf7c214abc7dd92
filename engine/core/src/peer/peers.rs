//! All peers of an engine, and in which order they are served.

use core::ops::{Index, IndexMut};

use super::turns::{TurnRoom, Turns};
use super::{Peer, PeerState};
use crate::id::PeerId;
use crate::limits::CLASSES;
use crate::page::list::{List, Queued};
use crate::ring::fifo::Fifo;

/// The places of peers, and the queues in which they stand.
///
/// Invariants: a peer that [has work](Peer::has_work) of a class and a rail with room stands in a
/// queue of that class, by its own flags (`ready`, `capped`). A peer with suspects stands in
/// `trials` (`in_trials`). No place below `first_free` is free.
#[derive(Debug)]
pub(crate) struct Peers<'s> {
    pub(crate) all: &'s mut [Peer],
    pub(crate) first_free: usize,
    pub(crate) turns: Turns<'s>,
    /// Segments put aside because they could not make their deadlines.
    pub(crate) parked: [List<Queued>; CLASSES],
    /// Peers with wrs that are suspected of killing lanes.
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
    pub(crate) fn new(all: &'s mut [Peer], turns: [TurnRoom<'s>; CLASSES], trials: &'s mut [u16]) -> Self {
        let (turns, trials) = (Turns::new(turns), Fifo::new(trials));
        Self { all, first_free: 0, turns, parked: [List::EMPTY; CLASSES], trials }
    }

    pub(crate) const fn len(&self) -> usize {
        self.all.len()
    }

    /// The peer that has this name, while it is connected.
    pub(crate) fn find(&self, id: PeerId) -> Option<&Peer> {
        let peer = self.all.get(id.index())?;
        (peer.life == id.life && peer.state == PeerState::Up).then_some(peer)
    }

    /// A free place.
    pub(crate) fn find_free(&self) -> Option<usize> {
        let free = self.all[self.first_free..].iter().position(|peer| peer.state == PeerState::Free);
        free.map(|at| at + self.first_free)
    }

    /// Has a peer take its turn in a class.
    #[inline]
    pub(crate) fn enroll_class(&mut self, peer: u16, class: usize) {
        self.turns.make_ready(self.all, peer, class);
    }

    /// Has a peer take its turn in the classes in which it has work.
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

    /// Has a peer wait until one of the rails is open over which it has room.
    #[inline]
    pub(crate) fn wait_for_rails(&mut self, peer: u16, class: usize) {
        let rails = self.all[usize::from(peer)].room;
        self.turns.wait_for(self.all, peer, class, rails);
    }

    /// A peer has a suspect: it is to be looked after.
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
