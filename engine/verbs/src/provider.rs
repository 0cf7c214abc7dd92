//! The provider: all rails of one engine thread, over libibverbs.
#![allow(unsafe_code, reason = "implements the engine's unsafe trait; the promises are argued at the impl")]

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::id::{LaneId, MAX_RAILS, ProviderId, RailIndex, WrId};
use kvrail_core::provider::{
    DmaBuf, MemoryRange, Provider, ProviderEvent, RailInfo, RailKeys, RegisterError, WaitFor,
};
use kvrail_core::time::Time;
use kvrail_core::verbs_abi::Wc;

use crate::bell::{Bell, Waker};
use crate::config::{Config, ConfigError};
use crate::control::{Control, Order, Told};
use crate::dial::Line;
use crate::error::{Errno, LaneError, RailError};
use crate::lane::{Lane, VerbsPost};
use crate::losses::Losses;
use crate::mr::{Region, RegionError, Rights};
use crate::progress::Progress;
use crate::qp::Handle;
use crate::rail::{self, Rail, Side};
use crate::templates::{CHAIN, Templates};
use crate::wait;

/// Rails over RDMA verbs.
///
/// On the engine's thread `begin`, `read`, `commit` and `poll` make no heap call, take no lock and make no system
/// call of ours; what a provider library does in its `post_send` and `poll_cq` is its own (rxe's doorbell is a
/// system call). QPs are changed and destroyed by a control thread.
pub struct Verbs {
    pub(crate) ports: Vec<Port>,
    templates: Templates,
    pub(crate) progress: Progress,
    pub(crate) control: Control,
    pub(crate) bell: Arc<Bell>,
    pub(crate) losses: Losses,
    id: ProviderId,
    lanes: Vec<Option<Arc<Handle>>>,
    regions: Vec<(RailKeys, Region)>,
}

/// One rail, from the engine's side.
pub(crate) struct Port {
    pub(crate) rail: Arc<Rail>,
    info: RailInfo,
    /// Lanes whose completions may be in the queue: open ones, those being closed, and those that are closed and
    /// whose last words may still lie there.
    lanes: usize,
    /// Of these, the last.
    closed: usize,
    max_lanes: usize,
    /// Completions that were met while falling asleep: `from .. to` of `stash`.
    pub(crate) stash: Box<[Wc]>,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The next completion makes the channel readable.
    pub(crate) armed: bool,
    /// Events taken from the channel and not acknowledged.
    pub(crate) events: u32,
}

