//! The kinds of messages.

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum MessageKind {
    /// The reader's first message: its name and the layouts that it knows.
    Introduction = 16,
    /// The producer's first message: its name, epoch and rails. Pools follow.
    Offer = 17,
    /// A pool of the producer. Its regions follow.
    Pool = 18,
    /// Some of a pool's regions.
    Regions = 19,
    /// The layout of a pool that the reader does not know.
    Unknown = 20,
    /// The end of the first offer. Later changes use the three kinds above, and the next.
    Offered = 21,
    /// A pool has gone.
    Gone = 22,
    /// A refusal with its reason, before the session is established.
    Refused = 24,
    /// The reader's requests for lanes.
    Lanes = 32,
    /// The producer's ends of requested lanes, ready to receive.
    LanesReady = 33,
    /// The reader gives lanes back.
    Release = 34,
    /// A side closes the session.
    Bye = 48,
    /// The sender's process is alive.
    Alive = 49,
    /// [`HandoverMessage::Take`](crate::handover::HandoverMessage::Take).
    Take = 64,
    /// [`HandoverMessage::Renew`](crate::handover::HandoverMessage::Renew).
    Renew = 65,
    /// [`HandoverMessage::Done`](crate::handover::HandoverMessage::Done).
    Done = 66,
    /// [`HandoverMessage::GiveUp`](crate::handover::HandoverMessage::GiveUp).
    GiveUp = 67,
    /// [`HandoverMessage::Taken`](crate::handover::HandoverMessage::Taken).
    Taken = 72,
    /// [`HandoverMessage::Blocks`](crate::handover::HandoverMessage::Blocks).
    Blocks = 73,
    /// [`HandoverMessage::Ready`](crate::handover::HandoverMessage::Ready).
    Ready = 74,
    /// [`HandoverMessage::Complete`](crate::handover::HandoverMessage::Complete).
    Complete = 75,
    /// [`HandoverMessage::Ended`](crate::handover::HandoverMessage::Ended).
    Ended = 76,
    /// The reader asks a service of the producer.
    Ask = 80,
    /// The answer of a service.
    Answer = 81,
}

impl MessageKind {
    /// All of them, by their numbers.
    pub const ALL: [Self; 24] = [
        Self::Introduction,
        Self::Offer,
        Self::Pool,
        Self::Regions,
        Self::Unknown,
        Self::Offered,
        Self::Gone,
        Self::Refused,
        Self::Lanes,
        Self::LanesReady,
        Self::Release,
        Self::Bye,
        Self::Alive,
        Self::Take,
        Self::Renew,
        Self::Done,
        Self::GiveUp,
        Self::Taken,
        Self::Blocks,
        Self::Ready,
        Self::Complete,
        Self::Ended,
        Self::Ask,
        Self::Answer,
    ];

    /// The kind with this number, if this version knows it.
    #[must_use]
    pub fn from_wire(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u16 == number)
    }
}
