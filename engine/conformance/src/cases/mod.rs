//! The cases, by what they are about.

pub(crate) mod closing;
pub(crate) mod describing;
pub(crate) mod failing;
pub(crate) mod posting;
pub(crate) mod reading;
pub(crate) mod registering;
pub(crate) mod strangers;
pub(crate) mod waiting;
