//! Typed access to a page's bytes, without copying them.
//!
//! A view is made once, and checks once that the bytes are that page: the fingerprint that came
//! with them, the number of regions, each length, each address. After that it only looks up.

mod error;

use core::marker::PhantomData;
use core::ops::Range;

use static_assertions::{assert_impl_all, assert_not_impl_any};
use zerocopy::{FromBytes, IntoBytes};

use crate::address::Place;
use crate::catalogue::Opaque;
use crate::element::Element;
use crate::field::FieldOf;
use crate::fingerprint::Fingerprint;
use crate::geometry::Geometry;
use crate::layout::KvLayout;
use crate::placement::Placed;
use crate::selection::{ByteRanges, Selection, SelectionError};

pub use self::error::{RunError, ViewError};

/// A page, for reading.
pub struct View<'a, L> {
    geometry: &'a Geometry,
    regions: Regions<'a>,
    layout: PhantomData<fn() -> L>,
}

#[derive(Clone, Copy)]
enum Regions<'a> {
    One(&'a [u8]),
    Many(&'a [&'a [u8]]),
}

impl<'a> Regions<'a> {
    /// A region that has been checked to exist.
    fn region(self, region: u32) -> &'a [u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(regions) => regions[region as usize],
        }
    }
}

impl<'a, L: KvLayout> View<'a, L> {
    /// `bytes` as a page in one region. `fingerprint` is the one that came with them, from a peer
    /// or a file.
    ///
    /// # Errors
    ///
    /// The bytes are not that page: see [`ViewError`].
    pub fn new(bytes: &'a [u8], fingerprint: Fingerprint) -> Result<Self, ViewError> {
        agree::<L>(L::FINGERPRINT, fingerprint)?;
        fits::<L>(L::GEOMETRY, &[bytes])?;
        Ok(Self { geometry: L::GEOMETRY, regions: Regions::One(bytes), layout: PhantomData })
    }

    /// `regions` as a page, one slice for each region in order.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn of_regions(regions: &'a [&'a [u8]], fingerprint: Fingerprint) -> Result<Self, ViewError> {
        agree::<L>(L::FINGERPRINT, fingerprint)?;
        fits::<L>(L::GEOMETRY, regions)?;
        Ok(Self { geometry: L::GEOMETRY, regions: Regions::Many(regions), layout: PhantomData })
    }

    /// `regions` as a page whose strides were given at run time. `fingerprint` is compared with
    /// `placed`'s, not with the layout's.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn of_placed(
        regions: &'a [&'a [u8]],
        placed: &'a Placed<L>,
        fingerprint: Fingerprint,
    ) -> Result<Self, ViewError> {
        agree::<L>(placed.fingerprint(), fingerprint)?;
        fits::<L>(placed.geometry(), regions)?;
        Ok(Self { geometry: placed.geometry(), regions: Regions::Many(regions), layout: PhantomData })
    }

    /// The geometry it looks up.
    #[must_use]
    pub const fn geometry(&self) -> &'a Geometry {
        self.geometry
    }

    /// The elements of one field in one row, one index for each of [`Geometry::axes`], in that
    /// order.
    ///
    /// # Errors
    ///
    /// Something is out of range.
    pub fn get<E: Element>(&self, field: FieldOf<L, E>, indices: &[u64]) -> Result<&'a [E], RunError> {
        self.run(field.index(), indices)
    }

    /// As [`get`](Self::get), by the field's number: `field` and `indices` as for
    /// [`Geometry::offset_of`].
    ///
    /// # Errors
    ///
    /// The field has other elements, or something is out of range.
    pub fn run<E: Element>(&self, field: usize, indices: &[u64]) -> Result<&'a [E], RunError> {
        let (region, range) = locate::<E>(self.geometry, field, indices)?;
        Ok(typed(&self.regions.region(region)[range]))
    }

    /// The bytes of one field in one row, whatever its element type.
    ///
    /// # Errors
    ///
    /// Something is out of range.
    pub fn bytes(&self, field: usize, indices: &[u64]) -> Result<&'a [u8], RunError> {
        let (region, range) = range(self.geometry, field, indices)?;
        Ok(&self.regions.region(region)[range])
    }

    /// All bytes of a region, padding included; `None` if there is no such region.
    #[must_use]
    pub fn region(&self, region: u32) -> Option<&'a [u8]> {
        (region < self.geometry.regions()).then(|| self.regions.region(region))
    }

    /// A part of the page as contiguous pieces, as few and as long as possible, in the order of
    /// [`Selected::byte_ranges`](crate::Selected::byte_ranges).
    ///
    /// # Errors
    ///
    /// The selection is no part of this page.
    pub fn select(&self, selection: Selection) -> Result<Pieces<'a>, SelectionError> {
        let ranges = self.geometry.select(selection)?.byte_ranges();
        Ok(Pieces { regions: self.regions, ranges })
    }
}

