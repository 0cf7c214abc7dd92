//! Queue pairs, whose states are types: Reset, Init, Rtr, Rts.
//!
//! A QP can be posted to in one state only, and gets there in one order only. What both ends must agree on comes
//! in as an [`Agreement`] that was made from both ends.
#![allow(unsafe_code, reason = "libibverbs")]

use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kvrail_core::id::LaneId;
use rdma_mummy_sys as sys;
use sys::ibv_qp_attr_mask as bits;

use crate::config::{Config, RNR_TIMER};
use crate::error::{Errno, LaneError, Unreachable};
use crate::lag;
use crate::rail::{Local, Rail, Side};
use crate::wire::{BITS_24, LaneEnd, LinkLayer, Mtu, RailEnd};

/// What a QP's owner lets others know of it: which lane it is, once that is known. The QP's context pointer
/// leads here, so that an async event finds it.
#[derive(Debug, Default)]
pub(crate) struct Tag(AtomicU64);

impl Tag {
    const KNOWN: u64 = 1 << 63;

    pub(crate) fn set(&self, lane: LaneId) {
        let word = (lane.index() as u64) << 24 | u64::from(lane.generation());
        self.0.store(Self::KNOWN | word, Ordering::Release);
    }

    pub(crate) fn get(&self) -> Option<LaneId> {
        let word = self.0.load(Ordering::Acquire);
        // 16 and 24 bits of it.
        (word & Self::KNOWN != 0).then(|| LaneId::new((word >> 24) as u16, word as u32 & 0xFF_FFFF))
    }
}

/// A QP in whatever state, and what it was made of.
pub(crate) struct Handle {
    raw: NonNull<sys::ibv_qp>,
    tag: Arc<Tag>,
    rail: Arc<Rail>,
}

// SAFETY: libibverbs allows a QP to be changed and destroyed from any thread. Posting is its owner's.
unsafe impl Send for Handle {}
// SAFETY: what `&Handle` does (its number, the error state) libibverbs allows from several threads at a time.
unsafe impl Sync for Handle {}

impl Handle {
    fn create(rail: &Arc<Rail>) -> Result<Self, LaneError> {
        let tag = Arc::new(Tag::default());
        let (send_wr, send_sge) = match rail.side() {
            Side::Reader => (rail.depth(), rail.sges()),
            Side::Producer => (1, 1),
        };
        // SAFETY: integers, pointers and an Option-free struct, for which zero is a value.
        let mut init: sys::ibv_qp_init_attr_ex = unsafe { mem::zeroed() };
        init.qp_context = Arc::as_ptr(&tag).cast_mut().cast();
        init.send_cq = rail.cq().as_ptr();
        init.recv_cq = rail.cq().as_ptr();
        init.cap.max_send_wr = send_wr;
        init.cap.max_send_sge = send_sge;
        init.qp_type = sys::ibv_qp_type::IBV_QPT_RC;
        init.pd = rail.qp_domain();
        let pd = sys::ibv_qp_init_attr_mask::IBV_QP_INIT_ATTR_PD.0;
        // For READs alone: mlx5 then keeps 64 bytes per wr instead of 256.
        init.comp_mask = pd | sys::ibv_qp_init_attr_mask::IBV_QP_INIT_ATTR_SEND_OPS_FLAGS.0;
        init.send_ops_flags = sys::ibv_qp_create_send_ops_flags::IBV_QP_EX_WITH_RDMA_READ.0.into();
        let context = rail.context();
        // SAFETY: an open context, and a local that names a domain and queues of it.
        let raw = unsafe { sys::ibv_create_qp_ex(context.as_ptr(), &raw mut init) };
        let raw = match NonNull::new(raw) {
            Some(raw) => raw,
            None => {
                init.comp_mask = pd;
                init.send_ops_flags = 0;
                // SAFETY: as above.
                let raw = unsafe { sys::ibv_create_qp_ex(context.as_ptr(), &raw mut init) };
                context.some("ibv_create_qp", raw)?
            }
        };
        Ok(Self { raw, tag, rail: Arc::clone(rail) })
    }

    pub(crate) const fn as_ptr(&self) -> *mut sys::ibv_qp {
        self.raw.as_ptr()
    }

