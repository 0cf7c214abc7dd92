//! A node whose reader the caller drives, two owners, and a directory that says what an input
//! wants: what the `get` target consists of.
//!
//! The GET path reads the clock and its own queues, so it is driven as a caller drives it, over
//! shared memory, and not in model time. What is checked holds in whatever order the threads run:
//! the node's thread for look-ups, and the one that copies for the rail.
//!
//! | file | what |
//! |---|---|
//! | `directory.rs` | a directory that answers with any records, errors, or too little |
//! | `world.rs` | the node, its owners, and the truth about each `get` |

mod directory;
mod world;

pub use world::World;
