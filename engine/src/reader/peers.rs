//! Connecting to peers, losing them, making lanes again.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use kvrail_core::engine::{LaneSpec, PeerError};
use kvrail_core::events::{LaneLost, LaneWanted};
use kvrail_core::id::{LaneId, PeerId};
use kvrail_core::layout::{AddLayoutError, LayoutRef};
use kvrail_core::provider::Provider;
use kvrail_core::remote::{
    Location, OfferError, PageRangeError, RegionOffer, RemotePage, RemoteRegion, TableOffer,
};
use kvrail_core::table::ENTRY_BYTES;
use kvrail_core::time::Time;
use kvrail_session::{
    Address, Attached, Epoch, Hello, NodeName, NothingInCommon, OfferedRegion, PeerKey, SessionError,
};

use super::link::{Agreed, Errand, Link, LinkError, News};
use super::{Linked, Reader};
use crate::clock;
use crate::layout::PageLayout;
use crate::network::{Network, TransportError};

/// Events that nobody has taken, at most. The oldest go first.
const MAX_EVENTS: usize = 256;

/// Places for regions that every producer can have: for one region and its table.
const PLACES_PER_PEER: usize = 2;

/// A connected producer: the handle from which pages are named. Plain data; it says nothing about
/// whether the producer is still there.
#[derive(Clone, Debug)]
pub struct Peer {
    id: PeerId,
    producer: NodeName,
    epoch: Epoch,
    regions: Arc<[RemoteRegion]>,
    /// The tables of `regions`, each as a region of one page.
    pub(super) tables: Arc<[Option<RemoteRegion>]>,
}

impl Peer {
    /// Its place in the engine, as [`Event`]s name it.
    #[must_use]
    pub const fn id(&self) -> PeerId {
        self.id
    }

    /// What it calls itself.
    #[must_use]
    pub const fn producer(&self) -> NodeName {
        self.producer
    }

    /// Which life of it.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What it offered when the session was made, at least one region.
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

/// What happened to a peer without anybody asking.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Its session has ended, and it has been removed. Pages in flight have failed.
    Lost {
        /// Which peer.
        peer: PeerId,
        /// What it called itself.
        producer: NodeName,
        /// Why.
        why: Arc<SessionError>,
    },
}

/// Why there is no connection to a producer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The producer was not reached, or the two do not agree.
    #[error("cannot connect to {0}")]
    Session(Arc<SessionError>),
    /// The transports differ.
    #[error("cannot read from {address}: {source}; start both sides with the same transport")]
    Transport {
        /// Of the producer.
        address: Address,
        /// What each side has.
        // Raw: the text has it, so it is no source beside the text.
        r#source: NothingInCommon,
    },
    /// Not one lane came about.
    #[error("connected to {address}, but no lane to it could be made: {why}")]
    NoLane {
        /// Of the producer.
        address: Address,
        /// Why the last one was not.
        why: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It publishes nothing.
    #[error("the producer at {0} offers no region: there is nothing to read")]
    NoRegions(Address),
    /// It offers so many regions that there would be no places left for other producers.
    #[error(
        "the producer at {address} offers {offered} regions and tables, and one producer may have {places} of the \
         reader's places: let it offer fewer, or declare the reader with a larger max_regions"
    )]
    TooManyRegions {
        /// Of the producer.
        address: Address,
        /// Regions and publication tables, each of which takes a place.
        offered: usize,
        /// Places that it may have: all that are free but two for each producer that there is room
        /// for beside it.
        places: usize,
    },
    /// A region's numbers cannot be.
    #[error("the producer at {address} offers what cannot be read: {source}")]
    Offer {
        /// Of the producer.
        address: Address,
        /// What is wrong.
        // Raw: the text has it, so it is no source beside the text.
        r#source: OfferError,
    },
    /// Its layout is one more than the reader tells apart.
    #[error(transparent)]
    Layout(#[from] AddLayoutError),
    /// The reader is full.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// Reaching a rail took longer than connecting may.
    #[error("connecting to {0} took longer than allowed: a rail of the producer does not answer")]
    Deadline(Address),
    /// No thread or descriptor.
    #[error("no thread for a session could be started: {0}")]
    Thread(io::Error),
}

impl<N: Network> Reader<N> {
    /// Connects to the producer at `address`, agrees with it on key and layout, and makes lanes over
    /// every rail that both have. Blocks, `Config::connect` at most; what is in flight goes on meanwhile.
    ///
    /// # Errors
    ///
    /// What went wrong, with both sides' words for it.
    pub fn connect(&mut self, address: &Address, key: &PeerKey) -> Result<Peer, ConnectError> {
        let layout = self.layout;
        self.connect_to(address, key, &layout)
    }

