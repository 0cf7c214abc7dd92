//! A connected producer, its events, and why a reader did not connect.

use std::fmt::Write as _;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use kvrail_core::engine::PeerError;
use kvrail_core::id::PeerId;
use kvrail_core::plan::AddPlanError;
use kvrail_core::remote::{Location, OfferError, PageRangeError, RemotePage, RemoteRegion};
use kvrail_core::table::{EntryValue, Ready};
use kvrail_session::handover::{Block, WHOLE_PAGE};
use kvrail_session::{Address, Epoch, Layout, NodeName, NothingInCommon, PoolId, SessionError};

use crate::layout::PageLayout;

/// A connected producer: the handle from which pages are named. It is plain data, and does not say
/// whether the producer is still there.
#[derive(Clone, Debug)]
pub struct Peer {
    pub(super) id: PeerId,
    pub(super) producer: NodeName,
    pub(super) epoch: Epoch,
    pub(super) regions: Arc<[RemoteRegion]>,
    /// The tables of `regions`, each as a region of one page.
    pub(super) tables: Arc<[Option<RemoteRegion>]>,
    pub(super) pools: Arc<[PeerPool]>,
}

/// A pool of a producer: slots for pages of one layout. It is the handle from which the pages of
/// the pool are named. Where the producer has divided the pool into several pieces its slots are
/// numbered through all of them. When the producer takes the pool back, the handle stays, and pages
/// of it fail with [`PageError::PoolGone`](kvrail_core::error::PageError::PoolGone).
#[derive(Clone, Debug)]
pub struct PeerPool {
    pub(super) id: PoolId,
    pub(super) layout: Layout,
    /// The regions of all pools of the peer.
    pub(super) all: Arc<[RemoteRegion]>,
    /// Which of them are this pool's.
    pub(super) own: Range<usize>,
}

/// A pool that can be read.
#[derive(Debug)]
pub(super) struct KnownPool {
    pub(super) pool: PeerPool,
    /// Its publication tables, as regions of one page, where they can be read whole.
    pub(super) tables: Vec<RemoteRegion>,
}

impl PeerPool {
    /// Its number, which the producer uses for no other pool in one epoch.
    #[must_use]
    pub const fn id(&self) -> PoolId {
        self.id
    }

    /// The layout of its pages.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its pieces, in the producer's order: one, unless the producer has divided the pool. Each of
    /// them holds whole pages, with all regions that a page of the layout has.
    #[must_use]
    pub fn regions(&self) -> &[RemoteRegion] {
        &self.all[self.own.clone()]
    }

    /// How many slots it has.
    #[must_use]
    pub fn slots(&self) -> u64 {
        self.regions().iter().map(|region| u64::from(region.slots())).sum()
    }

    /// The page at `location`, to be validated after it has been read. Of a page that still grows
    /// only parts can be read ([`RemotePage::needs`]).
    ///
    /// # Errors
    ///
    /// The slot is beyond the pool, or the pool has no publication table.
    #[inline]
    pub fn page(&self, location: Location) -> Result<RemotePage, BlockError> {
        let (region, slot) = self.region_of(location.slot)?;
        Ok(region.page(Location { slot, ..location })?)
    }

    /// The bytes of `slot`, which are read without validation: nothing proves that they are one
    /// page, or which, or that none is missing ([`RemoteRegion::unvalidated`]). For memory that
    /// does not change, and for measuring.
    ///
    /// # Errors
    ///
    /// The slot is beyond the pool.
    #[inline]
    pub fn unvalidated(&self, slot: u32) -> Result<RemotePage, BlockError> {
        let (region, slot) = self.region_of(slot)?;
        Ok(region.unvalidated(slot)?)
    }

