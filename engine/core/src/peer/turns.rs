//! Which peer has the next turn.
//!
//! A peer with work is *ready* until its turn shows that all rails over which it has room are at
//! their caps. Then it waits in the queue of each of these rails, and no call looks at it until one
//! of them has room. So the work of a call depends on the peers that can be served, not on those
//! that wait.

use super::waits::{WaitRoom, Waits};
use super::{NO_SEAT, Peer};
use crate::limits::{CLASSES, MAX_RAILS};
use crate::ring::fifo::Fifo;

/// Urgent turns for each turn of the background class, while both classes have a peer to serve.
const URGENT_SHARE: u32 = 15;

/// In a seat: no peer has it.
const VACANT: u16 = u16::MAX;

/// The place of a peer in the queues of rails. Only a peer that has a lane can wait for a rail, and
/// only such a peer has a seat: so these queues are as long as the storage has lanes, and an idle
/// peer costs none of their memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    /// The peer, or `VACANT`.
    peer: u16,
    /// Of a vacant seat: the next vacant one, or `NO_SEAT`.
    next: u16,
}

impl Seat {
    /// The vacant seat at place `at` of `seats`.
    pub(crate) const fn vacant(at: usize, seats: usize) -> Self {
        // A storage has at most MAX_PLACES lanes.
        let next = if at + 1 < seats { at as u16 + 1 } else { NO_SEAT };
        Self { peer: VACANT, next }
    }
}

/// The queues. A peer is in each at most once.
#[derive(Debug)]
pub(crate) struct Turns<'s> {
    /// A peer's flag `ready` says in which of these it is.
    ready: [Fifo<'s, u16>; CLASSES],
    /// Seats of peers that wait, per class and rail. They outlast the peer: a seat leaves a queue
    /// when its turn comes.
    capped: Waits<'s>,
    seats: &'s mut [Seat],
    /// First of the vacant seats.
    vacant: u16,
    /// Per class, the rails in whose queue a peer waits.
    waiting: [u16; CLASSES],
    /// Per class, whether the last turn went to a peer that had waited for a rail.
    waited: [bool; CLASSES],
    /// Urgent turns since the last one of the background class.
    urgent: u32,
}

/// Memory for the queues.
#[derive(Debug)]
pub(crate) struct TurnRoom<'s> {
    /// For each class, a place for each peer.
    pub(crate) ready: [&'s mut [u16]; CLASSES],
    pub(crate) capped: WaitRoom<'s>,
}

impl<'s> Turns<'s> {
    /// Empty queues. `seats` are vacant, one for each place of a lane.
    pub(crate) fn new(room: TurnRoom<'s>, seats: &'s mut [Seat]) -> Self {
        Self {
            ready: room.ready.map(Fifo::new),
            capped: Waits::new(room.capped),
            seats,
            vacant: 0,
            waiting: [0; CLASSES],
            waited: [false; CLASSES],
            urgent: 0,
        }
    }

    /// Gives a peer a seat, which gets its first lane. There is one, since there are as many as
    /// places of lanes, and each seated peer has such a place.
    pub(crate) fn take_seat(&mut self, peer: u16) -> u16 {
        let seat = self.vacant;
        let place = &mut self.seats[usize::from(seat)];
        self.vacant = place.next;
        place.peer = peer;
        seat
    }

    /// Takes a seat back from a peer that has lost its last lane.
    pub(crate) fn leave_seat(&mut self, seat: u16) {
        let place = &mut self.seats[usize::from(seat)];
        (place.peer, place.next) = (VACANT, self.vacant);
        self.vacant = seat;
    }

    /// The peer of the seat at this place, if it has one.
    pub(crate) fn peer_at(&self, seat: usize) -> Option<u16> {
        self.seats.get(seat).map(|seat| seat.peer).filter(|&peer| peer != VACANT)
    }

    /// How many seats there are.
    pub(crate) const fn seats(&self) -> usize {
        self.seats.len()
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

    /// Has a peer with lanes wait until one of `rails` is open.
    pub(crate) fn wait_for(&mut self, peers: &[Peer], peer: u16, class: usize, rails: u16) {
        let at = peers[usize::from(peer)].seat;
        if at == NO_SEAT {
            return;
        }
        self.waiting[class] |= rails;
        let mut left = rails;
        while left != 0 {
            self.capped.push(class, left.trailing_zeros() as usize, at);
            left &= left - 1;
        }
    }

    /// Takes the next peer that could be served over the rails in `open`, and its class. Peers that
    /// waited for a rail and peers that are ready alternate: otherwise a few peers that fill a rail
    /// whenever it has room would keep ready peers from ever being served. The peer leaves this one
    /// queue, and stays in the others.
    pub(crate) fn next(&mut self, peers: &mut [Peer], open: u16) -> Option<(u16, usize)> {
        loop {
            let (peer, class) = self.next_in_queue(peers, open)?;
            // The peer that waited has lost its lanes since.
            if peer != VACANT {
                return Some((peer, class));
            }
        }
    }

    /// The first of the queue whose turn it is: a peer, or `VACANT`.
    #[inline]
    fn next_in_queue(&mut self, peers: &mut [Peer], open: u16) -> Option<(u16, usize)> {
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
        let (seat, more) = self.capped.pop(class, rail)?;
        if !more {
            self.waiting[class] &= !(1 << rail);
        }
        Some((self.seats[usize::from(seat)].peer, class))
    }
}

#[cfg(test)]
mod tests {
    use super::super::waits::{Groups, QUEUES};
    use super::*;
    use std::vec::Vec;

