//! What an engine reports of its own work: typed events, at no cost without a sink.
//!
//! An [`Engine`](crate::engine::Engine) is started with an [`EventSink`]. The engine hands the sink
//! an [`EngineEvent`] for each thing that the engine does or finds out. The default sink,
//! [`NoEvents`], sets [`EventSink::ENABLED`] to false. Then no event is made, and the engine
//! compiles to the same machine code as if there were no events.
//!
//! A sink runs on the engine's thread, in the middle of `submit` and `poll`. Its work is part of
//! the data path, so it should only count, or copy the event into a ring. It must not panic: after
//! a panic in [`EventSink::event`], `submit`, `poll` and `remove_peer` panic too, and the engine
//! can only be dropped.
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
//! The two structs [`LaneWanted`] and [`LaneLost`] are no events: the control path takes them from
//! the engine ([`Engine::next_wanted_lane`](crate::engine::Engine::next_wanted_lane),
//! [`Engine::next_lost_lane`](crate::engine::Engine::next_lost_lane)) and has to act on them.

use core::fmt;

use crate::class::Class;
use crate::error::PageError;
use crate::id::{LaneId, PeerId, RailIndex, Ticket};
use crate::table::Miss;
use crate::time::Time;
use crate::verbs_abi::WcStatus;

/// Takes the events of an engine.
pub trait EventSink {
    /// Whether events are made at all. `false` removes the events, and the code that computes their
    /// fields, when the engine is compiled.
    const ENABLED: bool = true;

    /// A call of the engine begins at `now`. The events that follow, up to the next call of this
    /// method, happen at that time.
    fn time(&mut self, now: Time) {
        let _ = now;
    }

    /// Something has happened.
    fn event(&mut self, event: EngineEvent);
}

/// The empty sink, for an engine whose events are not observed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    const ENABLED: bool = false;

    fn event(&mut self, _: EngineEvent) {}
}

