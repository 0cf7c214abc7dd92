//! How connects are begun, how they end, and how a reader waits for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::engine::PeerError;
use kvrail_core::time::{Nanos, Time};
use kvrail_session::{Address, PeerKeys, ReaderDescription};

use super::outcomes::UnderWay;
use super::peer::{ConnectError, Connecting, Peer, ReaderEvent};
use super::sessions::ConnectRequest;
use super::{PeerSession, Reader};
use crate::clock;
use crate::layout::PageLayout;
use crate::transport::ReaderTransport;

/// Connects of one reader to one address that are under way at a time. A producer bounds the
/// handshakes of one host, and the others would displace each other there.
const PER_ADDRESS: usize = 8;
/// Connecting takes a day at most, so that every time that is made of it fits the clock.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl<T: ReaderTransport> Reader<T> {
    /// Begins to connect to the producer at `address`, for the pools of any of `layouts`, and
    /// returns at once. [`next_event`](Self::next_event) gives the outcome, within
    /// `Config::connect`: [`ReaderEvent::Connected`] or [`ReaderEvent::NotConnected`]. As many
    /// connects as the reader has places for peers may be under way, while this thread polls and
    /// reads from other peers; of those to one address eight at a time, the others after them.
    ///
    /// # Errors
    ///
    /// The reader has no place for another peer, or too many connects have outcomes that were not
    /// taken; the engine has no number left for another layout; the system has no thread.
    pub fn begin_connect(
        &mut self,
        address: &Address,
        keys: impl Into<PeerKeys>,
        layouts: &[PageLayout],
    ) -> Result<Connecting, ConnectError> {
        let limit = self.outcomes.limit;
        if self.connected.len() + self.outcomes.waiting() >= limit {
            return Err(PeerError::Full { limit }.into());
        }
        if self.outcomes.under_way.len() + self.outcomes.untaken >= limit {
            return Err(ConnectError::TooManyConnects { limit });
        }
        for layout in layouts {
            self.engine.add_page_layout(layout.geometry())?;
        }
        let number = self.next_session;
        self.next_session += 1;
        let within = self.config.connect.min(LONGEST);
        let wanted: Vec<_> = layouts.iter().map(|layout| layout.to_session()).collect();
        let request = ConnectRequest {
            number,
            address: address.clone(),
            keys: keys.into(),
            reader: ReaderDescription::of_layouts(self.config.node, wanted.clone()),
            wanted,
            lanes_per_rail: self.demand.lanes_per_rail(),
            on_demand: false,
            deadline: Instant::now() + within,
        };
        // The session gives up at the deadline, and gets a moment more to report it.
        let give_up = clock::within(within + within / 4);
        let queue = self.outcomes.addresses.entry(address.clone()).or_default();
        if queue.active < PER_ADDRESS {
            queue.active += 1;
            if let Err(error) = self.begin_session(request, layouts.into()) {
                self.outcomes.leave(address);
                return Err(error);
            }
        } else {
            queue.waiting.push_back((request, layouts.into()));
        }
        self.outcomes.under_way.insert(number, UnderWay { address: address.clone(), give_up });
        self.outcomes.give_up = self.outcomes.give_up.min(give_up);
        Ok(Connecting(number))
    }

    fn begin_session(
        &mut self,
        request: ConnectRequest,
        layouts: Arc<[PageLayout]>,
    ) -> Result<(), ConnectError> {
        let (number, address) = (request.number, request.address.clone());
        let request = ConnectRequest { on_demand: self.on_demand_for(number), ..request };
        let handle = self.sessions.begin(request).map_err(|error| {
            self.demand.session_ended(number);
            ConnectError::Thread(error)
        })?;
        let (peer, pools, refused, lanes) = (None, Vec::new(), Vec::new(), HashMap::new());
        let session = PeerSession { handle, address, layouts, peer, pools, refused, lanes };
        self.connected.insert(number, session);
        Ok(())
    }

    /// Gives up a connect that was begun, whatever has become of it: its outcome is not reported,
    /// and a peer whose outcome has not been taken is disconnected. Returns whether there was
    /// anything to give up.
    pub fn abandon(&mut self, connecting: Connecting) -> bool {
        if self.leave_under_way(connecting).is_some() {
            self.forget_session(connecting.0);
            return true;
        }
        match self.outcomes.take_outcome(connecting) {
            Some(ReaderEvent::Connected { peer, .. }) => self.disconnect(&peer),
            Some(_) => {}
            None => return false,
        }
        true
    }

    /// The next event: the outcome of a connect that was begun, or the loss of a peer.
    pub fn next_event(&mut self) -> Option<ReaderEvent> {
        self.outcomes.next_event()
    }

    /// Takes a connect out of those under way, and begins the next one to the same address.
    fn leave_under_way(&mut self, connecting: Connecting) -> Option<()> {
        let UnderWay { address, .. } = self.outcomes.under_way.remove(&connecting.0)?;
        if self.outcomes.under_way.is_empty() {
            self.outcomes.give_up = Time::NEVER;
        }
        let queue = self.outcomes.addresses.get_mut(&address)?;
        let waits = queue.waiting.iter().position(|(request, _)| request.number == connecting.0);
        if let Some(at) = waits {
            queue.waiting.remove(at);
            return Some(());
        }
        while let Some((request, layouts)) = self.outcomes.next_to(&address) {
            let number = request.number;
            match self.begin_session(request, layouts) {
                Ok(()) => return Some(()),
                Err(error) => {
                    self.outcomes.under_way.remove(&number);
                    self.report_outcome(Connecting(number), Err(error));
                }
            }
        }
        self.outcomes.leave(&address);
        Some(())
    }

    /// A connect has ended: reports its outcome, unless it was given up.
    pub(super) fn connect_ended(&mut self, connecting: Connecting, outcome: Result<Peer, ConnectError>) {
        if self.leave_under_way(connecting).is_some() {
            self.report_outcome(connecting, outcome);
        }
    }

    fn report_outcome(&mut self, connecting: Connecting, outcome: Result<Peer, ConnectError>) {
        if self.outcomes.awaited == Some(connecting) {
            self.outcomes.arrived = Some(outcome);
            return;
        }
        self.outcomes.put(match outcome {
            Ok(peer) => ReaderEvent::Connected { connecting, peer },
            Err(error) => ReaderEvent::NotConnected { connecting, error },
        });
    }

    /// Gives up the connects whose time is over.
    #[cold]
    pub(super) fn give_up_connects(&mut self, now: Time) {
        let late = self.outcomes.under_way.iter().filter(|(_, connect)| connect.give_up <= now);
        let late: Vec<_> = late.map(|(&number, connect)| (number, connect.address.clone())).collect();
        for (number, address) in late {
            self.forget_session(number);
            self.connect_ended(Connecting(number), Err(ConnectError::Deadline(address)));
        }
        let next = self.outcomes.under_way.values().map(|connect| connect.give_up).min();
        self.outcomes.give_up = next.unwrap_or(Time::NEVER);
    }

    /// Waits for the outcome of a connect.
    pub(super) fn finish_connect(
        &mut self,
        connecting: Connecting,
        address: &Address,
    ) -> Result<Peer, ConnectError> {
        self.outcomes.awaited = Some(connecting);
        let outcome = loop {
            self.poll();
            if let Some(arrived) = self.outcomes.arrived.take() {
                break arrived;
            }
            if !self.outcomes.under_way.contains_key(&connecting.0) {
                // It was given up, and its outcome is taken above.
                break Err(ConnectError::Deadline(address.clone()));
            }
            // The engine does not sleep while a done batch has not been taken.
            while let Some(done) = self.finished() {
                self.stash.push_back(done);
            }
            self.take_overdue_notices();
            let now = clock::now();
            self.engine.wait(now, self.outcomes.give_up.min(now + Nanos::from_millis(100)));
        };
        self.outcomes.awaited = None;
        outcome
    }
}
