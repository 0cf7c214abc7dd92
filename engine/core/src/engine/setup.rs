//! The control path: peers come and go, lanes are attached.

use super::state::Engine;
use crate::events::{EngineEvent, EventSink};
use crate::id::{LaneId, PeerId, RailIndex};
use crate::lane::circle::Circle;
use crate::lane::{Lane, LaneState, NO_LANE};
use crate::limits::{MAX_RAILS, narrow};
use crate::peer::{Peer, PeerState};
use crate::provider::Provider;
use crate::regions::NO_REGION;
use crate::time::Time;

/// Why a peer cannot be added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The engine's table of peers is full.
    #[error(
        "{limit} peers are known already, the most that this engine's storage holds: remove one, or give the storage more"
    )]
    Full {
        /// The most peers of the storage.
        limit: usize,
    },
    /// The peer was removed already, or is another engine's.
    #[error("the engine has no such peer: it was removed already, or is another engine's")]
    NoPeer,
}

impl PeerError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Full { .. } => 2030,
            Self::NoPeer => 2031,
        }
    }
}

/// The path of a lane, and its depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSpec {
    /// The local rail.
    pub rail: RailIndex,
    /// The peer's rail at the other end. It selects the key of a remote region.
    pub remote_rail: u8,
    /// How many entries of the QP's send queue the engine uses, at most all. One of them is kept
    /// for the drain wr.
    pub depth: u32,
}

/// Why a lane cannot be attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError<E: core::error::Error> {
    /// The peer was removed, or is another engine's.
    #[error("the engine has no such peer: it was removed, or is another engine's")]
    NoPeer,
    /// There is no such local rail, or the number of the remote rail is too large.
    #[error(
        "there is no path from local rail {rail} to remote rail {remote_rail}: the provider has {rails} rails, and remote rails are below 16"
    )]
    NoRail {
        /// The requested local rail.
        rail: u8,
        /// How many rails the provider has.
        rails: usize,
        /// The requested remote rail.
        remote_rail: u8,
    },
    /// The send queue is too short or too long.
    #[error(
        "the lane cannot use {depth} entries of its send queue: 2 to {limit} are possible, one of them for the drain wr"
    )]
    Depth {
        /// The requested depth.
        depth: u32,
        /// The most entries of a lane in this storage.
        limit: u32,
    },
    /// The completion queue of the rail could overrun.
    #[error(
        "the completion queue of rail {rail} has {entries} entries; its lanes may need {used}, and this one {depth} more: attach fewer lanes, or use fewer entries of each"
    )]
    CqFull {
        /// The rail.
        rail: u8,
        /// Entries of the completion queue.
        entries: u32,
        /// Entries that the lanes of the rail may need.
        used: u32,
        /// Entries that this lane may need.
        depth: u32,
    },
    /// The engine's table of lanes is full.
    #[error(
        "{limit} lanes are in use already, the most that this engine's storage holds: give the storage more"
    )]
    Full {
        /// The most lanes of the storage.
        limit: usize,
    },
    /// The provider did not open the lane.
    #[error(transparent)]
    Open(E),
}

impl<E: core::error::Error> AttachError<E> {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NoPeer => 2040,
            Self::NoRail { .. } => 2041,
            Self::Depth { .. } => 2042,
            Self::CqFull { .. } => 2043,
            Self::Full { .. } => 2044,
            Self::Open(_) => 2045,
        }
    }
}

