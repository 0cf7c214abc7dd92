//! The producer's side: a publisher, its pools, and the slots that are being written.

pub(crate) mod foreign;
pub(crate) mod handover;
mod location;
mod open;
mod start;

use std::sync::{Arc, PoisonError, RwLock};

use engine::Publisher;
use kvrail_host::descriptors::OwnerProcess;

pub(crate) use self::location::{c_location, rust_location};
pub(crate) use self::open::Open;
pub(crate) use self::start::{Pool, pool, start};
use crate::abi::publisher_types::kvrail_publisher;
use crate::error::CapiError;
use crate::registry::Registry;

static PUBLISHERS: Registry<Handle> = Registry::new("publisher");

/// A publisher that is open, or being closed.
pub(crate) struct Handle {
    /// Taken when it is closed, which waits for calls that are under way.
    open: RwLock<Option<Open>>,
    maker: OwnerProcess,
}

/// The handle of a new publisher.
pub(crate) fn opened(publisher: Publisher) -> Result<*mut kvrail_publisher, CapiError> {
    let open = RwLock::new(Some(Open::new(publisher)));
    PUBLISHERS.open(Handle { open, maker: OwnerProcess::current() })
}

/// Calls `with` with the publisher of a handle. In a child of a fork it is refused: a thread of
/// the parent may have held a lock of the publisher.
pub(crate) fn with<R>(
    handle: *const kvrail_publisher,
    with: impl FnOnce(&Open) -> Result<R, CapiError>,
) -> Result<R, CapiError> {
    let handle: Arc<Handle> = PUBLISHERS.get(handle)?;
    if !handle.maker.is_current() {
        return Err(CapiError::OtherProcess { what: "publisher" });
    }
    let open = handle.open.read().unwrap_or_else(PoisonError::into_inner);
    with(open.as_ref().ok_or(CapiError::Handle { what: "publisher" })?)
}

/// Closes a publisher, as soon as no call of it is under way.
pub(crate) fn close(handle: *const kvrail_publisher) -> Result<(), CapiError> {
    let Some(handle) = PUBLISHERS.close(handle)? else { return Ok(()) };
    if !handle.maker.is_current() {
        // A child of a fork has a copy, and the publisher goes on in the parent.
        std::mem::forget(handle);
        return Ok(());
    }
    let open = handle.open.write().unwrap_or_else(PoisonError::into_inner).take();
    drop(open);
    Ok(())
}
