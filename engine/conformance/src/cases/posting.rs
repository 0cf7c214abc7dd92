//! Commits that are accepted whole, in part, or dropped; and how completions are polled.

use kvrail_core::provider::{Commit, Provider};

use crate::driver::{Driver, RAIL, expect_in_order};
use crate::failure::{CaseResult, Stop, ensure};
use crate::pattern::BYTES;
use crate::rig::Rig;

pub(crate) fn a_full_queue_accepts_an_exact_prefix<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let most = 3 * R::DEPTH;
    let share = BYTES / most as usize;
    let mut taken = 0;
    while taken < most {
        let wanted = (<R::Provider as Provider>::CHAIN as u32).min(most - taken);
        let reads: heapless::Vec<_, 192> =
            (taken..taken + wanted).map(|i| d.read(&mut lane, i as usize * share, share)).collect();
        match d.post(&mut lane, &reads) {
            Commit::All => taken += wanted,
            Commit::Prefix { accepted, .. } => {
                ensure!(accepted < wanted, "a prefix of {accepted} is all of {wanted}: that is Commit::All");
                taken += accepted;
                break;
            }
            Commit::Unknown { .. } => return Err(Stop::Skip("a provider that says what it accepted")),
        }
    }
    ensure!(taken >= R::DEPTH, "{taken} READs were accepted by a lane that holds {}", R::DEPTH);
    let done = d.completions(taken as usize)?;
    expect_in_order(&done, lane.id, 0)?;
    d.linger()?;
    ensure!(
        done.len() + d.done.len() == taken as usize,
        "{} READs completed of which {taken} were accepted",
        done.len() + d.done.len()
    );
    d.expect_bytes(0, 0, taken as usize * share)?;
    d.expect_untouched(taken as usize * share, BYTES, 0, "by a READ beyond the accepted prefix")
}

pub(crate) fn a_dropped_commit_posts_nothing<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    for _ in 0..R::DEPTH + 2 {
        let read = d.read(&mut lane, 0, 512);
        d.abandon(&mut lane, read);
        lane.next -= 1;
    }
    // The queue is as empty as before.
    let reads = d.full_queue(&mut lane);
    d.post_all(&mut lane, &reads[1..])?;
    let done = d.completions(reads.len() - 1)?;
    expect_in_order(&done, lane.id, 1)?;
    d.linger()?;
    ensure!(d.done.is_empty(), "{:?} came of a commit that was dropped", d.done[0]);
    d.expect_untouched(0, reads[0].len as usize, 0, "by a commit that was dropped")
}

pub(crate) fn an_empty_commit_is_accepted_and_gives_no_completion<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let commit = d.post(&mut lane, &[]);
    ensure!(commit == Commit::All, "{commit:?} for a commit without descriptors");
    d.linger()?;
    ensure!(d.done.is_empty(), "{:?} came of a commit without descriptors", d.done[0]);
    let read = d.read(&mut lane, 0, 64);
    d.post_all(&mut lane, &[read])?;
    let done = d.completions(1)?;
    expect_in_order(&done, lane.id, 0)
}

pub(crate) fn poll_gives_the_oldest_first_and_no_more_than_there_is_room_for<R: Rig>() -> CaseResult {
    let mut d = Driver::<R>::new()?;
    let mut lane = d.open(RAIL)?;
    let reads = d.full_queue(&mut lane);
    d.post_all(&mut lane, &reads)?;
    d.rig.pass(crate::driver::LINGER);
    let nothing = d.provider.poll(RAIL, &mut []);
    ensure!(nothing == 0, "poll gives {nothing} completions into room for none");
    // Polls one completion at a time.
    let end = d.rig.now() + R::TIME_LIMIT;
    while d.done.len() < reads.len() {
        if d.poll(RAIL, 1)? == 0 {
            let so_far = d.done.len();
            ensure!(d.rig.now() < end, "of {} completions {so_far} came, polled one by one", reads.len());
            d.rig.pass(kvrail_core::time::Nanos::from_micros(10));
        }
    }
    expect_in_order(&d.done, lane.id, 0)
}
