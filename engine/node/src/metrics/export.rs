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
    let statuses = rails.iter().flat_map(|(name, all)| {
        let places = all.first().map_or(0, |rail| rail.failed_pages.len());
        let total = move |place: usize| all.iter().map(|rail| rail.failed_pages[place]).sum::<u64>();
        let failed = (0..places).map(move |place| (place, total(place))).filter(|&(_, count)| count > 0);
        failed.map(move |(place, count)| {
            let status = WcStatus(u32::try_from(place).unwrap_or(u32::MAX));
            let mut labels = label("rail", name);
            labels.extend(label("status", status.name()));
            (labels, count)
        })
    });
    // Places without a name, and the place of numbers without a place, are one row.
    let mut by_status: BTreeMap<Labels, u64> = BTreeMap::new();
    statuses.for_each(|(labels, count)| *by_status.entry(labels).or_default() += count);
    let help = "Pages that failed on a rail, by the status of the completion";
    to.counters("kvrail_rail_failed_pages", help, by_status.into_iter())?;
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
    let peers = metrics.peer_counts();
    let rows = |of: fn(&super::peers::PeerCounts) -> u64| {
        peers.iter().map(move |(name, counts)| (label("peer", name), of(counts)))
    };
    let help = "Bytes of pages that were read from a peer and found to be right";
    to.counters("kvrail_peer_bytes", help, rows(|peer| peer.bytes))?;
    let help = "Pages that were read from a peer and found to be right";
    to.counters("kvrail_peer_pages", help, rows(|peer| peer.pages))?;
    to.counters("kvrail_peer_misses", "Pages of a peer that were not served", rows(|peer| peer.misses))
}
