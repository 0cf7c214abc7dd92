//! Transports: the ways by which a [`Reader`](crate::Reader) reads and a
//! [`Publisher`](crate::Publisher) publishes.
//!
//! A transport is one file here, whole: its rails for a reader ([`ReaderTransport`]), the dialer of
//! their lanes, and how a producer's memory is published over it ([`PublisherTransport`]).
//!
//! Another transport is added in at most four places:
//!
//! 1. a file in this folder with the two traits' implementations. If its lanes need no exchange
//!    between the two sides, `open.rs` has the dialer and the acceptor already; else it implements
//!    [`LaneDialer`] and [`LaneAcceptor`].
//! 2. `mod.rs` (this file): `pub mod <name>;`, behind its feature if it needs one.
//! 3. `engine/src/lib.rs`: `pub use transport::<name>;`.
//! 4. `kvrail_session::TransportKind`: a variant with its number on the wire, which is added and
//!    never changed. A transport outside this crate takes `TransportKind::Other(n)` and needs
//!    nothing of this list.

#![allow(unsafe_code, reason = "a trait whose implementors promise to write nothing to a segment")]

pub(crate) mod open;
pub mod shm;
pub mod tcp;
#[cfg(feature = "verbs")]
pub mod verbs;

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use kvrail_core::config::EngineConfig;
use kvrail_core::provider::{Provider, RailKeys};
use kvrail_host::segment::Segment;
use kvrail_session::{LaneAcceptor, LaneDialer};

/// Entries of a lane's send queue, the drain's included: the depth of a reader's storage.
pub(crate) const LANE_DEPTH: u32 = 128;

/// Why a transport failed, in its own words.
pub type TransportError = Box<dyn Error + Send + Sync>;

/// The reader's side of a transport: rails for an engine, and the dialer of their lanes.
///
/// Dialling blocks, so it happens on threads of its own: at most two at a time for each rail. Its
/// result, an [`UnopenedLane`](Self::UnopenedLane), is opened by the provider on the engine's
/// thread, which does not block.
pub trait ReaderTransport {
    /// The rails, as an engine drives them.
    type Provider: Provider<Unopened = Self::UnopenedLane, Lane: Send> + 'static;
    /// A lane whose two ends are connected, and which the provider has not opened yet.
    type UnopenedLane: Send + 'static;
    /// Makes unopened lanes.
    type Dialer: LaneDialer<UnopenedLane = Self::UnopenedLane, Pending: Send> + Send + 'static;
    /// The common part of all dialers of a reader, of which [`dialer`](Self::dialer) makes each.
    type DialerSeed: Send + Sync + 'static;

    /// The transport's name, for reports.
    const LABEL: &'static str;

    /// The transport's name with its caveats, for instance that devices are emulated.
    fn label(&self) -> String {
        Self::LABEL.into()
    }

    /// The name of a rail.
    fn name(&self, rail: usize) -> String {
        format!("{}{rail}", Self::LABEL.split(' ').next().unwrap_or_default())
    }

    /// The configuration that suits an engine over these rails.
    fn engine_config(&self) -> EngineConfig;

    /// The provider for the engine, and the seed of all dialers.
    fn split(self) -> (Self::Provider, Self::DialerSeed);

    /// A dialer, which makes one lane, or says once which rails go together.
    fn dialer(seed: &Self::DialerSeed) -> Self::Dialer;

    /// How many send queue entries `lane` has, the drain's included.
    fn depth(lane: &Self::UnopenedLane) -> u32;
}

/// The producer's side of a transport.
///
/// # Safety
///
/// A [`Publisher`](crate::Publisher) gives out references to the segment's bytes, while an
/// [`Arc<Segment>`](Segment) lets any thread write. So an implementation, and all code that it
/// hands the segment to, only reads from it, and makes no reference to its bytes.
///
/// An implementation that does not promise it (`unsafe impl`) does not compile:
///
/// ```compile_fail,E0200
/// use kvrail::{OpenRails, Published, PublisherTransport, Segment, TransportError};
/// use std::sync::Arc;
///
/// struct Scribbler;
/// impl PublisherTransport for Scribbler {
///     type Acceptor = OpenRails;
///     fn publish(self, segment: Arc<Segment>) -> Result<Published<OpenRails>, TransportError> {
///         std::thread::spawn(move || segment.write(4096, b"under a &[u8]"));
///         Err("no rails".into())
///     }
/// }
/// ```
pub unsafe trait PublisherTransport {
    /// Makes the producer's ends of lanes.
    type Acceptor: LaneAcceptor;

    /// Makes `segment` readable to peers that learn the rails' addresses, until the returned value
    /// is dropped.
    ///
    /// # Errors
    ///
    /// The system refused something, and the error says what.
    fn publish(self, segment: Arc<Segment>) -> Result<Published<Self::Acceptor>, TransportError>;
}

/// A segment that peers can read.
pub struct Published<A> {
    /// Tells readers of the rails, and makes the producer's ends of lanes.
    pub acceptor: A,
    /// The segment's key on each rail.
    pub keys: RailKeys,
    /// Keeps the segment readable until it is dropped.
    pub keep: Box<dyn Send + Sync>,
}

impl<A: fmt::Debug> fmt::Debug for Published<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").field("acceptor", &self.acceptor).finish_non_exhaustive()
    }
}
