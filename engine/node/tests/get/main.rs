//! The GET path over real publishers, sessions and rails.

mod basic;
mod directory;
mod group;
