//! A page layout as a value, which two peers must agree on.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU64};

use kvrail_layouts::{
    AxisKind, DeclarationError, Fingerprint, Geometry, Identity, KvLayout, Placed, Undetermined,
};
use kvrail_session::{LayoutName, Name};

/// The most bytes of a layout's name.
const NAME_BYTES: usize = 64;

/// A [`KvLayout`] as a value, for decisions at run time: which layout a process serves, of which
/// rank, at which distances.
///
/// Two peers compare all of these, so each must be known: [`of`](Self::of) compiles for a layout
/// that leaves nothing to run time. The page of one rank is made by [`at_rank`](Self::at_rank), one
/// whose strides or distances are known only at run time by [`placed`](Self::placed).
///
/// A page may have several regions, K and V apart or a region for each layer. It is one page
/// nevertheless, with one location and one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    name: &'static str,
    geometry: Geometry,
    identity: Identity,
    page_bytes: u32,
    tokens: u64,
    synthetic: bool,
}

/// Why peers cannot agree on a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageLayoutError {
    /// There is no such rank, or no such axis.
    #[error("`{layout}`: {why}")]
    Rank {
        /// The layout's name.
        layout: &'static str,
        /// Why not.
        why: DeclarationError,
    },
    /// A rank or a distance is still not known.
    #[error("{}", .why.text(.layout))]
    Undetermined {
        /// The layout's name.
        layout: &'static str,
        /// What is not known.
        why: Undetermined,
    },
    /// The name is empty or too long.
    #[error("a layout's name has {bytes} bytes: give it 1 to {NAME_BYTES}")]
    Name {
        /// Its bytes.
        bytes: usize,
    },
    /// The page is longer than a work request can name.
    #[error(
        "a page of `{layout}` spans {bytes} bytes, and a work request names at most 4294967295: declare a shorter page"
    )]
    PageBytes {
        /// The layout's name.
        layout: &'static str,
        /// Its bytes, from the first to the last.
        bytes: u64,
    },
}

impl PageLayoutError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Rank { .. } => 6010,
            Self::Undetermined { .. } => 6011,
            Self::Name { .. } => 6014,
            Self::PageBytes { .. } => 6013,
        }
    }
}

impl PageLayout {
    /// The layout `L`, which leaves no rank and no distance to run time. One that does is not
    /// compiled:
    ///
    /// ```compile_fail,E0080
    /// # use kvrail::{KvLayout, PageLayout, layouts::Bf16};
    /// #[derive(KvLayout)]
    /// #[kv(order(strided(planes), token), tokens = 16)]
    /// struct Apart { k: [Bf16; 128], #[kv(plane)] v: [Bf16; 128] }
    ///
    /// let page = PageLayout::of::<Apart>(); // where is `v`?
    /// ```
    #[must_use]
    pub const fn of<L: KvLayout>() -> Self {
        const {
            named::<L>();
            assert!(L::PAGE_BYTES <= u32::MAX as u64, "a page is larger than a work request can name");
        }
        Self {
            name: L::NAME,
            geometry: *L::GEOMETRY,
            identity: Identity::of_layout::<L>(),
            page_bytes: L::PAGE_BYTES as u32,
            tokens: L::TOKENS,
            synthetic: L::SYNTHETIC,
        }
    }

    /// The page of `L` as `rank` holds it. `axis` is the one sharded axis of the layout.
    ///
    /// ```
    /// use kvrail::layouts::{AxisKind, Bf16};
    /// use kvrail::{KvLayout, PageLayout};
    ///
    /// #[derive(KvLayout)]
    /// #[kv(order(layer, token, head), layers = 80, tokens = 64, heads = 1)]
    /// #[kv(sharded(head, ranks = 8))]
    /// struct Gqa { k: [Bf16; 128], v: [Bf16; 128] }
    ///
    /// let [zero, one] = [0, 1].map(|rank| PageLayout::at_rank::<Gqa>(AxisKind::Head, rank));
    /// assert_ne!(zero?.fingerprint(), one?.fingerprint());
    /// assert_eq!(one?.to_string(), "Gqa, head rank 1 of 8 (2621440 bytes a page)");
    /// # Ok::<(), kvrail::PageLayoutError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// There is no such rank or sharded axis; something else is left to run time; or as
    /// [`placed`](Self::placed).
    pub const fn at_rank<L: KvLayout>(axis: AxisKind, rank: u32) -> Result<Self, PageLayoutError> {
        Self::at_ranks::<L>(&[(axis, rank)])
    }

