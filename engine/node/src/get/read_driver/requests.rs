//! The requests that a driver works on, and how their pages are settled.

use std::collections::VecDeque;
use std::sync::Arc;

use kvrail_core::time::Time;
use slotmap::{DefaultKey, SlotMap};

use crate::get::link::DriverLink;
use crate::get::request::{Progress, Request, Route};
use crate::get::shared::Shared;
use crate::miss::GetMiss;

/// A page of a request that the driver works on, or worked on: the name of a request that has left
/// is never used again.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageAt {
    pub(super) request: DefaultKey,
    pub(super) page: u32,
}

/// A page whose owner is connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) owner: u32,
    pub(super) at: PageAt,
}

/// Consecutive pages of a request that are to be read. Those that are not wanted are passed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) request: DefaultKey,
    pub(super) first: u32,
    pub(super) behind: u32,
}

/// Consecutive pages of a request that were sent as a batch of their own, to one owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) request: DefaultKey,
    pub(super) first: u32,
    pub(super) pages: u32,
    pub(super) owner: u32,
}

impl Row {
    /// The page at place `place` of the row.
    pub(super) const fn page(&self, place: usize) -> PageAt {
        PageAt { request: self.request, page: self.first + place as u32 }
    }
}

/// The requests, and the queue of pages to be read, in the order in which they came.
pub(super) struct Requests {
    pub(super) active: SlotMap<DefaultKey, Box<Request>>,
    pub(super) ready: VecDeque<Run>,
    /// No page's try and no request is given up before then.
    pub(super) next_timer: Time,
    link: Arc<DriverLink>,
    shared: Arc<Shared>,
}

impl Requests {
    pub(super) fn new(link: Arc<DriverLink>, shared: Arc<Shared>) -> Self {
        let (active, ready) = (SlotMap::with_capacity(256), VecDeque::with_capacity(1024));
        Self { active, ready, next_timer: Time::NEVER, link, shared }
    }

    /// Takes a request in: all of its wanted pages are to be read.
    pub(super) fn admit(&mut self, mut request: Box<Request>, now: Time) {
        request.times.taken = now;
        request.next_timer = request.deadline;
        self.next_timer = self.next_timer.min(request.deadline);
        let behind = request.pages.len() as u32;
        let request = self.active.insert(request);
        self.ready.push_back(Run { request, first: 0, behind });
    }

    /// Settles a page of which nothing writes any more: it is in its destination. Does nothing if
    /// its request has left.
    #[inline]
    pub(super) fn hit(&mut self, at: PageAt, bytes: u64, now: Time) {
        let Some(request) = self.active.get_mut(at.request) else { return };
        request.hit(at.page as usize, bytes, &self.shared.cache, now);
        if request.unsettled == 0 {
            self.complete(at.request);
        }
    }

    /// A try to read a page has failed, and nothing writes into its destination: goes on with the
    /// next owner, or settles it.
    #[cold]
    pub(super) fn missed(&mut self, at: PageAt, why: GetMiss, now: Time) {
        let Some(request) = self.active.get_mut(at.request) else { return };
        let page = &mut request.pages[at.page as usize];
        if page.is_settled() {
            return;
        }
        if why.disproves_record()
            && let Some(record) = request.records.get(page.next as usize)
        {
            self.shared.cache.remove(record);
        }
        page.next += 1;
        if page.next < page.behind && now < request.deadline {
            page.progress = Progress::Wanted;
            self.ready.push_back(Run { request: at.request, first: at.page, behind: at.page + 1 });
            return;
        }
        request.miss(at.page as usize, why);
        request.unsettled -= 1;
        if request.unsettled == 0 {
            self.complete(at.request);
        }
    }

    /// A page that waited is to be read now.
    pub(super) fn want_again(&mut self, at: PageAt) {
        let Some(request) = self.active.get_mut(at.request) else { return };
        request.pages[at.page as usize].progress = Progress::Wanted;
        self.ready.push_back(Run { request: at.request, first: at.page, behind: at.page + 1 });
    }

    /// Notes when the try of a page is given up.
    pub(super) fn timer(&mut self, give_up: Time) {
        self.next_timer = self.next_timer.min(give_up);
    }

    /// Sends a request on whose pages are all settled.
    pub(super) fn complete(&mut self, request: DefaultKey) {
        let Some(mut request) = self.active.remove(request) else { return };
        self.link.came_back(request.sent);
        let again = request.route == Route::LookUpThread && self.shared.directory.is_some();
        if again && request.renew_stale() {
            self.shared.count_stale(&request);
            self.shared.look_ups.send(request);
        } else {
            request.deliver();
        }
    }
}
