//! The provider: all rails of one engine thread, over libibverbs.
#![allow(unsafe_code, reason = "implements the engine's unsafe trait; the promises are argued at the impl")]

mod control;
mod events;
mod lane;
mod losses;
mod polling;
mod progress;
mod queues;
mod sleep;
#[cfg(test)]
mod tests;
mod waker;
mod watch;

pub use lane::{VerbsLane, VerbsPost};
pub use waker::VerbsWaker;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvrail_core::batch::Class;
use kvrail_core::id::{LaneId, MAX_RAILS, ProviderId, RailIndex, WrId};
use kvrail_core::provider::{
    DmaBuf, MemoryRange, Provider, ProviderEvent, RailInfo, RailKeys, RegisterError, WaitFor,
};
use kvrail_core::time::Time;
use kvrail_core::verbs_abi::Wc;
use kvrail_host::pieces;
use kvrail_host::wake::WakeFd;

use self::control::{Control, ControlEvent, wake_fd};
use self::queues::Queues;
use self::watch::Watch;
use crate::config::VerbsConfig;
use crate::connect::UnopenedLane;
use crate::encoder::{DefaultEncoder, Encoder, choose};
use crate::error::{RailError, VerbsLaneError, VerbsRegionError, VerbsStartError};
use crate::mr::{Rights, VerbsRegion};
use crate::qp::handle::QpHandle;
use crate::rail::{self, Rail, Side};

/// Rails over RDMA verbs, whose work requests `E` encodes.
///
/// On the engine's thread `begin`, `read`, `commit` and `poll` make no heap call, take no lock and
/// make no system call of ours. What a provider library does in its `post_send` and `poll_cq` is
/// its own (rxe's doorbell is a system call). A control thread changes and destroys QPs.
pub struct Verbs<E: Encoder = DefaultEncoder> {
    queues: Queues,
    encoder: E,
    control: Control,
    wake: Arc<WakeFd>,
    /// What a caller sleeps on that has armed this provider.
    watch: Watch,
    id: ProviderId,
    /// The QPs of open lanes, at the lanes' slots.
    qps: Vec<Option<Arc<QpHandle>>>,
    regions: Vec<(RailKeys, VerbsRegion)>,
    /// Registered ahead of the call that wants them.
    ahead: Vec<VerbsRegion>,
}

impl Verbs {
    /// Opens the rails named by `spec` (`auto`, or `mlx5_0,mlx5_1:2`) for one engine.
    ///
    /// # Errors
    ///
    /// A value of `config` is out of its range, or a rail cannot be opened: the error names what is
    /// missing, and what to do.
    pub fn open_rails(spec: &str, config: VerbsConfig) -> Result<Self, VerbsStartError> {
        config.check()?;
        Ok(Self::start(rail::open(spec, config, Side::Reader)?)?)
    }

    /// Starts a provider over rails that were opened for reading and drive no other engine.
    ///
    /// # Errors
    ///
    /// There are no rails or too many of them, one is in use or was opened for a producer, or the
    /// system gave no thread.
    pub fn start(rails: Vec<Arc<Rail>>) -> Result<Self, RailError> {
        Self::check(&rails)?;
        Self::over(&rails, choose)
    }
}

impl<E: Encoder> Verbs<E> {
    /// As [`start`](Verbs::start), with another encoder.
    ///
    /// # Errors
    ///
    /// As [`start`](Verbs::start).
    pub fn start_with(rails: Vec<Arc<Rail>>, encoder: E) -> Result<Self, RailError> {
        Self::check(&rails)?;
        Self::over(&rails, |_| encoder)
    }

    fn check(rails: &[Arc<Rail>]) -> Result<(), RailError> {
        if rails.is_empty() || rails.len() > MAX_RAILS {
            return Err(RailError::Count(rails.len()));
        }
        if let Some(rail) = rails.iter().find(|rail| rail.side() != Side::Reader) {
            return Err(RailError::WrongSide { rail: rail.name().into(), side: rail.side() });
        }
        Ok(())
    }

    /// `make` gets rails that no other engine drives.
    fn over(rails: &[Arc<Rail>], make: impl FnOnce(&[Arc<Rail>]) -> E) -> Result<Self, RailError> {
        let wake = Arc::new(wake_fd()?);
        let queues = Queues::new(rails);
        let channels = queues.rails.iter().map(|queue| queue.rail.channel().map(AsFd::as_fd));
        let watch =
            Watch::new(&wake, channels).map_err(|errno| RailError::System { what: "epoll", errno })?;
        let lanes = queues.rails.iter().map(|queue| queue.max_lanes).sum();
        let control = Control::start(rails, lanes, &wake)?;
        let encoder = make(rails);
        Ok(Self {
            queues,
            encoder,
            control,
            wake,
            watch,
            id: ProviderId::new(),
            qps: Vec::with_capacity(lanes),
            regions: Vec::new(),
            ahead: Vec::new(),
        })
    }

    /// The rails, in order: for a [`QpDialer`](crate::QpDialer).
    pub fn ports(&self) -> Vec<Arc<Rail>> {
        self.queues.rails.iter().map(|queue| Arc::clone(&queue.rail)).collect()
    }

