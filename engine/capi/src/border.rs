//! The border: pointers of C become references and values, results and panics become statuses.
#![allow(unsafe_code, reason = "pointers of a caller in C, on the caller's word")]

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::mem::{MaybeUninit, align_of, size_of};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use crate::abi::constants::KVRAIL_OK;
use crate::abi::handover_types::{kvrail_ended_handover, kvrail_request_id, kvrail_taking_event};
use crate::abi::layout_types::{
    kvrail_axis, kvrail_declaration, kvrail_distance, kvrail_field, kvrail_layout, kvrail_layout_info,
    kvrail_level, kvrail_plane, kvrail_range,
};
use crate::abi::node_types::{
    kvrail_ended_get, kvrail_get_counts, kvrail_group_page, kvrail_node, kvrail_node_config,
    kvrail_node_stats, kvrail_page_keys, kvrail_put_counts,
};
use crate::abi::publisher_types::{
    kvrail_key_tag, kvrail_keys, kvrail_location, kvrail_memory, kvrail_pool, kvrail_pool_region,
    kvrail_publisher, kvrail_publisher_config, kvrail_slot_bytes,
};
use crate::abi::reader_types::{
    kvrail_batch_result, kvrail_destination, kvrail_event, kvrail_peer_pool, kvrail_peer_stats,
    kvrail_rail_stats, kvrail_read, kvrail_read_options, kvrail_read_range, kvrail_reader,
    kvrail_reader_config, kvrail_reader_info, kvrail_result,
};
use crate::error::CapiError;
use crate::status;

/// Runs the body of a function of C: its error becomes the thread's last error and its status, and
/// so does a panic, which must not unwind into C.
///
/// # Safety
///
/// Every pointer that `call` hands to the [`Caller`] is an argument of the function of C, or a
/// field of a structure that it points to. Each is null, or points to as many values of its type as
/// the function's documentation says, which the caller lends for the time of the call: no thread
/// writes to what is read, and no other one touches what is written.
#[inline]
pub(crate) unsafe fn enter<'a>(call: impl FnOnce(&Caller<'a>) -> Result<(), CapiError>) -> i32 {
    let caller = Caller(PhantomData);
    match catch_unwind(AssertUnwindSafe(|| call(&caller))) {
        Ok(Ok(())) => KVRAIL_OK,
        Ok(Err(error)) => status::report(&error),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a text");
            let status = status::report(&CapiError::Panic(text.to_owned()));
            // Dropping it could panic again.
            std::mem::forget(panic);
            status
        }
    }
}

/// A structure of C of which any content is a value: integers, and pointers that are not followed
/// without a [`Caller`].
///
/// # Safety
///
/// Any initialised bytes are a value of the type, zeros are one, and so is a copy of its bytes.
pub(crate) unsafe trait Plain: Copy {}

/// A structure that begins with `uint32_t struct_bytes`, the size that it had when the caller was
/// compiled, and grows at its end. Zeros are the defaults of all later fields.
pub(crate) trait Grows: Plain {
    /// Its name in C.
    const NAME: &'static str;
    /// The bytes that it had in its first version.
    const FIRST: usize;
}

macro_rules! plain {
    ($($name:ty),* $(,)?) => {
        // SAFETY: the types are integers, arrays of them, pointers, and C structures of those.
        $(unsafe impl Plain for $name {})*
    };
}
plain!(u8, i32, u32, u64, usize, c_char);
plain!(kvrail_axis, kvrail_level, kvrail_field, kvrail_plane, kvrail_distance, kvrail_declaration);
plain!(kvrail_layout_info, kvrail_range, kvrail_keys, kvrail_key_tag, kvrail_location, kvrail_pool_region);
plain!(kvrail_pool, kvrail_publisher_config, kvrail_slot_bytes, kvrail_reader_config, kvrail_destination);
plain!(kvrail_read, kvrail_read_options, kvrail_result, kvrail_event, kvrail_peer_pool, kvrail_reader_info);
plain!(kvrail_rail_stats, kvrail_peer_stats, kvrail_read_range, kvrail_batch_result);
plain!(kvrail_request_id, kvrail_ended_handover, kvrail_taking_event);
plain!(kvrail_node_config, kvrail_page_keys, kvrail_group_page);
plain!(kvrail_get_counts, kvrail_put_counts, kvrail_ended_get);
plain!(kvrail_node_stats, *const u8, *mut kvrail_node);
plain!(*const kvrail_layout, *mut kvrail_publisher, *mut kvrail_memory, *mut kvrail_reader);

