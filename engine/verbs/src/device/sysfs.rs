//! The facts about devices that are in sysfs and that libibverbs does not report.

use std::fs;
use std::path::Path;

use super::driver::Driver;

const DEVICES: &str = "/sys/class/infiniband";

/// Which kind of driver the device has.
pub(crate) fn driver(device: &str) -> Driver {
    let at = Path::new(DEVICES).join(device);
    let target = fs::canonicalize(&at).unwrap_or_default();
    let module = fs::read_link(at.join("device/driver")).unwrap_or_default();
    let module = module.file_name().map(|name| name.to_string_lossy().into_owned());
    classify(&target.to_string_lossy(), module.as_deref(), at.join("parent").exists())
}

/// The kind of a driver. `target` is where the device's link in sysfs leads, `module` its bus
/// driver, and `parent` whether it names the netdev below it, as rxe alone does.
fn classify(target: &str, module: Option<&str>, parent: bool) -> Driver {
    match module {
        _ if parent => Driver::SoftRoce,
        Some("mlx5_core") => Driver::Mlx5,
        Some(_) => Driver::Hardware,
        None if target.contains("/virtual/") => Driver::Software,
        None => Driver::Hardware,
    }
}

/// The NUMA node of a device, where it has one.
pub(crate) fn numa(device: &str) -> Option<u8> {
    let text = fs::read_to_string(Path::new(DEVICES).join(device).join("device/numa_node")).ok()?;
    // The kernel writes -1 for none.
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart() {
        let pci = "/sys/devices/pci0000:00/0000:00:02.0/infiniband/mlx5_0";
        assert_eq!(classify(pci, Some("mlx5_core"), false), Driver::Mlx5);
        assert_eq!(classify(pci, Some("irdma"), false), Driver::Hardware);
        assert_eq!(classify("/sys/devices/virtual/infiniband/rxe0", None, true), Driver::SoftRoce);
        assert_eq!(classify("/sys/devices/virtual/infiniband/siw0", None, false), Driver::Software);
        assert!(Driver::SoftRoce.caveat().is_some() && Driver::Mlx5.caveat().is_none());
    }
}
