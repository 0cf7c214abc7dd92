//! The counters as Prometheus reads them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kvrail_core::verbs_abi::WcStatus;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::counters::{BUCKETS, Counter, HistogramCounts};
use super::node::NodeMetrics;
use super::peers::PeerRow;
use super::rails::RailCounts;
use super::reasons::MissReason;

/// The type of the text that [`text`] makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The labels of one row.
type Labels = Vec<(&'static str, String)>;

/// A number of a rail.
type Number = fn(&RailCounts) -> u64;

/// Shows a node's counters in a registry: its own, or that of the program around it.
pub fn register(registry: &mut Registry, metrics: Arc<NodeMetrics>) {
    registry.register_collector(Box::new(NodeCollector(metrics)));
}

/// All of a registry as text, of the type [`CONTENT_TYPE`].
#[must_use]
pub fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}

#[derive(Debug)]
struct NodeCollector(Arc<NodeMetrics>);

impl Collector for NodeCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (mut to, metrics) = (Rows(encoder), &*self.0);
        for &counter in Counter::ALL {
            to.counter(counter.name(), counter.help(), metrics.counter(counter))?;
        }
        let reason = |&reason: &MissReason| (label("reason", reason.name()), metrics.misses(reason));
        let rows = MissReason::ALL.iter().map(reason);
        to.counters("kvrail_misses", "Pages that were not served, by reason", rows)?;
        let pools = metrics.pools();
        to.gauge("kvrail_pool_pages", "Pages for which the own pool has places", pools.places)?;
        to.gauge("kvrail_pool_pages_used", "Pages that the own pool holds", pools.places_used)?;
        let help = "Announcements and withdrawals that wait to be sent to the directory";
        to.gauge("kvrail_announcements_pending", help, pools.announcements_pending)?;
        let help = "How long look-ups in the directory took";
        to.histogram("kvrail_look_up_seconds", help, &metrics.look_up_times())?;
        let help = "How long pages took from the submission of their batch until they were found to be right";
        to.histogram("kvrail_read_seconds", help, &metrics.read_times())?;
        rails(&mut to, metrics.rail_counts())?;
        peers(&mut to, metrics)
    }
}

/// Writes families of numbers.
struct Rows<'a>(DescriptorEncoder<'a>);

impl Rows<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(signed(value)).encode(self.0.encode_descriptor(
            name,
            help,
            None,
            MetricType::Gauge,
        )?)
    }

    fn counters(&mut self, name: &str, help: &str, rows: impl Iterator<Item = (Labels, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges(&mut self, name: &str, help: &str, rows: impl Iterator<Item = (Labels, u64)>) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            ConstGauge::new(signed(value)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, counts: &HistogramCounts) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        // The crate writes its largest number as +Inf.
        let bounds = BUCKETS.iter().map(|&bound| seconds(bound)).chain([f64::MAX]);
        let buckets: Vec<_> = bounds.zip(counts.buckets).collect();
        metric.encode_histogram::<NoLabelSet>(seconds(counts.nanos), counts.count(), &buckets, None)
    }
}

/// A gauge has a sign. 2^63 of anything is out of reach.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "2^53 ns, after which digits are lost, are 104 days")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// A label, escaped as the text format wants it: names of peers come from outside, and the crate
/// writes values unchanged.
fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))]
}

