//! The states of a queue pair, as types: Reset, Init, Rtr, Rts.
//!
//! Only a QP in RTS can be posted to, and it gets there through the other three in this order. The
//! values on which both ends must agree follow from both ends' [`LaneEnd`]s.

use std::sync::Arc;

use kvrail_core::batch::Class;
use kvrail_host::secret::random_bytes;
use rdma_mummy_sys as sys;
use sys::ibv_qp_attr_mask as bits;

use super::handle::{QpHandle, attr};
use crate::config::{RNR_TIMER, VerbsConfig};
use crate::error::{Unreachable, VerbsLaneError};
use crate::mr::access::AccessFlags;
use crate::rail::{LocalPort, Rail, Side};
use crate::wire::{BITS_24, LaneEnd, LinkLayer, Mtu, RailEnd};

/// A new QP: it knows nothing of its port or its peer.
#[derive(Debug)]
pub(crate) struct Reset;
/// A QP with its port and its rights. The other end needs its [`LaneEnd`].
#[derive(Debug)]
pub(crate) struct Init {
    local: LocalPort,
    end: LaneEnd,
}
/// A QP that receives from the other end (ready to receive).
#[derive(Debug)]
pub(crate) struct Rtr {
    end: LaneEnd,
    read_depth: u8,
}
/// A QP that can be posted to (ready to send).
#[derive(Debug)]
pub(crate) struct Rts;

/// A queue pair in the state that its type names.
#[derive(Debug)]
pub(crate) struct Qp<State> {
    handle: QpHandle,
    state: State,
}

impl Qp<Reset> {
    /// Makes a QP on `rail`.
    pub(crate) fn new(rail: &Arc<Rail>) -> Result<Self, VerbsLaneError> {
        Ok(Self { handle: QpHandle::create(rail)?, state: Reset })
    }

    /// Gives it its port and its rights: peers may read through a producer's QP; a reader's grants
    /// nothing. `remote` decides which of the port's addresses it uses, and `class` how its packets
    /// are marked.
    pub(crate) fn init(self, remote: &RailEnd, class: Class) -> Result<Qp<Init>, VerbsLaneError> {
        let Self { handle, .. } = self;
        let rail = handle.rail();
        let local = rail.local()?;
        let gid = local.towards(remote)?;
        let end = LaneEnd {
            qp_num: handle.number(),
            psn: u32::from_le_bytes(random_bytes().map_err(VerbsLaneError::Random)?) & BITS_24,
            mtu: local.mtu,
            read_depth: rail.read_depth(),
            needs_grh: local.info.needs_grh,
            class,
            lid: local.end().lid,
            pkey: local.pkey,
            kind: gid.kind,
            gid: gid.gid,
        };
        let mut attr = attr(sys::ibv_qp_state::IBV_QPS_INIT);
        attr.pkey_index = rail.config().pkey_index;
        attr.port_num = rail.port();
        attr.qp_access_flags = match rail.side() {
            Side::Reader => AccessFlags::empty(),
            Side::Producer => AccessFlags::REMOTE_READ,
        }
        .bits();
        let fields =
            bits::IBV_QP_STATE | bits::IBV_QP_PKEY_INDEX | bits::IBV_QP_PORT | bits::IBV_QP_ACCESS_FLAGS;
        handle.modify(&mut attr, fields, "Init")?;
        Ok(Qp { handle, state: Init { local, end } })
    }
}

impl Qp<Init> {
    /// This end, as the other end must know it.
    pub(crate) const fn end(&self) -> &LaneEnd {
        &self.state.end
    }

    /// Connects it to the other end: from now on it answers READs, if it is a producer's.
    pub(crate) fn ready_to_receive(self, remote: &LaneEnd) -> Result<Qp<Rtr>, VerbsLaneError> {
        let Self { handle, state: Init { local, end } } = self;
        let rail = handle.rail();
        let kinds = || Unreachable::Kinds { ours: vec![end.kind], theirs: vec![remote.kind] };
        let gid = local.of_kind(end.kind).filter(|_| remote.kind == end.kind).ok_or_else(kinds)?;
        let (mtu, read_depth) = agree(&end, remote);
        let config = rail.config();
        let mut attr = attr(sys::ibv_qp_state::IBV_QPS_RTR);
        attr.path_mtu = mtu as u32;
        attr.dest_qp_num = remote.qp_num;
        attr.rq_psn = remote.psn;
        // No peer reads from a reader.
        attr.max_dest_rd_atomic = if rail.side() == Side::Producer { read_depth } else { 0 };
        // The pause that a producer's end asks for when it cannot serve a READ yet.
        attr.min_rnr_timer = RNR_TIMER;
        let ah = &mut attr.ah_attr;
        ah.port_num = rail.port();
        let marks = config.marks(end.class);
        ah.sl = marks.service_level;
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
            ah.grh.traffic_class = marks.traffic_class;
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
            class = ?end.class,
            ?marks,
            "QP is connected to its peer"
        );
        Ok(Qp { handle, state: Rtr { end: LaneEnd { mtu, read_depth, ..end }, read_depth } })
    }
}