    /// The same, to a producer whose pages are of another layout than the reader's, or of another
    /// rank: they go into slots that were [registered for it](Self::register_for), or by a
    /// [plan](Self::add_plan).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_to(
        &mut self,
        address: &Address,
        key: &PeerKey,
        layout: &PageLayout,
    ) -> Result<Peer, ConnectError> {
        let known = self.engine.add_layout(layout.identity(), 0)?;
        let number = self.next_link;
        self.next_link += 1;
        let until = clock::within(self.config.connect);
        let errand = Errand {
            number,
            address: address.clone(),
            key: key.clone(),
            hello: Hello::new(self.config.node, layout.to_session()),
            lanes_per_rail: self.config.lanes_per_rail,
            deadline: Instant::now() + self.config.connect,
        };
        let waker = self.engine.provider().waker();
        // One for each rail, so that none waits for another, and one that pairs them.
        let dialers = (0..=self.rails()).map(|_| N::dialer(&self.plan)).collect();
        let link = Link::start(errand, dialers, Arc::clone(&self.mailbox), waker);
        let link = link.map_err(ConnectError::Thread)?;
        self.links.insert(
            number,
            Linked { link, address: address.clone(), layout: known, peer: None, lanes: HashMap::new() },
        );
        loop {
            self.poll();
            if let Some(arrived) = self.arrived.remove(&number) {
                return arrived;
            }
            // With something done and not taken the engine would not sleep.
            while let Some(done) = self.finished() {
                self.stash.push_back(done);
            }
            self.hear_of_overdue();
            let now = clock::now();
            // The thread gives up at the deadline: it gets a moment more to say so.
            if now.since(until) > clock::nanos(self.config.connect / 4) {
                self.links.remove(&number);
                return Err(ConnectError::Deadline(address.clone()));
            }
            self.engine.wait(now, now + kvrail_core::time::Nanos::from_millis(100));
        }
    }

    /// Ends the session with a peer. What is in flight from it fails. A peer that is gone is no matter.
    pub fn disconnect(&mut self, peer: &Peer) {
        if let Some(number) = self.link_of.remove(&peer.id) {
            self.links.remove(&number);
        }
        // Gone already, then.
        let _ = self.engine.remove_peer(peer.id, clock::now());
    }

    /// What the sessions' threads have to say.
    #[cold]
    pub(super) fn read_mail(&mut self, now: Time) {
        self.letters = self.mailbox.count();
        for (number, news) in self.mailbox.take() {
            // A link that nobody has any more: what it made is dropped.
            let Some(linked) = self.links.get_mut(&number) else { continue };
            match news {
                News::Agreed(agreed) => {
                    let (address, layout) = (linked.address.clone(), linked.layout);
                    let arrived = self.admit(number, &address, layout, *agreed, now);
                    if arrived.is_err() {
                        self.links.remove(&number);
                    }
                    self.arrived.insert(number, arrived);
                }
                News::Failed(error) => {
                    let error = match error {
                        LinkError::Session(error) => ConnectError::Session(error),
                        LinkError::Nothing(source) => {
                            ConnectError::Transport { address: linked.address.clone(), source }
                        }
                    };
                    self.links.remove(&number);
                    self.arrived.insert(number, Err(error));
                }
                News::More(lane) => {
                    let Some((peer, producer)) = linked.peer else { continue };
                    let rail = lane.rail.0;
                    match self.take_lane(number, peer, lane, now) {
                        Ok(()) => tracing::info!(rail, %producer, "a slow lane is there"),
                        Err(error) => tracing::warn!(rail, %producer, %error, "no place for a slow lane"),
                    }
                }
                News::Lane(wanted, lane) => {
                    let made = lane
                        .map_err(Into::into)
                        .and_then(|lane| self.take_lane(number, wanted.peer, lane, now));
                    match made {
                        Ok(()) => tracing::info!(rail = wanted.rail.0, peer = ?wanted.peer, "a lane is back"),
                        Err(error) => {
                            tracing::warn!(rail = wanted.rail.0, peer = ?wanted.peer, %error, "no lane");
                            self.engine.lane_unavailable(wanted, now);
                        }
                    }
                }
                News::Ended(why) => {
                    let lost = linked.peer;
                    self.links.remove(&number);
                    if let Some((peer, producer)) = lost {
                        self.lose(peer, producer, why, now);
                    }
                }
            }
        }
    }

    fn lose(&mut self, peer: PeerId, producer: NodeName, why: Arc<SessionError>, now: Time) {
        tracing::warn!(%producer, %why, "a peer is lost");
        self.link_of.remove(&peer);
        let _ = self.engine.remove_peer(peer, now);
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(Event::Lost { peer, producer, why });
    }

    /// A producer that was agreed with becomes a peer.
    fn admit(
        &mut self,
        number: u64,
        address: &Address,
        layout: LayoutRef,
        agreed: Agreed<N::Line>,
        now: Time,
    ) -> Result<Peer, ConnectError> {
        let id = self.engine.add_peer()?;
        let producer = agreed.producer;
        let peer = self.furnish(number, id, (address, layout), agreed, now);
        match peer {
            Ok(peer) => {
                if let Some(linked) = self.links.get_mut(&number) {
                    linked.peer = Some((id, producer));
                    self.link_of.insert(id, number);
                }
                Ok(peer)
            }
            Err(error) => {
                let _ = self.engine.remove_peer(id, now);
                Err(error)
            }
        }
    }

    fn furnish(
        &mut self,
        number: u64,
        id: PeerId,
        (address, layout): (&Address, LayoutRef),
        agreed: Agreed<N::Line>,
        now: Time,
    ) -> Result<Peer, ConnectError> {
        let Agreed { producer, offer, lanes } = agreed;
        let refused = |source| ConnectError::Offer { address: address.clone(), source };
        let (peers, free) = self.engine.places_free();
        let places = free.saturating_sub(PLACES_PER_PEER * peers).max(PLACES_PER_PEER);
        let with_table = offer.regions.iter().filter(|region| region.offer().table.is_some());
        let offered = offer.regions.len() + with_table.count();
        if offered > places {
            return Err(ConnectError::TooManyRegions { address: address.clone(), offered, places });
        }
        let (mut regions, mut tables) = (Vec::new(), Vec::new());
        for offered in &offer.regions {
            let (pages, table) = offers(offered);
            let mut region = self.engine.add_region(id, &pages).map_err(refused)?;
            let said = region.set_layout(layout);
            debug_assert_eq!(said, Ok(()), "a region of one engine, just learnt");
            regions.push(region);
            // A table that is too long for one region is read by nobody; entries are, one by one.
            tables.push(table.and_then(|table| self.engine.add_region(id, &table).ok()));
        }
        if regions.is_empty() {
            return Err(ConnectError::NoRegions(address.clone()));
        }
        let (mut attached, mut last) = (0, "it offers no rail".into());
        for lane in lanes {
            match lane.map_err(TransportError::from).and_then(|lane| self.take_lane(number, id, lane, now)) {
                Ok(()) => attached += 1,
                Err(error) => {
                    tracing::warn!(%producer, %error, "a lane is missing from the start");
                    last = error;
                }
            }
        }
        if attached == 0 {
            return Err(ConnectError::NoLane { address: address.clone(), why: last });
        }
        Ok(Peer { id, producer, epoch: offer.epoch, regions: regions.into(), tables: tables.into() })
    }

    /// Takes a lane that link `link` has made into use, or gives it back.
    fn take_lane(
        &mut self,
        link: u64,
        id: PeerId,
        made: Attached<N::Line>,
        now: Time,
    ) -> Result<(), TransportError> {
        let number = made.number;
        let taken = self.attach(id, made, now);
        if let Some(linked) = self.links.get_mut(&link) {
            match &taken {
                Ok(lane) => drop(linked.lanes.insert(*lane, number)),
                Err(_) => linked.link.release(number),
            }
        }
        taken.map(drop)
    }

    fn attach(&mut self, id: PeerId, made: Attached<N::Line>, now: Time) -> Result<LaneId, TransportError> {
        let Attached { rail, remote_rail, lane, .. } = made;
        // A lane may have more places than the reader was declared with: it uses so many.
        let depth = N::depth(&lane).min(self.engine.depth());
        let spec = LaneSpec { rail, remote_rail: remote_rail.0, depth };
        // The provider's own error may not be Send.
        self.engine.attach(id, spec, lane, now).map_err(|error| error.to_string().into())
    }

    /// Tells the producer that its end of a lane is of no use any more.
    #[cold]
    pub(super) fn release(&mut self, lost: LaneLost) {
        if let Some(link) = self.link_of.get(&lost.peer)
            && let Some(linked) = self.links.get_mut(link)
            && let Some(number) = linked.lanes.remove(&lost.lane)
        {
            linked.link.release(number);
        }
    }

    /// Passes the engine's wish for a lane on.
    #[cold]
    pub(super) fn want(&mut self, wanted: LaneWanted, now: Time) {
        match self.link_of.get(&wanted.peer).and_then(|link| self.links.get(link)) {
            Some(linked) => linked.link.want(wanted),
            None => self.engine.lane_unavailable(wanted, now),
        }
    }
}

/// A region, and its table as a region of one page.
fn offers(offered: &OfferedRegion) -> (RegionOffer, Option<RegionOffer>) {
    let pages = *offered.offer();
    let whole = pages.table.map(|TableOffer { base, keys }| {
        let bytes = u64::from(pages.slots) * ENTRY_BYTES;
        RegionOffer { base, page_bytes: bytes, stride: bytes, slots: 1, keys, table: None }
    });
    (pages, whole)
}
