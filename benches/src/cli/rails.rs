//! Rails as the command line gives them: how many, or which NIC ports.

use std::fmt;
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cli::common::Transport;

/// The most rails of one side.
const MOST: u8 = 16;

/// The value of `--rails`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Rails {
    /// The number of rails, of a transport without NICs.
    Count(u8),
    /// NIC ports by name, or `auto`.
    Ports(String),
}

impl FromStr for Rails {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(count) = text.parse::<u64>() {
            return match u8::try_from(count) {
                Ok(count) if (1..=MOST).contains(&count) => Ok(Self::Count(count)),
                _ => Err(format!("{count} rails: give 1..={MOST}")),
            };
        }
        let named = text.split(',').count();
        let legal = |c: char| c.is_ascii_alphanumeric() || "_-.:,".contains(c);
        if named > MOST.into() || text.split(',').any(str::is_empty) || !text.chars().all(legal) {
            return Err("give a number (1..=16), or NIC ports (mlx5_0,mlx5_1:2), or auto".into());
        }
        Ok(Self::Ports(text.into()))
    }
}

impl fmt::Display for Rails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => count.fmt(f),
            Self::Ports(ports) => f.write_str(ports),
        }
    }
}

impl Rails {
    /// The rails that were given, or the default.
    ///
    /// # Errors
    ///
    /// They do not fit the transport.
    pub(crate) fn of(given: Option<&Self>, transport: Transport, default: u8) -> anyhow::Result<Self> {
        match (transport, given) {
            (Transport::Verbs, None) => Ok(Self::Ports("auto".into())),
            (Transport::Verbs, Some(Self::Count(count))) => anyhow::bail!(
                "--rails {count}: verbs rails are NIC ports; name them (mlx5_0,mlx5_1:2), or give auto for all"
            ),
            (Transport::Shm | Transport::Tcp, Some(Self::Ports(ports))) => anyhow::bail!(
                "--rails {ports}: rails of {} are not NIC ports; give how many (1..=16)",
                transport.name()
            ),
            (_, Some(given)) => Ok(given.clone()),
            (_, None) => Ok(Self::Count(default)),
        }
    }

    /// The number of rails, of a transport that counts them.
    pub(crate) fn count(&self) -> anyhow::Result<u8> {
        match self {
            Self::Count(count) => Ok(*count),
            Self::Ports(ports) => {
                anyhow::bail!("--rails {ports}: this transport counts its rails; give how many (1..=16)")
            }
        }
    }

    /// The NIC ports, of a transport that names them.
    #[cfg(feature = "verbs")]
    pub(crate) fn ports(&self) -> anyhow::Result<&str> {
        match self {
            Self::Ports(ports) => Ok(ports),
            Self::Count(count) => anyhow::bail!(
                "--rails {count}: this transport names its rails; give NIC ports (mlx5_0,mlx5_1:2), or auto"
            ),
        }
    }
}

/// How READs get into a NIC's send queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EncoderArg {
    /// By ibv_post_send, on any device.
    #[default]
    Verbs,
    /// As mlx5 work queue entries that are written in place; it has met no ConnectX yet.
    Mlx5,
}

/// Settings that differ from fabric to fabric. They apply to verbs only.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
#[command(next_help_heading = "RDMA (--transport verbs)")]
pub(crate) struct VerbsArgs {
    /// The GID to use, by its index; by default the best address of each port.
    #[arg(long, value_name = "N")]
    pub(crate) gid_index: Option<u8>,
    /// The most READs in flight per lane; by default as many as both devices can do.
    #[arg(long, value_name = "N")]
    pub(crate) read_depth: Option<u8>,
    /// Pieces of memory that one READ may write, 1 to 16; 1 by default. With 3 or more, one READ
    /// brings the table entries of pages that are apart from each other.
    #[arg(long, value_name = "N")]
    pub(crate) sges: Option<u8>,
    /// The largest path MTU: 256, 512, 1024, 2048 or 4096; by default that of the ports.
    #[arg(long, value_name = "BYTES")]
    pub(crate) mtu: Option<u32>,
    /// How long an acknowledgement may take: 4.096 us x 2^N, N from 1 to 22; 14 by default.
    #[arg(long, value_name = "N")]
    pub(crate) timeout: Option<u8>,
    /// How often a packet is sent again: 0 to 6; 6 by default.
    #[arg(long, value_name = "N")]
    pub(crate) retry: Option<u8>,
    /// InfiniBand service level, or priority: 0 to 15.
    #[arg(long, value_name = "N")]
    pub(crate) service_level: Option<u8>,
    /// DSCP and ECN bits of RoCE v2 packets.
    #[arg(long, value_name = "N")]
    pub(crate) traffic_class: Option<u8>,
    /// InfiniBand service level, or priority, of lanes for background work: 0 to 15; by default
    /// that of urgent work. If it differs, every second lane of a rail is for background work. Give
    /// it at both ends.
    #[arg(long, value_name = "N")]
    pub(crate) background_service_level: Option<u8>,
    /// DSCP and ECN bits of lanes for background work, likewise.
    #[arg(long, value_name = "N")]
    pub(crate) background_traffic_class: Option<u8>,
    /// The partition, by its index.
    #[arg(long, value_name = "N")]
    pub(crate) pkey_index: Option<u16>,
    /// How READs get into the NICs' send queues. `mlx5` needs a build with the feature of that name
    /// and a ConnectX, and has met none yet; where it cannot be used the log says why, and READs
    /// are posted by ibv_post_send.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) encoder: EncoderArg,
}

