//! Queue pairs: the handle of one, its states as types, and how it is destroyed.

pub(crate) mod handle;
mod reclaim;
pub(crate) mod states;
pub(crate) mod tag;
