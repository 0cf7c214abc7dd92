//! Which server has which keys: one server all of them, a cluster's servers a range of slots each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use redis::Value;
use tokio::task::JoinSet;

use super::address::{RedisConfig, server_name};
use super::server::{Call, Command, Server};
use super::stored::{SLOTS, copy_slot};
use crate::directory::DirectoryError;

/// The most shards of a cluster: Redis recommends at most 1,000 servers.
const MAX_SHARDS: usize = 1024;
/// How many copies of an owner's entry are tried to find one for each shard. A shard for which none
/// is found has so few slots that its losses are noticed by the owner's next announcement of all.
const MAX_COPIES: u16 = 8192;
/// The slot of a shard that has none.
const NO_SHARD: u16 = u16::MAX;

/// A server that answers for a part of the slots.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    pub(super) server: Arc<Server>,
    /// The number of the owners' copies that lie on it.
    pub(super) copy: Option<u16>,
}

/// Which shard has which slot.
#[derive(Debug)]
pub(super) struct SlotMap {
    slots: Box<[u16]>,
    pub(super) shards: Vec<Shard>,
}

/// The servers that are known.
#[derive(Debug)]
pub(super) struct Topology {
    config: RedisConfig,
    servers: Mutex<BTreeMap<String, Arc<Server>>>,
    map: Mutex<Option<Arc<SlotMap>>>,
    /// When the map was last asked for; locked while it is.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

impl SlotMap {
    /// The number of the shard with a slot.
    pub(super) fn shard_of(&self, slot: u16) -> Option<usize> {
        self.slots.get(usize::from(slot)).filter(|&&shard| shard != NO_SHARD).map(|&shard| shard.into())
    }

    /// Finds a copy of the owners' entries for each shard.
    fn with_copies(mut self) -> Self {
        let mut missing = self.shards.len();
        for copy in 0..MAX_COPIES {
            if missing == 0 {
                break;
            }
            let Some(shard) = self.shard_of(copy_slot(copy)) else { continue };
            let shard = &mut self.shards[shard];
            if shard.copy.is_none() {
                shard.copy = Some(copy);
                missing -= 1;
            }
        }
        self
    }
}

impl Topology {
    pub(super) fn new(config: RedisConfig) -> Self {
        let topology = Self {
            config,
            servers: Mutex::default(),
            map: Mutex::default(),
            asked: tokio::sync::Mutex::default(),
        };
        if !topology.is_cluster() {
            let (host, port) = &topology.config.servers().seeds[0];
            let shard = Shard { server: topology.server(host, *port), copy: None };
            let map = SlotMap { slots: vec![0; SLOTS.into()].into(), shards: vec![shard] };
            topology.install(map.with_copies());
        }
        topology
    }

    pub(super) const fn is_cluster(&self) -> bool {
        self.config.servers().cluster
    }

    /// The server at an address.
    pub(super) fn server(&self, host: &str, port: u16) -> Arc<Server> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let RedisConfig { connect, reply, .. } = self.config;
        let new = || Arc::new(Server::new(self.config.servers(), host, port, connect, reply));
        Arc::clone(servers.entry(server_name(host, port)).or_insert_with(new))
    }

