//! A directory in memory that fails, forgets and freezes when it is told to.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use kvrail::session::Epoch;
use kvrail::{KeyTag, Publisher};
use kvrail_node::{Directory, DirectoryError, Found, Owner, Record, Renewed};

/// What it does with the calls that come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Mood {
    #[default]
    Works,
    /// It refuses every call.
    Fails,
    /// It carries every second call out, and says of all that they failed.
    LosesAnswers,
    /// It answers nothing before the caller's deadline.
    Frozen,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) mood: Mood,
    pub(crate) records: HashMap<KeyTag, Record>,
    /// Whether it knows the owner. It says once of an owner that it does not know that all is lost.
    known: bool,
    /// Calls that came, and the most records of one.
    pub(crate) calls: u64,
    pub(crate) largest: usize,
    pub(crate) renewals: u64,
}

#[derive(Debug)]
pub(crate) struct TestDirectory {
    state: Mutex<State>,
    changed: Condvar,
    lease: Duration,
}

const NAME: &str = "test";

impl TestDirectory {
    pub(crate) fn new(lease: Duration) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), lease })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.state().mood = mood;
        self.changed.notify_all();
    }

    /// It is started anew, without records.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        state.records.clear();
        state.known = false;
    }

    /// Waits until its state is as wanted.
    pub(crate) fn wait_for(&self, what: &str, done: impl Fn(&State) -> bool) {
        let (state, waited) =
            self.changed.wait_timeout_while(self.state(), crate::rig::LIMIT, |state| !done(state)).unwrap();
        assert!(!waited.timed_out(), "{what}: {} records, {} calls", state.records.len(), state.calls);
    }

    /// Carries a call out, as its mood is.
    fn call<R>(&self, deadline: Instant, act: impl FnOnce(&mut State) -> R) -> Result<R, DirectoryError> {
        let directory = || Arc::from(NAME);
        let mut state = self.state();
        state.calls += 1;
        self.changed.notify_all();
        while state.mood == Mood::Frozen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DirectoryError::Deadline { directory: directory() });
            }
            state = self.changed.wait_timeout(state, left).unwrap().0;
        }
        let carried_out = match state.mood {
            Mood::Works => return Ok(act(&mut state)),
            Mood::LosesAnswers => state.calls.is_multiple_of(2),
            Mood::Fails | Mood::Frozen => false,
        };
        if carried_out {
            act(&mut state);
        }
        Err(DirectoryError::Unreachable { directory: directory(), why: "the test says so".into() })
    }
}

impl Directory for TestDirectory {
    fn look_up(&self, tags: &[KeyTag], _deadline: Instant, found: &mut Found) {
        // What it knows, the tests see in its state.
        found.reset(tags.len());
    }

    fn owners(&self, epochs: &[Epoch], deadline: Instant) -> Result<Vec<Option<Owner>>, DirectoryError> {
        self.call(deadline, |_| vec![None; epochs.len()])
    }

    fn announce(&self, owner: &Owner, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.call(deadline, |state| {
            assert!(records.iter().all(|record| record.owner == owner.epoch));
            state.largest = state.largest.max(records.len());
            state.records.extend(records.iter().map(|record| (record.tag, *record)));
        })
    }

    fn withdraw(&self, records: &[Record], deadline: Instant) -> Result<(), DirectoryError> {
        self.call(deadline, |state| {
            state.largest = state.largest.max(records.len());
            for record in records {
                if state.records.get(&record.tag) == Some(record) {
                    state.records.remove(&record.tag);
                }
            }
        })
    }

    fn renew(&self, _owner: &Owner, deadline: Instant) -> Result<Renewed, DirectoryError> {
        self.call(deadline, |state| {
            state.renewals += 1;
            if std::mem::replace(&mut state.known, true) { Renewed::Kept } else { Renewed::Lost }
        })
    }

    fn lease(&self) -> Duration {
        self.lease
    }

    fn describe(&self) -> String {
        NAME.into()
    }
}

/// The owner of a publisher's pages.
pub(crate) fn owner(publisher: &Publisher) -> Owner {
    Owner {
        epoch: publisher.epoch(),
        node: "producer".parse().unwrap(),
        address: publisher.local_addr().into(),
        zone: "".parse().unwrap_or_else(|_| "none".parse().unwrap()),
    }
}
