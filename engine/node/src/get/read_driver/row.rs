//! Batches of pages that stand in a row: of one request and one owner. Most requests are such, and
//! what is the same for all of their pages is looked up once.

use kvrail::ReaderTransport;
use kvrail_core::time::Time;

use super::ReadDriver;
use super::fill::{located, share, tries};
use super::memory::Registered;
use super::requests::Row;
use crate::get::request::Progress;

impl<T: ReaderTransport> ReadDriver<T> {
    /// Sends the pages at the head of the queue as a batch of their own, if enough of them stand in
    /// a row and their owner is connected. Returns whether it did. A page with which something is
    /// wrong ends the row: it is left for [`fill`](Self::fill), which knows the reasons.
    pub(super) fn send_row(&mut self, now: Time) -> bool {
        let Self { requests, owners, flights, memory, reader, shared, .. } = self;
        let Some(&run) = requests.ready.front() else { return false };
        let Some(request) = requests.active.get_mut(run.request) else { return false };
        let (deadline, records) = (request.deadline, &request.records);
        let pages = &mut request.pages[run.first as usize..run.behind as usize];
        let Some(head) = pages.first().and_then(|page| records.get(page.next as usize)) else { return false };
        let most = pages.len().min(2 * shared.batch_pages);
        let row = pages[..most].iter().take_while(|page| {
            page.progress == Progress::Wanted
                && records
                    .get(page.next as usize)
                    .is_some_and(|record| record.owner == head.owner && record.pool == head.pool)
        });
        let row = row.count();
        if row < shared.batch_pages / 2 {
            return false;
        }
        let Some(owner) = owners.number_of(head.owner) else { return false };
        let entry = owners.get(owner);
        if !entry.is_connected() {
            return false;
        }
        let Some(pool) = entry.pool(head.pool) else { return false };
        let Some(mut batch) = reader.batch() else { return false };
        let Some(number) = flights.claim() else { return false };
        batch.set_tag(number.into());
        let (mut registered, mut sent) = (None::<&mut Registered>, 0);
        let (mut tries_left, mut give_up) = (0, deadline);
        let unvalidated = shared.unvalidated;
        let (mut last, mut next_timer) = (Time::ZERO, Time::NEVER);
        for page in &mut pages[..row] {
            let Some(destination) = &page.destination else { break };
            let Some(record) = records.get(page.next as usize) else { break };
            let Ok(remote) = located(pool, record, unvalidated) else { break };
            if !registered.as_ref().is_some_and(|registered| registered.is_of(destination)) {
                registered = memory.of(destination).filter(|of| of.layout == pool.layout);
            }
            let Some(registered) = registered.as_mut() else { break };
            let Some(slot) = registered.take(destination) else { break };
            if let Err((_, slot)) = batch.read(remote, slot) {
                registered.put(slot);
                break;
            }
            let tries = tries(page);
            if tries != tries_left {
                (tries_left, give_up) = (tries, share(tries, now, deadline));
                (last, next_timer) = (last.max(give_up), next_timer.min(give_up));
            }
            page.give_up = give_up;
            page.progress = Progress::Reading;
            page.flight = (number, sent);
            sent += 1;
        }
        if sent == 0 {
            flights.end(number);
            return false;
        }
        entry.in_flight += sent;
        entry.last_used = now;
        request.next_timer = request.next_timer.min(next_timer);
        requests.timer(next_timer);
        let first = run.first + sent;
        match requests.ready.front_mut() {
            Some(run) if first < run.behind => run.first = first,
            _ => drop(requests.ready.pop_front()),
        }
        flights.get(number).row = Some(Row { request: run.request, first: run.first, pages: sent, owner });
        match reader.submit(batch, last) {
            Ok(ticket) => flights.get(number).ticket = Some(ticket),
            Err(rejected) => {
                self.rejected(number, rejected);
                self.settle_refused(now);
            }
        }
        true
    }
}