/// The engine may borrow a sink, so that its owner can look at the sink between calls.
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
    /// The engine has accepted a batch.
    Submitted {
        /// The batch.
        batch: Ticket,
        /// How many pages it has.
        pages: u16,
        /// Its deadline.
        deadline: Time,
    },
    /// The engine has handed a commit to the provider, which rings one doorbell.
    Posted {
        /// The lane.
        lane: LaneId,
        /// How many wrs the commit has.
        wrs: u32,
        /// How many bytes these wrs read.
        bytes: u64,
    },
    /// The provider did not take all of a commit. `LaneFailing` follows.
    PostRefused {
        /// The lane.
        lane: LaneId,
        /// How many wrs the provider took; `None` if it did not say so.
        accepted: Option<u32>,
        /// The provider's errno.
        errno: i32,
    },
    /// The oldest wrs of a lane have succeeded.
    Completed {
        /// The lane.
        lane: LaneId,
        /// How many wrs.
        wrs: u32,
    },
    /// A wr has failed, or was flushed because another wr had failed.
    WrFailed {
        /// The lane.
        lane: LaneId,
        /// The wr's sequence number.
        seq: u32,
        /// The status of the completion.
        status: WcStatus,
        /// The device vendor's error code.
        vendor_err: u32,
    },
    /// Consecutive pages of a batch have arrived, and are validated unless they were requested
    /// without validation.
    PagesArrived {
        /// The batch.
        batch: Ticket,
        /// The first of these pages.
        first: u16,
        /// How many pages.
        pages: u16,
    },
    /// A page has arrived, and is not the page that its location names. If it is the first of a set
    /// of rows ([`Batch::read_rows_of`](crate::batch::Batch::read_rows_of)), the whole set is a
    /// miss.
    PageMissed {
        /// The batch.
        batch: Ticket,
        /// The page.
        page: u16,
        /// The reason.
        miss: Miss,
    },
    /// A page has failed for another reason than a miss. Hardware may still write into its slot. If
    /// it is the first of a set of rows, the whole set has failed.
    PageFailed {
        /// The batch.
        batch: Ticket,
        /// The page.
        page: u16,
        /// The reason.
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
    /// Every page of a batch has a final result, and nothing writes into its slots any more.
    Done {
        /// The batch.
        batch: Ticket,
    },
    /// A lane has been attached, and may carry READs from now on.
    LaneAttached {
        /// The lane.
        lane: LaneId,
        /// The peer that it leads to.
        peer: PeerId,
        /// The local rail.
        rail: RailIndex,
        /// The rail of the peer.
        remote_rail: u8,
        /// The class of the work that the lane carries.
        class: Class,
    },
    /// A lane is lost: the engine takes it out of service and has it flushed. Its outstanding
    /// wrs go to other lanes once the lane is known to write no more.
    LaneFailing {
        /// The lane.
        lane: LaneId,
        /// How many wrs are outstanding on the lane.
        outstanding: u32,
    },
    /// A lane that was lost is known to write no more.
    LaneQuiet {
        /// The lane.
        lane: LaneId,
        /// How many of its wrs remain: other lanes post them, or the engine drops them where their
        /// pages have failed.
        left: u32,
    },
    /// An idle lane is given back: its QP is being destroyed.
    LaneReleased {
        /// The lane.
        lane: LaneId,
    },
    /// The place of a lost lane is free again.
    LaneFreed {
        /// The lane.
        lane: LaneId,
    },
    /// Wrs of a lost lane have been posted on another lane.
    FailedOver {
        /// The lost lane.
        from: LaneId,
        /// The lane that carries the wrs now.
        to: LaneId,
        /// How many wrs.
        wrs: u32,
    },
    /// A lane is lost over which chunks of pages of a batch had arrived. These pages, which are not
    /// validated yet, are read again.
    PagesDoubted {
        /// The lane.
        lane: LaneId,
        /// The batch.
        batch: Ticket,
        /// How many of its pages.
        pages: u16,
    },
    /// A suspect, the wr whose completion killed a lane, has been posted alone on another lane.
    SuspectTried {
        /// The other lane.
        lane: LaneId,
    },
    /// A lane is silent: no wr has completed on it for longer than it should take. Nothing more is
    /// posted on the lane until a wr completes.
    LaneSilent {
        /// The lane.
        lane: LaneId,
    },
    /// A wr has completed on a silent lane, which is no longer silent.
    LaneHeard {
        /// The lane.
        lane: LaneId,
    },
    /// No wr has completed on a lane for `stall`
    /// ([`EngineConfig::stall`](crate::config::EngineConfig::stall)). `LaneFailing` follows.
    LaneStalled {
        /// The lane.
        lane: LaneId,
    },
    /// The port of a rail went down. A port that is down already gives no further event.
    RailDown {
        /// The rail.
        rail: RailIndex,
    },
    /// The port of a rail came up. A port that is up already gives no further event.
    RailUp {
        /// The rail.
        rail: RailIndex,
    },
    /// A peer has been added.
    PeerAdded {
        /// The peer.
        peer: PeerId,
    },
    /// A peer has been removed. Its lanes are lost, and its pages in flight fail.
    PeerRemoved {
        /// The peer.
        peer: PeerId,
    },
    /// The control path has taken the request for a lane in place of a lost one.
    LaneRequested {
        /// The peer.
        peer: PeerId,
        /// The local rail.
        rail: RailIndex,
        /// The rail of the peer.
        remote_rail: u8,
        /// The class of the lost lane.
        class: Class,
        /// How often this path has failed in a row.
        failures: u8,
    },
    /// A peer has lost its last lane of a class. READs of batches of that class go over its lanes
    /// of the other class from now on.
    DetourBegan {
        /// The peer.
        peer: PeerId,
        /// The class of the lost lane.
        class: Class,
    },
    /// A peer that had lost its last lane of a class has one again.
    DetourEnded {
        /// The peer.
        peer: PeerId,
        /// The class.
        class: Class,
    },
}

/// A number and the noun that it counts, in the singular for 1.
struct Many(u64, &'static str);

impl fmt::Display for Many {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = *self;
        write!(f, "{count} {noun}{}", if count == 1 { "" } else { "s" })
    }
}

fn name(class: Class) -> &'static str {
    match class {
        Class::Urgent => "urgent",
        Class::Background => "background",
    }
}

