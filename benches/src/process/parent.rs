//! A child process from its parent's side.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use serde::Serialize;

use crate::process::protocol::{Order, Reply, Role};

/// How long a child whose pipe is closed may take to say why, and to end.
const LAST_REPLY: Duration = Duration::from_millis(200);
const END: Duration = Duration::from_secs(1);

/// A running child process. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    process: std::process::Child,
    orders: ChildStdin,
    replies: Receiver<Reply>,
    /// How late it gets the orders to begin a round, which only tests want.
    late: Duration,
}

impl Child {
    /// Starts this program again, in the role `role`. Errors call the child `name`.
    pub(crate) fn start(name: impl Into<String>, role: &Role) -> anyhow::Result<Self> {
        let name = name.into();
        let program = std::env::current_exe().context("cannot find out which program this is")?;
        let mut process = Command::new(&program)
            .arg("child")
            .args(tracing::enabled!(tracing::Level::DEBUG).then_some("--verbose"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal goes to the parent alone, which may still want what was counted.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {} as the {name}", program.display()))?;
        let (Some(orders), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("the {name} has no pipe");
        };
        let (sender, replies) = channel();
        let mut child = Self { name, process, orders, replies, late: Duration::ZERO };
        // The thread ends with the pipe, which ends with the child.
        let receive = move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let Ok(reply) = serde_json::from_str(&line) else { break };
                if sender.send(reply).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("bench-receive".into()).spawn(receive);
        thread.with_context(|| format!("cannot start the thread that receives from the {}", child.name))?;
        child.send(role)?;
        Ok(child)
    }

    /// Makes this child late for every round.
    pub(crate) fn hold_up(&mut self, by: Duration) {
        self.late = by;
    }

    /// Gives an order.
    pub(crate) fn order(&mut self, order: Order) -> anyhow::Result<()> {
        if matches!(order, Order::Round { .. }) {
            std::thread::sleep(self.late);
        }
        self.send(&order)
    }

    fn send(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let line = serde_json::to_string(line)?;
        match writeln!(self.orders, "{line}") {
            Ok(()) => Ok(()),
            // The child is gone. Its own last reply says more than "broken pipe" does.
            Err(_) => Err(self.why_gone()),
        }
    }

    /// Waits for an answer, for `patience` at most.
    pub(crate) fn reply(&mut self, patience: Duration) -> anyhow::Result<Reply> {
        match self.replies.recv_timeout(patience) {
            Ok(Reply::Failed(why)) => bail!("{why}"),
            Ok(reply) => Ok(reply),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the {} did not answer for {patience:.0?}; it is stopped now", self.label())
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.why_gone()),
        }
    }

    /// Why the child is gone; `None` if it is there.
    pub(crate) fn failure(&mut self) -> Option<anyhow::Error> {
        match self.replies.try_recv() {
            Ok(Reply::Failed(why)) => Some(anyhow!(why)),
            Ok(_) | Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(self.why_gone()),
        }
    }

    /// Why the child is gone, in its own words if it left any.
    fn why_gone(&mut self) -> anyhow::Error {
        while let Ok(reply) = self.replies.recv_timeout(LAST_REPLY) {
            if let Reply::Failed(why) = reply {
                return anyhow!(why);
            }
        }
        let until = Instant::now() + END;
        while Instant::now() < until {
            match self.process.try_wait() {
                Ok(Some(status)) => {
                    return match status.signal() {
                        Some(signal) => anyhow!("the {} was killed by signal {signal}", self.label()),
                        None => {
                            let code = status.code().unwrap_or(-1);
                            anyhow!("the {} ended with status {code}", self.label())
                        }
                    };
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return error.into(),
            }
        }
        anyhow!("the {} has closed its pipe, but did not end within {END:.0?}", self.label())
    }

    /// The error for a reply of another kind than the order calls for.
    pub(crate) fn unexpected(&self, reply: &Reply) -> anyhow::Error {
        anyhow!("the {} gave an answer that does not fit its order: {reply:?}", self.label())
    }

    fn label(&self) -> String {
        format!("{} (process {})", self.name, self.process.id())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only if the child has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
