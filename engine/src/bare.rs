//! Engines without a reader around them, for programs without std: firmware, a DPU, a runtime that
//! brings its own threads, sessions and memory.
//!
//! [`engine!`](crate::engine) with `#[kv(bare)]` declares one. It starts in a `static`, over any
//! [`Provider`], and is [`core`](crate::core)'s own `Engine`: who calls it adds the peers, attaches
//! the lanes and gives the time.
//!
//! ```
//! use kvrail::core::config::EngineConfig;
//! use kvrail::core::engine::Engine;
//! use kvrail::core::provider::Provider;
//! use kvrail::{KvLayout, bare, engine};
//! # use kvrail::layouts::Bf16;
//!
//! #[derive(KvLayout)]
//! #[kv(order(layer, token), layers = 4, tokens = 64)]
//! struct Mla { latent: [Bf16; 512], rope: [Bf16; 64] }
//!
//! engine! {
//!     #[kv(bare)]
//!     pub Puller { page: Mla, max_rails: 1, max_peers: 1, max_depth: 16, max_batch: 8 }
//! }
//! static STORAGE: bare::BareStorage<Puller> = Puller::storage();
//!
//! fn begin<P: Provider>(rails: P) -> Result<Engine<'static, P>, bare::BareStartError> {
//!     Puller::start(&STORAGE, rails, EngineConfig::DEFAULT)
//! }
//! ```
//!
//! Without std: `kvrail = { version = "..", default-features = false }`. The rest of this crate
//! needs the feature `std`, which is on by default. `examples/bare` is a whole program that links
//! neither std nor the C library.

use kvrail_core::provider::Provider;
use kvrail_core::storage::{StaticStartError, StaticStorage};

/// A type of engine that [`engine!`](crate::engine) has declared with `#[kv(bare)]`.
pub trait DeclaredEngine {
    /// Room for the whole state of one.
    type State;
}

/// Room for one engine of the declared type `E`, for a `static`: what `E::storage()` gives.
pub type BareStorage<E> = StaticStorage<<E as DeclaredEngine>::State>;

/// Why a declared engine did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BareStartError {
    /// There are more rails than the engine was declared for.
    #[error("{rails} rails, and the engine was declared with max_rails: {max}: declare more, or give fewer")]
    TooManyRails {
        /// How many there are.
        rails: usize,
        /// How many it was declared with.
        max: usize,
    },
    /// A full batch does not fit the send queues in the configured chunks.
    #[error(
        "a full batch in chunks of {chunk_bytes} bytes is {wrs} wrs, and the lanes hold {room}: configure longer \
         chunks, or declare a smaller max_batch or a larger max_lanes or max_depth"
    )]
    BatchTooLong {
        /// The configured length of a chunk, in bytes.
        chunk_bytes: u32,
        /// wrs of a full batch.
        wrs: u64,
        /// wrs that all lanes hold.
        room: u64,
    },
    /// The storage has been taken, or a number of the configuration cannot work.
    #[error(transparent)]
    Start(#[from] StaticStartError),
}

impl BareStartError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::TooManyRails { .. } => 6120,
            Self::BatchTooLong { .. } => 6121,
            Self::Start(source) => source.code(),
        }
    }
}

/// The configuration of a declared engine: `config` with the declared numbers in it.
#[doc(hidden)]
///
/// # Errors
///
/// More rails than declared, or a batch that is too long.
pub fn config<P: Provider>(
    m: &crate::macro_support::Maxima,
    provider: &P,
    config: kvrail_core::config::EngineConfig,
) -> Result<kvrail_core::config::EngineConfig, BareStartError> {
    let rails = provider.rails();
    if rails > m.rails {
        return Err(BareStartError::TooManyRails { rails, max: m.rails });
    }
    let config = m.over(config);
    match m.too_long(config.chunk_bytes) {
        Some((wrs, room)) => Err(BareStartError::BatchTooLong { chunk_bytes: config.chunk_bytes, wrs, room }),
        None => Ok(config),
    }
}
