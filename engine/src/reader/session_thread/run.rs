//! The work of a session's thread: it makes lanes, each on a thread of its own, and reports the
//! results.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use kvrail_core::events::LaneWanted;
use kvrail_core::id::RailIndex;
use kvrail_host::wake::{EventFd, poll_timeout};
use kvrail_session::{
    Attached, LaneBlob, LaneDialer, LaneNumber, NothingInCommon, RailDescription, RailPair, Session,
    SessionError, SessionLaneError, connect,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::messages::{Agreed, ConnectRequest, Order, OrderSender, SessionEvent, SessionFailure};

/// How long the making of one lane may take.
const LANE_PATIENCE: Duration = Duration::from_secs(5);
/// How long connecting waits for other first lanes once one has been made. A later lane is taken
/// into use when it comes.
const SETTLE: Duration = Duration::from_secs(1);
/// First lanes of a rail that fail in a row before the path is given up.
const GIVE_UP: usize = 2;

/// Runs a session until it ends or the reader hangs up.
pub(super) fn run<D>(
    request: ConnectRequest,
    dialers: Vec<D>,
    inbox: &Receiver<Order<D>>,
    orders: &OrderSender<D>,
    report: impl Fn(SessionEvent<D::UnopenedLane>),
) where
    D: LaneDialer + Send + 'static,
    D::UnopenedLane: Send + 'static,
{
    let session = match connect(&request.address, &request.key, request.hello, request.deadline) {
        Ok(session) => session,
        Err(error) => return report(SessionEvent::Failed(SessionFailure::Session(Arc::new(error)))),
    };
    let mut this = match SessionState::new(request, session, dialers, orders) {
        Ok(this) => this,
        Err(error) => return report(SessionEvent::Failed(error.into())),
    };
    loop {
        loop {
            match inbox.try_recv() {
                Ok(Order::HangUp) | Err(TryRecvError::Disconnected) => return,
                Ok(order) => this.carry_out(order, &report),
                Err(TryRecvError::Empty) => break,
            }
        }
        while let Some((number, result)) = this.session.next_answer() {
            this.pass_on(number, result);
        }
        if let Some(why) = this.session.closed().map(Arc::clone) {
            return report(this.ended(why));
        }
        this.expire(&report);
        this.report_session(&report);
        if let Err(errno) = sleep(&this.session, &orders.wake, this.due()) {
            tracing::error!(%errno, "a session cannot be watched any more, and is ended");
            let why = SessionError {
                peer: this.request.address.to_string(),
                step: kvrail_session::Step::Idle,
                cause: kvrail_session::Cause::Io(errno.into()),
            };
            return report(this.ended(Arc::new(why)));
        }
    }
}

/// The state of a session's thread.
struct SessionState<'a, D: LaneDialer> {
    request: ConnectRequest,
    session: Session,
    orders: &'a OrderSender<D>,
    /// Pairs rails, while the other dialers make lanes.
    pairer: D,
    rails: Vec<Rail<D>>,
    /// Results of the first lanes, until the reader is told of them.
    first: Option<Vec<Result<Attached<D::UnopenedLane>, SessionLaneError>>>,
    /// When the first of them was made.
    since: Option<Instant>,
}

/// A rail of the reader, as this session sees it.
struct Rail<D: LaneDialer> {
    /// `None` while a thread makes a lane with it.
    dialer: Option<D>,
    making: Option<Making>,
    wanted: VecDeque<(LaneWanted, Instant)>,
    /// Its first lanes; `None` for a rail that has no counterpart.
    path: Option<Path>,
}

/// The first lanes of a rail.
struct Path {
    /// The producer's rail that they lead to.
    remote: RailIndex,
    /// The producer's rails that were tried, `remote` included.
    tried: Vec<RailIndex>,
    /// Lanes that have not been begun.
    left: usize,
    made: usize,
    failed_in_a_row: usize,
}

/// A lane that is being made by a thread of its own.
struct Making {
    pair: RailPair,
    /// The engine's request; `None`: it is one of the first lanes.
    wanted: Option<LaneWanted>,
    number: Option<LaneNumber>,
    /// Sends the producer's end to that thread.
    answer: Sender<Result<LaneBlob, SessionLaneError>>,
    until: Instant,
    /// The lane has not come in time, and has been counted as a failure.
    late: bool,
}

