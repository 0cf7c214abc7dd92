//! The metrics: what is counted, what Prometheus reads, and what the dashboard asks for.

mod counting;
mod dashboard;
mod serving;

use std::collections::BTreeMap;
use std::sync::Arc;

use kvrail::core::rail::{RailState, RailStats};
use kvrail_node::metrics::{MissReason, NodeMetrics, PeerCounts, export};

/// The text that Prometheus reads.
fn text(metrics: &Arc<NodeMetrics>) -> String {
    let mut registry = prometheus_client::registry::Registry::default();
    export::register(&mut registry, Arc::clone(metrics));
    export::text(&registry)
}

/// The samples of a text: each name with its labels, and its number.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    let all: Vec<_> = lines.map(sample).collect();
    let count = all.len();
    let all: BTreeMap<_, _> = all.into_iter().collect();
    assert_eq!(all.len(), count, "a sample stands twice:\n{text}");
    all
}

/// Metrics in which everything has been counted once at least, so that every name is shown.
fn busy() -> Arc<NodeMetrics> {
    let metrics = Arc::new(NodeMetrics::default());
    metrics.hits(1, 100, 1);
    metrics.miss(MissReason::NoOwner);
    let rails = metrics.rails(["mlx5_0"]);
    rails.copy(0, &RailStats { bytes: 7, ..RailStats::default() }, &RailState::default());
    rails.page_failed(0, kvrail::core::verbs_abi::WcStatus::REM_ACCESS_ERR);
    let peer = metrics.peer("prefill-1");
    peer.add(PeerCounts { bytes: 100, pages: 1, misses: 0 });
    peer.page_failed(kvrail::core::verbs_abi::WcStatus::REM_ACCESS_ERR);
    // The rails are shown as long as a reader has them.
    std::mem::forget(rails);
    metrics
}
