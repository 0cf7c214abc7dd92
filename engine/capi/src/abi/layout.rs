//! The functions of layouts.
#![allow(unsafe_code, reason = "functions of C")]

use std::ffi::c_char;

use super::layout_types::{kvrail_declaration, kvrail_layout, kvrail_layout_info};
use crate::border::enter;
use crate::error::CapiError;
use crate::layout::{Interned, axis_kind, declare};

/// Declares a layout. The same declaration again gives the same pointer. A process keeps up to
/// 1,024 layouts, and 4,096 names of fields and layouts.
///
/// # Safety
///
/// `declaration` is null, or points to a declaration whose pointers are null or point to as many
/// values as its counts say; names end with a zero. `layout` is null, or points to a place for the
/// result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_layout_declare(
    declaration: *const kvrail_declaration,
    layout: *mut *const kvrail_layout,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let layout = caller.out("layout", layout)?;
            let declaration = caller.structure(declaration)?;
            layout.write(declare(caller, &declaration)?.handle());
            Ok(())
        })
    }
}

/// A layout of the catalogue, which docs/layouts.md lists, by its name: "vllm_fp8_ds_mla".
///
/// # Safety
///
/// `name` is null, or a text that ends with a zero. `layout` is null, or points to a place for the
/// result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_layout_named(name: *const c_char, layout: *mut *const kvrail_layout) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let layout = caller.out("layout", layout)?;
            layout.write(Interned::named(caller.text("name", name)?)?.handle());
            Ok(())
        })
    }
}

/// Pages of `bytes` bytes without structure, 1 to 4,294,967,295. No engine has such a page.
///
/// # Safety
///
/// `layout` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_layout_opaque(bytes: u64, layout: *mut *const kvrail_layout) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            caller.out("layout", layout)?.write(Interned::opaque(bytes)?.handle());
            Ok(())
        })
    }
}

/// The layout as rank `rank` along the sharded axis `axis` holds it.
///
/// # Safety
///
/// `at_rank` is null, or points to a place for the result. Every pointer `layout` is safe: others
/// than those of this library are refused without being followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_layout_at_rank(
    layout: *const kvrail_layout,
    axis: u32,
    rank: u32,
    at_rank: *mut *const kvrail_layout,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let at_rank = caller.out("at_rank", at_rank)?;
            let known = Interned::find("layout", layout)?.at_rank(axis_kind(axis)?, rank)?;
            at_rank.write(known.handle());
            Ok(())
        })
    }
}

/// What there is to know about a layout.
///
/// # Safety
///
/// `info` is null, or points to a structure whose struct_bytes is set, and of which as many bytes
/// can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_layout_query(
    layout: *const kvrail_layout,
    info: *mut kvrail_layout_info,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let layout = Interned::find("layout", layout)?;
            let (geometry, identity) = (layout.geometry(), layout.geometry().identity());
            let complete = layout.complete();
            let fingerprint = complete.map_or(geometry.fingerprint(), |page| page.fingerprint());
            let known = kvrail_layout_info {
                struct_bytes: 0,
                regions: geometry.regions(),
                page_bytes: geometry.page_bytes(),
                tokens: geometry.tokens(),
                fingerprint: fingerprint.to_bytes(),
                fingerprint_of_any_rank: identity.fingerprint_of_any_rank().to_bytes(),
                complete: complete.is_some().into(),
                synthetic: layout.is_synthetic().into(),
            };
            caller.fill(info, &known)
        })
    }
}

/// Bytes of a page in region `region` of its layout, counted from 0.
///
/// # Safety
///
/// `bytes` is null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_layout_region_bytes(
    layout: *const kvrail_layout,
    region: u32,
    bytes: *mut u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let bytes = caller.out("bytes", bytes)?;
            let known = Interned::find("layout", layout)?.geometry().region_bytes(region);
            bytes.write(known.ok_or(CapiError::Value {
                what: "region",
                value: region.into(),
                allowed: "a region of the layout (kvrail_layout_info.regions)",
            })?);
            Ok(())
        })
    }
}

/// Where the elements of a field of one row are. `indices` has one index for each axis that the
/// layout has, in the order layer, token, part, head, block, others, whatever their order in
/// memory.
///
/// # Safety
///
/// `field` is null, or a text that ends with a zero; `indices` is null, or points to `count`
/// numbers; `region` and `offset` are null, or point to places for results.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_layout_offset(
    layout: *const kvrail_layout,
    field: *const c_char,
    indices: *const u64,
    count: usize,
    region: *mut u32,
    offset: *mut u64,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let geometry = Interned::find("layout", layout)?.geometry();
            let field = geometry.field_named(caller.text("field", field)?);
            // A number that no layout has, so that the error says which fields there are.
            let field = field.unwrap_or(usize::MAX);
            let place = geometry.offset_of(field, caller.list("indices", indices, count)?)?;
            caller.out("region", region)?.write(place.region);
            caller.out("offset", offset)?.write(place.offset);
            Ok(())
        })
    }
}

/// The name of a layout, as messages have it, with its ranks where it has some.
///
/// # Safety
///
/// `buffer` is null, or points to `bytes` bytes that can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_layout_text(
    layout: *const kvrail_layout,
    buffer: *mut c_char,
    bytes: usize,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let layout = Interned::find("layout", layout)?;
            match layout.complete() {
                Some(page) => caller.write_text(buffer, bytes, &page.to_string()),
                None => caller.write_text(buffer, bytes, layout.name()),
            }
        })
    }
}
