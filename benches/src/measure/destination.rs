//! The memory that pages are read into: the host's, or a GPU's.

use std::collections::VecDeque;

use anyhow::Context as _;
use kvrail::core::memory::Slot;
use kvrail::{PageLayout, Reader, ReaderTransport, memory};

use crate::measure::pattern;

#[cfg(feature = "cuda")]
use kvrail::gpu::DeviceMemory;

/// The memory that pages are read into.
#[derive(Debug)]
pub(crate) enum Destination {
    /// The host's memory.
    Host,
    /// A GPU's memory.
    #[cfg(feature = "cuda")]
    Gpu {
        memory: DeviceMemory,
        /// A page on its way to be compared.
        page: Vec<u8>,
    },
}

impl Destination {
    /// Allocates and registers `bytes` of the host's memory, or of the GPU with this ordinal, and
    /// returns them as slots.
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
            .with_context(|| format!("--gpu {ordinal}: cannot take {bytes} bytes of its memory"))?;
        memory.fill(pattern::WIPED)?;
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
            "--gpu {ordinal}: this kvrail-bench cannot take {bytes} bytes of GPU memory, because it was built without CUDA: `cargo build --release -p kvrail-bench --features cuda` builds one with it"
        )
    }

    /// Overwrites a slot of `reader`, so that the bytes that are compared later must have arrived
    /// since.
    pub(crate) fn wipe<N: ReaderTransport>(
        &self,
        reader: &Reader<N>,
        layout: &PageLayout,
        slot: &mut Slot,
    ) -> anyhow::Result<()> {
        match self {
            Self::Host => {
                for region in 0..layout.regions() {
                    let bytes = reader.slot_bytes_mut(slot, region);
                    bytes.context("a slot of the host's memory has no bytes")?.fill(pattern::WIPED);
                }
            }
            #[cfg(feature = "cuda")]
            Self::Gpu { memory, page } => {
                memory.copy_from_host(slot.address(), &vec![pattern::WIPED; page.len()])?;
            }
        }
        Ok(())
    }

    /// Whether the page of `key` is in a slot of `reader`, to the last byte.
    pub(crate) fn has<N: ReaderTransport>(
        &mut self,
        reader: &Reader<N>,
        layout: &PageLayout,
        slot: &Slot,
        key: u128,
    ) -> bool {
        match self {
            Self::Host => {
                let regions = 0..layout.regions() as usize;
                let parts = regions.map(|region| reader.slot_bytes(slot, region as u32));
                pattern::check_parts(parts, key).is_some_and(|checked| checked.is_ok())
            }
            #[cfg(feature = "cuda")]
            Self::Gpu { memory, page } => {
                let copied = memory.copy_to_host(slot.address(), page);
                copied.is_ok() && pattern::check(page, key).is_ok()
            }
        }
    }
}
