//! An engine's whole state, sized at compile time.
#![allow(unsafe_code, reason = "a static that is handed out once")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::engine::LaneLost;
use kvrail_layouts::plan::CutList;

use crate::free::FreeSet;
use crate::id::MAX_RAILS;
use crate::lane::{Lane, Record};
use crate::page::Page;
use crate::peer::{CLASSES, Local, Path, Peer, Remote};
use crate::plan::{PLAN_LISTS, PLANS, Place};
use crate::pool::Head;
use crate::provider::Provider;
use crate::rail::Rail;
use crate::table::Entry;
use crate::time::Time;

/// Groups of 64 batches that a storage may have.
const GROUPS: usize = 256;
/// Local regions of one engine, the engine's own included.
pub(crate) const LOCAL_REGIONS: usize = 256;

/// Room for one engine: at most `PEERS` peers with `REGIONS` published regions and `LANES` lanes
/// together, `DEPTH` wrs outstanding per lane (the drain wr's place included; a power of two), and
/// `BATCHES` batches of `PAGES` pages, filled, in flight or done.
pub struct Storage<
    P: Provider,
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
> {
    pub(crate) rails: [Rail; MAX_RAILS],
    pub(crate) locals: [Local; LOCAL_REGIONS],
    pub(crate) peers: [Peer; PEERS],
    pub(crate) paths: [[Path; MAX_RAILS]; PEERS],
    pub(crate) turns: [[u16; PEERS]; CLASSES],
    pub(crate) remotes: [Remote; REGIONS],
    pub(crate) lanes: [Lane<P::Lane>; LANES],
    pub(crate) records: [[Record; DEPTH]; LANES],
    pub(crate) heads: [Head; BATCHES],
    pub(crate) pages: [[Page; PAGES]; BATCHES],
    pub(crate) landing: [[Entry; PAGES]; BATCHES],
    pub(crate) free: [FreeSet; GROUPS],
    pub(crate) done: [u16; BATCHES],
    pub(crate) lost: [LaneLost; LANES],
    pub(crate) flying: [u64; GROUPS],
    pub(crate) overdue: [u64; GROUPS],
    pub(crate) deadlines: [Time; GROUPS],
    pub(crate) plans: [Place; PLANS],
    pub(crate) plan_lists: [CutList; PLAN_LISTS],
}

impl<
    P: Provider,
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
> Storage<P, PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>
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
        assert!(BATCHES * PAGES < u32::MAX as usize - 1, "BATCHES x PAGES must be below 2^32 - 2");
    };

    /// Empty; fit for a `static`, a box or the stack.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a value this large is not made in passing")]
    pub const fn new() -> Self {
        const { Self::CHECKED };
        Self {
            rails: [const { Rail::EMPTY }; MAX_RAILS],
            locals: [Local::FREE; LOCAL_REGIONS],
            peers: [const { Peer::EMPTY }; PEERS],
            paths: [[Path::NEW; MAX_RAILS]; PEERS],
            turns: [[0; PEERS]; CLASSES],
            remotes: [Remote::FREE; REGIONS],
            lanes: [const { Lane::EMPTY }; LANES],
            records: [[Record::EMPTY; DEPTH]; LANES],
            heads: [const { Head::EMPTY }; BATCHES],
            pages: [const { [const { Page::EMPTY }; PAGES] }; BATCHES],
            landing: [const { [const { Entry::new() }; PAGES] }; BATCHES],
            free: [const { FreeSet::none() }; GROUPS],
            done: [0; BATCHES],
            lost: [LaneLost::NONE; LANES],
            flying: [0; GROUPS],
            overdue: [0; GROUPS],
            deadlines: [Time::NEVER; GROUPS],
            plans: [Place::FREE; PLANS],
            plan_lists: [CutList::NONE; PLAN_LISTS],
        }
    }
}

impl<
    P: Provider,
    const PEERS: usize,
    const REGIONS: usize,
    const LANES: usize,
    const DEPTH: usize,
    const BATCHES: usize,
    const PAGES: usize,
> core::fmt::Debug for Storage<P, PEERS, REGIONS, LANES, DEPTH, BATCHES, PAGES>
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

// SAFETY: the storage is reachable only through `take`, which gives it to one caller, once.
unsafe impl<S: Send> Sync for StaticStorage<S> {}

impl<S> StaticStorage<S> {
    /// Around a storage.
    pub const fn new(storage: S) -> Self {
        Self { taken: AtomicBool::new(false), storage: UnsafeCell::new(storage) }
    }

    /// The storage, the first time; `None` ever after.
    #[allow(clippy::mut_from_ref, reason = "the flag lets exactly one caller have it")]
    pub fn take(&'static self) -> Option<&'static mut S> {
        if self.taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        // SAFETY: the swap lets exactly one caller get here, so the reference is the only one.
        Some(unsafe { &mut *self.storage.get() })
    }
}