    fn keep(
        &mut self,
        range: MemoryRange,
        region: Result<VerbsRegion, VerbsRegionError>,
    ) -> Result<RailKeys, RegisterError> {
        match region {
            Ok(region) => {
                let keys = region.keys();
                self.regions.push((keys, region));
                Ok(keys)
            }
            Err(error) => Err(refused(range, &error)),
        }
    }
}

fn refused(range: MemoryRange, error: &VerbsRegionError) -> RegisterError {
    tracing::error!(%error, "memory is not registered");
    RegisterError { rail: error.rail, range, errno: error.reason.errno() }
}

// SAFETY: the promises of `Provider`, by number. 1., 2. and 6. are the encoder's (`Encoder`,
// `SendWrEncoder`): each READ, commit and drain goes through it.
// 3. LaneFailed is reported after ibv_modify_qp to the error state has succeeded, or for a QP that
//    its device has moved there: from then on wrs are flushed in order, and a flushed wr's
//    completion comes when the device is done with it (IBTA vol. 1, 10.3.1.5 and 10.7.3.1). The
//    encoder posts the drain's wr behind all others.
// 4. LaneClosed is reported after ibv_destroy_qp has succeeded, which waits for the device.
// 5. `drop` destroys every QP that was opened, and aborts the process if one cannot be.
// 7. A lane carries its own id and its provider's, and its slot is used only if the latter is the
//    id of this provider. A lane is not Clone, and `close` consumes it, so as long as a lane exists
//    its slot holds its own QP.
// SAFETY: so all seven promises are kept.
unsafe impl<E: Encoder> Provider for Verbs<E> {
    const CHAIN: usize = E::CHAIN;
    type Unopened = UnopenedLane;
    type Lane = VerbsLane<E>;
    type OpenError = VerbsLaneError;
    type Post<'a> = VerbsPost<'a, E>;
    type Waker = VerbsWaker;

    fn rails(&self) -> usize {
        self.queues.rails.len()
    }

    /// # Panics
    ///
    /// When there is no such rail.
    fn rail(&self, rail: RailIndex) -> RailInfo {
        self.queues.rails[rail.get()].info
    }

    fn sges(&self) -> u32 {
        let least = self.queues.rails.iter().map(|queue| queue.rail.sges()).min().unwrap_or(1);
        least.min(u32::try_from(E::SGES).unwrap_or(u32::MAX))
    }

    fn read_overhead(&self) -> u32 {
        self.queues.rails.iter().map(|queue| queue.rail.read_overhead()).min().unwrap_or(0)
    }

    fn max_region_bytes(&self) -> u64 {
        self.queues.rails.iter().map(|queue| queue.rail.max_mr_bytes()).min().unwrap_or(u64::MAX)
    }

    fn register(&mut self, range: MemoryRange) -> Result<RailKeys, RegisterError> {
        let ahead = self.ahead.iter().position(|region| region.range() == range);
        let region = match ahead {
            Some(at) => Ok(self.ahead.remove(at)),
            None => VerbsRegion::new(&self.ports(), range, Rights::LocalWrite),
        };
        self.keep(range, region)
    }

    /// As many ranges at a time as there are rails.
    fn register_ahead(&mut self, ranges: &[MemoryRange]) -> Result<(), RegisterError> {
        let rails = self.ports();
        let register = |range: &MemoryRange| {
            let region = VerbsRegion::new(&rails, *range, Rights::LocalWrite);
            region.map_err(|error| refused(*range, &error))
        };
        let made = pieces::register(&"destinations", rails.len(), ranges, |range| range.len, register)?;
        self.ahead.extend(made);
        Ok(())
    }

    fn release_ahead(&mut self) -> usize {
        // One after the other, in their order.
        self.ahead.drain(..).map(drop).count()
    }

    fn register_dmabuf(&mut self, range: MemoryRange, dmabuf: DmaBuf) -> Result<RailKeys, RegisterError> {
        let region = VerbsRegion::from_dmabuf(&self.ports(), range, dmabuf, Rights::LocalWrite);
        self.keep(range, region)
    }

    fn deregister(&mut self, range: MemoryRange, keys: &RailKeys) {
        if let Some(at) = self.regions.iter().position(|(k, region)| k == keys && region.range() == range) {
            self.regions.swap_remove(at);
        }
    }

    fn class(&self, unopened: &UnopenedLane) -> Class {
        unopened.class()
    }

