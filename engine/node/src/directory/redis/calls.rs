//! The calls of a directory as they run on its own thread, shard by shard. Each part sends what it
//! has found as soon as it has it, so that a caller whose time is up has the answers of the others.

use std::collections::HashMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kvrail::session::Epoch;
use kvrail_core::table::KeyTag;
use redis::Value;

use super::address::RedisConfig;
use super::owners::{Alive, Announcers, Liveness, ToldServer};
use super::requests::{self, Results};
use super::server::{Call, Command, Script};
use super::stored;
use super::topology::{Shard, SlotMap, Topology};
use crate::directory::{DirectoryError, Owner};
use crate::record::Record;

/// The most commands of a message that announces or withdraws: a server should not be busy with one
/// client for longer than some milliseconds.
const MESSAGE: usize = 1000;
/// The most owners that one look-up asks a shard for, beside records.
const MAX_ASKED: usize = 1024;

/// What all calls share.
#[derive(Debug)]
pub(super) struct Calls {
    pub(super) config: RedisConfig,
    pub(super) topology: Arc<Topology>,
    pub(super) announcers: Announcers,
    pub(super) liveness: Liveness,
}

/// The answers to some keys of a look-up, by their numbers.
pub(super) type Answers = (Vec<usize>, Vec<Result<Vec<Record>, DirectoryError>>);
/// What one shard has of each owner; an error if it did not answer.
pub(super) type Owners = Result<Vec<Option<Owner>>, DirectoryError>;

/// What becomes of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Announce,
    Withdraw,
}

impl Calls {
    /// How long a record stays that is not announced again.
    fn record_time(&self) -> Duration {
        2 * self.config.refresh + self.config.lease
    }

    /// Groups things by the shard of their slot. Those whose slot no shard has come apart.
    fn grouped<T>(
        map: &SlotMap,
        things: impl Iterator<Item = T>,
        slot: impl Fn(&T) -> u16,
    ) -> (HashMap<usize, Vec<T>>, Vec<T>) {
        let (mut groups, mut without) = (HashMap::<usize, Vec<T>>::new(), Vec::new());
        for thing in things {
            match map.shard_of(slot(&thing)) {
                Some(shard) => groups.entry(shard).or_default().push(thing),
                None => without.push(thing),
            }
        }
        (groups, without)
    }

    fn no_shard(&self) -> DirectoryError {
        let directory = self.config.servers().to_string().into();
        DirectoryError::Unreachable { directory, why: "no server has the slot of the key".into() }
    }

    /// Looks `tags` up.
    pub(super) async fn look_up(self: Arc<Self>, tags: Vec<KeyTag>, out: Sender<Answers>) {
        let map = match self.topology.map().await {
            Ok(map) => map,
            Err(error) => {
                let _ = out.send(((0..tags.len()).collect(), vec![Err(error); tags.len()]));
                return;
            }
        };
        let prefix = self.config.key_prefix();
        let keys = tags.iter().enumerate().map(|(at, &tag)| {
            let key = stored::page_key(prefix, tag);
            (at, tag, stored::slot(&key), key)
        });
        let (groups, without) = Self::grouped(&map, keys, |(_, _, slot, _)| *slot);
        if !without.is_empty() {
            let begun = Instant::now();
            let errors = vec![Err(self.no_shard()); without.len()];
            let _ = out.send((without.into_iter().map(|(at, ..)| at).collect(), errors));
            let calls = Arc::clone(&self);
            tokio::spawn(async move { calls.topology.refresh(begun).await.map(drop) });
        }
        for (shard, keys) in groups {
            let (calls, out, shard) = (Arc::clone(&self), out.clone(), map.shards[shard].clone());
            tokio::spawn(async move {
                let (mut places, mut tags, mut commands) = (Vec::new(), Vec::new(), Vec::new());
                for (at, tag, slot, key) in keys {
                    let mut command = redis::cmd("HRANDFIELD");
                    command.arg(key).arg(stored::MAX_FIELDS).arg("WITHVALUES");
                    places.push(at);
                    tags.push(tag);
                    commands.push(Command { slot, call: Call::Plain(command) });
                }
                let answers = calls.answers(&shard, &tags, &commands).await;
                // The caller may have left.
                let _ = out.send((places, answers));
            });
        }
    }

