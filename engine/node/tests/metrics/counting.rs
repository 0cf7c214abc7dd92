use std::sync::Arc;
use std::time::Duration;

use kvrail::core::rail::{RailState, RailStats};
use kvrail::core::verbs_abi::WcStatus;
use kvrail_node::metrics::{
    BUCKETS, Counter, MissReason, NodeMetrics, OTHER_PEERS, PeerCounts, PeerState, SlowLog, SlowRequest,
    TimeSpent,
};

use crate::{samples, text};

#[test]
fn what_threads_count_at_the_same_time_adds_up() {
    let metrics = Arc::new(NodeMetrics::default());
    let peer = metrics.peer("prefill-1");
    std::thread::scope(|scope| {
        for _ in 0..20 {
            let (metrics, peer) = (&metrics, peer.clone());
            scope.spawn(move || {
                for nanos in 0..1000 {
                    metrics.get(2);
                    metrics.hits(1, 1000, nanos * 20_000);
                    metrics.miss(MissReason::Generation);
                    metrics.look_up(3, 1, 5_000);
                    peer.add(PeerCounts { bytes: 1000, pages: 1, misses: 1 });
                }
            });
        }
    });
    metrics.local_hits(1);
    // Two sources, whose numbers are added.
    metrics.add_source(|counts| {
        (counts.places, counts.places_used) = (counts.places + 90, counts.places_used + 55);
        counts.puts += 1;
        counts.put_bytes += 10;
    });
    metrics.add_source(|counts| {
        (counts.places, counts.places_used) = (counts.places + 10, counts.places_used + 5);
        counts.puts_refused += 1;
        counts.evictions += 4;
        counts.announced += 7;
        counts.withdrawn += 8;
        counts.announce_errors += 1;
        counts.announcements_pending += 9;
        counts.records_lost += 1;
    });
    metrics.cached(5, 6);
    metrics.cache_stale(1);
    metrics.slow_request();
    assert_eq!(metrics.counter(Counter::Gets), 40_000);
    assert_eq!(metrics.misses(MissReason::Generation), 20_000);
    assert_eq!(metrics.read_times().count(), 20_000);
    let samples = samples(&text(&metrics));
    let wanted = [
        ("kvrail_gets_total", 40_000.0),
        ("kvrail_hits_total", 20_001.0),
        ("kvrail_local_hits_total", 1.0),
        ("kvrail_read_pages_total", 20_000.0),
        ("kvrail_read_bytes_total", 20_000_000.0),
        ("kvrail_misses_total{reason=\"generation\"}", 20_000.0),
        ("kvrail_misses_total{reason=\"no_owner\"}", 0.0),
        ("kvrail_puts_total", 1.0),
        ("kvrail_put_bytes_total", 10.0),
        ("kvrail_puts_refused_total", 1.0),
        ("kvrail_evictions_total", 4.0),
        ("kvrail_pool_pages", 100.0),
        ("kvrail_pool_pages_used", 60.0),
        ("kvrail_look_up_keys_total", 60_000.0),
        ("kvrail_look_up_keys_unanswered_total", 20_000.0),
        ("kvrail_directory_cache_hits_total", 5.0),
        ("kvrail_directory_cache_misses_total", 6.0),
        ("kvrail_directory_cache_stale_total", 1.0),
        ("kvrail_announced_records_total", 7.0),
        ("kvrail_withdrawn_records_total", 8.0),
        ("kvrail_announce_errors_total", 1.0),
        ("kvrail_announcements_pending", 9.0),
        ("kvrail_directory_records_lost_total", 1.0),
        ("kvrail_slow_requests_total", 1.0),
        ("kvrail_look_up_seconds_count", 20_000.0),
        ("kvrail_look_up_seconds_bucket{le=\"0.00001\"}", 20_000.0),
        ("kvrail_read_seconds_count", 20_000.0),
        // 0, 20, … 19,980 µs, 20 times each.
        ("kvrail_read_seconds_bucket{le=\"0.00001\"}", 20.0),
        ("kvrail_read_seconds_bucket{le=\"0.001\"}", 20.0 * 51.0),
        ("kvrail_read_seconds_bucket{le=\"10.0\"}", 20_000.0),
        ("kvrail_read_seconds_bucket{le=\"+Inf\"}", 20_000.0),
        ("kvrail_peer_bytes_total{peer=\"prefill-1\"}", 20_000_000.0),
        ("kvrail_peer_pages_total{peer=\"prefill-1\"}", 20_000.0),
        ("kvrail_peer_misses_total{peer=\"prefill-1\"}", 20_000.0),
        ("kvrail_peer_pages_total{peer=\"other\"}", 0.0),
    ];
    for (name, value) in wanted {
        assert_eq!(samples.get(name), Some(&value), "{name} in {samples:#?}");
    }
    let seconds = samples["kvrail_read_seconds_sum"];
    assert!((seconds - 20.0 * 9.99).abs() < 1e-6, "{seconds}");
}