impl Port {
    fn new(rail: Arc<Rail>) -> Self {
        let info = rail.info();
        Self {
            info,
            lanes: 0,
            closed: 0,
            max_lanes: (info.cq_entries / rail.depth().max(1)) as usize,
            stash: vec![Wc::default(); info.cq_entries as usize].into_boxed_slice(),
            from: 0,
            to: 0,
            armed: false,
            events: 0,
            rail,
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // A queue with events that nobody has acknowledged cannot be destroyed.
        self.rail.cq().acknowledge(self.events);
    }
}

/// Why an engine cannot have rails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A rail.
    #[error(transparent)]
    Rail(#[from] RailError),
    /// A figure.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Verbs {
    /// Opens the rails named by `spec` (`auto`, or `mlx5_0,mlx5_1:2`) for one engine.
    ///
    /// # Errors
    ///
    /// What is missing, and what to do about it.
    pub fn open_rails(spec: &str, config: Config) -> Result<Self, StartError> {
        config.check()?;
        Ok(Self::start(rail::open(spec, config, Side::Reader)?)?)
    }

    /// Over rails that were opened for reading and drive no other engine.
    ///
    /// # Errors
    ///
    /// None or too many of them, one in use, or no thread.
    pub fn start(rails: Vec<Arc<Rail>>) -> Result<Self, RailError> {
        if rails.is_empty() || rails.len() > MAX_RAILS {
            return Err(RailError::Count(rails.len()));
        }
        if let Some(rail) = rails.iter().find(|rail| rail.side() != Side::Reader) {
            return Err(RailError::WrongSide { rail: rail.name().into(), side: rail.side() });
        }
        let bell = Bell::new()?;
        let ports: Vec<_> = rails.iter().map(|rail| Port::new(Arc::clone(rail))).collect();
        let lanes = ports.iter().map(|port| port.max_lanes).sum();
        let control = Control::start(&rails, lanes, &bell)?;
        Ok(Self {
            ports,
            templates: Templates::new(),
            progress: Progress::new(),
            control,
            bell,
            losses: Losses::default(),
            id: ProviderId::new(),
            lanes: Vec::with_capacity(lanes),
            regions: Vec::new(),
        })
    }

    /// The rails, in order: for a [`Dialer`](crate::Dialer).
    pub fn ports(&self) -> Vec<Arc<Rail>> {
        self.ports.iter().map(|port| Arc::clone(&port.rail)).collect()
    }

    fn keep(
        &mut self,
        range: MemoryRange,
        region: Result<Region, RegionError>,
    ) -> Result<RailKeys, RegisterError> {
        match region {
            Ok(region) => {
                let keys = region.keys();
                self.regions.push((keys, region));
                Ok(keys)
            }
            Err(error) => {
                tracing::error!(%error, "memory is not registered");
                Err(RegisterError { rail: error.rail, range, errno: error.reason.errno() })
            }
        }
    }

    /// Polls a rail's queue into `out`, unless it is broken.
    #[inline]
    fn reap(&mut self, rail: usize, out: &mut [Wc]) -> usize {
        if !self.losses.polls(rail) {
            return 0;
        }
        let port = &mut self.ports[rail];
        match port.rail.cq().poll(out) {
            Ok(n) => {
                if n < out.len() {
                    // Empty: closed lanes have nothing in it any more.
                    port.lanes -= std::mem::take(&mut port.closed);
                }
                n
            }
            Err(_) => {
                self.losses.break_queue(rail);
                0
            }
        }
    }

    /// Polls a rail's queue into its stash, and says what was there.
    pub(crate) fn stash(&mut self, rail: usize) -> crate::progress::Seen {
        let to = self.ports[rail].to;
        let mut stash = std::mem::take(&mut self.ports[rail].stash);
        let n = self.reap(rail, &mut stash[to..]);
        // Rails are at most 16.
        let seen = self.progress.count(RailIndex(rail as u8), &stash[to..to + n]);
        self.ports[rail].stash = stash;
        self.ports[rail].to = to + n;
        seen
    }

    pub(crate) fn has_news(&self) -> bool {
        self.losses.any_untold() || self.control.events.slots() > 0
    }
}

// SAFETY: the promises of `Provider`, by number.
// 1. and 2. A READ carries its descriptor's local range as one sge, or its pieces as several; an RC QP executes
//    READs in order and completes them in order, and a completion is in the queue after its data (IBTA vol. 1, 9.5, 10.8.3; libibverbs' ibv_poll_cq).
// 3. LaneFailed is told after ibv_modify_qp to the error state has succeeded, or for a QP that its device has moved
//    there: from then on wrs are flushed in order, and a flushed wr's completion comes when the device is
//    done with it (IBTA vol. 1, 10.3.1.5 and 10.7.3.1).
// 4. LaneClosed is told after ibv_destroy_qp has succeeded, which waits for the device.
// 5. `drop` destroys every QP that was opened, and aborts the process if one cannot be.
// 6. The driver's bad_wr is the first wr that was not queued (ibv_post_send's contract); where it is null, or none
//    of the chain, the commit counts as unknown.
// 7. A lane carries its id and its provider's: a slot's number means something only where that is
//    this one. A lane is not Clone and is consumed by `close`, so while it is there its slot holds
//    its own QP.
unsafe impl Provider for Verbs {
    const CHAIN: usize = CHAIN;
    type Unopened = Line;
    type Lane = Lane;
    type OpenError = LaneError;
    type Post<'a> = VerbsPost<'a>;
    type Waker = Waker;

    fn rails(&self) -> usize {
        self.ports.len()
    }

    /// # Panics
    ///
    /// When there is no such rail.
    fn rail(&self, rail: RailIndex) -> RailInfo {
        self.ports[rail.get()].info
    }

    fn sges(&self) -> u32 {
        self.ports.iter().map(|port| port.rail.sges()).min().unwrap_or(1)
    }

    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError> {
        let region = Region::new(&self.ports(), range, Rights::LocalWrite);
        self.keep(range, region)
    }

    fn register_dmabuf(&mut self, range: MemoryRange, dmabuf: DmaBuf) -> Result<RailKeys, RegisterError> {
        let region = Region::from_dmabuf(&self.ports(), range, dmabuf, Rights::LocalWrite);
        self.keep(range, region)
    }

    fn deregister(&mut self, range: MemoryRange, keys: &RailKeys) {
        if let Some(at) = self.regions.iter().position(|(k, region)| k == keys && region.range() == range) {
            self.regions.swap_remove(at);
        }
    }