impl VerbsArgs {
    /// The settings that were given, by the names of their arguments.
    pub(crate) fn given(&self) -> impl Iterator<Item = (String, String)> {
        let numbers = [
            ("gid-index", self.gid_index.map(u32::from)),
            ("read-depth", self.read_depth.map(u32::from)),
            ("sges", self.sges.map(u32::from)),
            ("mtu", self.mtu),
            ("timeout", self.timeout.map(u32::from)),
            ("retry", self.retry.map(u32::from)),
            ("service-level", self.service_level.map(u32::from)),
            ("traffic-class", self.traffic_class.map(u32::from)),
            ("background-service-level", self.background_service_level.map(u32::from)),
            ("background-traffic-class", self.background_traffic_class.map(u32::from)),
            ("pkey-index", self.pkey_index.map(u32::from)),
        ];
        numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_string())))
    }
}

/// The error where verbs are requested and not built in.
#[cfg(not(feature = "verbs"))]
pub(crate) fn not_built<T>() -> anyhow::Result<T> {
    anyhow::bail!(
        "this kvrail-bench was built without RDMA: `cargo build --release -p kvrail-bench --features verbs` builds one with it (needs cmake and libclang)"
    )
}

#[cfg(feature = "verbs")]
impl VerbsArgs {
    /// The settings in the library's type.
    pub(crate) fn config(&self) -> anyhow::Result<kvrail::verbs::VerbsConfig> {
        use anyhow::Context;
        use kvrail::verbs::{EncoderChoice, Mtu, VerbsConfig, config};

        let usual = config();
        let mtu = |bytes| {
            Mtu::from_bytes(bytes)
                .with_context(|| format!("--mtu {bytes}: a path MTU is 256, 512, 1024, 2048 or 4096"))
        };
        let config = VerbsConfig {
            gid_index: self.gid_index,
            read_depth: self.read_depth,
            sges: self.sges.map_or(usual.sges, u32::from),
            mtu: self.mtu.map(mtu).transpose()?,
            timeout: self.timeout.unwrap_or(usual.timeout),
            retry: self.retry.unwrap_or(usual.retry),
            service_level: self.service_level.unwrap_or(usual.service_level),
            traffic_class: self.traffic_class.unwrap_or(usual.traffic_class),
            background_service_level: self.background_service_level,
            background_traffic_class: self.background_traffic_class,
            pkey_index: self.pkey_index.unwrap_or(usual.pkey_index),
            encoder: match self.encoder {
                EncoderArg::Verbs => EncoderChoice::SendWr,
                EncoderArg::Mlx5 => EncoderChoice::Mlx5,
            },
            ..usual
        };
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rails_are_counted_or_named() {
        let parse = |text: &str| text.parse::<Rails>();
        assert_eq!(parse("16"), Ok(Rails::Count(16)));
        assert_eq!(parse("auto"), Ok(Rails::Ports("auto".into())));
        assert_eq!(parse("mlx5_0,mlx5_1:2").unwrap().to_string(), "mlx5_0,mlx5_1:2");
        for bad in ["0", "17", "300", "", "a,,b", "a b", "-1,", "../x/"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&["a"; 17].join(",")).is_err());
    }

    #[test]
    fn rails_fit_their_transport() {
        let of = |given: Option<&str>, transport| {
            Rails::of(given.map(|text| text.parse().unwrap()).as_ref(), transport, 2).map(|r| r.to_string())
        };
        assert_eq!(of(None, Transport::Shm).unwrap(), "2");
        assert_eq!(of(Some("3"), Transport::Tcp).unwrap(), "3");
        assert_eq!(of(None, Transport::Verbs).unwrap(), "auto");
        assert_eq!(of(Some("rxe0"), Transport::Verbs).unwrap(), "rxe0");
        assert!(of(Some("2"), Transport::Verbs).unwrap_err().to_string().contains("NIC ports"));
        assert!(of(Some("rxe0"), Transport::Shm).unwrap_err().to_string().contains("how many"));
    }
}