#[test]
fn a_value_at_a_bound_is_at_or_below_it() {
    let metrics = NodeMetrics::default();
    for &bound in &BUCKETS {
        metrics.hits(1, 1, bound);
    }
    metrics.hits(1, 1, BUCKETS[BUCKETS.len() - 1] + 1);
    assert_eq!(metrics.read_times().buckets, [1; BUCKETS.len() + 1]);
}

#[test]
fn every_reason_of_a_miss_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = MissReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), MissReason::ALL.len());
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
}

#[test]
fn peers_beyond_the_limit_share_a_row_and_no_count_is_lost() {
    let metrics = Arc::new(NodeMetrics::new(2));
    let (first, second, third) = (metrics.peer("a"), metrics.peer("b"), metrics.peer("c"));
    first.add(PeerCounts { bytes: 1, pages: 1, misses: 0 });
    second.add(PeerCounts { bytes: 10, pages: 1, misses: 0 });
    third.add(PeerCounts { bytes: 100, pages: 1, misses: 0 });
    metrics.peer("d").add(PeerCounts { misses: 1, ..PeerCounts::default() });
    metrics.peer("a").add(PeerCounts { bytes: 1000, pages: 1, misses: 0 });
    metrics.peer(OTHER_PEERS).add(PeerCounts { misses: 1, ..PeerCounts::default() });
    let rows = |metrics: &NodeMetrics| -> Vec<(String, u64, u64)> {
        let rows = metrics.peer_rows().into_iter();
        rows.map(|(name, row)| (name.into(), row.counts.bytes, row.counts.misses)).collect()
    };
    let row = |name: &str, bytes, misses| (name.to_owned(), bytes, misses);
    assert_eq!(rows(&metrics), [row("a", 1001, 0), row("b", 10, 0), row("other", 100, 2)]);
    // A peer that is gone gives its row to the next one, and its counts to the others.
    drop(first);
    let fourth = metrics.peer("e");
    fourth.add(PeerCounts { bytes: 10_000, pages: 1, misses: 0 });
    assert_eq!(rows(&metrics), [row("b", 10, 0), row("e", 10_000, 0), row("other", 1101, 2)]);
    assert_eq!(metrics.peer_rows().last().unwrap().1.counts.pages, 3);
    // None has a row of its own.
    let none = Arc::new(NodeMetrics::new(0));
    none.peer("a").add(PeerCounts { bytes: 1, pages: 1, misses: 0 });
    assert_eq!(rows(&none), [row("other", 1, 0)]);
}

#[test]
fn connections_of_a_peer_are_added_up_and_gone_when_they_are_dropped() {
    let metrics = Arc::new(NodeMetrics::new(1));
    let peer = metrics.peer("a");
    let (mut first, mut second) = (peer.connection(), peer.connection());
    let state = |unhealthy, lanes, outstanding_pages| PeerState {
        connections: 1,
        unhealthy,
        lanes,
        outstanding_pages,
    };
    first.set(state(0, 4, 7));
    second.set(state(0, 2, 0));
    let shown = || {
        let all = samples(&text(&metrics));
        ["connections", "lanes", "outstanding_pages", "healthy"]
            .map(|name| all[&format!("kvrail_peer_{name}{{peer=\"a\"}}")])
    };
    assert_eq!(shown(), [2.0, 6.0, 7.0, 1.0]);
    first.set(state(1, 0, 3));
    assert_eq!(shown(), [2.0, 2.0, 3.0, 0.0], "one of them has no lane left");
    drop(first);
    assert_eq!(shown(), [1.0, 2.0, 0.0, 1.0]);
    peer.page_failed(WcStatus::RETRY_EXC_ERR);
    peer.page_failed(WcStatus::RETRY_EXC_ERR);
    peer.page_failed(WcStatus(1000));
    let failed = |name: &str| {
        let all = samples(&text(&metrics));
        let of =
            |status| all[&format!("kvrail_peer_failed_pages_total{{peer=\"{name}\",status=\"{status}\"}}")];
        [of(WcStatus::RETRY_EXC_ERR.name()), of(WcStatus(1000).name())]
    };
    assert_eq!(failed("a"), [2.0, 1.0]);
    // The peer that takes the row over begins at zero, and the counts go to the others.
    drop((peer, second));
    let next = metrics.peer("b");
    assert_eq!(failed(OTHER_PEERS), [2.0, 1.0]);
    assert_eq!(samples(&text(&metrics))["kvrail_peer_lanes{peer=\"b\"}"], 0.0);
    drop(next);
}

#[test]
fn names_of_peers_are_escaped() {
    let metrics = Arc::new(NodeMetrics::default());
    let peer = metrics.peer("a\"b\\c\nkvrail_gets_total 7");
    peer.add(PeerCounts { misses: 1, ..PeerCounts::default() });
    let text = text(&metrics);
    let row = "kvrail_peer_misses_total{peer=\"a\\\"b\\\\c\\nkvrail_gets_total 7\"} 1";
    assert!(text.lines().any(|line| line == row), "{text}");
    assert!(!text.lines().any(|line| line == "kvrail_gets_total 7"));
}

