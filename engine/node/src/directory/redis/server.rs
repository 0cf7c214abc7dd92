//! One server: its connection, how long it is left alone after a failure, and how requests are
//! sent.
//!
//! All requests to a server go over one connection, which matches replies to requests by their
//! order. Where anything goes wrong with a request, the whole connection is given up: a connection
//! on which one reply is missing would answer each later request with the reply of another. The
//! time-out for that is the server's own ([`RedisConfig::timeouts`]), not the deadline of a caller,
//! who may have little time.
//!
//! [`RedisConfig::timeouts`]: super::RedisConfig::timeouts

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};

use super::address::{Servers, server_name};
use super::stored;
use crate::directory::DirectoryError;

/// The most requests that wait for one server, before further ones are refused.
const MAX_PENDING: usize = 256;
/// How long a server is left alone after its first failure, and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// One command.
#[derive(Debug)]
pub(super) struct Command {
    /// The slot of its key.
    pub(super) slot: u16,
    pub(super) call: Call,
}

/// What a command does.
#[derive(Debug)]
pub(super) enum Call {
    /// A command of the server.
    Plain(Cmd),
    /// A script of ours with a key and arguments.
    Script(Script, String, Vec<Vec<u8>>),
}

/// A script of ours.
#[derive(Clone, Copy, Debug)]
pub(super) enum Script {
    Announce,
    Withdraw,
}

impl Script {
    const ALL: [Self; 2] = [Self::Announce, Self::Withdraw];

    const fn text(self) -> &'static str {
        match self {
            Self::Announce => stored::ANNOUNCE,
            Self::Withdraw => stored::WITHDRAW,
        }
    }
}

/// The replies to commands, one each.
#[derive(Debug)]
pub(super) struct Replies {
    pub(super) values: Vec<Value>,
    /// Which process answered: another text after a restart and after a failover.
    pub(super) process: Arc<str>,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    /// As errors name it: `redis://10.0.0.5:6379`.
    pub(super) name: Arc<str>,
    pub(super) host: String,
    client: Result<Client, DirectoryError>,
    connect: Duration,
    reply: Duration,
    pending: AtomicUsize,
    state: Mutex<State>,
    /// Held while the connection is made.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Live>,
    /// Connections that were made.
    made: u64,
    /// Failures since the last success.
    failures: u32,
    /// Not asked before this time.
    not_before: Option<Instant>,
}

/// A connection, and what was learned when it was made.
#[derive(Clone, Debug)]
struct Live {
    number: u64,
    connection: MultiplexedConnection,
    process: Arc<str>,
    /// The name that the server has given each script, if it has.
    scripts: [Option<Arc<str>>; Script::ALL.len()],
}

/// Counts a request as long as it waits.
struct Pending<'a>(&'a AtomicUsize);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    pub(super) fn new(servers: &Servers, host: &str, port: u16, connect: Duration, reply: Duration) -> Self {
        let address = server_name(host, port);
        let scheme = if servers.tls { "rediss" } else { "redis" };
        let name: Arc<str> = format!("{scheme}://{address}").into();
        let client = servers.connection(host, port).and_then(Client::open);
        let client = client.map_err(|error| failure(&name, &error));
        Self {
            name,
            host: host.to_owned(),
            client,
            connect,
            reply,
            pending: AtomicUsize::new(0),
            state: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What it guards is valid even if a thread panicked while it held the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends all commands at once and waits for their replies. `asking`: each key is on its way to
    /// this server, which answers for it only if it is told so.
    pub(super) async fn execute(
        &self,
        commands: &[&Command],
        asking: bool,
    ) -> Result<Replies, DirectoryError> {
        if commands.is_empty() {
            return Ok(Replies { values: Vec::new(), process: "".into() });
        }
        if self.pending.fetch_add(1, Ordering::Relaxed) >= MAX_PENDING {
            self.pending.fetch_sub(1, Ordering::Relaxed);
            return Err(self.backing_off(self.reply));
        }
        let _pending = Pending(&self.pending);
        let mut live = self.live().await?;
        let mut values = self.send(&mut live, commands, asking, false).await?;
        let no_script = |value: &Value| matches!(value, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript));
        let again: Vec<usize> = (0..values.len()).filter(|&at| no_script(&values[at])).collect();
        if !again.is_empty() {
            // The server was told to forget its scripts: they are sent in full.
            let commands: Vec<_> = again.iter().map(|&at| commands[at]).collect();
            let replies = self.send(&mut live, &commands, asking, true).await?;
            for (at, value) in again.into_iter().zip(replies) {
                values[at] = value;
            }
        }
        Ok(Replies { values, process: live.process })
    }

    async fn send(
        &self,
        live: &mut Live,
        commands: &[&Command],
        asking: bool,
        full: bool,
    ) -> Result<Vec<Value>, DirectoryError> {
        let mut pipeline = Pipeline::with_capacity(commands.len() * (1 + usize::from(asking)));
        for command in commands {
            if asking {
                pipeline.add_command(redis::cmd("ASKING"));
            }
            pipeline.add_command(live.packed(&command.call, full));
        }
        let count = pipeline.len();
        let replies = live.connection.req_packed_commands(&pipeline, 0, count);
        let mut values = match tokio::time::timeout(self.reply, replies).await {
            Ok(Ok(values)) if values.len() == count => values,
            Ok(Ok(values)) => {
                let why = format!("{} replies to {count} commands", values.len()).into();
                return Err(self.give_up(live, DirectoryError::Answer { directory: self.name.clone(), why }));
            }
            Ok(Err(error)) => return Err(self.give_up(live, failure(&self.name, &error))),
            Err(_) => {
                return Err(self.give_up(live, DirectoryError::Deadline { directory: self.name.clone() }));
            }
        };
        if asking {
            let mut at = 0;
            values.retain(|_| {
                at += 1;
                at % 2 == 0
            });
        }
        let mut state = self.state();
        (state.failures, state.not_before) = (0, None);
        Ok(values)
    }

