//! One connection with its socket: what it does in its turn.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use static_assertions::const_assert;

use super::connection::{Connection, Flow};
use super::id::ConnectionId;
use super::places::{Made, NewConnection, PLACE_BYTES};
use super::socket::{is_made, set_up};
use super::timers::TIMER_BYTES;

/// How many bytes a connection reads in one turn.
pub(super) const READ_PER_TURN: usize = 64 << 10;
/// How many bytes a connection writes in one turn.
pub(super) const WRITE_PER_TURN: usize = 64 << 10;
/// How long a connection may go on sending after its peer has ended its half.
const AFTER_END: Duration = Duration::from_secs(10);
/// The least time between two ticks that the timer causes.
const TICK_PAUSE: Duration = Duration::from_millis(1);
/// A time so long that it does not matter how long it is.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// The buffers that all connections of a reactor share.
pub(super) struct Buffers {
    input: Box<[u8]>,
    output: Vec<u8>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { input: vec![0; READ_PER_TURN].into_boxed_slice(), output: Vec::with_capacity(WRITE_PER_TURN) }
    }
}

/// What the reactor knows of a connection.
pub(super) struct Served {
    pub(super) id: ConnectionId,
    tcp: TcpStream,
    connection: Box<dyn Connection>,
    phase: Phase,
    /// What [`Connection::fill`] gave and the socket did not take: empty, and without memory, while
    /// the socket takes everything.
    unsent: Vec<u8>,
    /// How many bytes of `unsent` the socket has taken.
    sent: usize,
    /// Why nothing can be written any more.
    broken: Option<io::Error>,
    /// The socket may have bytes, or its end, to read.
    readable: bool,
    /// The socket may take bytes.
    writable: bool,
    /// The peer has ended its half, or the connection has failed: a read that gives less than it
    /// could was not the last one.
    hung_up: bool,
    /// The connection is closed in both directions, or has failed.
    failed: bool,
    /// The end of what the peer sends was read.
    ended: bool,
    /// This half was ended.
    shut: bool,
    /// The last turn ended before everything was written that there was to write.
    unfinished: bool,
    /// It waits in the queue of those that have something to do.
    pub(super) queued: bool,
}

#[derive(Clone, Copy)]
enum Phase {
    /// The connection is being made, and that may last until then.
    Connecting(Instant),
    Open,
    /// The peer has ended its half: this side sends until it has nothing to send, or until then.
    Ended(Instant),
    /// [`Flow::Finish`], until then.
    Finishing(Instant),
}

/// Why a connection gets a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Its socket is ready, or it has not used up what was ready in its last turn.
    Ready,
    Timer,
    Notified,
}

/// How a turn ended.
pub(super) enum Turn {
    /// The connection stays; it needs a turn at `due`, and, if `again`, after the other connections
    /// have had theirs.
    Stays { due: Instant, again: bool },
    /// The connection is to be removed.
    Gone,
}

/// The connection is to be removed.
struct Gone;

impl Served {
    pub(super) fn new(id: ConnectionId, new: NewConnection) -> Self {
        let NewConnection { tcp, connection, made } = new;
        let (phase, broken) = match made {
            Made::Yes => (Phase::Open, None),
            Made::Until(deadline) => (Phase::Connecting(deadline), None),
            Made::Failed(error) => (Phase::Open, Some(error)),
        };
        Self {
            id,
            tcp,
            connection,
            phase,
            unsent: Vec::new(),
            sent: 0,
            broken,
            readable: false,
            writable: false,
            hung_up: false,
            failed: false,
            ended: false,
            shut: false,
            unfinished: false,
            queued: false,
        }
    }

    pub(super) const fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Notes an error for which the connection cannot be served.
    pub(super) fn fail(&mut self, error: io::Error) {
        self.broken = Some(error);
        self.failed = true;
    }

    /// Notes what epoll(7) reports.
    pub(super) fn event(&mut self, flags: EventFlags) {
        let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        self.failed |= failed;
        self.hung_up |= failed || flags.contains(EventFlags::RDHUP);
        self.readable |= self.hung_up || flags.contains(EventFlags::IN);
        self.writable |= failed || flags.contains(EventFlags::OUT);
    }

    /// Ends the connection as [`Flow::Finish`] does, until `until`.
    pub(super) fn finish(&mut self, until: Instant) {
        if !matches!(self.phase, Phase::Finishing(earlier) if earlier <= until) {
            self.phase = Phase::Finishing(until);
        }
    }

