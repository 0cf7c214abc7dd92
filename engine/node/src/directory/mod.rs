//! Who has which page: the trait of all directories.
//!
//! A directory keeps [`Record`]s, which are hints: a record may be stale, swapped or forged, and
//! the worst is a miss. It is asked for batches of keys, and every call has a deadline. The records
//! of an owner that does not [renew](Directory::renew) its lease expire by themselves.

pub mod embedded;
pub mod none;
pub mod one_sided;
#[cfg(feature = "redis")]
pub mod redis;

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail::session::Epoch;
use kvrail::{Address, NodeName};
use kvrail_core::table::KeyTag;

use crate::record::Record;

/// The most records of one key that an answer holds: owners beyond it are left out.
pub const MAX_OWNERS: usize = 8;

/// A node that owns pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// What its records name it by: the epoch of its publisher, another one after each start.
    pub epoch: Epoch,
    /// Its name, for logs and errors.
    pub node: NodeName,
    /// Where readers connect to it.
    pub address: Address,
    /// Where it stands: nodes of one zone are near each other. A name is never empty: `?` says that
    /// the zone is not known.
    pub zone: NodeName,
}

/// What has become of an owner's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
#[allow(clippy::exhaustive_enums, reason = "an owner announces again, or does not")]
pub enum Renewed {
    /// They are there, until the next lease runs out.
    Kept,
    /// Some or all are lost: the directory was restarted, another one has taken over, or the lease
    /// had run out. The owner announces all of its records again.
    Lost,
}

/// Why a directory did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// It could not be reached, or the connection failed.
    #[error("the directory at {directory} is not reached: {why}")]
    Unreachable {
        /// Its address.
        directory: Arc<str>,
        /// Why, as text.
        why: Arc<str>,
    },
    /// It was not reached a moment ago, and is not asked again before some time has passed.
    #[error("the directory at {directory} was not reached, and is not asked for another {wait:?}")]
    BackingOff {
        /// Its address.
        directory: Arc<str>,
        /// How long it is not asked.
        wait: Duration,
    },
    /// The deadline passed without an answer.
    #[error("the directory at {directory} did not answer before the deadline")]
    Deadline {
        /// Its address.
        directory: Arc<str>,
    },
    /// It answered what is no answer.
    #[error("the directory at {directory} gave an answer that cannot be used: {why}")]
    Answer {
        /// Its address.
        directory: Arc<str>,
        /// What is wrong with it, as text.
        why: Arc<str>,
    },
    /// It refused the request.
    #[error("the directory at {directory} refused: {why}")]
    Refused {
        /// Its address.
        directory: Arc<str>,
        /// Why, as text.
        why: Arc<str>,
    },
    /// Too many questions to it have no answer yet.
    #[error(
        "{limit} questions to the directory at {directory} have no answer yet: look up more keys at a time"
    )]
    Busy {
        /// Its address.
        directory: Arc<str>,
        /// The most questions that one client has under way.
        limit: usize,
    },
    /// Its code panicked: a fault of the program. The panic was printed.
    #[error("the directory {directory} panicked: {why}")]
    Panicked {
        /// What kind it is and where.
        directory: Arc<str>,
        /// What the panic said.
        why: Arc<str>,
    },
}

impl DirectoryError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Unreachable { .. } => 7020,
            Self::BackingOff { .. } => 7021,
            Self::Deadline { .. } => 7022,
            Self::Answer { .. } => 7023,
            Self::Refused { .. } => 7024,
            Self::Busy { .. } => 7025,
            Self::Panicked { .. } => 7026,
        }
    }
}

/// Who has which page. Any thread calls it; a call returns by its deadline. One that panics has not
/// answered: its keys are misses, and the next call is made as usual.
pub trait Directory: Send + Sync + fmt::Debug {
    /// Looks `tags` up, one round trip for all of them or for all of a shard. `found` is filled
    /// with one answer for each tag, in order. Where a part of the directory does not answer, the
    /// answers of the others count, and the tags of that part stay unanswered.
    fn look_up(&self, tags: &[KeyTag], deadline: Instant, found: &mut Found);

    /// The owners with these epochs; `None` for one whose lease has run out.
    ///
    /// # Errors
    ///
    /// It does not answer.
    fn owners(&self, epochs: &[Epoch], deadline: Instant) -> Result<Vec<Option<Owner>>, DirectoryError>;

    /// Makes `owner` known, and that it has the pages of `records`, all of which name it. A record
    /// takes the place of the owner's earlier one of the same key, and stands beside those of other
    /// owners. Announcing a record again changes nothing.
    ///
    /// # Errors
    ///
    /// It does not answer; some of the records may be known all the same.
    fn announce(&self, owner: &Owner, records: &[Record], deadline: Instant) -> Result<(), DirectoryError>;

