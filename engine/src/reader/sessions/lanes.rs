//! Which lanes a session makes, one at a time on each rail, and which of them the reader gets.
//!
//! Nothing here blocks: what may block is a [`Job`], whose result comes back by
//! [`Lanes::done`].

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::events::LaneWanted;
use kvrail_core::id::RailIndex;
use kvrail_session::{
    Attached, LaneBlob, LaneDialer, LaneEndError, LaneNumber, RailDescription, RailPair, Session,
    SessionError, SessionLaneError,
};

use super::jobs::{Discarded, Job, JobResult, PreparedEnd};
use super::messages::{Agreed, SessionFailure, SessionNews};
use super::rail::{Making, Path, Rail, Step};

/// How long the making of one lane may take, from the beginning of its first step.
const LANE_PATIENCE: Duration = Duration::from_secs(5);
/// How long connecting waits for other first lanes once one has been made. A later lane is taken
/// into use when it comes.
const SETTLE: Duration = Duration::from_secs(1);
/// First lanes of a rail that fail in a row before the path is given up.
const GIVE_UP: usize = 2;

/// The lanes of an established session.
pub(super) struct Lanes<D: LaneDialer> {
    lanes_per_rail: usize,
    /// The first lanes are made when they are asked for.
    on_demand: bool,
    /// First lanes that were asked for are being made, and so many have been; or the last error.
    opening: Option<Box<Result<usize, SessionLaneError>>>,
    /// When connecting is over.
    deadline: Instant,
    rails: Vec<Rail<D>>,
    /// It is not known yet which rails go together.
    pairing: bool,
    /// Results of the first lanes, until the reader is told of them.
    first: Option<Vec<LaneResult<D>>>,
    /// When the first of them was made.
    since: Option<Instant>,
    jobs: VecDeque<Job<D>>,
    news: VecDeque<SessionNews<D::UnopenedLane>>,
}

type LaneResult<D> = Result<Attached<<D as LaneDialer>::UnopenedLane>, SessionLaneError>;

impl<D: LaneDialer> Lanes<D> {
    /// Begins to make `lanes_per_rail` lanes on each of `rails` rails. The reader is told of the
    /// session by `deadline`.
    pub(super) fn begin(
        rails: usize,
        (lanes_per_rail, on_demand): (usize, bool),
        deadline: Instant,
        session: &Session,
    ) -> Self {
        let producer = Box::new(session.offer().map(|offer| offer.rails.clone()).unwrap_or_default());
        Self {
            lanes_per_rail,
            on_demand,
            opening: None,
            deadline,
            rails: (0..rails).map(|_| Rail::new()).collect(),
            pairing: true,
            first: Some(Vec::new()),
            since: None,
            jobs: [Job::Pair { producer }].into(),
            news: VecDeque::new(),
        }
    }

    /// The next job to be run. Look for one after every call of another method.
    pub(super) fn next_job(&mut self) -> Option<Job<D>> {
        self.jobs.pop_front()
    }

    /// The next news for the reader. Look for news after every call of another method.
    pub(super) fn next_news(&mut self) -> Option<SessionNews<D::UnopenedLane>> {
        self.news.pop_front()
    }

    /// Makes a lane that the engine wants. [`SessionNews::Lane`] says how that ended.
    pub(super) fn request(&mut self, wanted: LaneWanted, session: &Session, now: Instant) {
        let rails = self.rails.len();
        let Some(rail) = self.rails.get_mut(wanted.rail.get()) else {
            let error = SessionLaneError::NoSuchRail { remote_rail: wanted.rail, rails };
            return self.news.push_back(SessionNews::Lane(wanted, Err(error)));
        };
        rail.wanted.push_back((wanted, now + LANE_PATIENCE));
        self.begin_next_lane(wanted.rail, session);
    }

    /// Begins to make the first lanes of a peer that had none. News tell of each that is made;
    /// [`SessionNews::Opened`] says when that is over.
    pub(super) fn open(&mut self, session: &Session) {
        if self.opening.is_some() {
            return;
        }
        self.opening = Some(Box::new(Ok(0)));
        for at in 0..self.rails.len() {
            if let Some(path) = &mut self.rails[at].path {
                (path.left, path.made, path.failed_in_a_row) = (self.lanes_per_rail, 0, 0);
                path.tried = vec![path.remote];
                self.begin_next_lane(rail_at(at), session);
            }
        }
    }

    /// Reports the end of [`open`](Self::open), once no rail makes a first lane any more.
    fn report_opening(&mut self) {
        if self.opening.is_none() || self.rails.iter().any(Rail::makes_first_lanes) {
            return;
        }
        // A lane that hangs is not waited for, and none is made after it.
        self.rails.iter_mut().filter_map(|rail| rail.path.as_mut()).for_each(|path| path.left = 0);
        let result = match self.opening.take().map(|opening| *opening) {
            Some(Err(error)) => Err(error),
            Some(Ok(0)) => Err(SessionLaneError::Late),
            _ => Ok(()),
        };
        self.news.push_back(SessionNews::Opened(result));
    }

