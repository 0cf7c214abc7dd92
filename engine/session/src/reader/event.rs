//! What a session is given, and what it reports.

use std::sync::Arc;
use std::time::Duration;

use crate::error::SessionError;
use crate::handover::TakingsConfig;
use crate::lane::SessionLaneError;
use crate::liveness::SILENCE;
use crate::message::LaneNumber;
use crate::name::NodeName;
use crate::offer::{LaneBlob, Layout};
use crate::pool::{Offer, OfferChange};

/// A reader, as it describes itself.
#[derive(Clone, Debug)]
pub struct ReaderDescription {
    /// Its name, for logs and errors on both sides.
    pub node: NodeName,
    /// The layouts that it was built for, [`MAX_LAYOUTS`](crate::MAX_LAYOUTS) at most. A reader
    /// without any is told of no rail and no pool, and asks services alone.
    pub layouts: Vec<Layout>,
    /// How long the producer may send nothing while a message from it is due, a day at most.
    pub silence: Duration,
    /// The limits of the requests that it takes.
    pub takings: TakingsConfig,
}

impl ReaderDescription {
    /// A reader of one layout, with the usual [`SILENCE`] of ten seconds.
    #[must_use]
    pub fn new(node: NodeName, layout: Layout) -> Self {
        Self::of_layouts(node, vec![layout])
    }

    /// A reader of no layout, which asks [services](crate::service) alone, with the usual
    /// [`SILENCE`] of ten seconds.
    #[must_use]
    pub fn of_services(node: NodeName) -> Self {
        Self::of_layouts(node, Vec::new())
    }

    /// A reader of several layouts, with the usual [`SILENCE`] of ten seconds.
    #[must_use]
    pub fn of_layouts(node: NodeName, layouts: Vec<Layout>) -> Self {
        Self { node, layouts, silence: SILENCE, takings: TakingsConfig::default() }
    }
}

/// An event of a session.
#[derive(Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "the large event comes once, and is taken out at once")]
pub enum SessionEvent {
    /// The session is established: its first offer.
    Established(Offer),
    /// The offer has changed.
    OfferChanged(OfferChange),
    /// The answer to [`Session::ask`](crate::Session::ask): the producer's end of the lane, or why
    /// the producer made no end.
    Lane(LaneNumber, Result<LaneBlob, SessionLaneError>),
    /// Something has happened to requests that were taken:
    /// [`next_taking_event`](crate::Session::next_taking_event) says what.
    Takings,
    /// The session has ended, or was not established. It is the last event. What was
    /// taken is over with it, and no question is answered any more.
    Ended(Arc<SessionError>),
}
