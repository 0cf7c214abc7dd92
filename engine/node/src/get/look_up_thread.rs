//! The threads that look keys up for the polled form of `get`.

use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use kvrail_core::time::Time;

use super::find::look_up;
use super::link::DriverLinks;
use super::look_up_link::Place;
use super::request::{Progress, Request};
use super::shared::Shared;
use crate::miss::GetMiss;

/// Starts the threads that are kept, and the one that watches whether more are needed. The last is
/// to be joined when the node has stopped; the others end after their last calls.
pub(crate) fn start(
    shared: &Arc<Shared>,
    links: &Arc<DriverLinks>,
    kept: usize,
    parker: crossbeam_utils::sync::Parker,
) -> io::Result<JoinHandle<()>> {
    for place in (0..kept).filter_map(|_| shared.look_ups.begin()) {
        start_one(shared, links, place)?;
    }
    let (shared, links) = (Arc::clone(shared), Arc::clone(links));
    Builder::new().name("kvrail-look-all".into()).spawn(move || {
        shared.look_ups.watch(&parker, |place| {
            if let Err(error) = start_one(&shared, &links, place) {
                tracing::warn!(%error, "no further thread for look-ups");
            }
        });
    })
}

/// Starts a thread, or gives its place back.
fn start_one(shared: &Arc<Shared>, links: &Arc<DriverLinks>, place: Place) -> io::Result<()> {
    let (of_thread, links) = (Arc::clone(shared), Arc::clone(links));
    let mut running = Running { shared: of_thread, place: Some(place) };
    let name = format!("kvrail-look-{}", running.place.as_ref().map_or(0, Place::number));
    Builder::new().name(name).spawn(move || running.run(&links)).map(drop)
}

/// A thread, or one that is about to be: when it ends, its place is another one's.
struct Running {
    shared: Arc<Shared>,
    place: Option<Place>,
}

impl Running {
    /// Takes requests until the node stops, or the thread is not needed any more.
    fn run(&mut self, links: &DriverLinks) {
        let shared = &self.shared;
        while !shared.look_ups.is_stopping() {
            if let Some(request) = shared.look_ups.next() {
                look_up_and_send(shared, links, request);
                continue;
            }
            let Some(place) = self.place.take_if(|place| !shared.look_ups.sleep(place)) else { continue };
            return shared.look_ups.give_back(place);
        }
        shared.look_ups.refuse_all(&GetMiss::Stopped);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.shared.look_ups.end(place);
        }
    }
}

/// Looks the keys of a request up, and sends it to a reader; or delivers it, if nothing of it is to
/// be read.
fn look_up_and_send(shared: &Shared, links: &DriverLinks, mut request: Box<Request>) {
    look_up(shared, &mut request);
    send(links, request, kvrail_host::clock::now());
}

/// Sends a request to a reader, or delivers it, if nothing of it is to be read.
pub(crate) fn send(links: &DriverLinks, mut request: Box<Request>, now: Time) {
    if request.unsettled == 0 {
        return request.deliver();
    }
    debug_assert!(request.pages.iter().all(|page| page.is_settled() || page.progress == Progress::Wanted));
    request.times.queued = now;
    if let Err(request) = links.send(request) {
        request.deliver();
    }
}
