//! What the numbers of a caller in C stand for: slots, peers, plans.

use engine::core::batch::Done;
use engine::core::id::PeerId;
use engine::core::memory::{Slot, SlotRange, Slots};
use engine::core::plan::PlanRef;
use engine::core::table::{EntryValue, Generation};
use engine::core::time::Nanos;
use engine::session::PoolId;
use engine::{Connecting, KeyTag, Location, PageLayout, Peer, PeerPool, Ready};

use super::takings::Takings;
use crate::error::CapiError;

/// A region of destination memory: its slots, of which those in flight are not here.
pub(crate) struct Region {
    slots: Slots,
    free: Box<[Option<Slot>]>,
}

/// A connected peer.
pub(crate) struct KnownPeer {
    number: u32,
    pub(crate) peer: Peer,
    /// Its pools: those of the session's beginning, and those that came later.
    pub(crate) pools: Vec<PeerPool>,
}

/// The destination regions, by the engine's numbers of them.
#[derive(Default)]
pub(crate) struct Regions(Vec<Option<Region>>);

/// The connected peers.
#[derive(Default)]
pub(crate) struct Peers {
    /// By the engine's place of the peer.
    places: Vec<Option<KnownPeer>>,
    /// How many peers have had each place.
    lives: Vec<u16>,
}

/// Pages of a range in the form that the engine takes them in. They are written anew for each use.
pub(crate) struct Scratch {
    pub(crate) locations: Box<[Location]>,
    pub(crate) slots: Box<[u32]>,
}

/// Pages that join a batch by one call of the engine.
const AT_ONCE: usize = 64;

impl Default for Scratch {
    fn default() -> Self {
        let expected = EntryValue { generation: Generation(0), ready: Ready(0), tag: KeyTag(0) };
        let locations = vec![Location { slot: 0, expected }; AT_ONCE].into_boxed_slice();
        Self { locations, slots: vec![0; AT_ONCE].into_boxed_slice() }
    }
}

/// What numbers stand for. Nothing here allocates on the data path.
pub(crate) struct Tables {
    pub(crate) regions: Regions,
    pub(crate) peers: Peers,
    /// The plan number 1 is at place 0.
    pub(crate) plans: Vec<Option<PlanRef>>,
    pub(crate) scratch: Scratch,
    /// A done batch of which not all results have been taken.
    pub(crate) draining: Option<Done<'static>>,
    /// The connects that were begun, by the numbers that the caller has.
    pub(crate) connecting: Vec<(u64, Connecting)>,
    pub(crate) next_connecting: u64,
    pub(crate) takings: Takings,
    pub(crate) layout: PageLayout,
    pub(crate) rail_names: Vec<String>,
    /// When a batch fails whose options do not say it.
    pub(crate) timeout: Nanos,
    /// Batches and pages of a batch of the engine's storage.
    pub(crate) batches: usize,
    pub(crate) batch: usize,
}

impl Tables {
    pub(crate) fn new(
        layout: PageLayout,
        rail_names: Vec<String>,
        timeout: Nanos,
        batches: usize,
        batch: usize,
    ) -> Self {
        Self {
            regions: Regions::default(),
            peers: Peers::default(),
            plans: Vec::new(),
            scratch: Scratch::default(),
            draining: None,
            connecting: Vec::new(),
            next_connecting: 1,
            takings: Takings::default(),
            layout,
            rail_names,
            timeout,
            batches,
            batch,
        }
    }
}

impl Regions {
    /// Keeps the slots of a new region, and returns its number and how many slots there are.
    pub(crate) fn add(&mut self, mut slots: Slots) -> (u32, u32) {
        let at = slots.region().index();
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        let free: Box<[_]> = slots.by_ref().map(Some).collect();
        let count = free.len();
        self.0[at] = Some(Region { slots, free });
        // An engine has 256 regions, and a region less than 2^32 slots.
        (at as u32, count as u32)
    }

    /// Takes the region back, with all of its slots.
    pub(crate) fn remove(&mut self, region: u32) -> Result<Slots, CapiError> {
        let place = self.0.get_mut(region as usize).ok_or(CapiError::Region { region })?;
        let known = place.as_ref().ok_or(CapiError::Region { region })?;
        let in_flight = known.free.iter().filter(|slot| slot.is_none()).count();
        if in_flight > 0 {
            return Err(CapiError::RegionBusy { region, in_flight });
        }
        let Region { mut slots, free } = place.take().ok_or(CapiError::Region { region })?;
        for slot in free.into_iter().flatten() {
            // All of them are of this region.
            let _ = slots.put(slot);
        }
        Ok(slots)
    }

    /// Keeps a region whose slots were not taken back after all.
    pub(crate) fn restore(&mut self, slots: Slots) {
        let at = slots.region().index();
        self.0[at] = Some(Region { slots, free: Box::default() });
    }

