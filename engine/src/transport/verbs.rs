//! The transport over RDMA, for RoCE and InfiniBand, by libibverbs.
#![allow(unsafe_code, reason = "exported memory is not written to")]

use std::sync::Arc;

use kvrail_core::config::EngineConfig;
use kvrail_core::id::{MAX_RAILS, RailIndex};
use kvrail_host::exported::{Backing, ExportedMemory};
use kvrail_host::numa;
use kvrail_session::{
    LaneAcceptor, LaneBlob, LaneDialer, LaneEndError, Name, NothingInCommon, RailAddress, RailDescription,
    RailList, RailPair, TransportKind,
};
use kvrail_verbs::pairing::{self, Offered};
use kvrail_verbs::wire::RailEnd;
use kvrail_verbs::{
    AcceptedLane, PendingLane, QpAcceptor, QpDialer, Rail, RailError, Rights, Side, UnopenedLane, Verbs,
    VerbsLaneError, VerbsRegion, rail,
};

use super::{Export, Exporter, PublisherTransport, ReaderTransport, TransportError};

pub use kvrail_verbs::rail::Affinity;
pub use kvrail_verbs::wire::Mtu;
pub use kvrail_verbs::{Driver, EncoderChoice, VerbsConfig, VerbsStartError, devices, fork_safety};

/// Rails over RDMA, for a reader.
#[derive(Debug)]
pub struct VerbsRails {
    provider: Verbs,
    config: VerbsConfig,
}

/// The rails named by `spec`, an [`Affinity`] as text, with [`config`]: `auto` for the ports near
/// this thread, `all`, `numa:1` for those near memory or a GPU of that node, or
/// `mlx5_0,mlx5_1:2`.
///
/// # Errors
///
/// A device, a port or a right is missing; the error says which, and what to do.
pub fn rails(spec: &str) -> Result<VerbsRails, VerbsStartError> {
    rails_with(spec, config())
}

/// The rails that `affinity` chooses, with [`config`]: `Affinity::Numa` of a GPU's node, for
/// instance.
///
/// # Errors
///
/// As [`rails`].
pub fn rails_by(affinity: &Affinity) -> Result<VerbsRails, VerbsStartError> {
    rails_with(&affinity.to_string(), config())
}

/// As [`rails`], with another configuration. Begin from [`config`]: a reader's lanes use no more
/// send queue entries than its storage has room for.
///
/// # Errors
///
/// A device, a port or a right is missing; the error says which, and what to do.
pub fn rails_with(spec: &str, config: VerbsConfig) -> Result<VerbsRails, VerbsStartError> {
    Ok(VerbsRails { provider: Verbs::open_rails(spec, config)?, config })
}

/// The configuration of [`rails`] and [`publish`].
#[must_use]
pub const fn config() -> VerbsConfig {
    VerbsConfig { sq_entries: super::LANE_DEPTH, ..VerbsConfig::DEFAULT }
}

impl VerbsRails {
    fn ports(&self) -> Vec<Arc<Rail>> {
        self.provider.ports()
    }
}

impl ReaderTransport for VerbsRails {
    type Provider = Verbs;
    type UnopenedLane = UnopenedLane;
    type Dialer = VerbsDialer;
    type DialerSeed = QpDialer;
    const LABEL: &'static str = "verbs";

    /// Names software devices: their numbers say nothing about hardware.
    fn label(&self) -> String {
        let mut caveats: Vec<_> = self.ports().iter().filter_map(|rail| rail.driver().caveat()).collect();
        caveats.dedup();
        if caveats.is_empty() { Self::LABEL.into() } else { format!("verbs on {}", caveats.join(", ")) }
    }

    fn name(&self, rail: usize) -> String {
        self.ports().get(rail).map_or_else(String::new, |rail| rail.name().into())
    }

    fn engine_config(&self) -> EngineConfig {
        EngineConfig::DEFAULT
    }

