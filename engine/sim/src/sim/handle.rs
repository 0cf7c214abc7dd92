//! What a test and an engine call the things of a model.

use kvrail_core::id::ProviderId;

/// A peer of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerHandle(pub(super) u16);

/// Published memory of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryHandle(pub(super) u16);

/// One life of a model's lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneHandle {
    pub(super) place: u16,
    pub(super) life: u32,
}

/// A QP of a model that is connected and that no engine has opened. Dropping it destroys nothing;
/// dropping the [`SimRails`](super::SimRails) does.
#[derive(Debug)]
pub struct SimQp {
    pub(super) handle: LaneHandle,
    pub(super) model: ProviderId,
}

impl SimQp {
    /// What scripts and actions call it, also after it has been given to an engine.
    #[must_use]
    pub fn handle(&self) -> LaneHandle {
        self.handle
    }
}