    /// The place of a slot, which is empty while the slot is in flight.
    #[inline]
    pub(crate) fn place(&mut self, region: u32, slot: u32) -> Option<&mut Option<Slot>> {
        self.0.get_mut(region as usize)?.as_mut()?.free.get_mut(slot as usize)
    }

    /// Takes `count` slots from number `first` on. An error says at which of them it stopped, and
    /// nothing has been taken then.
    #[inline]
    pub(crate) fn take_range(
        &mut self,
        region: u32,
        first: u32,
        count: usize,
    ) -> Result<SlotRange, (usize, CapiError)> {
        let known = self.0.get_mut(region as usize).and_then(Option::as_mut);
        let places = known.and_then(|known| known.free.get_mut(first as usize..)?.get_mut(..count));
        match places.and_then(SlotRange::gather) {
            Some(range) => Ok(range),
            None => Err(self.why_no_range(region, first, count)),
        }
    }

    #[cold]
    fn why_no_range(&self, region: u32, first: u32, count: usize) -> (usize, CapiError) {
        let free: &[_] = match self.0.get(region as usize) {
            Some(Some(known)) => &known.free,
            _ => &[],
        };
        let missing = |at: &usize| !matches!(free.get(first as usize + at), Some(Some(_)));
        let at = (0..count).find(missing).unwrap_or(0);
        // A number beyond those of slots is beyond the region, too.
        let slot = u32::try_from(first as usize + at).unwrap_or(u32::MAX);
        (at, self.why_not(region, slot))
    }

    /// Puts slots back.
    #[inline]
    pub(crate) fn put_range(&mut self, range: SlotRange) {
        let (region, first) = (range.region().index(), range.first());
        // A region whose slots are in flight stays.
        let known = self.0.get_mut(region).and_then(Option::as_mut);
        let places = known.and_then(|known| known.free.get_mut(first..)).unwrap_or_default();
        for (place, slot) in places.iter_mut().zip(range) {
            *place = Some(slot);
        }
    }

    /// Why there is no such slot to be taken.
    #[cold]
    pub(crate) fn why_not(&self, region: u32, slot: u32) -> CapiError {
        match self.0.get(region as usize) {
            Some(Some(known)) if (slot as usize) < known.free.len() => {
                CapiError::SlotInFlight { region, slot }
            }
            Some(Some(known)) => CapiError::Slot { region, slot, slots: known.free.len() },
            _ => CapiError::Region { region },
        }
    }

    /// Puts a slot back, and returns its region and its number.
    #[inline]
    pub(crate) fn put(&mut self, slot: Slot) -> (u32, u32) {
        let (region, index) = (slot.region().index() as u32, slot.index() as u32);
        // A region whose slots are in flight stays.
        if let Some(place) = self.place(region, index) {
            *place = Some(slot);
        }
        (region, index)
    }
}

impl Peers {
    /// Keeps a peer, and returns its number.
    pub(crate) fn add(&mut self, peer: Peer) -> u32 {
        let at = peer.id().index();
        if self.places.len() <= at {
            self.places.resize_with(at + 1, || None);
            self.lives.resize(at + 1, 0);
        }
        self.lives[at] = self.lives[at].wrapping_add(1);
        // A place is a u16.
        let number = u32::from(self.lives[at]) << 16 | at as u32;
        let pools = peer.pools().to_vec();
        self.places[at] = Some(KnownPeer { number, peer, pools });
        number
    }

    /// The peer of this number.
    #[inline]
    pub(crate) fn get(&self, peer: u32) -> Result<&KnownPeer, CapiError> {
        match self.places.get(peer as usize & 0xFFFF) {
            Some(Some(known)) if known.number == peer => Ok(known),
            _ => Err(CapiError::Peer { peer }),
        }
    }

    /// Forgets the peer of this number.
    pub(crate) fn remove(&mut self, peer: u32) -> Result<Peer, CapiError> {
        self.get(peer)?;
        let known = self.places[peer as usize & 0xFFFF].take();
        known.map(|known| known.peer).ok_or(CapiError::Peer { peer })
    }

    /// The number of a peer that the engine names, and its pools.
    pub(crate) fn known(&mut self, id: PeerId) -> Option<(u32, &mut Vec<PeerPool>)> {
        let known = self.places.get_mut(id.index())?.as_mut().filter(|known| known.peer.id() == id)?;
        Some((known.number, &mut known.pools))
    }
}

impl KnownPeer {
    /// The pool of this number.
    #[inline]
    pub(crate) fn pool(&self, pool: u32) -> Result<&PeerPool, CapiError> {
        match self.pools.iter().find(|known| known.id() == PoolId(pool)) {
            Some(pool) => Ok(pool),
            None => Err(CapiError::Pool { pool }),
        }
    }
}
