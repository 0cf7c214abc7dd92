//! The configuration of rails over verbs, and the bounds of each value.

use kvrail_core::batch::Class;

use crate::wire::Mtu;

/// The most pieces of local memory that one READ may write.
pub(crate) const MAX_SGES: u32 = 16;
/// Milliseconds that a reader waits before it sends a READ again for which the producer was not
/// ready: about a hundredth of the second after which the engine fails a lane without progress.
pub const RNR_DELAY_MS: f64 = 10.24;
/// The code of [`RNR_DELAY_MS`] in a QP's `min_rnr_timer` (InfiniBand specification, vol. 1, table
/// of RNR NAK timers).
pub(crate) const RNR_TIMER: u8 = 20;

/// How READs get into a send queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncoderChoice {
    /// By `ibv_post_send`, on any device.
    #[default]
    SendWr,
    /// As mlx5 work queue entries that are written in place (feature `mlx5`). It has met no
    /// ConnectX yet. Where it cannot be used (without the feature, on another device, or on one
    /// that is set up in a way that it does not know) READs are posted by `ibv_post_send`, and the
    /// log says why.
    Mlx5,
}

/// How rails over verbs are set up. The defaults suit usual RoCE and InfiniBand fabrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerbsConfig {
    /// Send queue entries of a lane, the drain's included: at least 2.
    pub sq_entries: u32,
    /// Completion queue entries of a rail, at most what the device allows. A rail has room for
    /// `cq_entries / sq_entries` lanes.
    pub cq_entries: u32,
    /// Pieces of memory that one READ may write: 1 to 16, at most what the device allows. Pages
    /// that are read into another layout need several. From 3 on, one READ also brings table
    /// entries of pages that are apart. Each entry of a send queue has room for that many.
    pub sges: u32,
    /// The most READs in flight per lane. `None`: as many as both devices can do, usually 16.
    pub read_depth: Option<u8>,
    /// The largest path MTU. `None`: the smaller of both ports' active ones.
    pub mtu: Option<Mtu>,
    /// The GID to use, by index. `None`: the best (see [`gid::select`](crate::gid::select)).
    pub gid_index: Option<u8>,
    /// The partition, by its index in the port's table.
    pub pkey_index: u16,
    /// InfiniBand service level, and the priority on lossless Ethernet without DSCP: 0 to 15.
    pub service_level: u8,
    /// DSCP and ECN bits of RoCE v2 packets. Many lossless fabrics want 106 (DSCP 26, ECN on).
    pub traffic_class: u8,
    /// The service level of lanes for background work. `None`:
    /// [`service_level`](Self::service_level).
    ///
    /// Where this value or that of
    /// [`background_traffic_class`](Self::background_traffic_class) differs from the urgent one, a
    /// reader makes every second lane of a rail for background work: it needs at least two lanes
    /// per rail. The data of READs is sent by the producer, so set the values at both ends.
    pub background_service_level: Option<u8>,
    /// The traffic class of lanes for background work. `None`:
    /// [`traffic_class`](Self::traffic_class).
    pub background_traffic_class: Option<u8>,
    /// Routers that a packet may pass.
    pub hop_limit: u8,
    /// How long the transport waits for an acknowledgement: 4.096 µs x 2^timeout, from 1 to 22,
    /// which is 17 s. 14 is 67 ms. 0 would wait for ever, and is refused.
    pub timeout: u8,
    /// How often a packet without an answer is sent again: 0 to 6. 7 is refused, since SoftRoCE
    /// takes it for "for ever".
    pub retry: u8,
    /// How often a READ is sent again for which its producer was not ready: 0 to 6,
    /// [`RNR_DELAY_MS`] apart, or 7, which is "for ever". With 7 the engine is the bound: it fails
    /// a lane that has made no progress for the `stall` of its configuration, and reports a batch
    /// at its deadline.
    ///
    /// A producer's NIC is not ready while the page that it is to send is brought into memory
    /// (on-demand paging), or while it is short of resources.
    pub rnr_retry: u8,
    /// Ask for PCIe relaxed ordering where the device takes the flag. Data is visible when its
    /// completion is, never earlier, with the flag and without.
    pub relaxed_ordering: bool,
    /// The most bytes of one memory region, below what the device can do. `u64::MAX`: what the
    /// device can do. A publisher registers longer memory in pieces; a reader refuses it.
    pub max_mr_bytes: u64,
    /// How READs get into a reader's send queues.
    pub encoder: EncoderChoice,
}

