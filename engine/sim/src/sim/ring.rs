//! A first-in-first-out queue over borrowed memory.

/// At most as many items as the slice is long.
#[derive(Debug)]
pub(super) struct Ring<'m, T> {
    items: &'m mut [T],
    head: usize,
    len: usize,
}

impl<'m, T: Copy> Ring<'m, T> {
    pub(super) fn new(items: &'m mut [T]) -> Self {
        Self { items, head: 0, len: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `item`, or gives it back when the ring is full.
    #[inline]
    pub(super) fn push(&mut self, item: T) -> Result<(), T> {
        if self.len == self.items.len() {
            return Err(item);
        }
        let mut at = self.head + self.len;
        if at >= self.items.len() {
            at -= self.items.len();
        }
        self.items[at] = item;
        self.len += 1;
        Ok(())
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        let item = self.items[self.head];
        self.head += 1;
        if self.head == self.items.len() {
            self.head = 0;
        }
        self.len -= 1;
        Some(item)
    }

    /// Takes out what `keep` does not want, in order.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        for _ in 0..self.len {
            if let Some(item) = self.pop()
                && keep(&item)
            {
                // What has just been popped left its place.
                let _ = self.push(item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_around_the_end() {
        let mut items = [0; 3];
        let mut ring = Ring::new(&mut items);
        for round in 0..10 {
            assert_eq!((ring.push(round), ring.push(round + 100)), (Ok(()), Ok(())));
            assert_eq!((ring.pop(), ring.pop(), ring.pop()), (Some(round), Some(round + 100), None));
        }
        assert!((0..3).all(|i| ring.push(i).is_ok()));
        assert_eq!(ring.push(3), Err(3));
        ring.retain(|i| *i != 1);
        assert_eq!((ring.pop(), ring.pop(), ring.pop()), (Some(0), Some(2), None));
    }

    #[test]
    fn a_ring_of_nothing_is_always_full() {
        assert_eq!(Ring::new(&mut []).push(1), Err(1));
    }
}