    fn split(self) -> (Verbs, QpDialer) {
        tracing::debug!(config = ?self.config, "verbs");
        let dialer = QpDialer::new(self.provider.ports());
        (self.provider, dialer)
    }

    fn dialer(seed: &QpDialer) -> VerbsDialer {
        VerbsDialer(seed.clone())
    }

    fn depth(lane: &UnopenedLane) -> u32 {
        lane.depth()
    }
}

/// Makes a reader's ends of lanes.
#[derive(Debug)]
pub struct VerbsDialer(QpDialer);

/// The description of a rail for a peer. Its address is empty if the rail is down.
fn describe(rail: &Rail) -> RailDescription {
    let address = match rail.end() {
        Ok(end) => end.encode(),
        Err(error) => {
            tracing::warn!(rail = rail.name(), %error, "no address for a rail");
            [0; 64]
        }
    };
    let info = rail.info();
    RailDescription {
        name: Name::lossy(rail.name()),
        kind: TransportKind::Verbs,
        address: RailAddress(address),
        nominal_bytes_per_sec: info.nominal_bytes_per_sec,
        numa: info.numa,
        lanes: 0,
    }
}

fn describe_all(rails: &[Arc<Rail>]) -> RailList {
    rails.iter().take(MAX_RAILS).map(|rail| describe(rail)).collect()
}

/// A producer's rails, as the pairing of rails takes them.
fn offered(producer: &[RailDescription]) -> Vec<Offered> {
    let decode = |rail: &RailDescription| {
        if rail.kind != TransportKind::Verbs {
            return None;
        }
        RailEnd::decode(&rail.address.0)
            .inspect_err(
                |error| tracing::warn!(rail = %rail.name, %error, "not used: a rail of the producer"),
            )
            .ok()
    };
    producer.iter().map(|rail| (decode(rail), rail.lanes)).collect()
}

impl LaneDialer for VerbsDialer {
    type UnopenedLane = UnopenedLane;
    type Pending = PendingLane;

    fn rails(&self) -> RailList {
        describe_all(self.0.rails())
    }

    fn pair(&self, producer: &[RailDescription]) -> Result<Vec<RailPair>, NothingInCommon> {
        let ours: Vec<_> = self.0.rails().iter().map(|rail| rail.end().ok()).collect();
        let our_names: Vec<_> = self.0.rails().iter().map(|rail| rail.name()).collect();
        let their_names: Vec<_> = producer.iter().map(|rail| rail.name.as_str()).collect();
        let pairs = pairing::pair_named((&ours, &our_names), (&offered(producer), &their_names));
        if pairs.is_empty() {
            return Err(NothingInCommon::between(&self.rails(), producer));
        }
        let pairs = pairs.into_iter().map(|pair| {
            tracing::info!(
                rail = self.0.rails()[pair.ours].name(),
                remote = %producer[pair.theirs].name,
                "rails paired"
            );
            // Both have at most 16.
            RailPair { rail: RailIndex(pair.ours as u8), remote_rail: RailIndex(pair.theirs as u8) }
        });
        Ok(pairs.collect())
    }

    fn instead(
        &self,
        rail: RailIndex,
        tried: &[RailIndex],
        producer: &[RailDescription],
    ) -> Option<RailIndex> {
        let our = self.0.rails().get(rail.get())?.end().ok()?;
        let offered = offered(producer);
        let load: Vec<u64> = offered.iter().map(|&(_, lanes)| lanes.into()).collect();
        let candidates = pairing::nearest(&our, &offered, &load);
        candidates.into_iter().map(|at| RailIndex(at as u8)).find(|at| !tried.contains(at))
    }

    fn prepare(
        &mut self,
        rail: RailIndex,
        remote: &RailDescription,
    ) -> Result<(PendingLane, LaneBlob), LaneEndError> {
        let failed = |error: VerbsLaneError| LaneEndError::new(rail, error);
        if remote.kind != TransportKind::Verbs {
            let text = format!("the producer's rail {} is {}, not verbs", remote.name, remote.kind);
            return Err(LaneEndError::new(rail, text));
        }
        let (pending, end) = self.0.prepare(rail.get(), &remote.address.0).map_err(failed)?;
        Ok((pending, LaneBlob(end)))
    }

