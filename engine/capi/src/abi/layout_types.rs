//! The structures that declare and describe a layout.
#![allow(non_camel_case_types, reason = "names of C")]

use std::ffi::c_char;

/// A layout of pages: which byte of a page is what. It lives as long as the process, so it is never
/// freed, and equal declarations give the same pointer.
#[derive(Debug)]
pub struct kvrail_layout {
    _opaque: (),
}

/// An axis of a page.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_axis {
    /// KVRAIL_AXIS_...
    pub kind: u32,
    /// KVRAIL_SPREAD_...
    pub spread: u32,
    /// How many indices this page has, at least 1.
    pub extent: u64,
    /// Of a sharded or replicated axis: how many ranks there are.
    pub ranks: u32,
    /// Of a sharded axis: which rank this is, or KVRAIL_RANK_OPEN.
    pub rank: u32,
    /// Of a stage: the first index of the whole that this page has.
    pub first: u64,
    /// Of a stage: how many indices the whole has.
    pub of: u64,
}

/// One level of a page's order.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_level {
    /// KVRAIL_LEVEL_...
    pub kind: u32,
    /// The axis, of the levels that have one.
    pub axis: u32,
    /// Of KVRAIL_LEVEL_PAD: to a multiple of how many bytes.
    pub pad: u64,
}

/// A field of a row: elements of one kind, densely.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_field {
    /// The field's name, which is unique in the page and a part of the fingerprint.
    pub name: *const c_char,
    /// KVRAIL_ELEMENT_...
    pub element: u32,
    /// 0.
    pub reserved: u32,
    /// How many elements a row has, at least 1.
    pub count: u64,
}

/// Rows of the same fields.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_plane {
    /// The fields of a row, in the order of their bytes.
    pub fields: *const kvrail_field,
    /// How many fields.
    pub field_count: usize,
    /// The plane's own levels, in place of those that follow the planes in the page's order; null
    /// for the page's.
    pub order: *const kvrail_level,
    /// How many levels `order` has.
    pub order_count: usize,
}

/// A distance that the declaration leaves to run time.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_distance {
    /// KVRAIL_DISTANCE_...
    pub kind: u32,
    /// The number of the plane, from 0.
    pub plane: u32,
    /// Of KVRAIL_DISTANCE_STRIDE: the axis.
    pub axis: u32,
    /// 0.
    pub reserved: u32,
    /// The distance.
    pub bytes: u64,
}

/// A page as its author declares it, from the outside in: `order` lists the levels, outermost
/// first, and innermost is a row, the fields of a plane one after the other. It is the model of
/// docs/layouts.md; a struct with `#[derive(KvLayout)]` and a declaration here with the same
/// content have the same fingerprint.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_declaration {
    /// sizeof(kvrail_declaration).
    pub struct_bytes: u32,
    /// The author's version of the meaning of the bytes.
    pub version: u32,
    /// What messages call it, 1 to 64 bytes. It is no part of the fingerprint.
    pub name: *const c_char,
    /// The axes, in any order, each kind once.
    pub axes: *const kvrail_axis,
    /// How many axes.
    pub axis_count: usize,
    /// The levels, outermost first.
    pub order: *const kvrail_level,
    /// How many levels.
    pub order_count: usize,
    /// The planes; a page that does not split into planes has one.
    pub planes: *const kvrail_plane,
    /// How many planes.
    pub plane_count: usize,
    /// How many tokens one index of the token axis stands for; 0 for 1.
    pub tokens_per_state: u64,
    /// The address of each region is a multiple of this; 0 for 1.
    pub align: u64,
    /// The bytes of a page, to be checked; 0 to check nothing.
    pub bytes: u64,
    /// The distances that the order leaves to run time.
    pub distances: *const kvrail_distance,
    /// How many distances.
    pub distance_count: usize,
    /// A tag for a permutation of the bytes within the page; 0 for none.
    pub swizzle: u32,
    /// 0.
    pub reserved: u32,
}

/// What can be asked about a layout. The call fills it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_layout_info {
    /// sizeof(kvrail_layout_info), set by the caller.
    pub struct_bytes: u32,
    /// How many regions a page has, at least 1.
    pub regions: u32,
    /// Bytes of a page in all of its regions.
    pub page_bytes: u64,
    /// Tokens of a page; 0 if the layout does not say.
    pub tokens: u64,
    /// The fingerprint that two peers compare. While a rank or a distance is open, that of the
    /// declaration.
    pub fingerprint: [u8; 16],
    /// The fingerprint that pages of all ranks have in common.
    pub fingerprint_of_any_rank: [u8; 16],
    /// 1 if everything is known that two peers compare, else 0: then a rank is open.
    pub complete: u32,
    /// 1 if the layout is made up: no inference engine has such a page.
    pub synthetic: u32,
}

/// A range of an axis, for kvrail_reader_add_plan().
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct kvrail_range {
    /// KVRAIL_AXIS_...
    pub axis: u32,
    /// 0.
    pub reserved: u32,
    /// The first index.
    pub start: u64,
    /// How many indices.
    pub len: u64,
}
