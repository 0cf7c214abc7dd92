//! A legal declaration: numbers are parsed, names are known, and no needed part is optional.

use std::rc::Rc;

use proc_macro2::{Ident, Span};
use syn::spanned::Spanned as _;
use syn::{Attribute, Expr, Generics, Path, Type, Visibility};

pub(crate) struct Page {
    pub(crate) ident: Ident,
    pub(crate) vis: Visibility,
    /// Type parameters have the bound `Element`; there are no lifetimes.
    pub(crate) generics: Generics,
    pub(crate) krate: Path,
    pub(crate) name: String,
    pub(crate) axes: Vec<Extent>,
    pub(crate) order: Order,
    pub(crate) planes: Vec<Plane>,
    pub(crate) tokens_per_state: Number,
    pub(crate) align: Number,
    pub(crate) bytes: Option<Number>,
    pub(crate) version: Number,
    pub(crate) swizzle: Number,
}

/// A number as the author wrote it.
#[derive(Clone)]
pub(crate) enum Number {
    /// A literal, in the range of its key.
    Literal { value: u64, span: Span },
    /// A constant, or an expression of constants and parameters, whose value the compiler knows.
    Expr(Expr),
}

impl Number {
    /// Its value, if that is known here.
    pub(crate) fn value(&self) -> Option<u64> {
        match self {
            Self::Literal { value, .. } => Some(*value),
            Self::Expr(_) => None,
        }
    }

    /// Its first token.
    pub(crate) fn span(&self) -> Span {
        match self {
            Self::Literal { span, .. } => *span,
            Self::Expr(expr) => expr.span(),
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Axis {
    Layer,
    Token,
    Part,
    Head,
    Block,
    /// One of the author's own.
    Own(Rc<Own>),
}

#[derive(PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) word: String,
    pub(crate) tag: u8,
}

impl Axis {
    pub(crate) const KNOWN: [Self; 5] = [Self::Layer, Self::Token, Self::Part, Self::Head, Self::Block];

    /// The word for it in an order.
    pub(crate) fn word(&self) -> &str {
        match self {
            Self::Layer => "layer",
            Self::Token => "token",
            Self::Part => "part",
            Self::Head => "head",
            Self::Block => "block",
            Self::Own(own) => &own.word,
        }
    }

    /// The key that gives the extent of a known axis.
    pub(crate) fn key(&self) -> Option<&'static str> {
        match self {
            Self::Layer => Some("layers"),
            Self::Token => Some("tokens"),
            Self::Part => Some("parts"),
            Self::Head => Some("heads"),
            Self::Block => Some("blocks"),
            Self::Own(_) => None,
        }
    }

    /// How an author gives the extent.
    pub(crate) fn how_many(&self) -> String {
        match self.key() {
            Some(key) => format!("{key} = N"),
            None => format!("axis({} = N)", self.word()),
        }
    }
}

/// How many indices an axis has, the token axis in tokens.
pub(crate) struct Extent {
    pub(crate) axis: Axis,
    pub(crate) extent: Number,
    pub(crate) spread: Option<Spread>,
}

/// What the page holds of an axis that is spread over ranks or stages.
pub(crate) enum Spread {
    /// One of equal parts; which one, if that is known.
    Sharded { ranks: Number, rank: Option<Number> },
    /// All of it, as each other rank does.
    Replicated { ranks: Number },
    /// A range of the whole, from `first` on; the whole has `of` indices.
    Stage { first: Number, of: Number },
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

pub(crate) enum LevelKind {
    Axis(Axis),
    Strided(Axis),
    Regions(Axis),
    Planes,
    StridedPlanes,
    RegionPlanes,
    Pad(Number),
}

impl LevelKind {
    pub(crate) fn axis(&self) -> Option<&Axis> {
        match self {
            Self::Axis(axis) | Self::Strided(axis) | Self::Regions(axis) => Some(axis),
            Self::Planes | Self::StridedPlanes | Self::RegionPlanes | Self::Pad(_) => None,
        }
    }

    pub(crate) fn splits(&self) -> bool {
        matches!(self, Self::Planes | Self::StridedPlanes | Self::RegionPlanes)
    }

    pub(crate) fn makes_regions(&self) -> bool {
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
    /// The author's words about it.
    pub(crate) docs: Vec<Attribute>,
    /// As written.
    pub(crate) ty: Type,
    pub(crate) element: Type,
    /// The length of the array; `None` for a lone element.
    pub(crate) len: Option<Expr>,
}