    async fn answers(
        &self,
        shard: &Shard,
        tags: &[KeyTag],
        commands: &[Command],
    ) -> Vec<Result<Vec<Record>, DirectoryError>> {
        let results = requests::run(&self.topology, &shard.server, commands).await;
        let read = |(reply, &tag): (Result<Value, DirectoryError>, &KeyTag)| match reply {
            Ok(Value::Array(parts)) => Ok(records(tag, &parts)),
            Ok(Value::Nil) => Ok(Vec::new()),
            Ok(other) => {
                let why = format!("{other:.40?} in place of records").into();
                Err(DirectoryError::Answer { directory: shard.server.name.clone(), why })
            }
            // Another program has put another kind of value there.
            Err(DirectoryError::Refused { why, .. }) if why.starts_with("WRONGTYPE") => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let mut answers: Vec<_> = results.replies.into_iter().zip(tags).map(read).collect();
        let named = answers.iter().filter_map(|answer| answer.as_ref().ok()).flatten();
        // Each owner is judged once: what is known of it may come to its end at any moment.
        let mut judged: HashMap<Epoch, Option<Alive>> = HashMap::new();
        for record in named {
            judged.entry(record.owner).or_insert_with(|| self.liveness.get(record.owner));
        }
        let unknown = judged.iter().filter(|(_, alive)| alive.is_none()).map(|(&owner, _)| owner);
        let unknown: Vec<_> = unknown.take(MAX_ASKED).collect();
        if !unknown.is_empty() {
            let asked = self.ask_whether_alive(shard, &unknown).await;
            judged.extend(unknown.into_iter().zip(asked));
        }
        for answer in answers.iter_mut().flatten() {
            answer.retain(|record| judged.get(&record.owner) != Some(&Some(Alive::No)));
        }
        answers
    }

    /// Finds out which owners are alive. Of those for which that fails nothing is known: their
    /// records are hints like all others.
    async fn ask_whether_alive(&self, shard: &Shard, owners: &[Epoch]) -> Vec<Option<Alive>> {
        let Some(copy) = shard.copy else { return vec![None; owners.len()] };
        let slot = stored::copy_slot(copy);
        let ask = |&epoch: &Epoch| {
            let mut command = redis::cmd("PTTL");
            command.arg(stored::owner_key(self.config.key_prefix(), epoch, copy));
            Command { slot, call: Call::Plain(command) }
        };
        let commands: Vec<_> = owners.iter().map(ask).collect();
        let Results { replies, .. } = requests::run(&self.topology, &shard.server, &commands).await;
        let judge = |(&owner, reply): (&Epoch, Result<Value, DirectoryError>)| match reply {
            // As long as the lease runs; a larger time is not this program's.
            Ok(Value::Int(ms @ 1..)) => {
                let left = Duration::from_millis(ms.unsigned_abs());
                Some(self.liveness.note(owner, Alive::Yes, left.min(self.config.lease)))
            }
            // There is no such owner. It may come back at any time.
            Ok(Value::Int(_)) => Some(self.liveness.note(owner, Alive::No, self.config.lease / 10)),
            _ => None,
        };
        owners.iter().zip(replies).map(judge).collect()
    }

    /// What each shard has of the owners.
    pub(super) async fn owners(self: Arc<Self>, epochs: Vec<Epoch>, out: Sender<Owners>) {
        let map = match self.topology.map().await {
            Ok(map) => map,
            Err(error) => {
                let _ = out.send(Err(error));
                return;
            }
        };
        let epochs: Arc<[Epoch]> = epochs.into();
        for shard in map.shards.iter().filter(|shard| shard.copy.is_some()) {
            let (calls, out, shard, epochs) =
                (Arc::clone(&self), out.clone(), shard.clone(), Arc::clone(&epochs));
            tokio::spawn(async move {
                let _ = out.send(calls.owners_of(&shard, &epochs).await);
            });
        }
    }

    async fn owners_of(&self, shard: &Shard, epochs: &[Epoch]) -> Owners {
        let copy = shard.copy.unwrap_or_default();
        let slot = stored::copy_slot(copy);
        let get = |&epoch: &Epoch| {
            let mut command = redis::cmd("GET");
            command.arg(stored::owner_key(self.config.key_prefix(), epoch, copy));
            Command { slot, call: Call::Plain(command) }
        };
        let mut owners = Vec::with_capacity(epochs.len());
        for some in epochs.chunks(MESSAGE) {
            let commands: Vec<_> = some.iter().map(get).collect();
            let results = requests::run(&self.topology, &shard.server, &commands).await;
            for (reply, &epoch) in results.replies.into_iter().zip(some) {
                owners.push(match reply {
                    Ok(Value::BulkString(bytes)) => stored::owner(epoch, &bytes),
                    Ok(_) => None,
                    Err(DirectoryError::Refused { why, .. }) if why.starts_with("WRONGTYPE") => None,
                    Err(error) => return Err(error),
                });
            }
        }
        Ok(owners)
    }

    /// Announces or withdraws records, of which an announcement also makes the owner known.
    pub(super) async fn change(
        self: Arc<Self>,
        change: Change,
        owner: Option<Owner>,
        records: Vec<Record>,
        deadline: Instant,
    ) -> Result<(), DirectoryError> {
        let forget = 10 * self.record_time();
        let announcer = owner.map(|owner| (self.announcers.begin(owner.epoch, forget), owner));
        let announcer = announcer.map(|(first, owner)| Arc::new((first, owner)));
        let map = match self.topology.map().await {
            Ok(map) => map,
            Err(error) => {
                announcer.iter().for_each(|of| self.announcers.failed(of.1.epoch, None));
                return Err(error);
            }
        };
        let time = u64::try_from(self.record_time().as_millis()).unwrap_or(u64::MAX);
        let commands = records.iter().map(|record| self.command(change, record, time));
        let (mut groups, without) = Self::grouped(&map, commands, |command| command.slot);
        let error = Arc::new(Mutex::new((!without.is_empty()).then(|| self.no_shard())));
        if !without.is_empty() {
            announcer.iter().for_each(|of| self.announcers.failed(of.1.epoch, None));
        }
        let mut tasks = tokio::task::JoinSet::new();
        for (place, shard) in map.shards.iter().enumerate() {
            let commands = groups.remove(&place).unwrap_or_default();
            // Every shard is told of the owner.
            if commands.is_empty() && announcer.is_none() {
                continue;
            }
            let (calls, shard, announcer) = (Arc::clone(&self), shard.clone(), announcer.clone());
            tasks.spawn(async move {
                let epoch = announcer.as_ref().map(|of| of.1.epoch);
                let has_records = !commands.is_empty();
                let result = calls.change_shard(&shard, announcer.as_deref(), commands, deadline).await;
                if let (Err(_), Some(epoch)) = (&result, epoch) {
                    calls.announcers.failed(epoch, Some(&shard.server.name));
                }
                (has_records, result)
            });
        }
        // That a shard without any of the records was told of the owner does not matter, as long as
        // one was.
        let (mut told, mut why) = (false, None);
        while let Some(joined) = tasks.join_next().await {
            match joined {
                Ok((_, Ok(()))) => told = true,
                Ok((true, Err(failed))) => {
                    let mut error = error.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    error.get_or_insert(failed);
                }
                Ok((false, Err(failed))) => why = why.or(Some(failed)),
                Err(_) => {}
            }
        }
        let error = error.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let silent = why.filter(|_| !told && announcer.is_some());
        error.or(silent).map_or(Ok(()), Err)
    }

    fn command(&self, change: Change, record: &Record, time: u64) -> Command {
        let key = stored::page_key(self.config.key_prefix(), record.tag);
        let slot = stored::slot(&key);
        let mut args = vec![stored::field(record.owner).into_bytes(), record.to_bytes().to_vec()];
        let script = match change {
            Change::Withdraw => Script::Withdraw,
            Change::Announce => {
                args.push(time.to_string().into_bytes());
                args.push(stored::MAX_FIELDS.to_string().into_bytes());
                Script::Announce
            }
        };
        Command { slot, call: Call::Script(script, key, args) }
    }

    async fn change_shard(
        &self,
        shard: &Shard,
        announcer: Option<&(bool, Owner)>,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<(), DirectoryError> {
        if let Some((first, owner)) = announcer {
            self.tell(shard, owner, *first, false).await?;
        }
        for message in commands.chunks(MESSAGE) {
            if Instant::now() >= deadline {
                return Err(DirectoryError::Deadline { directory: shard.server.name.clone() });
            }
            let results = requests::run(&self.topology, &shard.server, message).await;
            results.replies.into_iter().try_for_each(|reply| reply.map(drop))?;
        }
        Ok(())
    }

    /// Writes the owner's entry to a shard, and notes whether it was there.
    async fn tell(
        &self,
        shard: &Shard,
        owner: &Owner,
        first: bool,
        renewal: bool,
    ) -> Result<(), DirectoryError> {
        let Some(copy) = shard.copy else { return Ok(()) };
        let lease = u64::try_from(self.config.lease.as_millis()).unwrap_or(u64::MAX);
        let key = stored::owner_key(self.config.key_prefix(), owner.epoch, copy);
        let mut command = redis::cmd("SET");
        command.arg(&key).arg(stored::owner_text(owner)).arg("PX").arg(lease).arg("GET");
        let command = Command { slot: stored::copy_slot(copy), call: Call::Plain(command) };
        let mut results = requests::run(&self.topology, &shard.server, std::slice::from_ref(&command)).await;
        let existed = match results.replies.pop() {
            Some(Ok(Value::BulkString(_))) => true,
            Some(Ok(_)) | None => false,
            Some(Err(error)) => return Err(error),
        };
        let process = results.process.unwrap_or_else(|| "".into());
        let found = ToldServer { first, existed, renewal };
        self.announcers.note(owner.epoch, &shard.server.name, &process, found);
        self.liveness.note(owner.epoch, Alive::Yes, self.config.lease);
        Ok(())
    }

    /// Begins an owner's lease anew on all shards; the names of those that answered, or an error if
    /// any did not.
    pub(super) async fn renew(
        self: Arc<Self>,
        owner: Owner,
    ) -> Result<(Vec<Arc<str>>, Option<DirectoryError>), DirectoryError> {
        let first = self.announcers.begin(owner.epoch, 10 * self.record_time());
        // Each renewal asks for the map of a cluster, so that a server that has taken over or has
        // joined is told of the owner, too.
        let map = match self.topology.refresh(Instant::now()).await {
            Ok(map) => map,
            Err(error) => self.topology.map().await.map_err(|_| error)?,
        };
        let owner = Arc::new(owner);
        let mut tasks = tokio::task::JoinSet::new();
        for shard in map.shards.iter().cloned() {
            let (calls, owner) = (Arc::clone(&self), Arc::clone(&owner));
            tasks.spawn(async move {
                let result = calls.tell(&shard, &owner, first, true).await;
                (shard.server.name.clone(), result)
            });
        }
        let (mut answered, mut error) = (Vec::new(), None);
        while let Some(joined) = tasks.join_next().await {
            match joined {
                Ok((name, Ok(()))) => answered.push(name),
                Ok((_, Err(failed))) => error = error.or(Some(failed)),
                Err(_) => {}
            }
        }
        let all: Vec<_> = map.shards.iter().map(|shard| shard.server.name.clone()).collect();
        self.announcers.keep_servers(owner.epoch, &all);
        Ok((answered, error))
    }
}

/// The records among the fields and values of a key.
fn records(tag: KeyTag, parts: &[Value]) -> Vec<Record> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => Some(bytes.clone()),
        _ => None,
    };
    let record = |pair: &[Value]| match pair {
        // RESP3 has the pairs as lists of their own.
        [Value::Array(pair)] => stored::record(tag, &text(pair.first()?)?, &text(pair.get(1)?)?),
        [name, value] => stored::record(tag, &text(name)?, &text(value)?),
        _ => None,
    };
    let size = if matches!(parts.first(), Some(Value::Array(_))) { 1 } else { 2 };
    parts.chunks(size).filter_map(record).take(stored::MAX_FIELDS).collect()
}
