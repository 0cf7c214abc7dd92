//! A field as a value that knows its layout and its elements.

use core::marker::PhantomData;

use crate::address::{OffsetError, Place};
use crate::element::Element;
use crate::geometry::Field;
use crate::layout::KvLayout;
use crate::text::Text;

/// A field of the layout `L` whose elements are `E`.
///
/// `#[derive(KvLayout)]` gives the struct one as a constant for each field: `Mla::LATENT` for
/// `latent`. For a layout of the catalogue it is found by name, at compile time:
///
/// ```
/// use kvrail_layouts::{Bf16, FieldOf, KvLayout, View, catalogue::VllmFp8DsMla};
///
/// const ROPE: FieldOf<VllmFp8DsMla, Bf16> = FieldOf::named("rope");
/// let page = [0u8; VllmFp8DsMla::PAGE_BYTES as usize];
/// let view = View::<VllmFp8DsMla>::new(&page, VllmFp8DsMla::FINGERPRINT)?;
/// assert_eq!(view.get(ROPE, &[7])?.len(), 64); // the RoPE part of token 7
/// assert_eq!(ROPE.place(&[7])?.offset, 7 * 656 + 528);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FieldOf<L, E> {
    index: usize,
    of: PhantomData<fn() -> (L, E)>,
}

impl<L, E> FieldOf<L, E> {
    /// For the derive, which knows the number and the elements from one and the same declaration.
    pub(crate) const fn numbered(index: usize) -> Self {
        Self { index, of: PhantomData }
    }

    /// Its number in [`Geometry::fields`](crate::Geometry::fields).
    #[must_use]
    pub const fn index(self) -> usize {
        self.index
    }
}

impl<L: KvLayout, E: Element> FieldOf<L, E> {
    /// The field of this name.
    ///
    /// # Panics
    ///
    /// `L` has no such field, or it has other elements; in a constant, that is a compile error.
    #[must_use]
    #[track_caller]
    pub const fn named(name: &str) -> Self {
        let Some(index) = L::GEOMETRY.field_named(name) else {
            let text = Text::new().str("`").str(L::NAME).str("` has no field `").str(name).str("`");
            panic!("{}", text.as_str());
        };
        let kind = L::GEOMETRY.fields[index].kind;
        if kind as u8 != E::KIND as u8 {
            let text = Text::new()
                .str("field `")
                .str(name)
                .str("` of `")
                .str(L::NAME)
                .str("` is declared as ")
                .str(kind.name())
                .str(", not as ")
                .str(E::KIND.name());
            panic!("{}", text.as_str());
        }
        Self::numbered(index)
    }

    /// Its description; `None` only for a layout whose declaration was refused.
    #[must_use]
    pub const fn description(self) -> Option<&'static Field> {
        if self.index < L::GEOMETRY.field_count { Some(&L::GEOMETRY.fields[self.index]) } else { None }
    }

    /// Where its run begins, as [`Geometry::offset_of`](crate::Geometry::offset_of).
    ///
    /// # Errors
    ///
    /// As `offset_of`.
    pub const fn place(self, indices: &[u64]) -> Result<Place, OffsetError> {
        L::GEOMETRY.offset_of(self.index, indices)
    }
}

impl<L, E> Clone for FieldOf<L, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L, E> Copy for FieldOf<L, E> {}

impl<L: KvLayout, E: Element> core::fmt::Debug for FieldOf<L, E> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = self.description().map_or("?", Field::name);
        write!(f, "{}::{name}: {}", L::NAME, E::KIND)
    }
}
