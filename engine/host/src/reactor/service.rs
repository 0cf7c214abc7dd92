//! The reactor's thread.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::connection::Acceptor;
use super::id::ConnectionId;
use super::listening::{Listening, PER_TURN as ACCEPTS_PER_TURN};
use super::places::{Incoming, Made, NewConnection, Request, Shared};
use super::served::{Buffers, Served, Turn, Why};
use super::timers::Timers;
use crate::accept::{PAUSE, concerns_one_connection};
use crate::listener::Listener;
use crate::log_limit::LogLimit;
use crate::wake::poll_timeout;

/// Bounds of one round: how many events, requests and timers are taken, and how many connections
/// get a turn, before the others are looked at again.
const EVENTS: usize = 1024;
const REQUESTS: usize = 1024;
const TIMERS: usize = 1024;
const TURNS: usize = 256;
/// The event data of the descriptor that wakes the thread: the id of no connection.
const WAKE: u64 = u64::MAX;

/// What the thread owns.
pub(super) struct Service {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    /// By place.
    served: Vec<Option<Served>>,
    /// How many of `served` there are.
    count: usize,
    listening: Vec<Listening>,
    /// Connections with something to do, each once ([`Served::queued`]).
    queue: VecDeque<ConnectionId>,
    timers: Timers,
    buffers: Buffers,
    requests: Vec<Request>,
    /// Until when connections may finish, once the reactor stops.
    stop: Option<Instant>,
    log: LogLimit,
}

