//! Where pages are read to: the host's memory, or a GPU's.

use std::collections::VecDeque;

use anyhow::Context as _;
use kvrail::core::memory::Slot;
use kvrail::{Reader, ReaderTransport, memory};

use crate::pattern;

#[cfg(feature = "cuda")]
use kvrail::gpu::DeviceMemory;

/// Memory that pages are read to.
#[derive(Debug)]
pub(crate) enum Destination {
    Host,
    #[cfg(feature = "cuda")]
    Gpu {
        memory: DeviceMemory,
        /// A page on its way to be compared.
        page: Vec<u8>,
    },
}

impl Destination {
    /// `bytes` of the host's memory, or of a GPU's by its ordinal, as slots.
    pub(crate) fn register<N: ReaderTransport>(
        reader: &mut Reader<N>,
        bytes: usize,
        gpu: Option<u8>,
    ) -> anyhow::Result<(Self, VecDeque<Slot>)> {
        match gpu {
            None => Ok((Self::Host, reader.register(memory::leaked(bytes)?)?.collect())),
            Some(ordinal) => Self::on_gpu(reader, bytes, ordinal),
        }
    }

    #[cfg(feature = "cuda")]
    fn on_gpu<N: ReaderTransport>(
        reader: &mut Reader<N>,
        bytes: usize,
        ordinal: u8,
    ) -> anyhow::Result<(Self, VecDeque<Slot>)> {
        let memory = DeviceMemory::allocate(ordinal.into(), bytes as u64)
            .with_context(|| format!("--gpu {ordinal}: no memory there to read into"))?;
        memory.fill(pattern::NOTHING)?;
        let slots = reader.register_device(&memory).with_context(|| format!("--gpu {ordinal}"))?;
        let page = vec![0; slots.slot_bytes()];
        Ok((Self::Gpu { memory, page }, slots.collect()))
    }

    #[cfg(not(feature = "cuda"))]
    fn on_gpu<N: ReaderTransport>(
        _: &mut Reader<N>,
        bytes: usize,
        ordinal: u8,
    ) -> anyhow::Result<(Self, VecDeque<Slot>)> {
        anyhow::bail!(
            "--gpu {ordinal}: {bytes} bytes of GPU memory are wanted, and this kvrail-bench was built without it: `cargo build --release -p kvrail-bench --features cuda` builds one with it"
        )
    }

    /// Makes sure that what is compared later has arrived since.
    pub(crate) fn wipe(&self, slot: &mut Slot) -> anyhow::Result<()> {
        match self {
            Self::Host => slot.bytes_mut().context("a slot without bytes")?.fill(pattern::NOTHING),
            #[cfg(feature = "cuda")]
            Self::Gpu { memory, page } => {
                memory.copy_from_host(slot.address(), &vec![pattern::NOTHING; page.len()])?;
            }
        }
        Ok(())
    }

    /// What is in a slot; `None` if it cannot be looked at.
    pub(crate) fn bytes<'a>(&'a mut self, slot: &'a Slot) -> Option<&'a [u8]> {
        match self {
            Self::Host => slot.bytes(),
            #[cfg(feature = "cuda")]
            Self::Gpu { memory, page } => {
                memory.copy_to_host(slot.address(), page).ok()?;
                Some(page)
            }
        }
    }
}
