//! The interfaces of this network namespace, by which this namespace's GIDs are told from those of
//! another container.
//!
//! Containers that share an RDMA device see one table of GIDs, with the addresses of all
//! containers. It names netdevs by an index that counts within each namespace: number 3 of another
//! namespace is a different interface from number 3 of this one. So an entry is this namespace's
//! only if the interface with its index has its address. The names in sysfs (`gid_attrs/ndevs`) do
//! not help: there is an `eth0` in every container.
#![allow(unsafe_code, reason = "getifaddrs")]

use std::ffi::CStr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ptr;

use super::gid::{Gid, GidOwner, Netdev};
use crate::error::Errno;

/// The interfaces that this process sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interfaces(Vec<Interface>);

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Interface {
    index: u32,
    name: String,
    /// It is set up and, as far as its driver reports, has a carrier.
    up: bool,
    /// Its addresses; IPv4 addresses are mapped into IPv6.
    addresses: Vec<Ipv6Addr>,
    mac: Option<[u8; 6]>,
}

impl Interfaces {
    /// Asks the kernel for the list.
    pub(crate) fn of_this_namespace() -> Result<Self, Errno> {
        let mut first = ptr::null_mut();
        // SAFETY: a local to write the list's beginning to.
        if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
            return Err(Errno::last());
        }
        let mut all = Self::default();
        let mut at = first.cast_const();
        // SAFETY: null, or an entry of the list, which lives until it is freed below.
        while let Some(entry) = unsafe { at.as_ref() } {
            all.add(entry);
            at = entry.ifa_next;
        }
        // SAFETY: from getifaddrs, freed once; nothing refers to it any more.
        unsafe { libc::freeifaddrs(first) };
        Ok(all)
    }

    /// Adds an entry of the list: one address of one interface.
    fn add(&mut self, entry: &libc::ifaddrs) {
        // SAFETY: a C string of the list.
        let name = unsafe { CStr::from_ptr(entry.ifa_name) };
        // SAFETY: as above.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let place = match self.0.iter().position(|known| known.index == index) {
            Some(place) => place,
            None => {
                const UP: u32 = (libc::IFF_UP | libc::IFF_RUNNING).cast_unsigned();
                let (name, up) = (name.to_string_lossy().into_owned(), entry.ifa_flags & UP == UP);
                self.0.push(Interface { index, name, up, ..Interface::default() });
                self.0.len() - 1
            }
        };
        let interface = &mut self.0[place];
        let address = entry.ifa_addr.cast_const();
        // SAFETY: null, or an address of the list.
        let Some(family) = (unsafe { address.as_ref() }).map(|address| i32::from(address.sa_family)) else {
            return;
        };
        match family {
            libc::AF_INET => {
                // SAFETY: its family says that it is a sockaddr_in, which holds plain integers.
                let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
                let address = Ipv4Addr::from_bits(u32::from_be(address.sin_addr.s_addr));
                interface.addresses.push(address.to_ipv6_mapped());
            }
            libc::AF_INET6 => {
                // SAFETY: its family says that it is a sockaddr_in6, which holds plain integers.
                let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
                interface.addresses.push(Ipv6Addr::from(address.sin6_addr.s6_addr));
            }
            libc::AF_PACKET => {
                // SAFETY: its family says that it is a sockaddr_ll, which holds plain integers.
                let address = unsafe { address.cast::<libc::sockaddr_ll>().read_unaligned() };
                if let (6, [a, b, c, d, e, f, ..]) = (address.sll_halen, address.sll_addr) {
                    interface.mac = Some([a, b, c, d, e, f]);
                }
            }
            _ => {}
        }
    }

    /// The owner of an entry of a GID table that names the netdev `index` (0: none).
    pub(crate) fn owner(&self, index: u32, gid: Gid) -> GidOwner {
        if index == 0 {
            return GidOwner::Unknown;
        }
        match self.0.iter().find(|interface| interface.index == index && interface.has(gid)) {
            Some(Interface { name, up, .. }) => GidOwner::Here(Netdev { name: name.clone(), up: *up }),
            None => GidOwner::Elsewhere { index },
        }
    }
}

impl Interface {
    /// Whether `gid` is one of its addresses, or the link-local address that the kernel makes of a
    /// RoCE port's MAC even where the interface has another one, or none.
    fn has(&self, gid: Gid) -> bool {
        let by_mac =
            |[a, b, c, d, e, f]: [u8; 6]| [0xFE, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xFF, 0xFE, d, e, f];
        self.addresses.contains(&Ipv6Addr::from(gid.0)) || self.mac.is_some_and(|mac| by_mac(mac) == gid.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gid(text: &str) -> Gid {
        Gid(text.parse::<Ipv6Addr>().unwrap().octets())
    }

    /// A container's: `eth0` is number 3 here, and another number in the host's namespace.
    fn here() -> Interfaces {
        let addresses = ["::ffff:10.0.0.7", "fd00::7", "fe80::dead:beef"].map(|a| a.parse().unwrap()).into();
        Interfaces(vec![
            Interface { index: 1, name: "lo".into(), up: true, ..Interface::default() },
            Interface {
                index: 3,
                name: "eth0".into(),
                up: true,
                addresses,
                mac: Some([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]),
            },
        ])
    }

    #[test]
    fn an_entry_is_ours_if_the_interface_with_its_index_has_its_address() {
        let ours = GidOwner::Here(Netdev { name: "eth0".into(), up: true });
        for address in ["::ffff:10.0.0.7", "fd00::7", "fe80::dead:beef", "fe80::11:22ff:fe33:4455"] {
            assert_eq!(here().owner(3, gid(address)), ours, "{address}");
        }
        // The index of another container's interface is an interface of this one, too.
        assert_eq!(here().owner(3, gid("::ffff:10.0.0.8")), GidOwner::Elsewhere { index: 3 });
        assert_eq!(here().owner(3, gid("fe80::11:22ff:fe33:4456")), GidOwner::Elsewhere { index: 3 });
        // Where two namespaces have an address, the index decides.
        assert_eq!(here().owner(9, gid("::ffff:10.0.0.7")), GidOwner::Elsewhere { index: 9 });
        assert_eq!(here().owner(0, gid("::ffff:10.0.0.7")), GidOwner::Unknown);
    }

    #[test]
    fn this_machines_loopback_is_found_with_its_index_and_addresses() {
        let all = Interfaces::of_this_namespace().unwrap();
        // SAFETY: a C string.
        let index = unsafe { libc::if_nametoindex(c"lo".as_ptr()) };
        let lo = all.0.iter().find(|interface| interface.name == "lo").unwrap();
        assert!(index > 0 && lo.index == index, "{lo:?}");
        if lo.addresses.contains(&gid("::ffff:127.0.0.1").0.into()) {
            assert!(
                lo.up && matches!(all.owner(index, gid("::ffff:127.0.0.1")), GidOwner::Here(_)),
                "{lo:?}"
            );
        }
    }
}
