//! A legal declaration of a reader. Only the compiler knows the values of its numbers.

use proc_macro2::{Ident, Span};
use syn::{Attribute, Expr, Path, Type, Visibility};

pub(crate) struct Reader {
    pub(crate) docs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) ident: Ident,
    pub(crate) krate: Path,
    /// Declared for an engine without a reader around it.
    pub(crate) bare: bool,
    pub(crate) page: Type,
    /// Its other pages.
    pub(crate) pages: Vec<Type>,
    /// One for each key, in the order of [`Key::ALL`].
    pub(crate) numbers: Vec<Option<Expr>>,
}

/// The keys besides `page` and `pages`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Rails,
    Peers,
    Pools,
    Regions,
    Lanes,
    Depth,
    Batch,
    Batches,
    Submitters,
    Plans,
    Chunk,
    RailBytes,
    RailWrs,
    DeadlineMs,
    MaxMessage,
    MaxCq,
    MaxSges,
    Plan,
}

impl Key {
    pub(crate) const ALL: [(Self, &'static str); 18] = [
        (Self::Rails, "max_rails"),
        (Self::Peers, "max_peers"),
        (Self::Pools, "max_pools"),
        (Self::Regions, "max_regions"),
        (Self::Lanes, "max_lanes"),
        (Self::Depth, "max_depth"),
        (Self::Batch, "max_batch"),
        (Self::Batches, "max_batches"),
        (Self::Submitters, "max_submitters"),
        (Self::Plans, "max_plans"),
        (Self::Chunk, "chunk"),
        (Self::RailBytes, "rail_bytes"),
        (Self::RailWrs, "rail_wrs"),
        (Self::DeadlineMs, "deadline_ms"),
        (Self::MaxMessage, "max_message"),
        (Self::MaxCq, "max_cq"),
        (Self::MaxSges, "max_sges"),
        (Self::Plan, "plan"),
    ];
}

impl Reader {
    pub(crate) fn number(&self, key: Key) -> Option<&Expr> {
        self.numbers.get(key as usize)?.as_ref()
    }

    /// Where the author wrote the number; the name of the type if the number is missing.
    pub(crate) fn span(&self, key: Key) -> Span {
        self.number(key).map_or(self.ident.span(), syn::spanned::Spanned::span)
    }
}
