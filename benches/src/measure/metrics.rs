//! The counters of a producer, for Prometheus.

use std::net::SocketAddr;

use crate::measure::producer::Producer;

/// Serves counters until it is dropped.
#[derive(Debug)]
pub(crate) struct Metrics {
    #[cfg(feature = "metrics")]
    server: kvrail_node::metrics::http::MetricsServer,
}

/// Serves what `producer` has counted until now. It puts no page after that: what others read from
/// it one-sidedly it does not see.
#[cfg(feature = "metrics")]
pub(crate) fn serve_metrics(address: SocketAddr, producer: &Producer) -> anyhow::Result<Metrics> {
    use kvrail_node::metrics::{NodeMetrics, http::MetricsServer};
    let metrics = NodeMetrics::default();
    for pool in producer.node.statistics().pools {
        let page_bytes = pool.page_bytes / u64::from(pool.pages.max(1));
        (0..pool.puts).for_each(|_| metrics.put(page_bytes));
        metrics.pool(pool.slots.into(), pool.pages.into());
    }
    Ok(Metrics { server: MetricsServer::start(address, metrics.into())? })
}

#[cfg(feature = "metrics")]
impl Metrics {
    /// Where they are served.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.server.local_addr()
    }
}

/// Says that this build has no metrics.
#[cfg(not(feature = "metrics"))]
pub(crate) fn serve_metrics(address: SocketAddr, _: &Producer) -> anyhow::Result<Metrics> {
    anyhow::bail!(
        "--metrics {address}: this kvrail-bench was built without metrics: build it with --features metrics"
    )
}

#[cfg(not(feature = "metrics"))]
impl Metrics {
    /// There is none.
    pub(crate) fn address(&self) -> SocketAddr {
        unreachable!("no value of this type exists without the feature: {self:?}")
    }
}
