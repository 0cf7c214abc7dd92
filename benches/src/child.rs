//! Child processes, and the pipe between them and their parent: one JSON document per line.
//!
//! A child does nothing unasked, and does not outlive its parent: the kernel kills it with the parent
//! (`PR_SET_PDEATHSIG`), and an end of its orders ends it, too.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child as Process, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::memcpy::Routine;
use crate::window::{Count, Span};
use crate::{serve, worker};

/// What a child is to be; the first line that it gets.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Publishes pages, and copies them plainly for comparison.
    Producer(serve::Setup),
    /// Reads pages.
    Worker(worker::Setup),
}

/// What it is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Take the memory that [`Reply::Connected`] asked for. Answer [`Reply::Ready`].
    Register,
    /// Work from `start` on: warm up, then go on for `duration`. Answer [`Reply::Ran`].
    Round {
        /// On the common clock, in nanoseconds.
        start: u64,
        /// In nanoseconds.
        warmup: u64,
        /// In nanoseconds.
        duration: u64,
        /// What a producer copies with.
        routine: Routine,
    },
    /// Count what was done within a window of the last round. Answer [`Reply::Counted`].
    Count(Span),
    /// Compare pages. Answer [`Reply::Verified`].
    Verify,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// A producer serves, at this address.
    Serving {
        /// Where.
        address: String,
        /// How many pages.
        pages: u32,
    },
    /// A worker is connected, and has not taken its memory yet.
    Connected {
        /// Bytes of the host's memory that it wants to read into.
        host_bytes: u64,
    },
    /// A worker is connected and registered.
    Ready {
        /// What reports call the transport.
        transport: String,
        /// What the rails are called.
        rails: Vec<String>,
        /// The engine's chunk.
        chunk_bytes: u32,
        /// Pages that this worker reads.
        pages: u32,
    },
    /// When it was at work.
    Ran(Span),
    /// What it did then.
    Counted(Count),
    /// What a verified pass found.
    Verified(Verified),
    /// It cannot go on; why. The last line.
    Failed(String),
}

/// What a verified pass found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verified {
    /// Pages compared, every byte of them.
    pub(crate) compared: u64,
    /// Of these, pages that differ from what was written.
    pub(crate) wrong: u64,
    /// Pages that did not arrive, and so were not compared.
    pub(crate) missing: u64,
}

/// A child, from its parent's side. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: Process,
    orders: ChildStdin,
    replies: Receiver<Reply>,
}

impl Child {
    /// Starts this program again, as `role`. `name` is what errors call it.
    pub(crate) fn start(name: impl Into<String>, role: &Role) -> anyhow::Result<Self> {
        let name = name.into();
        let program = std::env::current_exe().context("cannot tell which program this is")?;
        let mut process = Command::new(&program)
            .arg("child")
            .args(tracing::enabled!(tracing::Level::DEBUG).then_some("--verbose"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {} as the {name}", program.display()))?;
        let (Some(orders), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("the {name} has no pipe");
        };
        let (tell, replies) = channel();
        let mut child = Self { name, process, orders, replies };
        // Ends with the pipe, and that with the child.
        let listen = move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(reply) = serde_json::from_str(&line) else { break };
                if tell.send(reply).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(listen);
        thread.with_context(|| format!("cannot start the thread that hears the {}", child.name))?;
        child.send(role)?;
        Ok(child)
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Gives an order.
    pub(crate) fn order(&mut self, order: Order) -> anyhow::Result<()> {
        self.send(&order)
    }

    fn send(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let line = serde_json::to_string(line)?;
        match writeln!(self.orders, "{line}") {
            Ok(()) => Ok(()),
            // It is gone. What it had to say about that is better than a broken pipe.
            Err(_) => Err(self.lost()),
        }
    }

    /// Waits for an answer.
    pub(crate) fn reply(&mut self, patience: Duration) -> anyhow::Result<Reply> {
        match self.replies.recv_timeout(patience) {
            Ok(Reply::Failed(why)) => bail!("{why}"),
            Ok(reply) => Ok(reply),
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "the {} (process {}) said nothing for {:.0?}; it has been stopped",
                    self.name,
                    self.id(),
                    patience
                )
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.lost()),
        }
    }

    /// Why it is gone.
    fn lost(&mut self) -> anyhow::Error {
        while let Ok(reply) = self.replies.recv_timeout(Duration::from_millis(200)) {
            if let Reply::Failed(why) = reply {
                return anyhow::anyhow!(why);
            }
        }
        let (name, id) = (&self.name, self.process.id());
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            match self.process.try_wait() {
                Ok(Some(status)) => {
                    return match (status.code(), status.signal()) {
                        (_, Some(signal)) => {
                            anyhow::anyhow!("the {name} (process {id}) was killed by signal {signal}")
                        }
                        (code, _) => {
                            anyhow::anyhow!(
                                "the {name} (process {id}) ended with status {}",
                                code.unwrap_or(-1)
                            )
                        }
                    };
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return error.into(),
            }
        }
        anyhow::anyhow!("the {name} (process {id}) does not answer any more")
    }

    /// An answer of another kind than was due.
    pub(crate) fn confused(&self, reply: &Reply) -> anyhow::Error {
        anyhow::anyhow!("the {} (process {}) answered out of turn: {reply:?}", self.name, self.process.id())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Gone already, then.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A child's main function.
pub(crate) fn run() -> ExitCode {
    match obey() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody listens any more if this fails.
            let _ = say(&Reply::Failed(crate::told(&error)));
            ExitCode::FAILURE
        }
    }
}

fn obey() -> anyhow::Result<()> {
    // A parent that died before this line has closed the pipe, which ends the child as well.
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie this process to its parent")?;
    match hear::<Role>()? {
        Some(Role::Producer(setup)) => serve::child(&setup),
        Some(Role::Worker(setup)) => worker::child(&setup),
        None => Ok(()),
    }
}

/// The next line of the parent; `None`: it has no more to say.
pub(crate) fn hear<T: for<'a> Deserialize<'a>>() -> anyhow::Result<Option<T>> {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let told = serde_json::from_str(&line);
    told.map(Some).context("this command is for the program's own use: run demo, serve or drive")
}

/// A line to the parent.
pub(crate) fn say(reply: &Reply) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(reply)?)?;
    Ok(out.flush()?)
}
