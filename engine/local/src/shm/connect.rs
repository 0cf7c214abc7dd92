//! The thread that has a reader's connection: it connects, learns of exports, and notices the end.
#![allow(unsafe_code, reason = "its thread has a descriptor table of its own")]

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvrail_host::descriptors::spawn_isolated;
use kvrail_host::segment::{SegmentView, SegmentViewError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::address::{ShmAddress, VERSION};
use super::board::{Board, Found, Means};
use super::live::LiveView;
use super::packet::{Packet, receive, send};
use super::process::peer_of;
use super::serve::MAX_READERS;
use super::wire::{self, ANSWER_BYTES, Ask, BATCH, Description, PROTOCOL, Probe, Reach, WELCOME_BYTES};
use crate::hello::ReplyError;
use crate::region::MAX_EXPORTS;

/// How long each step of the handshake may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to learn of all exports.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no connection to a producer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShmConnectError {
    /// No exporter listens at the address.
    #[error(
        "no exporter listens at this address: its process has ended, or runs in another network namespace"
    )]
    NotListening,
    /// The system refused something, or a step took longer than 10 s.
    #[error("no connection to the exporter: {step} failed: {errno}")]
    System {
        /// The step.
        step: &'static str,
        /// Its error; `EAGAIN` for a time-out.
        errno: Errno,
    },
    /// The exporter speaks another version.
    #[error(
        "the exporter speaks version {theirs}, this side speaks version {ours}: run the same release on both sides"
    )]
    Version {
        /// The exporter's version.
        theirs: u16,
        /// This side's version.
        ours: u16,
    },
    /// The exporter does not accept the token.
    #[error(
        "the exporter refused the address's token: the address is wrong, or comes from an earlier exporter"
    )]
    Refused,
    /// The exporter serves as many readers as it can.
    #[error(
        "the exporter serves {MAX_READERS} reader processes already, which is its limit: use another producer"
    )]
    Full,
    /// Other connections displaced this one before it was answered.
    #[error("too many processes connect to the exporter at the same time: try again")]
    Crowded,
    /// The process that listens there does not know the answer that the address holds.
    #[error("the process that listens at this address is not the exporter that made the address")]
    Impostor,
    /// The reply is not a reply of this protocol.
    #[error("the exporter's reply is malformed ({what}): does another program use this address?")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
    /// A segment is not safe to read, or could not be mapped.
    #[error("the exporter's segment with rkey {rkey} cannot be read: {source}")]
    Segment {
        /// Its rkey.
        rkey: u32,
        /// What is wrong with it.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: SegmentViewError,
    },
    /// This process may not read the memory of the exporter's process, some of which is exported.
    #[error(
        "the exporter's process {pid} exports memory that this process may not read: {step} failed: {errno}{}", hint(*.errno)
    )]
    ProcessMemory {
        /// The exporter's process; 0 if it has no number here.
        pid: i32,
        /// The step.
        step: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// Another process, or another program, is where the exporter should be.
    #[error(
        "the memory of process {pid}, which listens at this address, does not hold the exporter's probe: it runs \
         another program by now, or claims to be what it is not"
    )]
    OtherProcess {
        /// The process.
        pid: i32,
    },
    /// The system gave no thread to watch the connection.
    #[error(
        "the thread that watches the exporter could not be started; raise the limit on threads (ulimit -u)"
    )]
    Thread(#[source] std::io::Error),
}