    fn connect(
        &mut self,
        pending: PendingLane,
        _: &RailDescription,
        remote: &LaneBlob,
    ) -> Result<UnopenedLane, LaneEndError> {
        let rail = pending.rail_of(self.0.rails());
        self.0.connect(pending, &remote.0).map_err(|error| LaneEndError::new(RailIndex(rail as u8), error))
    }
}

/// Publishes over RDMA: see [`publish`].
#[derive(Debug)]
pub struct VerbsPublish {
    rails: Vec<Arc<Rail>>,
}

/// Publishes over the rails named by `spec`, as for [`rails`]; `auto` is every port that can be
/// used, since a reader chooses among them.
///
/// # Errors
///
/// A device, a port or a right is missing; the error says which, and what to do.
pub fn publish(spec: &str) -> Result<VerbsPublish, VerbsStartError> {
    publish_with(spec, config())
}

/// As [`publish`], with another configuration.
///
/// # Errors
///
/// A device, a port or a right is missing; the error says which, and what to do.
pub fn publish_with(spec: &str, config: VerbsConfig) -> Result<VerbsPublish, VerbsStartError> {
    config.check()?;
    Ok(VerbsPublish { rails: rail::open(spec, config, Side::Producer)? })
}

// SAFETY: memory is registered for remote READ alone: NICs read from it, and nothing of this
// process touches it. A registration that is released is read by no NIC.
unsafe impl PublisherTransport for VerbsPublish {
    type Acceptor = VerbsAcceptor;

    fn start(self) -> Result<(VerbsAcceptor, Box<dyn Exporter>), TransportError> {
        let acceptor = VerbsAcceptor::new(self.rails.clone())?;
        Ok((acceptor, Box::new(self)))
    }
}

impl Exporter for VerbsPublish {
    fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError> {
        let (range, rights) = (memory.range(), Rights::RemoteRead);
        let region = match memory.backing() {
            &Backing::Dmabuf { dmabuf, .. } => VerbsRegion::from_dmabuf(&self.rails, range, dmabuf, rights)?,
            // Mapped memory, of a file too, goes by its addresses, and so does peer memory.
            _ => VerbsRegion::new(&self.rails, range, rights)?,
        };
        let keys = region.keys();
        // Dropped in this order: the registration, then its memory.
        Ok(Export { keys, keep: Box::new((region, memory)) })
    }

    fn max_bytes(&self) -> u64 {
        self.rails.iter().map(|rail| rail.max_mr_bytes()).min().unwrap_or(u64::MAX)
    }

    fn numa_node(&self) -> Option<u8> {
        numa::common(self.rails.iter().map(|rail| rail.info().numa))
    }

    fn parallel(&self) -> usize {
        self.rails.len()
    }
}

/// Makes a producer's ends of lanes.
#[derive(Debug)]
pub struct VerbsAcceptor {
    acceptor: QpAcceptor,
    rails: RailList,
}

impl VerbsAcceptor {
    fn new(rails: Vec<Arc<Rail>>) -> Result<Self, RailError> {
        let acceptor = QpAcceptor::new(rails)?;
        let rails = describe_all(acceptor.rails());
        Ok(Self { acceptor, rails })
    }
}

impl LaneAcceptor for VerbsAcceptor {
    type Lane = AcceptedLane;

    fn rails(&self) -> RailList {
        self.rails.clone()
    }

    fn accept(&self, rail: RailIndex, remote: &LaneBlob) -> Result<(AcceptedLane, LaneBlob), LaneEndError> {
        let (lane, end) =
            self.acceptor.accept(rail.get(), &remote.0).map_err(|error| LaneEndError::new(rail, error))?;
        Ok((lane, LaneBlob(end)))
    }

    fn release(&self, lane: AcceptedLane) {
        drop(lane);
    }
}
