//! What a [`Reader`](crate::Reader) reads over, and a [`Publisher`](crate::Publisher) is read over.
#![allow(unsafe_code, reason = "who publishes a segment promises to write nothing to it")]

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use kvrail_core::config::EngineConfig;
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_core::provider::{Provider, RailKeys};
use kvrail_local as local;
use kvrail_local::shm::Segment;
use kvrail_session::{Fabric, FabricError, LaneBlob, List, RailDescription, Rails, Responder, TransportKind};

#[cfg(feature = "verbs")]
pub mod verbs;

/// Why something of a transport failed, in its own words.
pub type TransportError = Box<dyn Error + Send + Sync>;

/// The reader's side of a transport: rails for an engine, and what dials the other ends.
///
/// Dialling blocks, so it happens on a thread of the session; what comes out of it, a [`Line`], is
/// turned into a lane on the engine's thread, which does not block.
///
/// [`Line`]: Network::Line
pub trait Network {
    /// What moves the bytes.
    type Provider: Provider<Unopened = Self::Line, Lane: Send> + 'static;
    /// The other end of a lane, reached and not yet in the provider's hands.
    type Line: Send + 'static;
    /// Reaches other ends.
    type Dialer: Fabric<Lane = Self::Line> + Send + 'static;
    /// What a dialer is made of.
    type Plan;

    /// What carries the bytes, for reports.
    const LABEL: &'static str;

    /// What carries the bytes, with what a report must say of it.
    fn label(&self) -> String {
        Self::LABEL.into()
    }

    /// What a rail is called.
    fn name(&self, rail: usize) -> String {
        format!("{}{rail}", Self::LABEL.split(' ').next().unwrap_or_default())
    }

    /// How an engine over these rails behaves best.
    fn tuning(&self) -> EngineConfig;

    /// The parts.
    fn split(self) -> (Self::Provider, Self::Plan);

    /// A dialer for one rail of one session. A session has one for each rail, and one more that
    /// says which rails go together, so that no rail waits for another.
    fn dialer(plan: &Self::Plan) -> Self::Dialer;

    /// How many send queue entries a lane over `line` has, the drain's included.
    fn depth(line: &Self::Line) -> u32;
}

/// The producer's side of a transport.
///
/// # Safety
///
/// A [`Publisher`](crate::Publisher) gives out references to the segment's bytes, while an
/// [`Arc<Segment>`](Segment) lets anybody write. So an implementation, and whatever it hands the segment
/// to, only reads from it, and makes no reference to its bytes.
///
/// To implement it without a word of that does not compile:
///
/// ```compile_fail,E0200
/// use kvrail::{OpenRails, Publish, Published, TransportError, local::shm::Segment};
/// use std::sync::Arc;
///
/// struct Scribbler;
/// impl Publish for Scribbler {
///     type Responder = OpenRails;
///     fn publish(self, segment: Arc<Segment>) -> Result<Published<OpenRails>, TransportError> {
///         std::thread::spawn(move || segment.write(4096, b"under a &[u8]"));
///         Err("no rails".into())
///     }
/// }
/// ```
pub unsafe trait Publish {
    /// Makes the producer's ends of lanes.
    type Responder: Responder;

    /// Makes `segment` readable by whoever learns the rails' addresses, until what is returned is
    /// dropped.
    ///
    /// # Errors
    ///
    /// What the system refused.
    fn publish(self, segment: Arc<Segment>) -> Result<Published<Self::Responder>, TransportError>;
}

/// A segment that can be read.
pub struct Published<R = OpenRails> {
    /// Tells readers of the rails, and makes the producer's ends of lanes.
    pub responder: R,
    /// The segment's key on each rail.
    pub keys: RailKeys,
    /// What keeps it readable.
    pub keep: Box<dyn Send + Sync>,
}

impl<R: fmt::Debug> fmt::Debug for Published<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").field("responder", &self.responder).finish_non_exhaustive()
    }
}

/// Rails whose lanes need nothing of the producer: every request is granted.
#[derive(Clone, Debug)]
pub struct OpenRails(pub Rails);

impl Responder for OpenRails {
    type Lane = ();

    fn rails(&self) -> Rails {
        self.0.clone()
    }

    fn accept(&self, _: RailIndex, _: &LaneBlob) -> Result<((), LaneBlob), FabricError> {
        Ok(((), LaneBlob::EMPTY))
    }

    fn release(&self, (): ()) {}
}

/// `count` rails of one kind at one address.
pub(crate) fn describe(
    kind: TransportKind,
    address: [u8; 64],
    bytes_per_sec: u64,
    count: usize,
) -> Result<Rails, TransportError> {
    let rail = |i| RailDescription {
        name: kvrail_session::Name::lossy(&format!("{kind}{i}")),
        kind,
        address: kvrail_session::RailAddress(address),
        nominal_bytes_per_sec: bytes_per_sec,
        numa: None,
        lanes: 0,
    };
    if count == 0 {
        return Err("no rails: give at least one".into());
    }
    Ok(List::new((0..count.min(kvrail_core::id::MAX_RAILS + 1)).map(rail).collect())?)
}

/// Over shared memory: the peers are processes of one host.
pub mod shm {
    use super::*;
    use kvrail_local::shm::{ShmExporter, ShmPeer, ShmProvider};
    use kvrail_session::rails::ShmFabric;

    /// How much may be outstanding on a rail: these are no NICs, and what counts is that a worker has
    /// enough to do while the engine's thread waits for a core (docs/performance.md).
    const RAIL_BYTES: u64 = 1 << 30;

