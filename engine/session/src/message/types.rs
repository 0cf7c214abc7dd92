//! The messages as values, one type for the content of each kind.

use std::num::NonZeroU32;

use heapless::Vec;
use kvrail_core::id::RailIndex;

use crate::key::KeyId;
use crate::name::NodeName;
use crate::offer::{Epoch, LaneBlob, Layout, MAX_LANES, OfferedRegion, RailList};
use crate::refusal::{Refusal, Role, Versions};
use crate::wire::{MessageKind, REGIONS};

/// A message. [`parse`](crate::parse) makes it from bytes, and does not check its MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, on its way to or from the wire, where it is as long"
)]
#[non_exhaustive]
pub enum Message {
    /// The reader's first message.
    Hello(Greeting),
    /// The producer's first message, with the version that it chose.
    Challenge(Greeting, u16),
    /// A refusal, as the recipient sees it.
    Refused(Box<Refusal>),
    /// The reader's layout.
    Propose(Layout),
    /// The producer's layout, epoch and rails.
    Offer(OfferHead),
    /// Some of the producer's regions.
    Regions {
        /// The place of the first of these regions in the producer's list.
        first: u32,
        /// The regions.
        regions: Vec<OfferedRegion, REGIONS>,
    },
    /// The reader's requests for lanes.
    Lanes(LaneAsks),
    /// The producer's ends of requested lanes.
    LanesReady(LaneAnswers),
    /// The reader gives lanes back.
    Release(Vec<LaneNumber, MAX_LANES>),
    /// A side closes the session.
    Bye(ByeReason),
    /// The sender's process is alive.
    Alive,
}

impl Message {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> MessageKind {
        match self {
            Self::Hello(_) => MessageKind::Hello,
            Self::Challenge(..) => MessageKind::Challenge,
            Self::Refused(_) => MessageKind::Refused,
            Self::Propose(_) => MessageKind::Propose,
            Self::Offer(_) => MessageKind::Offer,
            Self::Regions { .. } => MessageKind::Regions,
            Self::Lanes(_) => MessageKind::Lanes,
            Self::LanesReady(_) => MessageKind::LanesReady,
            Self::Release(_) => MessageKind::Release,
            Self::Bye(_) => MessageKind::Bye,
            Self::Alive => MessageKind::Alive,
        }
    }
}

/// A message of one kind, for a step of the handshake that takes no other.
pub(crate) trait FromMessage: Sized {
    /// The kind that is awaited.
    const KIND: MessageKind;

    /// The content of `message`, or the kind that it has instead.
    fn from_message(message: Message) -> Result<Self, MessageKind>;
}

macro_rules! from_message {
    ($($type:ident($kind:ident): $pattern:pat => $value:expr,)*) => {$(
        impl FromMessage for $type {
            const KIND: MessageKind = MessageKind::$kind;

            fn from_message(message: Message) -> Result<Self, MessageKind> {
                match message {
                    $pattern => Ok($value),
                    other => Err(other.kind()),
                }
            }
        }
    )*};
}

/// [`Message::Hello`].
pub(crate) struct Hello(pub(crate) Greeting);
/// [`Message::Challenge`].
pub(crate) struct Challenge(pub(crate) Greeting, pub(crate) u16);
/// [`Message::Regions`].
pub(crate) struct Regions(pub(crate) u32, pub(crate) Vec<OfferedRegion, REGIONS>);

from_message! {
    Hello(Hello): Message::Hello(greeting) => Self(greeting),
    Challenge(Challenge): Message::Challenge(greeting, chosen) => Self(greeting, chosen),
    Layout(Propose): Message::Propose(layout) => layout,
    OfferHead(Offer): Message::Offer(head) => head,
    Regions(Regions): Message::Regions { first, regions } => Self(first, regions),
}

/// The content of a side's first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The protocol versions that it speaks.
    pub versions: Versions,
    /// Its role.
    pub role: Role,
    /// The id of its key.
    pub key_id: KeyId,
    /// 32 random bytes, never used before.
    pub nonce: [u8; 32],
    /// Its name.
    pub node: NodeName,
}

/// An offer without its regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferHead {
    /// The producer's layout.
    pub layout: Layout,
    /// The producer's epoch.
    pub epoch: Epoch,
    /// How many regions follow, at most [`MAX_REGIONS`](crate::MAX_REGIONS).
    pub regions: u32,
    /// Its rails.
    pub rails: RailList,
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
    pub lanes: Vec<LaneAsk, MAX_LANES>,
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
    pub lanes: Vec<LaneAnswer, MAX_LANES>,
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
            Self::Other(code) => write!(f, "reason {code}, which this version does not know"),
        }
    }
}
