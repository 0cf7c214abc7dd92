//! Any pair of layouts: a plan that writes every wanted byte of the destination once, from the right place of the
//! source, and nothing else, whole and cut into work requests; or none, for a reason that the oracle sees.

#[path = "../../../layouts/tests/pairs/mod.rs"]
mod pairs;

use pairs::{Dice, Pair};

/// Runs the target on an input of a fuzzer, or a seed.
pub fn run(bytes: &[u8]) {
    let mut dice = Dice(bytes);
    if let Some(pair) = Pair::draw(&mut dice) {
        pair.check(&mut dice);
    }
}