    /// The page of a hand-over's block, which must be of this pool: see [`Peer::block`].
    ///
    /// # Errors
    ///
    /// The block is of another pool, the slot is beyond the pool, or the pool has no publication
    /// table.
    pub fn block(&self, block: &Block) -> Result<RemotePage, BlockError> {
        let Block { pool, slot, expected, ready } = *block;
        if pool != self.id {
            return Err(BlockError::OtherPool { pool, asked: self.id, slot });
        }
        let ready = if ready == WHOLE_PAGE { Ready::WHOLE } else { Ready(ready) };
        let page = self.page(Location { slot, expected: EntryValue { ready, ..expected } })?;
        Ok(if ready == Ready::WHOLE { page } else { page.needs(ready.0) })
    }

    /// The [piece](Self::regions) of the pool that has a slot, and the slot's number there:
    /// [`Batch::read_many`](kvrail_core::batch::Batch::read_many) takes these.
    ///
    /// # Errors
    ///
    /// The slot is beyond the pool.
    #[inline]
    pub fn region_of(&self, slot: u32) -> Result<(&RemoteRegion, u32), BlockError> {
        let mut first: u64 = 0;
        for region in self.regions() {
            let behind = first + u64::from(region.slots());
            if u64::from(slot) < behind {
                // At least `first`, as the regions before it do not have the slot.
                return Ok((region, slot - first as u32));
            }
            first = behind;
        }
        Err(BlockError::Slot { pool: self.id, slot, slots: first })
    }
}

impl Peer {
    /// Its place in the engine, as [`ReaderEvent`]s name it.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub const fn producer(&self) -> NodeName {
        self.producer
    }

    /// Its epoch: another one after each start of the producer.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The pools of the layouts that were asked for, as it offered them when the session was made:
    /// at least one. A pool that comes later is in [`ReaderEvent::PoolCame`], and not here.
    #[must_use]
    pub fn pools(&self) -> &[PeerPool] {
        &self.pools
    }

    /// Its first pool of pages of `layout`.
    ///
    /// # Errors
    ///
    /// It had none when the session was made, or the session was made without asking for that
    /// layout.
    pub fn pool_of(&self, layout: &PageLayout) -> Result<&PeerPool, BlockError> {
        let wanted = layout.to_session();
        let found = self.pools.iter().find(|pool| pool.layout.same_bytes(&wanted));
        found.ok_or_else(|| BlockError::Layout { wanted: Box::new(wanted), producer: self.producer })
    }

    /// The regions of all [`pools`](Self::pools), at least one.
    #[must_use]
    pub fn regions(&self) -> &[RemoteRegion] {
        &self.regions
    }

    /// The page at `location` of its first pool, to be validated after it has been read.
    ///
    /// # Errors
    ///
    /// A slot beyond the pool, or a region without a publication table.
    #[inline]
    pub fn page(&self, location: Location) -> Result<RemotePage, PageRangeError> {
        match self.pools.first().map(|pool| pool.region_of(location.slot)) {
            Some(Ok((region, slot))) => region.page(Location { slot, ..location }),
            // The error names the slots of the first region.
            _ => self.regions[0].page(location),
        }
    }

    /// The page of a hand-over's block, to be validated after it has been read. Of a page that
    /// still grows only the parts that the block says are ready can be read
    /// ([`RemotePage::needs`]).
    ///
    /// # Errors
    ///
    /// The reader does not know the pool, the slot is beyond it, or it has no publication table.
    pub fn block(&self, block: &Block) -> Result<RemotePage, BlockError> {
        let Block { pool, slot, .. } = *block;
        let known = self.pools.iter().find(|known| known.id == pool);
        let known = known.ok_or(BlockError::Pool { pool, slot, producer: self.producer })?;
        known.block(block)
    }
}