    /// Forgets these records. One that is not there, or that has another generation by now, is
    /// passed over.
    ///
    /// # Errors
    ///
    /// It does not answer; some of the records may be forgotten all the same.
    fn withdraw(&self, records: &[Record], deadline: Instant) -> Result<(), DirectoryError>;

    /// Begins the owner's [lease](Self::lease) anew.
    ///
    /// # Errors
    ///
    /// It does not answer.
    fn renew(&self, owner: &Owner, deadline: Instant) -> Result<Renewed, DirectoryError>;

    /// How long an owner's records stay after it was last heard of. An owner renews three times in
    /// it.
    fn lease(&self) -> Duration;

    /// What kind it is and where, for logs: `redis://10.0.0.5:6379`.
    fn describe(&self) -> String;
}

/// Makes a call of a directory. If that panics, its fault stays there: the call has not answered.
/// What a panic leaves half done is the directory's own affair, which is asked again.
pub(crate) fn caught<R>(
    directory: &dyn Directory,
    call: impl FnOnce(&dyn Directory) -> R,
) -> Result<R, DirectoryError> {
    catch_unwind(AssertUnwindSafe(|| call(directory))).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|&text| Arc::from(text));
        let text = text.or_else(|| panic.downcast_ref::<String>().map(|text| Arc::from(&**text)));
        let why = text.unwrap_or_else(|| "it says nothing more".into());
        // Not even its name is known if that panics as well.
        let name = catch_unwind(AssertUnwindSafe(|| directory.describe()));
        let name = name.unwrap_or_else(|_| "without a name".into());
        tracing::error!(directory = name, %why, "a directory panicked");
        DirectoryError::Panicked { directory: name.into(), why }
    })
}

/// The answers to a batch of keys.
#[derive(Clone, Debug, Default)]
pub struct Found {
    records: Vec<Record>,
    answers: Vec<Answer>,
    errors: Vec<DirectoryError>,
}

#[derive(Clone, Debug)]
enum Answer {
    /// Where they are in `records`.
    Records(Range<u32>),
    /// The place of the reason in `errors`, if one is known.
    Unanswered(Option<usize>),
}

impl Found {
    /// Makes it ready for the answers to `keys` keys, none of which is answered yet.
    pub fn reset(&mut self, keys: usize) {
        self.records.clear();
        self.errors.clear();
        self.answers.clear();
        self.answers.resize(keys, Answer::Unanswered(None));
    }

    /// How many keys it is for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether it is for no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Answers key number `key` with these records, [`MAX_OWNERS`] at most; none of them: no owner
    /// is known. Records of another key are left out: no directory is trusted to have none.
    ///
    /// # Panics
    ///
    /// There is no such key.
    pub fn answer(&mut self, key: usize, tag: KeyTag, records: impl IntoIterator<Item = Record>) {
        let first = self.records.len();
        let mut room = MAX_OWNERS;
        for record in records {
            if room == 0 {
                break;
            }
            // Not `extend`: for the one record that a key most often has, that costs more.
            if record.tag == tag {
                self.records.push(record);
                room -= 1;
            }
        }
        self.answers[key] = Answer::Records(first as u32..self.records.len() as u32);
    }

    /// Says why the keys with these numbers are not answered.
    ///
    /// # Panics
    ///
    /// There is no such key.
    pub fn not_answered(&mut self, keys: impl IntoIterator<Item = usize>, why: DirectoryError) {
        for key in keys {
            self.answers[key] = Answer::Unanswered(Some(self.errors.len()));
        }
        self.errors.push(why);
    }

    /// The records of all keys.
    pub(crate) fn all_records(&self) -> &[Record] {
        &self.records
    }

    /// How many keys are not answered.
    pub(crate) fn unanswered(&self) -> usize {
        self.answers.iter().filter(|answer| matches!(answer, Answer::Unanswered(_))).count()
    }

    /// The owners' records of key number `key`; `Err` if it was not answered, with the reason if
    /// one is known.
    ///
    /// # Errors
    ///
    /// The directory, or a part of it, did not answer.
    ///
    /// # Panics
    ///
    /// There is no such key.
    pub fn records(&self, key: usize) -> Result<&[Record], Option<&DirectoryError>> {
        match &self.answers[key] {
            Answer::Records(range) => Ok(&self.records[range.start as usize..range.end as usize]),
            Answer::Unanswered(why) => Err(why.map(|at| &self.errors[at])),
        }
    }
}
