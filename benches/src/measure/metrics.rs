//! The counters of a producer, for Prometheus.

use std::net::SocketAddr;

use crate::measure::producer::Producer;

/// Serves counters until it is dropped.
#[derive(Debug)]
pub(crate) struct Metrics {
    #[cfg(feature = "metrics")]
    server: kvrail_node::metrics::http::MetricsServer,
}

/// Serves what the producer's node counts. What others read from it one-sidedly it does not see.
#[cfg(feature = "metrics")]
pub(crate) fn serve_metrics(address: SocketAddr, producer: &Producer) -> anyhow::Result<Metrics> {
    let metrics = std::sync::Arc::clone(producer.node.metrics());
    Ok(Metrics { server: kvrail_node::metrics::http::MetricsServer::start(address, metrics)? })
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
    /// No metrics are served, so they have no address.
    pub(crate) fn address(&self) -> SocketAddr {
        unreachable!("no value of this type exists without the feature: {self:?}")
    }
}
