//! Connecting to peers, losing them, making lanes again.

use std::sync::Arc;

use kvrail_core::engine::LaneSpec;
use kvrail_core::events::{LaneLost, LaneWanted};
use kvrail_core::id::{LaneId, PeerId};
use kvrail_core::plan::AddPlanError;
use kvrail_core::remote::{RegionOffer, TableOffer};
use kvrail_core::table::ENTRY_BYTES;
use kvrail_core::time::Time;
use kvrail_session::{Address, Attached, NodeName, PeerKeys, Pool, SessionError};

use super::Reader;
use super::peer::{ConnectError, Connecting, KnownPool, Peer, PeerPool, ReaderEvent};
use super::sessions::{Agreed, SessionFailure, SessionNews};
use crate::clock;
use crate::layout::PageLayout;
use crate::transport::{ReaderTransport, TransportError};

/// Places for regions that every producer can have: for one region and its table.
pub(super) const PLACES_PER_PEER: usize = 2;

impl<T: ReaderTransport> Reader<T> {
    /// Connects to the producer at `address`, agrees with it on key and layout, and makes lanes
    /// over every rail that both have, unless they are made on demand (`Config::lanes`). Blocks,
    /// `Config::connect` at most; batches in flight go on meanwhile. It is
    /// [`begin_connect`](Self::begin_connect) and waiting for the outcome.
    ///
    /// `keys` is a [`PeerKey`](kvrail_session::PeerKey), two of them during a rotation, or
    /// [`PeerKeys::none`].
    ///
    /// # Errors
    ///
    /// The producer was not reached, the two sides do not agree, the producer has no pages of the
    /// reader's layout, or no lane could be made.
    pub fn connect(&mut self, address: &Address, keys: impl Into<PeerKeys>) -> Result<Peer, ConnectError> {
        let layouts = self.layouts.clone();
        self.connect_for(address, keys, &layouts)
    }

    /// Takes over what a declaration says besides its page and its storage.
    pub(crate) fn declared(&mut self, layouts: &[PageLayout], plans: usize) {
        self.engine.set_max_plans(plans);
        for layout in layouts {
            if !self.layouts.contains(layout) {
                self.layouts.push(*layout);
            }
        }
    }

    /// Has [`connect`](Self::connect) ask for pools of `layout`, too. Pages of it land in slots
    /// that were [registered for it](Self::register_for).
    ///
    /// # Errors
    ///
    /// The engine has no number left for another layout, or the layout leaves something to run
    /// time.
    pub fn add_layout(&mut self, layout: &PageLayout) -> Result<(), AddPlanError> {
        self.engine.add_page_layout(layout.geometry())?;
        if !self.layouts.contains(layout) {
            self.layouts.push(*layout);
        }
        Ok(())
    }

    /// As [`connect`](Self::connect), to a producer whose pages are of `layout`: of another layout
    /// than the reader's, or of another rank. Such pages go into slots that were [registered for
    /// `layout`](Self::register_for), or by a [plan](Self::add_plan).
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_to(
        &mut self,
        address: &Address,
        keys: impl Into<PeerKeys>,
        layout: &PageLayout,
    ) -> Result<Peer, ConnectError> {
        self.connect_for(address, keys, core::slice::from_ref(layout))
    }

    /// As [`connect`](Self::connect), for the pools of any of `layouts`: [`Peer::pool_of`] gives
    /// each. The latent pages of a model and the keys of its indexer are two pools of one producer.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), where the producer has no pool of any of them.
    pub fn connect_for(
        &mut self,
        address: &Address,
        keys: impl Into<PeerKeys>,
        layouts: &[PageLayout],
    ) -> Result<Peer, ConnectError> {
        let connecting = self.begin_connect(address, keys, layouts)?;
        self.finish_connect(connecting, address)
    }

    /// Ends the session with a peer. Its pages in flight fail. A peer that is gone already is no
    /// error.
    pub fn disconnect(&mut self, peer: &Peer) {
        if let Some(number) = self.session_of.remove(&peer.id) {
            self.forget_session(number);
        }
        // An error means that the peer is gone already.
        let _ = self.engine.remove_peer(peer.id, clock::now());
    }

