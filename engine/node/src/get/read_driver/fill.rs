//! How pages that are to be read are put into batches.
//!
//! Pages are taken in the order in which their requests came, some at a time, and grouped by their
//! owners. An owner with enough of them gets a batch of its own, which costs the engine the least.
//! Pages of owners with few are joined in one batch, which reports each page by itself, so that no
//! owner's page waits for that of another.

use kvrail::{BlockError, PageError, ReaderTransport};
use kvrail_core::error::SubmitError;
use kvrail_core::remote::RemotePage;
use kvrail_core::time::{Nanos, Time};

use super::ReadDriver;
use super::owner_table::{OwnerPool, is_beyond};
use super::requests::{PageAt, Placed};
use crate::get::request::{Progress, Wanted};
use crate::miss::{FoundIn, GetMiss};
use crate::record::Record;

/// Room that one turn needs: batches of one owner each, and one that is joined.
const ROOM: usize = 4;

impl<T: ReaderTransport> ReadDriver<T> {
    /// Sends batches while there are pages to be read and places for batches. Returns whether one
    /// was sent.
    pub(super) fn fill(&mut self, now: Time) -> bool {
        let mut sent = false;
        while !self.requests.ready.is_empty() && self.flights.room() >= ROOM {
            if self.send_row(now) {
                sent = true;
                continue;
            }
            let one_owner = self.gather(now);
            let mut window = std::mem::take(&mut self.window);
            if !one_owner {
                window.sort_by_key(|placed| placed.owner);
            }
            let mut joined = 0;
            // Pages of owners with few are moved to the front, where they stay in order.
            let mut at = 0;
            while at < window.len() {
                let owner = window[at].owner;
                let row = window[at..].iter().take_while(|placed| placed.owner == owner).count();
                if one_owner || row >= self.shared.batch_pages / 2 {
                    self.send(&window[at..at + row], false, now);
                } else {
                    window.copy_within(at..at + row, joined);
                    joined += row;
                }
                at += row;
            }
            if joined > 0 {
                let mixed = window[..joined].iter().any(|placed| placed.owner != window[0].owner);
                self.send(&window[..joined], mixed, now);
            }
            sent |= !window.is_empty();
            window.clear();
            self.window = window;
        }
        sent
    }

    /// Takes pages whose owners are connected from the queue, and returns whether all have one
    /// owner. Pages of other owners wait for a connection from now on.
    fn gather(&mut self, now: Time) -> bool {
        let (enough, most) = (self.shared.batch_pages, 2 * self.shared.batch_pages);
        let (mut first, mut one_owner) = (None, true);
        while self.window.len() < enough {
            let Some(&run) = self.requests.ready.front() else { break };
            let mut next = run.first;
            if let Some(request) = self.requests.active.get_mut(run.request) {
                let (deadline, records) = (request.deadline, &request.records);
                let pages = &mut request.pages[..run.behind as usize];
                while let Some(page) = pages.get_mut(next as usize)
                    && self.window.len() < most
                {
                    let at = PageAt { request: run.request, page: next };
                    next += 1;
                    if page.progress != Progress::Wanted {
                        continue;
                    }
                    page.give_up = give_up(page, now, deadline);
                    let Some(record) = records.get(page.next as usize) else { continue };
                    let owner = self.owners.number_of(record.owner);
                    match owner {
                        Some(owner) if self.owners.get(owner).is_connected() => {
                            one_owner &= *first.get_or_insert(owner) == owner;
                            self.window.push(Placed { owner, at });
                        }
                        _ => self.unconnected.push((at, record.owner)),
                    }
                }
            } else {
                next = run.behind;
            }
            match self.requests.ready.front_mut() {
                Some(run) if next < run.behind => run.first = next,
                _ => drop(self.requests.ready.pop_front()),
            }
            if !self.unconnected.is_empty() {
                for (at, epoch) in std::mem::take(&mut self.unconnected) {
                    self.connect_for(at, epoch, now);
                }
            }
        }
        one_owner
    }