impl Service {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &shared.wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Self {
            shared,
            epoll,
            served: Vec::new(),
            count: 0,
            listening: Vec::new(),
            queue: VecDeque::new(),
            timers: Timers::default(),
            buffers: Buffers::new(),
            requests: Vec::with_capacity(REQUESTS),
            stop: None,
            log: LogLimit::new(),
        })
    }

    /// Serves all connections until the reactor stops.
    pub(super) fn run(&mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let mut more = self.take_requests();
            more |= self.run_timers();
            more |= self.accept();
            self.run_queue();
            if let Some(deadline) = self.stop {
                if self.count == 0 {
                    return;
                }
                if Instant::now() >= deadline {
                    return self.close_all();
                }
            }
            self.wait(more || !self.queue.is_empty(), &mut events);
        }
    }

    /// Waits for events; `at_once`: only looks for them.
    fn wait(&mut self, at_once: bool, events: &mut Vec<Event>) {
        let asleep = !at_once && self.shared.wake.prepare_sleep();
        let now = Instant::now();
        let until = if asleep { self.wakes_at() } else { Some(now) };
        let timeout = until.map(poll_timeout);
        let waited = epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref());
        if !at_once {
            self.shared.wake.finish_sleep();
        }
        match waited {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                if let Some(left_out) = self.log.allows() {
                    tracing::error!(%errno, left_out, "epoll_wait(2) fails: connections wait");
                }
                std::thread::sleep(PAUSE);
            }
        }
        for Event { flags, data } in events.drain(..) {
            let id = ConnectionId::from_data(data.u64());
            if let Some(served) = of(&mut self.served, id) {
                served.event(flags);
                if !std::mem::replace(&mut served.queued, true) {
                    self.queue.push_back(id);
                }
            } else if let Some(listening) = self.listening.iter_mut().find(|l| l.id == id) {
                listening.ready = true;
            }
        }
    }

    /// When the thread must wake at the latest.
    fn wakes_at(&self) -> Option<Instant> {
        let paused = self.listening.iter().filter_map(|listening| listening.paused);
        self.timers.first().into_iter().chain(paused).chain(self.stop).min()
    }

    /// Serves requests of other threads, and returns whether more of them wait.
    fn take_requests(&mut self) -> bool {
        let found = self.shared.take(&mut self.requests, REQUESTS);
        let mut requests = std::mem::take(&mut self.requests);
        for request in requests.drain(..) {
            match request {
                Request::Add(id, incoming) => match *incoming {
                    Incoming::Connection(new) => self.add(id, new),
                    Incoming::Listener(listener, acceptor) => self.listen(id, listener, acceptor),
                },
                Request::Notify(id) => self.turn(id, Why::Notified),
                Request::Close(id) => self.close(id),
            }
        }
        self.requests = requests;
        // The requests that were made before the stop come first.
        if let Some(deadline) = found.stop
            && !found.more
        {
            self.begin_stop(deadline);
        }
        found.more
    }

    /// Lets connections finish until `deadline`.
    fn begin_stop(&mut self, deadline: Instant) {
        if self.stop.is_some_and(|earlier| earlier <= deadline) {
            return;
        }
        self.stop = Some(deadline);
        for listening in std::mem::take(&mut self.listening) {
            self.end_listening(listening);
        }
        for place in 0..self.served.len() {
            let Some(served) = &mut self.served[place] else { continue };
            let id = served.id;
            if served.is_made() {
                served.finish(deadline);
                self.turn(id, Why::Ready);
            } else {
                self.close(id);
            }
        }
    }

    fn close_all(&mut self) {
        for place in 0..self.served.len() {
            if let Some(id) = self.served[place].as_ref().map(|served| served.id) {
                self.close(id);
            }
        }
    }

    fn add(&mut self, id: ConnectionId, new: NewConnection) {
        let failed = matches!(new.made, Made::Failed(_));
        let mut served = Served::new(id, new);
        // A socket that was refused at once would be reported before its error is.
        if !failed {
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            let data = EventData::new_u64(id.to_data());
            if let Err(errno) = epoll::add(&self.epoll, served.tcp(), data, flags) {
                served.fail(errno.into());
            }
        }
        let place = id.place as usize;
        if self.served.len() <= place {
            self.served.resize_with(place + 1, || None);
        }
        self.served[place] = Some(served);
        self.count += 1;
        self.turn(id, Why::Ready);
    }

    /// Gives a connection a turn.
    fn turn(&mut self, id: ConnectionId, why: Why) {
        let Some(served) = of(&mut self.served, id) else { return };
        let buffers = &mut self.buffers;
        let turn = AssertUnwindSafe(|| served.turn(why, Instant::now(), buffers));
        match catch_unwind(turn) {
            Ok(Turn::Stays { due, again }) => {
                self.timers.not_after(id.place, due);
                if again && !std::mem::replace(&mut served.queued, true) {
                    self.queue.push_back(id);
                }
            }
            Ok(Turn::Gone) => self.close(id),
            Err(panic) => {
                self.log_panic(&*panic);
                self.close(id);
            }
        }
    }

    /// Runs the timers that are due, and returns whether more of them may be.
    fn run_timers(&mut self) -> bool {
        let now = Instant::now();
        for _ in 0..TIMERS {
            let Some(place) = self.timers.pop(now) else { return false };
            if let Some(Some(served)) = self.served.get(place as usize) {
                self.turn(served.id, Why::Timer);
            }
        }
        true
    }

    /// Gives the first connections of the queue a turn each.
    fn run_queue(&mut self) {
        for _ in 0..self.queue.len().min(TURNS) {
            let Some(id) = self.queue.pop_front() else { return };
            if let Some(served) = of(&mut self.served, id) {
                served.queued = false;
                self.turn(id, Why::Ready);
            }
        }
    }

    /// Removes a connection or a listener: the socket is closed, and then the value is dropped.
    fn close(&mut self, id: ConnectionId) {
        if of(&mut self.served, id).is_some()
            && let Some(served) = self.served[id.place as usize].take()
        {
            self.count -= 1;
            self.timers.remove(id.place);
            // The epoll instance watches a socket until all descriptors of it are closed, and a
            // child of a fork or a second handle may have another one. The peer sees the end at
            // once for the same reason. Both calls fail if there was no connection.
            let _ = epoll::delete(&self.epoll, served.tcp());
            let _ = served.tcp().shutdown(Shutdown::Both);
            let connection = served.into_connection();
            self.drop_caught(connection);
            self.shared.release(id);
        } else if let Some(at) = self.listening.iter().position(|listening| listening.id == id) {
            let listening = self.listening.swap_remove(at);
            self.end_listening(listening);
        }
    }

    fn drop_caught<T>(&self, value: T) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
            self.log_panic(&*panic);
        }
    }

    fn log_panic(&self, panic: &(dyn Any + Send)) {
        if let Some(left_out) = self.log.allows() {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            let panic = text.unwrap_or("(no text)");
            tracing::error!(panic, left_out, "the code of a connection has panicked: it is closed");
        }
    }

    fn listen(&mut self, id: ConnectionId, listener: Listener, acceptor: Box<dyn Acceptor>) {
        let mut listening = Listening::new(id, listener, acceptor);
        if let Err(errno) = listening.watch(&self.epoll) {
            self.cannot_accept(&errno.into());
            listening.pause(&self.epoll, Instant::now() + PAUSE);
        }
        self.listening.push(listening);
    }

    fn end_listening(&self, listening: Listening) {
        listening.unwatch(&self.epoll);
        let id = listening.id;
        self.drop_caught(listening);
        self.shared.release(id);
    }

    /// Accepts connections, and returns whether more of them may wait.
    fn accept(&mut self) -> bool {
        for index in (0..self.listening.len()).rev() {
            self.listening[index].resume(&self.epoll, Instant::now());
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.listening[index].ready {
                    break;
                }
                if !self.accept_one(index) {
                    break;
                }
            }
        }
        self.listening.iter().any(|listening| listening.ready)
    }

    /// Accepts one connection of a listener that is ready. `false`: the listener is gone.
    fn accept_one(&mut self, index: usize) -> bool {
        let listening = &mut self.listening[index];
        let (tcp, peer) = match listening.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                listening.ready = false;
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                tracing::error!("a listener has ended by itself, and accepts no more connections");
                let listening = self.listening.swap_remove(index);
                self.end_listening(listening);
                return false;
            }
            Err(error) if concerns_one_connection(&error) => return true,
            Err(error) => {
                listening.pause(&self.epoll, Instant::now() + PAUSE);
                self.cannot_accept(&error);
                return true;
            }
        };
        let id = match self.shared.reserve() {
            Ok(id) => id,
            Err(error) => {
                self.cannot_accept(&error);
                return true;
            }
        };
        let asked = catch_unwind(AssertUnwindSafe(|| listening.ask(id, peer, &tcp)));
        match asked {
            Ok(Ok(Some(connection))) => {
                self.add(id, NewConnection { tcp, connection, made: Made::Yes });
                return true;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%peer, %error, "set-up of a connection"),
            Err(panic) => self.log_panic(&*panic),
        }
        // Fails if the peer has reset the connection.
        let _ = tcp.shutdown(Shutdown::Both);
        self.shared.release(id);
        true
    }

    fn cannot_accept(&self, error: &io::Error) {
        if let Some(left_out) = self.log.allows() {
            tracing::warn!(%error, left_out, "cannot accept; raise the limit (ulimit -n)");
        }
    }
}

/// The connection `id`, unless it is gone.
fn of(served: &mut [Option<Served>], id: ConnectionId) -> Option<&mut Served> {
    served.get_mut(id.place as usize)?.as_mut().filter(|served| served.id == id)
}
