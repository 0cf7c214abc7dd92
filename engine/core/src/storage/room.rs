//! The storage of an engine, its maxima, and the parts into which an engine divides it.
#![allow(unsafe_code, reason = "memory that is initialised in place")]

use core::mem::MaybeUninit;

use kvrail_layouts::plan::CutList;
use static_assertions::{const_assert, const_assert_eq};

use crate::batch::landing::WASTE;
use crate::batch::pool::Head;
use crate::id::LaneId;
use crate::lane::Lane;
use crate::lane::record::Record;
use crate::layout::LayoutPlace;
use crate::limits::{
    CLASSES, GROUP, LANE_BYTES, LAYOUTS, LOCAL_PIECES, LOCAL_REGIONS, MAX_BATCHES, MAX_DEPTH, MAX_GROUPS,
    MAX_PAGES, MAX_PLACES, MAX_RAILS, PLAN_LISTS, PLAN_ROWS, PLANS, narrow,
};
use crate::page::Page;
use crate::peer::Peer;
use crate::peer::missing::{Lost, Path, Paths};
use crate::peer::reports::Report;
use crate::peer::turns::{Seat, TurnRoom};
use crate::peer::waits::{Groups, QUEUES, WaitRoom};
use crate::plan::lives::PlanLives;
use crate::plan::{PairRow, PlanPlace};
use crate::rail::Rail;
use crate::regions::{LocalPiece, LocalPlace, RemotePlace};
use crate::ring::free::FreeSet;
use crate::table::Entry;
use crate::time::Time;

/// The memory of one engine over any provider. It has room for `PEERS` peers, which have `REGIONS`
/// published regions and `LANES` lanes in all; for `DEPTH` outstanding wrs of each lane (a power of
/// two, the drain wr included); and for `BATCHES` batches of `PAGES` pages, being filled, in flight
/// or done.
pub struct EngineStorage<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
> {
    /// How many engines have been started in this storage. If it is 0, no field below is
    /// initialised.
    starts: u32,
    rails: [MaybeUninit<Rail>; MAX_RAILS],
    locals: [MaybeUninit<LocalPlace>; LOCAL_REGIONS],
    pieces: [MaybeUninit<LocalPiece>; LOCAL_PIECES],
    peers: [MaybeUninit<Peer>; PEERS],
    paths: [MaybeUninit<Paths>; PEERS],
    missing: [MaybeUninit<Path>; LANES],
    missing_lanes: [MaybeUninit<Lost>; LANES],
    repairs: [MaybeUninit<u16>; PEERS],
    trials: [MaybeUninit<u16>; PEERS],
    ready: [[MaybeUninit<u16>; PEERS]; CLASSES],
    waiting: [MaybeUninit<u32>; LANES],
    waiting_last: [MaybeUninit<u32>; QUEUES],
    waiting_behind: [MaybeUninit<u16>; LANES],
    waiting_behind_last: [MaybeUninit<u16>; QUEUES],
    seats: [MaybeUninit<Seat>; LANES],
    remotes: [MaybeUninit<RemotePlace>; REGIONS],
    lanes: [LaneRoom; LANES],
    records: [[MaybeUninit<Record>; DEPTH]; LANES],
    heads: [MaybeUninit<Head>; BATCHES],
    pages: [[MaybeUninit<Page>; PAGES]; BATCHES],
    landing: LandingRoom<BATCHES, PAGES>,
    free: [MaybeUninit<FreeSet>; MAX_GROUPS],
    done: [MaybeUninit<u16>; BATCHES],
    lost: [MaybeUninit<Report>; LANES],
    flying: [MaybeUninit<u64>; MAX_GROUPS],
    overdue: [MaybeUninit<u64>; MAX_GROUPS],
    deadlines: [MaybeUninit<Time>; MAX_GROUPS],
    plans: [MaybeUninit<PlanPlace>; PLANS],
    plan_rows: [MaybeUninit<PairRow>; PLAN_ROWS],
    plan_lists: [MaybeUninit<CutList>; PLAN_LISTS],
    plan_lives: MaybeUninit<PlanLives>,
    layouts: [MaybeUninit<LayoutPlace>; LAYOUTS],
}

/// Bytes by which one more peer makes a storage larger: all that an engine keeps of a peer that is
/// idle and has no lane, beside its regions.
const PEER_BYTES: usize =
    (EngineStorage::<1025, 1, 1, 2, 1, 1>::BYTES - EngineStorage::<1, 1, 1, 2, 1, 1>::BYTES) / 1024;

const_assert!(PEER_BYTES <= 256);

/// Wrs for which [`PER_LANE_BYTES`] has room: the fewest that a storage may have.
const FEWEST_WRS: usize = 2;
/// Bytes by which one more lane makes a storage larger, its records included.
const PER_LANE_BYTES: usize = (EngineStorage::<1, 1, 1025, FEWEST_WRS, 1, 1>::BYTES
    - EngineStorage::<1, 1, 1, FEWEST_WRS, 1, 1>::BYTES)
    / 1024;
