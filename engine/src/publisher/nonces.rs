//! The random halves of generations, which a publisher needs one of for each slot that it begins.

use std::cell::RefCell;

use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::secret::{RandomError, random_bytes};

/// Bytes that are asked of the system at once: as many as it gives without being interrupted.
const AT_ONCE: usize = 256;
/// Bytes of a number.
const EACH: usize = size_of::<u32>();

/// Random numbers that a thread has not used yet.
struct Nonces {
    /// Who asked for them. A child of a fork has a copy, and must not use the numbers of its
    /// parent.
    owner: Option<OwnerProcess>,
    bytes: [u8; AT_ONCE],
    used: usize,
}

thread_local! {
    static NONCES: RefCell<Nonces> =
        const { RefCell::new(Nonces { owner: None, bytes: [0; AT_ONCE], used: AT_ONCE }) };
}

impl Nonces {
    fn next(&mut self) -> Result<u32, RandomError> {
        if self.used + EACH > AT_ONCE || !self.owner.is_some_and(OwnerProcess::is_current) {
            self.bytes = random_bytes()?;
            self.owner = Some(OwnerProcess::current());
            self.used = 0;
        }
        let next = &mut self.bytes[self.used..self.used + EACH];
        let mut number = [0; EACH];
        number.copy_from_slice(next);
        // A number that was given out is not kept.
        next.fill(0);
        self.used += EACH;
        Ok(u32::from_le_bytes(number))
    }
}

/// The next random number of this thread, one system call for every 64.
pub(super) fn nonce() -> Result<u32, RandomError> {
    NONCES.with_borrow_mut(Nonces::next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_do_not_repeat_and_those_that_were_given_out_are_gone() {
        let mut all: Vec<u32> = (0..1000).map(|_| nonce().unwrap()).collect();
        NONCES.with_borrow(|nonces| assert!(nonces.bytes[..nonces.used].iter().all(|&byte| byte == 0)));
        let other = std::thread::spawn(|| nonce().unwrap()).join().unwrap();
        all.push(other);
        all.sort_unstable();
        let before = all.len();
        all.dedup();
        // Two of a thousand of 2^32 are equal in one run of 8,600; five, never.
        assert!(before - all.len() < 5, "{} of {before} numbers are repeated", before - all.len());
    }

    #[test]
    fn the_numbers_of_another_process_are_thrown_away() {
        let mut nonces = Nonces { owner: None, bytes: [0xAA; AT_ONCE], used: 0 };
        assert_ne!(nonces.next().unwrap().to_le_bytes(), [0xAA; EACH]);
        assert_eq!(nonces.owner, Some(OwnerProcess::current()));
    }
}
