//! What an engine reports of its own work: typed events, at no cost without a sink.
//!
//! An [`Engine`](crate::engine::Engine) is started with an [`EventSink`], to which it hands an
//! [`EngineEvent`] for each thing that it does or finds out. The default sink, [`NoEvents`], is
//! empty, and says so to the compiler ([`EventSink::ENABLED`]): then no event is made, and an
//! engine without a sink is the same machine code as if there were no events.
//!
//! A sink runs on the engine's thread, in the middle of `submit` and `poll`. It counts, or copies
//! the event into a ring; what it does is part of the data path.
//!
//! ```
//! use kvrail_core::events::{EngineEvent, EventSink};
//!
//! /// Counts what a dashboard shows.
//! #[derive(Default)]
//! struct Counters {
//!     missed: u64,
//!     lanes_lost: u64,
//! }
//!
//! impl EventSink for Counters {
//!     fn event(&mut self, event: EngineEvent) {
//!         match event {
//!             EngineEvent::PageMissed { .. } => self.missed += 1,
//!             EngineEvent::LaneFailing { .. } => self.lanes_lost += 1,
//!             _ => {}
//!         }
//!     }
//! }
//! # let mut counters = Counters::default();
//! # counters.event(EngineEvent::RailUp { rail: kvrail_core::id::RailIndex(0) });
//! # assert_eq!((counters.missed, counters.lanes_lost), (0, 0));
//! ```
//!
//! The two structs [`LaneWanted`] and [`LaneLost`] are no events: the control path asks for them
//! ([`Engine::next_wanted_lane`](crate::engine::Engine::next_wanted_lane)) and has to act on them.

use core::fmt;

use crate::error::PageError;
use crate::id::{LaneId, PeerId, RailIndex, Ticket};
use crate::table::Miss;
use crate::time::Time;
use crate::verbs_abi::WcStatus;

/// Takes the events of an engine.
pub trait EventSink {
    /// Whether events are made at all. `false` removes them, and all that is computed for them,
    /// from the code.
    const ENABLED: bool = true;

    /// A call of the engine begins at `now`: the events that follow, up to the next call of this,
    /// happen then.
    fn time(&mut self, now: Time) {
        let _ = now;
    }

    /// Something has happened.
    fn event(&mut self, event: EngineEvent);
}

/// The empty sink, of an engine whose events are of no interest.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    const ENABLED: bool = false;

    fn event(&mut self, _: EngineEvent) {}
}

/// A sink that is kept elsewhere, and can be looked at while the engine is not called.
impl<S: EventSink> EventSink for &mut S {
    const ENABLED: bool = S::ENABLED;

    fn time(&mut self, now: Time) {
        (**self).time(now);
    }

    fn event(&mut self, event: EngineEvent) {
        (**self).event(event);
    }
}