    /// The turn of `job` has come, which was returned by [`next_job`](Self::next_job). `false`: it
    /// is to be skipped.
    pub(super) fn begun(&mut self, job: &Job<D>, now: Instant) -> bool {
        let Some(rail) = job.lane() else { return true };
        let Some(making) = &mut self.rails[rail.get()].making else { return false };
        making.until.get_or_insert(now + LANE_PATIENCE);
        !making.late
    }

    /// Takes the result of a job.
    pub(super) fn done(&mut self, result: JobResult<D>, session: &mut Session, now: Instant) {
        match result {
            JobResult::Paired(Ok(pairs)) => self.paired(&pairs, session),
            JobResult::Paired(Err(nothing)) => {
                self.pairing = false;
                if self.first.take().is_some() {
                    self.news.push_back(SessionNews::Failed(SessionFailure::NothingInCommon(nothing)));
                }
            }
            JobResult::Instead(rail, other) => self.chosen(rail, other, session),
            JobResult::Prepared(rail, result) => self.prepared(rail, result, session),
            JobResult::Connected(rail, result) => self.connected(rail, result, session, now),
            JobResult::Skipped(rail) => {
                if let Some(Making { step: Step::Connecting(number), .. }) = self.take_making(rail) {
                    session.release(&[number]);
                }
                self.begin_next_lane(rail, session);
            }
            JobResult::Discarded => {}
        }
    }

    fn paired(&mut self, pairs: &[RailPair], session: &Session) {
        self.pairing = false;
        for &RailPair { rail, remote_rail: remote } in pairs {
            let Some(of) = self.rails.get_mut(rail.get()) else { continue };
            let left = if self.on_demand { 0 } else { self.lanes_per_rail };
            of.path = Some(Path::new(remote, left));
            self.begin_next_lane(rail, session);
        }
    }

    /// Takes the producer's rail that a transport has found for `rail` instead of others.
    fn chosen(&mut self, rail: RailIndex, other: Option<RailIndex>, session: &Session) {
        let Some(path) = &mut self.rails[rail.get()].path else { return };
        // An answer that is late is not taken: the lanes may be being made anew.
        let (Some(_), Some(other)) = (path.choosing.take(), other) else { return };
        tracing::warn!(
            rail = rail.0,
            unreachable = path.remote.0,
            instead = other.0,
            "a rail is connected to another rail of the producer"
        );
        path.tried.push(other);
        (path.remote, path.left, path.failed_in_a_row) = (other, self.lanes_per_rail, 0);
        self.begin_next_lane(rail, session);
    }

    /// Begins the next lane of a rail that has one to make and is making none.
    fn begin_next_lane(&mut self, index: RailIndex, session: &Session) {
        loop {
            let rail = &mut self.rails[index.get()];
            if rail.making.is_some() {
                return;
            }
            let first = rail.path.as_mut().filter(|path| path.left > 0);
            let (remote_rail, wanted, until) = if let Some(path) = first {
                path.left -= 1;
                (path.remote, None, None)
            } else if let Some((wanted, until)) = rail.wanted.pop_front() {
                (RailIndex(wanted.remote_rail), Some(wanted), Some(until))
            } else {
                return;
            };
            match remote_of(session, remote_rail) {
                Ok(remote) => {
                    let pair = RailPair { rail: index, remote_rail };
                    let step = Step::Preparing;
                    rail.making = Some(Making { pair, wanted, step, until, late: false });
                    return self.jobs.push_back(Job::Prepare { rail: index, remote });
                }
                Err(error) => self.settle(index, wanted, Err(error), session),
            }
        }
    }

    /// Asks the producer for the other end of a lane of which this end has been made.
    fn prepared(
        &mut self,
        rail: RailIndex,
        result: Result<(Box<PreparedEnd<D>>, LaneBlob), LaneEndError>,
        session: &mut Session,
    ) {
        let Some(mut making) = self.take_making(rail) else { return };
        match result {
            Ok((end, blob)) => {
                let asked = match making.until {
                    Some(until) if !making.late => session.ask(making.pair, blob, until),
                    _ => Err(SessionLaneError::Late),
                };
                match asked {
                    Ok(number) => {
                        making.step = Step::Asked(number, end);
                        self.rails[rail.get()].making = Some(making);
                        return;
                    }
                    Err(error) => {
                        self.discard(rail, Discarded::Prepared { _end: end });
                        self.settle_unless_late(rail, &making, Err(error), session);
                    }
                }
            }
            Err(error) => {
                let error = SessionLaneError::Transport(Arc::new(error));
                self.settle_unless_late(rail, &making, Err(error), session);
            }
        }
        self.begin_next_lane(rail, session);
    }