    /// The value, for its drop; the socket is closed.
    pub(super) fn into_connection(self) -> Box<dyn Connection> {
        self.connection
    }

    /// Whether the connection is made.
    pub(super) const fn is_made(&self) -> bool {
        !matches!(self.phase, Phase::Connecting(_))
    }

    /// Does what there is to do, and no more than the bounds of a turn allow.
    pub(super) fn turn(&mut self, why: Why, now: Instant, buffers: &mut Buffers) -> Turn {
        match self.steps(why, now, buffers) {
            Ok((due, again)) => Turn::Stays { due, again },
            Err(Gone) => Turn::Gone,
        }
    }

    fn steps(&mut self, why: Why, now: Instant, buffers: &mut Buffers) -> Result<(Instant, bool), Gone> {
        let finishing = matches!(self.phase, Phase::Finishing(_));
        let mut ticked = false;
        match why {
            Why::Timer => ticked = self.timer(now)?,
            Why::Notified if !finishing => {
                let flow = self.connection.notified(now);
                self.apply(flow, now)?;
            }
            Why::Notified | Why::Ready => {}
        }
        self.establish(now)?;
        if self.is_made() {
            self.read(now, buffers)?;
            self.write(now, buffers)?;
        }
        let own = (!matches!(self.phase, Phase::Finishing(_))).then(|| {
            let due = self.connection.due();
            if ticked { due.max(now + TICK_PAUSE) } else { due }
        });
        let limit = match self.phase {
            Phase::Open => None,
            Phase::Connecting(until) | Phase::Ended(until) | Phase::Finishing(until) => Some(until),
        };
        let due = own.into_iter().chain(limit).min().unwrap_or(now + LONG);
        Ok((due, self.has_more()))
    }

    /// Whether another turn would do something.
    fn has_more(&self) -> bool {
        let unread = self.readable && !self.ended && self.takes_bytes();
        self.is_made() && (unread || self.broken.is_some() || self.unfinished)
    }

    fn takes_bytes(&self) -> bool {
        matches!(self.phase, Phase::Finishing(_)) || self.connection.takes_bytes()
    }

    fn apply(&mut self, flow: Flow, now: Instant) -> Result<(), Gone> {
        match flow {
            Flow::GoOn => Ok(()),
            Flow::Close => Err(Gone),
            Flow::Finish { .. } if !self.is_made() => Err(Gone),
            Flow::Finish { linger } => {
                self.finish(now + linger.min(LONG));
                Ok(())
            }
        }
    }

    /// Looks whether a time has passed, and returns whether the connection's was one.
    fn timer(&mut self, now: Instant) -> Result<bool, Gone> {
        match self.phase {
            Phase::Connecting(until) if now >= until => {
                return self.lost(now, io::ErrorKind::TimedOut.into()).map(|()| false);
            }
            Phase::Ended(until) | Phase::Finishing(until) if now >= until => return Err(Gone),
            Phase::Finishing(_) => return Ok(false),
            Phase::Connecting(_) | Phase::Open | Phase::Ended(_) => {}
        }
        if self.connection.due() > now {
            // The time has moved since the timer was set.
            return Ok(false);
        }
        let flow = self.connection.tick(now);
        self.apply(flow, now).map(|()| true)
    }

    /// Reports the connection's end by an error, unless it does not listen any more.
    fn lost(&mut self, now: Instant, error: io::Error) -> Result<(), Gone> {
        if matches!(self.phase, Phase::Connecting(_) | Phase::Open) {
            self.connection.ended(now, Some(error));
        }
        Err(Gone)
    }

    /// Looks whether a connection that is being made is made now.
    fn establish(&mut self, now: Instant) -> Result<(), Gone> {
        if self.is_made() {
            return Ok(());
        }
        if let Some(error) = self.broken.take() {
            return self.lost(now, error);
        }
        if !self.writable && !self.failed {
            return Ok(());
        }
        match is_made(&self.tcp)
            .and_then(|made| if made { set_up(&self.tcp).map(|()| true) } else { Ok(false) })
        {
            Ok(true) => self.phase = Phase::Open,
            Ok(false) => self.writable = false,
            Err(error) => return self.lost(now, error),
        }
        Ok(())
    }

