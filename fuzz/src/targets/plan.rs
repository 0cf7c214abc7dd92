//! An arbitrary pair of layouts has a plan that writes every wanted byte of the destination once,
//! from the right place of the source, and no other byte, whole and cut into work requests; or it
//! has none, for a reason that the oracle confirms.

#[path = "../../../layouts/tests/pairs/mod.rs"]
mod pairs;

use pairs::{Dice, Pair};

/// Runs the target.
pub fn run(bytes: &[u8]) {
    let mut dice = Dice(bytes);
    if let Some(pair) = Pair::draw(&mut dice) {
        pair.check(&mut dice);
    }
}
