//! The RDMA devices.

use serde::Serialize;

use super::interfaces::Interfaces;
use super::pcie::Pcie;
use super::port::Port;
use crate::machine::fact::Fact;
use crate::machine::source::Source;

const DEVICES: &str = "/sys/class/infiniband";

/// One device.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Device {
    /// Its name.
    pub(crate) name: String,
    /// Its address on PCI; null for a device that is software.
    pub(crate) pci: Fact<Option<String>>,
    /// The module that drives it.
    pub(crate) driver: Fact<String>,
    /// The version of that module, which only modules from outside of the kernel have.
    pub(crate) driver_version: Fact<String>,
    /// The version of its firmware.
    pub(crate) firmware: Fact<String>,
    /// Its board.
    pub(crate) board: Fact<String>,
    /// Its type.
    pub(crate) hca_type: Fact<String>,
    /// Its NUMA node; null where the machine does not say which.
    pub(crate) numa_node: Fact<Option<u32>>,
    /// Its link; null for a device that is software.
    pub(crate) pcie: Option<Pcie>,
    /// Its ports.
    pub(crate) ports: Fact<Vec<Port>>,
}

/// The devices.
///
/// # Errors
///
/// sysfs cannot be read.
pub(crate) fn read(source: &Source, interfaces: &Interfaces) -> Result<Vec<Device>, String> {
    // A kernel without RDMA has no such folder. Without /sys/class there is no answer.
    if source.has("/sys/class") && !source.has(DEVICES) {
        return Ok(Vec::new());
    }
    Ok(source.names(DEVICES)?.into_iter().map(|name| device(source, name, interfaces)).collect())
}

fn device(source: &Source, name: String, interfaces: &Interfaces) -> Device {
    let at = format!("{DEVICES}/{name}");
    let pci = format!("{at}/device");
    let file = |name: &str| source.value(&format!("{at}/{name}")).into();
    let software = source.has(&at) && !source.has(&pci);
    let driver = source.link(&format!("{pci}/driver"));
    let version = driver.clone().and_then(|module| {
        let path = format!("/sys/module/{module}/version");
        match source.has(&path) {
            true => source.value(&path),
            false => Err(format!("{module} has no version of its own: it comes with the kernel")),
        }
    });
    let node = source.number::<i32>(&format!("{pci}/numa_node")).map(|node| node.try_into().ok());
    let ports = source.names(&format!("{at}/ports")).map(|names| {
        let numbers = names.iter().filter_map(|name| name.parse().ok());
        numbers.map(|port| Port::read(source, &at, port, interfaces)).collect()
    });
    let address = if software { Ok(None) } else { source.link(&pci).map(Some) };
    Device {
        pci: address.into(),
        driver: driver.into(),
        driver_version: version.into(),
        firmware: file("fw_ver"),
        board: file("board_id"),
        hca_type: file("hca_type"),
        numa_node: if software { Fact::Known(None) } else { node.into() },
        pcie: (!software).then(|| Pcie::read(source, &pci)),
        ports: ports.into(),
        name,
    }
}