    /// How an engine over these rails behaves best. A page travels in pieces of `chunk_bytes`.
    pub const TUNING: EngineConfig = EngineConfig {
        chunk_bytes: 1 << 20,
        run_bytes: 1 << 20,
        quantum_bytes: 4 << 20,
        signal_bytes: 1 << 20,
        rail_bytes: RAIL_BYTES,
        rail_wrs: 4_096,
        ..EngineConfig::DEFAULT
    };

    /// Rails over shared memory.
    #[derive(Debug)]
    pub struct ShmRails {
        provider: ShmProvider,
        config: local::LocalConfig,
    }

    /// `count` rails, each with a thread that copies.
    ///
    /// # Errors
    ///
    /// 0 rails or more than 16, or a thread that could not be started.
    pub fn rails(count: usize) -> Result<ShmRails, local::LocalStartError> {
        let config = config(count);
        Ok(ShmRails { provider: ShmProvider::start(config)?, config })
    }

    impl Network for ShmRails {
        type Provider = ShmProvider;
        type Line = ShmPeer;
        type Dialer = ShmFabric;
        type Plan = local::LocalConfig;
        const LABEL: &'static str = "shm";

        fn tuning(&self) -> EngineConfig {
            TUNING
        }

        fn split(self) -> (ShmProvider, local::LocalConfig) {
            (self.provider, self.config)
        }

        fn dialer(plan: &local::LocalConfig) -> ShmFabric {
            ShmFabric::new(plan)
        }

        fn depth(_: &Self::Line) -> u32 {
            DEPTH
        }
    }

    /// Publishes over shared memory: see [`publish`].
    #[derive(Clone, Copy, Debug)]
    pub struct ShmPublish {
        rails: usize,
    }

    /// As `rails` rails. Readers that have as many are spread evenly; it costs nothing here.
    #[must_use]
    pub const fn publish(rails: usize) -> ShmPublish {
        ShmPublish { rails }
    }

    // SAFETY: the exporter hands the file out to be mapped for reading, and touches no byte itself.
    unsafe impl Publish for ShmPublish {
        type Responder = OpenRails;

        fn publish(self, segment: Arc<Segment>) -> Result<Published, TransportError> {
            let exporter = ShmExporter::start(vec![segment])?;
            let nominal = local::LocalConfig::default().nominal_bytes_per_sec;
            let rails = describe(TransportKind::Shm, exporter.address().to_bytes(), nominal, self.rails)?;
            let keys = [exporter.regions()[0].rkey; MAX_RAILS];
            Ok(Published { responder: OpenRails(rails), keys, keep: Box::new(exporter) })
        }
    }
}

/// Over TCP: works wherever there is a network, and says nothing about how fast rails are.
pub mod tcp {
    use super::*;
    use kvrail_local::tcp::{TcpConnection, TcpExport, TcpProvider, TcpServer};
    use kvrail_session::rails::TcpFabric;

    /// Rails over TCP. Functional only.
    #[derive(Debug)]
    pub struct TcpRails {
        provider: TcpProvider,
        config: local::LocalConfig,
    }

    /// `count` rails, each with a thread that carries out one READ at a time.
    ///
    /// # Errors
    ///
    /// 0 rails or more than 16, or a thread that could not be started.
    pub fn rails(count: usize) -> Result<TcpRails, local::LocalStartError> {
        let config = config(count);
        Ok(TcpRails { provider: TcpProvider::start(config)?, config })
    }

    impl Network for TcpRails {
        type Provider = TcpProvider;
        type Line = TcpConnection;
        type Dialer = TcpFabric;
        type Plan = local::LocalConfig;
        const LABEL: &'static str = "tcp (functional only)";

        fn tuning(&self) -> EngineConfig {
            // A READ that waits for the network is no stall.
            EngineConfig { stall: kvrail_core::time::Nanos::from_secs(15), ..EngineConfig::DEFAULT }
        }

        fn split(self) -> (TcpProvider, local::LocalConfig) {
            (self.provider, self.config)
        }

        fn dialer(plan: &local::LocalConfig) -> TcpFabric {
            TcpFabric::new(plan)
        }

        fn depth(_: &Self::Line) -> u32 {
            DEPTH
        }
    }

    /// Publishes over TCP: see [`publish`].
    #[derive(Clone, Copy, Debug)]
    pub struct TcpPublish {
        ip: IpAddr,
        rails: usize,
    }

    /// As `rails` rails, at a port of the system's choice of this host's address `ip`.
    #[must_use]
    pub const fn publish(ip: IpAddr, rails: usize) -> TcpPublish {
        TcpPublish { ip, rails }
    }

    // SAFETY: the server's threads let the kernel send from the segment, and nothing else.
    unsafe impl Publish for TcpPublish {
        type Responder = OpenRails;

        fn publish(self, segment: Arc<Segment>) -> Result<Published, TransportError> {
            let server = TcpServer::start((self.ip, 0).into(), vec![TcpExport::segment(segment)])?;
            let rails = describe(TransportKind::Tcp, server.address().to_bytes(), 1_000_000_000, self.rails)?;
            let keys = [server.regions()[0].rkey; MAX_RAILS];
            Ok(Published { responder: OpenRails(rails), keys, keep: Box::new(server) })
        }
    }
}

/// Entries of a lane's send queue, the drain's included: the depth of a reader's storage.
pub(crate) const DEPTH: u32 = 128;

fn config(rails: usize) -> local::LocalConfig {
    local::LocalConfig { rails, sq_entries: DEPTH - 1, ..local::LocalConfig::default() }
}
