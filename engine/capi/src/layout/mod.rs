//! Layouts of callers in C: declared, and kept for ever.

mod declare;
mod interned;

pub(crate) use self::declare::{axis_kind, declare, selection};
pub(crate) use self::interned::Interned;
