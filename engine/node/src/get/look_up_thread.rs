//! A thread that looks keys up for the polled form of `get`.

use std::sync::Arc;

use crossbeam_utils::sync::Parker;

use super::find::look_up;
use super::link::DriverLinks;
use super::request::{Progress, Request};
use super::shared::Shared;

/// Takes requests until the node stops, as thread number `thread`.
pub(crate) fn run(shared: &Arc<Shared>, links: &Arc<DriverLinks>, thread: usize, parker: &Parker) {
    while !shared.look_ups.is_stopping() {
        match shared.look_ups.next() {
            Some(request) => look_up_and_send(shared, links, request),
            None => shared.look_ups.sleep(thread, parker),
        }
    }
    shared.look_ups.refuse_all();
}

/// Looks the keys of a request up, and sends it to a reader; or delivers it, if nothing of it is to
/// be read.
fn look_up_and_send(shared: &Shared, links: &DriverLinks, mut request: Box<Request>) {
    look_up(shared, &mut request);
    send(links, request);
}

/// Sends a request to a reader, or delivers it, if nothing of it is to be read.
pub(crate) fn send(links: &DriverLinks, mut request: Box<Request>) {
    if request.unsettled == 0 {
        return request.deliver();
    }
    debug_assert!(request.pages.iter().all(|page| page.is_settled() || page.progress == Progress::Wanted));
    request.times.queued = kvrail_host::clock::now();
    if let Err(request) = links.send(request) {
        request.deliver();
    }
}
