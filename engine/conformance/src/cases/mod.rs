//! The cases, one file for each part of the contract.

pub(crate) mod arming;
pub(crate) mod closing;
pub(crate) mod describing;
pub(crate) mod failing;
pub(crate) mod other_provider;
pub(crate) mod posting;
pub(crate) mod reading;
pub(crate) mod registering;
pub(crate) mod waiting;
