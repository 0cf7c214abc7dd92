//! The block list of a request: the pages that a prefill node has written for it, in the form in
//! which a decode node receives them.
//!
//! A [`BlockList`] is locations (slot, generation, ready parts, key tag) of one region, in the
//! order of the request's tokens. On the wire it is a list of runs: of values with an even step, a
//! run has the first and the step; other values are listed one by one. 1,024 pages of evenly spaced
//! slots, one generation and evenly spaced tags take 120 bytes. A list takes at most
//! [`BlockList::MAX_BYTES`]:
//! 32 bytes a page where no value is even.
//!
//! ```
//! use kvrail_core::remote::Location;
//! use kvrail_core::table::{EntryValue, Generation, KeyTag, Ready};
//! use kvrail_session::blocks::{BlockList, Head};
//! use kvrail_session::{Epoch, Fingerprint};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let pages: Vec<Location> = (0..1_024)
//!     .map(|i| Location {
//!         slot: 7 + 2 * i,
//!         expected: EntryValue {
//!             generation: Generation(0xBEEF_0000_0003),
//!             ready: Ready::WHOLE,
//!             tag: KeyTag(900 + u128::from(i)),
//!         },
//!     })
//!     .collect();
//! let (fingerprint, epoch) = (Fingerprint::from_bytes([1; 16]), Epoch(5.try_into()?));
//! let head = Head { fingerprint, epoch, region: 0, request: 42 };
//! let bytes = BlockList::new(head, &pages)?.encode();
//! assert_eq!(bytes.len(), 120);
//! let list = BlockList::parse(&bytes)?;
//! assert_eq!(list.head().request, 42);
//! assert!(list.locations().eq(pages));
//! # Ok(())
//! # }
//! ```
//!
//! A list is a hint: its locations are validated as any location is, and a location whose slot
//! holds another page is a miss. A list has no MAC of its own: where a forged list matters, send it
//! over an authenticated connection. Of pages that still grow it always matters, since a reader
//! trusts the number of ready parts ([`kvrail_core::table`]).

mod compress;
mod decode;
mod list;
mod run;
#[cfg(test)]
mod tests;
mod wire;

pub use self::decode::BlockListError;
pub use self::list::{BlockList, NoList};
pub use self::run::Head;
