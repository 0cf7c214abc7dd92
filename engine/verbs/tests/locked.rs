//! A limit on locked memory under which one rail's registration fits and two do not.
#![allow(missing_docs, reason = "tests")]

mod lane;

use std::process::Command;

use kvrail_core::provider::MemoryRange;
use kvrail_verbs::{MrError, Rights, Side, VerbsConfig, VerbsRegion, rail};
use lane::{Devices, said};

/// Set in the process that has the limit: the rails.
const RAILS: &str = "KVRAIL_TEST_LOCKED_RAILS";
const BYTES: u64 = 16 << 20;
const LIMIT: u64 = 24 << 20;

/// The registration runs in a process of its own: the limit, and the capability that lifts it,
/// belong to a process.
#[test]
fn the_limit_is_named_when_the_second_rail_meets_it() {
    const TEST: &str = "two rails under a limit of locked memory";
    let Some(fabric) = Devices::find_breakable(TEST) else { return };
    let status = Command::new("prlimit")
        .arg(format!("--memlock={LIMIT}"))
        // At an exec, root gets the capabilities of the bounding set.
        .args(["setpriv", "--bounding-set", "-ipc_lock", "--inh-caps", "-ipc_lock"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "registers_under_a_limit", "--nocapture"])
        .env(RAILS, &fabric.reader)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    said(&format!("{TEST}: {} bytes on two rails, limit {LIMIT}: the limit is named", BYTES));
}

#[test]
fn registers_under_a_limit() {
    let Some(rails) = std::env::var(RAILS).ok() else { return };
    let rails = rail::open(&rails, VerbsConfig::DEFAULT, Side::Producer).unwrap();
    assert_eq!(rails.len(), 2);
    let memory = kvrail::memory::leaked(BYTES as usize).unwrap();
    let range = MemoryRange { addr: memory.as_mut_ptr().expose_provenance() as u64, len: BYTES };
    // The limit has room for one rail's registration, also a second time.
    for _ in 0..2 {
        drop(VerbsRegion::new(&rails[..1], range, Rights::RemoteRead).unwrap());
    }
    let error = VerbsRegion::new(&rails, range, Rights::RemoteRead).unwrap_err();
    assert_eq!(error.rail, 1);
    let MrError::LockedMemory { len: BYTES, rails: 2, limit: LIMIT, pinned: Some(pinned), .. } = error.reason
    else {
        panic!("{error}")
    };
    // The first rail's registration, and little else.
    assert!((BYTES..BYTES + (1 << 20)).contains(&pinned), "{pinned} bytes were locked");
    assert!(error.to_string().contains("ulimit -l"), "{error}");
}
