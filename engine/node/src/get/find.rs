//! Where pages are: in the own pools, by the cache of records, by the directory.

use std::sync::Arc;
use std::time::Instant;

use kvrail::PageLayout;
use kvrail_core::memory::Access;
use kvrail_core::table::KeyTag;
use kvrail_core::time::Time;
use kvrail_host::clock;

use super::counters::add;
use super::request::{LookUpRoom, Progress, Request};
use super::shared::Shared;
use crate::directory::{Directory, DirectoryError, Found, caught};
use crate::key::Key;
use crate::miss::{FoundIn, GetMiss};
use crate::pool::PagePool;
use crate::record::Record;

/// Takes what the own pools have, and the cached records of the rest. Counts the pages that are to
/// be read, and returns whether the directory is to be asked for some keys.
pub(crate) fn find_near(
    shared: &Shared,
    pools: &[(PageLayout, PagePool)],
    request: &mut Request,
    now: Time,
) -> bool {
    let (mut cached, mut uncached) = (0, 0);
    let Request { pages, records, misses, tally, .. } = request;
    records.reserve(pages.len());
    for page in pages {
        page.looked_up = false;
        let Some(destination) = page.destination.as_mut().filter(|to| to.home().node == shared.node) else {
            page.progress = Progress::Missed(misses.len() as u32);
            misses.push(GetMiss::Destination);
            continue;
        };
        if !pools.is_empty() && destination.home().access == Access::Host {
            let copied = pools.iter().any(|(layout, pool)| {
                layout == destination.layout()
                    && pool.local(Key(page.tag)).is_some_and(|bytes| destination.fill(&bytes))
            });
            if copied {
                page.progress = Progress::Hit(FoundIn::OwnPool);
                tally.own += 1;
                continue;
            }
        }
        if let Some(record) = shared.cache.get(page.tag, now) {
            let first = records.len() as u32;
            records.push(record);
            (page.next, page.behind) = (first, first + 1);
            page.found = FoundIn::Cache;
            page.progress = Progress::Wanted;
            cached += 1;
        } else {
            page.progress = Progress::LookUp;
            uncached += 1;
        }
    }
    request.unsettled = cached;
    if shared.cache.is_on() {
        shared.metrics.cached(cached.into(), uncached);
    }
    uncached > 0
}

/// Until when a directory may answer, on the clock of the standard library, which directories use.
/// It is given three quarters of the time that is left: where a part of it is silent, the pages of
/// which the others know are read in the rest.
pub(crate) fn patience(deadline: Time) -> Instant {
    let left = deadline.since(clock::now()).0;
    Instant::now() + std::time::Duration::from_nanos(left - left / 4)
}

/// Asks the directory for the keys that are to be looked up, all in one call.
pub(crate) fn look_up(shared: &Shared, request: &mut Request) {
    let mut room = std::mem::take(&mut request.look_up);
    room.tags.clear();
    room.pages.clear();
    for (number, page) in (0..).zip(&request.pages) {
        if page.progress == Progress::LookUp {
            room.tags.push(page.tag);
            room.pages.push(number);
        }
    }
    let began = clock::now();
    match &shared.directory {
        _ if room.tags.is_empty() => {}
        None => room.pages.iter().for_each(|&page| request.miss(page as usize, GetMiss::NotStored)),
        Some(_) if began >= request.deadline => {
            room.pages.iter().for_each(|&page| request.miss(page as usize, GetMiss::Deadline));
        }
        Some(directory) => {
            add(&shared.counters.look_ups, 1);
            add(&shared.counters.keys_looked_up, room.tags.len() as u64);
            let deadline = patience(request.deadline);
            ask(shared, &**directory, (&room.tags, deadline), &mut room.found);
            count_look_up(shared, &room, clock::now().since(began).0);
            learn_owners(shared, &mut room, deadline);
            take_answers(shared, request, &room);
        }
    }
    request.times.directory += clock::now().since(began).0;
    request.look_up = room;
    request.count_wanted();
}

