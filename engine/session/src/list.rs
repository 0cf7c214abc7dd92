//! Lists that have room for so many and no more.

use std::fmt;
use std::ops::Deref;

/// At most `N` of `T`, so that a list always fits the message that carries it.
#[derive(Clone, PartialEq, Eq)]
pub struct List<T, const N: usize>(Vec<T>);

/// A [`List`] would be too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} do not fit: {max} is the most")]
pub struct TooMany {
    /// How many there were.
    pub len: usize,
    /// How many fit.
    pub max: usize,
}

impl<T, const N: usize> List<T, N> {
    /// The list of `items`.
    ///
    /// # Errors
    ///
    /// There are more than `N`.
    pub fn new(items: Vec<T>) -> Result<Self, TooMany> {
        if items.len() > N {
            return Err(TooMany { len: items.len(), max: N });
        }
        Ok(Self(items))
    }

    /// The items, unbounded again.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