    fn install(&self, map: SlotMap) -> Arc<SlotMap> {
        let map = Arc::new(map);
        *self.map.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&map));
        map
    }

    fn known(&self) -> Option<Arc<SlotMap>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The map, which is asked for if none is known.
    pub(super) async fn map(&self) -> Result<Arc<SlotMap>, DirectoryError> {
        match self.known() {
            Some(map) => Ok(map),
            None => self.refresh(Instant::now()).await,
        }
    }

    /// The map as it is after `since`: asked for again unless another call has done so since then.
    pub(super) async fn refresh(&self, since: Instant) -> Result<Arc<SlotMap>, DirectoryError> {
        let mut asked = self.asked.lock().await;
        if let Some(map) = self.known()
            && (!self.is_cluster() || asked.is_some_and(|at| at >= since))
        {
            return Ok(map);
        }
        let begun = Instant::now();
        let mut calls = JoinSet::new();
        for server in self.to_ask() {
            calls.spawn(async move {
                let mut command = redis::cmd("CLUSTER");
                command.arg("SLOTS");
                let command = Command { slot: 0, call: Call::Plain(command) };
                let replies = server.execute(&[&command], false).await;
                (replies, server)
            });
        }
        // The first that answers is believed: a server of a cluster that does not know better says
        // who does when it is asked for a key.
        let mut failed = None;
        while let Some(joined) = calls.join_next().await {
            let Ok((replies, server)) = joined else { continue };
            let parsed = replies.and_then(|replies| {
                let why =
                    |why: String| DirectoryError::Answer { directory: server.name.clone(), why: why.into() };
                match replies.values.first() {
                    Some(Value::ServerError(error)) => {
                        let why = error.to_string().into();
                        Err(DirectoryError::Refused { directory: server.name.clone(), why })
                    }
                    Some(value) => self.parse(value, &server.host).map_err(why),
                    None => Err(why("no reply".to_owned())),
                }
            });
            match parsed {
                Ok(map) => {
                    *asked = Some(begun);
                    self.forget_others(&map);
                    return Ok(self.install(map));
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let directory = self.config.servers().to_string().into();
        Err(failed
            .unwrap_or_else(|| DirectoryError::Unreachable { directory, why: "no server is known".into() }))
    }

    /// The servers that are asked for the map: those of the map that is known, and of the URL.
    fn to_ask(&self) -> Vec<Arc<Server>> {
        let seeds = self.config.servers().seeds.iter();
        let seeds: Vec<_> = seeds.map(|(host, port)| self.server(host, *port)).collect();
        let known = self.known();
        let known = known.iter().flat_map(|map| map.shards.iter().map(|shard| Arc::clone(&shard.server)));
        let mut all: BTreeMap<_, _> = seeds.into_iter().map(|server| (server.name.clone(), server)).collect();
        all.extend(known.take(8).map(|server| (server.name.clone(), server)));
        all.into_values().collect()
    }

    /// Closes the connections to servers that have no slots any more.
    fn forget_others(&self, map: &SlotMap) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|_, server| map.shards.iter().any(|shard| Arc::ptr_eq(&shard.server, server)));
    }

    /// The map in a reply to `CLUSTER SLOTS`: a list of (first slot, last slot, master, replicas…),
    /// a server being (host, port, …). No host: the one that was asked.
    fn parse(&self, reply: &Value, asked: &str) -> Result<SlotMap, String> {
        let Value::Array(ranges) = reply else { return Err("the map of slots is no list".to_owned()) };
        let mut map = SlotMap { slots: vec![NO_SHARD; SLOTS.into()].into(), shards: Vec::new() };
        for range in ranges {
            let Value::Array(range) = range else { return Err("a range of slots is no list".to_owned()) };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
                return Err("a range of slots has no bounds, or no server".to_owned());
            };
            let number = |bound: &i64| usize::try_from(*bound).ok().filter(|&slot| slot < SLOTS.into());
            let (Some(first), Some(last)) = (number(first), number(last)) else {
                return Err(format!("a range of slots from {first} to {last}"));
            };
            let [host, Value::Int(port), ..] = &master[..] else {
                return Err("a server has no port".to_owned());
            };
            let host = match host {
                Value::BulkString(host) => std::str::from_utf8(host).map_err(|_| "a host is no text")?,
                Value::SimpleString(host) => host,
                Value::Nil => asked,
                _ => return Err("a host is no text".to_owned()),
            };
            let host = if host.is_empty() { asked } else { host };
            let port = u16::try_from(*port).map_err(|_| format!("the port {port}"))?;
            // `?` is a server whose address is not known yet.
            if host == "?" || port == 0 || first > last {
                continue;
            }
            let server = self.server(host, port);
            let place = map.shards.iter().position(|shard| Arc::ptr_eq(&shard.server, &server));
            let place = place.unwrap_or_else(|| {
                map.shards.push(Shard { server, copy: None });
                map.shards.len() - 1
            });
            if place >= MAX_SHARDS {
                return Err(format!("more than {MAX_SHARDS} servers"));
            }
            // MAX_SHARDS fits, and is less than NO_SHARD.
            map.slots[first..=last].fill(u16::try_from(place).unwrap_or(NO_SHARD));
        }
        if map.shards.is_empty() {
            return Err("no server has any slot: create the cluster first".to_owned());
        }
        Ok(map.with_copies())
    }
}