    fn open(
        &mut self,
        id: LaneId,
        rail: RailIndex,
        unopened: UnopenedLane,
    ) -> Result<VerbsLane<E>, VerbsLaneError> {
        let rails = self.queues.rails.len();
        let queue = self.queues.rails.get_mut(rail.get());
        let queue = queue.filter(|queue| Arc::ptr_eq(&queue.rail, unopened.rail()));
        let queue = queue.ok_or(VerbsLaneError::NoSuchRail { rail: rail.0, rails })?;
        if queue.lanes >= queue.max_lanes {
            return Err(VerbsLaneError::RailFull { rail: rail.0, lanes: queue.lanes });
        }
        let slot = self.qps.iter().position(Option::is_none).unwrap_or(self.qps.len());
        let place =
            u16::try_from(slot).map_err(|_| VerbsLaneError::RailFull { rail: rail.0, lanes: slot })?;
        let (qp, counted) = unopened.into_parts();
        let qp = Arc::new(qp);
        let send_queue = self.encoder.open(&qp)?;
        queue.lanes += 1;
        qp.tag().set(id);
        self.queues.progress.begin(WrId::new(id, 0));
        let depth = qp.rail().depth();
        if slot == self.qps.len() {
            self.qps.push(None);
        }
        self.qps[slot] = Some(qp);
        Ok(VerbsLane { queue: send_queue, provider: self.id, id, rail, slot: place, depth, counted })
    }

    #[inline]
    unsafe fn begin<'a>(&'a mut self, lane: &'a mut VerbsLane<E>) -> VerbsPost<'a, E> {
        let rail = lane.rail;
        // SAFETY: the caller promises that this provider has opened the lane, and both are borrowed
        // for as long as the commit lives: the lane is not closed, so its QP is alive. That the
        // READs may be executed is the caller's promise, too.
        let post = unsafe { self.encoder.begin(&mut lane.queue) };
        VerbsPost { post, rail, progress: &mut self.queues.progress }
    }

    #[inline]
    fn poll(&mut self, rail: RailIndex, out: &mut [Wc]) -> usize {
        self.queues.poll(&mut self.encoder, rail, out)
    }

    fn fail(&mut self, lane: &mut VerbsLane<E>) {
        if lane.provider == self.id
            && let Some(Some(qp)) = self.qps.get(usize::from(lane.slot))
        {
            lane.counted = None;
            self.control.fail_later(lane.id, Arc::clone(qp));
        }
    }

    fn drain(&mut self, lane: &mut VerbsLane<E>, wr_id: WrId) -> Result<(), i32> {
        if lane.provider != self.id {
            return Err(libc::EINVAL);
        }
        // A lane may have failed by itself.
        lane.counted = None;
        // SAFETY: this provider has opened the lane, and has not closed it, since `close` consumes
        // lanes: its QP is alive.
        unsafe { self.encoder.drain(&mut lane.queue, wr_id) }
    }

    fn close(&mut self, lane: VerbsLane<E>) {
        if lane.provider == self.id
            && let Some(qp) = self.qps.get_mut(usize::from(lane.slot)).and_then(Option::take)
        {
            // Before the QP is destroyed: its memory goes with it.
            self.encoder.close(lane.queue);
            self.control.destroy_later(lane.id, qp);
        }
    }

    #[inline]
    fn next_event(&mut self) -> Option<ProviderEvent> {
        if let Some(rail) = self.queues.losses.next() {
            let queue = !self.queues.losses.polls(rail);
            tracing::error!(rail, queue, "the rail is lost: its device is gone, or its queue broken");
            // Rails are at most 16.
            return Some(ProviderEvent::RailDown(RailIndex(rail as u8)));
        }
        loop {
            let ControlEvent { event, rail, lost } = self.control.next_event()?;
            if !self.queues.losses.passes(event, rail, lost) {
                continue;
            }
            if let ProviderEvent::LaneClosed(_) = event {
                self.queues.rails[rail].closed += 1;
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
        let Self { queues, encoder, wake, control, .. } = self;
        sleep::sleep(queues, encoder, wake, || control.has_events(), u64::from(wait.completions), until);
    }

    fn arm(&mut self, wait: WaitFor) -> bool {
        let Self { queues, encoder, wake, watch, control, .. } = self;
        wait.timeout().0 > 0 && sleep::arm(queues, encoder, wake, watch, || control.has_events())
    }

    fn disarm(&mut self) {
        sleep::disarm(&mut self.queues, &self.wake, &self.watch);
    }

    fn waker(&self) -> VerbsWaker {
        VerbsWaker(Arc::clone(&self.wake))
    }
}

/// Readable once an [armed](Provider::arm) engine has a reason to wake up. The descriptor is an
/// epoll(7) instance over the completion channels of all rails.
impl<E: Encoder> AsFd for Verbs<E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

impl<E: Encoder> Drop for Verbs<E> {
    fn drop(&mut self) {
        self.control.end();
        for qp in self.qps.iter_mut().filter_map(Option::take) {
            let destroyed = Arc::try_unwrap(qp).is_ok_and(|qp| qp.destroy().is_ok());
            if !destroyed {
                tracing::error!(
                    "a QP may still write into memory that is about to be freed: the process is ended"
                );
                std::process::abort();
            }
        }
    }
}

impl<E: Encoder> fmt::Debug for Verbs<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rails = &self.queues.rails;
        f.debug_struct("Verbs")
            .field("rails", &rails.iter().map(|queue| queue.rail.name()).collect::<Vec<_>>())
            .field("lanes", &rails.iter().map(|queue| queue.lanes).sum::<usize>())
            .finish_non_exhaustive()
    }
}
