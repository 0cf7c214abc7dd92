//! The hardware's counters of a rail, where the kernel shows them: those of its port, and of its
//! network interface and of the slaves of a bond.

use std::collections::BTreeMap;

use crate::machine::environment::Environment;
use crate::machine::placement::find;
use crate::machine::source::Source;

/// The folders of a port.
const PORT: [&str; 2] = ["counters", "hw_counters"];

/// Counters of a port in units of four bytes, by the InfiniBand specification.
const WORDS: [&str; 2] = ["port_rcv_data", "port_xmit_data"];

/// The counters of a network interface.
const INTERFACE: [&str; 6] = ["rx_bytes", "tx_bytes", "rx_dropped", "tx_dropped", "rx_errors", "tx_errors"];

/// Counters by their names.
pub(crate) type Counters = BTreeMap<String, u64>;

/// The counters of the rail with this name at this moment. What the kernel does not show is left
/// out.
pub(crate) fn read(source: &Source, facts: &Environment, rail: &str) -> Counters {
    let mut all = Counters::new();
    let Some((device, port)) = find(facts, rail) else { return all };
    let at = format!("/sys/class/infiniband/{}/ports/{}", device.name, port.port);
    for folder in PORT {
        for name in source.names(&format!("{at}/{folder}")).unwrap_or_default() {
            // A counter that is not supported reads as an error; `lifespan` is a setting.
            let Ok(value) = source.number::<u64>(&format!("{at}/{folder}/{name}")) else { continue };
            if name == "lifespan" {
                continue;
            }
            let words = WORDS.contains(&name.as_str());
            let name = if words { format!("{name}_bytes") } else { name };
            all.insert(name, if words { value.saturating_mul(4) } else { value });
        }
    }
    if let Some(netdev) = port.netdev.known() {
        let slaves = source.value(&format!("/sys/class/net/{netdev}/bonding/slaves")).unwrap_or_default();
        for interface in [netdev.as_str()].into_iter().chain(slaves.split_whitespace()) {
            for name in INTERFACE {
                let path = format!("/sys/class/net/{interface}/statistics/{name}");
                if let Ok(value) = source.number(&path) {
                    all.insert(format!("{interface}.{name}"), value);
                }
            }
        }
    }
    all
}

/// By how much each counter rose; those that did not are left out. A counter that fell was reset.
pub(crate) fn risen(before: &Counters, after: &Counters) -> Counters {
    let rise = |(name, value): (&String, &u64)| {
        let by = value.checked_sub(*before.get(name)?)?;
        (by > 0).then(|| (name.clone(), by))
    };
    after.iter().filter_map(rise).collect()
}

/// Adds the counters of another round.
pub(crate) fn add(sum: &mut Counters, more: Counters) {
    for (name, value) in more {
        *sum.entry(name).or_default() += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tree::{Tree, net, port};

    #[test]
    fn the_counters_of_a_port_its_interface_and_a_bonds_slaves_rise() {
        let tree = Tree::reference();
        let write = |path: String, value: u64| tree.write(&path, format!("{value}\n"));
        let write_all = |factor: u64| {
            write(format!("{}/counters/port_rcv_data", port(2)), 250 * factor);
            write(format!("{}/hw_counters/out_of_sequence", port(2)), 7 * factor);
            write(format!("{}/hw_counters/np_cnp_sent", port(2)), 5);
            write(format!("{}/hw_counters/lifespan", port(2)), 10 * factor);
            write(format!("{}/statistics/rx_bytes", net(2)), 1_100 * factor);
            // The interface of another NIC stands for a bond's slave.
            write(format!("{}/statistics/rx_bytes", net(3)), 600 * factor);
        };
        write_all(1);
        tree.write(&format!("{}/hw_counters/odd", port(2)), "not supported\n");
        tree.write(&format!("{}/bonding/slaves", net(2)), "eth4 eth99\n");
        let source = Source::at(&tree.root);
        let facts = Environment::read(&source);
        let before = read(&source, &facts, "mlx5_2");
        write_all(3);
        let mut rise = risen(&before, &read(&source, &facts, "mlx5_2"));
        let expected = [
            ("eth3.rx_bytes", 2_200),
            ("eth4.rx_bytes", 1_200),
            ("out_of_sequence", 14),
            ("port_rcv_data_bytes", 2_000),
        ];
        let expected: Counters = expected.map(|(name, by)| (name.to_owned(), by)).into();
        assert_eq!(rise, expected);
        add(&mut rise, expected);
        assert_eq!(rise["out_of_sequence"], 28);
        // A counter that was reset has not risen.
        assert_eq!(risen(&read(&source, &facts, "mlx5_2"), &before), Counters::new());
        assert_eq!(read(&source, &facts, "mlx5_7"), Counters::new());
        assert_eq!(read(&source, &facts, "shm0"), Counters::new());
    }
}
