//! What a KV-cache page is, as plain constant data.
//!
//! Inference engines disagree about almost everything in a page: which axis is outermost, whether K
//! and V share an object, where quantisation scales live, what is padded. Two of the common layouts
//! have the same size and different bytes. This crate gives one model in which each of them is a
//! value, known at compile time, that can be addressed, compared, hashed and printed.
//!
//! Read it in the order a page is made:
//!
//! 1. [`element`] – what one number looks like in memory: [`Bf16`], [`E4m3`], [`F32`], `u8`, … All
//!    of them have alignment 1 and a fixed byte order.
//! 2. [`axis`] – what is counted: layers, tokens, parts (K and V), heads; and how an axis is spread
//!    over ranks.
//! 3. [`declaration`] – what an author writes: fields, planes, and the order of the axes, outermost
//!    first. [`Declaration::build`] is where all checking happens; it reports every mistake, each at
//!    its [`Spot`].
//! 4. [`geometry`] – what comes out: a [`Geometry`], in which each field has a place and each axis a
//!    step. It cannot be wrong, so nothing after it checks again. Its `Display` is meant to be read.
//! 5. [`address`] – the one formula: `base[region] + offset[field] + Σ index · stride`.
//! 6. [`selection`] – a part of a page (layers, tokens, a group of heads, fields), and the contiguous bytes
//!    that it is.
//! 7. [`placement`] – strides and distances that are only known at run time become a `Geometry` too.
//! 8. [`fingerprint`] – 128 bits that differ whenever one byte could land elsewhere ([`sha256`] is
//!    underneath); [`identity`] – what two pages are compared by, ranks included.
//! 9. [`layout`] – [`KvLayout`], a geometry as a type; [`field`] – a field of it; [`view`] – typed access to a page's bytes
//!    without copying; [`catalogue`] – the layouts that we ship.
//! 10. [`plan`] – the reads that bring a page of one layout into a page of another.
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

pub mod address;
pub mod axis;
pub mod catalogue;
pub mod declaration;
mod dump;
pub mod element;
pub mod expand;
pub mod field;
pub mod fingerprint;
pub mod geometry;
pub mod identity;
pub mod layout;
mod overlap;
pub mod placement;
pub mod plan;
pub mod refusal;
pub mod selection;
pub mod sha256;
pub mod text;
pub mod view;

pub use address::{AddressError, Place};
pub use axis::{Axis, AxisKind, Spread};
pub use declaration::{Declaration, FieldDecl, Level, PlaneDecl};
pub use element::{Bf16, E4m3, E5m2, Element, ElementKind, F16, F32, Fp4x2, Ue8m0};
pub use field::FieldOf;
pub use fingerprint::Fingerprint;
pub use geometry::{Field, Geometry, Plane, Step};
pub use identity::{Identity, RankOf, Undetermined};
pub use layout::KvLayout;
pub use placement::{Placed, Placement, PlacementError};
pub use plan::{Plan, PlanError};
pub use refusal::{Refusal, Refusals, Spot, Why};
pub use selection::{Segment, Segments, Selected, Selection, SelectionError};
pub use view::{RunError, View, ViewError, ViewMut};
