//! How a reader puts the producer's offer together from messages.

use crate::error::Cause;
use crate::message::Message;
use crate::offer::Layout;
use crate::pool::{Offer, OfferChange};

/// What the messages of an offer have brought.
#[derive(Debug)]
pub(crate) enum OfferNews {
    /// The first offer is complete.
    Complete(Offer),
    /// The offer has changed.
    Change(OfferChange),
}

/// The offer of one session, while its messages come.
pub(crate) struct OfferReader;

impl OfferReader {
    /// No message has come. `known` are the layouts of the reader.
    pub(crate) fn new(known: Vec<Layout>) -> Self {
        let _ = known;
        todo!()
    }

    /// Takes one of the messages `Offer`, `Pool`, `Regions`, `Unknown`, `Offered` and `Gone`.
    pub(crate) fn received(&mut self, message: Message) -> Result<Option<OfferNews>, Cause> {
        let _ = message;
        todo!()
    }
}
