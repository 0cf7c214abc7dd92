//! A reader's session without a socket, against a producer that says whatever a test wants, and a
//! clock that a test moves.

mod chunks;
mod ends;
mod lanes;
mod order;
mod rig;
mod times;
