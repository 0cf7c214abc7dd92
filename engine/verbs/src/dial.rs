//! Both sides of making a lane.
//!
//! ```text
//!   reader                                   producer
//!   prepare: QP in Init      -- LaneEnd -->  accept: QP in RTR, then in RTS
//!   connect: QP in RTR, RTS  <-- LaneEnd --
//! ```
//!
//! So when the reader posts its first READ, the producer's end has been ready for a while. The 64 bytes travel over
//! the authenticated session, which is none of this crate's business.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{LaneError, RailError};
use crate::qp::{Handle, Init, Qp, Rts};
use crate::rail::{Rail, Side};
use crate::wire::{BLOB, LaneEnd, LinkLayer, RailEnd};

/// The reader's end of a lane whose other end is not known yet. Dropping it frees all of it.
#[derive(Debug)]
pub struct Pending {
    qp: Qp<Init>,
    number: u32,
}

impl Pending {
    /// The place of its rail among `rails`, the dialer's.
    #[must_use]
    pub fn rail_of(&self, rails: &[Arc<Rail>]) -> usize {
        rails.iter().position(|rail| Arc::ptr_eq(rail, self.qp.rail())).unwrap_or(0)
    }
}

/// A connected lane that no engine has yet: for [`Verbs`](crate::Verbs) to open. Dropping it frees
/// all of it.
#[derive(Debug)]
pub struct Line(Qp<Rts>);

impl Line {
    /// Send queue entries of the QP, the drain's included.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.rail().depth()
    }

    pub(crate) fn rail(&self) -> &Arc<Rail> {
        self.0.rail()
    }

    pub(crate) fn into_handle(self) -> Handle {
        self.0.into_handle()
    }
}

/// Makes a reader's ends. Blocks in the kernel: for a control thread.
#[derive(Clone, Debug)]
pub struct Dialer {
    rails: Vec<Arc<Rail>>,
    made: Arc<AtomicU32>,
}

impl Dialer {
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

    /// Makes this end of a lane from `rail` to the producer's rail at `remote` (64 bytes of a [`RailEnd`]), and says
    /// what the producer must know of it.
    ///
    /// # Errors
    ///
    /// The two cannot talk, or the device refuses.
    pub fn prepare(&self, rail: usize, remote: &[u8; BLOB]) -> Result<(Pending, [u8; BLOB]), LaneError> {
        let rail = find(&self.rails, rail)?;
        let qp = Qp::new(rail)?.init(&RailEnd::decode(remote)?)?;
        let end = qp.end().encode();
        Ok((Pending { qp, number: self.made.fetch_add(1, Ordering::Relaxed) }, end))
    }

    /// Connects it to the producer's end (64 bytes of a [`LaneEnd`]).
    ///
    /// # Errors
    ///
    /// What the producer said cannot be, or the device refuses.
    pub fn connect(&self, pending: Pending, remote: &[u8; BLOB]) -> Result<Line, LaneError> {
        let Pending { qp, number } = pending;
        let qp = qp.ready_to_receive(&LaneEnd::decode(remote)?)?;
        Ok(Line(qp.ready_to_send(number)?))
    }
}

/// The producer's end of a lane. Dropping it destroys the QP: the reader can read no more over it.
pub struct Accepted(Qp<Rts>);

impl Accepted {
    /// Moves it to the error state: the reader can read no more over it, and finds out by its retries. Blocks.
    ///
    /// # Errors
    ///
    /// The device refuses.
    pub fn fail(&self) -> Result<(), LaneError> {
        self.0.fail()
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Accepted").field(&self.0).finish()
    }
}

/// Makes a producer's ends. Blocks in the kernel. Several threads may use it at a time.
#[derive(Debug)]
pub struct Acceptor {
    rails: Vec<Arc<Rail>>,
}

impl Acceptor {
    /// Over rails that were opened for a producer.
    ///
    /// # Errors
    ///
    /// None, too many, or one that is a reader's.
    pub fn new(rails: Vec<Arc<Rail>>) -> Result<Self, RailError> {
        if rails.is_empty() || rails.len() > kvrail_core::id::MAX_RAILS {
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

    /// Makes this end of a lane on `rail` for the reader's end `remote` (64 bytes of a [`LaneEnd`]), ready to be read
    /// from, and says what the reader must know of it.
    ///
    /// # Errors
    ///
    /// What the reader said cannot be, the two cannot talk, or the device refuses.
    pub fn accept(&self, rail: usize, remote: &[u8; BLOB]) -> Result<(Accepted, [u8; BLOB]), LaneError> {
        let rail = find(&self.rails, rail)?;
        let remote = LaneEnd::decode(remote)?;
        let qp = Qp::new(rail)?.init(&remote.rail())?.ready_to_receive(&remote)?;
        let end = qp.end().encode();
        Ok((Accepted(qp.ready_to_send(0)?), end))
    }
}

fn find(rails: &[Arc<Rail>], rail: usize) -> Result<&Arc<Rail>, LaneError> {
    // Numbers above 255 do not occur.
    let number = u8::try_from(rail).unwrap_or(u8::MAX);
    rails.get(rail).ok_or(LaneError::NoSuchRail { rail: number, rails: rails.len() })
}

impl LaneEnd {
    /// The rail that it is an end on, as far as it tells: one address.
    fn rail(&self) -> RailEnd {
        let link = match self.kind {
            crate::gid::GidKind::InfiniBand => LinkLayer::InfiniBand,
            _ => LinkLayer::Ethernet,
        };
        RailEnd {
            link,
            needs_grh: self.needs_grh,
            lid: self.lid,
            pkey: self.pkey,
            addresses: vec![(self.kind, self.gid)],
        }
    }
}
