//! What an author writes: fields, planes, and the order of the axes.

mod build;
pub(crate) mod error;

pub use self::error::{DeclarationError, DeclarationErrorKind, DeclarationErrors, Spot};

use crate::axis::{Axis, AxisKind};
use crate::element::{Element, ElementKind};

/// One level of a page's order.
///
/// Region levels come first; then those that take bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// One block per index of the axis, densely one after the other.
    Axis(AxisKind),
    /// One block per index of the axis, at a distance known only at run time
    /// ([`Placement::stride`](crate::Placement::stride)). Sizes count it as if it were dense.
    Strided(AxisKind),
    /// One region per index of the axis.
    Regions(AxisKind),
    /// The planes, densely one after the other; the levels that follow are within each plane.
    Planes,
    /// As `Planes`, at distances known only at run time
    /// ([`Placement::plane`](crate::Placement::plane)).
    StridedPlanes,
    /// Each plane in a region of its own.
    RegionPlanes,
    /// The levels that follow, padded up to a multiple of this many bytes (any number from 1). As
    /// the last level it pads the row, as the first level the region.
    Pad(u64),
}

/// One field of a row: `count` elements of one kind, densely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldDecl {
    /// The field's name. It is unique in a page, and part of the fingerprint: only names tell two
    /// fields of one shape, such as K and V, apart.
    pub name: &'static str,
    /// The kind of its elements.
    pub kind: ElementKind,
    /// How many there are in a row; at least 1.
    pub count: u64,
}

impl FieldDecl {
    /// A field of `count` elements of this kind.
    #[must_use]
    pub const fn new(name: &'static str, kind: ElementKind, count: u64) -> Self {
        Self { name, kind, count }
    }

    /// A field of `count` elements of this type.
    #[must_use]
    pub const fn of<E: Element>(name: &'static str, count: usize) -> Self {
        Self::new(name, E::KIND, count as u64)
    }
}

/// Rows of the same fields, one for each index of the plane's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneDecl<'a> {
    /// The fields of one row, in the order of their bytes; at least one.
    pub fields: &'a [FieldDecl],
    /// The plane's own levels, in place of those that follow `planes` in the page's order. It need
    /// not name every axis: a field has the same bytes for all indices of an axis it lacks.
    pub order: Option<&'a [Level]>,
}

impl<'a> PlaneDecl<'a> {
    /// A plane in the page's order.
    #[must_use]
    pub const fn of(fields: &'a [FieldDecl]) -> Self {
        Self { fields, order: None }
    }
}

/// A page as its author declares it.
///
/// A page is described from the outside in. `order` lists its levels, outermost first: the axes,
/// where planes split, where bytes are padded, which blocks have a region each. Innermost is a row:
/// the fields of a plane, one after the other.
///
/// ```
/// use kvrail_layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Level, PlaneDecl};
///
/// // One layer of DeepSeek V4, 64 states of 4 tokens: {64 × 576, 64 × 8}, padded to 65 × 576.
/// const V4: Declaration<'static> = Declaration {
///     axes: &[Axis::whole(AxisKind::Token, 64)],
///     order: &[Level::Pad(576), Level::Planes, Level::Axis(AxisKind::Token)],
///     planes: &[
///         PlaneDecl::of(&[
///             FieldDecl::new("latent", ElementKind::E4m3, 448),
///             FieldDecl::new("rope", ElementKind::Bf16, 64),
///         ]),
///         PlaneDecl::of(&[
///             FieldDecl::new("scales", ElementKind::Ue8m0, 7),
///             FieldDecl::new("unused", ElementKind::U8, 1),
///         ]),
///     ],
///     tokens_per_state: 4,
///     ..Declaration::EMPTY
/// };
/// let geometry = V4.build()?;
/// assert_eq!(geometry.page_bytes(), 37_440); // 37,376 and 64 of padding
/// # Ok::<(), kvrail_layouts::DeclarationErrors>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declaration<'a> {
    /// The axes, in any order, each kind once.
    pub axes: &'a [Axis],
    /// The page's levels, outermost first.
    pub order: &'a [Level],
    /// The planes; a page that does not split into planes has one.
    pub planes: &'a [PlaneDecl<'a>],
    /// How many tokens one index of the token axis stands for; at least 1.
    pub tokens_per_state: u64,
    /// Every region's address is a multiple of this, any number from 1. Every region's length must
    /// be a multiple of it as well, so that pages can follow each other.
    pub align: u64,
    /// The page's size, if the author wants it checked.
    pub bytes: Option<u64>,
    /// The author's version of the meaning of the bytes.
    pub version: u32,
    /// A tag for a platform's permutation of bytes within the page; 0 for none.
    pub swizzle: u32,
}

impl Declaration<'_> {
    /// A declaration of nothing, with all defaults: for `..Declaration::EMPTY`.
    pub const EMPTY: Self = Declaration {
        axes: &[],
        order: &[],
        planes: &[],
        tokens_per_state: 1,
        align: 1,
        bytes: None,
        version: 0,
        swizzle: 0,
    };
}
