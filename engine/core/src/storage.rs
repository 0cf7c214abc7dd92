//! An engine's whole state, sized at compile time.
//!
//! A storage nobody has started an engine in is zeros and uninitialised bytes: a `static` of a hundred
//! megabytes adds nothing to the program's file, and one on the heap never passes over a stack. An engine
//! writes all of it, in place, when it starts: no page of it is touched for the first time later.
#![allow(unsafe_code, reason = "memory that is initialised in place, and a static that is handed out once")]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

use kvrail_layouts::plan::CutList;

use crate::config::Config;
use crate::engine::{Engine, LaneLost, StartError};
use crate::free::FreeSet;
use crate::id::{LaneId, MAX_RAILS};
use crate::lane::{Lane, Record};
use crate::layout::{self, LAYOUTS};
use crate::page::Page;
use crate::peer::{CLASSES, Local, Peer, Remote};
use crate::plan::{PLAN_LISTS, PLANS, Place};
use crate::pool::Head;
use crate::provider::Provider;
use crate::rail::Rail;
use crate::repairs::Paths;
use crate::table::Entry;
use crate::time::Time;
use crate::turns::Room;

/// Groups of 64 batches that a storage may have.
const GROUPS: usize = 256;
/// Local regions of one engine, the engine's own included: their numbers fit the 8 bits that a slot
/// has for one.
pub(crate) const LOCAL_REGIONS: usize = 256;
const _: () = assert!(LOCAL_REGIONS <= 1 << 8);
/// What a provider's part of a lane ([`Provider::Lane`]) may take, in bytes.
/// A larger one goes behind a pointer; the compiler says so where an engine is started.
pub const LANE_BYTES: usize = 128;

/// Room for one engine: at most `PEERS` peers with `REGIONS` published regions and `LANES` lanes
/// together, `DEPTH` wrs outstanding per lane (the drain wr's place included; a power of two), and
/// `BATCHES` batches of `PAGES` pages, filled, in flight or done. Over any provider.
pub struct Storage<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
> {
    /// How many engines have been started in it. 0: nothing below is initialised.
    starts: u32,
    rails: [MaybeUninit<Rail>; MAX_RAILS],
    locals: [MaybeUninit<Local>; LOCAL_REGIONS],
    peers: [MaybeUninit<Peer>; PEERS],
    paths: [MaybeUninit<Paths>; PEERS],
    repairs: [MaybeUninit<u16>; PEERS],
    doubted: [MaybeUninit<u16>; PEERS],
    turns: [[[MaybeUninit<u16>; PEERS]; 1 + MAX_RAILS]; CLASSES],
    remotes: [MaybeUninit<Remote>; REGIONS],
    lanes: [LaneRoom; LANES],
    records: [[MaybeUninit<Record>; DEPTH]; LANES],
    heads: [MaybeUninit<Head>; BATCHES],
    pages: [[MaybeUninit<Page>; PAGES]; BATCHES],
    landing: [[MaybeUninit<Entry>; PAGES]; BATCHES],
    free: [MaybeUninit<FreeSet>; GROUPS],
    done: [MaybeUninit<u16>; BATCHES],
    lost: [MaybeUninit<LaneLost>; LANES],
    flying: [MaybeUninit<u64>; GROUPS],
    overdue: [MaybeUninit<u64>; GROUPS],
    deadlines: [MaybeUninit<Time>; GROUPS],
    plans: [MaybeUninit<Place>; PLANS],
    plan_lists: [MaybeUninit<CutList>; PLAN_LISTS],
    layouts: [MaybeUninit<layout::Place>; LAYOUTS],
}

/// The largest thing that a lane's place holds.
type LargestLane = Lane<[u64; LANE_BYTES / 8]>;

/// Room for a [`Lane`] of any provider.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct LaneRoom(MaybeUninit<[u8; size_of::<LargestLane>()]>);

const _: () = assert!(align_of::<LaneRoom>() == align_of::<LargestLane>());
const _: () = assert!(size_of::<LaneRoom>() == size_of::<LargestLane>());