/// Bytes that an engine keeps of each lane, beside its records and the provider's part.
const LANE_STATE_BYTES: usize = PER_LANE_BYTES - FEWEST_WRS * size_of::<Record>() - LANE_BYTES;

// docs/performance.md has the parts of it.
const_assert!(LANE_STATE_BYTES <= 124);
// What posting and completing touch of a lane, with a provider's part of up to four words.
const_assert!(size_of::<Lane<[u64; 4]>>() <= 128);
const_assert!(size_of::<Record>() <= 16);

/// The largest lane that fits.
type LargestLane = Lane<[u64; LANE_BYTES / 8]>;

/// Room for a [`Lane`] of any provider.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct LaneRoom(MaybeUninit<[u8; size_of::<LargestLane>()]>);

const_assert_eq!(align_of::<LaneRoom>(), align_of::<LargestLane>());
const_assert_eq!(size_of::<LaneRoom>(), size_of::<LargestLane>());

/// Room for the landing area: a place for the entry of each page, and the waste area behind them.
/// They are one piece of memory, so one registration covers both.
#[repr(C)]
struct LandingRoom<const BATCHES: usize, const PAGES: usize> {
    entries: [[MaybeUninit<Entry>; PAGES]; BATCHES],
    waste: [MaybeUninit<Entry>; WASTE],
}

impl<const BATCHES: usize, const PAGES: usize> LandingRoom<BATCHES, PAGES> {
    fn all(&mut self) -> &mut [MaybeUninit<Entry>] {
        const { assert!(size_of::<Self>() == (BATCHES * PAGES + WASTE) * size_of::<Entry>()) };
        let first = core::ptr::from_mut(self).cast::<MaybeUninit<Entry>>();
        // SAFETY: in the layout of C both arrays stand one behind the other, and as just checked
        // nothing is between or behind them. They are borrowed exclusively for as long as the
        // result, and a MaybeUninit may be any bytes.
        unsafe { core::slice::from_raw_parts_mut(first, BATCHES * PAGES + WASTE) }
    }
}

/// The initialised parts of a storage, for a provider whose lanes are `L`.
#[derive(Debug)]
pub(crate) struct Parts<'s, L> {
    pub(crate) rails: &'s mut [Rail],
    pub(crate) locals: &'s mut [LocalPlace],
    pub(crate) pieces: &'s mut [LocalPiece],
    pub(crate) peers: &'s mut [Peer],
    pub(crate) paths: &'s mut [Paths],
    pub(crate) missing: (&'s mut [Path], &'s mut [Lost]),
    pub(crate) repairs: &'s mut [u16],
    pub(crate) trials: &'s mut [u16],
    pub(crate) turns: TurnRoom<'s>,
    pub(crate) seats: &'s mut [Seat],
    pub(crate) remotes: &'s mut [RemotePlace],
    pub(crate) lanes: &'s mut [Lane<L>],
    pub(crate) records: &'s mut [Record],
    pub(crate) heads: &'s mut [Head],
    pub(crate) pages: &'s mut [Page],
    /// The entry of each page, and the waste area behind them.
    pub(crate) landing: &'s [Entry],
    pub(crate) free: &'s [FreeSet],
    pub(crate) done: &'s mut [u16],
    pub(crate) lost: &'s mut [Report],
    pub(crate) flying: &'s mut [u64],
    pub(crate) overdue: &'s mut [u64],
    pub(crate) deadlines: &'s mut [Time],
    pub(crate) plans: &'s mut [PlanPlace],
    pub(crate) plan_rows: &'s mut [PairRow],
    pub(crate) plan_lists: &'s mut [CutList],
    pub(crate) plan_lives: &'s PlanLives,
    pub(crate) layouts: &'s [LayoutPlace; LAYOUTS],
    pub(crate) depth: u32,
}

/// Initialises every element in place.
fn fill<T>(room: &mut [MaybeUninit<T>], mut value: impl FnMut(usize) -> T) -> &mut [T] {
    for (i, at) in room.iter_mut().enumerate() {
        at.write(value(i));
    }
    // SAFETY: every element has just been written.
    unsafe { room.assume_init_mut() }
}

/// As [`fill`], for an array, so that its length stays in its type.
fn fill_array<T, const N: usize>(
    room: &mut [MaybeUninit<T>; N],
    mut value: impl FnMut(usize) -> T,
) -> &mut [T; N] {
    match fill(room, &mut value).first_chunk_mut() {
        Some(array) => array,
        // `fill` returns as many elements as it got.
        None => unreachable!(),
    }
}

