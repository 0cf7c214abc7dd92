//! A layout as a picture: [`blocks`] takes a page apart, [`svg`] draws the parts.

mod blocks;
pub(crate) mod svg;
