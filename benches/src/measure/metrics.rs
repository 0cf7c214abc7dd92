//! The counters of a node, for Prometheus.

use std::net::SocketAddr;
use std::sync::Arc;

use kvrail_node::metrics::NodeMetrics;

/// Serves counters until it is dropped.
#[derive(Debug)]
pub(crate) struct Metrics {
    #[cfg(feature = "metrics")]
    server: kvrail_node::metrics::http::MetricsServer,
}

/// Serves what a node counts. What others read from it one-sidedly it does not see.
#[cfg(feature = "metrics")]
pub(crate) fn serve_metrics(address: SocketAddr, metrics: &Arc<NodeMetrics>) -> anyhow::Result<Metrics> {
    let server = kvrail_node::metrics::http::MetricsServer::start(address, Arc::clone(metrics))?;
    Ok(Metrics { server })
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
pub(crate) fn serve_metrics(address: SocketAddr, _: &Arc<NodeMetrics>) -> anyhow::Result<Metrics> {
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