/// The rails of all readers, those of one name added up.
fn rails(to: &mut Rows<'_>, counts: Vec<RailCounts>) -> fmt::Result {
    let mut rails: BTreeMap<Box<str>, Vec<RailCounts>> = BTreeMap::new();
    for rail in counts {
        rails.entry(rail.name.clone()).or_default().push(rail);
    }
    let sum = |of: Number| {
        let rows = rails.iter().map(move |(name, all)| (label("rail", name), all.iter().map(of).sum()));
        rows.collect::<Vec<_>>().into_iter()
    };
    to.counters("kvrail_rail_bytes", "Bytes that arrived over a rail", sum(|rail| rail.stats.bytes))?;
    to.counters("kvrail_rail_wrs", "Work requests posted on a rail", sum(|rail| rail.stats.posted))?;
    let help = "Work requests posted again on a rail after the lane that had them failed";
    to.counters("kvrail_rail_failovers", help, sum(|rail| rail.stats.reposted))?;
    let help = "Lanes of a rail that failed";
    to.counters("kvrail_rail_lanes_failed", help, sum(|rail| rail.stats.lanes_failed))?;
    let help = "Lanes of a rail that failed because nothing completed";
    to.counters("kvrail_rail_lanes_stalled", help, sum(|rail| rail.stats.lanes_stalled))?;
    let kinds: [(&str, Number); 4] = [
        ("page", |rail| rail.stats.page_faults),
        ("path", |rail| rail.stats.path_faults),
        ("flushed", |rail| rail.stats.flushed),
        ("stale", |rail| rail.stats.stale),
    ];
    let kinds = kinds.into_iter().flat_map(|(kind, of)| {
        sum(of).map(move |(mut labels, value)| {
            labels.extend(label("kind", kind));
            (labels, value)
        })
    });
    let help = "Failed completions on a rail, by what the status says: the page or the path is at fault, the \
                request was flushed, or it is not known";
    to.counters("kvrail_rail_errors", help, kinds.collect::<Vec<_>>().into_iter())?;
    let failed = rails
        .iter()
        .flat_map(|(name, all)| all.iter().map(move |rail| (label("rail", name), &rail.failed_pages[..])));
    let help = "Pages that failed on a rail, by the status of the completion";
    to.counters("kvrail_rail_failed_pages", help, by_status(failed))?;
    let help = "Work requests outstanding on a rail";
    to.gauges("kvrail_rail_outstanding_wrs", help, sum(|rail| rail.state.outstanding_wrs.into()))?;
    let help = "Bytes outstanding on a rail";
    to.gauges("kvrail_rail_outstanding_bytes", help, sum(|rail| rail.state.outstanding_bytes))?;
    let help = "Lanes of a rail on which nothing has completed for longer than it should take";
    to.gauges("kvrail_rail_silent_lanes", help, sum(|rail| rail.state.silent_lanes.into()))?;
    let up = rails.iter().map(|(name, all)| {
        (label("rail", name), u64::from(all.iter().all(|rail| rail.state.up && rail.state.silent_lanes == 0)))
    });
    let help = "1: the port of a rail is up and no lane of it is silent; 0 otherwise";
    to.gauges("kvrail_rail_healthy", help, up)
}

fn peers(to: &mut Rows<'_>, metrics: &NodeMetrics) -> fmt::Result {
    let peers = metrics.peer_rows();
    let rows = |of: fn(&PeerRow) -> u64| peers.iter().map(move |(name, row)| (label("peer", name), of(row)));
    let help = "Bytes of pages that were read from a peer and found to be right";
    to.counters("kvrail_peer_bytes", help, rows(|peer| peer.counts.bytes))?;
    let help = "Pages that were read from a peer and found to be right";
    to.counters("kvrail_peer_pages", help, rows(|peer| peer.counts.pages))?;
    let help = "Pages of a peer that were not served";
    to.counters("kvrail_peer_misses", help, rows(|peer| peer.counts.misses))?;
    let failed = peers.iter().map(|(name, row)| (label("peer", name), &row.failed_pages[..]));
    let help = "Pages of a peer that failed, by the status of the completion";
    to.counters("kvrail_peer_failed_pages", help, by_status(failed))?;
    let help = "Readers of this node that are connected to a peer";
    to.gauges("kvrail_peer_connections", help, rows(|peer| peer.state.connections))?;
    let help = "Lanes to a peer that are up";
    to.gauges("kvrail_peer_lanes", help, rows(|peer| peer.state.lanes))?;
    let help = "Pages of a peer that were submitted and have no result yet";
    to.gauges("kvrail_peer_outstanding_pages", help, rows(|peer| peer.state.outstanding_pages))?;
    let help = "1: no reader that is connected to a peer has pages to read and no lane to it; 0 otherwise";
    to.gauges("kvrail_peer_healthy", help, rows(|peer| u64::from(peer.state.unhealthy == 0)))
}

/// Pages that failed, by the status of the completion. Statuses without a page have no row.
fn by_status<'a>(rows: impl Iterator<Item = (Labels, &'a [u64])>) -> impl Iterator<Item = (Labels, u64)> {
    // Statuses that have no name, and the place of all other numbers, share one row.
    let mut by_status: BTreeMap<Labels, u64> = BTreeMap::new();
    for (labels, counts) in rows {
        for (place, &count) in counts.iter().enumerate().filter(|&(_, &count)| count > 0) {
            let status = WcStatus(u32::try_from(place).unwrap_or(u32::MAX));
            let labels = labels.iter().cloned().chain(label("status", status.name())).collect();
            *by_status.entry(labels).or_default() += count;
        }
    }
    by_status.into_iter()
}
