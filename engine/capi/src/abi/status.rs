//! Versions, statuses and the text of the last error.
#![allow(unsafe_code, reason = "functions of C")]

use std::ffi::{CStr, c_char};

use super::constants::KVRAIL_ABI_VERSION;
use super::publisher_types::kvrail_key_tag;
use crate::border::enter;
use crate::error::CapiError;
use crate::status;

/// The version of the library, "0.1.0", for messages. The text is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no zero in it"),
        };
    VERSION.as_ptr()
}

/// The number of the library's binary interface: KVRAIL_ABI_VERSION of the header that it was built
/// with.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_abi_version() -> u32 {
    KVRAIL_ABI_VERSION
}

/// The name of a status, as docs/errors.md lists it: "Miss::Overwriting" for 2060, "Ok" for 0, and
/// "unknown" for a number that no error has. The text is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_status_name(status: i32) -> *const c_char {
    status::name(status).as_ptr()
}

/// What a status means in general, and what to do about it. The text is never freed.
/// kvrail_last_error() has the text with the names and numbers of one error.
#[unsafe(no_mangle)]
pub extern "C" fn kvrail_status_meaning(status: i32) -> *const c_char {
    status::meaning(status).as_ptr()
}

/// Writes the text of the calling thread's last error: what failed, with its numbers, and what to
/// do. A text that does not fit is cut. Returns how many bytes the whole text needs with its final
/// zero; 1 if there was no error. A call that succeeds leaves the text of an earlier error.
///
/// # Safety
///
/// `buffer` is null, or points to `bytes` bytes that can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_last_error(buffer: *mut c_char, bytes: usize) -> usize {
    let mut needed = 1;
    if !buffer.is_null() && bytes > 0 {
        // SAFETY: the caller keeps the promise of this function.
        let _ = unsafe {
            enter(|caller| {
                let text = status::last(str::to_owned);
                needed = text.len() + 1;
                match caller.write_text(buffer, bytes, &text) {
                    // The error is no error of this call, and must not replace the text.
                    Ok(()) | Err(CapiError::Buffer { .. }) => Ok(()),
                    Err(error) => Err(error),
                }
            })
        };
    } else {
        status::last(|text| needed = text.len() + 1);
    }
    needed
}

/// The tag under which the page of a key is published and looked for: the first 128 bits of an
/// HMAC-SHA-256 of `key` under the group's secret. The secret is not the key of the sessions, and
/// must not hold the same bytes.
///
/// # Safety
///
/// `secret` is null, or points to 32 bytes; `key` is null, or points to `key_bytes` bytes; `tag` is
/// null, or points to a place for the result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kvrail_tag(
    secret: *const u8,
    key: *const u8,
    key_bytes: usize,
    tag: *mut kvrail_key_tag,
) -> i32 {
    // SAFETY: the caller keeps the promise of this function.
    unsafe {
        enter(|caller| {
            let tag = caller.out("tag", tag)?;
            let mut bytes = [0; 32];
            bytes.copy_from_slice(caller.list("secret", secret, 32)?);
            let secret = engine::session::TagSecret::from_bytes(bytes);
            tag.write(secret.tag(caller.list("key", key, key_bytes)?).into());
            Ok(())
        })
    }
}