/// The parts of a storage, written anew, over a provider with lanes `L`.
#[derive(Debug)]
pub(crate) struct Parts<'s, L> {
    pub(crate) rails: &'s mut [Rail],
    pub(crate) locals: &'s mut [Local],
    pub(crate) peers: &'s mut [Peer],
    pub(crate) paths: &'s mut [Paths],
    pub(crate) repairs: &'s mut [u16],
    pub(crate) doubted: &'s mut [u16],
    pub(crate) turns: [Room<'s>; CLASSES],
    pub(crate) remotes: &'s mut [Remote],
    pub(crate) lanes: &'s mut [Lane<L>],
    pub(crate) records: &'s mut [Record],
    pub(crate) heads: &'s mut [Head],
    pub(crate) pages: &'s mut [Page],
    pub(crate) landing: &'s [Entry],
    pub(crate) free: &'s [FreeSet],
    pub(crate) done: &'s mut [u16],
    pub(crate) lost: &'s mut [LaneLost],
    pub(crate) flying: &'s mut [u64],
    pub(crate) overdue: &'s mut [u64],
    pub(crate) deadlines: &'s mut [Time],
    pub(crate) plans: &'s mut [Place],
    pub(crate) plan_lists: &'s mut [CutList],
    pub(crate) layouts: &'s [layout::Place; LAYOUTS],
    pub(crate) depth: u32,
}

/// Writes every element where it is.
fn fill<T>(room: &mut [MaybeUninit<T>], mut value: impl FnMut(usize) -> T) -> &mut [T] {
    for (i, at) in room.iter_mut().enumerate() {
        at.write(value(i));
    }
    // SAFETY: every element has just been written.
    unsafe { room.assume_init_mut() }
}

/// The same of an array, whose length stays known.
fn fill_array<T, const N: usize>(
    room: &mut [MaybeUninit<T>; N],
    mut value: impl FnMut(usize) -> T,
) -> &mut [T; N] {
    match fill(room, &mut value).first_chunk_mut() {
        Some(array) => array,
        // `fill` gives as many as it got.
        None => unreachable!(),
    }
}

/// The places of lanes `L`.
fn places<L>(rooms: &mut [LaneRoom]) -> &mut [MaybeUninit<Lane<L>>] {
    const {
        assert!(
            size_of::<Lane<L>>() <= size_of::<LaneRoom>() && align_of::<Lane<L>>() <= align_of::<LaneRoom>(),
            "Provider::Lane is larger than storage::LANE_BYTES (128), or aligned to more than 64: put it in a box"
        );
    }
    let (first, len) = (rooms.as_mut_ptr().cast::<MaybeUninit<Lane<L>>>(), rooms.len());
    // SAFETY: `len` rooms, each at least as large as a Lane<L> and no less aligned, borrowed exclusively for
    // as long as the result; a MaybeUninit may be any bytes.
    unsafe { core::slice::from_raw_parts_mut(first, len) }
}

