//! NVIDIA's driver, and the GPUs that it has.

use serde::Serialize;

use crate::machine::fact::Fact;
use crate::machine::source::Source;

const DRIVER: &str = "/proc/driver/nvidia";

/// The driver and its devices.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Gpu {
    /// The driver's version; null where there is no such driver.
    pub(crate) driver: Fact<Option<String>>,
    /// The GPUs.
    pub(crate) devices: Fact<Vec<GpuDevice>>,
}

/// One GPU.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GpuDevice {
    /// Its address on PCI.
    pub(crate) pci: String,
    /// Its name.
    pub(crate) model: Fact<String>,
    /// Its NUMA node; null where the machine does not say which.
    pub(crate) numa_node: Fact<Option<u32>>,
}

impl Gpu {
    pub(crate) fn read(source: &Source) -> Self {
        // In a machine without the driver the folder is missing, and that is an answer. If /proc
        // itself is missing, nothing is known.
        if source.has("/proc") && !source.has(DRIVER) {
            return Self { driver: Fact::Known(None), devices: Fact::Known(Vec::new()) };
        }
        Self { driver: version(source).map(Some).into(), devices: devices(source).into() }
    }
}

/// The version, which follows `Kernel Module` on the first line.
fn version(source: &Source) -> Result<String, String> {
    let path = format!("{DRIVER}/version");
    let text = source.beginning(&path, 4096)?;
    let words = text.lines().next().unwrap_or_default().split_whitespace();
    let number = |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    words.into_iter().find(number).map(str::to_owned).ok_or_else(|| format!("{path}: no version"))
}

fn devices(source: &Source) -> Result<Vec<GpuDevice>, String> {
    let folder = format!("{DRIVER}/gpus");
    let device = |pci: String| {
        let path = format!("{folder}/{pci}/information");
        let model = source.text(&path, 4096).and_then(|text| {
            let model = text.lines().find_map(|line| line.strip_prefix("Model:"));
            model.map(|model| model.trim().to_owned()).ok_or_else(|| format!("{path}: no line `Model`"))
        });
        let node = source.number::<i32>(&format!("/sys/bus/pci/devices/{pci}/numa_node"));
        GpuDevice { model: model.into(), numa_node: node.map(|node| node.try_into().ok()).into(), pci }
    };
    Ok(source.names(&folder)?.into_iter().map(device).collect())
}
