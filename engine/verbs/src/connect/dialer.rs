//! How a reader makes its ends of lanes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::bonding;
use crate::error::VerbsLaneError;
use crate::qp::handle::QpHandle;
use crate::qp::states::{Init, Qp, Rts};
use crate::rail::Rail;
use crate::wire::{BLOB, LaneEnd, RailEnd};

/// The reader's end of a lane whose other end is not known yet. Dropping it destroys the QP.
#[derive(Debug)]
pub struct PendingLane {
    qp: Qp<Init>,
    number: u32,
}

impl PendingLane {
    /// The place of its rail among `rails`, the dialer's.
    #[must_use]
    pub fn rail_of(&self, rails: &[Arc<Rail>]) -> usize {
        rails.iter().position(|rail| Arc::ptr_eq(rail, self.qp.rail())).unwrap_or(0)
    }
}

/// A connected lane that no engine has opened yet: [`Verbs`](crate::Verbs) does. Dropping it
/// destroys the QP.
#[derive(Debug)]
pub struct UnopenedLane(Qp<Rts>);

impl UnopenedLane {
    /// Send queue entries of the QP, the drain's included.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.rail().depth()
    }

    pub(crate) fn rail(&self) -> &Arc<Rail> {
        self.0.rail()
    }

    pub(crate) fn into_handle(self) -> QpHandle {
        self.0.into_handle()
    }
}

/// Makes the reader's ends of lanes. Blocks in the kernel: for a control thread.
#[derive(Clone, Debug)]
pub struct QpDialer {
    rails: Vec<Arc<Rail>>,
    /// The number of the next end: how many have been made.
    made: Arc<AtomicU32>,
}

impl QpDialer {
    /// Over the rails of an engine: see [`Verbs::ports`](crate::Verbs::ports).
    #[must_use]
    pub fn new(rails: Vec<Arc<Rail>>) -> Self {
        Self { rails, made: Arc::default() }
    }

    /// The rails, in order.
    #[must_use]
    pub fn rails(&self) -> &[Arc<Rail>] {
        &self.rails
    }

    /// Makes this end of a lane from `rail` to the producer's rail at `remote` (64 bytes of a
    /// [`RailEnd`]), and returns what the producer must know of it (64 bytes of a [`LaneEnd`]).
    ///
    /// # Errors
    ///
    /// The two rails cannot reach each other, or the device refuses.
    pub fn prepare(
        &self,
        rail: usize,
        remote: &[u8; BLOB],
    ) -> Result<(PendingLane, [u8; BLOB]), VerbsLaneError> {
        let rails = &self.rails;
        let rail = rails.get(rail).ok_or_else(|| VerbsLaneError::no_such_rail(rail, rails.len()))?;
        let qp = Qp::new(rail)?.init(&RailEnd::decode(remote)?)?;
        let end = qp.end().encode();
        Ok((PendingLane { qp, number: self.made.fetch_add(1, Ordering::Relaxed) }, end))
    }

    /// Connects it to the producer's end (64 bytes of a [`LaneEnd`]).
    ///
    /// # Errors
    ///
    /// The bytes do not describe a lane's end, or the device refuses.
    pub fn connect(&self, pending: PendingLane, remote: &[u8; BLOB]) -> Result<UnopenedLane, VerbsLaneError> {
        let PendingLane { qp, number } = pending;
        let qp = qp.ready_to_receive(&LaneEnd::decode(remote)?)?.ready_to_send()?;
        bonding::spread(qp.handle(), number);
        Ok(UnopenedLane(qp))
    }
}