impl<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
> Storage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>
{
    /// Its size in bytes: the engine's whole state but for the provider's own.
    pub const BYTES: usize = size_of::<Self>();

    const CHECKED: () = {
        assert!(PEERS >= 1 && PEERS < u16::MAX as usize, "PEERS must be 1 to 65534");
        assert!(REGIONS >= 1 && REGIONS <= u16::MAX as usize, "REGIONS must be 1 to 65535");
        assert!(LANES >= 1 && LANES < u16::MAX as usize, "LANES must be 1 to 65534");
        assert!(
            DEPTH.is_power_of_two() && DEPTH >= 2 && DEPTH <= 1 << 16,
            "DEPTH must be a power of two from 2 (one wr and the drain's place) to 65536"
        );
        assert!(BATCHES >= 1 && BATCHES <= 64 * GROUPS, "BATCHES must be 1 to 16384");
        assert!(PAGES >= 1 && PAGES < u16::MAX as usize, "PAGES must be 1 to 65534");
        assert!(BATCHES * PAGES < u32::MAX as usize - 2, "BATCHES x PAGES must be below 2^32 - 3");
    };

    /// Empty; fit for a `static`, where it takes no place in the program's file. A large one elsewhere passes
    /// over the stack: see [`in_place`](Self::in_place).
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a value this large is not made in passing")]
    pub const fn new() -> Self {
        const { Self::CHECKED };
        Self {
            starts: 0,
            rails: [const { MaybeUninit::uninit() }; MAX_RAILS],
            locals: [const { MaybeUninit::uninit() }; LOCAL_REGIONS],
            peers: [const { MaybeUninit::uninit() }; PEERS],
            paths: [const { MaybeUninit::uninit() }; PEERS],
            repairs: [const { MaybeUninit::uninit() }; PEERS],
            doubted: [const { MaybeUninit::uninit() }; PEERS],
            turns: [const { [const { [const { MaybeUninit::uninit() }; PEERS] }; 1 + MAX_RAILS] }; CLASSES],
            remotes: [const { MaybeUninit::uninit() }; REGIONS],
            lanes: [const { LaneRoom(MaybeUninit::uninit()) }; LANES],
            records: [const { [const { MaybeUninit::uninit() }; DEPTH] }; LANES],
            heads: [const { MaybeUninit::uninit() }; BATCHES],
            pages: [const { [const { MaybeUninit::uninit() }; PAGES] }; BATCHES],
            landing: [const { [const { MaybeUninit::uninit() }; PAGES] }; BATCHES],
            free: [const { MaybeUninit::uninit() }; GROUPS],
            done: [const { MaybeUninit::uninit() }; BATCHES],
            lost: [const { MaybeUninit::uninit() }; LANES],
            flying: [const { MaybeUninit::uninit() }; GROUPS],
            overdue: [const { MaybeUninit::uninit() }; GROUPS],
            deadlines: [const { MaybeUninit::uninit() }; GROUPS],
            plans: [const { MaybeUninit::uninit() }; PLANS],
            plan_lists: [const { MaybeUninit::uninit() }; PLAN_LISTS],
            layouts: [const { MaybeUninit::uninit() }; LAYOUTS],
        }
    }

    /// An empty one where `room` is, on the heap or wherever: nothing passes over a stack.
    pub fn in_place(room: &mut MaybeUninit<Self>) -> &mut Self {
        const { Self::CHECKED };
        let this = room.as_mut_ptr();
        // SAFETY: `this` points at `room`, which is as large and aligned as a Self.
        let starts = unsafe { &raw mut (*this).starts };
        // SAFETY: as above, and borrowed exclusively.
        unsafe { starts.write(0) };
        // SAFETY: the one field that must be initialised is; all others are MaybeUninit.
        unsafe { room.assume_init_mut() }
    }

    /// Writes all of it for an engine with `rails` rails.
    pub(crate) fn open<L>(&mut self, mut rail: impl FnMut(usize) -> Rail, rails: usize) -> Parts<'_, L> {
        let groups = BATCHES.div_ceil(64);
        // Peers and lanes of an earlier engine stay strangers to this one: places go on counting lives.
        let starts = self.starts;
        let life = |peer: &MaybeUninit<Peer>| match starts {
            0 => Peer::EMPTY.life,
            // SAFETY: a storage that an engine was started in is initialised: `starts` is counted below,
            // after `peers` have been written.
            _ => unsafe { peer.assume_init_ref() }.life,
        };
        for peer in &mut self.peers {
            peer.write(Peer { life: life(peer), ..Peer::EMPTY });
        }
        self.starts = starts.wrapping_add(1).max(1);
        // SAFETY: written just now, every one.
        let peers = unsafe { self.peers.assume_init_mut() };
        // 65,536 lives of a lane's place in each engine.
        let generation = (starts << 16).wrapping_add(1);
        // Lanes are fewer than 65,535 by CHECKED.
        let lane = |i: usize| Lane { id: LaneId::new(i as u16, generation), ..Lane::EMPTY };
        // Pages are numbered in u32s, batches in u16s, by CHECKED.
        let page = |i: usize| Page { batch: (i / PAGES) as u16, ..Page::EMPTY };
        let batches = |group: usize| BATCHES.saturating_sub(64 * group).min(64);
        Parts {
            rails: fill(&mut self.rails[..rails], &mut rail),
            locals: fill(&mut self.locals, |_| Local::FREE),
            peers,
            paths: fill(&mut self.paths, |_| Paths::NEW),
            repairs: fill(&mut self.repairs, |_| 0),
            doubted: fill(&mut self.doubted, |_| 0),
            turns: self.turns.each_mut().map(|class| class.each_mut().map(|queue| fill(queue, |_| 0))),
            remotes: fill(&mut self.remotes, |_| Remote::FREE),
            lanes: fill(places(&mut self.lanes), lane),
            records: fill(self.records.as_flattened_mut(), |_| Record::EMPTY),
            heads: fill(&mut self.heads, |_| Head::EMPTY),
            pages: fill(self.pages.as_flattened_mut(), page),
            landing: fill(self.landing.as_flattened_mut(), |_| Entry::new()),
            free: fill(&mut self.free[..groups], |group| FreeSet::below(batches(group))),
            done: fill(&mut self.done, |_| 0),
            lost: fill(&mut self.lost, |_| LaneLost::NONE),
            flying: fill(&mut self.flying[..groups], |_| 0),
            overdue: fill(&mut self.overdue[..groups], |_| 0),
            deadlines: fill(&mut self.deadlines[..groups], |_| Time::NEVER),
            plans: fill(&mut self.plans, |_| Place::FREE),
            plan_lists: fill(&mut self.plan_lists, |_| CutList::NONE),
            layouts: fill_array(&mut self.layouts, |_| layout::Place::free()),
            depth: DEPTH as u32,
        }
    }
}

