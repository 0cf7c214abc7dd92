//! What several layouts of the catalogue have in common: axes, formats of a token, and the macro
//! that makes a type of a declaration.

use crate::axis::{Axis, AxisKind};
use crate::declaration::{FieldDecl, Level, PlaneDecl};
use crate::element::{Bf16, E4m3, F32};

pub(super) const LAYER: Level = Level::Axis(AxisKind::Layer);
pub(super) const TOKEN: Level = Level::Axis(AxisKind::Token);
pub(super) const HEAD: Level = Level::Axis(AxisKind::Head);
pub(super) const LAYER_REGIONS: Level = Level::Regions(AxisKind::Layer);

pub(super) const fn layers(extent: u64) -> Axis {
    Axis::whole(AxisKind::Layer, extent)
}

pub(super) const fn tokens(extent: u64) -> Axis {
    Axis::whole(AxisKind::Token, extent)
}

pub(super) const fn heads(extent: u64) -> Axis {
    Axis::whole(AxisKind::Head, extent)
}

const LATENT: FieldDecl = FieldDecl::of::<Bf16>("latent", 512);
const ROPE: FieldDecl = FieldDecl::of::<Bf16>("rope", 64);
/// DeepSeek's MLA in bf16, 1,152 bytes per token and layer.
pub(super) const MLA: &[PlaneDecl<'static>] = &[PlaneDecl::of(&[LATENT, ROPE])];
/// The same with the two parts in planes.
pub(super) const LATENT_THEN_ROPE: &[PlaneDecl<'static>] =
    &[PlaneDecl::of(&[LATENT]), PlaneDecl::of(&[ROPE])];
/// FlashMLA's fp8 token, 656 bytes: a scale for each 128 of the latent part.
pub(super) const FP8_DS_MLA: &[PlaneDecl<'static>] = &[PlaneDecl::of(&[
    FieldDecl::of::<E4m3>("latent", 512),
    FieldDecl::of::<F32>("scales", 4),
    FieldDecl::of::<Bf16>("rope", 64),
])];
pub(super) const K: FieldDecl = FieldDecl::of::<Bf16>("k", 128);
pub(super) const V: FieldDecl = FieldDecl::of::<Bf16>("v", 128);
/// K and V apart, heads of 128. Two fields rather than the axis `part`: so a view finds each by its
/// name.
pub(super) const K_THEN_V: &[PlaneDecl<'static>] = &[PlaneDecl::of(&[K]), PlaneDecl::of(&[V])];
/// K, then V of one token and head.
pub(super) const K_WITH_V: &[PlaneDecl<'static>] = &[PlaneDecl::of(&[K, V])];

/// Makes a type of each declaration, asserts its size, and lists all of them.
macro_rules! layouts {
    ($($(#[$doc:meta])* $layout:ident = $name:literal, $count:literal $(* $each:literal)? bytes: $declaration:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $layout;

            impl crate::layout::KvLayout for $layout {
                const NAME: &'static str = $name;
                const GEOMETRY: &'static crate::geometry::Geometry =
                    &Declaration { bytes: Some($count $(* $each)?), ..$declaration }.expect();
            }

            const _: () = assert!(<$layout as crate::layout::KvLayout>::PAGE_BYTES == $count $(* $each)?);
        )*

        /// The layouts of this file: name and geometry.
        pub(super) const LISTED: &[(&str, &crate::geometry::Geometry)] = &[$((
            <$layout as crate::layout::KvLayout>::NAME,
            <$layout as crate::layout::KvLayout>::GEOMETRY,
        )),*];
    };
}
pub(super) use layouts;