impl VerbsConfig {
    /// The defaults. With these `timeout` and `retry` a dead path shows after half a second
    /// (measured on SoftRoCE: 0.47 s).
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
        background_service_level: None,
        background_traffic_class: None,
        hop_limit: 64,
        timeout: 14,
        retry: 6,
        rnr_retry: 7,
        relaxed_ordering: true,
        max_mr_bytes: u64::MAX,
        encoder: EncoderChoice::SendWr,
    };

    /// Checks what can be checked without a device.
    ///
    /// # Errors
    ///
    /// Names the first value that cannot work.
    pub fn check(&self) -> Result<(), VerbsConfigError> {
        let ranges = [
            ("sq_entries", self.sq_entries, 2, 1 << 15),
            ("cq_entries", self.cq_entries, self.sq_entries, 1 << 22),
            ("sges", self.sges, 1, MAX_SGES),
            ("read_depth", self.read_depth.map_or(1, u32::from), 1, 255),
            ("service_level", self.service_level.into(), 0, 15),
            ("background_service_level", self.background_service_level.unwrap_or(0).into(), 0, 15),
            ("hop_limit", self.hop_limit.into(), 1, 255),
            ("timeout", self.timeout.into(), 1, 22),
            ("retry", self.retry.into(), 0, 6),
            ("rnr_retry", self.rnr_retry.into(), 0, 7),
        ];
        for (name, value, least, most) in ranges {
            if value < least || value > most {
                return Err(VerbsConfigError { name, value, least, most });
            }
        }
        Ok(())
    }

    /// How packets of lanes for work of `class` are marked.
    pub(crate) fn marks(&self, class: Class) -> Marks {
        let urgent = Marks { service_level: self.service_level, traffic_class: self.traffic_class };
        match class {
            Class::Background => Marks {
                service_level: self.background_service_level.unwrap_or(urgent.service_level),
                traffic_class: self.background_traffic_class.unwrap_or(urgent.traffic_class),
            },
            _ => urgent,
        }
    }

    /// Whether urgent and background work have lanes of their own.
    #[must_use]
    pub fn divides_classes(&self) -> bool {
        self.marks(Class::Urgent) != self.marks(Class::Background)
    }
}

/// How the packets of a lane are marked, for the fabric to treat them accordingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    /// InfiniBand service level, and the priority on lossless Ethernet without DSCP.
    pub(crate) service_level: u8,
    /// DSCP and ECN bits of RoCE v2 packets.
    pub(crate) traffic_class: u8,
}

impl Default for VerbsConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A value of the configuration that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}: it must be {least} to {most}")]
pub struct VerbsConfigError {
    /// The field.
    pub name: &'static str,
    /// Its value.
    pub value: u32,
    /// The least that works.
    pub least: u32,
    /// The most that works.
    pub most: u32,
}

impl VerbsConfigError {
    /// The code of this error: see `docs/errors.md`.
    #[must_use]
    pub const fn code(&self) -> u32 {
        5000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_its_range_is_refused_by_name() {
        assert_eq!(VerbsConfig::DEFAULT.check(), Ok(()));
        let bad = [
            (VerbsConfig { sq_entries: 1, ..VerbsConfig::DEFAULT }, "sq_entries is 1: it must be 2"),
            (VerbsConfig { cq_entries: 64, ..VerbsConfig::DEFAULT }, "cq_entries is 64: it must be 128"),
            (VerbsConfig { sges: 17, ..VerbsConfig::DEFAULT }, "sges is 17: it must be 1 to 16"),
            (VerbsConfig { read_depth: Some(0), ..VerbsConfig::DEFAULT }, "read_depth"),
            (VerbsConfig { service_level: 16, ..VerbsConfig::DEFAULT }, "service_level"),
            (
                VerbsConfig { background_service_level: Some(16), ..VerbsConfig::DEFAULT },
                "background_service_level is 16: it must be 0 to 15",
            ),
            (VerbsConfig { hop_limit: 0, ..VerbsConfig::DEFAULT }, "hop_limit"),
            (VerbsConfig { timeout: 0, ..VerbsConfig::DEFAULT }, "timeout"),
            (VerbsConfig { timeout: 23, ..VerbsConfig::DEFAULT }, "timeout is 23: it must be 1 to 22"),
            // SoftRoCE takes 7 for "for ever".
            (VerbsConfig { retry: 7, ..VerbsConfig::DEFAULT }, "retry is 7: it must be 0 to 6"),
            (VerbsConfig { rnr_retry: 8, ..VerbsConfig::DEFAULT }, "rnr_retry is 8: it must be 0 to 7"),
        ];
        for (config, says) in bad {
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn background_lanes_are_marked_as_urgent_ones_unless_they_have_values_of_their_own() {
        let urgent = VerbsConfig { service_level: 3, traffic_class: 106, ..VerbsConfig::DEFAULT };
        let marks = |config: VerbsConfig| {
            let Marks { service_level, traffic_class } = config.marks(Class::Background);
            assert_eq!(config.marks(Class::Urgent), urgent.marks(Class::Urgent));
            (service_level, traffic_class, config.divides_classes())
        };
        assert_eq!(marks(urgent), (3, 106, false));
        assert_eq!(marks(VerbsConfig { background_traffic_class: Some(34), ..urgent }), (3, 34, true));
        assert_eq!(marks(VerbsConfig { background_service_level: Some(1), ..urgent }), (1, 106, true));
        // 0 is a value like any other.
        assert_eq!(marks(VerbsConfig { background_traffic_class: Some(0), ..urgent }), (3, 0, true));
        let same =
            VerbsConfig { background_service_level: Some(3), background_traffic_class: Some(106), ..urgent };
        assert_eq!(marks(same), (3, 106, false), "equal values divide nothing");
    }
}