macro_rules! grows {
    ($($name:ident),* $(,)?) => {
        $(impl Grows for $name {
            const NAME: &'static str = stringify!($name);
            // All of them are as they were in their first version.
            const FIRST: usize = size_of::<$name>();
        })*
    };
}
grows!(kvrail_declaration, kvrail_layout_info, kvrail_publisher_config, kvrail_reader_config);
grows!(kvrail_node_config, kvrail_node_stats);
grows!(kvrail_read_options, kvrail_reader_info, kvrail_rail_stats, kvrail_peer_stats);

/// The right to use the pointers that a caller in C has given, while its call lasts. Only [`enter`]
/// makes one, on the caller's promise.
pub(crate) struct Caller<'a>(PhantomData<&'a mut ()>);

/// Checks what can be checked about a pointer to `T`.
#[inline]
fn check<T>(what: &'static str, pointer: *const T) -> Result<(), CapiError> {
    if pointer.is_null() {
        return Err(CapiError::Null { what });
    }
    if !pointer.is_aligned() {
        return Err(CapiError::Alignment { what, align: align_of::<T>() });
    }
    Ok(())
}

impl<'a> Caller<'a> {
    /// The value behind `pointer`, which is the argument or field `what`.
    #[inline]
    pub(crate) fn value<T: Plain>(&self, what: &'static str, pointer: *const T) -> Result<T, CapiError> {
        check(what, pointer)?;
        // SAFETY: it is not null, it is aligned, and the caller promised a value (`enter`).
        Ok(unsafe { pointer.read() })
    }

