//! Layouts that are declared at run time. Each is kept once and for ever, so that a pointer to one
//! never dangles, and any other pointer is recognised without being followed.

use std::collections::{HashMap, HashSet};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::layouts::{AxisKind, Declaration, ElementKind, FieldDecl, Geometry, PlaneDecl, catalogue};
use engine::{PageLayout, PageLayoutError};

use crate::abi::layout_types::kvrail_layout;
use crate::error::CapiError;

/// The most layouts of a process.
const LAYOUTS: usize = 1024;
/// The most names of fields and layouts of a process.
const NAMES: usize = 4096;

/// A layout that the process knows.
#[derive(Debug)]
pub(crate) struct Interned {
    name: &'static str,
    geometry: Geometry,
    synthetic: bool,
    /// The layout as two peers compare it, if nothing is left open.
    page: Result<PageLayout, PageLayoutError>,
}

#[derive(Default)]
struct Table {
    /// By their addresses.
    layouts: HashMap<usize, &'static Interned>,
    names: HashSet<&'static str>,
}

/// The table is a plain value, which is valid whichever thread panicked.
fn table() -> MutexGuard<'static, Option<Table>> {
    static TABLE: Mutex<Option<Table>> = Mutex::new(None);
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same text, kept for ever.
pub(crate) fn kept(name: &str) -> Result<&'static str, CapiError> {
    let mut table = table();
    let names = &mut table.get_or_insert_default().names;
    if let Some(known) = names.get(name) {
        return Ok(known);
    }
    if names.len() == NAMES {
        return Err(CapiError::LayoutLimit { what: "names of fields and layouts", limit: NAMES });
    }
    let name: &'static str = Box::leak(name.into());
    names.insert(name);
    Ok(name)
}

impl Interned {
    /// The layout of this name and geometry, kept for ever.
    pub(crate) fn keep(
        name: &'static str,
        geometry: &Geometry,
        synthetic: bool,
    ) -> Result<&'static Self, CapiError> {
        let page = PageLayout::of_geometry(name, geometry, synthetic);
        // An open rank can be given later; other errors stay.
        if let Err(error) = page
            && !matches!(error, PageLayoutError::Undetermined { .. })
        {
            return Err(error.into());
        }
        let mut table = table();
        let layouts = &mut table.get_or_insert_default().layouts;
        let same = |known: &&&Self| {
            known.name == name && known.synthetic == synthetic && known.geometry == *geometry
        };
        if let Some(known) = layouts.values().find(same) {
            return Ok(known);
        }
        if layouts.len() == LAYOUTS {
            return Err(CapiError::LayoutLimit { what: "layouts", limit: LAYOUTS });
        }
        let layout: &'static Self = Box::leak(Box::new(Self { name, geometry: *geometry, synthetic, page }));
        layouts.insert(ptr::from_ref(layout).addr(), layout);
        Ok(layout)
    }

    /// The layout of the catalogue with this name.
    pub(crate) fn named(name: &str) -> Result<&'static Self, CapiError> {
        let (name, geometry) = catalogue::all()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| CapiError::LayoutName(name.chars().take(100).collect()))?;
        Self::keep(name, geometry, false)
    }

    /// `bytes` bytes without structure.
    pub(crate) fn opaque(bytes: u64) -> Result<&'static Self, CapiError> {
        let geometry = Declaration {
            planes: &[PlaneDecl::of(&[FieldDecl::new("bytes", ElementKind::U8, bytes)])],
            ..Declaration::EMPTY
        }
        .build()?;
        Self::keep("opaque (synthetic)", &geometry, true)
    }

    /// The same layout as a rank holds it.
    pub(crate) fn at_rank(&self, axis: AxisKind, rank: u32) -> Result<&'static Self, CapiError> {
        Self::keep(self.name, &self.geometry.at_rank(axis, rank)?, self.synthetic)
    }

    /// The layout that `handle` points to.
    pub(crate) fn find(what: &'static str, handle: *const kvrail_layout) -> Result<&'static Self, CapiError> {
        if handle.is_null() {
            return Err(CapiError::Null { what });
        }
        let table = table();
        let known = table.as_ref().and_then(|table| table.layouts.get(&handle.addr()).copied());
        known.ok_or(CapiError::Handle { what })
    }

    /// The complete layout that `handle` points to, for pools, slots and sessions.
    pub(crate) fn page(what: &'static str, handle: *const kvrail_layout) -> Result<PageLayout, CapiError> {
        Ok(Self::find(what, handle)?.page?)
    }

    /// The pointer that a caller in C gets.
    pub(crate) fn handle(&'static self) -> *const kvrail_layout {
        ptr::from_ref(self).cast()
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) const fn is_synthetic(&self) -> bool {
        self.synthetic
    }

    /// The layout as two peers compare it, if nothing is left open.
    pub(crate) fn complete(&self) -> Option<&PageLayout> {
        self.page.as_ref().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::KvLayout;
    use engine::layouts::catalogue::{Opaque, SglLlama3_70bTp8PageHead, VllmFp8DsMla};

    #[test]
    fn the_catalogue_and_opaque_bytes_have_the_fingerprints_of_their_types() {
        let known = Interned::named(VllmFp8DsMla::NAME).unwrap();
        assert_eq!(known.complete().unwrap().fingerprint(), VllmFp8DsMla::FINGERPRINT);
        let opaque = Interned::opaque(4096).unwrap();
        assert_eq!(opaque.complete().unwrap(), &PageLayout::of::<Opaque<4096>>());
        assert_eq!(Interned::named("none").unwrap_err().code(), 8015);
        assert_eq!(Interned::opaque(0).unwrap_err().code(), 1009);
        assert_eq!(Interned::opaque(1 << 32).unwrap_err().code(), 6013);
    }

    #[test]
    fn an_open_rank_is_given_later() {
        let open = Interned::named(SglLlama3_70bTp8PageHead::NAME).unwrap();
        assert!(open.complete().is_none());
        assert_eq!(Interned::page("layout", open.handle()).unwrap_err().code(), 6011);
        let third = open.at_rank(AxisKind::Head, 3).unwrap();
        let expected = PageLayout::at_rank::<SglLlama3_70bTp8PageHead>(AxisKind::Head, 3).unwrap();
        assert_eq!(third.complete(), Some(&expected));
        assert_eq!(open.at_rank(AxisKind::Head, 8).unwrap_err().code(), 1005);
    }

    #[test]
    fn equal_layouts_are_one_pointer_and_others_are_recognised() {
        let (one, two) = (Interned::opaque(512).unwrap(), Interned::opaque(512).unwrap());
        assert!(ptr::eq(one, two));
        assert!(ptr::eq(Interned::find("layout", one.handle()).unwrap(), one));
        let near = one.handle().wrapping_byte_add(8);
        assert_eq!(Interned::find("layout", near).unwrap_err().code(), 8005);
        assert_eq!(Interned::find("layout", ptr::null()).unwrap_err().code(), 8000);
    }
}
