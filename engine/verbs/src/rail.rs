//! A rail: an opened port with its protection domain and its completion queue.
#![allow(unsafe_code, reason = "libibverbs")]

use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kvrail_core::provider::RailInfo;
use rdma_mummy_sys as sys;

use crate::config::Config;
use crate::cq::{Channel, Cq};
use crate::device::{self, Context, Driver};
use crate::error::{RailError, Unreachable};
use crate::gid::{self, Gid, GidKind, LocalGid};
use crate::port::{self, PortInfo};
use crate::sysfs;
use crate::wire::{LinkLayer, MAX_ADDRESSES, Mtu, RailEnd};

/// What a rail is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// READs are posted here: a completion queue of full length with a channel to sleep on.
    Reader,
    /// Peers read from here: no completion ever comes.
    Producer,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reader => "reader",
            Self::Producer => "producer",
        })
    }
}

/// A port in use. Shared by whatever is made of it; closed when the last of that is gone.
pub struct Rail {
    // In the order in which they are destroyed: each is made of those below it.
    cq: Cq,
    channel: Option<Channel>,
    domain: Domain,
    context: Context,
    port: u8,
    name: String,
    numa: Option<u8>,
    info: PortInfo,
    config: Config,
    side: Side,
    /// An engine has it, or has had it.
    driven: AtomicBool,
}

/// A protection domain, and what QPs are made in: a parent domain with a thread domain of its own where the device
/// has such, which spares the lock around every post.
struct Domain {
    context: NonNull<sys::ibv_context>,
    pd: NonNull<sys::ibv_pd>,
    parent: Option<(NonNull<sys::ibv_pd>, NonNull<sys::ibv_td>)>,
}

// SAFETY: libibverbs allows its objects to be used from any thread; what must not be used by two at a time
// (the QPs of a thread domain, posted to) is guarded by their owners.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Domain {
    fn new(context: &Context, own_thread: bool) -> Result<Self, RailError> {
        // SAFETY: an open context.
        let pd = unsafe { sys::ibv_alloc_pd(context.as_ptr()) };
        let pd = context.some("ibv_alloc_pd", pd)?;
        let mut this = Self { context: context.raw(), pd, parent: None };
        if own_thread {
            this.parent = this.own();
        }
        Ok(this)
    }

    /// A parent domain; `None` where the device has none, which costs a lock that nobody contends for.
    fn own(&self) -> Option<(NonNull<sys::ibv_pd>, NonNull<sys::ibv_td>)> {
        let mut init = sys::ibv_td_init_attr { comp_mask: 0 };
        // SAFETY: an open context, and a local.
        let td = NonNull::new(unsafe { sys::ibv_alloc_td(self.context.as_ptr(), &raw mut init) })?;
        let mut init = sys::ibv_parent_domain_init_attr {
            pd: self.pd.as_ptr(),
            td: td.as_ptr(),
            comp_mask: 0,
            alloc: None,
            free: None,
            pd_context: ptr::null_mut(),
        };
        // SAFETY: an open context, and a local that names a PD and a TD of it.
        let parent = unsafe { sys::ibv_alloc_parent_domain(self.context.as_ptr(), &raw mut init) };
        match NonNull::new(parent) {
            Some(parent) => Some((parent, td)),
            None => {
                // SAFETY: allocated just now, and in no parent domain.
                unsafe { sys::ibv_dealloc_td(td.as_ptr()) };
                None
            }
        }
    }

    /// What QPs are made in.
    fn for_qps(&self) -> *mut sys::ibv_pd {
        self.parent.map_or(self.pd, |(parent, _)| parent).as_ptr()
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        if let Some((parent, td)) = self.parent {
            // SAFETY: allocated in `own`; the QPs made in it hold an Arc of the rail, so they are gone.
            unsafe { sys::ibv_dealloc_pd(parent.as_ptr()) };
            // SAFETY: allocated in `own`; the parent domain that it was in is gone.
            unsafe { sys::ibv_dealloc_td(td.as_ptr()) };
        }
        // SAFETY: allocated in `new`; MRs and QPs hold an Arc of the rail, so they are gone.
        let errno = unsafe { sys::ibv_dealloc_pd(self.pd.as_ptr()) };
        if errno != 0 {
            tracing::warn!(errno, "a protection domain was not released");
        }
    }
}

/// `mlx5_0`, or `mlx5_0:2` for a port other than the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RailName {
    /// The device.
    pub device: String,
    /// Its port, from 1.
    pub port: u8,
}

impl std::str::FromStr for RailName {
    type Err = RailError;

    fn from_str(text: &str) -> Result<Self, RailError> {
        let bad = || RailError::Name(text.chars().take(100).collect());
        let (device, port) = match text.split_once(':') {
            Some((device, port)) => (device, port.parse().ok().filter(|&p| p > 0).ok_or_else(bad)?),
            None => (text, 1),
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if device.is_empty() || device.starts_with('.') || !device.chars().all(legal) {
            return Err(bad());
        }
        Ok(Self { device: device.into(), port })
    }
}

impl fmt::Display for RailName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            1 => f.write_str(&self.device),
            port => write!(f, "{}:{port}", self.device),
        }
    }
}