impl Qp<Rtr> {
    /// This end with the values that both ends use, for the answer to the other end.
    pub(crate) const fn end(&self) -> &LaneEnd {
        &self.state.end
    }

    /// Moves the QP to RTS: it can be posted to.
    pub(crate) fn ready_to_send(self) -> Result<Qp<Rts>, VerbsLaneError> {
        let Self { handle, state: Rtr { end, read_depth } } = self;
        let rail = handle.rail();
        let mut attr = rts_attr(rail.config(), &end);
        attr.max_rd_atomic = if rail.side() == Side::Reader { read_depth } else { 0 };
        let fields = bits::IBV_QP_STATE
            | bits::IBV_QP_SQ_PSN
            | bits::IBV_QP_TIMEOUT
            | bits::IBV_QP_RETRY_CNT
            | bits::IBV_QP_RNR_RETRY
            | bits::IBV_QP_MAX_QP_RD_ATOMIC;
        handle.modify(&mut attr, fields, "RTS")?;
        Ok(Qp { handle, state: Rts })
    }
}

impl Qp<Rts> {
    pub(crate) fn into_handle(self) -> QpHandle {
        self.handle
    }
}

impl<State> Qp<State> {
    pub(crate) const fn handle(&self) -> &QpHandle {
        &self.handle
    }

    pub(crate) fn rail(&self) -> &Arc<Rail> {
        self.handle.rail()
    }
}

/// The attributes of a QP that sends: its first packet number, and how often it tries again.
fn rts_attr(config: &VerbsConfig, end: &LaneEnd) -> sys::ibv_qp_attr {
    let mut attr = attr(sys::ibv_qp_state::IBV_QPS_RTS);
    attr.sq_psn = end.psn;
    attr.timeout = config.timeout;
    attr.retry_cnt = config.retry;
    // A producer's NIC answers a READ with "not ready" while a page is being brought into memory.
    attr.rnr_retry = config.rnr_retry;
    attr
}

/// The values that both ends can use: the smaller MTU, and the smaller number of READs in flight.
fn agree(ours: &LaneEnd, theirs: &LaneEnd) -> (Mtu, u8) {
    (ours.mtu.min(theirs.mtu), ours.read_depth.min(theirs.read_depth))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::gid::{Gid, GidKind};

    fn end(mtu: Mtu, read_depth: u8) -> LaneEnd {
        LaneEnd {
            qp_num: 2,
            psn: 7,
            mtu,
            read_depth,
            needs_grh: false,
            class: Class::Urgent,
            lid: 0,
            pkey: 0xFFFF,
            kind: GidKind::RoceV2Ipv4,
            gid: Gid([0; 16]),
        }
    }

    /// A producer that is not ready has answered, so the reader goes on trying until the engine's
    /// `stall`. Where a producer does not answer, the transport gives up.
    #[test]
    fn a_qp_tries_again_for_a_bounded_time() {
        let attr = rts_attr(&VerbsConfig::DEFAULT, &end(Mtu::B4096, 16));
        assert_eq!(attr.rnr_retry, 7, "a producer that is not ready is alive");
        assert!((1..7).contains(&attr.retry_cnt), "{}", attr.retry_cnt);
        assert!(attr.timeout > 0, "0 waits for ever");
        assert_eq!(attr.sq_psn, 7);
        let config = VerbsConfig { rnr_retry: 2, retry: 3, timeout: 4, ..VerbsConfig::DEFAULT };
        let attr = rts_attr(&config, &end(Mtu::B4096, 16));
        assert_eq!((attr.rnr_retry, attr.retry_cnt, attr.timeout), (2, 3, 4));
    }

    #[test]
    fn both_ends_use_the_smaller_values() {
        let (a, b) = (end(Mtu::B4096, 16), end(Mtu::B1024, 128));
        assert_eq!(agree(&a, &b), (Mtu::B1024, 16));
        assert_eq!(agree(&b, &a), (Mtu::B1024, 16));
    }
}
