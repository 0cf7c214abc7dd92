//! A part of a page: ranges along its axes, and the bytes that they are.
//!
//! A [`Selection`] is what one wants, whatever the page; [`Geometry::select`] checks it against a page
//! and gives a [`Selected`], which is addressable; its [`segments`](Selected::byte_ranges) are the
//! contiguous bytes, as few and as long as there are.
//!
//! ```
//! use kvrail_layouts::{KvLayout, Selection, catalogue::SglMlaPageFirstDirect};
//!
//! // [L, T, 576]: two layers are one run of bytes; four tokens of each layer are 61 runs.
//! let page = SglMlaPageFirstDirect::GEOMETRY;
//! let layers = page.select(Selection::ALL.layers(10, 2))?;
//! let mut segments = layers.byte_ranges();
//! assert_eq!(segments.next().map(|s| (s.offset, s.len)), Some((737_280, 147_456)));
//! assert_eq!(segments.next(), None);
//! assert_eq!(page.select(Selection::ALL.tokens(0, 4))?.byte_ranges().count(), 61);
//! # Ok::<(), kvrail_layouts::SelectionError>(())
//! ```

mod byte_ranges;
mod selected;

pub use self::byte_ranges::{ByteRange, ByteRanges};
pub use self::selected::{Selected, Selection, SelectionError};
