//! What a legal declaration is. Numbers are read, names are known, nothing is optional that is needed.

use proc_macro2::{Ident, Span};
use syn::{Expr, Path, Type};

pub(crate) struct Page {
    pub(crate) ident: Ident,
    pub(crate) krate: Path,
    pub(crate) name: String,
    pub(crate) axes: Vec<Extent>,
    pub(crate) order: Order,
    pub(crate) planes: Vec<Plane>,
    pub(crate) tokens_per_state: Number,
    pub(crate) align: Number,
    pub(crate) bytes: Option<Number>,
    pub(crate) version: u32,
    pub(crate) swizzle: u32,
}

/// A number, and where the author wrote it.
#[derive(Clone, Copy)]
pub(crate) struct Number {
    pub(crate) value: u64,
    pub(crate) span: Span,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    Layer,
    Token,
    Part,
    Head,
}

impl Axis {
    pub(crate) const ALL: [Self; 4] = [Self::Layer, Self::Token, Self::Part, Self::Head];

    /// The word for it in an order.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Token => "token",
            Self::Part => "part",
            Self::Head => "head",
        }
    }

    /// The key that says how many.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Layer => "layers",
            Self::Token => "tokens",
            Self::Part => "parts",
            Self::Head => "heads",
        }
    }
}

/// How many indices an axis has: states, not tokens.
pub(crate) struct Extent {
    pub(crate) axis: Axis,
    pub(crate) extent: Number,
}

pub(crate) struct Order {
    pub(crate) levels: Vec<Level>,
    /// The word `order`.
    pub(crate) span: Span,
}

pub(crate) struct Level {
    pub(crate) kind: LevelKind,
    pub(crate) span: Span,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LevelKind {
    Axis(Axis),
    Strided(Axis),
    Regions(Axis),
    Planes,
    StridedPlanes,
    RegionPlanes,
    Pad(u64),
}

impl LevelKind {
    pub(crate) fn axis(self) -> Option<Axis> {
        match self {
            Self::Axis(axis) | Self::Strided(axis) | Self::Regions(axis) => Some(axis),
            Self::Planes | Self::StridedPlanes | Self::RegionPlanes | Self::Pad(_) => None,
        }
    }

    pub(crate) fn splits(self) -> bool {
        matches!(self, Self::Planes | Self::StridedPlanes | Self::RegionPlanes)
    }

    pub(crate) fn makes_regions(self) -> bool {
        matches!(self, Self::Regions(_) | Self::RegionPlanes)
    }
}

/// At least one field.
pub(crate) struct Plane {
    pub(crate) fields: Vec<Field>,
    pub(crate) order: Option<Order>,
    pub(crate) span: Span,
}

pub(crate) struct Field {
    pub(crate) ident: Ident,
    pub(crate) name: String,
    pub(crate) element: Type,
    /// The length of the array; `None` for a lone element.
    pub(crate) len: Option<Expr>,
}
