//! A connected producer, its events, and why a reader did not connect.

use std::io;
use std::sync::Arc;

use kvrail_core::engine::PeerError;
use kvrail_core::id::PeerId;
use kvrail_core::layout::AddLayoutError;
use kvrail_core::remote::{Location, OfferError, PageRangeError, RemotePage, RemoteRegion};
use kvrail_session::{Address, Epoch, NodeName, NothingInCommon, SessionError};

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

    /// The regions that it offered when the session was made, at least one.
    #[must_use]
    pub fn regions(&self) -> &[RemoteRegion] {
        &self.regions
    }

    /// The page at `location` of its first region, to be validated after it has been read.
    ///
    /// # Errors
    ///
    /// A slot beyond the region, or a region without a publication table.
    #[inline]
    pub fn page(&self, location: Location) -> Result<RemotePage, PageRangeError> {
        self.regions[0].page(location)
    }
}

/// An event of a peer that no call of the reader caused.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReaderEvent {
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
    /// The producer offers no region.
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
    Layout(#[from] AddLayoutError),
    /// The reader has no place for another peer.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A rail of the producer did not answer in the time that connecting may take.
    #[error(
        "connecting to {0} took longer than allowed (Config::connect): a rail of the producer does not answer"
    )]
    Deadline(Address),
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
            Self::Session(source) => source.code(),
            Self::Transport { source, .. } => source.code(),
            Self::Offer { source, .. } => source.code(),
            Self::Layout(source) => source.code(),
            Self::Peer(source) => source.code(),
        }
    }
}
