//! An engine over the model of rails and peers, driven by an input byte by byte: what the
//! `completions` target consists of.
//!
//! | file | what |
//! |---|---|
//! | `owner.rs` | a peer that publishes pages, and knows which bytes each publication has |
//! | `world.rs` | the engine, and the truth about each batch, page and slot that it has |
//! | `finish.rs` | the checks of what the engine gives back |
//! | `steps.rs` | what an input lets happen |

mod finish;
mod owner;
mod steps;
mod world;

pub use world::{Memory, World};
