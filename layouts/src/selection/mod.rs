//! A part of a page: ranges along its axes, and the bytes that it consists of.

mod byte_ranges;
mod selected;

pub use self::byte_ranges::{ByteRange, ByteRanges};
pub use self::selected::{Selected, Selection, SelectionError};
