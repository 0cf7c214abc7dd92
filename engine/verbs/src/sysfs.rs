//! What the kernel's files tell of devices that libibverbs does not.

use std::fs;
use std::path::Path;

use crate::device::Driver;

const DEVICES: &str = "/sys/class/infiniband";

/// What drives a device.
pub(crate) fn driver(device: &str) -> Driver {
    let at = Path::new(DEVICES).join(device);
    let target = fs::canonicalize(&at).unwrap_or_default();
    let module = fs::read_link(at.join("device/driver")).unwrap_or_default();
    let module = module.file_name().map(|name| name.to_string_lossy().into_owned());
    classify(&target.to_string_lossy(), module.as_deref(), at.join("parent").exists())
}

/// `target`: where the device's link leads; `module`: its bus driver; `parent`: whether it names the netdev that
/// it sits on, which rxe alone does.
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
    // -1: none.
    text.trim().parse().ok()
}

/// Whether a netdev is set up and has a carrier. One whose files cannot be read counts as up: the port's own
/// state is looked at, too.
pub(crate) fn netdev_up(name: &str) -> bool {
    let at = Path::new("/sys/class/net").join(name);
    let flags = fs::read_to_string(at.join("flags")).ok();
    let state = fs::read_to_string(at.join("operstate")).ok();
    is_up(flags.as_deref(), state.as_deref())
}

fn is_up(flags: Option<&str>, state: Option<&str>) -> bool {
    const IFF_UP: u32 = 1;
    let set_up = flags
        .and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok())
        .is_none_or(|flags| flags & IFF_UP != 0);
    // A dummy device has a state that is unknown, and works.
    let carrier = !matches!(state.map(str::trim), Some("down" | "lowerlayerdown" | "notpresent"));
    set_up && carrier
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

    #[test]
    fn a_netdev_is_up_when_it_is_set_up_and_has_a_carrier() {
        assert!(is_up(Some("0x1003\n"), Some("up\n")));
        assert!(is_up(Some("0x83\n"), Some("unknown\n")));
        assert!(!is_up(Some("0x1002\n"), Some("down\n")));
        assert!(!is_up(Some("0x1003\n"), Some("lowerlayerdown\n")));
        assert!(is_up(None, None));
    }
}