    const PEERS: usize = 4;

    struct Rooms {
        ready: [[u16; PEERS]; CLASSES],
        bits: ([u32; PEERS], [u32; QUEUES]),
        behind: ([u16; PEERS], [u16; QUEUES]),
        seats: [Seat; PEERS],
    }

    fn rooms() -> Rooms {
        let seats = core::array::from_fn(|at| Seat::vacant(at, PEERS));
        let (bits, behind) = (([0; PEERS], [0; QUEUES]), ([0; PEERS], [0; QUEUES]));
        Rooms { ready: [[0; PEERS]; CLASSES], bits, behind, seats }
    }

    /// Queues, and peers that all have a seat.
    fn turns(rooms: &mut Rooms) -> (Turns<'_>, Vec<Peer>) {
        let bits = Groups::new(&mut rooms.bits.0, &mut rooms.bits.1);
        let behind = Groups::new(&mut rooms.behind.0, &mut rooms.behind.1);
        let ready = rooms.ready.each_mut().map(|room| &mut room[..]);
        let room = TurnRoom { ready, capped: WaitRoom { bits, behind } };
        let mut turns = Turns::new(room, &mut rooms.seats);
        let peers = (0..PEERS as u16).map(|peer| Peer { seat: turns.take_seat(peer), ..Peer::EMPTY });
        let peers = peers.collect();
        (turns, peers)
    }

    #[test]
    fn a_peer_that_lost_its_lanes_has_no_turn_and_its_seat_serves_another() {
        let mut rooms = rooms();
        let (mut turns, mut peers) = turns(&mut rooms);
        turns.wait_for(&peers, 1, 0, 0b01);
        let seat = core::mem::replace(&mut peers[1].seat, NO_SEAT);
        turns.leave_seat(seat);
        assert!(turns.any(0b01), "the seat is still in the queue");
        assert_eq!(turns.next(&mut peers, 0b01), None);
        turns.wait_for(&peers, 1, 0, 0b01);
        assert!(!turns.any(0b01), "a peer without lanes waits for no rail");
        // A seat that is taken while it is in a queue is in that queue once.
        turns.wait_for(&peers, 2, 0, 0b01);
        let seat = core::mem::replace(&mut peers[2].seat, NO_SEAT);
        turns.leave_seat(seat);
        peers[1].seat = turns.take_seat(1);
        assert_eq!(peers[1].seat, seat);
        turns.wait_for(&peers, 1, 0, 0b01);
        assert_eq!(turns.next(&mut peers, 0b01), Some((1, 0)));
        assert_eq!(turns.next(&mut peers, 0b01), None);
    }

    #[test]
    fn a_peer_that_waits_for_a_rail_is_found_when_that_rail_is_open_and_not_before() {
        let mut rooms = rooms();
        let (mut turns, mut peers) = turns(&mut rooms);
        turns.wait_for(&peers, 1, 0, 0b0110);
        turns.wait_for(&peers, 2, 0, 0b0100);
        turns.wait_for(&peers, 1, 0, 0b0110);
        assert!(!turns.any(0b1001) && turns.any(0b0100));
        assert_eq!(turns.next(&mut peers, 0b1001), None);
        assert_eq!(turns.next(&mut peers, 0b0100), Some((1, 0)));
        assert_eq!(turns.next(&mut peers, 0b0100), Some((2, 0)));
        assert_eq!(turns.next(&mut peers, 0b0100), None);
        assert_eq!(turns.next(&mut peers, 0b0010), Some((1, 0)), "it was in both queues");
        assert!(!turns.any(u16::MAX));
        assert!(!turns.any(u16::MAX));
    }

    #[test]
    fn an_urgent_peer_whose_rail_is_at_its_cap_does_not_keep_the_background_waiting() {
        let mut rooms = rooms();
        let (mut turns, mut peers) = turns(&mut rooms);
        turns.wait_for(&peers, 0, 0, 0b01);
        turns.make_ready(&mut peers, 1, 1);
        assert_eq!(turns.next(&mut peers, 0b10), Some((1, 1)));
    }

    #[test]
    fn a_ready_peer_has_its_turn_among_peers_that_wait_for_a_rail_again_and_again() {
        let mut rooms = rooms();
        let (mut turns, mut peers) = turns(&mut rooms);
        for peer in 0..3 {
            turns.wait_for(&peers, peer, 0, 0b01);
        }
        turns.make_ready(&mut peers, 3, 0);
        let mut order = Vec::new();
        for _ in 0..64 {
            let (peer, class) = turns.next(&mut peers, 0b01).unwrap();
            turns.wait_for(&peers, peer, class, 0b01);
            order.push(peer);
        }
        assert_eq!(order[..4], [0, 3, 1, 2]);
        for round in order.chunks(PEERS) {
            assert!((0..PEERS as u16).all(|peer| round.contains(&peer)), "each once in {round:?}");
        }
    }

    #[test]
    fn the_background_has_one_turn_in_sixteen() {
        let mut rooms = rooms();
        let (mut turns, mut peers) = turns(&mut rooms);
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