/// One thing that an engine has done or found out.
///
/// Pages are named by their positions in their batch, from 0. `Display` writes one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineEvent {
    /// A batch has been taken.
    Submitted {
        /// The batch.
        batch: Ticket,
        /// How many pages it has.
        pages: u16,
        /// Until when.
        deadline: Time,
    },
    /// A commit has been handed to the provider: one doorbell.
    Posted {
        /// On which lane.
        lane: LaneId,
        /// How many wrs.
        wrs: u32,
        /// How many bytes they read.
        bytes: u64,
    },
    /// The provider did not take all of a commit. `LaneFailing` follows.
    PostRefused {
        /// On which lane.
        lane: LaneId,
        /// How many wrs it took, if it said so.
        accepted: Option<u32>,
        /// The provider's errno.
        errno: i32,
    },
    /// The oldest wrs of a lane have succeeded.
    Completed {
        /// On which lane.
        lane: LaneId,
        /// How many wrs.
        wrs: u32,
    },
    /// A wr has failed, or was flushed because another had.
    WrFailed {
        /// On which lane.
        lane: LaneId,
        /// The wr's sequence number.
        seq: u32,
        /// What the completion says.
        status: WcStatus,
        /// The vendor's code.
        vendor_err: u32,
    },
    /// Pages in a row have arrived, validated where asked for.
    PagesArrived {
        /// Of which batch.
        batch: Ticket,
        /// The first of them.
        first: u16,
        /// How many.
        pages: u16,
    },
    /// A page has arrived and is not the one that was asked for.
    PageMissed {
        /// Of which batch.
        batch: Ticket,
        /// Which page.
        page: u16,
        /// Why.
        miss: Miss,
    },
    /// A page has failed, for any other reason. Hardware may still write into its slot.
    PageFailed {
        /// Of which batch.
        batch: Ticket,
        /// Which page.
        page: u16,
        /// Why.
        error: PageError,
    },
    /// The deadline of a batch that is not done has passed. `PageFailed` follows for each of its
    /// pages that has neither arrived nor failed.
    DeadlinePassed {
        /// The batch.
        batch: Ticket,
        /// Its deadline.
        deadline: Time,
    },
    /// All pages of a batch are accounted for.
    Done {
        /// The batch.
        batch: Ticket,
    },
    /// A lane has been taken into use.
    LaneAttached {
        /// Its name.
        lane: LaneId,
        /// To whom.
        peer: PeerId,
        /// Over which local rail.
        rail: RailIndex,
        /// To which rail of the peer.
        remote_rail: u8,
    },
    /// A lane is lost: it is taken out of service and flushed. What is outstanding on it goes to
    /// other lanes once it is known to write no more.
    LaneFailing {
        /// Which.
        lane: LaneId,
        /// How many wrs are outstanding on it.
        outstanding: u32,
    },
    /// A lane that was lost is known to write no more.
    LaneQuiet {
        /// Which.
        lane: LaneId,
        /// How many wrs are left to be posted on other lanes, or dropped where their pages have
        /// failed.
        left: u32,
    },
    /// The place of a lane that was lost is free.
    LaneFreed {
        /// Which.
        lane: LaneId,
    },
    /// wrs of a lane that was lost are posted on another one.
    FailedOver {
        /// From which lane.
        from: LaneId,
        /// To which.
        to: LaneId,
        /// How many wrs.
        wrs: u32,
    },
    /// The wr that killed a lane is tried alone on another one.
    SuspectTried {
        /// On which lane.
        lane: LaneId,
    },
    /// Nothing has completed on a lane for too long: nothing more is posted there until something
    /// does.
    LaneSilent {
        /// Which.
        lane: LaneId,
    },
    /// Something has completed on a silent lane.
    LaneHeard {
        /// Which.
        lane: LaneId,
    },
    /// Nothing has completed on a lane for `stall`. `LaneFailing` follows.
    LaneStalled {
        /// Which.
        lane: LaneId,
    },
    /// The port of a rail went down.
    RailDown {
        /// Which.
        rail: RailIndex,
    },
    /// The port of a rail came up.
    RailUp {
        /// Which.
        rail: RailIndex,
    },
    /// A peer has been added.
    PeerAdded {
        /// Which.
        peer: PeerId,
    },
    /// A peer has been removed. Its lanes are lost, and its pages in flight fail.
    PeerRemoved {
        /// Which.
        peer: PeerId,
    },
    /// A lane in place of one that was lost has been asked for.
    LaneRequested {
        /// To whom.
        peer: PeerId,
        /// Over which local rail.
        rail: RailIndex,
        /// To which rail of the peer.
        remote_rail: u8,
        /// How often this path has failed in a row.
        failures: u8,
    },
}