impl<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
> core::fmt::Debug for Storage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Storage").field("bytes", &Self::BYTES).finish_non_exhaustive()
    }
}

/// A storage in a `static`, to be taken once.
#[derive(Debug)]
pub struct StaticStorage<S> {
    taken: AtomicBool,
    storage: UnsafeCell<S>,
}

// SAFETY: the storage is reachable only through `take`, which gives it to one caller at a time:
// again only when `start` has seen the engine that had it fail, and nothing else of it is left.
unsafe impl<S: Send> Sync for StaticStorage<S> {}

impl<S> StaticStorage<S> {
    /// Around a storage.
    pub const fn new(storage: S) -> Self {
        Self { taken: AtomicBool::new(false), storage: UnsafeCell::new(storage) }
    }

    /// The storage, the first time; `None` ever after. An engine that does not start has spent it:
    /// [`start`](Self::start) gives it back.
    #[allow(clippy::mut_from_ref, reason = "the flag lets exactly one caller have it")]
    pub fn take(&'static self) -> Option<&'static mut S> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        // SAFETY: the swap lets exactly one caller get here, so the reference is the only one.
        Some(unsafe { &mut *self.storage.get() })
    }
}

/// Why no engine was started in a storage of a `static`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaticStartError {
    /// Another one has it.
    #[error("the storage has been taken: it has room for one engine, once")]
    Taken,
    /// The engine does not start. The storage is as it was.
    #[error(transparent)]
    Engine(#[from] StartError),
}

impl<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
> StaticStorage<Storage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>>
{
    /// Starts an engine in it: [`Engine::start`]. If that fails, it can be tried again.
    ///
    /// # Errors
    ///
    /// It has been taken; or as `Engine::start`.
    pub fn start<P: Provider>(
        &'static self,
        provider: P,
        config: Config,
    ) -> Result<Engine<'static, P>, StaticStartError> {
        let storage = self.take().ok_or(StaticStartError::Taken)?;
        let started = Engine::start(storage, provider, config);
        if started.is_err() {
            // The reference went into `start`, which keeps it in the engine or nowhere.
            self.taken.store(false, Ordering::Release);
        }
        Ok(started?)
    }
}
