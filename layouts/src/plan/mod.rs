//! How pages in one layout land in another: the list of READs that brings one into the other.
//!
//! A [`Plan`] is made from two geometries, in a constant where both are static. It cannot be wrong:
//! every selected byte of the destination is written exactly once, no other byte is written, and
//! only bytes of the source's fields are read. It is compressed to a few [`RunList`]s of nested
//! loops, so its size does not depend on how many runs there are.
//!
//! A *piece* is contiguous on both sides, and as long as possible. A *run* is contiguous at the
//! source and lands in one piece or more: a READ can scatter into local pieces, and cannot gather
//! remote ones. [`Plan::cut`] makes work requests of runs, within a device's limits.
//!
//! ```
//! use kvrail_layouts::plan::Plan;
//! use kvrail_layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Level, PlaneDecl};
//! use kvrail_layouts::{Geometry, Selection};
//!
//! // MLA, 61 layers of 64 tokens: a device pool with a region for each layer, and [T, L, 576].
//! const fn mla(order: &[Level]) -> Geometry {
//!     Declaration {
//!         axes: &[Axis::whole(AxisKind::Layer, 61), Axis::whole(AxisKind::Token, 64)],
//!         order,
//!         planes: &[PlaneDecl::of(&[FieldDecl::new("latent", ElementKind::Bf16, 576)])],
//!         ..Declaration::EMPTY
//!     }
//!     .expect()
//! }
//! const POOL: Geometry = mla(&[Level::Regions(AxisKind::Layer), Level::Axis(AxisKind::Token)]);
//! const PAGE: Geometry = mla(&[Level::Axis(AxisKind::Token), Level::Axis(AxisKind::Layer)]);
//!
//! const PLAN: Plan = Plan::expect(Plan::between(&POOL, &PAGE, Selection::ALL));
//! assert_eq!((PLAN.pieces(), PLAN.longest_piece()), (3_904, 1_152));
//! assert_eq!((PLAN.runs(), PLAN.longest_run()), (61, 73_728));
//! assert_eq!(PLAN.to_string(), "3904 pieces of 1152 bytes, in 61 runs of 73728");
//! ```
//!
//! # Which part lands where
//!
//! Fields are matched by name. K and V as an axis ([`AxisKind::Part`](crate::AxisKind::Part)) on
//! one side and as fields `k` and `v` on the other are matched, too. Indices along an axis are
//! matched by these rules:
//!
//! - whole and replicated axes: index for index, and the extents must be equal;
//! - sharded axes: by their index among all ranks. So heads are re-sharded in any ratio either way;
//!   where the source has more ranks than the destination, each source page gives a part of the
//!   destination;
//! - where one page is a block of the other (fewer tokens to a page, one layer to a page), by the
//!   block's number: [`Plan::between_blocks`];
//! - as the caller says: [`Plan::of`] takes a selection of each side. Use it for block sizes of
//!   which neither divides the other: select the tokens that two blocks have in common.
//!
//! Padding is neither read nor written. Where two layouts are equal, and padding may be
//! overwritten, read the page without a plan, as one run. Layouts that need more than a copy
//! are refused with the reason: [`PlanError`].

mod blocks;
mod cursor;
mod cut;
mod error;
mod lists;
mod matching;
mod runs;
mod strided;
mod tokens;

pub use self::blocks::{BlockPlan, BlockPlans};
pub use self::cursor::{Cursor, Row, Wr};
pub use self::cut::{Cut, CutList, Limits, MAX_WRS};
pub use self::error::{CutError, PlanError};
pub use self::lists::{Plan, PlanPiece, Run};
pub use self::runs::RunList;