/// Looks keys up, also in a directory that panics: that has not answered.
pub(crate) fn ask(
    shared: &Shared,
    directory: &dyn Directory,
    (tags, deadline): (&[KeyTag], Instant),
    found: &mut Found,
) {
    if let Err(panicked) = caught(directory, |directory| directory.look_up(tags, deadline, found)) {
        found.reset(tags.len());
        found.not_answered(0..tags.len(), count_panic(shared, panicked));
    }
}

fn count_panic(shared: &Shared, panicked: DirectoryError) -> DirectoryError {
    add(&shared.counters.directory_panics, 1);
    panicked
}

fn count_look_up(shared: &Shared, room: &LookUpRoom, nanos: u64) {
    // A directory that leaves answers out has not answered these.
    let left_out = room.tags.len().saturating_sub(room.found.len());
    let unanswered = room.found.unanswered() + left_out;
    shared.metrics.look_up(room.tags.len() as u64, unanswered as u64, nanos);
}

/// Learns where the owners are that the node does not know yet.
fn learn_owners(shared: &Shared, room: &mut LookUpRoom, deadline: Instant) {
    let LookUpRoom { found, unknown, .. } = room;
    unknown.clear();
    let (mut last, now) = (None, clock::now());
    for record in found.all_records() {
        if last == Some(record.owner) || unknown.contains(&record.owner) {
            continue;
        }
        last = Some(record.owner);
        if !shared.owners.knows(record.owner, now) {
            unknown.push(record.owner);
        }
    }
    if let (Some(directory), false) = (&shared.directory, unknown.is_empty()) {
        let owners = caught(&**directory, |directory| directory.owners(unknown, deadline));
        match owners.unwrap_or_else(|panicked| Err(count_panic(shared, panicked))) {
            // An answer for another owner than was asked for is no answer.
            Ok(owners) => (unknown.iter().zip(owners))
                .filter_map(|(&epoch, owner)| owner.filter(|owner| owner.epoch == epoch))
                .for_each(|owner| shared.owners.learn(owner)),
            Err(error) => tracing::debug!(%error, "the addresses of owners are not known"),
        }
    }
}

fn take_answers(shared: &Shared, request: &mut Request, room: &LookUpRoom) {
    let now = clock::now();
    for (key, &number) in room.pages.iter().enumerate() {
        let number = number as usize;
        // A directory that leaves answers out has not answered.
        let answer = if key < room.found.len() { room.found.records(key) } else { Err(None) };
        let records = match answer {
            Ok(records) => records,
            Err(why) => {
                request.miss(number, GetMiss::Directory(why.map(|why| Arc::new(why.clone()))));
                continue;
            }
        };
        let page = &mut request.pages[number];
        page.looked_up = true;
        let tag = page.tag;
        let first = request.records.len();
        // What the own pools have was taken from there.
        let own = shared
            .own
            .filter(|_| page.destination.as_ref().is_some_and(|to| to.home().access == Access::Host));
        // A record of another key would be read, and found right: no directory is trusted to have
        // none.
        let usable = |record: &Record| record.tag == tag && Some(record.owner) != own;
        match records {
            // Most keys have one owner.
            [one] if usable(one) => request.records.push(*one),
            _ => request.records.extend(records.iter().filter(|record| usable(record))),
        }
        let behind = request.records.len();
        if behind == first {
            request.miss(number, GetMiss::NoOwner);
            continue;
        }
        if behind > first + 1 {
            request.records[first..].sort_by_cached_key(|record| {
                let known = shared.owners.get(record.owner);
                let distance = known.map_or(u8::MAX, |known| known.distance(&shared.zone, now));
                (distance, spread(tag, record))
            });
        }
        request.want(number, (first as u32, behind as u32), FoundIn::Directory);
    }
}

/// Spreads keys over owners that are equally near: another order for each key.
const fn spread(tag: KeyTag, record: &Record) -> u64 {
    let mixed = (tag.0 as u64 ^ record.owner.0.get()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 32
}
