//! The caller's memory, and the handle in it.
#![allow(unsafe_code, reason = "a reader in the caller's memory, on the caller's word")]

use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::any::{AnyReader, each};
use super::config::Start;
use super::sizes::{ALIGN, SIZES, with_size};
use super::tables::Tables;
use crate::abi::reader_types::kvrail_reader;
use crate::border::Caller;
use crate::error::CapiError;

/// No call is under way.
const READY: u32 = 0x6b76_7231;
/// A call is under way.
const BUSY: u32 = 0x6b76_7232;
/// A call has panicked.
const POISONED: u32 = 0x6b76_7233;
/// The reader is closed.
const CLOSED: u32 = 0x6b76_7230;

/// A reader and its tables.
pub(crate) struct Body {
    pub(crate) any: AnyReader,
    pub(crate) tables: Tables,
}

/// What is at the beginning of a reader's memory.
#[repr(C)]
struct Handle {
    /// READY, BUSY, POISONED or CLOSED; anything else is no handle.
    word: AtomicU32,
    /// Its own address, so that a copy of the memory is no handle.
    own: usize,
    body: UnsafeCell<ManuallyDrop<Body>>,
}

/// Where the state begins, behind the handle.
const STATE: usize = size_of::<Handle>().next_multiple_of(ALIGN);

/// How many bytes of memory at any address a reader of size number `size` takes.
pub(crate) fn bytes(size: usize) -> usize {
    let state = SIZES.get(size).map_or(0, |size| size.bytes);
    (ALIGN - 1 + STATE + state).next_multiple_of(ALIGN)
}

/// Starts a reader in `memory`.
///
/// # Safety
///
/// `memory` is null, or points to `given` bytes that nothing else uses from now on, until the
/// reader has been closed with success, or this function has failed.
pub(crate) unsafe fn open(
    memory: *mut u8,
    given: usize,
    start: Start,
) -> Result<*mut kvrail_reader, CapiError> {
    if memory.is_null() {
        return Err(CapiError::Null { what: "memory" });
    }
    let size = start.maxima.size()?;
    let needed = bytes(size);
    if given < needed {
        return Err(CapiError::Memory { needed, given });
    }
    // `bytes` has room for the step to the next multiple.
    let handle = memory.wrapping_add(memory.addr().wrapping_neg() % ALIGN);
    let state = handle.wrapping_add(STATE);
    let (layout, timeout) = (start.layout, start.timeout);
    let (any, names) = with_size!(size, S => {
        // SAFETY: aligned to ALIGN, which is enough for S (sizes.rs); within the memory, by
        // `bytes`; nothing else uses it until the reader, which keeps the reference, is closed.
        let room = unsafe { &mut *state.cast::<MaybeUninit<S>>() };
        AnyReader::start(room, start)?
    });
    let holds = SIZES[size].holds;
    let tables = Tables::new(layout, names, timeout, holds.batches, holds.batch);
    let body = UnsafeCell::new(ManuallyDrop::new(Body { any, tables }));
    let handle = handle.cast::<Handle>();
    let value = Handle { word: AtomicU32::new(READY), own: handle.addr(), body };
    // SAFETY: aligned, within the memory and before the state.
    unsafe { handle.write(value) };
    Ok(handle.cast())
}

/// Notes how a call ended.
struct Entered<'a> {
    word: &'a AtomicU32,
    /// What the word becomes: POISONED, unless the call gets to its end.
    then: u32,
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: the thread that makes the next call sees what this one did.
        self.word.store(self.then, Ordering::Release);
    }
}

/// The handle that `reader` points to, entered. It looks at memory that the caller has promised:
/// either a reader's, or other memory that can be read.
#[inline]
fn entered<'a>(_: &Caller<'a>, reader: *mut kvrail_reader) -> Result<(&'a Handle, Entered<'a>), CapiError> {
    let handle = reader.cast::<Handle>();
    if handle.is_null() {
        return Err(CapiError::Null { what: "reader" });
    }
    if !handle.addr().is_multiple_of(ALIGN) {
        return Err(CapiError::Handle { what: "reader" });
    }
    // SAFETY: `enter` has the caller's promise that the pointer is one to a reader's memory, which
    // begins with a Handle, also when the reader is closed.
    let handle = unsafe { &*handle };
    // Acquire: what the call before did, perhaps on another thread. A plain load and a store find
    // most calls that overlap, without the cost of an atomic exchange; that calls do not overlap is
    // the caller's duty.
    let word = handle.word.load(Ordering::Acquire);
    if word != READY || handle.own != ptr::from_ref(handle).addr() {
        return Err(match word {
            BUSY => CapiError::InUse,
            POISONED => CapiError::Poisoned,
            _ => CapiError::Handle { what: "reader" },
        });
    }
    handle.word.store(BUSY, Ordering::Relaxed);
    Ok((handle, Entered { word: &handle.word, then: POISONED }))
}

/// Calls `call` with the reader that `reader` points to.
#[inline]
pub(crate) fn with<R>(
    caller: &Caller<'_>,
    reader: *mut kvrail_reader,
    call: impl FnOnce(&mut Body) -> Result<R, CapiError>,
) -> Result<R, CapiError> {
    let (handle, mut entered) = entered(caller, reader)?;
    // SAFETY: the word was READY and is BUSY now, so the body is there, and no other call uses it.
    let body = unsafe { &mut *handle.body.get() };
    let result = call(body);
    entered.then = READY;
    result
}

/// Closes the reader. Without an error its memory, and that of its slots, is the caller's again.
pub(crate) fn close(caller: &Caller<'_>, reader: *mut kvrail_reader) -> Result<(), CapiError> {
    let handle = match entered(caller, reader) {
        Ok((handle, mut entered)) => {
            entered.then = CLOSED;
            handle
        }
        Err(CapiError::Poisoned) => {
            // A reader whose call ended in the middle may do anything: it stays as it is.
            return Err(CapiError::StillReading);
        }
        Err(error) => return Err(error),
    };
    // SAFETY: the word was READY, so the body is there, and no other call uses it.
    let body = unsafe { &mut *handle.body.get() };
    // SAFETY: the word is CLOSED now, so no other call takes it.
    let body = unsafe { ManuallyDrop::take(body) };
    let Body { any, tables } = body;
    // A batch that is being drained holds a buffer of the reader's.
    drop(tables);
    if any.end() { Ok(()) } else { Err(CapiError::StillReading) }
}

impl Body {
    /// The number of the file descriptor that is readable when there is something to do.
    pub(crate) fn descriptor(&self) -> i32 {
        use std::os::fd::AsRawFd as _;
        each!(&self.any, reader => reader.as_raw_fd())
    }
}
