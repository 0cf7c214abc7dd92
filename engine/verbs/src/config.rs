//! What can be chosen, and the defaults.

use crate::templates::SGES;
use crate::wire::Mtu;

/// How long a producer's end asks a reader to wait before it sends a READ again that was not
/// expected yet, in milliseconds: a hundredth of the second after which the engine takes a lane
/// without progress for dead.
pub const RNR_DELAY_MS: f64 = 10.24;
/// The code of [`RNR_DELAY_MS`] in a QP's `min_rnr_timer` (InfiniBand specification, vol. 1, table
/// of RNR NAK timers).
pub(crate) const RNR_TIMER: u8 = 20;

/// How rails over verbs are set up. The defaults suit RoCE and InfiniBand fabrics that are configured as most
/// are; what differs from fabric to fabric is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Send queue entries of a lane, the drain's included: at least 2.
    pub sq_entries: u32,
    /// Completion queue entries of a rail, bounded by the device. A rail has room for `cq_entries / sq_entries`
    /// lanes.
    pub cq_entries: u32,
    /// Pieces of memory that one READ may land in, for pages that land in another layout: 1 to 16, bounded by the
    /// device. A send queue has room for that many in each of its entries.
    pub sges: u32,
    /// READs in flight per lane at most. `None`: what both devices can do, usually 16.
    pub read_depth: Option<u8>,
    /// The path MTU at most. `None`: the smaller of both ports' active ones.
    pub mtu: Option<Mtu>,
    /// The GID to use, by index. `None`: the best (see [`gid::select`](crate::gid::select)).
    pub gid_index: Option<u8>,
    /// The partition, by its index in the port's table.
    pub pkey_index: u16,
    /// InfiniBand service level, and the priority on lossless Ethernet without DSCP: 0 to 15.
    pub service_level: u8,
    /// DSCP and ECN bits of RoCE v2 packets. Many lossless fabrics want 106 (DSCP 26, ECN on).
    pub traffic_class: u8,
    /// Routers that a packet may pass.
    pub hop_limit: u8,
    /// Time to an acknowledgement: 4.096 µs x 2^timeout, from 1 to 22 (17 s). 14 is 67 ms. 0 would
    /// wait for ever.
    pub timeout: u8,
    /// How often a packet is sent again without an answer: 0 to 6. The field's 7 is not to be had,
    /// since SoftRoCE takes it for "for ever".
    pub retry: u8,
    /// How often a READ is sent again that its producer was not ready for: 0 to 6, [`RNR_DELAY_MS`]
    /// apart, or 7, which is "for ever". Then the engine bounds it: it fails a lane that has made no
    /// progress for `kvrail_core::config::EngineConfig::stall`, and tells a batch at its deadline.
    ///
    /// A producer's NIC says so while a page that it was asked for is being brought into memory
    /// (on-demand paging), or while it is short of resources.
    pub rnr_retry: u8,
    /// Ask for PCIe relaxed ordering where the device takes the flag. Data is visible when its completion is,
    /// never earlier, with or without.
    pub relaxed_ordering: bool,
}

impl Config {
    /// The defaults. `timeout` and `retry` together find out about a dead path after half a second (measured
    /// on SoftRoCE: 0.47 s).
    pub const DEFAULT: Self = Self {
        sq_entries: 128,
        cq_entries: 8192,
        sges: 1,
        read_depth: None,
        mtu: None,
        gid_index: None,
        pkey_index: 0,
        service_level: 0,
        traffic_class: 0,
        hop_limit: 64,
        timeout: 14,
        retry: 6,
        rnr_retry: 7,
        relaxed_ordering: true,
    };

    /// Checks what can be checked without a device.
    ///
    /// # Errors
    ///
    /// The first figure that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        let ranges = [
            ("sq_entries", self.sq_entries, 2, 1 << 15),
            ("cq_entries", self.cq_entries, self.sq_entries, 1 << 22),
            ("sges", self.sges, 1, SGES as u32),
            ("read_depth", self.read_depth.map_or(1, u32::from), 1, 255),
            ("service_level", self.service_level.into(), 0, 15),
            ("hop_limit", self.hop_limit.into(), 1, 255),
            ("timeout", self.timeout.into(), 1, 22),
            ("retry", self.retry.into(), 0, 6),
            ("rnr_retry", self.rnr_retry.into(), 0, 7),
        ];
        for (name, value, least, most) in ranges {
            if value < least || value > most {
                return Err(ConfigError { name, value, least, most });
            }
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A figure that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}: it must be {least} to {most}")]
pub struct ConfigError {
    /// Which.
    pub name: &'static str,
    /// What it is.
    pub value: u32,
    /// The least.
    pub least: u32,
    /// The most.
    pub most: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        assert_eq!(Config::DEFAULT.check(), Ok(()));
        let bad = [
            (Config { sq_entries: 1, ..Config::DEFAULT }, "sq_entries is 1: it must be 2"),
            (Config { cq_entries: 64, ..Config::DEFAULT }, "cq_entries is 64: it must be 128"),
            (Config { sges: 17, ..Config::DEFAULT }, "sges is 17: it must be 1 to 16"),
            (Config { read_depth: Some(0), ..Config::DEFAULT }, "read_depth"),
            (Config { service_level: 16, ..Config::DEFAULT }, "service_level"),
            (Config { hop_limit: 0, ..Config::DEFAULT }, "hop_limit"),
            (Config { timeout: 0, ..Config::DEFAULT }, "timeout"),
            (Config { timeout: 23, ..Config::DEFAULT }, "timeout is 23: it must be 1 to 22"),
            // It is "for ever" on SoftRoCE.
            (Config { retry: 7, ..Config::DEFAULT }, "retry is 7: it must be 0 to 6"),
            (Config { rnr_retry: 8, ..Config::DEFAULT }, "rnr_retry is 8: it must be 0 to 7"),
        ];
        for (config, says) in bad {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
