//! The names of peers, memories and lanes of a model.

use kvrail_core::batch::Class;
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

/// A connected QP of a model, which no engine has opened yet. Dropping it destroys nothing;
/// dropping the [`SimRails`](super::SimRails) destroys all QPs.
#[derive(Debug)]
pub struct SimQp {
    pub(super) handle: LaneHandle,
    pub(super) model: ProviderId,
    pub(super) class: Class,
}

impl SimQp {
    /// The same QP, as one that is made for work of `class`. [`Sim::connect`](super::Sim::connect)
    /// makes urgent ones.
    #[must_use]
    pub fn for_class(self, class: Class) -> Self {
        Self { class, ..self }
    }

    /// The lane's name in scripts and actions, also after an engine has opened it.
    #[must_use]
    pub fn handle(&self) -> LaneHandle {
        self.handle
    }
}
