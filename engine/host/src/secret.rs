//! Random bytes, and secrets that compare in constant time.

use std::fmt;

/// Why the system gave no random numbers.
pub use getrandom::Error as RandomError;

/// `N` bytes from the system's random number generator.
///
/// # Errors
///
/// The system has none to give, for instance because a filter forbids the call.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// A random 128-bit value that opens something to those who know it.
///
/// Comparing two takes the same time wherever they differ, and `Debug` does not print the value.
#[derive(Clone, Copy)]
pub struct Secret([u8; 16]);

impl Secret {
    /// A new one, from [`random_bytes`].
    ///
    /// # Errors
    ///
    /// The system has no random numbers to give.
    pub fn random() -> Result<Self, RandomError> {
        Ok(Self(random_bytes()?))
    }

    /// The secret with this value.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its value, to be sent to a peer that may know it.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let differ = self.0.iter().zip(other.0).fold(0, |d, (a, b)| d | (a ^ b));
        std::hint::black_box(differ) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_differ_by_any_bit_and_do_not_print() {
        let secret = Secret::random().unwrap();
        assert_eq!(secret, Secret::from_bytes(secret.to_bytes()));
        for bit in 0..128 {
            let mut bytes = secret.to_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(secret, Secret::from_bytes(bytes), "bit {bit}");
        }
        assert_ne!(secret, Secret::random().unwrap());
        assert_eq!(format!("{:?}", Secret::from_bytes([7; 16])), "Secret(..)");
    }
}