#[test]
fn rails_of_one_name_are_added_up_and_go_with_their_reader() {
    let metrics = Arc::new(NodeMetrics::default());
    let (first, second) = (metrics.rails(["mlx5_0", "mlx5_1"]), metrics.rails(["mlx5_0"]));
    let stats = |factor| RailStats {
        posted: factor,
        bytes: 10 * factor,
        page_faults: 100 * factor,
        path_faults: 1000 * factor,
        flushed: 10_000 * factor,
        stale: 100_000 * factor,
        reposted: 3 * factor,
        lanes_failed: 4 * factor,
        lanes_stalled: 5 * factor,
        ..RailStats::default()
    };
    let state = |up, silent_lanes| RailState { up, outstanding_wrs: 6, outstanding_bytes: 60, silent_lanes };
    first.copy(0, &stats(1), &state(true, 0));
    first.copy(1, &stats(2), &state(true, 1));
    second.copy(0, &stats(4), &state(true, 0));
    // A rail that the reader does not have is passed over.
    second.copy(1, &stats(1000), &state(true, 0));
    second.page_failed(7, WcStatus::REM_ACCESS_ERR);
    for status in [WcStatus::REM_ACCESS_ERR, WcStatus::REM_ACCESS_ERR, WcStatus(77), WcStatus(u32::MAX)] {
        first.page_failed(1, status);
    }
    let shown = samples(&text(&metrics));
    let wanted = [
        ("bytes_total{rail=\"mlx5_0\"}", 50.0),
        ("bytes_total{rail=\"mlx5_1\"}", 20.0),
        ("wrs_total{rail=\"mlx5_0\"}", 5.0),
        ("failovers_total{rail=\"mlx5_0\"}", 15.0),
        ("lanes_failed_total{rail=\"mlx5_0\"}", 20.0),
        ("lanes_stalled_total{rail=\"mlx5_0\"}", 25.0),
        ("errors_total{rail=\"mlx5_0\",kind=\"page\"}", 500.0),
        ("errors_total{rail=\"mlx5_0\",kind=\"path\"}", 5000.0),
        ("errors_total{rail=\"mlx5_0\",kind=\"flushed\"}", 50_000.0),
        ("errors_total{rail=\"mlx5_0\",kind=\"stale\"}", 500_000.0),
        ("failed_pages_total{rail=\"mlx5_1\",status=\"IBV_WC_REM_ACCESS_ERR\"}", 2.0),
        ("failed_pages_total{rail=\"mlx5_1\",status=\"IBV_WC_?\"}", 2.0),
        ("outstanding_wrs{rail=\"mlx5_0\"}", 12.0),
        ("outstanding_bytes{rail=\"mlx5_0\"}", 120.0),
        ("silent_lanes{rail=\"mlx5_1\"}", 1.0),
        ("healthy{rail=\"mlx5_0\"}", 1.0),
        ("healthy{rail=\"mlx5_1\"}", 0.0),
    ];
    for (name, value) in wanted {
        assert_eq!(shown.get(&format!("kvrail_rail_{name}")), Some(&value), "{name} in {shown:#?}");
    }
    first.copy(0, &stats(1), &state(false, 0));
    assert_eq!(samples(&text(&metrics))["kvrail_rail_healthy{rail=\"mlx5_0\"}"], 0.0, "one reader's is down");
    drop(first);
    let shown = samples(&text(&metrics));
    assert_eq!(shown["kvrail_rail_bytes_total{rail=\"mlx5_0\"}"], 40.0);
    assert!(!shown.keys().any(|name| name.contains("mlx5_1")));
}

#[test]
fn a_request_is_slow_above_the_threshold_only() {
    let spent = |read| TimeSpent {
        queue: Duration::from_millis(1),
        directory: Duration::from_millis(2),
        connect: Duration::from_millis(3),
        read: Duration::from_millis(read),
    };
    assert_eq!(spent(9).total(), Duration::from_millis(15));
    assert_eq!(spent(9).longest(), ("read", Duration::from_millis(9)));
    assert_eq!(spent(0).longest(), ("connect", Duration::from_millis(3)));
    assert_eq!(TimeSpent::default().longest().0, "queue");
    let request = SlowRequest { pages: 64, misses: 1, bytes: 1 << 20 };
    let log = SlowLog::new(Some(Duration::from_millis(15)));
    assert!(!log.request(&request, &spent(9)));
    assert!(log.request(&request, &spent(10)));
    log.set_threshold(None);
    assert!(!log.request(&request, &TimeSpent { read: Duration::MAX, ..spent(0) }));
    log.set_threshold(Some(Duration::ZERO));
    // The log is limited in its rate; a slow request counts as slow all the same.
    assert_eq!((0..1000).filter(|_| log.request(&request, &spent(10))).count(), 1000);
    assert!(!log.request(&request, &TimeSpent::default()));
}
