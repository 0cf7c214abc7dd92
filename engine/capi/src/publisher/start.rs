//! What a publisher is started with.

use engine::{Address, ForeignPool, ForeignRegion, PageLayout, Publisher, PublisherConfig, shm, tcp};

use super::foreign;
use crate::abi::publisher_types::{kvrail_pool, kvrail_pool_region, kvrail_publisher_config};
use crate::border::Caller;
use crate::error::CapiError;
use crate::keys::keys;
use crate::layout::Interned;
use crate::transport::Transport;

/// A pool as a publisher takes it.
pub(crate) enum Pool {
    Own(PageLayout, u32),
    Foreign(ForeignPool),
}

/// The pool that `given` describes.
pub(crate) fn pool(caller: &Caller<'_>, given: &kvrail_pool) -> Result<Pool, CapiError> {
    let layout = Interned::page("pool.layout", given.layout)?;
    if given.regions.is_null() {
        return Ok(Pool::Own(layout, given.slots));
    }
    if given.slots != 0 {
        let allowed = "0 where the regions say how many slots there are";
        return Err(CapiError::Value { what: "pool.slots", value: given.slots.into(), allowed });
    }
    let regions = caller.list("pool.regions", given.regions, given.region_count)?;
    let pool = regions
        .iter()
        .try_fold(ForeignPool::new(layout), |pool, given| Ok::<_, CapiError>(pool.region(region(given)?)))?;
    Ok(Pool::Foreign(pool))
}

fn region(given: &kvrail_pool_region) -> Result<ForeignRegion, CapiError> {
    let memory = foreign::of_handle(given.memory)?;
    let (first, all) = (given.first, memory.range().len);
    let end = if given.bytes == 0 { Some(all) } else { first.checked_add(given.bytes) };
    let end = end.filter(|&end| end <= all && first < end).ok_or(CapiError::Value {
        what: "region.first",
        value: first,
        allowed: "bytes that the memory has",
    })?;
    let region = ForeignRegion::new(&memory).bytes(first..end).offset(given.offset);
    Ok(if given.stride == 0 { region } else { region.stride(given.stride) })
}

/// Starts the publisher that `config` describes.
pub(crate) fn start(caller: &Caller<'_>, config: &kvrail_publisher_config) -> Result<Publisher, CapiError> {
    let mut started = PublisherConfig::new(caller.text("config.node", config.node)?.parse()?);
    for given in caller.list("config.pools", config.pools, config.pool_count)? {
        started = match pool(caller, given)? {
            Pool::Own(layout, slots) => started.pool(layout, slots),
            Pool::Foreign(pool) => started.foreign_pool(pool),
        };
    }
    if config.piece_bytes != 0 {
        started = started.piece_bytes(config.piece_bytes);
    }
    if config.registrations != 0 {
        started = started.registrations(config.registrations as usize);
    }
    let listen: Address = caller.text("config.listen", config.listen)?.parse()?;
    let keys = keys(caller, config.keys)?;
    let any_reader = match config.permit_any_reader {
        0 => false,
        1 => true,
        other => {
            let (what, value) = ("config.permit_any_reader", other.into());
            return Err(CapiError::Value { what, value, allowed: "0 or 1" });
        }
    };
    Ok(match Transport::parse(caller.text("config.transport", config.transport)?)? {
        Transport::Shm { rails } => {
            let over = shm::publish(rails);
            let over = if any_reader { over.permit_any_reader() } else { over };
            Publisher::start_pools(started, &listen, keys, over)?
        }
        Transport::Tcp { ip, rails } => {
            Publisher::start_pools(started, &listen, keys, tcp::publish(ip, rails))?
        }
        #[cfg(feature = "verbs")]
        Transport::Verbs { spec } => {
            Publisher::start_pools(started, &listen, keys, engine::verbs::publish(&spec)?)?
        }
    })
}