impl<P: Provider, E: EventSink> Engine<'_, P, E> {
    /// Adds a peer. Pages can be read from it once it has a region and a lane.
    ///
    /// # Errors
    ///
    /// The table of peers is full.
    pub fn add_peer(&mut self) -> Result<PeerId, PeerError> {
        let limit = self.peers.len();
        let place = self.peers.find_free().ok_or(PeerError::Full { limit })?;
        self.peers.first_free = place + 1;
        let peer = &mut self.peers[place];
        // The place may still be in queues, since its last peer was; these flags say in which.
        let Peer { life, ready, in_trials, .. } = *peer;
        let life = life.wrapping_add(1);
        *peer = Peer { life, ready, in_trials, state: PeerState::Up, ..Peer::EMPTY };
        let peer = peer.id(narrow(place));
        self.emit(|_| EngineEvent::PeerAdded { peer });
        Ok(peer)
    }

    /// Removes a peer. Its unposted pages fail at once, its lanes are flushed and destroyed, and
    /// its place becomes free when they are.
    ///
    /// # Errors
    ///
    /// The peer was removed already, or is another engine's.
    pub fn remove_peer(&mut self, id: PeerId, now: Time) -> Result<(), PeerError> {
        self.sink.check();
        self.peers.find(id).ok_or(PeerError::NoPeer)?;
        let index = id.index;
        self.emit_time(now);
        self.emit(|_| EngineEvent::PeerRemoved { peer: id });
        self.peers[id.index()].state = PeerState::Leaving;
        self.cancel_peer(index);
        for circle in Circle::all() {
            // Failing a lane takes it out of the circle.
            while let lane = self.peers[id.index()].circles.next(circle)
                && lane != NO_LANE
            {
                self.fail_lane(lane.into(), now);
            }
        }
        self.repairs.forget(index);
        self.leave(index);
        Ok(())
    }

    /// Frees the place of a leaving peer once it has no lane and no page in flight.
    pub(super) fn leave(&mut self, index: u16) {
        let peer = &mut self.peers[usize::from(index)];
        // While its pages are being cancelled, its last lane may be freed before its last page is
        // retired.
        if peer.state != PeerState::Leaving || peer.lanes_all != 0 || peer.in_flight() > 0 {
            return;
        }
        peer.state = PeerState::Free;
        let remotes = core::mem::replace(&mut peer.remotes, NO_REGION);
        self.peers.first_free = self.peers.first_free.min(index.into());
        self.regions.free_remotes(remotes);
    }

    /// How many peers and how many remote regions can still be added.
    #[must_use]
    pub fn places_free(&self) -> (usize, usize) {
        let peers = self.peers.all.iter().filter(|peer| peer.state == PeerState::Free).count();
        (peers, self.regions.remotes.iter().filter(|remote| !remote.used).count())
    }

    /// Takes a connected lane into use. The provider opens it, and from then on the engine owns it.
    /// READs of batches of the lane's class ([`Provider::class`]) go over it; see there for others.
    ///
    /// # Errors
    ///
    /// The peer is unknown, there is no such path, the depth cannot be used, the completion queue
    /// could overrun, the table of lanes is full, or the provider cannot open the lane. The lane is
    /// released then.
    pub fn attach(
        &mut self,
        id: PeerId,
        spec: LaneSpec,
        unopened: P::Unopened,
        now: Time,
    ) -> Result<LaneId, AttachError<P::OpenError>> {
        let LaneSpec { rail, remote_rail, depth } = spec;
        if self.peers.find(id).is_none() {
            return Err(AttachError::NoPeer);
        }
        let rails = self.rails.len();
        if rail.get() >= rails || usize::from(remote_rail) >= MAX_RAILS {
            return Err(AttachError::NoRail { rail: rail.0, rails, remote_rail });
        }
        if depth < 2 || depth > self.lanes.depth {
            return Err(AttachError::Depth { depth, limit: self.lanes.depth });
        }
        let entries = self.rails[rail.get()].info.cq_entries;
        let used = self.rails[rail.get()].cq_used;
        if used.checked_add(depth).is_none_or(|need| need > entries) {
            return Err(AttachError::CqFull { rail: rail.0, entries, used, depth });
        }
        let limit = self.lanes.len();
        let place = self.lanes.find_free().ok_or(AttachError::Full { limit })?;
        let id_of_lane = self.lanes[place].id;
        let class = self.provider.class(&unopened);
        let handle = self.provider.open(id_of_lane, rail, unopened).map_err(AttachError::Open)?;
        self.lanes.first_free = place + 1;
        self.rails[rail.get()].cq_used = used + depth;
        self.rails[rail.get()].lanes += 1;
        self.lanes[place] = Lane {
            id: id_of_lane,
            state: LaneState::Up,
            peer: id.index,
            rail: rail.0,
            remote_rail,
            circle: Circle::new(class, rail.0),
            credits: depth - 1,
            since: now,
            handle: Some(handle),
            ..Lane::EMPTY
        };
        self.link_lane(narrow(place));
        self.repairs.attached(id.index, rail.get(), usize::from(remote_rail), class);
        self.emit_time(now);
        self.emit(|_| EngineEvent::LaneAttached { lane: id_of_lane, peer: id, rail, remote_rail, class });
        self.report_detours(id.index);
        Ok(id_of_lane)
    }
}