impl ShmConnectError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::NotListening => 3140,
            Self::System { .. } => 3141,
            Self::Version { .. } => 3142,
            Self::Refused => 3143,
            Self::Full => 3144,
            Self::Crowded => 3145,
            Self::Impostor => 3146,
            Self::Malformed { .. } => 3147,
            Self::Thread(_) => 3148,
            Self::ProcessMemory { .. } => 3149,
            Self::OtherProcess { .. } => 3150,
            Self::Segment { source, .. } => source.code(),
        }
    }
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM | Errno::ACCESS => {
            ". Run both as the same user. Where /proc/sys/kernel/yama/ptrace_scope is not 0, set it to 0, give the \
             reader CAP_SYS_PTRACE, or let the producer call ShmExporter::permit_any_reader. In a container, allow \
             process_vm_readv in its seccomp profile, or give CAP_SYS_PTRACE. Or export Segments or memfds instead"
        }
        Errno::NOSYS => ". The system has no such call: export Segments or memfds instead",
        Errno::SRCH => {
            ". It has ended, or is in a pid namespace that this process cannot see: share the namespace, or export \
             Segments or memfds instead"
        }
        Errno::MFILE | Errno::NFILE => "; raise the limit on open files (ulimit -n)",
        _ => "",
    }
}

/// What the thread reports while it connects. No report owns a descriptor.
pub(super) enum Report {
    /// The exporter has welcomed this reader. The pipe is the next descriptor on the socket between
    /// the thread and the process; the pidfd comes with it, if there is one.
    Welcomed {
        live: LiveView,
        probe: Probe,
        /// The exporter's process.
        pid: i32,
        pidfd: Result<(), (&'static str, Errno)>,
    },
    /// An export.
    Found(Found),
    /// No further exports.
    Listed,
    Failed(ShmConnectError),
}

/// Starts the thread. `wake` is an eventfd that is readable when the board holds a new question or
/// the stop; descriptors go to the other end of `handover`.
///
/// # Safety
///
/// `wake` and `handover` stay open until the thread has been joined.
pub(super) unsafe fn start(
    address: ShmAddress,
    board: Arc<Board>,
    wake: BorrowedFd<'_>,
    handover: BorrowedFd<'_>,
) -> Result<(JoinHandle<()>, Receiver<Report>), ShmConnectError> {
    let keep = vec![wake.as_raw_fd(), handover.as_raw_fd()];
    let (sender, receiver) = sync_channel(1);
    let body = move |kept: &[BorrowedFd<'_>], _: Result<(), Errno>| {
        let &[wake, handover] = kept else { return };
        match connect_and_list(&address, handover, &sender) {
            Ok(Some(socket)) => {
                drop(sender);
                serve_questions(&socket, wake, handover, &board);
            }
            // The other side does not listen any more.
            Ok(None) => {}
            Err(error) => drop(sender.send(Report::Failed(error))),
        }
        board.connection_ended();
    };
    // SAFETY: the two descriptors are open until the thread has been joined, by the caller's
    // promise. The thread takes in an address, a board and a channel and lets out reports, none of
    // which owns a descriptor; it logs nothing.
    let thread = unsafe { spawn_isolated("kvrail-watcher", keep, body) };
    Ok((thread.map_err(ShmConnectError::Thread)?, receiver))
}

fn failed(step: &'static str) -> impl Fn(Errno) -> ShmConnectError {
    move |errno| ShmConnectError::System { step, errno }
}

/// Connects to the exporter and reports its exports. `None`: the reports are not wanted any more.
fn connect_and_list(
    address: &ShmAddress,
    handover: BorrowedFd<'_>,
    reports: &SyncSender<Report>,
) -> Result<Option<OwnedFd>, ShmConnectError> {
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(failed("socket"))?;
    for direction in [Timeout::Send, Timeout::Recv] {
        // The send time-out bounds connect(2), too, which waits while the exporter's queue is full.
        set_socket_timeout(&socket, direction, Some(STEP_TIMEOUT)).map_err(failed("setting a time-out"))?;
    }
    let name = SocketAddrUnix::new_abstract_name(&address.name).map_err(failed("naming"))?;
    net::connect(&socket, &name).map_err(|errno| match errno {
        Errno::CONNREFUSED => ShmConnectError::NotListening,
        errno => failed("connect")(errno),
    })?;
    net::send(&socket, &PROTOCOL.hello(address.token), SendFlags::NOSIGNAL)
        .map_err(failed("sending the hello"))?;
    let mut reply = [0; WELCOME_BYTES];
    let fds = receive_whole(&socket, &mut reply, "waiting for the reply")?;
    let probe = wire::check_reply(&reply, address.answer).map_err(|error| match error {
        ReplyError::Version { theirs } => ShmConnectError::Version { theirs, ours: VERSION },
        ReplyError::Refused => ShmConnectError::Refused,
        ReplyError::Full => ShmConnectError::Full,
        ReplyError::Crowded => ShmConnectError::Crowded,
        ReplyError::Impostor => ShmConnectError::Impostor,
        ReplyError::Malformed => ShmConnectError::Malformed { what: "a field has an impossible value" },
    })?;
    let [live, life] = &fds[..] else {
        return Err(ShmConnectError::Malformed { what: "it has not the two descriptors of a welcome" });
    };
    let live = LiveView::map(live.as_fd()).map_err(|source| ShmConnectError::Segment { rkey: 0, source })?;
    let peer = peer_of(socket.as_fd(), life.as_fd());
    let pidfd = peer.pidfd.as_ref().map(|pidfd| pidfd.as_fd());
    let handed: Vec<_> = [Ok(life.as_fd()), pidfd].into_iter().flatten().collect();
    send(handover, &[0], &handed).map_err(failed("handing descriptors over"))?;
    let pidfd = pidfd.map(drop).map_err(|error| *error);
    if reports.send(Report::Welcomed { live, probe, pid: peer.pid, pidfd }).is_err() {
        return Ok(None);
    }
    list(&socket, handover, reports)?;
    Ok(reports.send(Report::Listed).is_ok().then_some(socket))
}

/// Asks for all exports, and reports each.
fn list(
    socket: &OwnedFd,
    handover: BorrowedFd<'_>,
    reports: &SyncSender<Report>,
) -> Result<(), ShmConnectError> {
    let deadline = Instant::now() + LIST_TIMEOUT;
    let (mut from, mut count) = (0, 0);
    loop {
        if Instant::now() > deadline {
            return Err(failed("learning of the exports")(Errno::TIMEDOUT));
        }
        let ask = Ask::From(from);
        net::send(socket, &ask.to_bytes(), SendFlags::NOSIGNAL).map_err(failed("asking for exports"))?;
        let mut bytes = [0; ANSWER_BYTES];
        let fds = receive_whole(socket, &mut bytes, "waiting for the exports")?;
        let exports = check_exports(&bytes, ask, &fds)?;
        let Some(last) = exports.last() else { return Ok(()) };
        count += exports.len();
        if count > MAX_EXPORTS {
            return Err(ShmConnectError::Malformed { what: "it has more exports than there can be" });
        }
        from = last.region.rkey.saturating_add(1);
        let full = exports.len() == BATCH;
        let mut fds = fds.iter();
        for description in exports {
            let means = means(&description, &mut fds, handover)?;
            match &means {
                Means::Mapped(view) => view.populate(),
                Means::Unsafe(source) => {
                    let (rkey, source) = (description.region.rkey, *source);
                    return Err(ShmConnectError::Segment { rkey, source });
                }
                Means::FileFollows | Means::Process => {}
            }
            if reports.send(Report::Found(Found { description, means })).is_err() {
                return Ok(());
            }
        }
        if !full {
            return Ok(());
        }
    }
}

/// The exports of an answer, if they go with the descriptors that came.
fn check_exports(
    bytes: &[u8; ANSWER_BYTES],
    ask: Ask,
    fds: &[OwnedFd],
) -> Result<Vec<Description>, ShmConnectError> {
    let exports = wire::check_answer(bytes, ask);
    let exports = exports.ok_or(ShmConnectError::Malformed { what: "a field has an impossible value" })?;
    if exports.iter().filter(|export| export.file().is_some()).count() != fds.len() {
        return Err(ShmConnectError::Malformed { what: "the numbers of exports and of descriptors differ" });
    }
    Ok(exports)
}

/// How this process can read an export. A file that is not safe to map is handed over, to be read.
fn means<'a>(
    export: &Description,
    fds: &mut impl Iterator<Item = &'a OwnedFd>,
    handover: BorrowedFd<'_>,
) -> Result<Means, ShmConnectError> {
    let mut next =
        || fds.next().map(|fd| fd.as_fd()).ok_or(ShmConnectError::Malformed { what: "no descriptor" });
    let mapped = |view: SegmentView| Means::Mapped(Arc::new(view));
    Ok(match export.reach {
        Reach::Process => Means::Process,
        Reach::Segment { .. } => {
            SegmentView::map(next()?, export.region.len).map_or_else(Means::Unsafe, mapped)
        }
        Reach::File { offset, .. } => {
            let fd = next()?;
            let view: Result<_, SegmentViewError> = SegmentView::map_at(fd, offset, export.region.len);
            match view {
                Ok(view) => mapped(view),
                Err(_) => {
                    send(handover, &[0], &[fd]).map_err(failed("handing a descriptor over"))?;
                    Means::FileFollows
                }
            }
        }
    })
}