    /// The same along several axes: heads of a tensor-parallel rank in the layers of a pipeline
    /// stage.
    ///
    /// # Errors
    ///
    /// As [`at_rank`](Self::at_rank).
    pub const fn at_ranks<L: KvLayout>(ranks: &[(AxisKind, u32)]) -> Result<Self, PageLayoutError> {
        let mut page = *L::GEOMETRY;
        let mut i = 0;
        while i < ranks.len() {
            let (axis, rank) = ranks[i];
            page = match page.at_rank(axis, rank) {
                Ok(page) => page,
                Err(why) => return Err(PageLayoutError::Rank { layout: L::NAME, why }),
            };
            i += 1;
        }
        Self::new::<L>(&page)
    }

    /// The page of `L` with the strides, distances and ranks that it has been given. Peers that
    /// were given other ones are refused.
    ///
    /// ```
    /// use kvrail::layouts::{Bf16, Placed};
    /// use kvrail::{KvLayout, PageLayout};
    ///
    /// #[derive(KvLayout)]
    /// #[kv(order(strided(planes), token), tokens = 16)]
    /// struct Apart { k: [Bf16; 128], #[kv(plane)] v: [Bf16; 128] }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let near = Placed::<Apart>::new(|page| page.plane_of("v", 4_096))?;
    /// let far = Placed::<Apart>::new(|page| page.plane_of("v", 65_536))?;
    /// let [near, far] = [PageLayout::placed(&near)?, PageLayout::placed(&far)?];
    /// assert_ne!(near.fingerprint(), far.fingerprint());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// A rank is still open, or the page spans more than a work request can name.
    pub const fn placed<L: KvLayout>(placed: &Placed<L>) -> Result<Self, PageLayoutError> {
        Self::new::<L>(placed.geometry())
    }

    const fn new<L: KvLayout>(page: &Geometry) -> Result<Self, PageLayoutError> {
        const { named::<L>() }
        match Self::of_geometry(L::NAME, page, L::SYNTHETIC) {
            Ok(layout) => Ok(Self { tokens: L::TOKENS, ..layout }),
            Err(error) => Err(error),
        }
    }

    /// A layout that is declared while the program runs, for instance by one in another language.
    /// `name` is what messages call it; `synthetic` says that no inference engine has such a page.
    ///
    /// ```
    /// use kvrail::PageLayout;
    /// use kvrail::layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Level};
    /// use kvrail::layouts::PlaneDecl;
    ///
    /// let fields = [FieldDecl::new("latent", ElementKind::Bf16, 576)];
    /// let page = Declaration {
    ///     axes: &[Axis::whole(AxisKind::Token, 64)],
    ///     order: &[Level::Axis(AxisKind::Token)],
    ///     planes: &[PlaneDecl::of(&fields)],
    ///     ..Declaration::EMPTY
    /// };
    /// let layout = PageLayout::of_geometry("latent", &page.build()?, false)?;
    /// assert_eq!((layout.page_bytes(), layout.tokens()), (73_728, 64));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The name does not have 1 to 64 bytes, a rank or a distance is still open, or the page spans
    /// more than a work request can name.
    pub const fn of_geometry(
        name: &'static str,
        page: &Geometry,
        synthetic: bool,
    ) -> Result<Self, PageLayoutError> {
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(PageLayoutError::Name { bytes: name.len() });
        }
        let (layout, identity) = (name, Identity::of(page));
        if let Some(why) = identity.undetermined() {
            return Err(PageLayoutError::Undetermined { layout, why });
        }
        let bytes = page.page_bytes();
        if bytes > u32::MAX as u64 {
            return Err(PageLayoutError::PageBytes { layout, bytes });
        }
        let (geometry, page_bytes, tokens) = (*page, bytes as u32, page.tokens());
        Ok(Self { name, geometry, identity, page_bytes, tokens, synthetic })
    }

    /// The layout's name, the same at every rank.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The fingerprint that two peers compare. It covers the place of every byte, distances that
    /// were given at run time, and ranks.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// The identity behind the fingerprint: what all ranks have in common, and which rank this is.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Where every byte of a page is.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// How many regions a page has, at least 1.
    #[must_use]
    pub const fn regions(&self) -> u32 {
        self.geometry.regions()
    }

    /// Bytes of a page in all of its regions, at least 1.
    #[must_use]
    pub const fn page_bytes(&self) -> u32 {
        self.page_bytes
    }

    /// Tokens of a page; 0 if the layout does not say.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Whether the layout is made up: no inference engine has such a page.
    #[must_use]
    pub const fn synthetic(&self) -> bool {
        self.synthetic
    }

    /// The layout as a session compares it. Ranks stand in the name, so that a refusal names both.
    pub(crate) fn to_session(self) -> kvrail_session::Layout {
        let mut ranks = String::new();
        self.write_ranks(&mut ranks).unwrap_or_default();
        // A name that is too long loses its end, and keeps its ranks.
        let room = NAME_BYTES.saturating_sub(ranks.len());
        let name: LayoutName =
            Name::lossy(&format!("{}{ranks}", &self.name[..self.name.floor_char_boundary(room)]));
        // A geometry has at least one byte.
        let page_bytes = NonZeroU64::new(self.page_bytes.into()).unwrap_or(NonZeroU64::MIN);
        kvrail_session::Layout {
            name,
            fingerprint: self.fingerprint(),
            any_rank: self.identity.fingerprint_of_any_rank(),
            page_bytes,
            // A geometry has 1 to 65,535 regions.
            parts: u16::try_from(self.regions()).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MAX),
        }
    }

    fn write_ranks(&self, f: &mut impl fmt::Write) -> fmt::Result {
        for of in self.identity.ranks() {
            if let Some(rank) = of.rank {
                write!(f, ", {} rank {rank} of {}", of.axis, of.ranks)?;
            }
        }
        Ok(())
    }
}

