//! A batch of keys on its way through the node: what is known of each, and what has become of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::Thread;

use crossbeam_utils::atomic::AtomicCell;
use kvrail::session::Epoch;
use kvrail_core::table::KeyTag;
use kvrail_core::time::Time;

use super::cache::RecordCache;
use super::destination::Destination;
use crate::directory::Found;
use crate::miss::{FoundIn, GetMiss};
use crate::record::Record;

/// How far a key has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing is known of it.
    New,
    /// The directory is to be asked.
    LookUp,
    /// An owner is known, and the page is to be read.
    Wanted,
    /// The page waits for the connection to its owner.
    Connecting,
    /// READs of the page are under way.
    Reading,
    /// They were given up, and hardware may still write into the destination.
    Withdrawn,
    /// The page is in its destination.
    Hit(FoundIn),
    /// It is not, for the reason with this number in [`Request::misses`].
    Missed(u32),
}

/// A key of a request.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) tag: KeyTag,
    pub(crate) destination: Option<Destination>,
    /// When this try is given up for the next owner.
    pub(crate) give_up: Time,
    /// The records that are left to try, in [`Request::records`]; the first is being tried.
    pub(crate) next: u32,
    pub(crate) behind: u32,
    /// The number of the flight that reads it, and its place there.
    pub(crate) flight: (u32, u32),
    pub(crate) progress: Progress,
    /// Where the record came from.
    pub(crate) found: FoundIn,
    /// Whether it is the directory's latest word: no further look-up follows.
    pub(crate) looked_up: bool,
    /// Whether it belongs to the group of the key before.
    pub(crate) joined: bool,
}

impl Wanted {
    #[inline]
    const fn new(tag: KeyTag, destination: Option<Destination>, joined: bool) -> Self {
        Self {
            tag,
            destination,
            give_up: Time::NEVER,
            next: 0,
            behind: 0,
            flight: (0, 0),
            progress: Progress::New,
            found: FoundIn::Directory,
            looked_up: false,
            joined,
        }
    }

    pub(crate) const fn is_settled(&self) -> bool {
        matches!(self.progress, Progress::Hit(_) | Progress::Missed(_))
    }
}

/// Who goes on with a request when its reader has settled all keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The thread that waits for it.
    Caller,
    /// The look-up thread, if records were stale.
    LookUpThread,
}

/// A batch of keys, their destinations, and the results. It is owned by one thread at a time.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) pages: Vec<Wanted>,
    pub(crate) records: Vec<Record>,
    pub(crate) misses: Vec<GetMiss>,
    pub(crate) deadline: Time,
    /// Pages that are with the reader and not settled.
    pub(crate) unsettled: u32,
    /// How many there were when it was sent to the reader.
    pub(crate) sent: u32,
    /// No page's try is given up before then.
    pub(crate) next_timer: Time,
    pub(crate) route: Route,
    pub(crate) times: Times,
    pub(crate) tally: Tally,
    /// Whether some key belongs to the group of the key before.
    has_groups: bool,
    pub(crate) look_up: LookUpRoom,
    pub(crate) reply: Arc<Reply>,
}

/// The hits of a request so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) own: u32,
    pub(crate) cache: u32,
    pub(crate) directory: u32,
    /// Bytes of the pages that were read.
    pub(crate) bytes: u64,
}

impl Tally {
    pub(crate) const fn hits(&self) -> usize {
        self.own as usize + self.cache as usize + self.directory as usize
    }

    /// Counts a page that was read.
    #[inline]
    pub(crate) const fn read(&mut self, found: FoundIn, bytes: u64) {
        match found {
            FoundIn::OwnPool => self.own += 1,
            FoundIn::Cache => self.cache += 1,
            FoundIn::Directory => self.directory += 1,
        }
        self.bytes += bytes;
    }
}

