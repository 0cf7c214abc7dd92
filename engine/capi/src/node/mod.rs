//! A node: pages by key.
//!
//! | file | what |
//! |---|---|
//! | `start.rs` | from a configuration in C to a node |
//! | `open.rs` | a node that is open, with its spaces and its registered memory |
//! | `keys.rs` | keys of a batch |
//! | `exchange.rs` | put, get, exists, remove |
//! | `groups.rs` | gets of pages of several spaces, all or nothing |
//! | `begun.rs` | gets that were begun, and the thread that takes them in |
//! | `waiting.rs` | what a caller asks of them |
//! | `slots.rs` | pools of the caller's memory |

mod begun;
mod exchange;
mod groups;
mod keys;
mod open;
mod slots;
mod start;
mod waiting;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ::kvrail_node::{Node, PoolStatistics};
use kvrail_host::descriptors::OwnerProcess;

pub(crate) use self::exchange::Wanted;
pub(crate) use self::groups::Groups;
pub(crate) use self::keys::Keys;
pub(crate) use self::open::Open;
pub(crate) use self::start::start;
use crate::abi::node_types::{kvrail_node, kvrail_node_stats};
use crate::error::CapiError;
use crate::registry::Registry;

/// The longest wait: a day.
const LONGEST: Duration = Duration::from_hours(24);

static NODES: Registry<Handle> = Registry::new("node");

/// A node that is open, or being closed.
pub(crate) struct Handle {
    /// Taken when it is closed, which waits for calls that are under way.
    open: RwLock<Option<Open>>,
    maker: OwnerProcess,
}

/// The handle of a new node.
pub(crate) fn opened(open: Open) -> Result<*mut kvrail_node, CapiError> {
    NODES.open(Handle { open: RwLock::new(Some(open)), maker: OwnerProcess::current() })
}

/// Calls `with` with the node of a handle. In a child of a fork it is refused: a thread of the
/// parent may have held a lock of the node, and the child has none of the node's threads.
pub(crate) fn with<R>(
    handle: *const kvrail_node,
    with: impl FnOnce(&Open) -> Result<R, CapiError>,
) -> Result<R, CapiError> {
    let handle: Arc<Handle> = NODES.get(handle)?;
    if !handle.maker.is_current() {
        return Err(CapiError::OtherProcess { what: "node" });
    }
    let open = handle.open.read().unwrap_or_else(PoisonError::into_inner);
    with(open.as_ref().ok_or(CapiError::Handle { what: "node" })?)
}

/// Closes a node, as soon as no call of it is under way.
pub(crate) fn close(handle: *const kvrail_node) -> Result<(), CapiError> {
    let Some(handle) = NODES.close(handle)? else { return Ok(()) };
    if !handle.maker.is_current() {
        // A child of a fork has a copy without threads: nothing here can end, or be waited for. The
        // node goes on in the parent.
        std::mem::forget(handle);
        return Ok(());
    }
    let open = handle.open.write().unwrap_or_else(PoisonError::into_inner).take();
    open.map_or(Ok(()), Open::close)
}

/// The end of a wait of so many nanoseconds from now.
pub(crate) fn until(timeout_ns: u64) -> Instant {
    Instant::now() + Duration::from_nanos(timeout_ns).min(LONGEST)
}

/// The NUMA node of this number; none for -1.
pub(crate) fn numa(number: i32) -> Result<Option<u8>, CapiError> {
    if number == -1 {
        return Ok(None);
    }
    let bad = || {
        let value = i64::from(number).cast_unsigned();
        CapiError::Value { what: "numa", value, allowed: "-1, or a NUMA node from 0 to 255" }
    };
    u8::try_from(number).map(Some).map_err(|_| bad())
}

/// The numbers of a node.
pub(crate) fn stats(node: &Node) -> kvrail_node_stats {
    let all = node.statistics();
    let sum = |of: fn(&PoolStatistics) -> u64| all.pools.iter().map(of).sum();
    kvrail_node_stats {
        struct_bytes: 0,
        connected_readers: u32::try_from(all.connected_readers).unwrap_or(u32::MAX),
        gets: all.get.gets,
        hits_own_pool: all.get.hits_own_pool,
        hits_cache: all.get.hits_cache,
        hits_directory: all.get.hits_directory,
        misses: all.get.misses.iter().sum(),
        misses_by_reason: all.get.misses,
        look_ups: all.get.look_ups,
        keys_looked_up: all.get.keys_looked_up,
        late_places: all.get.late_destinations,
        reading: all.reading as u64,
        slots: sum(|pool| pool.slots.into()),
        pages: sum(|pool| pool.pages.into()),
        puts: sum(|pool| pool.puts),
        put_bytes: sum(|pool| pool.put_bytes),
        puts_present: sum(|pool| pool.already),
        puts_refused: sum(|pool| pool.all_held),
        evictions: sum(|pool| pool.evictions),
        removed: sum(|pool| pool.removed),
        engine_pages: all.engine_pools.iter().map(|pool| u64::from(pool.pages)).sum(),
    }
}