/// The bytes of a selection: see [`View::select`].
#[derive(Clone)]
pub struct Pieces<'a> {
    regions: Regions<'a>,
    ranges: ByteRanges,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let range = self.ranges.next()?;
        // Within a region, whose length is that of a slice.
        let begin = range.offset as usize;
        Some(&self.regions.region(range.region)[begin..begin + range.len as usize])
    }
}

impl core::iter::FusedIterator for Pieces<'_> {}

impl core::fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Pieces").field("ranges", &self.ranges).finish_non_exhaustive()
    }
}

impl<L> Clone for View<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for View<'_, L> {}

impl<L: KvLayout> core::fmt::Debug for View<'_, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("View").field("layout", &L::NAME).finish_non_exhaustive()
    }
}

/// A page, for writing.
pub struct ViewMut<'a, L> {
    geometry: &'a Geometry,
    regions: RegionsMut<'a>,
    layout: PhantomData<fn() -> L>,
}

enum RegionsMut<'a> {
    One(&'a mut [u8]),
    Many(&'a mut [&'a mut [u8]]),
}

impl RegionsMut<'_> {
    fn region(&self, region: u32) -> &[u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(regions) => regions[region as usize],
        }
    }

    fn region_mut(&mut self, region: u32) -> &mut [u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(regions) => regions[region as usize],
        }
    }
}

// Two of them would write the same bytes.
assert_not_impl_any!(ViewMut<'static, Opaque<1>>: Clone);
// A view of a page may go to any thread.
assert_impl_all!(View<'static, Opaque<1>>: Copy, Send, Sync);

impl<'a, L: KvLayout> ViewMut<'a, L> {
    /// As [`View::new`].
    ///
    /// # Errors
    ///
    /// The bytes are not that page: see [`ViewError`].
    pub fn new(bytes: &'a mut [u8], fingerprint: Fingerprint) -> Result<Self, ViewError> {
        agree::<L>(L::FINGERPRINT, fingerprint)?;
        fits::<L>(L::GEOMETRY, &[&*bytes])?;
        Ok(Self { geometry: L::GEOMETRY, regions: RegionsMut::One(bytes), layout: PhantomData })
    }

    /// As [`View::of_regions`].
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn of_regions(regions: &'a mut [&'a mut [u8]], fingerprint: Fingerprint) -> Result<Self, ViewError> {
        agree::<L>(L::FINGERPRINT, fingerprint)?;
        fits::<L>(L::GEOMETRY, regions)?;
        Ok(Self { geometry: L::GEOMETRY, regions: RegionsMut::Many(regions), layout: PhantomData })
    }

    /// As [`View::of_placed`].
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn of_placed(
        regions: &'a mut [&'a mut [u8]],
        placed: &'a Placed<L>,
        fingerprint: Fingerprint,
    ) -> Result<Self, ViewError> {
        agree::<L>(placed.fingerprint(), fingerprint)?;
        fits::<L>(placed.geometry(), regions)?;
        Ok(Self { geometry: placed.geometry(), regions: RegionsMut::Many(regions), layout: PhantomData })
    }

    /// The geometry it looks up.
    #[must_use]
    pub const fn geometry(&self) -> &'a Geometry {
        self.geometry
    }

    /// As [`View::get`].
    ///
    /// # Errors
    ///
    /// Something is out of range.
    pub fn get<E: Element>(&self, field: FieldOf<L, E>, indices: &[u64]) -> Result<&[E], RunError> {
        self.run(field.index(), indices)
    }

    /// As [`View::get`], for writing.
    ///
    /// # Errors
    ///
    /// Something is out of range.
    pub fn get_mut<E: Element>(
        &mut self,
        field: FieldOf<L, E>,
        indices: &[u64],
    ) -> Result<&mut [E], RunError> {
        self.run_mut(field.index(), indices)
    }

    /// As [`View::run`].
    ///
    /// # Errors
    ///
    /// The field has other elements, or something is out of range.
    pub fn run<E: Element>(&self, field: usize, indices: &[u64]) -> Result<&[E], RunError> {
        let (region, range) = locate::<E>(self.geometry, field, indices)?;
        Ok(typed(&self.regions.region(region)[range]))
    }

    /// As [`View::run`], for writing.
    ///
    /// # Errors
    ///
    /// The field has other elements, or something is out of range.
    pub fn run_mut<E: Element>(&mut self, field: usize, indices: &[u64]) -> Result<&mut [E], RunError> {
        let (region, range) = locate::<E>(self.geometry, field, indices)?;
        match <[E]>::mut_from_bytes(&mut self.regions.region_mut(region)[range]) {
            Ok(run) => Ok(run),
            Err(_) => unreachable!("a field's bytes are whole elements"),
        }
    }

    /// As [`View::bytes`].
    ///
    /// # Errors
    ///
    /// Something is out of range.
    pub fn bytes(&self, field: usize, indices: &[u64]) -> Result<&[u8], RunError> {
        let (region, range) = range(self.geometry, field, indices)?;
        Ok(&self.regions.region(region)[range])
    }

    /// As [`View::bytes`], for writing.
    ///
    /// # Errors
    ///
    /// Something is out of range.
    pub fn bytes_mut(&mut self, field: usize, indices: &[u64]) -> Result<&mut [u8], RunError> {
        let (region, range) = range(self.geometry, field, indices)?;
        Ok(self.regions.region_mut(region)[range].as_mut_bytes())
    }

    /// As [`View::region`], for writing.
    pub fn region_mut(&mut self, region: u32) -> Option<&mut [u8]> {
        (region < self.geometry.regions()).then(|| self.regions.region_mut(region))
    }

    /// Writes the bytes of a selection, piece by piece in the order of
    /// [`Selected::byte_ranges`](crate::Selected::byte_ranges): `write` is called with each.
    ///
    /// # Errors
    ///
    /// The selection is no part of this page; then nothing has been called.
    pub fn select_mut(
        &mut self,
        selection: Selection,
        mut write: impl FnMut(&mut [u8]),
    ) -> Result<(), SelectionError> {
        for range in self.geometry.select(selection)?.byte_ranges() {
            // Within a region, whose length is that of a slice.
            let begin = range.offset as usize;
            write(&mut self.regions.region_mut(range.region)[begin..begin + range.len as usize]);
        }
        Ok(())
    }
}