/// Room for look-ups, which is used again.
#[derive(Debug, Default)]
pub(crate) struct LookUpRoom {
    pub(crate) tags: Vec<KeyTag>,
    /// The page of each tag.
    pub(crate) pages: Vec<u32>,
    pub(crate) found: Found,
    pub(crate) unknown: Vec<Epoch>,
}

/// Where the time of a request went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// When it went into the queue of a reader.
    pub(crate) queued: Time,
    /// When the reader took it.
    pub(crate) taken: Time,
    /// When the last owner that it waited for was connected.
    pub(crate) connected: Time,
    /// Nanoseconds in look-ups.
    pub(crate) directory: u64,
}

impl Request {
    pub(crate) fn new(keys: usize) -> Self {
        Self {
            pages: Vec::with_capacity(keys),
            records: Vec::with_capacity(keys),
            misses: Vec::new(),
            deadline: Time::ZERO,
            unsettled: 0,
            sent: 0,
            next_timer: Time::NEVER,
            route: Route::Caller,
            times: Times::default(),
            tally: Tally::default(),
            has_groups: false,
            look_up: LookUpRoom::default(),
            reply: Arc::default(),
        }
    }

    /// A request of `keys` keys that was lost to its caller: all are misses.
    pub(crate) fn lost(keys: usize, why: &GetMiss) -> Self {
        let mut request = Self::new(keys);
        for _ in 0..keys {
            request.pages.push(Wanted::new(KeyTag(0), None, false));
        }
        request.miss_rest(why);
        request
    }

    /// Adds a key.
    #[inline]
    pub(crate) fn push(&mut self, tag: KeyTag, destination: Destination, joined: bool) {
        self.has_groups |= joined;
        self.pages.push(Wanted::new(tag, Some(destination), joined));
    }

    /// Makes it ready for a new run. What is noted of its keys from the last one,
    /// [`find_near`](super::find::find_near) overwrites.
    pub(crate) fn begin(&mut self, deadline: Time) {
        self.records.clear();
        self.misses.clear();
        self.deadline = deadline;
        self.unsettled = 0;
        self.times = Times::default();
        self.tally = Tally::default();
    }

    /// Takes all keys out.
    pub(crate) fn clear(&mut self) {
        self.pages.clear();
        self.has_groups = false;
    }

    /// Settles a page that was read: it is in its destination.
    #[inline]
    pub(crate) fn hit(&mut self, page: usize, bytes: u64, cache: &RecordCache, now: Time) {
        let Some(page) = self.pages.get_mut(page) else { return };
        page.progress = Progress::Hit(page.found);
        self.tally.read(page.found, bytes);
        self.unsettled -= 1;
        if page.found == FoundIn::Directory
            && let Some(record) = self.records.get(page.next as usize)
        {
            cache.insert(record, now);
        }
    }

    /// Settles all pages of a row, which were read: they are in their destinations.
    pub(crate) fn hit_row(&mut self, first: usize, count: u32, bytes: u64, cache: &RecordCache, now: Time) {
        let Self { pages, records, tally, .. } = self;
        let Some(row) = pages.get_mut(first..first + count as usize) else { return };
        let mut cached = 0;
        for page in row {
            page.progress = Progress::Hit(page.found);
            if page.found == FoundIn::Cache {
                cached += 1;
            } else if let Some(record) = records.get(page.next as usize) {
                cache.insert(record, now);
            }
        }
        // Pages that the own pools have are not read.
        tally.cache += cached;
        tally.directory += count - cached;
        tally.bytes += bytes;
        self.unsettled -= count;
    }

    /// Settles a page as a miss.
    pub(crate) fn miss(&mut self, page: usize, why: GetMiss) {
        let number = self.misses.len() as u32;
        self.misses.push(why);
        self.pages[page].progress = Progress::Missed(number);
    }

    /// Settles every page that is not settled as a miss.
    pub(crate) fn miss_rest(&mut self, why: &GetMiss) {
        for page in 0..self.pages.len() {
            if !self.pages[page].is_settled() {
                self.miss(page, why.clone());
            }
        }
    }

