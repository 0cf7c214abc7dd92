//! The processes that read: which rails each has, and on which CPUs it runs.

use anyhow::bail;

use crate::cli::common::{Numa, Transport};
use crate::cli::rails::Rails;
use crate::machine::environment::Environment;
use crate::machine::placement::{self, Cpus, Placement};

/// A reading process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) rails: Rails,
    /// How many these are.
    pub(crate) count: u8,
    /// The CPUs to which it is bound.
    pub(crate) cpus: Option<Cpus>,
}

/// The names of all rails.
///
/// # Errors
///
/// All NIC ports that are up were asked for, and no port is up, or the ports cannot be listed.
pub(crate) fn names(transport: Transport, rails: &Rails, facts: &Environment) -> anyhow::Result<Vec<String>> {
    match rails {
        Rails::Count(count) => Ok((0..*count).map(|rail| format!("{}{rail}", transport.name())).collect()),
        Rails::Ports(ports) if ports == "auto" => {
            let active = placement::active_ports(facts);
            if let Err(why) = facts.devices.get() {
                bail!("cannot list this host's RDMA devices: {why}");
            }
            match facts.devices.known().map(Vec::len) {
                Some(0) => bail!("this host has no RDMA device: give --transport shm"),
                _ if active.is_empty() => bail!(
                    "no port of this host's RDMA devices is up: `kvrail-bench doctor` says why, and what to do"
                ),
                _ => Ok(active),
            }
        }
        Rails::Ports(ports) => Ok(ports.split(',').map(str::to_owned).collect()),
    }
}

/// Where a process with these rails runs.
pub(crate) fn place(transport: Transport, numa: Numa, facts: &Environment, names: &[String]) -> Placement {
    match (transport, numa) {
        (Transport::Verbs, Numa::Auto) => Placement::of(facts, names.iter().map(String::as_str)),
        (Transport::Verbs, Numa::Off) => Placement::Anywhere("--numa off".into()),
        _ => Placement::Anywhere(format!("rails of {} have no NUMA node", transport.name())),
    }
}

impl Process {
    /// A process with these rails, and, over NICs, a line that says where it runs.
    pub(crate) fn with(
        transport: Transport,
        numa: Numa,
        facts: &Environment,
        names: &[String],
    ) -> (Self, Option<String>) {
        let placement = place(transport, numa, facts, names);
        // An engine has 16 rails at most.
        let count = names.len() as u8;
        let rails = match transport {
            Transport::Verbs => Rails::Ports(names.join(",")),
            Transport::Shm | Transport::Tcp => Rails::Count(count),
        };
        let note = (transport == Transport::Verbs)
            .then(|| format!("process with {}: {placement}", names.join(", ")));
        (Self { rails, count, cpus: placement.cpus() }, note)
    }
}
