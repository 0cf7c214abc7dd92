//! The list of all cases, and the functions and the macro that run them.

use crate::failure::{CaseResult, Outcome, Stop};
use crate::rig::Rig;

/// Calls a macro with `$args` and every case as `module::name`. It is the only list of cases.
#[doc(hidden)]
#[macro_export]
macro_rules! __for_each_case {
    ([$($callback:tt)+] $($args:tt)*) => {
        $($callback)+! { [$($args)*]
            describing::a_provider_describes_itself_within_bounds,
            describing::a_rail_that_does_not_exist_opens_no_lane,
            reading::bytes_arrive_where_the_descriptor_says_and_nowhere_else,
            reading::a_scattered_read_fills_its_pieces_in_order_and_nothing_else,
            reading::uniform_reads_give_what_the_same_reads_one_by_one_give,
            reading::completions_of_a_lane_come_in_the_order_of_posting,
            reading::only_signaled_successes_give_completions,
            reading::a_success_covers_the_unsignaled_reads_before_it,
            reading::lanes_of_all_rails_complete_on_their_own_rail,
            posting::a_full_queue_accepts_an_exact_prefix,
            posting::a_dropped_commit_posts_nothing,
            posting::an_empty_commit_is_accepted_and_gives_no_completion,
            posting::poll_gives_the_oldest_first_and_no_more_than_there_is_room_for,
            registering::a_read_by_a_wrong_remote_key_fails_alone_and_flushes_the_rest,
            registering::a_read_of_other_bytes_than_were_published_fails,
            registering::memory_that_is_not_registered_is_not_written,
            registering::a_registration_ends_when_it_is_released,
            failing::a_failed_lane_reports_it_and_flushes_its_reads,
            failing::a_drain_completes_after_everything_before_it,
            failing::a_drain_has_a_place_of_its_own_in_a_full_queue,
            failing::failing_one_lane_changes_no_other_lane,
            failing::while_a_failure_takes_its_time_each_read_still_ends_once,
            closing::a_closed_lane_reports_it_once_and_writes_no_more,
            closing::a_lane_that_is_failed_and_closed_at_once_ends_all_the_same,
            closing::a_close_that_overtakes_a_slow_failure_ends_the_lane,
            closing::a_closed_lane_gives_its_place_back,
            closing::a_provider_that_is_dropped_writes_no_more,
            other_provider::a_lane_of_another_provider_is_left_alone,
            waiting::wait_ends_when_the_completions_have_come,
            waiting::wait_counts_unsignaled_reads,
            waiting::wait_ends_at_its_time,
            waiting::wait_ends_for_a_waker,
            waiting::wait_ends_for_a_failed_completion,
            waiting::wait_ends_for_an_event,
            arming::arm_refuses_while_a_completion_is_there,
            arming::an_armed_descriptor_is_not_readable_without_a_reason,
            arming::an_armed_descriptor_becomes_readable_when_a_read_completes,
            arming::an_armed_descriptor_becomes_readable_for_a_waker,
            arming::an_armed_descriptor_becomes_readable_for_an_event,
        }
    };
}

macro_rules! table {
    ([] $($module:ident::$name:ident,)*) => {
        /// The names of all cases.
        pub const CASES: &[&str] = &[$(stringify!($name)),*];

        fn body<R: Rig>(name: &str) -> Option<fn() -> CaseResult> {
            match name {
                $(stringify!($name) => Some(crate::cases::$module::$name::<R>),)*
                _ => None,
            }
        }
    };
}

__for_each_case! { [table] }

/// Runs one case of [`CASES`].
///
/// # Panics
/// If there is no case of that name.
#[must_use]
pub fn check<R: Rig>(name: &str) -> Outcome {
    let Some(case) = body::<R>(name) else { panic!("there is no case {name}") };
    match case() {
        Ok(()) => Outcome::Passed,
        Err(Stop::Skip(missing)) => Outcome::Skipped { missing },
        Err(Stop::Fail(failure)) => Outcome::Failed(failure),
    }
}

/// Runs every case, and reports each by its name.
pub fn run_all<R: Rig>(mut report: impl FnMut(&'static str, Outcome)) {
    for name in CASES {
        report(name, check::<R>(name));
    }
}

/// Makes a `#[test]` of every case, for the rig of this type. In a file with several rigs put each
/// call into a module. The message of a failed test says what the provider did. A skipped test
/// prints the missing ability.
///
/// A provider for devices that not every host has takes a second argument, a function from the name
/// of the case to an `Option`. The case does not run where the function returns `None`, and the
/// function prints the reason. The value in the `Some` is dropped after the case.
#[macro_export]
macro_rules! conformance_tests {
    ($rig:ty) => {
        $crate::conformance_tests! { $rig, |_| Some(()) }
    };
    ($rig:ty, $devices:expr) => {
        $crate::__for_each_case! { [$crate::__tests] $rig, $devices }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    ([$rig:ty, $devices:expr] $($module:ident::$name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                let devices: fn(&str) -> Option<_> = $devices;
                let Some(_devices) = devices(stringify!($name)) else { return };
                match $crate::check::<$rig>(stringify!($name)) {
                    $crate::Outcome::Passed => {}
                    $crate::Outcome::Skipped { missing } => println!("skipped: it needs {missing}"),
                    $crate::Outcome::Failed(failure) => panic!("{failure}"),
                }
            }
        )*
    };
}