    /// Gives the tries of a page the records in this range, which are the last of `records`.
    #[inline]
    pub(crate) fn want(&mut self, page: usize, records: (u32, u32), found: FoundIn) {
        let page = &mut self.pages[page];
        (page.next, page.behind) = records;
        page.found = found;
        page.progress = Progress::Wanted;
    }

    /// Makes every page whose cached record has failed ready for one look-up. Says whether there
    /// is one.
    pub(crate) fn renew_stale(&mut self) -> bool {
        let mut some = false;
        for page in &mut self.pages {
            let failed = matches!(page.progress, Progress::Missed(_));
            if failed && !page.looked_up && page.found == FoundIn::Cache && page.destination.is_some() {
                page.progress = Progress::LookUp;
                some = true;
            }
        }
        some
    }

    /// How many keys the directory is to be asked for.
    pub(crate) fn count_to_look_up(&self) -> u64 {
        self.pages.iter().filter(|page| page.progress == Progress::LookUp).count() as u64
    }

    /// Counts the pages that are to be read.
    pub(crate) fn count_wanted(&mut self) {
        let wanted = |page: &&Wanted| page.progress == Progress::Wanted;
        self.unsettled = self.pages.iter().filter(wanted).count() as u32;
    }

    /// Makes all pages of a group misses if one of them is.
    pub(crate) fn settle_groups(&mut self) {
        if !self.has_groups || self.tally.hits() == self.pages.len() {
            return;
        }
        let mut first = 0;
        while first < self.pages.len() {
            let joined = self.pages[first + 1..].iter().take_while(|page| page.joined).count();
            let group = first..first + 1 + joined;
            first = group.end;
            let hit = |page: &Wanted| matches!(page.progress, Progress::Hit(_));
            if joined == 0 || self.pages[group.clone()].iter().all(hit) {
                continue;
            }
            for page in group {
                if hit(&self.pages[page]) {
                    self.miss(page, GetMiss::Group);
                }
            }
        }
        self.tally = Tally::default();
        for page in &self.pages {
            match page.progress {
                Progress::Hit(FoundIn::OwnPool) => self.tally.own += 1,
                Progress::Hit(found) => {
                    let layout = page.destination.as_ref().map(Destination::layout);
                    self.tally.read(found, layout.map_or(0, |layout| layout.page_bytes().into()));
                }
                _ => {}
            }
        }
    }

    /// Gives it back to the thread that waits for it.
    pub(crate) fn deliver(self: Box<Self>) {
        let reply = Arc::clone(&self.reply);
        reply.give(self);
    }
}

/// Where a request comes back, and the thread that sleeps for it.
#[derive(Default)]
pub(crate) struct Reply {
    request: AtomicCell<Option<Box<Request>>>,
    waiter: AtomicCell<Option<Thread>>,
    /// The caller has gone: nothing is to come back.
    abandoned: AtomicBool,
}

const _: () = assert!(AtomicCell::<Option<Box<Request>>>::is_lock_free());
const _: () = assert!(AtomicCell::<Option<Thread>>::is_lock_free());

impl Reply {
    fn give(&self, request: Box<Request>) {
        self.request.store(Some(request));
        // Either this thread sees what the caller has said (`wake_me`, `abandon`), or the caller
        // sees the request.
        fence(Ordering::SeqCst);
        if self.abandoned.load(Ordering::Relaxed) {
            drop(self.take());
        }
        if let Some(waiter) = self.waiter.take() {
            waiter.unpark();
        }
    }

    /// The request, if it is back.
    pub(crate) fn take(&self) -> Option<Box<Request>> {
        self.request.take()
    }

    /// Has the calling thread woken when the request comes back. Look for it once more before
    /// sleeping.
    pub(crate) fn wake_me(&self) {
        self.waiter.store(Some(std::thread::current()));
        fence(Ordering::SeqCst);
    }

    /// The caller goes: when the request comes back its destinations are given back.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        drop(self.take());
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}
