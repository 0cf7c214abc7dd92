//! What this process knows of owners: which servers have the records that it announces, and which
//! owners of other records are alive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvrail::session::Epoch;

/// The most owners that are remembered as alive or dead, before those of the past are forgotten.
const MAX_SEEN: usize = 16_384;

/// The owners whose records this process announces, and whether the servers still have all of them.
///
/// A server has a copy of each owner's entry, which expires with the lease. If it is gone, the
/// lease ran out, or the server has lost its memory, or another one has taken over. If another
/// process answers than before, it may have an older state, though the copy is in it.
#[derive(Debug, Default)]
pub(super) struct Announcers(Mutex<HashMap<Epoch, Announcer>>);

#[derive(Debug)]
struct Announcer {
    copies: HashMap<Arc<str>, ServerCopy>,
    /// Records were not announced, and it is not known on which servers.
    lost: bool,
    /// When all records were last announced, or are last known to have been lost.
    complete: Instant,
    /// When it last called.
    used: Instant,
}

#[derive(Debug)]
struct ServerCopy {
    process: Arc<str>,
    lost: bool,
}

/// What an owner's call has found on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ToldServer {
    /// The owner was not known to this process before the call.
    pub(super) first: bool,
    /// The server had a copy of the owner's entry.
    pub(super) existed: bool,
    /// The call is a renewal.
    pub(super) renewal: bool,
}

impl Announcers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Epoch, Announcer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call for an owner: whether it is the first one. Owners that have not called for
    /// `forget` are forgotten.
    pub(super) fn begin(&self, owner: Epoch, forget: Duration) -> bool {
        let (mut owners, now) = (self.lock(), Instant::now());
        owners.retain(|&epoch, announcer| epoch == owner || announcer.used + forget > now);
        let mut first = false;
        let announcer = owners.entry(owner).or_insert_with(|| {
            first = true;
            Announcer { copies: HashMap::new(), lost: false, complete: now, used: now }
        });
        announcer.used = now;
        first
    }

    /// Notes what `server` had of the owner.
    pub(super) fn note(&self, owner: Epoch, server: &Arc<str>, process: &Arc<str>, found: ToldServer) {
        let mut owners = self.lock();
        let Some(announcer) = owners.get_mut(&owner) else { return };
        let ToldServer { first, existed, renewal } = found;
        if let Some(copy) = announcer.copies.get_mut(server) {
            copy.lost |= !existed || copy.process != *process;
            copy.process = Arc::clone(process);
        } else {
            // A server that has joined since has none of the records, unless it has taken them over
            // from another, which is not known.
            let lost = !first || (renewal && !existed);
            announcer.copies.insert(Arc::clone(server), ServerCopy { process: Arc::clone(process), lost });
        }
    }

    /// Notes that records of the owner did not reach `server`, or, for `None`, some server.
    pub(super) fn failed(&self, owner: Epoch, server: Option<&Arc<str>>) {
        let mut owners = self.lock();
        let Some(announcer) = owners.get_mut(&owner) else { return };
        match server {
            None => announcer.lost = true,
            Some(server) => {
                let never = || ServerCopy { process: "".into(), lost: true };
                announcer.copies.entry(Arc::clone(server)).or_insert_with(never).lost = true;
            }
        }
    }

    /// Whether records are lost on one of these servers, or were not announced as a whole for
    /// `refresh`. The owner is being told, so that the next answer is no, unless more is lost.
    pub(super) fn take_lost(&self, owner: Epoch, servers: &[Arc<str>], refresh: Duration) -> bool {
        let (mut owners, now) = (self.lock(), Instant::now());
        let Some(announcer) = owners.get_mut(&owner) else { return true };
        let mut lost = std::mem::take(&mut announcer.lost);
        for server in servers {
            if let Some(copy) = announcer.copies.get_mut(server) {
                lost |= std::mem::take(&mut copy.lost);
            }
        }
        lost |= announcer.complete + refresh <= now;
        if lost {
            announcer.complete = now;
        }
        lost
    }

    /// Forgets the servers that have no slots any more.
    pub(super) fn keep_servers(&self, owner: Epoch, servers: &[Arc<str>]) {
        if let Some(announcer) = self.lock().get_mut(&owner) {
            announcer.copies.retain(|server, _| servers.contains(server));
        }
    }
}

/// Which owners are alive, as far as it was asked a moment ago.
#[derive(Debug, Default)]
pub(super) struct Liveness(Mutex<HashMap<Epoch, (Alive, Instant)>>);

/// Whether an owner is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alive {
    Yes,
    No,
}

impl Liveness {
    /// Whether the owner is alive, if that is known for now.
    pub(super) fn get(&self, owner: Epoch) -> Option<Alive> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&owner).filter(|(_, until)| *until > Instant::now()).map(|(alive, _)| *alive)
    }

    /// Notes that the owner is alive, or not, for `time`, and says which of both it is now. That it
    /// is alive on one server outweighs that another does not know it.
    pub(super) fn note(&self, owner: Epoch, alive: Alive, time: Duration) -> Alive {
        let now = Instant::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_SEEN {
            seen.retain(|_, (_, until)| *until > now);
            // Forged records may name any number of owners.
            if seen.len() >= MAX_SEEN {
                seen.clear();
            }
        }
        let known = seen.get(&owner).filter(|(_, until)| *until > now);
        if alive == Alive::No && matches!(known, Some((Alive::Yes, _))) {
            return Alive::Yes;
        }
        seen.insert(owner, (alive, now + time));
        alive
    }
}
