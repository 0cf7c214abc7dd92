//! A child of a fork: the workers of its parent are not there, and to use them does no harm.
#![allow(unsafe_code, reason = "forks")]

use std::io::{self, Read as _, Write as _};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use kvrail_host::workers::Workers;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn in_a_child_of_a_fork_nothing_is_done() {
    let workers = Workers::new("worker", 2, 1);
    let (report, reports) = channel();
    workers
        .submit(
            1,
            Box::new({
                let report = report.clone();
                move || report.send(1).unwrap()
            }),
        )
        .unwrap();
    reports.recv_timeout(LIMIT).unwrap();
    let (mut said, say) = io::pipe().unwrap();
    // SAFETY: the child asks workers of its parent, which refuse without a lock, drops them, which
    // does nothing there, writes bytes and ends.
    let child = match unsafe { libc::fork() } {
        0 => {
            let refused = workers.submit(1, Box::new(|| ())).is_err();
            let none = workers.stop(Instant::now() + LIMIT) == 0;
            drop(workers);
            let _ = (&say).write_all(&[u8::from(refused), u8::from(none)]);
            // SAFETY: ends the process, without what the parent registered for its end.
            unsafe { libc::_exit(0) };
        }
        ..0 => panic!("{}", io::Error::last_os_error()),
        pid => pid,
    };
    drop(say);
    let mut answers = Vec::new();
    said.read_to_end(&mut answers).unwrap();
    // SAFETY: a system call for a child of this test; no status is written.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    assert_eq!(answers, [1, 1]);
    workers.submit(2, Box::new(move || report.send(2).unwrap())).unwrap();
    assert_eq!(reports.recv_timeout(LIMIT), Ok(2));
    assert_eq!(workers.stop(Instant::now() + LIMIT), 0);
}
