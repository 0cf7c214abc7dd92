//! An opened port, with the domain and the completion queue that were made on it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use kvrail_core::provider::RailInfo;
use rdma_mummy_sys as sys;

use super::domain::Domain;
use super::{LocalPort, PortName, Side};
use crate::config::VerbsConfig;
use crate::cq::{Channel, CqHandle};
use crate::device::context::Context;
use crate::device::port::{self, PortInfo};
use crate::device::{Driver, sysfs};
use crate::error::RailError;
use crate::wire::{LinkLayer, RailEnd};

/// An opened port. QPs, regions and lanes hold an `Arc` of it, and it closes when the last of them
/// is gone.
pub struct Rail {
    // The fields are dropped in this order: each was made from fields below it.
    cq: CqHandle,
    channel: Option<Channel>,
    domain: Domain,
    context: Context,
    port: u8,
    name: String,
    numa: Option<u8>,
    info: PortInfo,
    config: VerbsConfig,
    side: Side,
    /// An engine drives it, or has driven it.
    driven: AtomicBool,
}

impl Rail {
    /// Opens a port. Logs which addresses it has and why, and what the device cannot do.
    ///
    /// # Errors
    ///
    /// The port, its address or the library is missing: the error names what, and what to do.
    pub fn open(name: &PortName, config: VerbsConfig, side: Side) -> Result<Self, RailError> {
        let context = Context::open(&name.device)?;
        let (device, port) = (name.device.clone(), name.port);
        if port == 0 || port > context.caps.ports {
            return Err(RailError::NoSuchPort { device, port, ports: context.caps.ports });
        }
        let info = port::query(&context, port)?;
        if !info.active {
            return Err(RailError::PortDown { device, port, state: info.state });
        }
        if info.link == LinkLayer::InfiniBand && !(1..0xC000).contains(&info.lid) {
            return Err(RailError::NoLid { device, port });
        }
        port::pkey(&context, port, config.pkey_index)?;
        let selection = port::gids(&context, port, &config)?;
        let domain = Domain::new(&context, side == Side::Reader)?;
        let (channel, entries) = match side {
            Side::Reader => (Some(Channel::new(&context)?), config.cq_entries.min(context.caps.max_cqe)),
            Side::Producer => (None, 1),
        };
        let cq = CqHandle::new(&context, channel.as_ref(), entries)?;
        let numa = sysfs::numa(&context.name);
        for (index, why) in &selection.rejected {
            tracing::debug!(rail = %name, index, %why, "GID not used");
        }
        tracing::info!(
            rail = %name,
            driver = ?context.driver,
            link = %info.link,
            gids = %selection.chosen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            lid = info.lid,
            mtu = info.mtu.bytes(),
            gbit_per_sec = info.bits_per_sec / 1_000_000_000,
            numa,
            own_thread_domain = domain.has_thread_domain(),
            cq_entries = cq.entries(),
            "rail"
        );
        if let Some(caveat) = context.driver.caveat() {
            tracing::info!(rail = %name, "{caveat}");
        }
        let name = name.to_string();
        let driven = AtomicBool::new(false);
        Ok(Self { cq, channel, domain, context, port, name, numa, info, config, side, driven })
    }