    fn read(&mut self, now: Instant, buffers: &mut Buffers) -> Result<(), Gone> {
        let mut left = READ_PER_TURN;
        while left > 0 && !self.ended {
            if !self.takes_bytes() || !self.readable {
                // A connection that has failed is reported, although bytes before that are unread
                // or will never come.
                if self.broken.is_some() || (self.failed && self.readable) {
                    let pending = self.broken.take().or_else(|| self.tcp.take_error().ok().flatten());
                    return self.lost(now, pending.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()));
                }
                return Ok(());
            }
            let want = left.min(buffers.input.len());
            match self.tcp.read(&mut buffers.input[..want]) {
                Ok(0) => return self.input_ended(now),
                Ok(got) => {
                    left -= got;
                    // After fewer bytes than could have come, the next ones cause an event.
                    self.readable = self.hung_up || self.broken.is_some() || got == want;
                    if !matches!(self.phase, Phase::Finishing(_)) {
                        let flow = self.connection.received(now, &buffers.input[..got]);
                        self.apply(flow, now)?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                // It stays readable, and is read in its next turn.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                Err(error) => {
                    let error = self.broken.take().unwrap_or(error);
                    return self.lost(now, error);
                }
            }
        }
        Ok(())
    }

    /// The peer has ended its half.
    fn input_ended(&mut self, now: Instant) -> Result<(), Gone> {
        (self.ended, self.readable) = (true, false);
        if let Some(error) = self.broken.take() {
            return self.lost(now, error);
        }
        if matches!(self.phase, Phase::Open) {
            self.connection.ended(now, None);
            self.phase = Phase::Ended(now + AFTER_END);
        }
        Ok(())
    }

    fn write(&mut self, now: Instant, buffers: &mut Buffers) -> Result<(), Gone> {
        let mut left = WRITE_PER_TURN;
        self.unfinished = false;
        while self.writable && self.broken.is_none() && !self.shut && !self.unfinished {
            if left == 0 {
                self.unfinished = true;
                break;
            }
            if !self.unsent.is_empty() {
                let end = self.unsent.len().min(self.sent.saturating_add(left));
                let sent = self.tcp.write(&self.unsent[self.sent..end]);
                let sent = self.wrote(sent);
                left -= sent;
                self.sent += sent;
                if self.sent == self.unsent.len() {
                    (self.unsent, self.sent) = (Vec::new(), 0);
                }
                continue;
            }
            let out = &mut buffers.output;
            out.clear();
            out.shrink_to(WRITE_PER_TURN);
            self.connection.fill(now, out, left);
            if out.is_empty() {
                self.nothing_to_send();
                break;
            }
            // Bytes that the turn has no room for are kept, and the connection gets another turn.
            let first = self.tcp.write(&out[..out.len().min(left)]);
            let sent = self.wrote(first);
            left -= sent;
            if sent < out.len() {
                self.unsent = out[sent..].to_vec();
            }
        }
        if self.broken.is_some() {
            // The peer may have sent its reason before it broke the connection: what came is read
            // before the error is reported.
            (self.unsent, self.readable) = (Vec::new(), !self.ended);
        }
        let over = match self.phase {
            Phase::Finishing(_) => self.broken.is_some() || (self.shut && self.ended),
            Phase::Ended(_) => self.broken.is_some() || self.shut,
            Phase::Open | Phase::Connecting(_) => false,
        };
        if over { Err(Gone) } else { Ok(()) }
    }

    /// How many bytes a write has written, with its error noted.
    fn wrote(&mut self, result: io::Result<usize>) -> usize {
        match result {
            Ok(0) => self.broken = Some(io::ErrorKind::WriteZero.into()),
            Ok(sent) => return sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.unfinished = true,
            Err(error) => self.broken = Some(error),
        }
        0
    }

    /// Ends this half if the connection was to end after its last message.
    fn nothing_to_send(&mut self) {
        if matches!(self.phase, Phase::Finishing(_) | Phase::Ended(_)) {
            // Fails if the peer has reset the connection, and then reading fails, too.
            let _ = self.tcp.shutdown(Shutdown::Write);
            self.shut = true;
        }
    }
}

/// What an idle connection costs the reactor beside the [`Connection`] itself.
pub(super) const IDLE_BYTES: usize = size_of::<Option<Served>>() + PLACE_BYTES + TIMER_BYTES;
const_assert!(IDLE_BYTES <= 256);
