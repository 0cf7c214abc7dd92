//! A queue of one thread, in borrowed memory.

/// A first-in, first-out queue. Pushing into a full queue drops the oldest item. Queues of batches
/// and of peers have a place for each of these, so they are never overfull; only the queue of lost
/// lanes may drop items, which the control path has not taken.
#[derive(Debug)]
pub(crate) struct Fifo<'s, T> {
    ring: &'s mut [T],
    first: usize,
    len: usize,
}

impl<'s, T: Copy> Fifo<'s, T> {
    pub(crate) fn new(ring: &'s mut [T]) -> Self {
        Self { ring, first: 0, len: 0 }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn push(&mut self, item: T) {
        if self.len == self.ring.len() {
            self.pop();
        }
        let mut at = self.first + self.len;
        if at >= self.ring.len() {
            at -= self.ring.len();
        }
        self.ring[at] = item;
        self.len += 1;
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        let item = self.ring[self.first];
        self.first += 1;
        if self.first == self.ring.len() {
            self.first = 0;
        }
        self.len -= 1;
        Some(item)
    }
}
