//! Lanes of a bonded mlx5 port, spread over its physical ports.
//!
//! A bond of two ports shows as one device, and by default the firmware places QPs. Here lane n of
//! a class goes to port n mod 2, and its packets get a UDP source port of their own, by which
//! switches spread them. Other devices, and mlx5 without a bond, are left unchanged.
//!
//! **Not run on hardware yet**: written after mlx5dv's manual pages.
#![allow(unsafe_code, reason = "libmlx5")]

use std::mem;

use rdma_mummy_sys as sys;

use crate::device::Driver;
use crate::device::context::Context;
use crate::qp::handle::QpHandle;
use crate::rail::Side;

/// The first of the dynamic UDP ports, which RoCE v2 uses as source ports.
const FIRST_PORT: u32 = 0xC000;
const PORTS: u32 = 0x4000;

/// The number of physical ports behind the device's one port: 1 unless the port is a bond.
fn lag_ports(context: &Context) -> u8 {
    // SAFETY: integers and a pointer, for which zero is a value.
    let mut attr: sys::mlx5dv_context = unsafe { mem::zeroed() };
    attr.comp_mask = sys::mlx5dv_context_comp_mask::MLX5DV_CONTEXT_MASK_NUM_LAG_PORTS.0.into();
    // SAFETY: an open context of an mlx5 device (the caller has checked), and a local. A library
    // older than the bindings writes less; a newer one writes no more than the mask asks for.
    let errno = unsafe { sys::mlx5dv_query_device(context.as_ptr(), &raw mut attr) };
    let answered =
        attr.comp_mask & u64::from(sys::mlx5dv_context_comp_mask::MLX5DV_CONTEXT_MASK_NUM_LAG_PORTS.0);
    if errno != 0 || answered == 0 { 1 } else { attr.num_lag_ports.max(1) }
}

/// Which lane it is, counted from 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct LanePlace {
    /// Among all lanes.
    pub(super) number: u32,
    /// Among the lanes of its class. Classes may take turns, so the number among all would put each
    /// class on one port.
    pub(super) of_class: u32,
}

/// Places the QP of a lane, which is in RTS, on one of the ports of a bond. Does nothing on other
/// devices.
pub(super) fn spread(qp: &QpHandle, LanePlace { number, of_class }: LanePlace) {
    let rail = qp.rail();
    if rail.driver() != Driver::Mlx5 || rail.side() != Side::Reader {
        return;
    }
    let ports = u32::from(lag_ports(rail.context()));
    if ports < 2 {
        return;
    }
    // Ports are counted from 1, and there are fewer than 256.
    let port = (of_class % ports + 1) as u8;
    // SAFETY: a live QP of an mlx5 device.
    let placed = unsafe { sys::mlx5dv_modify_qp_lag_port(qp.as_ptr(), port) };
    let udp = source_port(number);
    // SAFETY: as above.
    let ported = unsafe { sys::mlx5dv_modify_qp_udp_sport(qp.as_ptr(), udp) };
    tracing::debug!(
        rail = rail.name(),
        number,
        port,
        placed,
        udp,
        ported,
        "lane of a bond (0: done, else errno)"
    );
}

fn source_port(number: u32) -> u16 {
    // Neighbouring lanes get ports far apart, so that hashes of few bits tell them apart. The sum
    // is below 2^16.
    (FIRST_PORT + number.wrapping_mul(0x9E5) % PORTS) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_ports_are_dynamic_ones_and_differ() {
        let ports: std::collections::HashSet<_> = (0..1000).map(source_port).collect();
        assert_eq!(ports.len(), 1000);
        assert!(ports.iter().all(|&p| p >= 0xC000));
        assert!(source_port(u32::MAX) >= 0xC000);
    }
}
