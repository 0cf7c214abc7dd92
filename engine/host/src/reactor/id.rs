//! What names a connection.

/// A connection of a reactor, or a listener of it.
///
/// The id of one that has ended is recognised and ignored, also after another has got its place;
/// only after a place has been used 2^32 times does the same id come again. Two reactors may give
/// equal ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub(super) place: u32,
    /// How many connections had the place before.
    pub(super) life: u32,
}

impl ConnectionId {
    /// The number that is the event data of epoll(7). It is never [`u64::MAX`], since no place has
    /// the number [`u32::MAX`].
    pub(super) const fn to_data(self) -> u64 {
        (self.place as u64) << 32 | self.life as u64
    }

    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    pub(super) const fn from_data(data: u64) -> Self {
        Self { place: (data >> 32) as u32, life: data as u32 }
    }
}
