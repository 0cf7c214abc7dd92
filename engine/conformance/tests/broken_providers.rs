//! The suite passes a provider that keeps the contract. For each defect of a provider it fails the
//! case that is named after the broken promise.
#![allow(missing_docs, reason = "a test")]

mod toy;

use std::collections::BTreeSet;

use kvrail_conformance::{CASES, Outcome, check, run_all};
use toy::defect::{DEFECT, Defect};
use toy::rig::ToyRig;

/// Each defect, and the case that must fail because of it; others may fail, too.
const TABLE: &[(Defect, &str)] = &[
    (Defect::TakesNoPieces, "a_provider_describes_itself_within_bounds"),
    (Defect::OpensOnAnyRail, "a_rail_that_does_not_exist_opens_no_lane"),
    (Defect::ShiftsBytes, "bytes_arrive_where_the_descriptor_says_and_nowhere_else"),
    (Defect::WritesOneByteMore, "bytes_arrive_where_the_descriptor_says_and_nowhere_else"),
    (Defect::ReversesPieces, "a_scattered_read_fills_its_pieces_in_order_and_nothing_else"),
    (Defect::WritesOneByteMore, "a_scattered_read_fills_its_pieces_in_order_and_nothing_else"),
    (Defect::SignalsEachUniformRead, "uniform_reads_give_what_the_same_reads_one_by_one_give"),
    (Defect::CompletesBackwards, "completions_of_a_lane_come_in_the_order_of_posting"),
    (Defect::TellsTheUnsignaled, "only_signaled_successes_give_completions"),
    (Defect::SucceedsBeforeTheBytes, "a_success_covers_the_unsignaled_reads_before_it"),
    (Defect::NeverRetiresTheUnsignaled, "a_success_covers_the_unsignaled_reads_before_it"),
    (Defect::CompletesOnRailZero, "lanes_of_all_rails_complete_on_their_own_rail"),
    (Defect::ExecutesBeyondThePrefix, "a_full_queue_accepts_an_exact_prefix"),
    (Defect::OverstatesThePrefix, "a_full_queue_accepts_an_exact_prefix"),
    (Defect::PostsWhatIsDropped, "a_dropped_commit_posts_nothing"),
    (Defect::TellsOfEmptyCommits, "an_empty_commit_is_accepted_and_gives_no_completion"),
    (Defect::PollsTheNewestFirst, "poll_gives_the_oldest_first_and_no_more_than_there_is_room_for"),
    (Defect::IgnoresRemoteKeys, "a_read_by_a_wrong_remote_key_fails_alone_and_flushes_the_rest"),
    (Defect::IgnoresRemoteRanges, "a_read_of_other_bytes_than_were_published_fails"),
    (Defect::IgnoresLocalKeys, "memory_that_is_not_registered_is_not_written"),
    (Defect::IgnoresReleases, "a_registration_ends_when_it_is_released"),
    (Defect::FlushesTheSignaledOnly, "a_failed_lane_reports_it_and_flushes_its_reads"),
    (Defect::ExecutesAfterFailure, "a_failed_lane_reports_it_and_flushes_its_reads"),
    (Defect::FailsWithoutAWord, "a_failed_lane_reports_it_and_flushes_its_reads"),
    (Defect::DrainsEarly, "a_drain_completes_after_everything_before_it"),
    (Defect::DrainsNeedAPlace, "a_drain_has_a_place_of_its_own_in_a_full_queue"),
    (Defect::FailsTheNeighbour, "failing_one_lane_changes_no_other_lane"),
    (Defect::NamesTheNeighbour, "failing_one_lane_changes_no_other_lane"),
    (Defect::LosesPostsWhileFailing, "while_a_failure_takes_its_time_each_read_still_ends_once"),
    (Defect::ClosesWithoutAWord, "a_closed_lane_reports_it_once_and_writes_no_more"),
    (Defect::WritesAfterTheClose, "a_closed_lane_reports_it_once_and_writes_no_more"),
    (Defect::TellsAFailureAfterTheClose, "a_lane_that_is_failed_and_closed_at_once_ends_all_the_same"),
    (Defect::TellsAFailureAfterTheClose, "a_close_that_overtakes_a_slow_failure_ends_the_lane"),
    (Defect::KeepsPlaces, "a_closed_lane_gives_its_place_back"),
    (Defect::WritesAfterTheDrop, "a_provider_that_is_dropped_writes_no_more"),
    (Defect::DrainsForeignLanes, "a_lane_of_another_provider_is_left_alone"),
    (Defect::FailsForeignLanes, "a_lane_of_another_provider_is_left_alone"),
    (Defect::SleepsOverCompletions, "wait_ends_when_the_completions_have_come"),
    (Defect::CountsTheSignaledOnly, "wait_counts_unsignaled_reads"),
    (Defect::SleepsTooLong, "wait_ends_at_its_time"),
    (Defect::SleepsOverWakers, "wait_ends_for_a_waker"),
    (Defect::SleepsOverErrors, "wait_ends_for_a_failed_completion"),
    (Defect::SleepsOverEvents, "wait_ends_for_an_event"),
    (Defect::ArmsOverCompletions, "arm_refuses_while_a_completion_is_there"),
    (Defect::StaysReadable, "an_armed_descriptor_is_not_readable_without_a_reason"),
    (Defect::NeverTellsCompletions, "an_armed_descriptor_becomes_readable_when_a_read_completes"),
    (Defect::NeverTellsWakers, "an_armed_descriptor_becomes_readable_for_a_waker"),
    (Defect::NeverTellsEvents, "an_armed_descriptor_becomes_readable_for_an_event"),
];

#[test]
fn a_provider_that_keeps_the_contract_passes_every_case() {
    let mut seen = 0;
    run_all::<ToyRig>(|name, outcome| {
        assert_eq!(outcome, Outcome::Passed, "{name}");
        seen += 1;
    });
    assert_eq!(seen, CASES.len());
}

#[test]
fn a_broken_provider_fails_by_the_name_of_the_promise() {
    for &(defect, case) in TABLE {
        DEFECT.set(defect);
        let outcome = check::<ToyRig>(case);
        assert!(matches!(outcome, Outcome::Failed(_)), "{defect:?}: {case} gave {outcome:?}");
        if let Outcome::Failed(failure) = outcome {
            println!("{defect:?}: {case}: {failure}");
        }
    }
}

#[test]
fn every_case_has_been_seen_to_fail() {
    let failing: BTreeSet<_> = TABLE.iter().map(|(_, case)| *case).collect();
    let all: BTreeSet<_> = CASES.iter().copied().collect();
    assert_eq!(failing, all);
}

#[test]
fn every_defect_is_found() {
    // A defect without a row in the table has been forgotten.
    let last = Defect::NeverTellsEvents as usize;
    let tried: BTreeSet<_> = TABLE.iter().map(|(defect, _)| *defect as usize).collect();
    assert!(tried.into_iter().eq(1..=last));
}