impl<'a, D> SessionState<'a, D>
where
    D: LaneDialer + Send + 'static,
    D::UnopenedLane: Send + 'static,
{
    fn new(
        request: ConnectRequest,
        session: Session,
        dialers: Vec<D>,
        orders: &'a OrderSender<D>,
    ) -> Result<Self, NothingInCommon> {
        let mut dialers = dialers.into_iter();
        let none = || NothingInCommon::between(&[], &session.offer().rails);
        let pairer = dialers.next().ok_or_else(none)?;
        let pairs = pairer.pair(&session.offer().rails)?;
        let left = request.lanes_per_rail;
        let rails = dialers.enumerate().map(|(rail, dialer)| {
            let pair = pairs.iter().find(|pair| pair.rail.get() == rail);
            let path = pair.map(|&RailPair { remote_rail: remote, .. }| Path {
                remote,
                tried: vec![remote],
                left,
                made: 0,
                failed_in_a_row: 0,
            });
            Rail { dialer: Some(dialer), making: None, wanted: VecDeque::new(), path }
        });
        let rails = rails.collect();
        let mut this = Self { request, session, orders, pairer, rails, first: Some(Vec::new()), since: None };
        (0..this.rails.len()).for_each(|rail| this.begin_next_lane(rail));
        Ok(this)
    }

    /// Carries out one order.
    fn carry_out(&mut self, order: Order<D>, report: &impl Fn(SessionEvent<D::UnopenedLane>)) {
        match order {
            Order::HangUp => {}
            Order::Lane(wanted) => match self.rails.get_mut(wanted.rail.get()) {
                Some(rail) => {
                    rail.wanted.push_back((wanted, Instant::now() + LANE_PATIENCE));
                    self.begin_next_lane(wanted.rail.get());
                }
                None => {
                    let (remote_rail, rails) = (wanted.rail, self.rails.len());
                    report(SessionEvent::Lane(
                        wanted,
                        Err(SessionLaneError::NoSuchRail { remote_rail, rails }),
                    ));
                }
            },
            // If the session has ended, all its lanes are given back already.
            Order::Release(lane) => drop(self.session.release(&[lane])),
            Order::Prepared(rail, blob) => {
                let Some(making) = self.rails.get_mut(rail).and_then(|r| r.making.as_mut()) else { return };
                if making.late {
                    // The thread ends when it receives this.
                    let _ = making.answer.send(Err(SessionLaneError::Late));
                    return;
                }
                match self.session.ask(making.pair, blob, making.until) {
                    Ok(number) => making.number = Some(number),
                    Err(error) => drop(making.answer.send(Err(error))),
                }
            }
            Order::Made(rail, dialer, result) => self.made(rail, dialer, result, report),
        }
    }

    /// Begins the next lane of a rail that has one to make and is making none.
    fn begin_next_lane(&mut self, at: usize) {
        let rail = &mut self.rails[at];
        if rail.making.is_some() || rail.dialer.is_none() {
            return;
        }
        // At most 16 rails.
        let index = RailIndex(at as u8);
        let first = rail.path.as_mut().filter(|path| path.left > 0);
        let (remote_rail, wanted, until) = if let Some(path) = first {
            path.left -= 1;
            (path.remote, None, Instant::now() + LANE_PATIENCE)
        } else if let Some((wanted, until)) = rail.wanted.pop_front() {
            (RailIndex(wanted.remote_rail), Some(wanted), until)
        } else {
            return;
        };
        let pair = RailPair { rail: index, remote_rail };
        let (answer, answered) = channel();
        rail.making = Some(Making { pair, wanted, number: None, answer, until, late: false });
        let Some(dialer) = rail.dialer.take() else { return };
        let remote = self.session.offer().rails.get(remote_rail.get()).copied();
        let rails = self.session.offer().rails.len();
        let orders = self.orders.clone();
        let dial = move || {
            dial(
                dialer,
                at,
                pair,
                remote.ok_or(SessionLaneError::NoSuchRail { remote_rail, rails }),
                &orders,
                &answered,
            )
        };
        let spawned = std::thread::Builder::new().name(format!("kvrail-dial-{at}")).spawn(dial);
        if let Err(error) = spawned {
            // The dialer went with the closure: the rail makes no more lanes to this peer. The lane
            // that was begun fails when its time is over.
            tracing::error!(rail = at, %error, "no thread to make a lane");
        }
    }

    /// Passes the producer's end of a lane, or the reason why the producer made none, to the thread
    /// that waits for it.
    fn pass_on(&mut self, number: LaneNumber, result: Result<LaneBlob, SessionLaneError>) {
        let mut all = self.rails.iter_mut().filter_map(|rail| rail.making.as_mut());
        let making = all.find(|making| making.number == Some(number));
        let Some(making) = making else {
            return self.give_back(number, result.is_ok());
        };
        if making.answer.send(result.clone()).is_err() {
            self.give_back(number, result.is_ok());
        }
    }

    /// Has the producer free its end of a lane, if it has made one.
    fn give_back(&mut self, number: LaneNumber, made: bool) {
        if made {
            // If the session has ended, its lanes have ended with it.
            let _ = self.session.release(&[number]);
        }
    }

    /// Takes a thread's result, and its dialer.
    fn made(
        &mut self,
        at: usize,
        dialer: D,
        result: Result<D::UnopenedLane, SessionLaneError>,
        report: &impl Fn(SessionEvent<D::UnopenedLane>),
    ) {
        let Some(rail) = self.rails.get_mut(at) else { return };
        rail.dialer = Some(dialer);
        let Some(Making { pair, wanted, number, late, .. }) = rail.making.take() else { return };
        let result = match (result, number) {
            (Ok(lane), Some(number)) => {
                let RailPair { rail, remote_rail } = pair;
                Ok(Attached { number, rail, remote_rail, lane })
            }
            (Ok(_), None) => Err(SessionLaneError::Late),
            (Err(error), number) => {
                // An end that this side could not use is given back.
                if let (SessionLaneError::Transport(_), Some(number)) = (&error, number) {
                    self.give_back(number, true);
                }
                Err(error)
            }
        };
        if late {
            // The lane has been given up: if it was made all the same, both sides drop it.
            if let Ok(Attached { number, .. }) = result {
                self.give_back(number, true);
            }
        } else {
            self.settle(at, wanted, result, report);
        }
        self.begin_next_lane(at);
    }

    /// Reports a lane's result: to the engine, if it asked for the lane, else among the first
    /// lanes.
    fn settle(
        &mut self,
        at: usize,
        wanted: Option<LaneWanted>,
        result: Result<Attached<D::UnopenedLane>, SessionLaneError>,
        report: &impl Fn(SessionEvent<D::UnopenedLane>),
    ) {
        if let Some(wanted) = wanted {
            return report(SessionEvent::Lane(wanted, result));
        }
        match &result {
            Ok(_) => {
                self.since.get_or_insert_with(Instant::now);
                if let Some(path) = &mut self.rails[at].path {
                    path.made += 1;
                    path.failed_in_a_row = 0;
                }
            }
            Err(_) => self.failed(at),
        }
        match (&mut self.first, result) {
            (Some(first), result) => first.push(result),
            // The reader was told of the session without this lane, and takes it into use now.
            (None, Ok(lane)) => report(SessionEvent::LateLane(lane)),
            (None, Err(error)) => tracing::warn!(rail = at, %error, "a lane is missing from the start"),
        }
    }

    /// Notes that a first lane of a rail has failed. After [`GIVE_UP`] failures in a row no more
    /// lanes are made over this path. A rail without any lane is then paired with another rail of
    /// the producer, where the transport knows one.
    fn failed(&mut self, at: usize) {
        let Some(path) = &mut self.rails[at].path else { return };
        path.failed_in_a_row += 1;
        if path.failed_in_a_row < GIVE_UP && path.left > 0 {
            return;
        }
        path.left = 0;
        if path.made > 0 {
            return;
        }
        // At most 16 rails.
        let rail = RailIndex(at as u8);
        let Some(other) = self.pairer.instead(rail, &path.tried, &self.session.offer().rails) else { return };
        tracing::warn!(
            rail = at,
            unreachable = path.remote.0,
            instead = other.0,
            "a rail is connected to another rail of the producer"
        );
        path.tried.push(other);
        (path.remote, path.left, path.failed_in_a_row) = (other, self.request.lanes_per_rail, 0);
    }

    /// Gives up lanes that have not come in time.
    fn expire(&mut self, report: &impl Fn(SessionEvent<D::UnopenedLane>)) {
        let now = Instant::now();
        for at in 0..self.rails.len() {
            let rail = &mut self.rails[at];
            while let Some(&(wanted, until)) = rail.wanted.front()
                && now >= until
            {
                rail.wanted.pop_front();
                report(SessionEvent::Lane(wanted, Err(SessionLaneError::Late)));
            }
            if let Some(making) = &mut rail.making
                && !making.late
                && now >= making.until
            {
                making.late = true;
                let wanted = making.wanted;
                self.settle(at, wanted, Err(SessionLaneError::Late), report);
            }
        }
    }

    /// Tells the reader of the session: when all first lanes are settled; a moment after the first
    /// was made, so that a slow rail does not delay it; or when the time to connect is over.
    fn report_session(&mut self, report: &impl Fn(SessionEvent<D::UnopenedLane>)) {
        let Some(until) = self.settled_by() else { return };
        let busy = |rail: &Rail<D>| {
            let first = rail.making.as_ref().is_some_and(|making| making.wanted.is_none() && !making.late);
            // A rail whose thread hangs makes no more lanes, and is not waited for.
            let more = rail.making.is_none() && rail.path.as_ref().is_some_and(|path| path.left > 0);
            first || more
        };
        if Instant::now() < until && self.rails.iter().any(busy) {
            return;
        }
        if let Some(mut lanes) = self.first.take() {
            if lanes.is_empty() {
                lanes.push(Err(SessionLaneError::Late));
            }
            let (producer, offer) = (self.session.producer(), self.session.offer().clone());
            report(SessionEvent::Agreed(Box::new(Agreed { producer, offer, lanes })));
        }
    }

    /// The time until which the first lanes are waited for; `None`: the reader has been told.
    fn settled_by(&self) -> Option<Instant> {
        self.first.as_ref()?;
        let deadline = self.request.deadline;
        Some(self.since.map_or(deadline, |since| deadline.min(since + SETTLE)))
    }

    /// The time of the next step that no event causes: a deadline, or an `Alive` to send.
    fn due(&self) -> Instant {
        let making = self.rails.iter().filter_map(|r| r.making.as_ref()).filter(|m| !m.late).map(|m| m.until);
        let wanted = self.rails.iter().filter_map(|r| r.wanted.front()).map(|&(_, until)| until);
        making.chain(wanted).chain(self.settled_by()).fold(self.session.due(), Instant::min)
    }

    /// The event of the session's end, which depends on whether the reader was told of the session.
    fn ended(&self, why: Arc<SessionError>) -> SessionEvent<D::UnopenedLane> {
        if self.first.is_some() {
            SessionEvent::Failed(SessionFailure::Session(why))
        } else {
            SessionEvent::Ended(why)
        }
    }
}

/// Makes one lane, on a thread of its own: it may block.
fn dial<D: LaneDialer>(
    mut dialer: D,
    at: usize,
    pair: RailPair,
    remote: Result<RailDescription, SessionLaneError>,
    orders: &OrderSender<D>,
    answered: &Receiver<Result<LaneBlob, SessionLaneError>>,
) {
    let failed = |error| SessionLaneError::Transport(Arc::new(error));
    let lane = remote.and_then(|remote| {
        let (pending, blob) = dialer.prepare(pair.rail, &remote).map_err(failed)?;
        orders.send(Order::Prepared(at, blob));
        // Ends when the session's thread does.
        let answer = answered.recv().unwrap_or(Err(SessionLaneError::Late))?;
        dialer.connect(pending, &remote, &answer).map_err(failed)
    });
    orders.send(Order::Made(at, dialer, lane));
}

/// Sleeps until the peer says something or hangs up, `wake` is readable, or `until` is past.
fn sleep(session: &Session, wake: &EventFd, until: Instant) -> Result<(), Errno> {
    let mut fds =
        [PollFd::from_borrowed_fd(session.as_fd(), PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
    match poll(&mut fds, Some(&poll_timeout(until))) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno),
    }
    wake.clear();
    Ok(())
}