    /// Takes the producer's end of a lane, or the reason why the producer made no end.
    pub(super) fn answered(
        &mut self,
        number: LaneNumber,
        result: Result<LaneBlob, SessionLaneError>,
        session: &mut Session,
    ) {
        let asked = |rail: &Rail<D>| matches!(&rail.making, Some(Making { step: Step::Asked(of, _), .. }) if *of == number);
        let Some(at) = self.rails.iter().position(asked) else {
            if result.is_ok() {
                session.release(&[number]);
            }
            return;
        };
        let rail = rail_at(at);
        let Some(mut making) = self.take_making(rail) else { return };
        let Step::Asked(_, end) = std::mem::replace(&mut making.step, Step::Connecting(number)) else {
            return;
        };
        match result.and_then(|blob| Ok((blob, remote_of(session, making.pair.remote_rail)?))) {
            Ok((blob, remote)) => {
                self.rails[at].making = Some(making);
                self.jobs.push_back(Job::Connect { rail, end, remote, blob });
            }
            Err(error) => {
                self.discard(rail, Discarded::Prepared { _end: end });
                self.settle_unless_late(rail, &making, Err(error), session);
                self.begin_next_lane(rail, session);
            }
        }
    }

    /// Takes a lane whose ends have been connected, or the reason why they were not.
    fn connected(
        &mut self,
        rail: RailIndex,
        result: Result<D::UnopenedLane, LaneEndError>,
        session: &mut Session,
        now: Instant,
    ) {
        let Some(making) = self.take_making(rail) else { return };
        let Step::Connecting(number) = making.step else { return };
        let RailPair { remote_rail, .. } = making.pair;
        match result {
            Ok(lane) if !making.late => {
                if making.wanted.is_none() {
                    self.since.get_or_insert(now);
                }
                let lane = Attached { number, rail, remote_rail, lane };
                self.settle(rail, making.wanted, Ok(lane), session);
            }
            // The lane has been given up: both sides drop it.
            Ok(_lane) => {
                session.release(&[number]);
                self.discard(rail, Discarded::Connected { _lane });
            }
            // An end that this side could not use is given back.
            Err(error) => {
                session.release(&[number]);
                let error = SessionLaneError::Transport(Arc::new(error));
                self.settle_unless_late(rail, &making, Err(error), session);
            }
        }
        self.begin_next_lane(rail, session);
    }

    /// The job of this rail's lane was lost, as the system has no thread.
    pub(super) fn without_thread(&mut self, rail: RailIndex, error: io::Error, session: &mut Session) {
        let Some(making) = self.take_making(rail) else { return };
        if let Step::Connecting(number) = making.step {
            session.release(&[number]);
        }
        let error = SessionLaneError::Transport(Arc::new(LaneEndError::new(rail, error)));
        self.settle_unless_late(rail, &making, Err(error), session);
        self.begin_next_lane(rail, session);
    }

    fn take_making(&mut self, rail: RailIndex) -> Option<Making<D>> {
        self.rails.get_mut(rail.get())?.making.take()
    }

    fn discard(&mut self, rail: RailIndex, end: Discarded<D>) {
        self.jobs.push_back(Job::Discard { rail, _end: end });
    }

    fn settle_unless_late(
        &mut self,
        rail: RailIndex,
        making: &Making<D>,
        result: LaneResult<D>,
        session: &Session,
    ) {
        if !making.late {
            self.settle(rail, making.wanted, result, session);
        }
    }

    /// Reports a lane's result: to the engine, if it asked for the lane, else among the first
    /// lanes.
    fn settle(
        &mut self,
        rail: RailIndex,
        wanted: Option<LaneWanted>,
        result: LaneResult<D>,
        session: &Session,
    ) {
        if let Some(wanted) = wanted {
            return self.news.push_back(SessionNews::Lane(wanted, result));
        }
        match (&result, &mut self.rails[rail.get()].path) {
            (Ok(_), Some(path)) => {
                path.made += 1;
                path.failed_in_a_row = 0;
            }
            (Err(_), _) => self.failed(rail, session),
            (Ok(_), None) => {}
        }
        match (&mut self.first, result) {
            (Some(first), result) => first.push(result),
            // The reader was told of the session without this lane, and takes it into use now.
            (None, Ok(lane)) => {
                if let Some(opening) = &mut self.opening {
                    **opening = Ok(opening.as_ref().as_ref().map_or(1, |made| made + 1));
                }
                self.news.push_back(SessionNews::LateLane(lane));
            }
            (None, Err(error)) if self.opening.as_ref().is_some_and(|o| !matches!(**o, Ok(1..))) => {
                self.opening = Some(Box::new(Err(error)));
            }
            (None, Err(error)) => {
                tracing::warn!(rail = rail.0, %error, "a lane is missing from the start");
            }
        }
    }