/// Checks that a layout has a name of 1 to 64 bytes.
///
/// # Panics
///
/// If it has none; in a constant, that is a compile error.
const fn named<L: KvLayout>() {
    assert!(!L::NAME.is_empty() && L::NAME.len() <= NAME_BYTES, "a layout's name is 1 to 64 bytes");
}

impl fmt::Display for PageLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        self.write_ranks(f)?;
        write!(f, " ({} bytes a page", self.page_bytes)?;
        match self.regions() {
            1 => f.write_str(")"),
            regions => write!(f, " in {regions} regions)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrail_layouts::{Axis, Declaration, ElementKind, FieldDecl, Level, PlaneDecl};

    /// A page of as long a name as may be.
    struct Long;
    impl KvLayout for Long {
        const NAME: &'static str = "long_long_long_long_long_long_long_long_long_long_long_long_long";
        const GEOMETRY: &'static Geometry = &Declaration {
            axes: &[Axis::sharded(AxisKind::Layer, 2, 4), Axis::sharded(AxisKind::Head, 1, 16)],
            order: &[Level::Axis(AxisKind::Layer), Level::Axis(AxisKind::Head)],
            planes: &[PlaneDecl::of(&[FieldDecl::new("k", ElementKind::U8, 8)])],
            ..Declaration::EMPTY
        }
        .expect();
    }

    #[test]
    fn a_name_on_the_wire_keeps_its_ranks() {
        let page = PageLayout::at_ranks::<Long>(&[(AxisKind::Head, 15), (AxisKind::Layer, 3)]).unwrap();
        let name = page.to_session().name;
        assert_eq!(name.as_str(), "long_long_long_long_long_, layer rank 3 of 4, head rank 15 of 16");
    }

    #[test]
    fn every_rank_must_be_given_and_must_exist() {
        let open = PageLayout::at_rank::<Long>(AxisKind::Head, 0).unwrap_err();
        let why = Undetermined::Rank { axis: AxisKind::Layer, ranks: 4 };
        assert_eq!(open, PageLayoutError::Undetermined { layout: Long::NAME, why });
        assert!(open.to_string().contains("is one of 4 ranks along layer and does not say which"), "{open}");
        let beyond = PageLayout::at_rank::<Long>(AxisKind::Head, 16).unwrap_err();
        assert!(beyond.to_string().ends_with("rank 16 of 16 ranks: ranks count from 0"), "{beyond}");
        assert!(matches!(PageLayout::at_rank::<Long>(AxisKind::Token, 0), Err(PageLayoutError::Rank { .. })));
    }
}
