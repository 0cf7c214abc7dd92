//! Requests whose later takers are told at once that there is nothing to take.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::super::types::{EndReason, RequestId};

/// Ended or rejected requests, each until a time. At most `max`: the oldest makes room.
#[derive(Debug, Default)]
pub(super) struct EndedRequests {
    by_request: BTreeMap<RequestId, (EndReason, Instant)>,
    by_time: BTreeSet<(Instant, RequestId)>,
}

impl EndedRequests {
    pub(super) fn insert(&mut self, request: RequestId, reason: EndReason, until: Instant, max: u32) {
        self.remove(request);
        self.by_request.insert(request, (reason, until));
        self.by_time.insert((until, request));
        while self.by_request.len() > max as usize
            && let Some(&(_, oldest)) = self.by_time.first()
        {
            self.remove(oldest);
        }
    }

    pub(super) fn remove(&mut self, request: RequestId) {
        if let Some((_, until)) = self.by_request.remove(&request) {
            self.by_time.remove(&(until, request));
        }
    }

    pub(super) fn reason(&self, request: RequestId) -> Option<EndReason> {
        self.by_request.get(&request).map(|&(reason, _)| reason)
    }

    pub(super) fn forget_until(&mut self, now: Instant) {
        while let Some(&(until, request)) = self.by_time.first()
            && until <= now
        {
            self.remove(request);
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.by_time.first().map(|&(until, _)| until)
    }

    pub(super) fn len(&self) -> usize {
        self.by_request.len()
    }
}
