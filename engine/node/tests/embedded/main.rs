//! The embedded directory over real sockets: its shards are processes, which are killed and
//! stopped.

#[path = "../common/directory_suite.rs"]
mod directory_suite;
mod failover;
mod shards;

use shards::Shards;

fn two_candidates() -> Shards {
    Shards::start(2)
}

mod suite {
    use super::{directory_suite, two_candidates};

    directory_suite!(two_candidates);
}

mod one_candidate {
    use super::directory_suite;
    use super::shards::Shards;

    fn one() -> Shards {
        Shards::start(1)
    }

    directory_suite!(one:
        announced_records_are_found_by_every_client,
        a_dead_directory_is_an_error_by_the_deadline,
        a_frozen_directory_is_an_error_by_the_deadline,
        a_death_between_look_ups_gives_no_wrong_answer,
        a_restarted_directory_is_filled_again,
    );
}