impl fmt::Display for EngineEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Submitted { batch, pages, deadline } => {
                write!(f, "{batch} submitted: {pages} pages until {} ns", deadline.0)
            }
            Self::Posted { lane, wrs, bytes } => write!(f, "{lane} posted {wrs} wrs of {bytes} bytes"),
            Self::PostRefused { lane, accepted: Some(n), errno } => {
                write!(f, "{lane} took only {n} wrs of a commit: errno {errno}")
            }
            Self::PostRefused { lane, accepted: None, errno } => {
                write!(f, "{lane} refused a commit: errno {errno}")
            }
            Self::Completed { lane, wrs } => write!(f, "{lane} completed {wrs} wrs"),
            Self::WrFailed { lane, seq, status, vendor_err } => {
                write!(f, "{lane} wr {seq} failed: {status:?}, vendor error {vendor_err:#x}")
            }
            Self::PagesArrived { batch, first, pages: 1 } => write!(f, "{batch} page {first} arrived"),
            Self::PagesArrived { batch, first, pages } => {
                write!(f, "{batch} pages {first}..{} arrived", u32::from(first) + u32::from(pages))
            }
            Self::PageMissed { batch, page, miss } => write!(f, "{batch} page {page} missed: {miss}"),
            Self::PageFailed { batch, page, error } => write!(f, "{batch} page {page} failed: {error}"),
            Self::DeadlinePassed { batch, deadline } => {
                write!(f, "{batch} passed its deadline of {} ns", deadline.0)
            }
            Self::Done { batch } => write!(f, "{batch} done"),
            Self::LaneAttached { lane, peer, rail, remote_rail } => {
                write!(f, "{lane} attached: {peer} over {rail} to its rail {remote_rail}")
            }
            Self::LaneFailing { lane, outstanding } => {
                write!(f, "{lane} lost with {outstanding} wrs outstanding")
            }
            Self::LaneQuiet { lane, left } => write!(f, "{lane} quiet with {left} wrs left"),
            Self::LaneFreed { lane } => write!(f, "{lane} freed"),
            Self::FailedOver { from, to, wrs } => write!(f, "{wrs} wrs of {from} failed over to {to}"),
            Self::SuspectTried { lane } => write!(f, "{lane} tries a suspected wr alone"),
            Self::LaneSilent { lane } => write!(f, "{lane} silent"),
            Self::LaneHeard { lane } => write!(f, "{lane} no longer silent"),
            Self::LaneStalled { lane } => write!(f, "{lane} stalled"),
            Self::RailDown { rail } => write!(f, "{rail} down"),
            Self::RailUp { rail } => write!(f, "{rail} up"),
            Self::PeerAdded { peer } => write!(f, "{peer} added"),
            Self::PeerRemoved { peer } => write!(f, "{peer} removed"),
            Self::LaneRequested { peer, rail, remote_rail, failures } => {
                write!(
                    f,
                    "lane requested: {peer} over {rail} to its rail {remote_rail}, {failures} failures in a row"
                )
            }
        }
    }
}

/// A lane that is missing: somebody on the control path is to make it, and then to
/// [`attach`](crate::engine::Engine::attach) it, or to say that it is
/// [`unavailable`](crate::engine::Engine::lane_unavailable).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneWanted {
    /// To whom.
    pub peer: PeerId,
    /// Over which local rail.
    pub rail: RailIndex,
    /// To which rail of the peer the lost one led.
    pub remote_rail: u8,
    /// How often this path has failed in a row.
    pub failures: u8,
}

/// A lane that was attached and has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLost {
    /// What [`attach`](crate::engine::Engine::attach) called it.
    pub lane: LaneId,
    /// To whom it led.
    pub peer: PeerId,
    /// Over which local rail.
    pub rail: RailIndex,
    /// To which rail of the peer.
    pub remote_rail: u8,
}

impl LaneLost {
    /// Stands where none is.
    pub(crate) const NONE: Self = Self {
        lane: LaneId::new(0, 0),
        peer: PeerId { index: 0, life: 0 },
        rail: RailIndex(0),
        remote_rail: 0,
    };
}
