//! The messages as values, one type for the content of each kind.

use std::num::NonZeroU32;

use kvrail_core::id::RailIndex;

use super::kind::MessageKind;
use crate::handover::HandoverMessage;
use crate::name::NodeName;
use crate::offer::{Epoch, LaneBlob, Layout, MAX_LANES, OfferedRegion, RailList};
use crate::pool::PoolId;
use crate::refusal::Refusal;
use crate::service::{ServiceAnswer, ServiceAsk};

/// Regions in one message.
pub const MESSAGE_REGIONS: usize = 64;

/// A message. [`parse`](super::parse) makes it from bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, on its way to or from the wire, where it is as long"
)]
#[non_exhaustive]
pub enum Message {
    /// The reader's first message.
    Introduction(Introduction),
    /// The producer's first message.
    Offer(OfferHead),
    /// A pool, whose regions follow.
    Pool(PoolHead),
    /// Some of a pool's regions.
    Regions(PoolRegions),
    /// The layout of a pool that the reader does not know.
    Unknown(Layout),
    /// The end of the first offer.
    Offered,
    /// A pool has gone.
    Gone(PoolId),
    /// A refusal, as the recipient sees it.
    Refused(Refusal),
    /// The reader's requests for lanes.
    Lanes(LaneAsks),
    /// The producer's ends of requested lanes.
    LanesReady(LaneAnswers),
    /// The reader gives lanes back, at most [`MAX_LANES`].
    Release(Vec<LaneNumber>),
    /// A side closes the session.
    Bye(ByeReason),
    /// The sender's process is alive.
    Alive,
    /// A part of a hand-over.
    Handover(HandoverMessage),
    /// The reader asks a service of the producer.
    Ask(ServiceAsk),
    /// The answer of a service.
    Answer(ServiceAnswer),
    /// A message of a kind that this version does not know and may pass over: its number, which
    /// has the high bit set.
    PassedOver(u16),
}

impl Message {
    /// Its kind; `None` for one that was passed over.
    #[must_use]
    pub const fn kind(&self) -> Option<MessageKind> {
        Some(match self {
            Self::Introduction(_) => MessageKind::Introduction,
            Self::Offer(_) => MessageKind::Offer,
            Self::Pool(_) => MessageKind::Pool,
            Self::Regions(_) => MessageKind::Regions,
            Self::Unknown(_) => MessageKind::Unknown,
            Self::Offered => MessageKind::Offered,
            Self::Gone(_) => MessageKind::Gone,
            Self::Refused(_) => MessageKind::Refused,
            Self::Lanes(_) => MessageKind::Lanes,
            Self::LanesReady(_) => MessageKind::LanesReady,
            Self::Release(_) => MessageKind::Release,
            Self::Bye(_) => MessageKind::Bye,
            Self::Alive => MessageKind::Alive,
            Self::Handover(message) => match message {
                HandoverMessage::Take { .. } => MessageKind::Take,
                HandoverMessage::Renew { .. } => MessageKind::Renew,
                HandoverMessage::Done { .. } => MessageKind::Done,
                HandoverMessage::GiveUp { .. } => MessageKind::GiveUp,
                HandoverMessage::Taken { .. } => MessageKind::Taken,
                HandoverMessage::Blocks { .. } => MessageKind::Blocks,
                HandoverMessage::Ready { .. } => MessageKind::Ready,
                HandoverMessage::Complete { .. } => MessageKind::Complete,
                HandoverMessage::Ended { .. } => MessageKind::Ended,
            },
            Self::Ask(_) => MessageKind::Ask,
            Self::Answer(_) => MessageKind::Answer,
            Self::PassedOver(_) => return None,
        })
    }
}

/// How a reader introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Its name.
    pub node: NodeName,
    /// The layouts that it knows, at most [`MAX_LAYOUTS`](crate::MAX_LAYOUTS).
    pub layouts: Vec<Layout>,
}

/// An offer without its pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferHead {
    /// The producer's name.
    pub node: NodeName,
    /// The producer's epoch.
    pub epoch: Epoch,
    /// Its rails.
    pub rails: RailList,
}

/// A pool without its regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolHead {
    /// Its number.
    pub id: PoolId,
    /// The layout of its pages.
    pub layout: Layout,
    /// How many regions follow, at most [`MAX_REGIONS`](crate::MAX_REGIONS).
    pub regions: u32,
}

/// Some of a pool's regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRegions {
    /// The pool, whose [`PoolHead`] was the last message before the first regions.
    pub pool: PoolId,
    /// The place of the first of these regions in the pool's list.
    pub first: u32,
    /// 1 to [`MESSAGE_REGIONS`].
    pub regions: Vec<OfferedRegion>,
}