/// The class of a lane, where it is not the usual one.
struct For(Class);

impl fmt::Display for For {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Class::Urgent { Ok(()) } else { write!(f, " for {} work", name(self.0)) }
    }
}

impl fmt::Display for EngineEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Submitted { batch, pages, deadline } => {
                write!(f, "{batch} submitted: {} until {} ns", Many(pages.into(), "page"), deadline.0)
            }
            Self::Posted { lane, wrs, bytes } => {
                write!(f, "{lane} posted {} of {}", Many(wrs.into(), "wr"), Many(bytes, "byte"))
            }
            Self::PostRefused { lane, accepted: Some(n), errno } => {
                write!(f, "{lane} took only {} of a commit: errno {errno}", Many(n.into(), "wr"))
            }
            Self::PostRefused { lane, accepted: None, errno } => {
                write!(f, "{lane} refused a commit: errno {errno}")
            }
            Self::Completed { lane, wrs } => write!(f, "{lane} completed {}", Many(wrs.into(), "wr")),
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
            Self::LaneAttached { lane, peer, rail, remote_rail, class } => {
                write!(f, "{lane} attached: {peer} over {rail} to its rail {remote_rail}{}", For(class))
            }
            Self::LaneFailing { lane, outstanding } => {
                write!(f, "{lane} lost with {} outstanding", Many(outstanding.into(), "wr"))
            }
            Self::LaneQuiet { lane, left } => write!(f, "{lane} quiet with {} left", Many(left.into(), "wr")),
            Self::LaneReleased { lane } => write!(f, "{lane} given back"),
            Self::LaneFreed { lane } => write!(f, "{lane} freed"),
            Self::FailedOver { from, to, wrs } => {
                write!(f, "{} of {from} failed over to {to}", Many(wrs.into(), "wr"))
            }
            Self::PagesDoubted { lane, batch, pages } => {
                write!(f, "{batch}: {} that {lane} carried are read again", Many(pages.into(), "page"))
            }
            Self::SuspectTried { lane } => write!(f, "{lane} tries a suspected wr alone"),
            Self::LaneSilent { lane } => write!(f, "{lane} silent"),
            Self::LaneHeard { lane } => write!(f, "{lane} no longer silent"),
            Self::LaneStalled { lane } => write!(f, "{lane} stalled"),
            Self::RailDown { rail } => write!(f, "{rail} down"),
            Self::RailUp { rail } => write!(f, "{rail} up"),
            Self::PeerAdded { peer } => write!(f, "{peer} added"),
            Self::PeerRemoved { peer } => write!(f, "{peer} removed"),
            Self::LaneRequested { peer, rail, remote_rail, class, failures } => {
                write!(
                    f,
                    "lane requested: {peer} over {rail} to its rail {remote_rail}{}, {} in a row",
                    For(class),
                    Many(failures.into(), "failure")
                )
            }
            Self::DetourBegan { peer, class } => {
                write!(f, "{peer} has no {} lane left: other lanes carry the work", name(class))
            }
            Self::DetourEnded { peer, class } => write!(f, "{peer} has a {} lane again", name(class)),
        }
    }
}

/// A request for a missing lane. The control path connects one and
/// [`attach`](crate::engine::Engine::attach)es it, or reports that it cannot
/// ([`lane_unavailable`](crate::engine::Engine::lane_unavailable)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneWanted {
    /// The peer that the lane is to lead to.
    pub peer: PeerId,
    /// The local rail.
    pub rail: RailIndex,
    /// The rail of the peer, the same that the lost lane led to.
    pub remote_rail: u8,
    /// The class of the lost lane. A lane of another class answers the request, too, but then work
    /// of the lost lane's class may stay on a detour.
    pub class: Class,
    /// How often this path has failed in a row.
    pub failures: u8,
}

/// A lane that was attached and has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLost {
    /// The id that [`attach`](crate::engine::Engine::attach) returned.
    pub lane: LaneId,
    /// The peer that the lane led to.
    pub peer: PeerId,
    /// The local rail.
    pub rail: RailIndex,
    /// The rail of the peer.
    pub remote_rail: u8,
}
