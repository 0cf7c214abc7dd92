//! The GET path over real publishers, sessions and rails.

mod bad_input;
mod basic;
mod deaths;
mod directory;
mod forged;
mod group;
mod limits;
mod load;
mod look_ups;
mod many_owners;
mod registering;
