//! How a producer makes its ends of lanes.

use std::sync::Arc;

use kvrail_core::id::MAX_RAILS;

use crate::error::{RailError, VerbsLaneError};
use crate::qp::states::{Qp, Rts};
use crate::rail::{Rail, Side};
use crate::wire::{BLOB, LaneEnd};

/// The producer's end of a lane. Dropping it destroys the QP: the reader can read no more over it.
#[derive(Debug)]
pub struct AcceptedLane(Qp<Rts>);

impl AcceptedLane {
    /// Moves the QP to the error state: the reader can read no more over it, and finds that out
    /// when its retries are used up. Blocks in the kernel.
    ///
    /// # Errors
    ///
    /// The device refuses.
    pub fn fail(&self) -> Result<(), VerbsLaneError> {
        self.0.handle().fail()
    }
}

/// Makes the producer's ends of lanes. Blocks in the kernel. Several threads may use it at a time.
#[derive(Debug)]
pub struct QpAcceptor {
    rails: Vec<Arc<Rail>>,
}

impl QpAcceptor {
    /// Over rails that were opened for a producer.
    ///
    /// # Errors
    ///
    /// There are no rails or too many, or one was opened for a reader.
    pub fn new(rails: Vec<Arc<Rail>>) -> Result<Self, RailError> {
        if rails.is_empty() || rails.len() > MAX_RAILS {
            return Err(RailError::Count(rails.len()));
        }
        match rails.iter().find(|rail| rail.side() != Side::Producer) {
            Some(rail) => Err(RailError::WrongSide { rail: rail.name().into(), side: rail.side() }),
            None => Ok(Self { rails }),
        }
    }

    /// The rails, in order.
    #[must_use]
    pub fn rails(&self) -> &[Arc<Rail>] {
        &self.rails
    }

    /// Makes this end of a lane on `rail` for the reader's end `remote` (64 bytes of a
    /// [`LaneEnd`]), ready to be read from, and returns what the reader must know of it (64 bytes
    /// of a [`LaneEnd`]).
    ///
    /// # Errors
    ///
    /// The bytes do not describe a lane's end, the two rails cannot reach each other, or the device
    /// refuses.
    pub fn accept(
        &self,
        rail: usize,
        remote: &[u8; BLOB],
    ) -> Result<(AcceptedLane, [u8; BLOB]), VerbsLaneError> {
        let rails = &self.rails;
        let rail = rails.get(rail).ok_or_else(|| VerbsLaneError::no_such_rail(rail, rails.len()))?;
        let remote = LaneEnd::decode(remote)?;
        let qp = Qp::new(rail)?.init(&remote.rail(), remote.class)?.ready_to_receive(&remote)?;
        let end = qp.end().encode();
        Ok((AcceptedLane(qp.ready_to_send()?), end))
    }
}
