//! The addresses at which readers reach this host.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::Context;

/// Where readers reach a socket of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reachable {
    /// The address to print.
    pub(crate) best: SocketAddr,
    /// Other addresses that lead to the same socket.
    pub(crate) others: Vec<SocketAddr>,
    /// Whether readers on other hosts reach it there.
    pub(crate) from_other_hosts: bool,
}

impl Reachable {
    /// The addresses of a socket that listens at `local`. A socket at 0.0.0.0 or `[::]` is reached
    /// at each address of its host, but other hosts do not reach it at 0.0.0.0 or `[::]`.
    pub(crate) fn of(local: SocketAddr) -> anyhow::Result<Self> {
        let interfaces = if local.ip().is_unspecified() { own_addresses()? } else { Vec::new() };
        Ok(Self::among(local, &interfaces))
    }

    fn among(local: SocketAddr, own: &[IpAddr]) -> Self {
        let at = |ip: IpAddr| SocketAddr::new(ip, local.port());
        if !local.ip().is_unspecified() {
            let from_other_hosts = !local.ip().is_loopback();
            return Self { best: local, others: Vec::new(), from_other_hosts };
        }
        // Whether a socket at `[::]` takes IPv4 as well depends on the system, so only IPv6 counts
        // there.
        let fits = |ip: &&IpAddr| ip.is_ipv4() == local.is_ipv4();
        let mut fitting: Vec<_> = own.iter().filter(fits).map(|&ip| at(ip)).collect();
        if fitting.is_empty() {
            let loopback: IpAddr =
                if local.is_ipv4() { [127, 0, 0, 1].into() } else { Ipv6Addr::LOCALHOST.into() };
            return Self { best: at(loopback), others: Vec::new(), from_other_hosts: false };
        }
        let best = fitting.remove(0);
        Self { best, others: fitting, from_other_hosts: true }
    }
}

/// The addresses of this host that other hosts can reach, in the kernel's order: no loopback
/// address, and none that is valid on one link only.
pub(crate) fn own_addresses() -> anyhow::Result<Vec<IpAddr>> {
    let interfaces = if_addrs::get_if_addrs()
        .context("cannot list this host's addresses; give --listen the one that readers reach")?;
    let reachable =
        interfaces.iter().filter(|interface| !interface.is_loopback() && !interface.is_link_local());
    Ok(reachable.map(if_addrs::Interface::ip).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(local: &str, own: &[&str]) -> Reachable {
        let own: Vec<_> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        Reachable::among(local.parse().unwrap(), &own)
    }

    fn reachable(best: &str, others: &[&str], from_other_hosts: bool) -> Reachable {
        let others = others.iter().map(|address| address.parse().unwrap()).collect();
        Reachable { best: best.parse().unwrap(), others, from_other_hosts }
    }

    #[test]
    fn a_socket_at_every_address_is_reached_at_an_address_of_its_host() {
        let own = ["fd00::2", "192.0.2.2", "198.51.100.7", "2001:db8::1"];
        assert_eq!(among("0.0.0.0:7470", &own), reachable("192.0.2.2:7470", &["198.51.100.7:7470"], true));
        assert_eq!(among("[::]:7470", &own), reachable("[fd00::2]:7470", &["[2001:db8::1]:7470"], true));
        assert_eq!(among("0.0.0.0:7470", &[]), reachable("127.0.0.1:7470", &[], false));
        assert_eq!(among("[::]:7470", &["192.0.2.2"]), reachable("[::1]:7470", &[], false));
        assert_eq!(among("192.0.2.9:1", &own), reachable("192.0.2.9:1", &[], true));
        assert_eq!(among("127.0.0.1:1", &own), reachable("127.0.0.1:1", &[], false));
    }
}