    /// Sends a batch of READs.
    fn send(&mut self, pages: &[Placed], mixed: bool, now: Time) {
        let (Some(mut batch), Some(number)) = (self.reader.batch(), self.flights.claim()) else {
            // There is room, by the caller. Should there be none, the pages come again.
            debug_assert!(false, "a batch for each place");
            return pages.iter().for_each(|placed| self.requests.want_again(placed.at));
        };
        batch.set_tag(number.into());
        if mixed {
            batch.report_pages();
        }
        let flight = self.flights.get(number);
        let (mut last, mut next_timer) = (Time::ZERO, Time::NEVER);
        for &Placed { owner, at } in pages {
            let Some(request) = self.requests.active.get_mut(at.request) else { continue };
            let page = &mut request.pages[at.page as usize];
            let Some(record) = request.records.get(page.next as usize) else { continue };
            let entry = self.owners.get(owner);
            let refused = match (entry.pool(record.pool), &page.destination) {
                (Some(pool), Some(destination)) => match located(pool, record, self.shared.unvalidated) {
                    Ok(remote) => match self.memory.take(destination) {
                        Some((slot, layout)) if layout == pool.layout => match batch.read(remote, slot) {
                            Ok(()) => {
                                page.progress = Progress::Reading;
                                page.flight = (number, flight.pages.len() as u32);
                                last = last.max(page.give_up);
                                next_timer = next_timer.min(page.give_up);
                                request.next_timer = request.next_timer.min(page.give_up);
                                flight.pages.push((at, owner));
                                entry.in_flight += 1;
                                entry.last_used = now;
                                continue;
                            }
                            Err((_, slot)) => {
                                self.memory.put(slot);
                                GetMiss::Layout { pool: record.pool }
                            }
                        },
                        Some((slot, _)) => {
                            self.memory.put(slot);
                            GetMiss::Layout { pool: record.pool }
                        }
                        None => GetMiss::Destination,
                    },
                    Err(error) if is_beyond(&error) => {
                        GetMiss::NoSlot { pool: record.pool, slot: record.slot }
                    }
                    Err(_) => GetMiss::NoPool { pool: record.pool },
                },
                (None, _) => GetMiss::NoPool { pool: record.pool },
                (_, None) => GetMiss::Destination,
            };
            self.refused.push((at, refused));
        }
        if batch.is_empty() {
            self.flights.end(number);
        } else {
            self.requests.timer(next_timer);
            match self.reader.submit(batch, last) {
                Ok(ticket) => self.flights.get(number).ticket = Some(ticket),
                Err(rejected) => self.rejected(number, rejected),
            }
        }
        self.settle_refused(now);
    }

    /// Settles the pages of a batch that was not sent.
    pub(super) fn settle_refused(&mut self, now: Time) {
        while let Some((at, why)) = self.refused.pop() {
            self.requests.missed(at, why, now);
        }
    }

    /// A batch was refused as a whole: its slots go back, and its pages to the next owner.
    #[cold]
    pub(super) fn rejected(&mut self, number: u32, mut rejected: kvrail_core::engine::Rejected<'static>) {
        for slot in rejected.batch.clear() {
            self.memory.put(slot);
        }
        let flight = self.flights.get(number);
        let mut pages = std::mem::take(&mut flight.pages);
        if let Some(row) = flight.row {
            pages.extend((0..row.pages as usize).map(|place| (row.page(place), row.owner)));
        }
        self.flights.end(number);
        for (at, owner) in pages {
            let entry = self.owners.get(owner);
            entry.in_flight -= 1;
            let why = match rejected.error {
                SubmitError::DeadlinePassed { .. } => GetMiss::Deadline,
                _ => GetMiss::OwnerLost { owner: entry.epoch },
            };
            self.refused.push((at, why));
        }
    }
}

/// The page that a record names, to be read with its entry; without it for tests.
#[inline]
pub(super) fn located(
    pool: &OwnerPool,
    record: &Record,
    unvalidated: bool,
) -> Result<RemotePage, BlockError> {
    if unvalidated { pool.pool.unvalidated(record.slot) } else { pool.pool.page(record.location()) }
}

/// When the try of a page is given up: of the time that is left, the tries that are left get equal
/// parts. A cached record has one more try, after the directory was asked.
#[inline]
fn give_up(page: &Wanted, now: Time, deadline: Time) -> Time {
    share(tries(page), now, deadline)
}

/// How many tries of a page are left.
#[inline]
pub(super) const fn tries(page: &Wanted) -> u32 {
    let again = matches!(page.found, FoundIn::Cache) && !page.looked_up;
    page.behind - page.next + again as u32
}

/// The end of the first of so many tries.
#[inline]
pub(super) fn share(tries: u32, now: Time, deadline: Time) -> Time {
    match tries {
        0 | 1 => deadline,
        2 => now + Nanos(deadline.since(now).0 / 2),
        tries => now + Nanos(deadline.since(now).0 / u64::from(tries)),
    }
}

/// The reason of a page that did not arrive.
#[cold]
pub(super) fn reason(error: PageError, record: &Record) -> GetMiss {
    match error {
        PageError::Miss(miss) => GetMiss::Stale(miss),
        PageError::PeerGone => GetMiss::OwnerLost { owner: record.owner },
        PageError::PoolGone => GetMiss::NoPool { pool: record.pool },
        PageError::Deadline { .. } | PageError::NoLane { .. } | PageError::Withdrawn => GetMiss::Deadline,
        error => GetMiss::Read(error),
    }
}
