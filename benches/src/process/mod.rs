//! Child processes, the pipe between them and their parent, and the signals that stop a program.
//!
//! A child does nothing without an order, and does not outlive its parent: the kernel kills it with
//! the parent (`PR_SET_PDEATHSIG`), and the end of its orders ends it, too.

pub(crate) mod child;
pub(crate) mod hosts;
pub(crate) mod parent;
pub(crate) mod protocol;
pub(crate) mod stop;
