//! Batches that are done, and pages that are given up.

use kvrail::{PageError, ReaderTransport, Slot};
use kvrail_core::batch::{Done, DonePage};
use kvrail_core::time::Time;

use super::ReadDriver;
use super::fill::reason;
use super::memory::Registered;
use super::requests::{PageAt, Row};
use crate::get::counters::add;
use crate::get::request::Progress;
use crate::miss::GetMiss;

impl<T: ReaderTransport> ReadDriver<T> {
    /// Takes in what has arrived. Returns whether something had.
    pub(super) fn take_landed(&mut self, now: Time) -> bool {
        let mut some = false;
        while let Some(arrival) = self.reader.next_arrival() {
            // A page whose slot cannot be taken yet is settled with its batch.
            let Some(slot) = self.reader.take_slot(&arrival) else { continue };
            let (at, owner) = self.flights.get(arrival.tag as u32).pages[arrival.page];
            self.landed(at, owner, slot, arrival.result, now);
            some = true;
        }
        while let Some(mut done) = self.reader.next_done() {
            let number = done.tag() as u32;
            some = true;
            if let Some(row) = self.flights.get(number).row {
                self.row_landed(row, &mut done, now);
                self.flights.end(number);
                continue;
            }
            // The pages are taken out while they are settled.
            let pages = std::mem::take(&mut self.flights.get(number).pages);
            for page in done.pages() {
                let (at, owner) = pages[page.index];
                self.landed(at, owner, page.slot, page.result, now);
            }
            self.flights.get(number).pages = pages;
            self.flights.end(number);
        }
        // The timers of requests do the same, and more.
        while self.reader.next_overdue().is_some() {
            some = true;
        }
        some
    }

    /// The pages of a row have their results, and nothing writes into their slots any more.
    fn row_landed(&mut self, row: Row, done: &mut Done<'static>, now: Time) {
        let Self { requests, memory, failures, owners, shared, .. } = self;
        // `None` if the request has left: then no thread waits for its pages.
        let mut request = requests.active.get_mut(row.request);
        let words = row.pages.div_ceil(64) as usize;
        let all_arrived = (0..words).all(|word| done.failed_bits(word) == 0);
        let (mut registered, mut arrived, mut all_bytes) = (None::<&mut Registered>, 0, 0);
        for DonePage { index, slot, result, .. } in done.pages() {
            let bytes = slot.len() as u64;
            if !registered.as_ref().is_some_and(|registered| registered.has(&slot)) {
                registered = memory.of_slot(&slot);
            }
            if let Some(registered) = &mut registered {
                registered.put(slot);
            }
            if !all_arrived {
                if let Err(error) = result {
                    failures.push((index, error));
                    continue;
                }
                if let Some(request) = &mut request {
                    request.hit(row.first as usize + index, bytes, &shared.cache, now);
                }
            }
            arrived += 1;
            all_bytes += bytes;
        }
        if all_arrived && let Some(request) = &mut request {
            request.hit_row(row.first as usize, arrived, all_bytes, &shared.cache, now);
        }
        if request.is_some_and(|request| request.unsettled == 0) {
            requests.complete(row.request);
        }
        let missed = failures.len() as u32;
        let entry = owners.get(row.owner);
        entry.in_flight -= arrived + missed;
        entry.count_row(arrived.into(), all_bytes, missed.into());
        while let Some((place, error)) = self.failures.pop() {
            self.failed(row.page(place), row.owner, error, now);
        }
    }

    /// A page has its result, and nothing writes into its slot any more.
    #[inline]
    fn landed(&mut self, at: PageAt, owner: u32, slot: Slot, result: Result<(), PageError>, now: Time) {
        let bytes = slot.len() as u64;
        self.memory.put(slot);
        let entry = self.owners.get(owner);
        entry.in_flight -= 1;
        entry.count(result.is_ok().then_some(bytes));
        match result {
            Ok(()) => self.requests.hit(at, bytes, now),
            Err(error) => self.failed(at, owner, error, now),
        }
    }