/// Receives a message that fills `bytes`, and the descriptors that came with it.
fn receive_whole(
    socket: &OwnedFd,
    bytes: &mut [u8],
    step: &'static str,
) -> Result<Vec<OwnedFd>, ShmConnectError> {
    let room = bytes.len();
    let Packet { len, fds, truncated } =
        receive(socket.as_fd(), bytes, RecvFlags::empty()).map_err(failed(step))?;
    if len == 0 {
        return Err(ShmConnectError::Malformed { what: "the connection ended before it came" });
    }
    if len != room || truncated {
        return Err(ShmConnectError::Malformed {
            what: "its length is wrong, or this process has no descriptor left",
        });
    }
    Ok(fds)
}

/// Passes questions of the board on to the exporter until the connection ends, or the stop comes.
fn serve_questions(socket: &OwnedFd, wake: BorrowedFd<'_>, handover: BorrowedFd<'_>, board: &Board) {
    // The question whose answer is due: the exporter answers in order.
    let mut asked = None;
    loop {
        if board.is_stopped() {
            return;
        }
        if asked.is_none() {
            asked = board.next_question();
            if let Some(rkey) = asked
                && net::send(socket, &Ask::One(rkey).to_bytes(), SendFlags::NOSIGNAL).is_err()
            {
                return;
            }
        }
        let mut fds = [PollFd::new(socket, PollFlags::IN), PollFd::from_borrowed_fd(wake, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        if !fds[1].revents().is_empty() {
            // Fails only when the counter is 0, and then the descriptor is not readable.
            let _ = rustix::io::read(wake, &mut [0_u8; 8]);
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        // An exporter sends nothing but answers to questions.
        let Some(rkey) = asked.take() else { return };
        if take_answer(socket, rkey, handover, board).is_err() {
            return;
        }
    }
}

/// Receives the answer to a question, and puts it on the board.
fn take_answer(
    socket: &OwnedFd,
    rkey: u32,
    handover: BorrowedFd<'_>,
    board: &Board,
) -> Result<(), ShmConnectError> {
    let mut bytes = [0; ANSWER_BYTES];
    let fds = receive_whole(socket, &mut bytes, "waiting for an export")?;
    let Some(&description) = check_exports(&bytes, Ask::One(rkey), &fds)?.first() else {
        board.answer(rkey, None);
        return Ok(());
    };
    let means = means(&description, &mut fds.iter(), handover)?;
    let view = match &means {
        Means::Mapped(view) => Some(Arc::clone(view)),
        _ => None,
    };
    board.answer(rkey, Some(Found { description, means }));
    // The READ that waits does not wait for this.
    if let Some(view) = view {
        view.populate();
    }
    Ok(())
}
