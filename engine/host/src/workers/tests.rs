use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Within this time, whatever is to come has come.
const LIMIT: Duration = Duration::from_secs(30);

fn later() -> Instant {
    Instant::now() + LIMIT
}

/// A job that reports its start, and then waits until the gate is dropped.
fn held(gate: &Gate, report: &Sender<u32>, number: u32) -> Job {
    let (wait, report) = (Arc::clone(&gate.wait), report.clone());
    Box::new(move || {
        report.send(number).unwrap();
        // Fails when the gate has been dropped.
        let _ = wait.lock().unwrap().recv();
    })
}

/// Holds jobs until it is dropped.
struct Gate {
    wait: Arc<Mutex<Receiver<()>>>,
    _open: Sender<()>,
}

impl Gate {
    fn new() -> Self {
        let (open, wait) = channel();
        Self { wait: Arc::new(Mutex::new(wait)), _open: open }
    }
}

fn tell(report: &Sender<u32>, number: u32) -> Job {
    let report = report.clone();
    Box::new(move || report.send(number).unwrap())
}

/// A value that counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn jobs_of_a_key_start_in_order_and_keys_take_turns() {
    let workers = Workers::new("worker", 1, 1);
    let (report, reports) = channel();
    let gate = Gate::new();
    workers.submit(9, held(&gate, &report, 0)).unwrap();
    for (key, number) in [(1, 10), (1, 11), (1, 12), (2, 20), (2, 21), (3, 30)] {
        workers.submit(key, tell(&report, number)).unwrap();
    }
    drop(gate);
    let order: Vec<_> = (0..7).map(|_| reports.recv_timeout(LIMIT).unwrap()).collect();
    assert_eq!(order, [0, 10, 20, 30, 11, 21, 12]);
}

#[test]
fn a_key_whose_jobs_hang_leaves_threads_to_the_others() {
    let workers = Workers::new("worker", 4, 2);
    let (report, reports) = channel();
    let gate = Gate::new();
    for number in 0..10 {
        workers.submit(1, held(&gate, &report, number)).unwrap();
    }
    for number in 100..110 {
        workers.submit(2, tell(&report, number)).unwrap();
    }
    let begun: Vec<_> = (0..12).map(|_| reports.recv_timeout(LIMIT).unwrap()).collect();
    let (hung, others): (Vec<u32>, Vec<_>) = begun.into_iter().partition(|&number| number < 100);
    assert_eq!(others.len(), 10);
    assert_eq!(hung.len(), 2, "two jobs of a key run at a time");
    let limit = later();
    while workers.shared.lock().running > 2 {
        assert!(Instant::now() < limit, "the other key's jobs have not ended");
        std::thread::yield_now();
    }
    drop(gate);
    let rest: std::collections::BTreeSet<_> =
        (0..8).map(|_| reports.recv_timeout(LIMIT).unwrap()).chain(hung).collect();
    assert_eq!(rest, (0..10).collect());
}

#[test]
fn threads_start_as_jobs_need_them_and_no_more_than_allowed() {
    let workers = Workers::new("worker", 3, 3);
    let (report, reports) = channel();
    assert_eq!(workers.shared.lock().threads, 0);
    for number in 0..20 {
        workers.submit(0, tell(&report, number)).unwrap();
        reports.recv_timeout(LIMIT).unwrap();
        while workers.shared.lock().idle == 0 {
            std::thread::yield_now();
        }
    }
    assert_eq!(workers.shared.lock().threads, 1, "one at a time needs one thread");
    let gate = Gate::new();
    for number in 0..5 {
        workers.submit(number, held(&gate, &report, number)).unwrap();
    }
    assert!((0..3).all(|_| reports.recv_timeout(LIMIT).is_ok()));
    assert_eq!(workers.shared.lock().threads, 3);
    drop(gate);
}

#[test]
fn a_panic_ends_its_job_alone() {
    /// Panics when it is dropped, as the value of a panic.
    struct Worse;

    impl Drop for Worse {
        fn drop(&mut self) {
            panic!("again");
        }
    }

    let workers = Workers::new("worker", 1, 1);
    let (report, reports) = channel();
    workers.submit(1, Box::new(|| panic!("a job"))).unwrap();
    workers.submit(1, Box::new(|| std::panic::panic_any(Worse))).unwrap();
    workers.submit(1, tell(&report, 7)).unwrap();
    assert_eq!(reports.recv_timeout(LIMIT), Ok(7));
    assert_eq!(workers.stop(later()), 0);
}

#[test]
fn stopping_drops_what_waits_and_counts_what_runs() {
    let workers = Workers::new("worker", 1, 1);
    let (report, reports) = channel();
    let (gate, dropped) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    workers.submit(1, held(&gate, &report, 1)).unwrap();
    reports.recv_timeout(LIMIT).unwrap();
    for key in 1..4 {
        let value = Counted(Arc::clone(&dropped));
        let job = Box::new(move || {
            drop(value);
            panic!("a dropped job runs");
        });
        workers.submit(key, job).unwrap();
    }
    assert_eq!(workers.stop(Instant::now()), 1);
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
    let error = workers.submit(1, Box::new(|| ())).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    drop(gate);
    assert_eq!(workers.stop(later()), 0);
    assert!(workers.shared.lock().keys.is_empty());
}

#[test]
fn a_drop_waits_for_no_job_and_its_threads_end() {
    let workers = Workers::new("worker", 2, 1);
    let (report, reports) = channel();
    let gate = Gate::new();
    workers.submit(1, held(&gate, &report, 1)).unwrap();
    workers.submit(2, tell(&report, 2)).unwrap();
    assert!((0..2).all(|_| reports.recv_timeout(LIMIT).is_ok()));
    let shared = Arc::downgrade(&workers.shared);
    drop(workers);
    assert!(shared.upgrade().is_some(), "a job runs");
    drop(gate);
    let limit = later();
    while shared.upgrade().is_some() {
        assert!(Instant::now() < limit, "the threads have not ended");
        std::thread::yield_now();
    }
}

#[test]
fn a_job_may_submit_the_next_one_and_drop_the_workers() {
    let (report, reports) = channel();
    let workers = Arc::new(Workers::new("worker", 1, 1));
    let shared = Arc::downgrade(&workers.shared);
    let (gate, of_job) = (Gate::new(), Arc::clone(&workers));
    let (wait, last) = (held(&gate, &report, 2), tell(&report, 3));
    let first = Box::new(move || {
        report.send(1).unwrap();
        of_job.submit(1, wait).unwrap();
        // Waits until the test has dropped its own reference, so that this one is the last.
        while Arc::strong_count(&of_job) > 1 {
            std::thread::yield_now();
        }
        drop(of_job);
        last();
    });
    workers.submit(1, first).unwrap();
    assert_eq!(reports.recv_timeout(LIMIT), Ok(1));
    drop(workers);
    assert_eq!(reports.recv_timeout(LIMIT), Ok(3), "the job that waited was dropped");
    let limit = later();
    while shared.upgrade().is_some() {
        assert!(Instant::now() < limit, "the thread has not ended");
        std::thread::yield_now();
    }
    assert!(reports.try_recv().is_err());
}
