//! The control path: regions, peers, lanes.

use core::ptr::NonNull;

use kvrail_layouts::{Identity, plan::Plan};

use super::state::Engine;
use crate::events::{EngineEvent, EventSink};
use crate::id::{LaneId, PeerId, RailIndex, RegionId, RegionRef};
use crate::lane::lanes::next_in_circle;
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
    /// The table is full.
    #[error("{limit} peers are known already, the most that this engine's storage holds")]
    Full {
        /// The maximum.
        limit: usize,
    },
    /// No such peer.
    #[error("the peer is not connected")]
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

/// How a lane fits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneSpec {
    /// The local rail.
    pub rail: RailIndex,
    /// The peer's rail at the other end: says which of a region's keys is used.
    pub remote_rail: u8,
    /// Entries of the QP's send queue, or fewer: so many are used. One of them is kept for the
    /// drain wr.
    pub depth: u32,
}

/// Why a lane cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError<E: core::error::Error> {
    /// The peer is gone.
    #[error("the peer is not connected")]
    NoPeer,
    /// No such rail.
    #[error("local rail {rail} of {rails}, remote rail {remote_rail} of at most 16: there is no such path")]
    NoRail {
        /// The local rail asked for.
        rail: u8,
        /// How many there are.
        rails: usize,
        /// The remote rail asked for.
        remote_rail: u8,
    },
    /// The send queue is too short or too long.
    #[error("a send queue of {depth} entries: 2 to {limit} can be used, one of them for the drain wr")]
    Depth {
        /// What was asked for.
        depth: u32,
        /// What the storage holds.
        limit: u32,
    },
    /// The completion queue could overrun.
    #[error(
        "rail {rail}: its completion queue has {entries} entries, its lanes may need {used}, this one {depth} more"
    )]
    CqFull {
        /// The rail.
        rail: u8,
        /// The queue's size.
        entries: u32,
        /// What is spoken for.
        used: u32,
        /// What this lane needs.
        depth: u32,
    },
    /// The table is full.
    #[error("{limit} lanes are in use already, the most that this engine's storage holds")]
    Full {
        /// The maximum.
        limit: usize,
    },
    /// The provider did not open it.
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
    /// Registers memory that lives for ever as destination, `slot_bytes` per slot.
    ///
    /// # Errors
    ///
    /// Memory that holds no slot, a full table, or the provider's refusal.
    pub fn register(&mut self, memory: &'static mut [u8], slot_bytes: u64) -> Result<Slots, RegionError> {
        let range =
            MemoryRange { addr: memory.as_mut_ptr().expose_provenance() as u64, len: memory.len() as u64 };
        let base = NonNull::from(memory).cast();
        self.region(range, base, slot_bytes, Access::Host, None, |provider| provider.register(range))
    }

    /// Registers foreign memory (pinned, a GPU's, an inference engine's own pool) as destination.
    /// `numa` is its node, where known: rails of the same node are preferred.
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

    /// Registers memory of another device, exported as a dmabuf, as destination: its slots give no
    /// bytes. `range` says by which addresses it goes, `numa` is the device's node, where known.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register); errno 95 of rails that take no such memory.
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

    /// Releases a region whose slots are all home, and gives its range back.
    ///
    /// # Errors
    ///
    /// The slots, untouched, where some are still out or the region is another engine's.
    pub fn unregister(&mut self, slots: Slots) -> Result<MemoryRange, Slots> {
        if slots.engine() != self.tag || slots.out() != 0 {
            return Err(slots);
        }
        let local = &mut self.regions.locals[slots.region().index()];
        self.provider.deregister(slots.range(), &local.keys);
        *local = LocalPlace::FREE;
        Ok(slots.range())
    }

    /// Learns how pages in another layout land in slots
    /// ([`Batch::read_with`](crate::batch::Batch::read_with)). The plan is cut into work requests
    /// of at most `EngineConfig::chunk_bytes` in as many pieces as the rails take.
    ///
    /// A plan that is known already has the same place; those that only begin elsewhere in the page
    /// or in the slot share most of it. Plans are known for as long as the engine is.
    ///
    /// # Errors
    ///
    /// A plan between several regions (see [`Plan::only`]), one that is no list of work requests, a
    /// full table.
    ///
    /// Whether pages and slots are those that the plan was made for is found where they are put
    /// together: [`LayoutMismatch`](crate::layout::LayoutMismatch).
    pub fn add_plan(&mut self, plan: &Plan) -> Result<PlanRef, AddPlanError> {
        self.plans.add(plan, &mut self.layouts)
    }

    /// Learns a layout, unless it is known, so that remote regions and slots can be said to hold
    /// its pages ([`RemoteRegion::set_layout`], [`Slots::set_layout`]). `region` is which region of
    /// a page they hold: 0, where a page has one. Layouts are known for as long as the engine is.
    ///
    /// # Errors
    ///
    /// A layout that leaves a distance or a rank open, a full table.
    pub fn add_layout(&mut self, layout: &Identity, region: u32) -> Result<LayoutRef, AddLayoutError> {
        self.layouts.add(layout, region)
    }

    /// Makes room for a peer. It can be read from once it has a region and a lane.
    ///
    /// # Errors
    ///
    /// A full table.
    pub fn add_peer(&mut self) -> Result<PeerId, PeerError> {
        let limit = self.peers.len();
        let place = self.peers.find_free().ok_or(PeerError::Full { limit })?;
        self.peers.first_free = place + 1;
        let peer = &mut self.peers[place];
        // It may still stand in queues, which name the place.
        let Peer { life, ready, capped, in_trials, .. } = *peer;
        let life = life.wrapping_add(1);
        *peer = Peer { life, ready, capped, in_trials, state: PeerState::Up, ..Peer::EMPTY };
        let peer = peer.id(narrow(place));
        self.emit(|_| EngineEvent::PeerAdded { peer });
        Ok(peer)
    }

    /// Removes a peer: what is not posted of its pages fails at once, its lanes are flushed and
    /// destroyed, and its place becomes free when they are.
    ///
    /// # Errors
    ///
    /// A peer that is not there.
    pub fn remove_peer(&mut self, id: PeerId, now: Time) -> Result<(), PeerError> {
        self.peers.find(id).ok_or(PeerError::NoPeer)?;
        let index = id.index;
        self.emit_time(now);
        self.emit(|_| EngineEvent::PeerRemoved { peer: id });
        self.peers[id.index()].state = PeerState::Leaving;
        self.cancel_peer(index);
        for rail in 0..self.rails.len() {
            // Each takes itself out of the circle.
            while let lane = self.peers[id.index()].lanes[rail]
                && lane != NO_LANE
            {
                self.fail_lane(lane.into(), now);
            }
        }
        self.repairs.forget(index);
        self.leave(index);
        Ok(())
    }

    /// Frees the place of a leaving peer once nothing of it is left.
    pub(super) fn leave(&mut self, index: u16) {
        let peer = &mut self.peers[usize::from(index)];
        // While its pages are being cancelled, the last of its lanes may go before the last page
        // has.
        if peer.state != PeerState::Leaving || peer.lanes_all != 0 || peer.in_flight() > 0 {
            return;
        }
        peer.state = PeerState::Free;
        let remotes = core::mem::replace(&mut peer.remotes, NO_REGION);
        self.peers.first_free = self.peers.first_free.min(index.into());
        self.regions.free_remotes(remotes);
    }

    /// How many more peers, and how many more regions of peers, the storage has places for.
    #[must_use]
    pub fn places_free(&self) -> (usize, usize) {
        let peers = self.peers.all.iter().filter(|peer| peer.state == PeerState::Free).count();
        (peers, self.regions.remotes.iter().filter(|remote| !remote.used).count())
    }

    /// Learns of a region that the peer has published.
    ///
    /// # Errors
    ///
    /// An offer whose numbers cannot be, an unknown peer, or a full table.
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
            // Checked by the offer.
            page_bytes: offer.page_bytes as u32,
            base: offer.base,
            stride: offer.stride,
            layout: NO_LAYOUT,
            has_table: table.is_some(),
        })
    }

    /// Takes a connected lane into use: the provider opens it, and from then on the engine alone
    /// has it.
    ///
    /// # Errors
    ///
    /// The reason; the lane is released.
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
        let handle = self.provider.open(id_of_lane, rail, unopened).map_err(AttachError::Open)?;
        self.lanes.first_free = place + 1;
        self.rails[rail.get()].cq_used = used + depth;
        self.lanes[place] = Lane {
            id: id_of_lane,
            state: LaneState::Up,
            peer: id.index,
            rail: rail.0,
            remote_rail,
            next: NO_LANE,
            credits: depth - 1,
            since: now,
            handle: Some(handle),
            ..Lane::EMPTY
        };
        self.link_lane(narrow(place));
        self.repairs.find(id.index, rail.get(), usize::from(remote_rail));
        self.peers.enroll(id.index);
        self.emit_time(now);
        self.emit(|_| EngineEvent::LaneAttached { lane: id_of_lane, peer: id, rail, remote_rail });
        Ok(id_of_lane)
    }

    /// Puts a lane into the circle of its peer and rail.
    fn link_lane(&mut self, lane: u16) {
        let l = &self.lanes[usize::from(lane)];
        let (peer, rail) = (usize::from(l.peer), usize::from(l.rail));
        let peer = &mut self.peers[peer];
        let first = peer.lanes[rail];
        if first == NO_LANE {
            self.lanes[usize::from(lane)].next = lane;
            peer.lanes[rail] = lane;
        } else {
            self.lanes[usize::from(lane)].next = self.lanes[usize::from(first)].next;
            self.lanes[usize::from(first)].next = lane;
        }
        peer.lanes_up += 1;
        peer.lanes_all += 1;
        peer.room |= 1 << rail;
    }

    /// Takes a lane out of its circle.
    pub(super) fn unlink_lane(&mut self, lane: u16) {
        let l = &self.lanes[usize::from(lane)];
        let (peer, rail) = (usize::from(l.peer), usize::from(l.rail));
        let after = l.next;
        let mut at = lane;
        while let Some(next) = next_in_circle(self.lanes.all, at, lane) {
            at = next;
        }
        let peer = &mut self.peers[peer];
        if at == lane {
            peer.lanes[rail] = NO_LANE;
            peer.room &= !(1 << rail);
        } else {
            self.lanes[usize::from(at)].next = after;
            peer.lanes[rail] = after;
        }
        self.lanes[usize::from(lane)].next = NO_LANE;
        peer.lanes_up -= 1;
    }
}
