//! Every shipped layout, and every shape of ranks, stages and blocks, over shared memory:
//! published, read, and every byte compared.
#![allow(missing_docs, reason = "tests")]

mod growing;
mod image;
mod moves;
mod packed;
mod rig;
mod shapes;

use kvrail::layouts::KvLayout;
use kvrail::{layouts, shm};

fn over_shm<L: KvLayout>() {
    moves::moves::<L, _>(shm::publish(2), shm::rails(2).unwrap());
}

moves::all_layouts!(over_shm);