    pub(crate) const fn rail(&self) -> &Arc<Rail> {
        &self.rail
    }

    pub(crate) const fn tag(&self) -> &Arc<Tag> {
        &self.tag
    }

    pub(crate) fn number(&self) -> u32 {
        // SAFETY: a live QP; its number does not change.
        unsafe { (*self.as_ptr()).qp_num }
    }

    fn modify(&self, attr: &mut sys::ibv_qp_attr, fields: bits, to: &'static str) -> Result<(), LaneError> {
        // The signature takes the mask as a C int.
        // SAFETY: a live QP and a local; libibverbs serialises changes of a QP's state in the kernel.
        let errno = unsafe { sys::ibv_modify_qp(self.as_ptr(), attr, fields.0.cast_signed()) };
        if errno == 0 {
            return Ok(());
        }
        Err(LaneError::Step { rail: self.rail.name().into(), to, errno: Errno(errno.abs()) })
    }

    /// Moves it to the error state: nothing new is executed, what is outstanding is flushed. Blocks.
    pub(crate) fn fail(&self) -> Result<(), LaneError> {
        let mut attr = attr(sys::ibv_qp_state::IBV_QPS_ERR);
        self.modify(&mut attr, bits::IBV_QP_STATE, "error")
    }

    /// Destroys it, here and now. It writes no more when this returns `Ok`. Blocks.
    pub(crate) fn destroy(self) -> Result<(), Errno> {
        let this = mem::ManuallyDrop::new(self);
        // SAFETY: made by `create` and destroyed once: nothing drops `this`. Nobody posts to it: a
        // lane does only while its provider has the handle, and that one gives it away when the
        // lane is closed. That others poll its queue meanwhile libibverbs allows.
        let errno = unsafe { sys::ibv_destroy_qp(this.as_ptr()) };
        // SAFETY: `this` is never used again, and its fields are read once.
        let rail = unsafe { std::ptr::read(&raw const this.rail) };
        // SAFETY: as above.
        let tag = unsafe { std::ptr::read(&raw const this.tag) };
        match errno.abs() {
            // EIO, ENODEV: the device is gone, and the kernel has destroyed what it had.
            0 | libc::EIO | libc::ENODEV => {
                drop((tag, rail));
                Ok(())
            }
            errno => {
                tracing::error!(rail = rail.name(), errno, "a QP could not be destroyed: it is leaked");
                // Its context pointer leads to the tag, and what it is made of must stay.
                mem::forget((tag, rail));
                Err(Errno(errno))
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let this = Self { raw: self.raw, tag: Arc::clone(&self.tag), rail: Arc::clone(&self.rail) };
        // What it cannot do it has logged.
        let _ = this.destroy();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QP {:#x} of {}", self.number(), self.rail.name())
    }
}

fn attr(state: sys::ibv_qp_state::Type) -> sys::ibv_qp_attr {
    // SAFETY: integers, for which zero is a value.
    let mut attr: sys::ibv_qp_attr = unsafe { mem::zeroed() };
    attr.qp_state = state;
    attr
}

/// Made, and nothing else.
#[derive(Debug)]
pub(crate) struct Reset;
/// Knows its port. Has told the other end of itself.
#[derive(Debug)]
pub(crate) struct Init {
    local: Local,
    end: LaneEnd,
}
/// Takes what the other end sends.
#[derive(Debug)]
pub(crate) struct Rtr {
    end: LaneEnd,
    read_depth: u8,
}
/// Can be posted to.
#[derive(Debug)]
pub(crate) struct Rts;

/// A queue pair in a state.
#[derive(Debug)]
pub(crate) struct Qp<State> {
    handle: Handle,
    state: State,
}

impl Qp<Reset> {
    /// Makes one on `rail`.
    pub(crate) fn new(rail: &Arc<Rail>) -> Result<Self, LaneError> {
        Ok(Self { handle: Handle::create(rail)?, state: Reset })
    }

    /// Gives it its port and its rights: a producer's may be read from, a reader's grants nothing. `remote` decides
    /// which of the port's addresses it goes by.
    pub(crate) fn init(self, remote: &RailEnd) -> Result<Qp<Init>, LaneError> {
        let Self { handle, .. } = self;
        let rail = &handle.rail;
        let local = rail.local()?;
        let gid = local.towards(remote)?;
        let end = LaneEnd {
            qp_num: handle.number(),
            psn: getrandom::u32().map_err(LaneError::Random)? & BITS_24,
            mtu: local.mtu,
            read_depth: rail.read_depth(),
            needs_grh: local.info.needs_grh,
            lid: local.end().lid,
            pkey: local.pkey,
            kind: gid.kind,
            gid: gid.gid,
        };
        let mut attr = attr(sys::ibv_qp_state::IBV_QPS_INIT);
        attr.pkey_index = rail.config().pkey_index;
        attr.port_num = rail.port();
        attr.qp_access_flags = match rail.side() {
            Side::Reader => 0,
            Side::Producer => sys::ibv_access_flags::IBV_ACCESS_REMOTE_READ.0,
        };
        let fields =
            bits::IBV_QP_STATE | bits::IBV_QP_PKEY_INDEX | bits::IBV_QP_PORT | bits::IBV_QP_ACCESS_FLAGS;
        handle.modify(&mut attr, fields, "Init")?;
        Ok(Qp { handle, state: Init { local, end } })
    }
}

impl Qp<Init> {
    /// What the other end must know.
    pub(crate) const fn end(&self) -> &LaneEnd {
        &self.state.end
    }

    /// Points it at the other end: from now on it answers.
    pub(crate) fn ready_to_receive(self, remote: &LaneEnd) -> Result<Qp<Rtr>, LaneError> {
        let Self { handle, state: Init { local, end } } = self;
        let rail = &handle.rail;
        let kinds = || Unreachable::Kinds { ours: vec![end.kind], theirs: vec![remote.kind] };
        let gid = local.of_kind(end.kind).filter(|_| remote.kind == end.kind).ok_or_else(kinds)?;
        let (mtu, read_depth) = agree(&end, remote);
        let config = rail.config();
        let mut attr = attr(sys::ibv_qp_state::IBV_QPS_RTR);
        attr.path_mtu = mtu as u32;
        attr.dest_qp_num = remote.qp_num;
        attr.rq_psn = remote.psn;
        // Nobody reads from a reader.
        attr.max_dest_rd_atomic = if rail.side() == Side::Producer { read_depth } else { 0 };
        // What a producer's end answers with to a READ that it cannot serve yet.
        attr.min_rnr_timer = RNR_TIMER;
        let ah = &mut attr.ah_attr;
        ah.port_num = rail.port();
        ah.sl = config.service_level;
        let infiniband = local.info.link == LinkLayer::InfiniBand;
        if infiniband {
            ah.dlid = remote.lid;
        }
        let other_subnet = infiniband && remote.gid.subnet_prefix() != gid.gid.subnet_prefix();
        if !infiniband || other_subnet || remote.needs_grh || end.needs_grh {
            ah.is_global = 1;
            ah.grh.dgid = sys::ibv_gid { raw: remote.gid.0 };
            ah.grh.sgid_index = gid.index;
            ah.grh.hop_limit = config.hop_limit;
            ah.grh.traffic_class = config.traffic_class;
        }
        let fields = bits::IBV_QP_STATE
            | bits::IBV_QP_AV
            | bits::IBV_QP_PATH_MTU
            | bits::IBV_QP_DEST_QPN
            | bits::IBV_QP_RQ_PSN
            | bits::IBV_QP_MAX_DEST_RD_ATOMIC
            | bits::IBV_QP_MIN_RNR_TIMER;
        handle.modify(&mut attr, fields, "RTR")?;
        tracing::debug!(
            rail = rail.name(),
            qp = end.qp_num,
            %gid,
            remote_qp = remote.qp_num,
            remote = %remote.gid,
            mtu = mtu.bytes(),
            read_depth,
            "QP points at its peer"
        );
        Ok(Qp { handle, state: Rtr { end: LaneEnd { mtu, read_depth, ..end }, read_depth } })
    }
}

impl Qp<Rtr> {
    /// What was agreed on, for the answer to the other end.
    pub(crate) const fn end(&self) -> &LaneEnd {
        &self.state.end
    }

    /// Lets it send. `number` spreads the lanes of a bonded port over its slaves.
    pub(crate) fn ready_to_send(self, number: u32) -> Result<Qp<Rts>, LaneError> {
        let Self { handle, state: Rtr { end, read_depth } } = self;
        let rail = &handle.rail;
        let mut attr = sending(rail.config(), &end);
        attr.max_rd_atomic = if rail.side() == Side::Reader { read_depth } else { 0 };
        let fields = bits::IBV_QP_STATE
            | bits::IBV_QP_SQ_PSN
            | bits::IBV_QP_TIMEOUT
            | bits::IBV_QP_RETRY_CNT
            | bits::IBV_QP_RNR_RETRY
            | bits::IBV_QP_MAX_QP_RD_ATOMIC;
        handle.modify(&mut attr, fields, "RTS")?;
        lag::spread(&handle, number);
        Ok(Qp { handle, state: Rts })
    }
}

impl Qp<Rts> {
    pub(crate) fn into_handle(self) -> Handle {
        self.handle
    }
}

impl Qp<Rts> {
    /// See [`Handle::fail`].
    pub(crate) fn fail(&self) -> Result<(), LaneError> {
        self.handle.fail()
    }
}

impl<State> Qp<State> {
    pub(crate) fn rail(&self) -> &Arc<Rail> {
        &self.handle.rail
    }
}

/// How a QP sends: from which packet number on, and how often again.
fn sending(config: &Config, end: &LaneEnd) -> sys::ibv_qp_attr {
    let mut attr = attr(sys::ibv_qp_state::IBV_QPS_RTS);
    attr.sq_psn = end.psn;
    attr.timeout = config.timeout;
    attr.retry_cnt = config.retry;
    // A READ may be answered with "not ready", too: by a NIC that waits for a page to be brought
    // into memory.
    attr.rnr_retry = config.rnr_retry;
    attr
}

/// What both ends can do: the shorter packets, the fewer READs in flight.
fn agree(ours: &LaneEnd, theirs: &LaneEnd) -> (Mtu, u8) {
    (ours.mtu.min(theirs.mtu), ours.read_depth.min(theirs.read_depth))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gid::{Gid, GidKind};

    #[test]
    fn a_tag_gives_back_the_lane() {
        let tag = Tag::default();
        assert_eq!(tag.get(), None);
        for (index, generation) in [(0, 0), (u16::MAX, LaneId::GENERATIONS - 1), (7, 1)] {
            tag.set(LaneId::new(index, generation));
            assert_eq!(tag.get(), Some(LaneId::new(index, generation)));
        }
    }

    fn end(mtu: Mtu, read_depth: u8) -> LaneEnd {
        LaneEnd {
            qp_num: 2,
            psn: 7,
            mtu,
            read_depth,
            needs_grh: false,
            lid: 0,
            pkey: 0xFFFF,
            kind: GidKind::RoceV2Ipv4,
            gid: Gid([0; 16]),
        }
    }

    /// A producer that is not ready has answered: it is waited for until the engine's `stall`. One
    /// that does not answer is given up on by the transport.
    #[test]
    fn a_qp_tries_again_and_not_for_ever() {
        let attr = sending(&Config::DEFAULT, &end(Mtu::B4096, 16));
        assert_eq!(attr.rnr_retry, 7, "a producer that is not ready is alive");
        assert!((1..7).contains(&attr.retry_cnt), "{}", attr.retry_cnt);
        assert!(attr.timeout > 0, "0 waits for ever");
        assert_eq!(attr.sq_psn, 7);
        let config = Config { rnr_retry: 2, retry: 3, timeout: 4, ..Config::DEFAULT };
        let attr = sending(&config, &end(Mtu::B4096, 16));
        assert_eq!((attr.rnr_retry, attr.retry_cnt, attr.timeout), (2, 3, 4));
    }

    #[test]
    fn the_lesser_of_both_ends_counts_whichever_side_it_is_on() {
        let (a, b) = (end(Mtu::B4096, 16), end(Mtu::B1024, 128));
        assert_eq!(agree(&a, &b), (Mtu::B1024, 16));
        assert_eq!(agree(&b, &a), (Mtu::B1024, 16));
    }
}
