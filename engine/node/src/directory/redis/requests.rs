//! Commands for one shard, and for the server to which a key has moved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use redis::{ServerError, ServerErrorKind, Value};

use super::server::{Command, Server};
use super::topology::Topology;
use crate::directory::DirectoryError;

/// For each command its reply, or why the server gave no reply.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) replies: Vec<Result<Value, DirectoryError>>,
    /// Which process answered, if the server that was asked first did.
    pub(super) process: Option<Arc<str>>,
}

/// Where a command is to be sent again.
#[derive(Debug, PartialEq, Eq)]
enum Redirect {
    /// To the server that has the slot by now.
    Moved,
    /// To this server, once: the key is on its way there.
    Ask(String, u16),
}

/// Sends commands to a server, and once more to those servers to which their keys have moved.
pub(super) async fn run(topology: &Arc<Topology>, server: &Server, commands: &[Command]) -> Results {
    let begun = Instant::now();
    let all: Vec<&Command> = commands.iter().collect();
    let replies = match server.execute(&all, false).await {
        Ok(replies) => replies,
        Err(error) => {
            // The server may be dead, and another have taken over. This request does not wait for
            // that to be found out.
            if topology.is_cluster() {
                let topology = Arc::clone(topology);
                tokio::spawn(async move { topology.refresh(begun).await.map(drop) });
            }
            return Results { replies: vec![Err(error); commands.len()], process: None };
        }
    };
    let (mut results, mut again) = (Vec::with_capacity(commands.len()), Vec::new());
    for (at, value) in replies.values.into_iter().enumerate() {
        if let Value::ServerError(error) = &value
            && topology.is_cluster()
            && let Some(redirect) = redirect(error)
        {
            again.push((at, redirect));
        }
        results.push(reply(server, value));
    }
    if !again.is_empty() {
        follow(topology, commands, again, &mut results, begun).await;
    }
    Results { replies: results, process: Some(replies.process) }
}

/// Sends the commands of `again` to other servers, and puts their replies into `results`. Commands
/// that are turned away there, too, keep their errors.
async fn follow(
    topology: &Topology,
    commands: &[Command],
    again: Vec<(usize, Redirect)>,
    results: &mut [Result<Value, DirectoryError>],
    begun: Instant,
) {
    let moved = again.iter().any(|(_, redirect)| *redirect == Redirect::Moved);
    let map = if moved { topology.refresh(begun).await.ok() } else { None };
    let mut groups: BTreeMap<_, (Arc<Server>, Vec<usize>)> = BTreeMap::new();
    for (at, redirect) in again {
        let (server, asking) = match redirect {
            Redirect::Ask(host, port) => (topology.server(&host, port), true),
            Redirect::Moved => {
                let Some(map) = &map else { continue };
                let Some(shard) = map.shard_of(commands[at].slot) else { continue };
                (Arc::clone(&map.shards[shard].server), false)
            }
        };
        groups.entry((server.name.clone(), asking)).or_insert_with(|| (server, Vec::new())).1.push(at);
    }
    for ((_, asking), (server, places)) in groups {
        let group: Vec<_> = places.iter().map(|&at| &commands[at]).collect();
        match server.execute(&group, asking).await {
            Ok(replies) => {
                for (at, value) in places.into_iter().zip(replies.values) {
                    results[at] = reply(&server, value);
                }
            }
            Err(error) => places.into_iter().for_each(|at| results[at] = Err(error.clone())),
        }
    }
}

/// A value as a reply: an error of the server is one.
fn reply(server: &Server, value: Value) -> Result<Value, DirectoryError> {
    match value {
        Value::ServerError(error) => {
            let hint = match error.kind() {
                Some(ServerErrorKind::Moved | ServerErrorKind::Ask) => {
                    "; it is a server of a cluster: if the URL says redis://, write redis-cluster://"
                }
                Some(ServerErrorKind::ClusterDown) => "; set cluster-require-full-coverage to no",
                _ => "",
            };
            let why = format!("{} {}{hint}", error.code(), error.details().unwrap_or_default()).into();
            Err(DirectoryError::Refused { directory: server.name.clone(), why })
        }
        value => Ok(value),
    }
}

fn redirect(error: &ServerError) -> Option<Redirect> {
    match error.kind()? {
        // A server that was a master until a moment ago answers that it only reads.
        ServerErrorKind::Moved | ServerErrorKind::ReadOnly => Some(Redirect::Moved),
        ServerErrorKind::Ask => {
            // `ASK 3999 127.0.0.1:6381`, of which the code is cut off.
            let address = error.details()?.split_whitespace().nth(1)?;
            let (host, port) = address.rsplit_once(':')?;
            Some(Redirect::Ask(host.to_owned(), port.parse().ok()?)).filter(|_| !host.is_empty())
        }
        _ => None,
    }
}
