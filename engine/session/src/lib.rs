//! How two peers authenticate, exchange an offer and make lanes before they move bytes.
//!
//! A *producer* owns pools of KV-cache pages, a *reader* pulls pages out of them. Before the reader
//! can do so, the two must agree on what a page is, where the pages are, and how to reach them.
//! They agree in a session, an encrypted TCP connection between the two, which
//!
//! 1. agrees on a protocol version, and proves to each side by a Noise handshake that the other
//!    holds the same [`PeerKey`]; a mismatch is a [`Refusal`] that both sides can print;
//! 2. carries the layouts that the reader knows, and the producer's [`Offer`]: its [`Epoch`], its
//!    rails, and the pools whose [`Layout`] the reader knows, with their regions and keys. A pool
//!    of another layout is named and not offered. Pools come and go as long as the session lasts;
//! 3. makes lanes, at the start and again after a failure: this side's [`LaneDialer`] and the
//!    producer's [`LaneAcceptor`] exchange 64 bytes per lane through it;
//! 4. hands requests over: the producer tells which pages of a request are ready, and keeps them
//!    until the reader is done or its lease has run out ([`handover`]);
//! 5. carries questions to services of the producer, and their answers ([`service`]);
//! 6. shows that the peer lives: each side sends a message every two seconds, since a child of a
//!    dead process may keep the connection open.
//!
//! # Where to begin
//!
//! Read in this order:
//!
//! | item | what it is |
//! |---|---|
//! | [`Server::start`] | the producer's end of all sessions, on one thread |
//! | [`connect`], [`ConnectedSession`] | the reader's end, with a socket: calls that block |
//! | [`Session`], [`SessionEvent`] | the reader's end without a socket, for a reactor |
//! | [`Offer`], [`Pool`], [`OfferChange`] | what a producer offers, and how that changes |
//! | [`LaneDialer`], [`LaneAcceptor`], [`pair`] | what a transport implements, and its rails |
//! | [`SessionError`], [`Cause`], [`Refusal`] | why a session was not made, or ended |
//! | [`handover`], [`blocks`] | the pages of one request, for the node that reads them |
//! | [`service`], [`ServiceClient`] | questions that a producer answers, beside pages |
//! | [`Message`], [`MessageKind`], [`parse`] | the messages; docs/protocol.md has every byte |
//!
//! The crate knows no transport: a transport defines what a lane is, and how pages travel over it.
//! All of the protocol is sans-IO: bytes in, bytes out, and the time as an argument. Sockets are in
//! [`kvrail_host::reactor`] and in [`connect`].
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//! use kvrail_layouts::catalogue::VllmFp8DsMla;
//! use kvrail_session::{Layout, PeerKey, ReaderDescription, connect};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = PeerKey::from_file("/etc/kvrail/key")?;
//! let reader = ReaderDescription::new("decode-3".parse()?, Layout::of::<VllmFp8DsMla>()?);
//! let deadline = Instant::now() + Duration::from_secs(5);
//! let session = connect(&"prefill-1:7470".parse()?, key, reader, deadline)?;
//! for pool in &session.offer().pools {
//!     println!("{}: pages of {}", pool.id(), pool.layout());
//!     for region in pool.regions() {
//!         println!("  {} slots at {:#x}", region.offer().slots, region.offer().base);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What the key gives, and what not
//!
//! The handshake is `Noise_NNpsk0_25519_AESGCM_SHA256` of the [Noise
//! framework](https://noiseprotocol.org/noise.html), with the key as its pre-shared key. Both sides
//! prove that they hold the same 32 bytes at that moment. A host without the key can neither join,
//! nor read a message, nor change, drop, repeat or reorder one without ending the session. The keys
//! of each session come from fresh Diffie-Hellman keys: a host that learns the peer key later
//! cannot decrypt sessions that it recorded before.
//!
//! In clear are the first 32 bytes of each side, with the protocol's version and the [`KeyId`] by
//! which two sides say that their keys differ; the fresh public keys; and when how many bytes
//! travel. A refusal before the handshake
//! is in clear, too, so anyone on the way can make one: [`Cause::Refused`] says whether a refusal
//! was verified.
//!
//! **The pages are not encrypted** by the session: they travel over whatever moves them. Nothing
//! authenticates the data plane: a host that can inject packets into an RDMA fabric, and learns an
//! rkey, can read the memory of that rkey. Keep that fabric private. All holders of a key are
//! equal: a reader with the key could pose as a producer. An attacker who has seen a [`KeyId`] can
//! try passphrases against it, so prefer random keys.
//!
//! During a rotation each side may hold two keys ([`PeerKeys::rotating`]): a producer accepts both,
//! and a reader dials with the second where the producer does not know the first. Without a key
//! ([`PeerKeys::none`]) a session is encrypted with a pre-shared key of zeros, which keeps no host
//! out.
//!
//! # Bounds
//!
//! A greeting has at most 104 bytes, a message at most 65,519. Nothing is allocated by a number
//! that a peer sent: a buffer grows with the bytes that came. Lists have maxima: [`MAX_LAYOUTS`]
//! layouts of a reader, [`MAX_POOLS`] pools, [`MAX_OFFERED_REGIONS`] regions, 256 unanswered
//! requests for lanes.
//!
//! Every wait has a deadline: ten seconds of silence end a handshake, and so does its overall
//! limit, however slowly a peer sends; [`LULL`] without a message ends a session, and so do ten
//! seconds in which a peer takes nothing. A producer's sessions share one thread, with a limit on
//! sessions and on handshakes; when there are too many connections that have not authenticated yet,
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
pub mod service;
mod socket;
mod tag;
mod versions;

#[cfg(test)]
mod test_seeds;
#[cfg(test)]
mod tests;

pub use address::{Address, ParseAddressError};
pub use error::{By, Cause, SessionError, Step};
pub use greeting::{GreetingError, GreetingKind};
pub use key::{KeyId, PeerKey, PeerKeys};
pub use lane::{Attached, LaneAcceptor, LaneDialer, LaneEndError, NoLanes, SessionLaneError};
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
pub use reader::{
    ConnectedSession, PendingAnswer, ReaderDescription, ServiceClient, Session, SessionEvent, TakeError,
    connect,
};
pub use refusal::{Both, Refusal};
pub use secret_file::KeyError;
pub use server::{
    Observer, OpenHandoverError, ProducerDescription, ServeError, Server, ServerConfig, ServerEvent,
    SharedHandovers,
};
pub use service::{AskError, Asker, Service, ServiceError, ServiceNumber, ServiceRefusal, Services};
pub use socket::{addresses_of, share_of_time};
pub use tag::TagSecret;
pub use versions::Versions;

pub use kvrail_layouts::Fingerprint;
