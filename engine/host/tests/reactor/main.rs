//! The reactor on real sockets.

mod common;
mod ends;
mod threads;
mod traffic;
