//! The network interfaces of this namespace: their MTUs, whether they are up, and their addresses.
//!
//! A GID table that containers share has the addresses of all of them, and names the interface of
//! each, of whichever namespace it is. So an entry is this namespace's only if the interface of
//! that name has that address here. The verbs rail compares interfaces by their index, which sysfs
//! does not show for the entries of a GID table.

use std::net::{Ipv4Addr, Ipv6Addr};

use kvrail_host::gid::{Gid, GidOwner, Netdev};

use crate::machine::fact::Fact;
use crate::machine::source::Source;

const NET: &str = "/sys/class/net";

/// `IFF_UP` of an interface's flags.
const UP: u32 = 1;

/// The most bytes of a table of addresses or routes. That of a router may be longer; then the
/// addresses are not known.
const TABLE: u64 = 4 << 20;

/// The interfaces.
#[derive(Clone, Debug)]
pub(crate) struct Interfaces {
    all: Result<Vec<Interface>, String>,
    ipv4: Result<Vec<Ipv4Addr>, String>,
    ipv6: Result<Vec<(String, Ipv6Addr)>, String>,
}

/// One interface.
#[derive(Clone, Debug)]
struct Interface {
    name: String,
    mtu: Result<u32, String>,
    up: Result<bool, String>,
    mac: Option<[u8; 6]>,
}

impl Interfaces {
    pub(crate) fn read(source: &Source) -> Self {
        let all = source.names(NET).map(|names| names.into_iter().map(|name| interface(source, name)));
        Self {
            all: all.map(Iterator::collect),
            ipv4: source.text("/proc/net/fib_trie", TABLE).map(|text| local_ipv4(&text)),
            ipv6: source.text("/proc/net/if_inet6", TABLE).map(|text| local_ipv6(&text)),
        }
    }

    /// The MTU of the interface, in bytes.
    pub(crate) fn mtu(&self, name: &str) -> Fact<u32> {
        match &self.all {
            Err(why) => Fact::Unknown(why.clone()),
            Ok(all) => match all.iter().find(|interface| interface.name == name) {
                Some(interface) => interface.mtu.clone().into(),
                None => Fact::Unknown(format!("{NET}/{name}: not found")),
            },
        }
    }

    /// Which interface has the address, if `name` is the one that the GID table names.
    pub(crate) fn owner(&self, name: &str, gid: Gid) -> GidOwner {
        let Ok(all) = &self.all else { return GidOwner::Unknown };
        match all.iter().find(|interface| interface.name == name) {
            Some(interface) if self.has(interface, gid) => {
                // Where the kernel does not tell its state, the entry is not rejected for it.
                let up = *interface.up.as_ref().unwrap_or(&true);
                GidOwner::Here(Netdev { name: name.into(), up })
            }
            _ => GidOwner::Elsewhere { index: 0 },
        }
    }

    /// Whether the interface has the address. Where addresses are not known, the name decides.
    fn has(&self, interface: &Interface, gid: Gid) -> bool {
        let by_mac =
            |[a, b, c, d, e, f]: [u8; 6]| [0xFE, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xFF, 0xFE, d, e, f];
        if interface.mac.is_some_and(|mac| by_mac(mac) == gid.0) {
            return true;
        }
        match gid.ipv4() {
            Some(ip) => self.ipv4.as_ref().map_or(true, |known| known.contains(&ip)),
            None => self.ipv6.as_ref().map_or(true, |known| {
                known.iter().any(|(name, ip)| *name == interface.name && ip.octets() == gid.0)
            }),
        }
    }
}

fn interface(source: &Source, name: String) -> Interface {
    let at = format!("{NET}/{name}");
    let flags = source.parsed(&format!("{at}/flags"), "hexadecimal number", |flags| {
        u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()
    });
    let state = source.value(&format!("{at}/operstate"));
    let up = flags.and_then(|flags| Ok(flags & UP != 0 && matches!(&*state?, "up" | "unknown")));
    let mac = source.value(&format!("{at}/address")).ok().and_then(|text| mac(&text));
    Interface { mtu: source.number(&format!("{at}/mtu")), up, mac, name }
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<_>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// The addresses of this host in `/proc/net/fib_trie`: each on a line `|-- address`, above a line
/// `/32 host LOCAL`.
fn local_ipv4(text: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last.filter(|address| !found.contains(address)));
        }
    }
    found
}

/// The lines of `/proc/net/if_inet6`: address, index, prefix length, scope, flags, name.
fn local_ipv6(text: &str) -> Vec<(String, Ipv6Addr)> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        Some((words.nth(4)?.to_owned(), Ipv6Addr::from(address)))
    };
    text.lines().filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(text: &str) -> Gid {
        Gid(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    #[test]
    fn an_entry_is_ours_if_the_interface_with_its_name_has_its_address() {
        let fib = "Local:\n  +-- 10.0.0.0/8 2 0 2\n     |-- 10.0.0.0\n        /8 link UNICAST\n     \
                   |-- 10.0.0.7\n        /32 host LOCAL\n     |-- 10.255.255.255\n        /32 link BROADCAST\n";
        let inet6 = "fd000000000000000000000000000007 03 40 00 80     eth0\nxyz\n";
        let eth0 =
            Interface { name: "eth0".into(), mtu: Ok(4200), up: Ok(false), mac: mac("02:11:22:33:44:55") };
        let mut all =
            Interfaces { all: Ok(vec![eth0]), ipv4: Ok(local_ipv4(fib)), ipv6: Ok(local_ipv6(inet6)) };
        assert_eq!(all.ipv4, Ok(vec![Ipv4Addr::new(10, 0, 0, 7)]));
        let here = GidOwner::Here(Netdev { name: "eth0".into(), up: false });
        for address in ["::ffff:10.0.0.7", "fd00::7", "fe80::11:22ff:fe33:4455"] {
            assert_eq!(all.owner("eth0", gid(address)), here, "{address}");
        }
        let elsewhere = GidOwner::Elsewhere { index: 0 };
        for (name, address) in [("eth0", "::ffff:10.0.0.8"), ("eth0", "fd00::8"), ("eth1", "fd00::7")] {
            assert_eq!(all.owner(name, gid(address)), elsewhere, "{address}");
        }
        all.ipv4 = Err("no /proc".into());
        assert_eq!(all.owner("eth0", gid("::ffff:10.0.0.8")), here, "the name decides");
        all.all = Err("no /sys".into());
        assert_eq!(all.owner("eth0", gid("fd00::7")), GidOwner::Unknown);
    }
}
