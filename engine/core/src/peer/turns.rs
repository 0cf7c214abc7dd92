//! Which peer has the next turn.
//!
//! A peer with work is *ready* until its turn shows that all rails over which it has room are at
//! their caps. Then it waits in the queue of each of these rails, and no call looks at it until one
//! of them has room. So the work of a call depends on the peers that can be served, not on those
//! that wait.

use super::Peer;
use crate::limits::{CLASSES, MAX_RAILS};
use crate::ring::fifo::Fifo;

/// Urgent turns for each turn of the background class, while both classes have a peer to serve.
const URGENT_SHARE: u32 = 15;

/// The queues. A peer is in each at most once, and its flags `ready` and `capped` say in which.
#[derive(Debug)]
pub(crate) struct Turns<'s> {
    ready: [Fifo<'s, u16>; CLASSES],
    /// Peers that wait, per class and rail.
    capped: [[Fifo<'s, u16>; MAX_RAILS]; CLASSES],
    /// Per class, the rails in whose queue a peer waits.
    waiting: [u16; CLASSES],
    /// Per class, whether the last turn went to a peer that had waited for a rail.
    waited: [bool; CLASSES],
    /// Urgent turns since the last one of the background class.
    urgent: u32,
}

/// Memory for the queues of one class: one for ready peers, one per rail.
pub(crate) type TurnRoom<'s> = [&'s mut [u16]; 1 + MAX_RAILS];

impl<'s> Turns<'s> {
    pub(crate) fn new(rooms: [TurnRoom<'s>; CLASSES]) -> Self {
        let [urgent, background] = rooms.map(|[ready, rails @ ..]| (Fifo::new(ready), rails.map(Fifo::new)));
        Self {
            ready: [urgent.0, background.0],
            capped: [urgent.1, background.1],
            waiting: [0; CLASSES],
            waited: [false; CLASSES],
            urgent: 0,
        }
    }

    /// Whether a peer of `class` could be served over the rails in `open`.
    #[inline]
    fn any_of(&self, class: usize, open: u16) -> bool {
        !self.ready[class].is_empty() || self.waiting[class] & open != 0
    }

    /// Whether a peer could be served over the rails in `open`.
    #[inline]
    pub(crate) fn any(&self, open: u16) -> bool {
        self.any_of(0, open) || self.any_of(1, open)
    }

    /// Makes a peer ready, unless it is.
    #[inline]
    pub(crate) fn make_ready(&mut self, peers: &mut [Peer], peer: u16, class: usize) {
        let p = &mut peers[usize::from(peer)];
        if p.ready & (1 << class) == 0 {
            p.ready |= 1 << class;
            self.ready[class].push(peer);
        }
    }

    /// Has a peer wait until one of `rails` is open.
    pub(crate) fn wait_for(&mut self, peers: &mut [Peer], peer: u16, class: usize, rails: u16) {
        let p = &mut peers[usize::from(peer)];
        let mut new = rails & !p.capped[class];
        p.capped[class] |= rails;
        self.waiting[class] |= rails;
        while new != 0 {
            self.capped[class][new.trailing_zeros() as usize % MAX_RAILS].push(peer);
            new &= new - 1;
        }
    }

    /// Takes the next peer that could be served over the rails in `open`, and its class. Peers that
    /// waited for a rail and peers that are ready alternate: otherwise a few peers that fill a rail
    /// whenever it has room would keep ready peers from ever being served. The peer leaves this one
    /// queue, and stays in the others.
    pub(crate) fn next(&mut self, peers: &mut [Peer], open: u16) -> Option<(u16, usize)> {
        let class = match (self.any_of(0, open), self.any_of(1, open)) {
            (false, false) => return None,
            (true, false) => 0,
            (false, true) => 1,
            (true, true) => usize::from(self.urgent >= URGENT_SHARE),
        };
        self.urgent = if class == 0 { self.urgent.saturating_add(1) } else { 0 };
        let waiting = self.waiting[class] & open;
        self.waited[class] = waiting != 0 && (!self.waited[class] || self.ready[class].is_empty());
        if !self.waited[class] {
            let peer = self.ready[class].pop()?;
            peers[usize::from(peer)].ready &= !(1 << class);
            return Some((peer, class));
        }
        let rail = waiting.trailing_zeros() as usize % MAX_RAILS;
        let queue = &mut self.capped[class][rail];
        let peer = queue.pop()?;
        if queue.is_empty() {
            self.waiting[class] &= !(1 << rail);
        }
        peers[usize::from(peer)].capped[class] &= !(1 << rail);
        Some((peer, class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const PEERS: usize = 4;
    type Rooms = [[[u16; PEERS]; 1 + MAX_RAILS]; CLASSES];

    fn turns(rooms: &mut Rooms) -> Turns<'_> {
        let [urgent, background] = rooms;
        Turns::new([urgent, background].map(|class| class.each_mut().map(|room| &mut room[..])))
    }

    fn peers() -> Vec<Peer> {
        (0..PEERS).map(|_| Peer::EMPTY).collect()
    }

    #[test]
    fn a_peer_that_waits_for_a_rail_is_found_when_that_rail_is_open_and_not_before() {
        let (mut rooms, mut peers) = ([[[0; PEERS]; 1 + MAX_RAILS]; CLASSES], peers());
        let mut turns = turns(&mut rooms);
        turns.wait_for(&mut peers, 1, 0, 0b0110);
        turns.wait_for(&mut peers, 2, 0, 0b0100);
        turns.wait_for(&mut peers, 1, 0, 0b0110);
        assert!(!turns.any(0b1001) && turns.any(0b0100));
        assert_eq!(turns.next(&mut peers, 0b1001), None);
        assert_eq!(turns.next(&mut peers, 0b0100), Some((1, 0)));
        assert_eq!(turns.next(&mut peers, 0b0100), Some((2, 0)));
        assert_eq!(turns.next(&mut peers, 0b0100), None);
        assert_eq!(turns.next(&mut peers, 0b0010), Some((1, 0)), "it was in both queues");
        assert!(!turns.any(u16::MAX));
        assert!(peers.iter().all(|peer| peer.capped == [0; CLASSES]));
    }

    #[test]
    fn an_urgent_peer_whose_rail_is_at_its_cap_does_not_keep_the_background_waiting() {
        let (mut rooms, mut peers) = ([[[0; PEERS]; 1 + MAX_RAILS]; CLASSES], peers());
        let mut turns = turns(&mut rooms);
        turns.wait_for(&mut peers, 0, 0, 0b01);
        turns.make_ready(&mut peers, 1, 1);
        assert_eq!(turns.next(&mut peers, 0b10), Some((1, 1)));
    }

    #[test]
    fn a_ready_peer_has_its_turn_among_peers_that_wait_for_a_rail_again_and_again() {
        let (mut rooms, mut peers) = ([[[0; PEERS]; 1 + MAX_RAILS]; CLASSES], peers());
        let mut turns = turns(&mut rooms);
        for peer in 0..3 {
            turns.wait_for(&mut peers, peer, 0, 0b01);
        }
        turns.make_ready(&mut peers, 3, 0);
        let mut order = Vec::new();
        for _ in 0..8 {
            let (peer, class) = turns.next(&mut peers, 0b01).unwrap();
            turns.wait_for(&mut peers, peer, class, 0b01);
            order.push(peer);
        }
        assert_eq!(order, [0, 3, 1, 2, 0, 3, 1, 2]);
    }

    #[test]
    fn the_background_has_one_turn_in_sixteen() {
        let (mut rooms, mut peers) = ([[[0; PEERS]; 1 + MAX_RAILS]; CLASSES], peers());
        let mut turns = turns(&mut rooms);
        turns.make_ready(&mut peers, 3, 1);
        let mut classes = Vec::new();
        for _ in 0..64 {
            turns.make_ready(&mut peers, 2, 0);
            let (peer, class) = turns.next(&mut peers, 0).unwrap();
            turns.make_ready(&mut peers, peer, class);
            classes.push(class);
        }
        let turns: Vec<_> = (0..64).filter(|&i| classes[i] == 1).collect();
        assert_eq!(turns, [15, 31, 47, 63]);
    }
}
