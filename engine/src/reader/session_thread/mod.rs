//! One thread for each session, and one for each lane that is being made. Everything that blocks
//! happens on these threads.
//!
//! Lanes of one rail are made one after the other, those of different rails side by side, so that a
//! slow rail delays no other. The session's thread itself never waits for a transport, and goes on
//! telling the producer that this side lives.

mod messages;
mod run;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

use kvrail_core::events::LaneWanted;
use kvrail_core::provider::Wake;
use kvrail_host::wake::EventFd;
use kvrail_session::{LaneDialer, LaneNumber};

pub(super) use self::messages::{Agreed, ConnectRequest, Mailbox, SessionEvent, SessionFailure};
use self::messages::{Order, OrderSender};
use self::run::run;

/// A session's thread, as the reader sees it. Dropping it ends the session.
pub(crate) struct SessionThread<D: LaneDialer> {
    /// `None`: the thread has been told to end.
    orders: Option<OrderSender<D>>,
    thread: Option<JoinHandle<()>>,
}

impl<D> SessionThread<D>
where
    D: LaneDialer + Send + 'static,
    D::UnopenedLane: Send + 'static,
{
    /// Starts the thread, with one dialer more than there are rails.
    pub(crate) fn start(
        request: ConnectRequest,
        dialers: Vec<D>,
        mailbox: Arc<Mailbox<D::UnopenedLane>>,
        waker: impl Wake + 'static,
    ) -> io::Result<Self> {
        let (orders, inbox) = channel();
        let wake = EventFd::new()?;
        let orders = OrderSender::new(orders, wake);
        let own = orders.clone();
        let number = request.number;
        let thread = std::thread::Builder::new().name(thread_name(number)).spawn(move || {
            let report = |event| {
                mailbox.post(number, event);
                waker.wake();
            };
            run(request, dialers, &inbox, &own, report);
        })?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }
}

impl<D: LaneDialer> SessionThread<D> {
    /// Asks for a lane. An event answers: the lane's, or the session's end.
    pub(crate) fn request_lane(&self, lane: LaneWanted) {
        self.order(Order::Lane(lane));
    }

    /// Tells the producer to free its end of this lane.
    pub(crate) fn release(&self, lane: LaneNumber) {
        self.order(Order::Release(lane));
    }

    fn order(&self, order: Order<D>) {
        if let Some(orders) = &self.orders {
            orders.send(order);
        }
    }

    /// Tells the thread to end. It ends at once, unless it is connecting.
    pub(crate) fn hang_up(&mut self) {
        if let Some(orders) = self.orders.take() {
            orders.send(Order::HangUp);
        }
    }

    /// Waits for the thread until `deadline`, and returns whether it has ended.
    pub(crate) fn join(&mut self, deadline: Instant) -> bool {
        self.hang_up();
        while let Some(thread) = &self.thread {
            if thread.is_finished() {
                // It has nothing to return, and a panic has been printed.
                let _ = self.thread.take().map(JoinHandle::join);
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }
}

impl<D: LaneDialer> Drop for SessionThread<D> {
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl<D: LaneDialer> fmt::Debug for SessionThread<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionThread").field("open", &self.orders.is_some()).finish_non_exhaustive()
    }
}

/// The name of the thread of session `number`. Linux keeps 15 bytes, so it has the last seven
/// digits.
fn thread_name(number: u64) -> String {
    format!("kvrail-s{}", number % 10_000_000)
}

#[cfg(test)]
mod tests {
    use super::thread_name;

    #[test]
    fn linux_keeps_the_whole_name_of_a_session_thread() {
        assert_eq!(thread_name(42), "kvrail-s42");
        assert!(thread_name(u64::MAX).len() <= 15);
        assert_ne!(thread_name(9_999_998), thread_name(9_999_999));
    }
}
