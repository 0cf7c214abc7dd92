//! The checks of devices, of their links on PCIe, and of what programs need to open them.

use super::verdict::{Check, Verdict};
use crate::machine::environment::Environment;
use crate::machine::environment::device::Device;
use crate::machine::environment::pcie::{Pcie, Speed};
use crate::machine::environment::system::System;

/// libibverbs can be opened.
pub(crate) fn library(system: &System) -> Vec<Verdict> {
    let mut check = Check::new("libibverbs");
    if let Err(why) = system.libibverbs.get() {
        check.finding(
            why,
            "apt install libibverbs1 ibverbs-providers (or dnf install libibverbs), in the container",
        );
    }
    check.end(|| system.libibverbs.to_string())
}

/// The module by which programs reach devices is there.
pub(crate) fn uverbs(system: &System) -> Vec<Verdict> {
    let mut check = Check::new("ib_uverbs");
    match (system.modules.get(), system.has_module("ib_uverbs")) {
        (Err(why), _) => check.unknown(why),
        (_, Some(false)) => {
            check.finding("the module is not loaded, so no program can open a device", "modprobe ib_uverbs");
        }
        _ => {}
    }
    check.end(|| "loaded".into())
}

/// The device files can be seen. A container has them only if it is given them.
pub(crate) fn device_files(system: &System) -> Vec<Verdict> {
    let mut check = Check::new("device files");
    if let Some(files) = check.need(system.uverbs.get())
        && files.is_empty()
    {
        check.finding(
            "/dev/infiniband has no uverbs file, so this process can open no device",
            "docker run --device=/dev/infiniband ..., or on the host: modprobe ib_uverbs",
        );
    }
    check.end(|| format!("{} in /dev/infiniband", system.uverbs.known().map_or(0, Vec::len)))
}

/// Links on PCIe run as fast as their devices can.
pub(crate) fn pcie(devices: &[Device]) -> Vec<Verdict> {
    let mut check = Check::new("PCIe link");
    let mut slowest = None;
    for device in devices {
        let Some(link) = &device.pcie else { continue };
        let Some(carries) = one_link(&mut check, device, link) else { continue };
        if slowest.is_none_or(|slowest| carries < slowest) {
            slowest = Some(carries);
        }
    }
    check.end(|| match slowest {
        Some(carries) => format!("each at its best, {carries:.1} GB/s or more"),
        None => "no device is on PCIe".into(),
    })
}

/// Judges one link, and returns what it carries.
fn one_link(check: &mut Check, device: &Device, link: &Pcie) -> Option<f64> {
    let speed = check.need(link.gt_per_s.get());
    let width = check.need(link.width.get());
    let max_speed = check.need(link.max_gt_per_s.get());
    let max_width = check.need(link.max_width.get());
    let (&speed, &width, &max_speed, &max_width) = (speed?, width?, max_speed?, max_width?);
    let words = |speed: Speed, width| format!("{speed} x{width} ({:.1} GB/s)", speed.gb_per_s(width));
    let Device { name, .. } = device;
    let carries = speed.gb_per_s(width);
    let slot = device.pci.known().and_then(Option::as_deref).unwrap_or("ADDRESS");
    let look =
        format!("reseat the card, or move it to a better slot: lspci -vvs {slot} shows LnkCap and LnkSta");
    if speed < max_speed || width < max_width {
        let what =
            format!("{name} runs at {}, and could at {}", words(speed, width), words(max_speed, max_width));
        check.finding(what, look);
    } else {
        let ports = device.ports.known().into_iter().flatten();
        let active = ports.filter(|port| port.active() == Some(true));
        let bits: f64 = active.filter_map(|port| port.gbit_per_s.known()).sum();
        if carries < bits / 8.0 {
            let what = format!(
                "{name} runs at {}, which is less than the {:.1} GB/s of its ports",
                words(speed, width),
                bits / 8.0
            );
            check.finding(what, look);
        }
    }
    Some(carries)
}

/// NICs can reach the memory of GPUs.
pub(crate) fn gpu(facts: &Environment) -> Vec<Verdict> {
    let mut check = Check::new("GPU memory");
    let driver = check.need(facts.gpu.driver.get()).cloned().flatten();
    if driver.is_some()
        && check.need(facts.system.modules.get()).is_some()
        && facts.system.has_module("nvidia_peermem") == Some(false)
    {
        check.finding(
            "the module nvidia_peermem is not loaded: a NIC reaches GPU memory through dma-buf only",
            "modprobe nvidia_peermem",
        );
    }
    check.end(|| match driver {
        Some(version) => format!("NVIDIA driver {version}, nvidia_peermem is loaded"),
        None => "no NVIDIA driver".into(),
    })
}