    /// The `len` values from `pointer` on. The pointer may be null if there are none.
    #[inline]
    pub(crate) fn list<T: Plain>(
        &self,
        what: &'static str,
        pointer: *const T,
        len: usize,
    ) -> Result<&'a [T], CapiError> {
        if len == 0 {
            return Ok(&[]);
        }
        check(what, pointer)?;
        check_len::<T>(what, len)?;
        // SAFETY: as for `value`, for `len` values; they are not written to during the call.
        Ok(unsafe { slice::from_raw_parts(pointer, len) })
    }

    /// The structure behind `pointer`, of the version that the caller was compiled with.
    pub(crate) fn structure<T: Grows>(&self, pointer: *const T) -> Result<T, CapiError> {
        check(T::NAME, pointer)?;
        let given = self.struct_bytes(pointer)?;
        let bytes = self.list(T::NAME, pointer.cast::<u8>(), given)?;
        let known = given.min(size_of::<T>());
        if bytes[known..].iter().any(|&byte| byte != 0) {
            return Err(CapiError::NewerStruct { name: T::NAME, given, known: size_of::<T>() });
        }
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: `known` bytes are lent, and no more than `value` has, which is no part of them.
        unsafe { value.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), known) };
        // SAFETY: zeros and the caller's bytes are a value (`Plain`).
        Ok(unsafe { value.assume_init() })
    }

    /// As [`structure`](Self::structure); `None` for a null pointer.
    #[inline]
    pub(crate) fn structure_or_none<T: Grows>(&self, pointer: *const T) -> Result<Option<T>, CapiError> {
        if pointer.is_null() { Ok(None) } else { self.structure(pointer).map(Some) }
    }

    /// Fills the structure behind `pointer`, of the version that the caller was compiled with, with
    /// the beginning of `value`. Its field `struct_bytes` stays as it is.
    pub(crate) fn fill<T: Grows>(&self, pointer: *mut T, value: &T) -> Result<(), CapiError> {
        check(T::NAME, pointer)?;
        let given = self.struct_bytes(pointer)?;
        let (from, to) = (std::ptr::from_ref(value).cast::<u8>(), pointer.cast::<u8>());
        let (known, head) = (given.min(size_of::<T>()), size_of::<u32>());
        let (from, to) = (from.wrapping_add(head), to.wrapping_add(head));
        // SAFETY: `value` has `known` bytes, and the caller lends as many, which are no part of it.
        unsafe { to.copy_from_nonoverlapping(from, known - head) };
        Ok(())
    }

    /// The field `struct_bytes` of the structure behind a checked pointer.
    fn struct_bytes<T: Grows>(&self, pointer: *const T) -> Result<usize, CapiError> {
        let given = self.value(T::NAME, pointer.cast::<u32>())?;
        let given = usize::try_from(given).unwrap_or(usize::MAX);
        if given < T::FIRST {
            return Err(CapiError::StructBytes { name: T::NAME, given, least: T::FIRST });
        }
        // No version will be as long as a page of the host.
        if given > 4096 {
            return Err(CapiError::NewerStruct { name: T::NAME, given, known: size_of::<T>() });
        }
        Ok(given)
    }

    /// The text behind `pointer`, without its final zero.
    pub(crate) fn text(&self, what: &'static str, pointer: *const c_char) -> Result<&'a str, CapiError> {
        check(what, pointer)?;
        // SAFETY: the caller promised a text that ends with a zero.
        let text = unsafe { CStr::from_ptr(pointer) };
        text.to_str().map_err(|_| CapiError::Text { what })
    }

    /// As [`text`](Self::text); `None` for a null pointer.
    pub(crate) fn text_or_none(
        &self,
        what: &'static str,
        pointer: *const c_char,
    ) -> Result<Option<&'a str>, CapiError> {
        if pointer.is_null() { Ok(None) } else { self.text(what, pointer).map(Some) }
    }

    /// The place of a result.
    #[inline]
    pub(crate) fn out<T: Plain>(
        &self,
        what: &'static str,
        pointer: *mut T,
    ) -> Result<&'a mut MaybeUninit<T>, CapiError> {
        check(what, pointer)?;
        // SAFETY: not null, aligned, and lent to this call alone (`enter`).
        Ok(unsafe { &mut *pointer.cast::<MaybeUninit<T>>() })
    }

    /// The places of `len` results. The pointer may be null if there are none.
    #[inline]
    pub(crate) fn outs<T: Plain>(
        &self,
        what: &'static str,
        pointer: *mut T,
        len: usize,
    ) -> Result<&'a mut [MaybeUninit<T>], CapiError> {
        if len == 0 {
            return Ok(&mut []);
        }
        check(what, pointer)?;
        check_len::<T>(what, len)?;
        // SAFETY: as for `out`, for `len` values.
        Ok(unsafe { slice::from_raw_parts_mut(pointer.cast::<MaybeUninit<T>>(), len) })
    }

    /// As [`outs`](Self::outs); `None` for a null pointer to no places.
    #[inline]
    pub(crate) fn outs_or_none<T: Plain>(
        &self,
        what: &'static str,
        pointer: *mut T,
        len: usize,
    ) -> Result<Option<&'a mut [MaybeUninit<T>]>, CapiError> {
        if pointer.is_null() && len == 0 { Ok(None) } else { self.outs(what, pointer, len).map(Some) }
    }

    /// Writes `text` and a zero behind `pointer`. A buffer that is too short gets the beginning.
    pub(crate) fn write_text(&self, pointer: *mut c_char, len: usize, text: &str) -> Result<(), CapiError> {
        let places = self.outs("buffer", pointer.cast::<u8>(), len)?;
        let needed = text.len() + 1;
        let fits = text.floor_char_boundary(len.saturating_sub(1));
        for (place, byte) in places.iter_mut().zip(text.as_bytes()[..fits].iter().chain(&[0])) {
            place.write(*byte);
        }
        if needed > len { Err(CapiError::Buffer { needed, given: len }) } else { Ok(()) }
    }
}

/// Refuses a number of values that no memory holds.
#[inline]
fn check_len<T>(what: &'static str, len: usize) -> Result<(), CapiError> {
    match len.checked_mul(size_of::<T>()) {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
        _ => Err(CapiError::Value { what, value: len as u64, allowed: "a number that memory holds" }),
    }
}

#[cfg(test)]
mod tests;
