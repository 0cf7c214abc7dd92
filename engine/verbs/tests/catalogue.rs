//! Every shipped layout over real verbs: published, read whole, gathered by a plan and scattered
//! again, every byte compared.
#![allow(missing_docs, reason = "tests")]

#[path = "../../tests/catalogue/image.rs"]
mod image;
mod lane;
#[path = "../../tests/catalogue/moves.rs"]
mod moves;
#[path = "../../tests/catalogue/packed.rs"]
mod packed;
#[path = "../../tests/catalogue/rig.rs"]
mod rig;

use kvrail::layouts::KvLayout;
use kvrail::{layouts, verbs};
use lane::Devices;

fn over_verbs<L: KvLayout>() {
    let Some(devices) = Devices::find(L::NAME) else { return };
    let (over, rails) = (verbs::publish(&devices.producer).unwrap(), verbs::rails(&devices.reader).unwrap());
    moves::moves::<L, _>(over, rails);
}

moves::all_layouts!(over_verbs);