impl<L: KvLayout> core::fmt::Debug for ViewMut<'_, L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ViewMut").field("layout", &L::NAME).finish_non_exhaustive()
    }
}

/// Checks that the bytes were written under the expected fingerprint.
fn agree<L: KvLayout>(expected: Fingerprint, found: Fingerprint) -> Result<(), ViewError> {
    if expected == found { Ok(()) } else { Err(ViewError::Fingerprint { layout: L::NAME, expected, found }) }
}

/// Checks that the slices are as many, as long and as aligned as the regions.
fn fits<L: KvLayout>(geometry: &Geometry, regions: &[impl AsRef<[u8]>]) -> Result<(), ViewError> {
    let layout = L::NAME;
    if !geometry.is_placed() {
        return Err(ViewError::Unplaced { layout });
    }
    if regions.len() != geometry.regions() as usize {
        return Err(ViewError::Regions { layout, expected: geometry.regions(), found: regions.len() });
    }
    for (region, bytes) in (0..).zip(regions) {
        let bytes = bytes.as_ref();
        // Below `regions`, so it has bytes.
        let expected = geometry.region_bytes(region).unwrap_or_default();
        if bytes.len() as u64 != expected {
            return Err(ViewError::Length { layout, region, expected, found: bytes.len() });
        }
        let align = geometry.align();
        let over = bytes.as_ptr().addr() as u64 % align;
        if over != 0 {
            return Err(ViewError::Misaligned { layout, region, align, over });
        }
    }
    Ok(())
}

/// The region and the bytes in it of a field's run.
fn range(geometry: &Geometry, field: usize, indices: &[u64]) -> Result<(u32, Range<usize>), RunError> {
    let Place { region, offset } = geometry.offset_of(field, indices)?;
    // The region's length is that of a slice, and the run lies within it: both fit in a usize.
    let begin = offset as usize;
    Ok((region, begin..begin + geometry.fields()[field].bytes() as usize))
}

/// As [`range`], for elements of type `E`.
fn locate<E: Element>(
    geometry: &Geometry,
    field: usize,
    indices: &[u64],
) -> Result<(u32, Range<usize>), RunError> {
    let found = range(geometry, field, indices)?;
    let field = &geometry.fields()[field];
    if field.kind() != E::KIND {
        return Err(RunError::ElementKind { field: field.name(), actual: field.kind(), asked: E::KIND });
    }
    Ok(found)
}

/// Bytes of a field as its elements.
fn typed<E: Element>(bytes: &[u8]) -> &[E] {
    match <[E]>::ref_from_bytes(bytes) {
        Ok(run) => run,
        // Elements have alignment 1, and the range was cut to `count` of them.
        Err(_) => unreachable!("a field's bytes are whole elements"),
    }
}
