//! Which of a host's ports a reader drives.

use std::fmt;
use std::str::FromStr;

use kvrail_core::id::MAX_RAILS;
use kvrail_host::numa;

use super::PortName;
use crate::error::RailError;

/// Which of a host's ports are opened as rails. It is written as text: `auto`, `all`, `numa:1`, or
/// `mlx5_0,mlx5_1:2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Affinity {
    /// `auto`: of a reader, the ports on the NUMA nodes on whose processors the opening thread may
    /// run, and those of no known node. A rank that is pinned to a socket takes its own half of the
    /// machine; a thread that may run anywhere takes all ports. Of a producer all ports, since it
    /// only answers: a reader chooses among them.
    #[default]
    Auto,
    /// `all`: every port that can be used.
    All,
    /// `numa:1`: the ports on this NUMA node, which is that of the destination memory or the GPU.
    Numa(u8),
    /// These ports, in this order.
    Ports(Vec<PortName>),
}

impl FromStr for Affinity {
    type Err = RailError;

    fn from_str(text: &str) -> Result<Self, RailError> {
        let node = text.strip_prefix("numa:").map(str::parse);
        match (text, node) {
            ("auto", _) => Ok(Self::Auto),
            ("all", _) => Ok(Self::All),
            (_, Some(Ok(node))) => Ok(Self::Numa(node)),
            _ => {
                let names = text.split(',').map(|name| name.trim().parse());
                let names = names.collect::<Result<Vec<PortName>, _>>()?;
                if names.len() > MAX_RAILS {
                    Err(RailError::Count(names.len()))
                } else {
                    Ok(Self::Ports(names))
                }
            }
        }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::All => f.write_str("all"),
            Self::Numa(node) => write!(f, "numa:{node}"),
            Self::Ports(ports) => ports.iter().enumerate().try_for_each(|(at, port)| match at {
                0 => write!(f, "{port}"),
                _ => write!(f, ",{port}"),
            }),
        }
    }
}

/// The NUMA nodes whose ports are used; `None` for those of all nodes.
pub(super) fn near_this_thread() -> Option<Vec<u8>> {
    let (near, all) = numa::allowed_nodes()?;
    (!near.is_empty() && near.len() < all).then_some(near)
}

/// Those of `devices`, each with its NUMA node, that are on one of `nodes`. A device of no known
/// node is near every thread. If that leaves none, all of them.
pub(super) fn near(devices: Vec<(String, Option<u8>)>, nodes: &[u8]) -> Vec<(String, Option<u8>)> {
    let is_near = |node: Option<u8>| node.is_none_or(|node| nodes.contains(&node));
    if !devices.iter().any(|&(_, node)| is_near(node)) {
        tracing::warn!(?nodes, "no RDMA device is on the NUMA nodes of this thread: all are used");
        return devices;
    }
    let (near, far): (Vec<_>, Vec<_>) = devices.into_iter().partition(|&(_, node)| is_near(node));
    if !far.is_empty() {
        tracing::info!(?nodes, ?near, ?far, "the near RDMA devices are used; `all` takes the others, too");
    }
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight NICs of two sockets.
    fn eight() -> Vec<(String, Option<u8>)> {
        (0..8).map(|at| (format!("mlx5_{at}"), Some(at / 4))).collect()
    }

    #[test]
    fn a_rank_takes_the_rails_of_its_socket() {
        let names = |nodes: &[u8]| near(eight(), nodes).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&[0]), ["mlx5_0", "mlx5_1", "mlx5_2", "mlx5_3"]);
        assert_eq!(names(&[1]), ["mlx5_4", "mlx5_5", "mlx5_6", "mlx5_7"]);
        assert_eq!(names(&[0, 1]).len(), 8);
        assert_eq!(names(&[3]).len(), 8, "a far rail is better than none");
        let software = vec![("rxe0".to_owned(), None)];
        assert_eq!(near(software.clone(), &[1]), software, "a device of no node is near");
    }

    #[test]
    fn an_affinity_is_read_as_it_is_written() {
        for text in ["auto", "all", "numa:1", "mlx5_0", "mlx5_0,mlx5_1:2"] {
            assert_eq!(text.parse::<Affinity>().unwrap().to_string(), text);
        }
        assert_eq!("numa:1".parse::<Affinity>().unwrap(), Affinity::Numa(1));
        for bad in ["", "numa:", "numa:x", "numa:300", "a b"] {
            assert!(bad.parse::<Affinity>().is_err(), "{bad}");
        }
        let many = ["mlx5_0"; 17].join(",");
        assert!(matches!(many.parse::<Affinity>(), Err(RailError::Count(17))));
    }
}
