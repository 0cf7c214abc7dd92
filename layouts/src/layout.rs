//! A geometry as a type.

use crate::fingerprint::Fingerprint;
use crate::geometry::Geometry;

/// A page that is known at compile time.
///
/// Derive it (`#[derive(KvLayout)]`), take one from the [`catalogue`](crate::catalogue), or
/// implement it with a [`Declaration`](crate::Declaration); only [`NAME`](Self::NAME) and
/// [`GEOMETRY`](Self::GEOMETRY) are to be given, the rest follows from them.
///
/// ```
/// use kvrail_layouts::{Axis, AxisKind, Declaration, ElementKind, FieldDecl, Level, PlaneDecl};
/// use kvrail_layouts::{Geometry, KvLayout};
///
/// struct Latent;
/// impl KvLayout for Latent {
///     const NAME: &'static str = "latent";
///     const GEOMETRY: &'static Geometry = &Declaration {
///         axes: &[Axis::whole(AxisKind::Token, 64)],
///         order: &[Level::Axis(AxisKind::Token)],
///         planes: &[PlaneDecl::of(&[FieldDecl::new("latent", ElementKind::Bf16, 576)])],
///         ..Declaration::EMPTY
///     }
///     .expect();
/// }
/// const _: () = assert!(Latent::PAGE_BYTES == 73_728);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the layout of a KV page",
    label = "has no declared layout",
    note = "declare one with `#[derive(KvLayout)]`, or take one from `kvrail::layouts::catalogue`"
)]
pub trait KvLayout: 'static {
    /// The page's name in messages, which is no part of the fingerprint.
    const NAME: &'static str;
    /// Where every byte is.
    const GEOMETRY: &'static Geometry;
    /// Whether the page is made up for a benchmark: reports must say so.
    const SYNTHETIC: bool = false;
    /// Bytes of all regions, padding included.
    const PAGE_BYTES: u64 = Self::GEOMETRY.page_bytes();
    /// Regions, or objects, of a page; 1 for most.
    const REGIONS: u32 = Self::GEOMETRY.regions();
    /// Tokens of a page; 0 if it does not say.
    const TOKENS: u64 = Self::GEOMETRY.tokens();
    /// Layers of a page; 1 if it has no such axis.
    const LAYERS: u64 = Self::GEOMETRY.extent(crate::AxisKind::Layer);
    /// The fingerprint that two peers compare before they move bytes. Where the declaration leaves
    /// distances or a rank to run time, this is the fingerprint of the declaration only; pages are
    /// then compared by [`Placed::fingerprint`](crate::Placed::fingerprint) or
    /// [`Identity`](crate::Identity).
    const FINGERPRINT: Fingerprint = Fingerprint::of(Self::GEOMETRY);
}
