//! The fixed bounds of a model.

/// The most descriptors in one commit.
pub const CHAIN: usize = 64;
/// The most local pieces of one READ, whatever [`SimConfig::sges`](super::SimConfig::sges) says.
pub const SGES: usize = 5;

/// Memories that one peer may publish at a time.
pub(super) const MEMORIES_PER_PEER: usize = 8;
/// Local registrations at a time: a key has eight bits for the place of its registration. A slot of
/// a layout may have a registration for each of 122 regions.
pub(super) const REGISTRATIONS: usize = 256;
/// Protected ranges at a time.
pub(super) const PROTECTIONS: usize = 512;
/// Scripted fates, and scheduled actions, at a time.
pub(super) const PLANS: usize = 64;
/// Unread events for each lane: it failed by itself, it failed on request, it was closed, and one
/// of its rail.
pub(super) const EVENTS_PER_LANE: usize = 4;
/// The most unread events of a model, however many lanes it has. An engine reads events at every
/// poll.
pub(super) const EVENTS: usize = 4096;