/// Opens the ports named by `spec`: `auto` for all that can be used, or names with commas between
/// (`mlx5_0,mlx5_1:2`).
///
/// # Errors
///
/// A port that was named cannot be used; or, of `auto`, none can, and why each cannot.
pub fn open(spec: &str, config: Config, side: Side) -> Result<Vec<Arc<Rail>>, RailError> {
    let rails = if spec == "auto" {
        open_all(config, side)?
    } else {
        let names = spec.split(',').map(|name| name.trim().parse()).collect::<Result<Vec<RailName>, _>>()?;
        if names.len() > kvrail_core::id::MAX_RAILS {
            return Err(RailError::Count(names.len()));
        }
        names.iter().map(|name| Rail::open(name, config, side)).collect::<Result<_, _>>()?
    };
    Ok(rails.into_iter().map(Arc::new).collect())
}

fn open_all(config: Config, side: Side) -> Result<Vec<Rail>, RailError> {
    let (mut rails, mut refused) = (Vec::new(), Vec::new());
    for device in device::devices()? {
        let ports = match Context::open(&device) {
            Ok(context) => context.caps.ports,
            Err(error) => {
                tracing::warn!(%device, %error, "not used");
                refused.push(error.to_string());
                continue;
            }
        };
        for port in 1..=ports {
            let name = RailName { device: device.clone(), port };
            if rails.len() == kvrail_core::id::MAX_RAILS {
                tracing::warn!(%name, "not used: 16 rails are the most");
                continue;
            }
            match Rail::open(&name, config, side) {
                Ok(rail) => rails.push(rail),
                Err(error) => {
                    tracing::info!(%name, %error, "not used");
                    refused.push(error.to_string());
                }
            }
        }
    }
    if rails.is_empty() { Err(RailError::NoUsablePort(refused.join("; "))) } else { Ok(rails) }
}