    /// Notes that a first lane of a rail has failed. After [`GIVE_UP`] failures in a row no more
    /// lanes are made over this path. A rail without any lane is then paired with another rail of
    /// the producer, where the transport knows one.
    fn failed(&mut self, rail: RailIndex, session: &Session) {
        let Some(path) = &mut self.rails[rail.get()].path else { return };
        path.failed_in_a_row += 1;
        if path.failed_in_a_row < GIVE_UP && path.left > 0 {
            return;
        }
        path.left = 0;
        if path.made > 0 {
            return;
        }
        let Some(offer) = session.offer() else { return };
        path.choosing = Some(Instant::now() + LANE_PATIENCE);
        let (tried, producer) = (path.tried.clone(), Box::new(offer.rails.clone()));
        self.jobs.push_back(Job::Instead { rail, tried, producer });
    }

    /// Gives up lanes, and the search for other rails, that have not come to an end in time.
    pub(super) fn expire(&mut self, session: &Session, now: Instant) {
        for at in 0..self.rails.len() {
            let rail = &mut self.rails[at];
            while let Some(&(wanted, until)) = rail.wanted.front()
                && now >= until
            {
                rail.wanted.pop_front();
                self.news.push_back(SessionNews::Lane(wanted, Err(SessionLaneError::Late)));
            }
            if let Some(making) = &mut rail.making
                && making.ends_by().is_some_and(|until| now >= until)
            {
                making.late = true;
                let wanted = making.wanted;
                self.settle(rail_at(at), wanted, Err(SessionLaneError::Late), session);
            }
            if let Some(path) = &mut self.rails[at].path {
                path.choosing.take_if(|until| now >= *until);
            }
        }
    }

    /// Tells the reader of the session: when all first lanes are settled; a moment after the first
    /// was made, so that a slow rail does not delay it; or when the time to connect is over.
    pub(super) fn report_session(&mut self, session: &Session, now: Instant) {
        let Some(until) = self.settled_by() else { return self.report_opening() };
        if now < until && (self.pairing || self.rails.iter().any(Rail::makes_first_lanes)) {
            return;
        }
        let Some(offer) = session.offer().cloned() else { return };
        if let Some(mut lanes) = self.first.take() {
            // Where lanes are made on demand this list is empty, unless the rails do not go
            // together yet.
            if lanes.is_empty() && (self.pairing || !self.on_demand) {
                lanes.push(Err(SessionLaneError::Late));
            }
            self.news.push_back(SessionNews::Agreed(Box::new(Agreed { offer, lanes })));
        }
    }

    /// The time until which the first lanes are waited for; `None`: the reader has been told.
    fn settled_by(&self) -> Option<Instant> {
        self.first.as_ref()?;
        Some(self.since.map_or(self.deadline, |since| self.deadline.min(since + SETTLE)))
    }

    /// The time of the next step that no event causes; `None`: no step is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let making = self.rails.iter().filter_map(|rail| rail.making.as_ref()?.ends_by());
        let wanted = self.rails.iter().filter_map(|rail| rail.wanted.front()).map(|&(_, until)| until);
        let choosing = self.rails.iter().filter_map(|rail| rail.path.as_ref()?.choosing);
        making.chain(wanted).chain(choosing).chain(self.settled_by()).min()
    }

    /// The session has ended: only jobs that drop ends are left, and at most one last news.
    pub(super) fn end(&mut self, why: Option<Arc<SessionError>>) {
        self.jobs = std::mem::take(&mut self.jobs).into_iter().filter_map(Job::into_discard).collect();
        for at in 0..self.rails.len() {
            let rail = rail_at(at);
            if let Some(Making { step: Step::Asked(_, end), .. }) = self.take_making(rail) {
                self.discard(rail, Discarded::Prepared { _end: end });
            }
        }
        let Some(why) = why else { return };
        self.news.push_back(if self.first.take().is_some() {
            SessionNews::Failed(SessionFailure::Session(why))
        } else {
            SessionNews::Ended(why)
        });
    }
}

/// The reader's rail at a place of a list of at most 16.
const fn rail_at(place: usize) -> RailIndex {
    RailIndex(place as u8)
}

/// A rail of the producer.
fn remote_of(session: &Session, remote_rail: RailIndex) -> Result<Box<RailDescription>, SessionLaneError> {
    let rails = session.offer().map_or(&[][..], |offer| &offer.rails);
    let remote = rails.get(remote_rail.get()).copied().map(Box::new);
    remote.ok_or(SessionLaneError::NoSuchRail { remote_rail, rails: rails.len() })
}
