//! How a driver connects to owners on demand, and hears of those that come and go.

use std::sync::Arc;

use kvrail::session::Epoch;
use kvrail::{Connecting, Peer, ReaderEvent, ReaderTransport};
use kvrail_core::time::{Nanos, Time};

use super::ReadDriver;
use super::owner_table::{Connection, wants_place};
use super::requests::PageAt;
use crate::get::request::Progress;
use crate::miss::GetMiss;

/// How long an owner that wants a place for a peer waits until it asks again.
const ASK_AGAIN: Nanos = Nanos::from_millis(2);

impl<T: ReaderTransport> ReadDriver<T> {
    /// A page is to be read from an owner that is not connected.
    #[cold]
    pub(super) fn connect_for(&mut self, at: PageAt, epoch: Epoch, now: Time) {
        let unreachable = |why: &str| GetMiss::Unreachable { owner: epoch, why: why.into() };
        // Not the number from when the page was gathered: for the owner of another page since, this
        // one may have been forgotten, and its number given away.
        let Some(owner) = self.owners.number_of(epoch) else {
            return self.requests.missed(at, unreachable("the reader knows too many owners"), now);
        };
        if let Some(why) = self.left_alone(owner, now) {
            return self.requests.missed(at, why, now);
        }
        let entry = self.owners.get(owner);
        if matches!(entry.connection, Connection::None | Connection::Waiting(..) | Connection::Restarted(..))
            && let Err(why) = self.begin_connect(owner, now)
        {
            return self.requests.missed(at, GetMiss::Unreachable { owner: epoch, why }, now);
        }
        let Some(request) = self.requests.active.get_mut(at.request) else { return };
        let page = &mut request.pages[at.page as usize];
        let give_up = page.give_up;
        page.progress = Progress::Connecting;
        request.next_timer = request.next_timer.min(give_up);
        self.requests.timer(give_up);
        self.owners.get(owner).waiting.push(at);
    }

    /// Why an owner is not connected to for now, if it was not found at its address a moment ago.
    /// An owner of which the directory says another address since is tried there at once.
    fn left_alone(&mut self, owner: u32, now: Time) -> Option<GetMiss> {
        let entry = self.owners.get(owner);
        let (until, why) = match &entry.connection {
            Connection::Waiting(until, why) => {
                (*until, GetMiss::Unreachable { owner: entry.epoch, why: Arc::clone(why) })
            }
            Connection::Restarted(until, found) => {
                (*until, GetMiss::Restarted { owner: entry.epoch, found: *found })
            }
            _ => return None,
        };
        let said = self.shared.owners.get(entry.epoch);
        let elsewhere = said.is_some_and(|said| entry.tried.as_ref() != Some(&said.owner.address));
        (now < until && !elsewhere).then_some(why)
    }

    /// Begins to connect to an owner. If there is no place for it, it waits for one.
    fn begin_connect(&mut self, owner: u32, now: Time) -> Result<(), Arc<str>> {
        let entry = self.owners.get(owner);
        // What the directory said last comes first.
        let known = self.shared.owners.get(entry.epoch).or_else(|| entry.known.take());
        let Some(known) = known else {
            return Err("the directory does not know its address".into());
        };
        let address = known.owner.address.clone();
        entry.known = Some(known);
        entry.tried = Some(address.clone());
        if self.owners.connected() + self.owners.connecting.len() >= self.peers {
            self.wants_place(owner, now);
            return Ok(());
        }
        let begun = self.reader.begin_connect(&address, self.shared.keys.clone(), &self.shared.layouts);
        match begun {
            Ok(connecting) => {
                self.owners.get(owner).connection = Connection::Connecting;
                self.owners.connecting.insert(connecting, owner);
                Ok(())
            }
            Err(error) if wants_place(&error) => {
                self.wants_place(owner, now);
                Ok(())
            }
            Err(error) => {
                let why: Arc<str> = error.to_string().into();
                self.owners.get(owner).not_reached(Arc::clone(&why), now);
                Err(why)
            }
        }
    }

    /// An owner waits for a place, which it asks for at once.
    fn wants_place(&mut self, owner: u32, now: Time) {
        self.owners.get(owner).connection = Connection::WantsPlace;
        self.owners.wanting.push(owner);
        self.ask_again = now;
    }

