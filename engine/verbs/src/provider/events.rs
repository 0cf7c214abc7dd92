//! The asynchronous events of devices: ports that go down and come up, QPs and queues in error.
#![allow(unsafe_code, reason = "libibverbs")]

use std::os::fd::BorrowedFd;

use kvrail_core::id::LaneId;
use rdma_mummy_sys as sys;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::abi::AsyncEvent;
use crate::error::{Errno, RailError};
use crate::qp::tag::LaneTag;
use crate::rail::Rail;

/// Numbers of `enum ibv_event_type`.
mod kind {
    pub(super) const CQ_ERR: u32 = 0;
    pub(super) const QP_FATAL: u32 = 1;
    pub(super) const QP_REQ_ERR: u32 = 2;
    pub(super) const QP_ACCESS_ERR: u32 = 3;
    pub(super) const DEVICE_FATAL: u32 = 8;
    pub(super) const PORT_ACTIVE: u32 = 9;
    pub(super) const PORT_ERR: u32 = 10;
}

/// An event of a device, classified by what its rail does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceEvent {
    /// The rail's port went down.
    PortDown,
    /// The rail's port came up.
    PortUp,
    /// The device or the rail's completion queue has failed: completions are lost for good.
    Lost,
    /// The device's descriptor reports no event any more: the device is gone.
    HungUp,
    /// A lane's QP is in the error state.
    LaneFailed(LaneId),
    /// An event that changes nothing for the rail.
    Other,
}

/// The descriptor that the device's events come from.
pub(super) fn fd(rail: &Rail) -> BorrowedFd<'_> {
    // SAFETY: the context's own descriptor, open as long as the rail.
    unsafe { BorrowedFd::borrow_raw(rail.context().async_fd()) }
}

/// Makes reads of the device's events non-blocking.
pub(super) fn prepare(rail: &Rail) -> Result<(), RailError> {
    let fd = fd(rail);
    let set = fcntl_getfl(fd).and_then(|flags| fcntl_setfl(fd, flags | OFlags::NONBLOCK));
    set.map_err(|e| RailError::System {
        what: "non-blocking descriptor of device events",
        errno: Errno(e.raw_os_error()),
    })
}

/// Takes all events that have come. One thread per rail calls this.
pub(super) fn read(rail: &Rail, mut report: impl FnMut(DeviceEvent)) {
    loop {
        let mut event = AsyncEvent { element: 0, event_type: u32::MAX };
        let at = (&raw mut event).cast::<sys::ibv_async_event>();
        // SAFETY: an open context; the local is an ibv_async_event byte for byte (abi.rs), and its
        // type is never read as the enum that the bindings make of it.
        if unsafe { sys::ibv_get_async_event(rail.context().as_ptr(), at) } != 0 {
            return;
        }
        let lane = match event.event_type {
            kind::QP_FATAL | kind::QP_REQ_ERR | kind::QP_ACCESS_ERR => lane(event),
            _ => None,
        };
        let found = classify(event, rail.port(), lane);
        tracing::info!(rail = rail.name(), event = name(event.event_type), ?found, "event of the device");
        report(found);
        // A QP with an event that is not acknowledged cannot be destroyed.
        // SAFETY: taken just now, acknowledged once.
        unsafe { sys::ibv_ack_async_event(at) };
    }
}

fn classify(event: AsyncEvent, port: u8, lane: Option<LaneId>) -> DeviceEvent {
    let ours = event.port() == i32::from(port);
    match event.event_type {
        kind::PORT_ERR if ours => DeviceEvent::PortDown,
        kind::PORT_ACTIVE if ours => DeviceEvent::PortUp,
        // A context has one completion queue, the rail's.
        kind::DEVICE_FATAL | kind::CQ_ERR => DeviceEvent::Lost,
        kind::QP_FATAL | kind::QP_REQ_ERR | kind::QP_ACCESS_ERR => {
            lane.map_or(DeviceEvent::Other, DeviceEvent::LaneFailed)
        }
        _ => DeviceEvent::Other,
    }
}

/// The lane of a QP event, if an engine has opened the QP as a lane.
fn lane(event: AsyncEvent) -> Option<LaneId> {
    let qp = usize::try_from(event.element).ok()?;
    let qp = std::ptr::with_exposed_provenance::<sys::ibv_qp>(qp);
    // SAFETY: libibverbs gives the QP that it made itself. It is not destroyed before the event has
    // been acknowledged, which happens after this.
    let tag = unsafe { (*qp).qp_context }.cast_const().cast::<LaneTag>();
    // SAFETY: set when the QP was made, to a tag that lives until the QP is destroyed.
    unsafe { tag.as_ref() }?.get()
}

/// The name of an event in the header, for the log.
fn name(kind: u32) -> &'static str {
    const NAMES: [&str; 21] = [
        "CQ_ERR",
        "QP_FATAL",
        "QP_REQ_ERR",
        "QP_ACCESS_ERR",
        "COMM_EST",
        "SQ_DRAINED",
        "PATH_MIG",
        "PATH_MIG_ERR",
        "DEVICE_FATAL",
        "PORT_ACTIVE",
        "PORT_ERR",
        "LID_CHANGE",
        "PKEY_CHANGE",
        "SM_CHANGE",
        "SRQ_ERR",
        "SRQ_LIMIT_REACHED",
        "QP_LAST_WQE_REACHED",
        "CLIENT_REREGISTER",
        "GID_CHANGE",
        "WQ_FATAL",
        "DEVICE_SPEED_CHANGE",
    ];
    NAMES.get(kind as usize).copied().unwrap_or("an event that this version does not know")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue that has overrun has lost completions, and its QPs do not show it.
    #[test]
    fn a_rail_whose_queue_has_lost_completions_is_lost() {
        let event = AsyncEvent { element: 0x1234, event_type: kind::CQ_ERR };
        assert_eq!(classify(event, 1, None), DeviceEvent::Lost);
        assert_eq!(name(kind::CQ_ERR), "CQ_ERR");
    }

    #[test]
    fn events_of_other_ports_and_unknown_ones_change_nothing() {
        let event = |event_type, port: u32| AsyncEvent { element: u64::from(port.to_le()), event_type };
        let lane = LaneId::new(3, 9);
        assert_eq!(classify(event(kind::PORT_ERR, 1), 1, None), DeviceEvent::PortDown);
        assert_eq!(classify(event(kind::PORT_ERR, 2), 1, None), DeviceEvent::Other);
        assert_eq!(classify(event(kind::PORT_ACTIVE, 2), 2, None), DeviceEvent::PortUp);
        assert_eq!(classify(event(kind::DEVICE_FATAL, 0), 2, None), DeviceEvent::Lost);
        assert_eq!(classify(event(kind::QP_FATAL, 0), 1, Some(lane)), DeviceEvent::LaneFailed(lane));
        // The QP is no lane yet.
        assert_eq!(classify(event(kind::QP_FATAL, 0), 1, None), DeviceEvent::Other);
        for kind in [18, 20, 21, 4_000_000_000] {
            assert_eq!(classify(event(kind, 1), 1, None), DeviceEvent::Other);
            assert!(!name(kind).is_empty());
        }
        assert_eq!((name(kind::PORT_ERR), name(kind::QP_FATAL)), ("PORT_ERR", "QP_FATAL"));
    }
}
