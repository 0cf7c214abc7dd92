//! How much of everything a model has room for.

/// The most descriptors in one commit.
pub const CHAIN: usize = 64;
/// The most local pieces of one READ.
pub const SGES: usize = 4;

/// Memories that one peer may publish at a time.
pub(super) const MEMORIES_PER_PEER: usize = 4;
/// Local registrations at a time. A key holds the place of its registration in six bits.
pub(super) const REGISTRATIONS: usize = 64;
/// Protected ranges at a time.
pub(super) const PROTECTIONS: usize = 512;
/// Scripted fates, and scheduled actions, at a time.
pub(super) const PLANS: usize = 64;
/// Unread events per lane: failed by itself, failed on request, closed, and one of a rail.
pub(super) const EVENTS_PER_LANE: usize = 4;
/// Unread events of a model, however many lanes it has. An engine reads them at every poll.
pub(super) const EVENTS: usize = 4096;