/// Why a location or a hand-over's block names no page of a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The peer's handle does not know the pool: it has another layout, or has come after the
    /// session was made. Then [`ReaderEvent::PoolCame`] has its handle.
    #[error(
        "slot {slot} of {pool} of {producer}: this reader knows no such pool there; connect for its layout, or wait until it is told of the pool"
    )]
    Pool {
        /// The pool.
        pool: PoolId,
        /// The slot.
        slot: u32,
        /// The producer's name.
        producer: NodeName,
    },
    /// The block is of another pool than the one that was asked.
    #[error("slot {slot} of {pool} was asked of {asked}: ask {pool}, or the peer")]
    OtherPool {
        /// The block's pool.
        pool: PoolId,
        /// The pool that was asked.
        asked: PoolId,
        /// The slot.
        slot: u32,
    },
    /// The producer has no pool of this layout, or it was not asked for when the session was made.
    #[error("no pool of {wanted} of {producer} is known: connect for this layout, to a producer that has it")]
    Layout {
        /// The layout.
        wanted: Box<Layout>,
        /// The producer's name.
        producer: NodeName,
    },
    /// The slot is beyond the pool.
    #[error(
        "slot {slot} is beyond {pool}, whose regions have {slots} slots: the producer named a page that it does not have"
    )]
    Slot {
        /// The pool.
        pool: PoolId,
        /// The slot.
        slot: u32,
        /// How many slots the regions of the pool have.
        slots: u64,
    },
    /// The region has no such page.
    #[error(transparent)]
    Range(#[from] PageRangeError),
}

impl BlockError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Pool { .. } => 6040,
            Self::Slot { .. } => 6041,
            Self::OtherPool { .. } => 6042,
            Self::Layout { .. } => 6043,
            Self::Range(source) => source.code(),
        }
    }
}

/// A connect that [`Reader::begin_connect`](crate::Reader::begin_connect) has begun. Its outcome is
/// an event, unless it is [abandoned](crate::Reader::abandon) first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connecting(pub(super) u64);

/// An event of a peer, or the outcome of a connect that was begun.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReaderEvent {
    /// A connect that was begun has succeeded.
    Connected {
        /// Which connect.
        connecting: Connecting,
        /// The producer.
        peer: Peer,
    },
    /// A connect that was begun has failed.
    NotConnected {
        /// Which connect.
        connecting: Connecting,
        /// Why.
        error: ConnectError,
    },
    /// A producer offers a pool of one of the layouts that were asked for, which it did not offer
    /// when the session was made. A pool that has gone before this was taken is not told of.
    PoolCame {
        /// Which peer.
        peer: PeerId,
        /// The pool, from which pages are named. The [`Peer`] does not list it.
        pool: PeerPool,
    },
    /// A producer offers a pool of one of the layouts that were asked for, and the reader cannot
    /// read it: it has no places for the regions, for instance, where many pools have come and
    /// gone. It is tried again when the producer's pools change; another session begins with the
    /// places of this one free.
    PoolRefused {
        /// Which peer.
        peer: PeerId,
        /// The pool's number.
        pool: PoolId,
        /// Why it cannot be read.
        why: OfferError,
    },
    /// A producer has taken a pool back. Its pages in flight have failed with
    /// [`PageError::PoolGone`](kvrail_core::error::PageError::PoolGone), and so do all that are
    /// read later. The reader's places for its regions are free when the session ends.
    PoolGone {
        /// Which peer.
        peer: PeerId,
        /// The pool's number.
        pool: PoolId,
    },
    /// The session with a peer has ended, and the peer has been removed. Its pages in flight have
    /// failed.
    Lost {
        /// Which peer.
        peer: PeerId,
        /// The peer's name.
        producer: NodeName,
        /// Why the session has ended.
        why: Arc<SessionError>,
    },
}

