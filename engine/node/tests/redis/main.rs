//! The directory in Redis, over real servers: one, and a cluster of three.
//!
//! The servers are Debian's redis-server. Without it the tests are skipped and say so; with
//! `KVRAIL_REDIS_TESTS=required` in the environment they fail.

#[path = "../common/directory_suite.rs"]
mod directory_suite;
mod failover;
mod faults;
mod foreign;
#[path = "../faults/pages.rs"]
#[allow(dead_code, reason = "other tests use all of it")]
mod pages;
mod servers;
mod single;
#[cfg(feature = "redis-tls")]
mod tls;

/// Makes tests of the suite's functions, over one server and over a cluster.
macro_rules! suite {
    ($($name:ident)*) => {
        mod on_one_server {
            $(#[test]
            fn $name() {
                if let Some(servers) = crate::servers::one() {
                    crate::directory_suite::$name(&mut servers.for_test(stringify!($name)));
                }
            })*
        }

        mod on_a_cluster {
            $(#[test]
            fn $name() {
                if let Some(servers) = crate::servers::three() {
                    crate::directory_suite::$name(&mut servers.for_test(stringify!($name)));
                }
            })*
        }

        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

suite! {
    announced_records_are_found_by_every_client
    keys_that_nobody_has_are_answered_with_no_owner
    several_owners_of_a_key_stand_side_by_side
    an_answer_has_at_most_max_owners_records
    a_new_generation_takes_the_place_of_the_old_one
    a_record_that_is_announced_again_is_there_once
    a_withdrawn_record_is_gone_and_the_others_stay
    a_withdrawn_old_generation_is_passed_over
    a_dead_owners_records_expire_and_block_nobody
    an_owner_that_renews_keeps_its_records
    an_owner_whose_lease_ran_out_learns_that_its_records_are_lost
    owners_are_known_by_their_epochs
    a_batch_of_128_keys_is_one_message_of_each_shard
    thousands_of_records_and_keys_go_in_one_call
    threads_of_one_client_do_not_mix_their_answers
    a_dead_directory_is_an_error_by_the_deadline
    a_frozen_directory_is_an_error_by_the_deadline
    a_death_between_look_ups_gives_no_wrong_answer
    a_restarted_directory_is_filled_again
}

#[test]
fn every_test_of_the_suite_runs_here() {
    let files = [include_str!("../common/directory_suite.rs"), include_str!("../common/directory_faults.rs")];
    let heads = files
        .iter()
        .flat_map(|file| file.lines())
        .filter(|line| line.contains("(cluster: &mut dyn Cluster)"));
    let names = heads.filter_map(|line| line.strip_prefix("pub(crate) fn ")?.split_once('('));
    let names: Vec<_> = names.map(|(name, _)| name).collect();
    assert_eq!(names, NAMES);
}