/// The rooms as places of lanes `L`.
fn places<L>(rooms: &mut [LaneRoom]) -> &mut [MaybeUninit<Lane<L>>] {
    const {
        assert!(
            size_of::<Lane<L>>() <= size_of::<LaneRoom>() && align_of::<Lane<L>>() <= align_of::<LaneRoom>(),
            "Provider::Lane is larger than storage::LANE_BYTES (176), or aligned to more than 64: put it in a box"
        );
    }
    let (first, len) = (rooms.as_mut_ptr().cast::<MaybeUninit<Lane<L>>>(), rooms.len());
    // SAFETY: `len` rooms, each at least as large as a Lane<L> and no less aligned, borrowed
    // exclusively for as long as the result; a MaybeUninit may be any bytes.
    unsafe { core::slice::from_raw_parts_mut(first, len) }
}

impl<
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
> EngineStorage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>
{
    /// The size of the storage in bytes: the whole state of an engine, except for that of its
    /// provider.
    pub const BYTES: usize = size_of::<Self>();

    /// Checks, when the program is compiled, that the maxima are within the bounds of
    /// [`limits`](crate::limits).
    const WITHIN_BOUNDS: () = {
        assert!(PEERS >= 1 && PEERS <= MAX_PLACES, "PEERS must be 1 to 65534");
        assert!(REGIONS >= 1 && REGIONS <= MAX_PLACES + 1, "REGIONS must be 1 to 65535");
        assert!(LANES >= 1 && LANES <= MAX_PLACES, "LANES must be 1 to 65534");
        assert!(
            DEPTH.is_power_of_two() && DEPTH >= 2 && DEPTH <= MAX_DEPTH,
            "DEPTH must be a power of two from 2 (one wr and the drain's place) to 65536"
        );
        assert!(BATCHES >= 1 && BATCHES <= MAX_BATCHES, "BATCHES must be 1 to 16384");
        assert!(PAGES >= 1 && PAGES <= MAX_PLACES, "PAGES must be 1 to 65534");
        assert!(BATCHES * PAGES <= MAX_PAGES, "BATCHES x PAGES must be below 2^32 - 3");
    };

    /// An empty storage, for a `static`, where it adds nothing to the program's file. Anywhere else
    /// a large one would pass over the stack: use [`in_place`](Self::in_place).
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a value this large is not made in passing")]
    pub const fn new() -> Self {
        const { Self::WITHIN_BOUNDS };
        Self {
            starts: 0,
            rails: [const { MaybeUninit::uninit() }; MAX_RAILS],
            locals: [const { MaybeUninit::uninit() }; LOCAL_REGIONS],
            pieces: [const { MaybeUninit::uninit() }; LOCAL_PIECES],
            peers: [const { MaybeUninit::uninit() }; PEERS],
            paths: [const { MaybeUninit::uninit() }; PEERS],
            missing: [const { MaybeUninit::uninit() }; LANES],
            missing_lanes: [const { MaybeUninit::uninit() }; LANES],
            repairs: [const { MaybeUninit::uninit() }; PEERS],
            trials: [const { MaybeUninit::uninit() }; PEERS],
            ready: [const { [const { MaybeUninit::uninit() }; PEERS] }; CLASSES],
            waiting: [const { MaybeUninit::uninit() }; LANES],
            waiting_last: [const { MaybeUninit::uninit() }; QUEUES],
            waiting_behind: [const { MaybeUninit::uninit() }; LANES],
            waiting_behind_last: [const { MaybeUninit::uninit() }; QUEUES],
            seats: [const { MaybeUninit::uninit() }; LANES],
            remotes: [const { MaybeUninit::uninit() }; REGIONS],
            lanes: [const { LaneRoom(MaybeUninit::uninit()) }; LANES],
            records: [const { [const { MaybeUninit::uninit() }; DEPTH] }; LANES],
            heads: [const { MaybeUninit::uninit() }; BATCHES],
            pages: [const { [const { MaybeUninit::uninit() }; PAGES] }; BATCHES],
            landing: LandingRoom {
                entries: [const { [const { MaybeUninit::uninit() }; PAGES] }; BATCHES],
                waste: [const { MaybeUninit::uninit() }; WASTE],
            },
            free: [const { MaybeUninit::uninit() }; MAX_GROUPS],
            done: [const { MaybeUninit::uninit() }; BATCHES],
            lost: [const { MaybeUninit::uninit() }; LANES],
            flying: [const { MaybeUninit::uninit() }; MAX_GROUPS],
            overdue: [const { MaybeUninit::uninit() }; MAX_GROUPS],
            deadlines: [const { MaybeUninit::uninit() }; MAX_GROUPS],
            plans: [const { MaybeUninit::uninit() }; PLANS],
            plan_rows: [const { MaybeUninit::uninit() }; PLAN_ROWS],
            plan_lists: [const { MaybeUninit::uninit() }; PLAN_LISTS],
            plan_lives: MaybeUninit::uninit(),
            layouts: [const { MaybeUninit::uninit() }; LAYOUTS],
        }
    }

    /// Makes an empty storage in `room`, on the heap for instance, without passing it over a stack.
    pub fn in_place(room: &mut MaybeUninit<Self>) -> &mut Self {
        const { Self::WITHIN_BOUNDS };
        let this = room.as_mut_ptr();
        // SAFETY: `this` points at `room`, which is as large and aligned as a Self.
        let starts = unsafe { &raw mut (*this).starts };
        // SAFETY: as above, and borrowed exclusively.
        unsafe { starts.write(0) };
        // SAFETY: `starts`, the only field that must be initialised, is; all others are
        // MaybeUninit.
        unsafe { room.assume_init_mut() }
    }

    /// Initialises the whole storage for an engine with `rails` rails.
    pub(crate) fn open<L>(&mut self, mut rail: impl FnMut(usize) -> Rail, rails: usize) -> Parts<'_, L> {
        let groups = BATCHES.div_ceil(GROUP);
        // Generations keep counting across engines, so ids from an earlier engine never match.
        let starts = self.starts;
        let life = |peer: &MaybeUninit<Peer>| match starts {
            0 => Peer::EMPTY.life,
            // SAFETY: the peers of a storage in which an engine was started are initialised:
            // `starts` is counted below, after they have been written.
            _ => unsafe { peer.assume_init_ref() }.life,
        };
        for peer in &mut self.peers {
            peer.write(Peer { life: life(peer), ..Peer::EMPTY });
        }
        self.starts = starts.wrapping_add(1).max(1);
        // SAFETY: every peer has just been written.
        let peers = unsafe { self.peers.assume_init_mut() };
        // Each engine has 65,536 generations for the lives of a lane's place.
        let generation = (starts << 16).wrapping_add(1);
        let lane = |i: usize| Lane { id: LaneId::new(narrow(i), generation), ..Lane::EMPTY };
        let page = |i: usize| Page { batch: narrow(i / PAGES), ..Page::EMPTY };
        let bits = Groups::new(fill(&mut self.waiting, |_| 0), fill_array(&mut self.waiting_last, |_| 0));
        let behind = Groups::new(
            fill(&mut self.waiting_behind, |_| 0),
            fill_array(&mut self.waiting_behind_last, |_| 0),
        );
        let ready = self.ready.each_mut().map(|ready| fill(ready, |_| 0));
        let turns = TurnRoom { ready, capped: WaitRoom { bits, behind } };
        let batches = |group: usize| BATCHES.saturating_sub(GROUP * group).min(GROUP);
        Parts {
            rails: fill(&mut self.rails[..rails], &mut rail),
            locals: fill(&mut self.locals, |_| LocalPlace::FREE),
            pieces: fill(&mut self.pieces, |_| LocalPiece::FREE),
            peers,
            paths: fill(&mut self.paths, |_| Paths::NEW),
            missing: (fill(&mut self.missing, |_| Path::NEW), fill(&mut self.missing_lanes, |_| Lost::FREE)),
            repairs: fill(&mut self.repairs, |_| 0),
            trials: fill(&mut self.trials, |_| 0),
            turns,
            seats: fill(&mut self.seats, |at| Seat::vacant(at, LANES)),
            remotes: fill(&mut self.remotes, |_| RemotePlace::FREE),
            lanes: fill(places(&mut self.lanes), lane),
            records: fill(self.records.as_flattened_mut(), |_| Record::EMPTY),
            heads: fill(&mut self.heads, |_| Head::EMPTY),
            pages: fill(self.pages.as_flattened_mut(), page),
            landing: fill(self.landing.all(), |_| Entry::new()),
            free: fill(&mut self.free[..groups], |group| FreeSet::below(batches(group))),
            done: fill(&mut self.done, |_| 0),
            lost: fill(&mut self.lost, |_| Report::NONE),
            flying: fill(&mut self.flying[..groups], |_| 0),
            overdue: fill(&mut self.overdue[..groups], |_| 0),
            deadlines: fill(&mut self.deadlines[..groups], |_| Time::NEVER),
            plans: fill(&mut self.plans, |_| PlanPlace::FREE),
            plan_rows: fill(&mut self.plan_rows, |_| PairRow::NONE),
            plan_lists: fill(&mut self.plan_lists, |_| CutList::NONE),
            plan_lives: self.plan_lives.write(PlanLives::new()),
            layouts: fill_array(&mut self.layouts, |_| LayoutPlace::free()),
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
> core::fmt::Debug for EngineStorage<PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>
{
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EngineStorage").field("bytes", &Self::BYTES).finish_non_exhaustive()
    }
}