/// Why a reader did not connect to a producer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The producer was not reached, or the two do not agree.
    #[error("cannot connect to {0}")]
    Session(Arc<SessionError>),
    /// The transports differ.
    #[error("cannot read from {address}: {source}; start both sides with the same transport")]
    Transport {
        /// The producer's address.
        address: Address,
        /// The rails of each side.
        // Raw: the text has it, so it is no source beside the text.
        r#source: NothingInCommon,
    },
    /// Not one lane was made.
    #[error("connected to {address}, but no lane to it could be made: {why}")]
    NoLane {
        /// The producer's address.
        address: Address,
        /// Why the last lane that was tried could not be made.
        why: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The producer has no pool of the wanted layout.
    #[error(
        "the producer at {address} has no pool of {}: {}",
        listed(wanted, " or "),
        offers(wanted, offered)
    )]
    NoPool {
        /// The producer's address.
        address: Address,
        /// The layouts of the pages that were to be read.
        wanted: Vec<Layout>,
        /// The layouts of the pools that it has.
        offered: Vec<Layout>,
    },
    /// The producer offers no region of the wanted layout.
    #[error("the producer at {0} offers no region: connect when it has published")]
    NoRegions(Address),
    /// The producer offers so many regions that other producers would have no places left.
    #[error(
        "the producer at {address} offers {offered} regions and tables, and one producer may have {places} of the \
         reader's places: let it offer fewer, or declare the reader with a larger max_regions"
    )]
    TooManyRegions {
        /// The producer's address.
        address: Address,
        /// Regions and publication tables, each of which takes a place.
        offered: usize,
        /// Places that it may have: all free ones, but for two for each other producer that there
        /// is room for.
        places: usize,
    },
    /// The producer offers a region that cannot be one.
    #[error("the producer at {address} offers what cannot be read: {source}")]
    Offer {
        /// The producer's address.
        address: Address,
        /// Why not.
        // Raw: the text has it, so it is no source beside the text.
        r#source: OfferError,
    },
    /// The reader has no number left for another layout.
    #[error(transparent)]
    Layout(#[from] AddPlanError),
    /// The reader has no place for another peer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A rail of the producer did not answer in the time that connecting may take.
    #[error(
        "connecting to {0} took longer than allowed (Config::connect): a rail of the producer does not answer"
    )]
    Deadline(Address),
    /// As many connects as the reader has places for peers are under way, or have outcomes that
    /// were not taken.
    #[error(
        "{limit} connects are under way or have outcomes that were not taken, and more are not begun: take them by next_event"
    )]
    TooManyConnects {
        /// The most, which is the most peers of the reader.
        limit: usize,
    },
    /// The system has no thread or file descriptor left.
    #[error("no thread for a session could be started: {0}")]
    Thread(io::Error),
}

impl ConnectError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::NoLane { .. } => 6030,
            Self::NoRegions(_) => 6031,
            Self::TooManyRegions { .. } => 6032,
            Self::Deadline(_) => 6033,
            Self::Thread(_) => 6034,
            Self::NoPool { .. } => 6035,
            Self::TooManyConnects { .. } => 6036,
            Self::Session(source) => source.code(),
            Self::Transport { source, .. } => source.code(),
            Self::Offer { source, .. } => source.code(),
            Self::Layout(source) => source.code(),
            Self::Peer(source) => source.code(),
        }
    }
}

/// The most layouts that a text lists.
const LISTED: usize = 8;

/// Lists layouts.
fn listed(layouts: &[Layout], between: &str) -> String {
    let mut text = String::new();
    for (at, layout) in layouts.iter().take(LISTED).enumerate() {
        let _ = write!(text, "{}{layout}", if at > 0 { between } else { "" });
    }
    if layouts.len() > LISTED {
        let _ = write!(text, " and {} more", layouts.len() - LISTED);
    }
    text
}

/// Says which layouts a producer offers instead of `wanted`, and what to do.
fn offers(wanted: &[Layout], offered: &[Layout]) -> String {
    if offered.is_empty() {
        return "it offers no pool; connect when it has published".into();
    }
    let mut text = String::from("it offers ") + &listed(offered, ", ");
    let other_rank = |other: &Layout| wanted.iter().any(|wanted| wanted.any_rank == other.any_rank);
    text += if offered.iter().any(other_rank) {
        ", the same layout at another rank; connect to that rank's producer, or for that rank by connect_to"
    } else {
        "; start both sides with the same layout, or connect for the other by connect_to and read by a plan"
    };
    text
}