    /// Gives the connection up after an error.
    fn give_up(&self, live: &Live, error: DirectoryError) -> DirectoryError {
        let mut state = self.state();
        // Another request may have done it already.
        if state.live.as_ref().is_some_and(|current| current.number == live.number) {
            state.live = None;
            state.fail();
            tracing::debug!(server = %self.name, %error, "the connection to a directory server was given up");
        }
        error
    }

    fn backing_off(&self, wait: Duration) -> DirectoryError {
        DirectoryError::BackingOff { directory: self.name.clone(), wait }
    }

    /// The connection, which is made if there is none.
    async fn live(&self) -> Result<Live, DirectoryError> {
        let client = self.client.as_ref().map_err(Clone::clone)?;
        let (failed, current) = self.current()?;
        if let Some(live) = current {
            return Ok(live);
        }
        // After a failure one request at a time tries, and the others do not wait for it.
        let _connecting = match self.connecting.try_lock() {
            Ok(guard) => guard,
            Err(_) if failed => return Err(self.backing_off(self.connect)),
            Err(_) => self.connecting.lock().await,
        };
        if let (_, Some(live)) = self.current()? {
            return Ok(live);
        }
        let made = tokio::time::timeout(self.connect, self.open(client)).await;
        let mut state = self.state();
        let error = match made {
            Ok(Ok(mut live)) => {
                state.made += 1;
                live.number = state.made;
                state.live = Some(live.clone());
                return Ok(live);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                let why = format!("no connection within {:?}", self.connect).into();
                DirectoryError::Unreachable { directory: self.name.clone(), why }
            }
        };
        state.fail();
        Err(error)
    }

    /// Whether the last attempt failed, and the connection if there is one.
    fn current(&self) -> Result<(bool, Option<Live>), DirectoryError> {
        let state = self.state();
        if let Some(live) = &state.live {
            return Ok((false, Some(live.clone())));
        }
        let wait = state.not_before.map(|until| until.saturating_duration_since(Instant::now()));
        match wait {
            Some(wait) if !wait.is_zero() => Err(self.backing_off(wait)),
            _ => Ok((state.failures > 0, None)),
        }
    }

    async fn open(&self, client: &Client) -> Result<Live, DirectoryError> {
        let limits = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect))
            .set_response_timeout(Some(self.reply));
        let connection = client.get_multiplexed_async_connection_with_config(&limits).await;
        let mut connection = connection.map_err(|error| failure(&self.name, &error))?;
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO").arg("server");
        for script in Script::ALL {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.text());
        }
        let replies = connection.req_packed_commands(&pipeline, 0, pipeline.len()).await;
        let replies = replies.map_err(|error| failure(&self.name, &error))?;
        // A user that may not ask for these things works all the same: a process without a name
        // never differs from itself, and scripts without a name are sent in full.
        let text =
            |value: Option<&Value>| value.and_then(|value| redis::from_redis_value_ref::<String>(value).ok());
        let info = text(replies.first()).unwrap_or_default();
        let process = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default();
        let script = |at: usize| text(replies.get(at)).filter(|name| name.len() == 40).map(Into::into);
        let scripts = std::array::from_fn(|at| script(at + 1));
        Ok(Live { number: 0, connection, process: process.trim().into(), scripts })
    }
}

impl State {
    /// Counts a failure, and leaves the server alone for a while: twice as long after each.
    fn fail(&mut self) {
        let (first, most) = BACK_OFF;
        let wait = first.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        // Nodes that have lost a server at the same moment do not all come back at the same moment.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let jitter = now.subsec_nanos() % 256;
        self.not_before = Some(Instant::now() + wait.mul_f64(0.75 + f64::from(jitter) / 1024.0));
    }
}

impl Live {
    /// A call as a command; `full`: with the whole text of a script.
    fn packed(&self, call: &Call, full: bool) -> Cmd {
        let (script, key, args) = match call {
            Call::Plain(command) => return command.clone(),
            Call::Script(script, key, args) => (*script, key, args),
        };
        let mut command = match &self.scripts[script as usize] {
            Some(name) if !full => {
                let mut command = redis::cmd("EVALSHA");
                command.arg(&**name);
                command
            }
            _ => {
                let mut command = redis::cmd("EVAL");
                command.arg(script.text());
                command
            }
        };
        command.arg(1).arg(key).arg(args);
        command
    }
}

/// An error of the crate as ours.
fn failure(server: &Arc<str>, error: &RedisError) -> DirectoryError {
    let directory = Arc::clone(server);
    let why = error.to_string().into();
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::Server(_) | ErrorKind::InvalidClientConfig => {
            DirectoryError::Refused { directory, why }
        }
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => DirectoryError::Answer { directory, why },
        _ if error.is_timeout() => DirectoryError::Deadline { directory },
        _ => DirectoryError::Unreachable { directory, why },
    }
}
