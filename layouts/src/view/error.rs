//! Why bytes are not a page, and why a page does not have the requested run of a field.

use crate::address::OffsetError;
use crate::element::ElementKind;
use crate::fingerprint::Fingerprint;

/// Why bytes are not the page they are taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The bytes were laid out by another declaration.
    #[error(
        "{layout} has fingerprint {expected}, the bytes have {found}: they were written under another \
         declaration; give both sides the same one"
    )]
    Fingerprint {
        /// The layout's name.
        layout: &'static str,
        /// The layout's fingerprint.
        expected: Fingerprint,
        /// The one that came with the bytes.
        found: Fingerprint,
    },
    /// Not as many regions as the page has.
    #[error(
        "{layout} has its bytes in {expected} regions, and got {found} slices: give one for each, in order"
    )]
    Regions {
        /// The layout's name.
        layout: &'static str,
        /// The page's regions.
        expected: u32,
        /// How many slices were given.
        found: usize,
    },
    /// A region of another length.
    #[error(
        "region {region} of {layout} has {expected} bytes, the slice has {found}: give exactly one page's"
    )]
    Length {
        /// The layout's name.
        layout: &'static str,
        /// The region, counted from 0.
        region: u32,
        /// Its bytes.
        expected: u64,
        /// The slice's bytes.
        found: usize,
    },
    /// An address that is no multiple of the declared alignment.
    #[error(
        "region {region} of {layout} is declared with align = {align}, the slice is {over} bytes past a \
         multiple of it: align the pool's memory, or declare less"
    )]
    Misaligned {
        /// The layout's name.
        layout: &'static str,
        /// The region, counted from 0.
        region: u32,
        /// The declared alignment, in bytes.
        align: u64,
        /// The address modulo the alignment.
        over: u64,
    },
    /// The layout leaves strides to run time.
    #[error("{layout} has strides that are known only at run time: make a `Placed` of it, and view that")]
    Unplaced {
        /// The layout's name.
        layout: &'static str,
    },
}

impl ViewError {
    /// The number of this error, listed in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Fingerprint { .. } => 1090,
            Self::Regions { .. } => 1091,
            Self::Length { .. } => 1092,
            Self::Misaligned { .. } => 1093,
            Self::Unplaced { .. } => 1094,
        }
    }
}

/// Why there is no such run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The field has no such place.
    #[error(transparent)]
    Address(#[from] OffsetError),
    /// The field's elements are of another kind.
    #[error("`{field}` is declared as {actual}, and was requested as {asked}")]
    ElementKind {
        /// The field's name.
        field: &'static str,
        /// Its elements.
        actual: ElementKind,
        /// The requested kind.
        asked: ElementKind,
    },
}

impl RunError {
    /// The number of this error, listed in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Address(error) => error.code(),
            Self::ElementKind { .. } => 1100,
        }
    }
}
