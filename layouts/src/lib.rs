//! What a KV-cache page is, as plain constant data.
//!
//! Inference engines disagree about almost everything in a page: which axis is outermost, whether K
//! and V share an object, where quantisation scales live, what is padded. Two of the common layouts
//! have the same size and different bytes. This crate gives one model in which each of them is a
//! value, known at compile time, that can be addressed, compared, hashed and printed.
//!
//! Read it in the order in which a page is made:
//!
//! 1. **Elements**: what one number looks like in memory: [`Bf16`], [`E4m3`], [`F32`], `u8` and
//!    others. All of them have alignment 1 and a fixed byte order.
//! 2. **Axes**: what is counted, [`AxisKind`]: layers, tokens, parts (K and V), heads; and how an
//!    axis is distributed over ranks, [`Spread`].
//! 3. **Declaration**: what an author writes: fields, planes, and the order of the axes, outermost
//!    first. [`Declaration::build`] does all checking. It reports every mistake, each at its
//!    [`Spot`].
//! 4. **Geometry**: the result, a [`Geometry`]: an offset for each field and a step for each axis.
//!    It cannot be wrong, so nothing after it checks again. Its `Display` is meant to be read.
//! 5. **Address**: [`Geometry::offset_of`], the one formula: `base[region] + offset[field] + Σ
//!    index · stride`.
//! 6. **Selection**: a part of a page (layers, tokens, a group of heads, fields), [`Selection`],
//!    and the contiguous bytes that it consists of, [`Selected::byte_ranges`].
//! 7. **Placement**: strides and distances that are known only at run time: [`Placement`],
//!    [`Placed`].
//! 8. **Fingerprint**: 128 bits that differ whenever one byte could land elsewhere,
//!    [`Fingerprint`]. Two pages are compared by their [`Identity`], which includes ranks.
//! 9. **Types**: [`KvLayout`] is a geometry as a type, [`FieldOf`] a field of it, and a [`View`]
//!    gives typed access to a page's bytes without copying. [`catalogue`] holds the layouts that we
//!    ship.
//! 10. **Plans**: the READs that bring a page of one layout into a page of another: [`plan`].
//!
//! ```
//! use kvrail_layouts::{Bf16, FieldOf, KvLayout, View, catalogue::VllmFp8DsMla};
//!
//! const ROPE: FieldOf<VllmFp8DsMla, Bf16> = FieldOf::named("rope");
//! let page = [0u8; VllmFp8DsMla::PAGE_BYTES as usize];
//! let view = View::<VllmFp8DsMla>::new(&page, VllmFp8DsMla::FINGERPRINT)?;
//! let rope: &[Bf16] = view.get(ROPE, &[7])?; // the RoPE part of token 7
//! assert_eq!(rope.len(), 64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate is `no_std`, never allocates, and holds no unsafe code. `#[derive(KvLayout)]` of
//! `kvrail-macros` only writes a [`Declaration`] down; every algorithm is here.

#![no_std]

/// So that `#[kv(crate = "..")]` means the same whether it names kvrail or this crate: where
/// `layouts` is found.
#[doc(hidden)]
pub extern crate self as layouts;

mod address;
mod axis;
pub mod catalogue;
mod declaration;
mod display;
mod element;
mod field;
mod fingerprint;
mod geometry;
mod identity;
mod layout;
#[doc(hidden)]
pub mod macro_support;
mod overlap;
mod placement;
pub mod plan;
mod selection;
mod sha256;
mod text;
mod view;

pub use address::{OffsetError, Place};
pub use axis::{Axis, AxisKind, Spread};
pub use declaration::{
    Declaration, DeclarationError, DeclarationErrorKind, DeclarationErrors, FieldDecl, Level, PlaneDecl, Spot,
};
pub use element::{Bf16, E4m3, E5m2, Element, ElementKind, F16, F32, Fp4x2, Ue8m0};
pub use field::FieldOf;
pub use fingerprint::Fingerprint;
pub use geometry::{AxisStep, Field, Geometry, MAX_AXES, MAX_FIELDS, MAX_PLANES, MAX_REGIONS, Plane};
pub use identity::{Identity, RankOf, Undetermined};
pub use layout::KvLayout;
pub use placement::{Placed, Placement, PlacementError};
pub use plan::{Plan, PlanError};
pub use selection::{ByteRange, ByteRanges, Selected, Selection, SelectionError};
pub use text::Text;
pub use view::{Pieces, RunError, View, ViewError, ViewMut};
