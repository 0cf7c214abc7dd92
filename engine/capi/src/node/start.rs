//! What a node is started with.

use std::time::Duration;

use engine::session::TagSecret;
use engine::{Address, PublisherTransport, ReaderTransport, shm, tcp};
use kvrail_node::{Node, NodeConfig, NodeError};

use super::open::Open;
use crate::abi::constants::KVRAIL_NO_CACHE;
use crate::abi::node_types::kvrail_node_config;
use crate::border::Caller;
use crate::error::CapiError;
use crate::keys::keys;
use crate::layout::Interned;
use crate::publisher::{Pool, pool};
use crate::transport::Transport;

/// Who knows which node has which page.
enum Named {
    None,
    /// The nodes that may keep it.
    Embedded(Vec<Address>),
    #[cfg(feature = "redis")]
    Given(std::sync::Arc<dyn kvrail_node::Directory>),
}

fn directory(text: &str) -> Result<Named, CapiError> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    match kind {
        "none" if rest.is_empty() => Ok(Named::None),
        "embedded" if rest.is_empty() => Ok(Named::Embedded(Vec::new())),
        "embedded" => {
            let addresses = rest.split(',').map(|address| address.trim().parse());
            Ok(Named::Embedded(addresses.collect::<Result<_, _>>()?))
        }
        "redis" | "rediss" | "valkey" | "valkeys" => redis(text),
        _ => Err(CapiError::Directory(text.chars().take(100).collect())),
    }
}

#[cfg(feature = "redis")]
fn redis(url: &str) -> Result<Named, CapiError> {
    use kvrail_node::directory::redis::{RedisConfig, RedisDirectory};
    let started = RedisDirectory::start(RedisConfig::new(url)?);
    Ok(Named::Given(std::sync::Arc::new(started.map_err(NodeError::Thread)?)))
}

#[cfg(not(feature = "redis"))]
fn redis(_: &str) -> Result<Named, CapiError> {
    Err(CapiError::NotBuilt("redis"))
}

fn secret(caller: &Caller<'_>, config: &kvrail_node_config) -> Result<TagSecret, CapiError> {
    let hex = caller.text_or_none("config.tag_secret_hex", config.tag_secret_hex)?;
    let file = caller.text_or_none("config.tag_secret_file", config.tag_secret_file)?;
    Ok(match (hex, file) {
        (Some(hex), None) => TagSecret::from_hex(hex)?,
        (None, Some(file)) => TagSecret::from_file(file)?,
        _ => return Err(CapiError::Key("give exactly one of tag_secret_hex and tag_secret_file")),
    })
}

/// Starts the node that `config` describes.
pub(crate) fn start(caller: &Caller<'_>, config: &kvrail_node_config) -> Result<Open, CapiError> {
    let secret = secret(caller, config)?;
    let name = caller.text("config.name", config.name)?.parse()?;
    let mut node = NodeConfig::new(name, keys(caller, config.keys)?);
    if let Some(listen) = caller.text_or_none("config.listen", config.listen)? {
        node = node.listen(listen.parse()?);
    }
    if let Some(advertise) = caller.text_or_none("config.advertise", config.advertise)? {
        node = node.advertise(advertise.parse()?);
    }
    if let Some(zone) = caller.text_or_none("config.zone", config.zone)? {
        node = node.zone(zone.parse()?);
    }
    for given in caller.list("config.pools", config.pools, config.pool_count)? {
        node = match pool(caller, given)? {
            Pool::Own(layout, slots) => node.pool(layout, slots),
            Pool::Foreign(pool) => node.engine_pool(Interned::page("pool.layout", given.layout)?, pool),
        };
    }
    for &layout in caller.list("config.layouts", config.layouts, config.layout_count)? {
        node = node.layout(Interned::page("config.layouts", layout)?);
    }
    if config.readers != 0 {
        node = node.readers(config.readers as usize);
    }
    if config.batch_pages != 0 {
        node = node.batch_pages(config.batch_pages as usize);
    }
    if config.spin_ns != 0 {
        node = node.spin(Duration::from_nanos(config.spin_ns));
    }
    let records = if config.cache_records == 0 { 1 << 16 } else { config.cache_records };
    node = match config.cache_ttl_ns {
        KVRAIL_NO_CACHE => node.cache(0, Duration::ZERO),
        0 => node.cache(count(records)?, Duration::from_secs(5)),
        ttl => node.cache(count(records)?, Duration::from_nanos(ttl)),
    };
    node = match directory(caller.text_or_none("config.directory", config.directory)?.unwrap_or("none"))? {
        Named::None => node,
        Named::Embedded(candidates) => node.embedded(candidates),
        #[cfg(feature = "redis")]
        Named::Given(directory) => node.directory(directory),
    };
    let any_reader = match config.permit_any_reader {
        0 => false,
        1 => true,
        other => {
            let (what, value) = ("config.permit_any_reader", other.into());
            return Err(CapiError::Value { what, value, allowed: "0 or 1" });
        }
    };
    let started = match Transport::parse(caller.text("config.transport", config.transport)?)? {
        Transport::Shm { rails } => {
            let publish = shm::publish(rails);
            let publish = if any_reader { publish.permit_any_reader() } else { publish };
            over(node, publish, || shm::rails(rails))
        }
        Transport::Tcp { ip, rails } => over(node, tcp::publish(ip, rails), || tcp::rails(rails)),
        #[cfg(feature = "verbs")]
        Transport::Verbs { spec } => {
            over(node, engine::verbs::publish(&spec)?, || engine::verbs::rails(&spec))
        }
    };
    Open::new(started?, secret)
}

fn over<T, E>(
    config: NodeConfig,
    publish: impl PublisherTransport,
    rails: impl FnMut() -> Result<T, E>,
) -> Result<Node, NodeError>
where
    T: ReaderTransport<Provider: std::os::fd::AsFd> + 'static,
    engine::Reader<T>: Send,
    E: Into<engine::TransportError>,
{
    Node::start(config, publish, rails)
}

/// A number of records that memory can hold.
fn count(records: u64) -> Result<usize, CapiError> {
    let (what, allowed) = ("config.cache_records", "1 to 2^32");
    let fits = usize::try_from(records).ok().filter(|&records| records <= 1 << 32);
    fits.ok_or(CapiError::Value { what, value: records, allowed })
}