    fn open(&mut self, id: LaneId, rail: RailIndex, line: Line) -> Result<Lane, LaneError> {
        let rails = self.ports.len();
        let port = self.ports.get_mut(rail.get()).filter(|port| Arc::ptr_eq(&port.rail, line.rail()));
        let port = port.ok_or(LaneError::NoSuchRail { rail: rail.0, rails })?;
        if port.lanes >= port.max_lanes {
            return Err(LaneError::RailFull { rail: rail.0, lanes: port.lanes });
        }
        let context = port.rail.context();
        let post_send =
            context.post_send().ok_or_else(|| context.error("ibv_post_send", Errno(libc::EOPNOTSUPP)))?;
        let slot = match self.lanes.iter().position(Option::is_none) {
            Some(slot) => slot,
            None => {
                self.lanes.push(None);
                self.lanes.len() - 1
            }
        };
        let place = u16::try_from(slot).map_err(|_| LaneError::RailFull { rail: rail.0, lanes: slot })?;
        port.lanes += 1;
        let handle = Arc::new(line.into_handle());
        handle.tag().set(id);
        self.progress.begin(WrId::new(id, 0));
        let lane = Lane {
            qp: handle.as_ptr(),
            post_send,
            provider: self.id,
            id,
            rail,
            slot: place,
            depth: port.rail.depth(),
        };
        self.lanes[slot] = Some(handle);
        Ok(lane)
    }

    #[inline]
    unsafe fn begin<'a>(&'a mut self, lane: &'a mut Lane) -> VerbsPost<'a> {
        VerbsPost { posting: self.templates.chain().begin(), lane, progress: &mut self.progress }
    }

    #[inline]
    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        let index = rail.get();
        let Some(port) = self.ports.get_mut(index) else { return 0 };
        if port.from < port.to {
            let n = out.len().min(port.to - port.from);
            out[..n].copy_from_slice(&port.stash[port.from..port.from + n]);
            port.from += n;
            if port.from == port.to {
                (port.from, port.to) = (0, 0);
            }
            return n;
        }
        let n = self.reap(index, out);
        self.progress.count(rail, &out[..n]);
        n
    }

    fn fail(&mut self, lane: &mut Lane) {
        if lane.provider == self.id
            && let Some(Some(handle)) = self.lanes.get(usize::from(lane.slot))
        {
            self.control.order(Order::Fail(lane.id, Arc::clone(handle)));
        }
    }

    fn drain(&mut self, lane: &mut Lane, wr_id: WrId) -> Result<(), i32> {
        if lane.provider != self.id {
            return Err(libc::EINVAL);
        }
        // SAFETY: the lane is this provider's, and not closed, since it is there: its QP is alive.
        unsafe { lane.drain(wr_id) }
    }

    fn close(&mut self, lane: Lane) {
        if lane.provider == self.id
            && let Some(handle) = self.lanes.get_mut(usize::from(lane.slot)).and_then(Option::take)
        {
            self.control.order(Order::Close(lane.id, handle));
        }
    }

    #[inline]
    fn next_event(&mut self) -> Option<ProviderEvent> {
        if let Some(rail) = self.losses.tell() {
            let queue = !self.losses.polls(rail);
            tracing::error!(rail, queue, "the rail is lost: its device is gone, or its queue broken");
            // Rails are at most 16.
            return Some(ProviderEvent::RailDown(RailIndex(rail as u8)));
        }
        loop {
            let Told { event, rail, lost } = self.control.events.pop().ok()?;
            if !self.losses.passes(event, rail, lost) {
                continue;
            }
            if let ProviderEvent::LaneClosed(_) = event {
                self.ports[rail].closed += 1;
            }
            return Some(event);
        }
    }

    fn wait(&mut self, wait: WaitFor) {
        let nanos = wait.timeout().0;
        if nanos == 0 {
            return;
        }
        let until = (wait.until != Time::NEVER).then(|| Instant::now() + Duration::from_nanos(nanos));
        wait::sleep(self, u64::from(wait.completions), until);
    }

    fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.bell))
    }
}

impl Drop for Verbs {
    fn drop(&mut self) {
        self.control.end();
        for handle in self.lanes.iter_mut().filter_map(Option::take) {
            let gone = match Arc::try_unwrap(handle) {
                Ok(handle) => handle.destroy().is_ok(),
                Err(_) => false,
            };
            if !gone {
                tracing::error!(
                    "a QP may still write into memory that is about to be freed: the process is ended"
                );
                std::process::abort();
            }
        }
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verbs")
            .field("rails", &self.ports.iter().map(|port| port.rail.name()).collect::<Vec<_>>())
            .field("lanes", &self.ports.iter().map(|port| port.lanes).sum::<usize>())
            .finish_non_exhaustive()
    }
}
