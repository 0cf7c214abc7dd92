//! The heap of peers with lanes to be requested, ordered by when that may be.

use super::Repairs;
use crate::limits::narrow;
use crate::peer::missing::{Key, OUT};

impl Repairs<'_> {
    /// Brings the peer's place in the heap up to date.
    pub(super) fn update(&mut self, peer: u16) {
        let index = usize::from(peer);
        match (self.key_of(peer), self.peers[index].heap) {
            (None, OUT) => {}
            (None, at) => self.remove(usize::from(at)),
            (Some(key), OUT) => {
                self.peers[index].set_key(key);
                self.heap[self.len] = peer;
                self.len += 1;
                self.sift_up(self.len - 1);
            }
            (Some(key), at) => {
                self.peers[index].set_key(key);
                let at = self.sift_up(usize::from(at));
                self.sift_down(at);
            }
        }
    }

    /// Brings every peer's place in the heap up to date. It walks over all peers, so only events of
    /// ports call it.
    pub(super) fn update_all(&mut self) {
        // A storage has at most MAX_PLACES peers.
        (0..self.peers.len()).for_each(|peer| self.update(narrow(peer)));
    }

    fn remove(&mut self, at: usize) {
        self.peers[usize::from(self.heap[at])].heap = OUT;
        self.len -= 1;
        if at < self.len {
            self.heap[at] = self.heap[self.len];
            let at = self.sift_up(at);
            self.sift_down(at);
        }
    }

    pub(super) fn key_at(&self, at: usize) -> Key {
        self.peers[usize::from(self.heap[at])].key()
    }

    /// Writes the place `at` into the peer that is there.
    fn note_place(&mut self, at: usize) {
        // The heap has one place for each peer, and a storage has at most MAX_PLACES peers.
        self.peers[usize::from(self.heap[at])].heap = narrow(at);
    }

    /// Moves the peer at this place up as far as it goes, and returns its new place.
    fn sift_up(&mut self, mut at: usize) -> usize {
        while at > 0 && self.key_at(at) < self.key_at((at - 1) / 2) {
            self.heap.swap(at, (at - 1) / 2);
            self.note_place(at);
            at = (at - 1) / 2;
        }
        self.note_place(at);
        at
    }

    /// Moves the peer at this place down as far as it goes.
    fn sift_down(&mut self, mut at: usize) {
        loop {
            let child = 2 * at + 1;
            if child >= self.len {
                break;
            }
            let second = child + 1 < self.len && self.key_at(child + 1) < self.key_at(child);
            let child = child + usize::from(second);
            if self.key_at(at) <= self.key_at(child) {
                break;
            }
            self.heap.swap(at, child);
            self.note_place(at);
            at = child;
        }
        self.note_place(at);
    }
}