    /// Takes the rail for an engine. A rail drives one engine in its life.
    pub(crate) fn claim(&self) -> Result<(), RailError> {
        if self.driven.swap(true, Ordering::Relaxed) {
            Err(RailError::InUse(self.name.clone()))
        } else {
            Ok(())
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which kind of driver its device has.
    #[must_use]
    pub const fn driver(&self) -> Driver {
        self.context.driver
    }

    /// What the engine's scheduler needs to know of it.
    #[must_use]
    pub fn info(&self) -> RailInfo {
        RailInfo {
            nominal_bytes_per_sec: self.info.bytes_per_sec(),
            numa: self.numa,
            cq_entries: self.cq.entries(),
        }
    }

    /// The configuration that it was opened with.
    #[must_use]
    pub const fn config(&self) -> &VerbsConfig {
        &self.config
    }

    /// The side that it was opened for.
    #[must_use]
    pub const fn side(&self) -> Side {
        self.side
    }

    /// Its device's name.
    pub(crate) fn device(&self) -> &str {
        &self.context.name
    }

    pub(crate) const fn port(&self) -> u8 {
        self.port
    }

    pub(crate) const fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) const fn cq(&self) -> &CqHandle {
        &self.cq
    }

    pub(crate) const fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// The domain that memory is registered in.
    pub(crate) fn pd(&self) -> *mut sys::ibv_pd {
        self.domain.pd()
    }

    /// Whether QPs of this rail share a doorbell register that no other QP uses.
    #[cfg(feature = "mlx5")]
    pub(crate) const fn has_thread_domain(&self) -> bool {
        self.domain.has_thread_domain()
    }

    /// The domain that QPs are made in.
    pub(crate) fn qp_domain(&self) -> *mut sys::ibv_pd {
        self.domain.for_qps()
    }

    /// Its addresses and limits at this moment: they change with the netdev's.
    pub(crate) fn local(&self) -> Result<LocalPort, RailError> {
        let selection = port::gids(&self.context, self.port, &self.config)?;
        let info = port::query(&self.context, self.port)?;
        if !info.active {
            let device = self.context.name.clone();
            return Err(RailError::PortDown { device, port: self.port, state: info.state });
        }
        let pkey = port::pkey(&self.context, self.port, self.config.pkey_index)?;
        let mtu = self.config.mtu.map_or(info.mtu, |most| most.min(info.mtu));
        Ok(LocalPort { info, mtu, pkey, gids: selection.chosen })
    }

    /// Its addresses, for peers.
    ///
    /// # Errors
    ///
    /// It has lost its address, or its port is down.
    pub fn end(&self) -> Result<RailEnd, RailError> {
        Ok(self.local()?.end())
    }

    /// READs in flight per QP: those that a reader may have, or those that a producer answers.
    pub(crate) fn read_depth(&self) -> u8 {
        let caps = &self.context.caps;
        let device = match self.side {
            Side::Reader => caps.init_depth,
            Side::Producer => caps.dest_depth,
        };
        self.config.read_depth.map_or(device, |most| most.min(device)).max(1)
    }

    /// Send queue entries of a lane.
    pub(crate) fn depth(&self) -> u32 {
        self.config.sq_entries.min(self.context.caps.max_qp_wr)
    }

    /// The most bytes of one memory region (`max_mr_size`), or fewer by the configuration. A range
    /// is refused if the pages of the host that have its bytes are longer.
    #[must_use]
    pub fn max_mr_bytes(&self) -> u64 {
        // A device that does not say has no limit that could be compared.
        let device = Some(self.context.caps.max_mr_size).filter(|&bytes| bytes > 0);
        device.unwrap_or(u64::MAX).min(self.config.max_mr_bytes)
    }

    /// The most pieces of memory that one READ may write.
    pub(crate) fn sges(&self) -> u32 {
        self.config.sges.min(self.context.caps.max_sge).max(1)
    }

    /// How many bytes more of one READ cost as much as another READ. On hardware a READ takes the
    /// time of some 500 bytes of a 400 Gb/s line, when it is one of many. In SoftRoCE it takes some
    /// 11,300 instructions, and a byte 7 (docs/performance.md).
    pub(crate) fn read_overhead(&self) -> u32 {
        match self.context.driver {
            Driver::SoftRoce => 1_536,
            _ => 512,
        }
    }
}

impl fmt::Debug for Rail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, side, info, .. } = self;
        f.debug_struct("Rail")
            .field("name", name)
            .field("side", side)
            .field("info", info)
            .finish_non_exhaustive()
    }
}
