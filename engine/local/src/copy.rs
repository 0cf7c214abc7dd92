//! Copies out of memory, or a file, to which another process may be writing.
#![allow(unsafe_code, reason = "copies between raw addresses")]

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr;

/// Copies of this length and more go around the cache (on x86-64).
///
/// An ordinary store reads the line that it overwrites; a store that goes around the cache does
/// not. Measured with two threads on the two-core AMD EPYC of docs/performance.md, with pools of
/// 288 MiB, while other programs used the machine (medians of 7): 4.6 against 6.4 GB/s for 256 KiB,
/// 5.0 against 7.0 for 1 MiB, 4.8 against 6.7 for 4.5 MB. A shorter copy may still be in the cache
/// when it is used, which is worth more.
pub const AROUND_THE_CACHE: usize = 256 << 10;

/// Copies exactly as a rail over shared memory carries out one READ of this length.
///
/// Benchmarks measure a rail against it: what an engine costs is the difference. Copies of
/// [`AROUND_THE_CACHE`] bytes and more go around the cache (on x86-64); shorter ones are the C
/// library's `memcpy`.
///
/// # Panics
///
/// The two slices differ in length.
#[inline]
pub fn copy_bytes(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "bytes to copy, and room for them");
    // SAFETY: two slices of the same length; `to` is borrowed exclusively, so they do not overlap.
    unsafe { copy(from.as_ptr(), to.as_mut_ptr(), from.len()) };
}

/// Copies `len` bytes. No later store of this thread becomes visible before them.
///
/// # Safety
///
/// `from` is valid for reads and `to` for writes of `len` bytes, and they do not overlap. Another
/// process may write to the bytes at `from` meanwhile.
#[inline]
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { copy_part(from, to, len, len) };
}

/// [`copy`] of a part of a READ of `whole` bytes, in the way that suits the whole.
///
/// # Safety
///
/// As for [`copy`].
#[inline]
pub(crate) unsafe fn copy_part(from: *const u8, to: *mut u8, len: usize, whole: usize) {
    if cfg!(target_arch = "x86_64") && whole >= AROUND_THE_CACHE {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller's promise.
        unsafe {
            stream(from, to, len);
        }
    } else {
        // SAFETY: the caller's promise. No reference to the bytes is made, and every value of a
        // byte is valid.
        unsafe { ptr::copy_nonoverlapping(from, to, len) };
    }
}

/// [`copy`], with stores that go around the cache.
///
/// # Safety
///
/// As for [`copy`].
#[cfg(target_arch = "x86_64")]
unsafe fn stream(mut from: *const u8, mut to: *mut u8, len: usize) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    const LINE: usize = 64;
    const PIECE: usize = size_of::<__m128i>();

    let head = to.align_offset(LINE).min(len);
    let (lines, tail) = ((len - head) / LINE, (len - head) % LINE);
    // SAFETY: head <= len.
    unsafe { ptr::copy_nonoverlapping(from, to, head) };
    from = from.wrapping_add(head);
    to = to.wrapping_add(head);
    for _ in 0..lines {
        let line: [__m128i; LINE / PIECE] = std::array::from_fn(|i| {
            // SAFETY: within the line at `from`, one of the `lines` whole ones; needs no alignment.
            unsafe { _mm_loadu_si128(from.wrapping_add(i * PIECE).cast()) }
        });
        for (i, piece) in line.into_iter().enumerate() {
            // SAFETY: within the line at `to`, one of the `lines` whole ones, and aligned to 16,
            // for `head` ended at a multiple of 64 and whole lines have passed since.
            unsafe { _mm_stream_si128(to.wrapping_add(i * PIECE).cast(), piece) };
        }
        from = from.wrapping_add(LINE);
        to = to.wrapping_add(LINE);
    }
    // SAFETY: `tail` bytes are left of `len`.
    unsafe { ptr::copy_nonoverlapping(from, to, tail) };
    // These stores are ordered by this fence alone: without it a completion could be seen before
    // them.
    // SAFETY: an x86_64 processor has SSE.
    unsafe { _mm_sfence() };
}

/// Copies `len` bytes at `offset` of a file to `to`, and says whether all of them were there.
///
/// # Safety
///
/// `to` is valid for writes of `len` bytes until the call returns.
pub(crate) unsafe fn read_file(file: &OwnedFd, offset: Option<u64>, to: *mut u8, len: usize) -> bool {
    let mut done = 0;
    while done < len {
        let at = offset.and_then(|offset| offset.checked_add(done as u64));
        let Some(at) = at.and_then(|at| i64::try_from(at).ok()) else { return false };
        let to = to.wrapping_add(done).cast();
        // SAFETY: the kernel writes to the rest of the caller's range alone.
        let copied = unsafe { libc::pread64(file.as_raw_fd(), to, len - done, at) };
        match usize::try_from(copied) {
            // The file has been shortened.
            Ok(0) => return false,
            Ok(copied) => done += copied,
            Err(_) if std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_arrives_and_no_byte_beside_it() {
        const LONG: usize = AROUND_THE_CACHE;
        let source: Vec<u8> = (0..LONG + 400).map(|i| (i * 31 % 251) as u8 + 1).collect();
        for len in [0, 1, 63, 64, 4097, LONG - 1, LONG, LONG + 1, LONG + 63, LONG + 200] {
            for (from, to) in [(0, 0), (1, 0), (0, 1), (3, 17), (63, 63), (64, 100)] {
                let mut out = vec![0; LONG + 400];
                let (source, room) = (&source[from..from + len], &mut out[to..to + len]);
                copy_bytes(source, room);
                assert!(room == source, "{len} bytes from {from} to {to}");
                let (before, after) = (&out[..to], &out[to + len..]);
                assert!(before.iter().chain(after).all(|&b| b == 0), "{len} bytes from {from} to {to}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "room for them")]
    fn a_copy_without_room_panics() {
        copy_bytes(&[1, 2, 3], &mut [0; 2]);
    }
}
