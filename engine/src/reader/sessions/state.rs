//! How far a session is.

use std::io;
use std::time::Instant;

use kvrail_host::reactor::{ConnectionId, Flow};
use kvrail_session::{ByeReason, Cause, Layout, Offer, Pool, ReaderDescription, Session, SessionError, Step};

use super::attempt::Attempts;
use super::jobs::SessionDialer;
use super::lanes::Lanes;
use super::messages::SessionFailure;

/// A session at one moment.
pub(super) struct SessionState<D: SessionDialer> {
    /// The producer's address as the user gave it.
    pub(super) peer: String,
    pub(super) wanted: Vec<Layout>,
    pub(super) lanes_per_rail: usize,
    pub(super) on_demand: bool,
    pub(super) deadline: Instant,
    pub(super) stage: Stage<D>,
    /// The session over the present connection.
    pub(super) session: Option<Session>,
    pub(super) connection: Option<ConnectionId>,
    /// How many connections were begun. An earlier one than the last is of no use.
    pub(super) connections: u32,
    /// The reason of the goodbye that is to be said.
    pub(super) bye: Option<ByeReason>,
    /// The reader was told that the offer has changed, and has not looked since.
    pub(super) offer_is_news: bool,
}

/// How far a session is.
pub(super) enum Stage<D: SessionDialer> {
    /// A job resolves the producer's name.
    Resolving(Box<Agreeing>),
    /// The session over the present connection is not established yet.
    Agreeing(Box<Agreeing>),
    Established(Lanes<D>),
    /// It has ended, and the reader knows.
    Over,
}

/// What it takes to establish a session.
pub(super) struct Agreeing {
    pub(super) attempts: Attempts,
    pub(super) reader: ReaderDescription,
}

impl<D: SessionDialer> SessionState<D> {
    /// A session of which nothing has been done yet: `lanes_per_rail` lanes are to be made on each
    /// rail until `deadline`, or later if `on_demand`.
    pub(super) fn new(
        peer: String,
        wanted: Vec<Layout>,
        (lanes_per_rail, on_demand, deadline): (usize, bool, Instant),
        agreeing: Agreeing,
    ) -> Self {
        Self {
            peer,
            wanted,
            lanes_per_rail,
            on_demand,
            deadline,
            stage: Stage::Resolving(Box::new(agreeing)),
            session: None,
            connection: None,
            connections: 0,
            bye: None,
            offer_is_news: false,
        }
    }

    pub(super) fn lanes(&mut self) -> Option<(&mut Lanes<D>, &mut Session)> {
        match self {
            Self { stage: Stage::Established(lanes), session: Some(session), .. } => Some((lanes, session)),
            _ => None,
        }
    }

    pub(super) fn say_bye(&mut self, reason: ByeReason) -> Flow {
        self.session.as_mut().map_or(Flow::Close, |session| session.bye(reason))
    }

    pub(super) fn error(&self, step: Step, error: io::Error) -> SessionError {
        SessionError { peer: self.peer.clone(), step, cause: Cause::Io(error) }
    }
}

/// Checks that the offer has regions of one of the wanted layouts.
pub(super) fn read_from(offer: &Offer, wanted: &[Layout]) -> Result<(), SessionFailure> {
    let is_wanted = |pool: &&Pool| wanted.iter().any(|wanted| pool.layout().same_bytes(wanted));
    let mut pools = offer.pools.iter().filter(is_wanted).peekable();
    if pools.peek().is_none() {
        let others = offer.pools.iter().map(|pool| *pool.layout());
        let offered = others.chain(offer.unknown.iter().copied()).collect();
        return Err(SessionFailure::NoPool { wanted: wanted.into(), offered });
    }
    if pools.all(|pool| pool.regions().is_empty()) { Err(SessionFailure::NoRegions) } else { Ok(()) }
}