    /// Takes in the news of the sessions.
    #[cold]
    pub(super) fn take_session_news(&mut self, now: Time) {
        for (number, news) in self.sessions.take_news() {
            // The session has been given up: the lanes that it made are dropped.
            let Some(session) = self.connected.get_mut(&number) else { continue };
            match news {
                SessionNews::Agreed(agreed) => {
                    let (address, layouts) = (session.address.clone(), Arc::clone(&session.layouts));
                    self.demand.session_ended(number);
                    let arrived = self.admit(number, &address, &layouts, *agreed, now);
                    if arrived.is_err() {
                        self.forget_session(number);
                    }
                    self.connect_ended(Connecting(number), arrived);
                    // The offer is the one of when these news were made, and the news of a change
                    // before that may have been passed over: none tells of a change since then.
                    self.offer_changed(number, now);
                }
                SessionNews::Failed(failure) => {
                    let error = not_connected(&session.address, failure);
                    self.forget_session(number);
                    self.connect_ended(Connecting(number), Err(error));
                }
                SessionNews::LateLane(lane) => {
                    let Some((peer, producer)) = session.peer else { continue };
                    let rail = lane.rail.0;
                    self.demand.lane_came(number, rail);
                    match self.take_lane(number, peer, lane, now) {
                        Ok(()) => tracing::debug!(rail, %producer, "a lane is in use"),
                        Err(error) => tracing::warn!(rail, %producer, %error, "a late lane is of no use"),
                    }
                }
                SessionNews::Opened(result) => self.lanes_opened(number, result, now),
                SessionNews::Lane(wanted, lane) => {
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
                SessionNews::Offer => self.offer_changed(number, now),
                SessionNews::Takings => {
                    if !self.with_takings.contains(&number) {
                        self.with_takings.push_back(number);
                    }
                }
                SessionNews::Ended(why) => {
                    let lost = session.peer;
                    self.forget_session(number);
                    if let Some((peer, producer)) = lost {
                        self.lose(peer, producer, why, now);
                    }
                }
            }
        }
    }

    /// Drops a session, which ends it.
    pub(super) fn forget_session(&mut self, number: u64) {
        self.demand.session_ended(number);
        self.connected.remove(&number);
    }

    fn lose(&mut self, peer: PeerId, producer: NodeName, why: Arc<SessionError>, now: Time) {
        tracing::warn!(%producer, %why, "a peer is lost");
        self.session_of.remove(&peer);
        let _ = self.engine.remove_peer(peer, now);
        self.outcomes.push(ReaderEvent::Lost { peer, producer, why });
    }

    /// Makes a peer of a producer that this side has agreed with.
    fn admit(
        &mut self,
        number: u64,
        address: &Address,
        layouts: &[PageLayout],
        agreed: Agreed<T::UnopenedLane>,
        now: Time,
    ) -> Result<Peer, ConnectError> {
        let id = self.engine.add_peer()?;
        let producer = agreed.offer.producer;
        let peer = self.add_peer_from_offer(number, id, (address, layouts), agreed, now);
        match peer {
            Ok(peer) => {
                if let Some(session) = self.connected.get_mut(&number) {
                    session.peer = Some((id, producer));
                    let known = |pool: &PeerPool| {
                        let tables = peer.tables[pool.own.clone()].iter().copied().flatten().collect();
                        KnownPool { pool: pool.clone(), tables }
                    };
                    session.pools = peer.pools().iter().map(known).collect();
                    self.session_of.insert(id, number);
                }
                Ok(peer)
            }
            Err(error) => {
                let _ = self.engine.remove_peer(id, now);
                Err(error)
            }
        }
    }

    /// Gives a new peer the offered regions and the first lanes.
    fn add_peer_from_offer(
        &mut self,
        number: u64,
        id: PeerId,
        (address, layouts): (&Address, &[PageLayout]),
        agreed: Agreed<T::UnopenedLane>,
        now: Time,
    ) -> Result<Peer, ConnectError> {
        let Agreed { offer, lanes } = agreed;
        let producer = offer.producer;
        let refused = |source| ConnectError::Offer { address: address.clone(), source };
        let (peers, free) = self.engine.places_free();
        let places = free.saturating_sub(PLACES_PER_PEER * peers).max(PLACES_PER_PEER);
        let all = offer.pools.iter().flat_map(|pool| pool.regions());
        let offered = all.map(|region| 1 + usize::from(region.offer().table.is_some())).sum();
        if offered > places {
            return Err(ConnectError::TooManyRegions { address: address.clone(), offered, places });
        }
        let (mut regions, mut tables, mut pools) = (Vec::new(), Vec::new(), Vec::new());
        for pool in &offer.pools {
            let known = layouts.iter().find(|layout| layout.to_session().same_bytes(pool.layout()));
            let Some(known) = known else { continue };
            let first = regions.len();
            for piece in pieces(pool) {
                regions.push(self.engine.add_pool(id, known.geometry(), &piece).map_err(refused)?);
                // A table that is too long for one region is never read whole; its entries are, one
                // by one.
                let table = piece.first().and_then(table_of);
                tables.push(table.and_then(|table| self.engine.add_region(id, &table).ok()));
            }
            pools.push((pool.id(), *pool.layout(), first..regions.len()));
        }
        if regions.is_empty() {
            return Err(ConnectError::NoRegions(address.clone()));
        }
        // Where they are made at connect, one was made at least, or the reason why not is here.
        let on_demand = lanes.is_empty();
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
        if attached == 0 && !on_demand {
            return Err(ConnectError::NoLane { address: address.clone(), why: last });
        }
        let all: Arc<[_]> = regions.into();
        let pools = pools.into_iter().map(|(id, layout, own)| {
            let all = Arc::clone(&all);
            PeerPool { id, layout, all, own }
        });
        let pools = pools.collect();
        Ok(Peer { id, producer, epoch: offer.epoch, regions: all, tables: tables.into(), pools })
    }

    /// Takes a lane that session `session` has made into use, or gives it back.
    fn take_lane(
        &mut self,
        session: u64,
        id: PeerId,
        made: Attached<T::UnopenedLane>,
        now: Time,
    ) -> Result<(), TransportError> {
        let number = made.number;
        let taken = match self.may_add(made.rail) {
            true => self.attach(id, made, now),
            false => Err("the rail has as many lanes as Config::lanes_budget allows".into()),
        };
        if let Some(session) = self.connected.get_mut(&session) {
            match &taken {
                Ok(lane) => drop(session.lanes.insert(*lane, number)),
                Err(_) => session.handle.release(number),
            }
        }
        taken.map(drop)
    }

    fn attach(
        &mut self,
        id: PeerId,
        made: Attached<T::UnopenedLane>,
        now: Time,
    ) -> Result<LaneId, TransportError> {
        let Attached { rail, remote_rail, lane, .. } = made;
        // A lane may be deeper than the storage: then the reader uses as many entries as that has.
        let depth = T::depth(&lane).min(self.engine.depth());
        let spec = LaneSpec { rail, remote_rail: remote_rail.0, depth };
        // The provider's own error may not be Send.
        self.engine.attach(id, spec, lane, now).map_err(|error| error.to_string().into())
    }

    /// Gives a lost lane back to the producer.
    #[cold]
    pub(super) fn release(&mut self, lost: LaneLost) {
        if let Some(number) = self.session_of.get(&lost.peer)
            && let Some(session) = self.connected.get_mut(number)
            && let Some(number) = session.lanes.remove(&lost.lane)
        {
            session.handle.release(number);
        }
    }

    /// Passes the engine's request for a lane on to the peer's session.
    #[cold]
    pub(super) fn request_lane(&mut self, wanted: LaneWanted, now: Time) {
        // A peer that has lost all lanes and has nothing to read gets new ones on demand.
        let bare = self.demand.is_on() && self.engine.lanes_to(wanted.peer) == 0;
        if bare && self.engine.forgo_lost_lanes(wanted.peer) {
            return;
        }
        if !self.may_add(wanted.rail) {
            if self.engine.pages_in_flight(wanted.peer) > 0 {
                self.make_room(now);
            }
            return self.engine.lane_unavailable(wanted, now);
        }
        match self.session_of.get(&wanted.peer).and_then(|number| self.connected.get(number)) {
            Some(session) => session.handle.request_lane(wanted),
            None => self.engine.lane_unavailable(wanted, now),
        }
    }
}

/// The error of a session that was not established.
fn not_connected(address: &Address, failure: SessionFailure) -> ConnectError {
    let address = address.clone();
    match failure {
        SessionFailure::Session(error) => ConnectError::Session(error),
        SessionFailure::NothingInCommon(source) => ConnectError::Transport { address, source },
        SessionFailure::NoPool { wanted, offered } => ConnectError::NoPool { address, wanted, offered },
        SessionFailure::NoRegions => ConnectError::NoRegions(address),
    }
}

/// The offers of a pool's regions, for each piece of the pool.
pub(super) fn pieces(pool: &Pool) -> impl Iterator<Item = Vec<RegionOffer>> {
    pool.pieces().map(|piece| piece.iter().map(|region| *region.offer()).collect())
}

/// The publication table of a region, as a region of one page.
pub(super) fn table_of(pages: &RegionOffer) -> Option<RegionOffer> {
    let TableOffer { base, keys } = pages.table?;
    let bytes = u64::from(pages.slots) * ENTRY_BYTES;
    Some(RegionOffer { base, page_bytes: bytes, stride: bytes, slots: 1, keys, table: None })
}