impl Rail {
    /// Opens a port. Logs what it is, which address it got and why, and what the device could not do.
    ///
    /// # Errors
    ///
    /// What is missing, and what to do about it.
    pub fn open(name: &RailName, config: Config, side: Side) -> Result<Self, RailError> {
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
        let cq = Cq::new(&context, channel.as_ref(), entries)?;
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
            own_thread_domain = domain.parent.is_some(),
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

    /// Has it drive an engine, the only one.
    pub(crate) fn drive(&self) -> Result<(), RailError> {
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

    /// What drives it.
    #[must_use]
    pub const fn driver(&self) -> Driver {
        self.context.driver
    }

    /// As the scheduler sees it.
    #[must_use]
    pub fn info(&self) -> RailInfo {
        RailInfo {
            nominal_bytes_per_sec: self.info.bytes_per_sec(),
            numa: self.numa,
            cq_entries: self.cq.entries(),
        }
    }

    /// What it was set up with.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What it is used for.
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

    pub(crate) const fn cq(&self) -> &Cq {
        &self.cq
    }

    pub(crate) const fn channel(&self) -> Option<&Channel> {
        self.channel.as_ref()
    }

    /// What memory is registered in.
    pub(crate) fn pd(&self) -> *mut sys::ibv_pd {
        self.domain.pd.as_ptr()
    }

    /// What QPs are made in.
    pub(crate) fn qp_domain(&self) -> *mut sys::ibv_pd {
        self.domain.for_qps()
    }

    /// Its addresses now: they come and go with the netdev's.
    pub(crate) fn local(&self) -> Result<Local, RailError> {
        let selection = port::gids(&self.context, self.port, &self.config)?;
        let info = port::query(&self.context, self.port)?;
        if !info.active {
            let device = self.context.name.clone();
            return Err(RailError::PortDown { device, port: self.port, state: info.state });
        }
        let pkey = port::pkey(&self.context, self.port, self.config.pkey_index)?;
        let mtu = self.config.mtu.map_or(info.mtu, |most| most.min(info.mtu));
        Ok(Local { info, mtu, pkey, gids: selection.chosen })
    }

    /// Where it is, to be told to peers.
    ///
    /// # Errors
    ///
    /// It has lost its address, or its port is down.
    pub fn end(&self) -> Result<RailEnd, RailError> {
        Ok(self.local()?.end())
    }

    /// READs in flight per QP: as the reader, or as the one that is read from.
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

    /// Pieces that one READ may land in.
    pub(crate) fn sges(&self) -> u32 {
        self.config.sges.min(self.context.caps.max_sge).max(1)
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

/// A port's addresses and limits as they are now.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) info: PortInfo,
    pub(crate) mtu: Mtu,
    pub(crate) pkey: u16,
    pub(crate) gids: Vec<LocalGid>,
}

impl Local {
    pub(crate) fn end(&self) -> RailEnd {
        RailEnd {
            link: self.info.link,
            needs_grh: self.info.needs_grh,
            lid: if self.info.link == LinkLayer::InfiniBand { self.info.lid } else { 0 },
            pkey: self.pkey,
            addresses: self.gids.iter().take(MAX_ADDRESSES).map(|gid| (gid.kind, gid.gid)).collect(),
        }
    }

    /// The address to use towards a peer's rail.
    pub(crate) fn towards(&self, remote: &RailEnd) -> Result<LocalGid, Unreachable> {
        let chosen = reach(&self.end(), remote)?;
        let found = self.gids.iter().find(|gid| gid.kind == chosen.0).copied();
        found.ok_or(Unreachable::Kinds { ours: Vec::new(), theirs: vec![chosen.0] })
    }

    /// The address of one kind.
    pub(crate) fn of_kind(&self, kind: GidKind) -> Option<LocalGid> {
        self.gids.iter().find(|gid| gid.kind == kind).copied()
    }
}

/// Whether two rails can talk as far as their addresses tell, and by which kind, to which address.
///
/// # Errors
///
/// Why they cannot.
pub fn reach(ours: &RailEnd, theirs: &RailEnd) -> Result<(GidKind, Gid), Unreachable> {
    if ours.link != theirs.link {
        return Err(Unreachable::LinkLayer { ours: ours.link, theirs: theirs.link });
    }
    // The top bit tells full from limited members; at least one must be a full one.
    let (a, b) = (ours.pkey, theirs.pkey);
    if (a ^ b) & 0x7FFF != 0 || (a | b) & 0x8000 == 0 {
        return Err(Unreachable::Partition { ours: a, theirs: b });
    }
    let local: Vec<_> = ours.addresses.iter().map(|&(kind, gid)| LocalGid { kind, gid, index: 0 }).collect();
    match gid::common(&local, &theirs.addresses) {
        Some((our, gid)) => Ok((our.kind, gid)),
        None => Err(Unreachable::Kinds {
            ours: ours.addresses.iter().map(|a| a.0).collect(),
            theirs: theirs.addresses.iter().map(|a| a.0).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rail_names() {
        let name = |text: &str| text.parse::<RailName>().map(|n| (n.device.clone(), n.port, n.to_string()));
        assert_eq!(name("mlx5_0").unwrap(), ("mlx5_0".into(), 1, "mlx5_0".into()));
        assert_eq!(name("mlx5_bond-0:2").unwrap(), ("mlx5_bond-0".into(), 2, "mlx5_bond-0:2".into()));
        for bad in ["", ":1", "mlx5_0:", "mlx5_0:0", "mlx5_0:x", "mlx5_0:256", "../../etc", "a b", "a/b"] {
            let error = name(bad).unwrap_err().to_string();
            assert!(error.contains(bad), "{error}");
        }
    }

    fn rail(link: LinkLayer, pkey: u16, addresses: &[(GidKind, &str)]) -> RailEnd {
        let gid = |text: &str| Gid(text.parse::<std::net::Ipv6Addr>().unwrap().octets());
        let addresses = addresses.iter().map(|&(kind, text)| (kind, gid(text))).collect();
        RailEnd { link, needs_grh: false, lid: 1, pkey, addresses }
    }

    #[test]
    fn reachability_follows_link_partition_and_address() {
        use GidKind::{RoceV2Ipv4, RoceV2Ipv6, RoceV2LinkLocal};
        use LinkLayer::{Ethernet, InfiniBand};
        let v4 = rail(Ethernet, 0xFFFF, &[(RoceV2Ipv4, "::ffff:10.0.0.1"), (RoceV2LinkLocal, "fe80::1")]);
        let v6 = rail(Ethernet, 0xFFFF, &[(RoceV2Ipv6, "fd00::1")]);
        let both = rail(Ethernet, 0x7FFF, &[(RoceV2Ipv6, "fd00::2"), (RoceV2Ipv4, "::ffff:10.0.0.2")]);
        let ib = rail(InfiniBand, 0xFFFF, &[(GidKind::InfiniBand, "fe80::2")]);
        let other = rail(InfiniBand, 0x8001, &[(GidKind::InfiniBand, "fe80::3")]);
        assert_eq!(reach(&v4, &both).unwrap().0, RoceV2Ipv4);
        assert_eq!(reach(&v6, &both).unwrap().0, RoceV2Ipv6);
        assert!(matches!(reach(&v4, &v6), Err(Unreachable::Kinds { .. })));
        assert!(matches!(reach(&v4, &ib), Err(Unreachable::LinkLayer { .. })));
        assert!(matches!(reach(&ib, &other), Err(Unreachable::Partition { .. })));
        assert!(reach(&ib, &ib).is_ok());
        // Two limited members of a partition do not talk.
        assert!(matches!(reach(&both, &both), Err(Unreachable::Partition { .. })));
    }
}
