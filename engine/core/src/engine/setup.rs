//! The control path: memory is registered, layouts and plans are added, peers come and go, lanes
//! are attached.

use core::ptr::NonNull;

use kvrail_layouts::{Identity, plan::Plan};

use super::state::Engine;
use crate::events::{EngineEvent, EventSink};
use crate::id::{LaneId, PeerId, RailIndex, RegionId, RegionRef};
use crate::lane::circle::Circle;
use crate::lane::{Lane, LaneState, NO_LANE};
use crate::layout::{AddLayoutError, LayoutRef, NO_LAYOUT};
use crate::limits::{MAX_RAILS, narrow};
use crate::memory::region::{RegionError, RegionShape, Slots};
use crate::memory::slot::Access;
use crate::peer::{Peer, PeerState};
use crate::plan::{AddPlanError, PlanRef};
use crate::provider::{DmaBuf, MemoryRange, Provider, RailKeys, RegisterError};
use crate::regions::faults::Faults;
use crate::regions::{LocalPlace, NO_REGION, RemotePlace};
use crate::remote::{OfferError, RegionOffer, RemoteRegion};
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
    /// Registers memory that lives for ever as destination, in slots of `slot_bytes` bytes.
    ///
    /// # Errors
    ///
    /// The memory holds no slot, the table of regions is full, or the provider cannot register the
    /// memory.
    pub fn register(&mut self, memory: &'static mut [u8], slot_bytes: u64) -> Result<Slots, RegionError> {
        let range =
            MemoryRange { addr: memory.as_mut_ptr().expose_provenance() as u64, len: memory.len() as u64 };
        let base = NonNull::from(memory).cast();
        self.region(range, base, slot_bytes, Access::Host, None, |provider| provider.register(range))
    }

    /// Registers foreign memory (pinned, a GPU's, an inference engine's own pool) as destination.
    /// `numa` is the memory's NUMA node, if known: rails of the same node are preferred.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register).
    ///
    /// # Safety
    ///
    /// From now on, and until [`unregister`](Self::unregister) gives the range back, the memory is
    /// valid, belongs to the slots alone, and is not unmapped. With [`Access::Host`] it is readable
    /// and writable by the CPU, and initialised.
    #[allow(unsafe_code, reason = "the caller's promise is in the signature")]
    pub unsafe fn register_foreign(
        &mut self,
        range: MemoryRange,
        slot_bytes: u64,
        access: Access,
        numa: Option<u8>,
    ) -> Result<Slots, RegionError> {
        let base = NonNull::new(core::ptr::with_exposed_provenance_mut(range.addr as usize));
        let base = base.ok_or(RegionError::TooSmall { bytes: 0, slot_bytes })?;
        self.region(range, base, slot_bytes, access, numa, |provider| provider.register(range))
    }

    /// Registers memory of another device, exported as a dmabuf, as destination. Its slots give an
    /// address and no bytes. READs address the memory by the addresses of `range`; `numa` is the
    /// device's NUMA node, if known.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register); errno 95 is that of rails that cannot register such memory.
    ///
    /// # Safety
    ///
    /// From now on, and until [`unregister`](Self::unregister) gives the range back, the memory is
    /// valid and belongs to the slots alone.
    #[allow(unsafe_code, reason = "the caller's promise is in the signature")]
    pub unsafe fn register_dmabuf(
        &mut self,
        range: MemoryRange,
        dmabuf: DmaBuf,
        slot_bytes: u64,
        numa: Option<u8>,
    ) -> Result<Slots, RegionError> {
        let base = NonNull::new(core::ptr::with_exposed_provenance_mut(range.addr as usize));
        let base = base.ok_or(RegionError::TooSmall { bytes: 0, slot_bytes })?;
        self.region(range, base, slot_bytes, Access::Device, numa, |p| p.register_dmabuf(range, dmabuf))
    }

    fn region(
        &mut self,
        range: MemoryRange,
        base: NonNull<u8>,
        slot_bytes: u64,
        access: Access,
        numa: Option<u8>,
        register: impl FnOnce(&mut P) -> Result<RailKeys, RegisterError>,
    ) -> Result<Slots, RegionError> {
        let shape = RegionShape::check(range.len, slot_bytes)?;
        let limit = self.regions.locals.len();
        let place =
            self.regions.locals.iter().position(|local| !local.used).ok_or(RegionError::Full { limit })?;
        let keys = register(&mut self.provider)?;
        let mut near = 0;
        for (i, rail) in self.rails.iter().enumerate() {
            if numa.is_none() || rail.info.numa == numa {
                near |= 1 << i;
            }
        }
        self.regions.locals[place] = LocalPlace { used: true, near, keys };
        let batch = slot_bytes.saturating_mul(self.pages.pool().pages_per_batch() as u64);
        self.rails.may_carry(batch, &self.config);
        let region = RegionId(narrow(place));
        // SAFETY: `register` has the memory exclusively and for ever; `register_foreign`'s caller
        // promises the same until `unregister`. The shape was checked just now.
        #[allow(unsafe_code, reason = "the slots of memory that was promised")]
        Ok(unsafe { Slots::new(base, range, shape, region, self.tag, access) })
    }

    /// Releases a region of which no slot is out, and returns its range.
    ///
    /// # Errors
    ///
    /// The slots, untouched, if some are still out or the region is another engine's.
    pub fn unregister(&mut self, slots: Slots) -> Result<MemoryRange, Slots> {
        if slots.engine() != self.tag || slots.out() != 0 {
            return Err(slots);
        }
        let local = &mut self.regions.locals[slots.region().index()];
        self.provider.deregister(slots.range(), &local.keys);
        *local = LocalPlace::FREE;
        Ok(slots.range())
    }

    /// Adds a copy plan: how pages in another layout land in slots
    /// ([`Batch::read_with`](crate::batch::Batch::read_with)). The plan is cut into work requests
    /// of at most `EngineConfig::chunk_bytes`, with as many pieces as [`Provider::sges`] allows.
    ///
    /// A plan that is known already takes no further place. Plans that differ only in where they
    /// begin share most of theirs. A plan stays known until the engine is dropped.
    ///
    /// # Errors
    ///
    /// The plan is between several regions (see [`Plan::only`]), cannot be cut into work requests,
    /// moves no byte, or the table is full.
    ///
    /// That pages and slots have the layouts of the plan is checked when a page joins a batch:
    /// [`LayoutMismatch`](crate::layout::LayoutMismatch).
    pub fn add_plan(&mut self, plan: &Plan) -> Result<PlanRef, AddPlanError> {
        self.plans.add(plan, &mut self.layouts)
    }

    /// Adds a layout, unless it is known, for [`RemoteRegion::set_layout`] and
    /// [`Slots::set_layout`]. `region` is the number of the region of a page that they hold; 0 if a
    /// page has only one. A layout stays known until the engine is dropped.
    ///
    /// # Errors
    ///
    /// The layout leaves a distance or a rank open, or the table is full.
    pub fn add_layout(&mut self, layout: &Identity, region: u32) -> Result<LayoutRef, AddLayoutError> {
        self.layouts.add(layout, region)
    }

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
        let Peer { life, ready, capped, in_trials, .. } = *peer;
        let life = life.wrapping_add(1);
        *peer = Peer { life, ready, capped, in_trials, state: PeerState::Up, ..Peer::EMPTY };
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

    /// Adds a region that the peer has published.
    ///
    /// # Errors
    ///
    /// A number of the offer cannot work, the peer is unknown, or the table of remote regions is
    /// full.
    pub fn add_region(&mut self, id: PeerId, offer: &RegionOffer) -> Result<RemoteRegion, OfferError> {
        self.peers.find(id).ok_or(OfferError::NoPeer)?;
        offer.check()?;
        let limit = self.regions.remotes.len();
        let place = self.regions.find_free_remote().ok_or(OfferError::Full { limit })?;
        self.regions.first_free_remote = place + 1;
        let table = offer.table.as_ref();
        self.regions.remotes[place] = RemotePlace {
            used: true,
            next: core::mem::replace(&mut self.peers[id.index()].remotes, narrow(place)),
            table: table.map_or(0, |table| table.base),
            keys: offer.keys,
            table_keys: table.map_or([0; MAX_RAILS], |table| table.keys),
            faults: Faults::NONE,
        };
        Ok(RemoteRegion {
            peer: id,
            source: RegionRef::new(self.tag, narrow(place), id),
            slots: offer.slots,
            // `check` has found that it is a u32.
            page_bytes: offer.page_bytes as u32,
            base: offer.base,
            stride: offer.stride,
            layout: NO_LAYOUT,
            has_table: table.is_some(),
        })
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