/// The number of a lane in its session; the reader counts lanes from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneNumber(pub NonZeroU32);

/// The lanes that one message requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneAsks {
    /// Which exchange of the session this is, counted from 1. The answer repeats it.
    pub exchange: u32,
    /// The requests.
    pub lanes: heapless::Vec<LaneAsk, MAX_LANES>,
}

/// A request for one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneAsk {
    /// The lane's number.
    pub number: LaneNumber,
    /// The reader's rail.
    pub rail: RailIndex,
    /// The producer's rail.
    pub remote_rail: RailIndex,
    /// The reader's end.
    pub blob: LaneBlob,
}

/// An answer to [`LaneAsks`], for some of its lanes: each lane is answered once, when it has been
/// made or cannot be made, and waits for no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneAnswers {
    /// Which exchange this answers.
    pub exchange: u32,
    /// The answers.
    pub lanes: heapless::Vec<LaneAnswer, MAX_LANES>,
}

/// The answer for one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneAnswer {
    /// The lane's number.
    pub number: LaneNumber,
    /// The reader's rail.
    pub rail: RailIndex,
    /// The producer's rail.
    pub remote_rail: RailIndex,
    /// The producer's end, ready to receive; or why the producer made no lane.
    pub result: Result<LaneBlob, LaneRefusal>,
}

/// Why a producer made no lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
pub struct LaneRefusal {
    /// The kind of reason.
    pub code: LaneRefusalCode,
    /// In the producer's words.
    pub text: NodeName,
}

impl LaneRefusal {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self.code {
            LaneRefusalCode::Transport => 4130,
            LaneRefusalCode::NoSuchRail => 4131,
            LaneRefusalCode::NumberInUse => 4132,
            LaneRefusalCode::TooMany => 4133,
            LaneRefusalCode::Other(_) => 4134,
        }
    }
}

/// The kind of reason for which a producer makes no lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LaneRefusalCode {
    /// Its transport could not.
    Transport,
    /// It has no such rail.
    NoSuchRail,
    /// The number is that of a lane in use.
    NumberInUse,
    /// The session has as many lanes as the producer gives to one.
    TooMany,
    /// A reason that this version does not know.
    Other(u16),
}

impl LaneRefusalCode {
    /// The code behind a number on the wire; 0 means that there is no refusal.
    #[must_use]
    pub const fn from_wire(code: u16) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::Transport,
            2 => Self::NoSuchRail,
            3 => Self::NumberInUse,
            4 => Self::TooMany,
            other => Self::Other(other),
        })
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Transport => 1,
            Self::NoSuchRail => 2,
            Self::NumberInUse => 3,
            Self::TooMany => 4,
            // 0 would say that there is a lane.
            Self::Other(0) => 1,
            Self::Other(code) => code,
        }
    }
}

impl std::fmt::Display for LaneRefusalCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Transport => f.write_str("the producer's transport failed"),
            Self::NoSuchRail => f.write_str("the producer has no such rail"),
            Self::NumberInUse => f.write_str("the lane's number is in use"),
            Self::TooMany => f.write_str("the session has too many lanes"),
            Self::Other(code) => write!(f, "the producer refused for reason {code}"),
        }
    }
}

/// Why a side closes a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ByeReason {
    /// It is done.
    Finished,
    /// The process is stopping.
    Stopping,
    /// The other side broke the protocol.
    Protocol,
    /// No pool of the producer has a layout that the reader knows.
    NoPool,
    /// A reason that this version does not know.
    Other(u16),
}

impl ByeReason {
    /// The reason behind a number on the wire.
    #[must_use]
    pub const fn from_wire(code: u16) -> Self {
        match code {
            1 => Self::Finished,
            2 => Self::Stopping,
            3 => Self::Protocol,
            4 => Self::NoPool,
            other => Self::Other(other),
        }
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Finished => 1,
            Self::Stopping => 2,
            Self::Protocol => 3,
            Self::NoPool => 4,
            Self::Other(code) => code,
        }
    }
}

impl std::fmt::Display for ByeReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Finished => f.write_str("it is done"),
            Self::Stopping => f.write_str("it is stopping"),
            Self::Protocol => f.write_str("this side broke the protocol"),
            Self::NoPool => f.write_str("no pool of the producer has a layout that the reader knows"),
            Self::Other(code) => write!(f, "reason {code}, which this version does not know"),
        }
    }
}
