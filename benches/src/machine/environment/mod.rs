//! What matters of a machine to reads over RDMA: its devices and their links, its NUMA nodes, its
//! memory, and the limits of this process.

use serde::Serialize;

use crate::machine::fact::Fact;
use crate::machine::source::Source;

pub(crate) mod device;
pub(crate) mod gids;
pub(crate) mod gpu;
pub(crate) mod interfaces;
pub(crate) mod numa;
pub(crate) mod numbers;
pub(crate) mod pages;
pub(crate) mod pcie;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod system;

use device::Device;
use gpu::Gpu;
use interfaces::Interfaces;
use numa::Node;
use process::Process;
use system::System;

/// All facts. Any of them may be unknown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Environment {
    /// Kernel, processors, memory, libraries and modules.
    pub(crate) system: System,
    /// What this process may have.
    pub(crate) process: Process,
    /// The NUMA nodes.
    pub(crate) numa: Fact<Vec<Node>>,
    /// The RDMA devices. None is an empty list.
    pub(crate) devices: Fact<Vec<Device>>,
    /// NVIDIA's driver and its devices.
    pub(crate) gpu: Gpu,
}

impl Environment {
    /// Reads all facts. Nothing is opened but files below the source's root.
    pub(crate) fn read(source: &Source) -> Self {
        let interfaces = Interfaces::read(source);
        Self {
            system: System::read(source),
            process: Process::read(source),
            numa: numa::read(source).into(),
            devices: device::read(source, &interfaces).into(),
            gpu: Gpu::read(source),
        }
    }
}