    #[cold]
    fn failed(&mut self, at: PageAt, owner: u32, error: PageError, now: Time) {
        if let PageError::Fault { rail, status, .. } = error {
            self.rails.page_failed(rail.into(), status);
            self.owners.get(owner).page_failed(status);
        }
        let Some(request) = self.requests.active.get(at.request) else { return };
        let page = &request.pages[at.page as usize];
        let Some(record) = request.records.get(page.next as usize) else { return };
        self.requests.missed(at, reason(error, record), now);
    }

    /// Gives up the tries whose time has passed, and the requests whose deadline has.
    #[cold]
    pub(super) fn give_up_late(&mut self, now: Time) {
        let due = self.requests.active.iter().filter(|(_, request)| request.next_timer <= now);
        let due: Vec<_> = due.map(|(request, _)| request).collect();
        for name in due {
            let Some(request) = self.requests.active.get_mut(name) else { continue };
            if request.deadline <= now {
                self.settle(name, &GetMiss::Deadline);
                continue;
            }
            let mut next = request.deadline;
            let mut unconnected = Vec::new();
            for (number, page) in (0..).zip(&mut request.pages) {
                match page.progress {
                    Progress::Reading | Progress::Connecting if page.give_up > now => {
                        next = next.min(page.give_up);
                    }
                    Progress::Reading => {
                        page.progress = Progress::Withdrawn;
                        let (flight, place) = page.flight;
                        if let Some(ticket) = self.flights.get(flight).ticket {
                            // If it is not in flight any more, it is about to be taken in.
                            let _ = self.reader.withdraw_page(ticket, place as usize);
                        }
                    }
                    Progress::Connecting => unconnected.push(number),
                    _ => {}
                }
            }
            request.next_timer = next;
            for page in unconnected {
                self.give_up_connecting(PageAt { request: name, page }, now);
            }
        }
        let timers = self.requests.active.values().map(|request| request.next_timer);
        self.requests.next_timer = timers.min().unwrap_or(Time::NEVER);
    }

    fn give_up_connecting(&mut self, at: PageAt, now: Time) {
        let Some(request) = self.requests.active.get(at.request) else { return };
        let page = &request.pages[at.page as usize];
        let Some(record) = request.records.get(page.next as usize) else { return };
        let why = "it was not connected within this try's part of the deadline".into();
        let miss = GetMiss::Unreachable { owner: record.owner, why };
        self.requests.missed(at, miss, now);
    }

    /// Settles every page of a request that is not settled. Destinations into which hardware may
    /// still write stay with their batches.
    pub(super) fn settle(&mut self, name: slotmap::DefaultKey, why: &GetMiss) {
        let Some(request) = self.requests.active.get_mut(name) else { return };
        let mut late = 0;
        for number in 0..request.pages.len() {
            let page = &mut request.pages[number];
            let why = match page.progress {
                _ if page.is_settled() => continue,
                Progress::Reading | Progress::Withdrawn => {
                    let (flight, place) = page.flight;
                    let flight = self.flights.get(flight);
                    flight.late.extend(page.destination.take());
                    if let Some(ticket) = flight.ticket {
                        let _ = self.reader.withdraw_page(ticket, place as usize);
                    }
                    late += 1;
                    why.clone()
                }
                Progress::Connecting if matches!(why, GetMiss::Deadline) => {
                    let owner = request.records.get(page.next as usize).map(|record| record.owner);
                    let why = "it was not connected before the deadline".into();
                    owner.map_or(GetMiss::Deadline, |owner| GetMiss::Unreachable { owner, why })
                }
                _ => why.clone(),
            };
            request.miss(number, why);
        }
        add(&self.shared.counters.late, late);
        request.unsettled = 0;
        self.requests.complete(name);
    }

    /// Settles all requests.
    pub(super) fn settle_all(&mut self, why: &GetMiss) {
        let all: Vec<_> = self.requests.active.keys().collect();
        all.into_iter().for_each(|request| self.settle(request, why));
    }
}
