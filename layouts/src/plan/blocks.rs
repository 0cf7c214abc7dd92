//! Plans between blocks of tokens of any two lengths.

use crate::axis::AxisKind;
use crate::geometry::Geometry;
use crate::plan::error::PlanError;
use crate::plan::lists::Plan;
use crate::plan::matching::{self, Blocks, Extent};
use crate::selection::{Selected, Selection};

/// The plan from one block of tokens into another, where both are blocks of one row of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockPlan {
    /// The number of the source block, counted in blocks of the source's length.
    pub source_block: u64,
    /// The number of the destination block, counted in blocks of the destination's length.
    pub destination_block: u64,
    /// The tokens that both have, counted within the source block.
    pub source: Selection,
    /// The same tokens, counted within the destination block.
    pub destination: Selection,
    /// What brings them.
    pub plan: Plan,
}

/// The plans of one block, one for each block of the other side that it has tokens in common with,
/// in the order of the tokens: [`Plan::into_block`] and [`Plan::from_block`].
#[derive(Clone, Copy, Debug)]
pub struct BlockPlans<'g> {
    source: &'g Geometry,
    destination: &'g Geometry,
    selection: Selection,
    fixed: Fixed,
    /// Blocks of the other side that are still to come.
    next: u64,
    end: u64,
}

/// The block whose plans are wanted.
#[derive(Clone, Copy, Debug)]
enum Fixed {
    Source(u64),
    Destination(u64),
}

impl Plan {
    /// The plans that fill block `block` of the destination, whatever the number of tokens in a
    /// block of either side: one for each source block that has tokens in common with it. With a
    /// selection of the destination, one for each that has selected tokens.
    ///
    /// Read the first into a slot, and the others into the same slot.
    ///
    /// ```
    /// use kvrail_layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Level, PlaneDecl};
    /// use kvrail_layouts::{Geometry, Plan, Selection};
    ///
    /// const fn of(tokens: u64) -> Geometry {
    ///     Declaration {
    ///         axes: &[Axis::whole(AxisKind::Token, tokens)],
    ///         order: &[Level::Axis(AxisKind::Token)],
    ///         planes: &[PlaneDecl::of(&[FieldDecl::new("latent", ElementKind::Bf16, 576)])],
    ///         ..Declaration::EMPTY
    ///     }
    ///     .expect()
    /// }
    /// let (source, destination) = (of(48), of(64));
    /// let mut parts = Vec::new();
    /// for part in Plan::into_block(&source, &destination, 1, Selection::ALL)? {
    ///     let part = part?;
    ///     parts.push((part.source_block, part.plan.bytes() / 1_152));
    /// }
    /// // Tokens 64 to 127: 32 of the second block of 48, and 32 of the third.
    /// assert_eq!(parts, [(1, 32), (2, 32)]);
    /// # Ok::<(), kvrail_layouts::PlanError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The block ends beyond 63 bits. Each plan may be refused, as
    /// [`between`](Self::between) refuses it.
    pub const fn into_block<'g>(
        source: &'g Geometry,
        destination: &'g Geometry,
        block: u64,
        selection: Selection,
    ) -> Result<BlockPlans<'g>, PlanError> {
        let lengths = (states(destination), states(source));
        match others(block, lengths) {
            Ok((next, end)) => {
                let fixed = Fixed::Destination(block);
                Ok(BlockPlans { source, destination, selection, fixed, next, end })
            }
            Err(error) => Err(error),
        }
    }

    /// The plans that bring all of block `block` of the source where it belongs: one for each
    /// destination block that has tokens in common with it. With a selection, which is one of the
    /// destination, one for each block in which something is selected.
    ///
    /// # Errors
    ///
    /// As [`into_block`](Self::into_block).
    pub const fn from_block<'g>(
        source: &'g Geometry,
        destination: &'g Geometry,
        block: u64,
        selection: Selection,
    ) -> Result<BlockPlans<'g>, PlanError> {
        let lengths = (states(source), states(destination));
        match others(block, lengths) {
            Ok((next, end)) => {
                let fixed = Fixed::Source(block);
                Ok(BlockPlans { source, destination, selection, fixed, next, end })
            }
            Err(error) => Err(error),
        }
    }

    /// The plan from one block into another, of one row of tokens that both sides cut into blocks
    /// of their own length, from the first token on. All other axes are matched as
    /// [`between`](Self::between) matches them.
    ///
    /// # Errors
    ///
    /// As [`between`](Self::between); the blocks have no token in common; or one ends beyond 63
    /// bits.
    pub const fn between_token_blocks(
        source: &Geometry,
        source_block: u64,
        destination: &Geometry,
        destination_block: u64,
        selection: Selection,
    ) -> Result<BlockPlan, PlanError> {
        let blocks = Blocks::Tokens { source: source_block, destination: destination_block };
        let (from, to) = match matching::meet(source, destination, blocks, selection) {
            Ok(parts) => parts,
            Err(error) => return Err(error),
        };
        let extent = if matching::is_partial(&to) { Extent::Some } else { Extent::All };
        match Self::new(&from, &to, extent) {
            Ok(plan) => Ok(BlockPlan {
                source_block,
                destination_block,
                source: tokens(Selection::ALL, &from),
                destination: tokens(selection, &to),
                plan,
            }),
            Err(error) => Err(error),
        }
    }
}

/// The length of a block along the token axis; 1 if the page lacks it.
const fn states(page: &Geometry) -> u64 {
    page.extent(AxisKind::Token)
}

/// The numbers of the other side's blocks that overlap with block `block`: the first, and one past
/// the last. `lengths` are this side's and the other's.
const fn others(block: u64, lengths: (u64, u64)) -> Result<(u64, u64), PlanError> {
    let (len, other) = lengths;
    let begin = match block.checked_mul(len) {
        Some(begin) if begin <= i64::MAX as u64 - len => begin,
        _ => return Err(PlanError::FarBlock { block, extent: len }),
    };
    Ok((begin / other, (begin + len).div_ceil(other)))
}

/// `selection`, narrowed to the tokens that are selected of this page.
const fn tokens(selection: Selection, of: &Selected<'_>) -> Selection {
    let page = of.geometry();
    let Some(a) = page.axis_index(AxisKind::Token) else { return selection };
    match (of.start(a), of.extent(a)) {
        (Some(first), Some(len)) => {
            selection.tokens(first * page.tokens_per_state(), len * page.tokens_per_state())
        }
        _ => unreachable!(),
    }
}

impl Iterator for BlockPlans<'_> {
    type Item = Result<BlockPlan, PlanError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.end {
            let other = self.next;
            self.next += 1;
            let (from, into) = match self.fixed {
                Fixed::Source(block) => (block, other),
                Fixed::Destination(block) => (other, block),
            };
            match Plan::between_token_blocks(self.source, from, self.destination, into, self.selection) {
                // The tokens in common are not selected.
                Err(PlanError::Apart { axis: AxisKind::Token, .. }) => {}
                plan => return Some(plan),
            }
        }
        None
    }
}

impl core::iter::FusedIterator for BlockPlans<'_> {}
