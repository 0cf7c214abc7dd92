//! Registered memory, which READs may write, and other memory, which they may not.

use kvrail_core::provider::{MemoryRange, Provider as _, Read};
use kvrail_core::verbs_abi::WcStatus;

use crate::driver::{Driver, RAIL, expect_in_order, need};
use crate::failure::{CaseResult, ensure};
use crate::pattern::BYTES;
use crate::rig::Rig;

const REMOTE: &str = "checks of remote keys and ranges";
const LOCAL: &str = "checks of local keys and ranges";

/// Posts a wrong READ, unsignaled, between two good ones. It must be the only one that fails, give
/// a completion, and have the READ after it flushed.
fn fails_alone<R: Rig>(what: &str, stray: impl Fn(&Driver<R>, &mut Read)) -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let mut reads = [d.read(&mut lane, 0, 64), d.read(&mut lane, 4_096, 64), d.read(&mut lane, 8_192, 64)];
    reads[1].signaled = false;
    stray(&d, &mut reads[1]);
    d.post_all(&mut lane, &reads)?;
    let done = d.completions(3)?;
    expect_in_order(&done[..1], lane.id, 0)?;
    let (failed, after) = (done[1], done[2]);
    ensure!(
        failed.wr_id == reads[1].wr_id
            && !failed.status.is_success()
            && failed.status != WcStatus::WR_FLUSH_ERR,
        "{what} completed as {:?} with {:?}, not by itself with the error that it is",
        failed.wr_id,
        failed.status
    );
    ensure!(
        after.wr_id == reads[2].wr_id && after.status == WcStatus::WR_FLUSH_ERR,
        "after {what} came {:?} of {:?}: what follows an error is flushed",
        after.status,
        after.wr_id
    );
    d.expect_bytes(0, 0, 64)?;
    d.expect_untouched(4_096, BYTES, 0, "by a READ that was refused")?;
    d.expect_untouched(64, 4_096, 0, "by a READ that was refused")
}

pub(crate) fn a_read_by_a_wrong_remote_key_fails_alone_and_flushes_the_rest<R: Rig>() -> CaseResult {
    need(R::ABILITIES.checks_remote, REMOTE)?;
    fails_alone::<R>("a READ by a wrong remote key", |_, read| read.rkey ^= 0x55_0000)
}

pub(crate) fn a_read_of_other_bytes_than_were_published_fails<R: Rig>() -> CaseResult {
    need(R::ABILITIES.checks_remote, REMOTE)?;
    fails_alone::<R>("a READ beyond the published memory", |d, read| {
        read.remote_addr = d.remote.base + BYTES as u64 - 63;
    })?;
    fails_alone::<R>("a READ before the published memory", |d, read| read.remote_addr = d.remote.base - 1)
}

pub(crate) fn memory_that_is_not_registered_is_not_written<R: Rig>() -> CaseResult {
    need(R::ABILITIES.checks_local, LOCAL)?;
    fails_alone::<R>("a READ by a wrong local key", |_, read| read.lkey ^= 0x55_0000)?;
    // The key of a second registration, of a part, is valid for that part only.
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let part = MemoryRange { addr: d.memory.range().addr, len: 4_096 };
    let keys = match d.provider.register(part) {
        Ok(keys) => keys,
        Err(error) => crate::failure::fail!("a part of registered memory could not be registered: {error}"),
    };
    let stray = Read { lkey: keys[0], ..d.read(&mut lane, 4_090, 64) };
    d.post_all(&mut lane, &[stray])?;
    let done = d.completions(1)?;
    ensure!(!done[0].status.is_success(), "a READ beyond the range of its local key succeeded");
    d.expect_untouched(0, BYTES, 0, "by a READ that goes beyond the range of its local key")
}

pub(crate) fn a_registration_ends_when_it_is_released<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let range = d.memory.range();
    // Many times, so that a released registration must give its place back.
    for round in 0..100 {
        let keys = match d.provider.register(range) {
            Ok(keys) => keys,
            Err(error) => crate::failure::fail!("registration {round} failed, each before released: {error}"),
        };
        d.provider.deregister(range, &keys);
    }
    let old = core::mem::replace(&mut d.keys, [0; kvrail_core::id::MAX_RAILS]);
    d.provider.deregister(range, &old);
    d.keys = match d.provider.register(range) {
        Ok(keys) => keys,
        Err(error) => crate::failure::fail!("memory could not be registered again: {error}"),
    };
    let mut lane = d.open(RAIL)?;
    let read = d.read(&mut lane, 0, 512);
    d.post_all(&mut lane, &[read])?;
    let done = d.completions(1)?;
    expect_in_order(&done, lane.id, 0)?;
    d.expect_bytes(0, 0, 512)?;
    if !R::ABILITIES.checks_local {
        return Ok(());
    }
    let stale = Read { lkey: old[0], ..d.read(&mut lane, 1_024, 512) };
    d.post_all(&mut lane, &[stale])?;
    let done = d.completions(1)?;
    ensure!(!done[0].status.is_success(), "a READ by the key of a released registration succeeded");
    d.expect_untouched(1_024, BYTES, 0, "by the key of a released registration")
}
