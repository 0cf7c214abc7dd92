//! Destination memory: regions of slots whose ownership the type system tracks.
//!
//! A [`Slot`] is the right to one page-sized piece of registered memory. It cannot be copied. It
//! goes into a batch, with the batch into the engine, and comes back with the page's result; in
//! between, safe code has nothing to read, reuse or free it with. `mem::forget` loses a slot, and
//! with it the way to release its region: the memory is leaked, never freed under a NIC. A
//! [`SlotRange`] is that right to consecutive slots.

mod range;
pub(crate) mod region;
pub(crate) mod slot;

pub use self::range::SlotRange;
pub use self::region::{DestinationRegion, RegionError, Slots};
pub use self::slot::{Access, Slot};