    /// Gives the owners that want a place for a peer those of owners that are idle.
    #[cold]
    pub(super) fn make_places(&mut self, now: Time) {
        if now < self.ask_again {
            return;
        }
        self.ask_again = now + ASK_AGAIN;
        for owner in std::mem::take(&mut self.owners.wanting) {
            self.owners.get(owner).connection = Connection::None;
            let wanted = std::mem::take(&mut self.owners.get(owner).waiting);
            let wanted: Vec<_> = wanted.into_iter().filter(|&at| self.still_waits(at, owner)).collect();
            if wanted.is_empty() {
                continue;
            }
            if let Some(peer) =
                self.owners.idle().and_then(|idle| self.owners.get(idle).disconnected(None, now))
            {
                self.reader.disconnect(&peer);
            }
            self.owners.get(owner).waiting = wanted;
            if let Err(why) = self.begin_connect(owner, now) {
                let epoch = self.owners.get(owner).epoch;
                self.fail_waiting(owner, &GetMiss::Unreachable { owner: epoch, why }, now);
            }
        }
    }

    /// Whether a page waits for the connection to an owner.
    fn still_waits(&mut self, at: PageAt, owner: u32) -> bool {
        let epoch = self.owners.get(owner).epoch;
        let Some(request) = self.requests.active.get(at.request) else { return false };
        let page = &request.pages[at.page as usize];
        let of_owner = request.records.get(page.next as usize).is_some_and(|record| record.owner == epoch);
        page.progress == Progress::Connecting && of_owner
    }

    /// Gives the pages that wait for an owner up.
    fn fail_waiting(&mut self, owner: u32, why: &GetMiss, now: Time) {
        for at in std::mem::take(&mut self.owners.get(owner).waiting) {
            if self.still_waits(at, owner) {
                self.requests.missed(at, why.clone(), now);
            }
        }
    }

    /// Takes in an event of the reader.
    #[cold]
    pub(super) fn take_event(&mut self, event: ReaderEvent, now: Time) {
        match event {
            ReaderEvent::Connected { connecting, peer } => self.take_peer(connecting, peer, now),
            ReaderEvent::NotConnected { connecting, error } => {
                let Some(owner) = self.owners.connecting.remove(&connecting) else { return };
                if wants_place(&error) {
                    // The place of a peer that was disconnected is free when its lanes have ended.
                    self.owners.get(owner).connection = Connection::WantsPlace;
                    self.owners.wanting.push(owner);
                    self.ask_again = now + ASK_AGAIN;
                    return;
                }
                let why: Arc<str> = error.to_string().into();
                tracing::debug!(%why, "an owner was not reached");
                self.owners.get(owner).not_reached(Arc::clone(&why), now);
                let epoch = self.owners.get(owner).epoch;
                self.fail_waiting(owner, &GetMiss::Unreachable { owner: epoch, why }, now);
            }
            ReaderEvent::Lost { peer, producer, why } => {
                let Some(owner) = self.owners.of_peer(peer) else { return };
                tracing::debug!(%producer, %why, "an owner is lost");
                self.owners.get(owner).disconnected(Some(why.to_string().into()), now);
            }
            ReaderEvent::PoolCame { peer, pool } => {
                let Some(owner) = self.owners.of_peer(peer) else { return };
                self.owners.get(owner).add_pool(pool, &self.shared.layouts);
            }
            ReaderEvent::PoolGone { peer, pool } => {
                let Some(owner) = self.owners.of_peer(peer) else { return };
                self.owners.get(owner).remove_pool(pool);
            }
            _ => {}
        }
    }

    fn take_peer(&mut self, connecting: Connecting, peer: Peer, now: Time) {
        let Some(owner) = self.owners.connecting.remove(&connecting) else {
            return self.reader.disconnect(&peer);
        };
        let (wanted, found) = (self.owners.get(owner).epoch, peer.epoch());
        if found == wanted {
            self.owners.get(owner).connected(peer, &self.shared, now);
            for at in std::mem::take(&mut self.owners.get(owner).waiting) {
                if self.still_waits(at, owner) {
                    if let Some(request) = self.requests.active.get_mut(at.request) {
                        request.times.connected = now;
                    }
                    self.requests.want_again(at);
                }
            }
            return;
        }
        // The records of the wanted owner are of no use any more. The one that is there may be
        // wanted soon, by records of its own.
        tracing::debug!(?wanted, ?found, "an owner was restarted");
        self.owners.get(owner).restarted(found, now);
        self.shared.owners.forget(wanted);
        self.fail_waiting(owner, &GetMiss::Restarted { owner: wanted, found }, now);
        let known = self.owners.get(owner).known.take();
        let Some(new) = self.owners.number_of(found) else { return self.reader.disconnect(&peer) };
        let entry = self.owners.get(new);
        if !matches!(entry.connection, Connection::None | Connection::Waiting(..)) {
            return self.reader.disconnect(&peer);
        }
        if entry.known.is_none() {
            entry.known = self.shared.owners.get(found).or_else(|| {
                // Its zone and name are not known yet; the address is.
                let mut owner = known?.owner.clone();
                owner.epoch = found;
                self.shared.owners.learn(owner);
                self.shared.owners.get(found)
            });
        }
        entry.connected(peer, &self.shared, now);
    }
}
