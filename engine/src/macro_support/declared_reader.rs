//! A declared type of reader: its state, its page and its numbers.

use kvrail_layouts::{Fingerprint, KvLayout};

use super::declaration::Maxima;
use crate::reader::state::Room;

/// A type of reader that [`engine!`](crate::engine) has declared.
pub trait Declared {
    /// Room for the whole state of one.
    type State: Room;
    /// The reader's page. The rank may be left to run time.
    const PAGE: DeclaredPage;
    /// The reader's declared numbers, defaults included.
    const MAXIMA: Maxima;
}

/// The page of a declaration, at any rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeclaredPage {
    pub(super) name: &'static str,
    pub(super) fingerprint: Fingerprint,
}

impl DeclaredPage {
    /// The page `L`.
    #[must_use]
    pub const fn of<L: KvLayout>() -> Self {
        Self { name: L::NAME, fingerprint: L::GEOMETRY.identity().fingerprint_of_any_rank() }
    }
}
