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

#![allow(unsafe_code, reason = "a trait whose implementors promise to write nothing to exported memory")]

pub(crate) mod open;
pub mod shm;
pub mod tcp;
#[cfg(feature = "verbs")]
pub mod verbs;

use std::error::Error;
use std::fmt;

use kvrail_core::config::EngineConfig;
use kvrail_core::provider::{Provider, RailKeys};
use kvrail_host::exported::ExportedMemory;
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
/// A [`Publisher`](crate::Publisher) gives out references to the bytes of memory that it exports,
/// while an [`Arc<Segment>`](crate::Segment) in an [`ExportedMemory`] lets any thread write; and
/// the memory of an inference engine is written by that engine. So an implementation, its
/// exporter, and all code that they hand the memory to, only read from it, and make no reference to
/// its bytes. Once an [`Export::keep`] has been dropped, nothing of this process reads the memory
/// that was exported, and no device does.
///
/// An implementation that does not promise it (`unsafe impl`) does not compile:
///
/// ```compile_fail,E0200
/// use kvrail::{Backing, Export, ExportedMemory, Exporter};
/// use kvrail::{OpenRails, PublisherTransport, TransportError};
///
/// struct Scribbler(OpenRails);
/// impl PublisherTransport for Scribbler {
///     type Acceptor = OpenRails;
///     fn start(self) -> Result<(OpenRails, Box<dyn Exporter>), TransportError> {
///         Ok((self.0.clone(), Box::new(self)))
///     }
/// }
/// impl Exporter for Scribbler {
///     fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError> {
///         if let Backing::Segment(segment) = memory.backing().clone() {
///             std::thread::spawn(move || segment.write(4096, b"under a &[u8]"));
///         }
///         Err("no rails".into())
///     }
/// }
/// ```
pub unsafe trait PublisherTransport {
    /// Makes the producer's ends of lanes.
    type Acceptor: LaneAcceptor;

    /// The producer's ends of lanes, and the exporter of the memory that peers read over them. What
    /// has been exported is readable to peers that learn the rails' addresses.
    ///
    /// # Errors
    ///
    /// The system refused something, and the error says what.
    fn start(self) -> Result<(Self::Acceptor, Box<dyn Exporter>), TransportError>;
}

/// Makes memory readable to peers, at any time, from any thread.
pub trait Exporter: Send + Sync {
    /// Makes `memory` readable, and only readable, until [`Export::keep`] is dropped, which comes
    /// before the exporter is dropped.
    ///
    /// # Errors
    ///
    /// The transport does not reach memory of this [`Backing`](crate::Backing), or the system
    /// refused something; the error says what is missing.
    fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError>;

    /// The most bytes of one export: whole pages of the host, as far as they have exported bytes.
    /// It does not change. A publisher exports longer memory in pieces.
    fn max_bytes(&self) -> u64 {
        u64::MAX
    }

    /// The NUMA node of the NICs that read the memory; `None` where there is no NIC, where they are
    /// on several nodes, or where the system does not say. A publisher takes the memory of its own
    /// pools from this node.
    fn numa_node(&self) -> Option<u8> {
        None
    }

    /// How many exports are useful at the same time, at least 1: a publisher's default for
    /// [`registrations`](crate::PublisherConfig::registrations).
    fn parallel(&self) -> usize {
        1
    }
}

/// Memory that peers can read.
pub struct Export {
    /// The memory's key on each rail.
    pub keys: RailKeys,
    /// Keeps the memory readable until it is dropped.
    pub keep: Box<dyn Send + Sync>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("keys", &self.keys).finish_non_exhaustive()
    }
}
