//! A configuration in C, checked.

use std::time::Duration;

use engine::core::config::EngineConfig;
use engine::core::time::Nanos;
use engine::macro_support::{pools, regions};
use engine::{Config, MakeLanes, PageLayout};

use super::sizes::Maxima;
use crate::abi::constants::{KVRAIL_LANES_AT_CONNECT, KVRAIL_LANES_AUTO, KVRAIL_LANES_ON_DEMAND};
use crate::abi::reader_types::kvrail_reader_config;
use crate::border::Caller;
use crate::error::CapiError;
use crate::layout::Interned;
use crate::transport::Transport;

/// The default of `max_lanes` ends here: beyond it lanes are made on demand.
const MOST_LANES: usize = 8192;

/// What a reader is started with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) transport: Transport,
    pub(crate) layout: PageLayout,
    pub(crate) maxima: Maxima,
    pub(crate) max_rails: usize,
    pub(crate) config: Config,
    pub(crate) numbers: EngineNumbers,
    /// When a batch fails whose options do not say it.
    pub(crate) timeout: Nanos,
}

/// The numbers of the engine that the configuration gives; 0 for what suits the rails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EngineNumbers {
    chunk_bytes: u32,
    rail_bytes: u64,
    rail_wrs: u32,
}

impl EngineNumbers {
    /// The configuration that suits the rails, with the given numbers.
    pub(crate) fn of(self, mut rails: EngineConfig) -> EngineConfig {
        let Self { chunk_bytes, rail_bytes, rail_wrs } = self;
        if chunk_bytes != 0 {
            rails.chunk_bytes = chunk_bytes;
            rails.run_bytes = rails.run_bytes.max(chunk_bytes);
        }
        if rail_bytes != 0 {
            rails.rail_bytes = rail_bytes;
        }
        if rail_wrs != 0 {
            rails.rail_wrs = rail_wrs;
        }
        rails
    }
}

/// `given`, or `default` for 0.
const fn or(given: u32, default: usize) -> usize {
    if given == 0 { default } else { given as usize }
}

/// `given` milliseconds, or `default` for 0.
fn millis(given: u32, default: Duration) -> Duration {
    if given == 0 { default } else { Duration::from_millis(given.into()) }
}

/// Reads a configuration.
pub(crate) fn read(caller: &Caller<'_>, given: &kvrail_reader_config) -> Result<Start, CapiError> {
    let transport = Transport::parse(caller.text("config.transport", given.transport)?)?;
    let layout = Interned::page("config.layout", given.layout)?;
    let max_rails = match given.max_rails {
        0 => 8,
        rails @ 1..=16 => rails as usize,
        rails => {
            let (what, value) = ("config.max_rails", rails.into());
            return Err(CapiError::Value { what, value, allowed: "1 to 16" });
        }
    };
    let default = Config::default();
    let lanes_per_rail = or(given.lanes_per_rail, default.lanes_per_rail);
    let peers = or(given.max_peers, 64);
    let lanes = peers.saturating_mul(max_rails).saturating_mul(lanes_per_rail).min(MOST_LANES);
    let maxima = Maxima {
        peers,
        regions: or(given.max_regions, regions(pools(peers), layout.regions() as usize)),
        lanes: or(given.max_lanes, lanes),
        batches: or(given.max_batches, 16),
        batch: or(given.max_batch, 64),
    };
    let config = Config {
        node: match caller.text_or_none("config.node", given.node)? {
            None => default.node,
            Some(name) => name.parse()?,
        },
        lanes_per_rail,
        lanes: match given.lanes {
            KVRAIL_LANES_AUTO => MakeLanes::Auto,
            KVRAIL_LANES_AT_CONNECT => MakeLanes::AtConnect,
            KVRAIL_LANES_ON_DEMAND => MakeLanes::OnDemand,
            other => {
                let (what, value) = ("config.lanes", other.into());
                return Err(CapiError::Value { what, value, allowed: "a KVRAIL_LANES_ constant" });
            }
        },
        lanes_budget: given.lanes_budget as usize,
        peers,
        lane_idle: millis(given.lane_idle_ms, default.lane_idle),
        connect: millis(given.connect_ms, default.connect),
        engine: None,
    };
    let &kvrail_reader_config { chunk_bytes, rail_bytes, rail_wrs, timeout_ns, .. } = given;
    let timeout = if timeout_ns == 0 { Nanos::from_secs(10) } else { Nanos(timeout_ns) };
    let numbers = EngineNumbers { chunk_bytes, rail_bytes, rail_wrs };
    Ok(Start { transport, layout, maxima, max_rails, config, numbers, timeout })
}
