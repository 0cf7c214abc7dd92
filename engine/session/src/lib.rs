//! How two peers authenticate, compare layouts, exchange an offer and make lanes before they move
//! bytes.
//!
//! A *producer* owns regions of KV-cache pages, a *reader* pulls pages out of them. Before the
//! reader can do so, the two must agree on what a page is, where the pages are, and how to reach
//! them. They agree in a session, an authenticated TCP connection between the two, which
//!
//! 1. agrees on a protocol version, proves to each side that the other holds the same [`PeerKey`],
//!    and compares [`Layout`]s; a mismatch is a [`Refusal`], the same on both sides, that names
//!    both;
//! 2. carries the producer's [`Offer`]: its [`Epoch`], rails and regions, with their keys;
//! 3. makes lanes, at the start and again after a failure: this side's [`LaneDialer`] and the
//!    producer's [`LaneAcceptor`] exchange 64 bytes per lane through it;
//! 4. shows that the peer lives: each side sends a message every two seconds, since a child of a
//!    dead process may keep the connection open.
//!
//! Read in this order: [`Server::start`] and [`connect`], the two ends; [`Session`],
//! the reader's end of an established one; [`LaneDialer`] and [`LaneAcceptor`], which a transport
//! implements; [`pair`], which joins the rails of the two sides; [`blocks`], the pages of one
//! request, for the node that reads them. [`MessageKind`], [`Message`] and [`parse`] are the bytes;
//! docs/protocol.md describes every field.
//!
//! The crate knows no transport: a transport defines what a lane is, and how pages travel over it.
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//! use kvrail_layouts::catalogue::VllmFp8DsMla;
//! use kvrail_session::{Hello, Layout, PeerKey, connect};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = PeerKey::from_file("/etc/kvrail/key")?;
//! let layout = Layout::of::<VllmFp8DsMla>()?;
//! let deadline = Instant::now() + Duration::from_secs(5);
//! let hello = Hello::new("decode-3".parse()?, layout);
//! let session = connect(&"prefill-1:7470".parse()?, &key, hello, deadline)?;
//! for region in &session.offer().regions {
//!     println!("{} slots at {:#x}", region.offer().slots, region.offer().base);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What the key gives, and what not
//!
//! Both sides prove, by random nonces, that they hold the same 32 bytes at that moment. Every
//! message after the nonces carries an HMAC-SHA-256 over all earlier messages: a host without the
//! key can neither join, nor change, drop, repeat or reorder a message without ending the session.
//!
//! There is **no confidentiality**: names, addresses and remote keys travel in the clear, and so do
//! the pages, over whatever moves them. Nothing authenticates the data plane: a host that
//! can inject packets into an RDMA fabric, and has seen an rkey, can read the memory of that rkey.
//! Keep that fabric private. All holders of a key are equal: a reader with the key could pose as a
//! producer. An attacker who records an exchange can try passphrases against it, so prefer random
//! keys.
//!
//! # Bounds
//!
//! Every message has the fixed size of its kind; nothing is allocated by a number that a peer sent.
//! Every wait has a deadline: ten seconds of silence end a handshake, and so does its overall
//! limit, however slowly a peer sends. A producer gives every connection a thread, and limits
//! handshakes and sessions; when there are too many connections that have not authenticated yet,
//! the oldest is ended.

mod address;
pub mod blocks;
mod channel;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod greeting;
pub mod handover;
mod hello;
mod key;
mod lane;
mod liveness;
mod message;
mod name;
mod noise;
mod offer;
mod offered;
mod pairing;
mod pool;
mod reader;
mod refusal;
mod secret_file;
mod server;
mod socket;
mod tag;
mod versions;

#[cfg(test)]
mod test_seeds;

pub use address::{Address, ParseAddressError};
pub use error::{By, Cause, SessionError, Step};
pub use greeting::{GreetingError, GreetingKind};
pub use key::{KeyId, PeerKey, PeerKeys};
pub use lane::{Attached, LaneAcceptor, LaneDialer, LaneEndError, SessionLaneError};
pub use liveness::{BEAT, LULL, SILENCE};
pub use message::{
    ByeReason, Introduction, LaneAnswer, LaneAnswers, LaneAsk, LaneAsks, LaneNumber, LaneRefusal,
    LaneRefusalCode, MESSAGE_REGIONS, Message, MessageField, MessageKind, OfferHead, ParseError, PoolHead,
    PoolRegions, parse,
};
pub use name::{LayoutName, Name, NameError, NodeName};
pub use offer::{
    Epoch, LaneBlob, Layout, MAX_LANES, MAX_REGIONS, OfferedRegion, RailAddress, RailDescription, RailList,
    TransportKind,
};
pub use pairing::{NothingInCommon, RailPair, pair};
pub use pool::{MAX_LAYOUTS, MAX_OFFERED_REGIONS, MAX_POOLS, Offer, OfferChange, Pool, PoolError, PoolId};
pub use reader::{ConnectedSession, ReaderDescription, Session, SessionEvent, connect};
pub use refusal::{Both, Refusal};
pub use secret_file::KeyError;
pub use server::{Observer, ProducerDescription, ServeError, Server, ServerConfig, ServerEvent};
pub use socket::{addresses_of, share_of_time};
pub use tag::TagSecret;
pub use versions::Versions;

pub use kvrail_layouts::Fingerprint;
