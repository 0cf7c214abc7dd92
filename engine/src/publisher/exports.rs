//! The memory of pools that peers can read.

use std::sync::{Arc, Weak};

use kvrail_core::provider::{MemoryRange, RailKeys};
use kvrail_host::segment::Segment;
use kvrail_session::PoolId;

use super::foreign::ForeignMemory;
use super::registering::Registering;
use super::wanted::Wanted;
use crate::transport::{Export, Exporter, TransportError};

/// A range of foreign memory that peers can read, for all pools that have pages in it.
#[derive(Debug)]
pub(super) struct ForeignExport {
    // Dropped in this order.
    export: Export,
    claim: Arc<Claimed>,
    memory: ForeignMemory,
    range: MemoryRange,
}

impl ForeignExport {
    pub(super) const fn keys(&self) -> RailKeys {
        self.export.keys
    }

    fn has(&self, memory: &ForeignMemory, range: MemoryRange) -> bool {
        self.memory.same(memory) && contains(self.range, range)
    }
}

/// A device's memory is registered once: as pages to be read, or as slots that are written.
#[derive(Debug)]
struct Claimed(#[cfg(feature = "cuda")] Option<kvrail_verbs::gpu::DeviceMemory>);

#[cfg(feature = "cuda")]
impl Claimed {
    fn new(memory: &ForeignMemory) -> Result<Self, TransportError> {
        let device = memory.claimed_device();
        if device.is_some_and(|device| !device.claim()) {
            return Err(
                "the device memory is registered already, here or with a reader: release it there first"
                    .into(),
            );
        }
        Ok(Self(device.cloned()))
    }
}

#[cfg(feature = "cuda")]
impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some(device) = &self.0 {
            device.release();
        }
    }
}

#[cfg(not(feature = "cuda"))]
impl Claimed {
    #[expect(clippy::unnecessary_wraps, reason = "with the feature cuda it can fail")]
    const fn new(_: &ForeignMemory) -> Result<Self, TransportError> {
        Ok(Self())
    }
}

/// What a new pool needs to be readable: ranges of foreign memory that hold its pages, and ranges
/// of its own segment.
#[derive(Debug)]
pub(super) struct Needs {
    pub(super) foreign: Vec<(ForeignMemory, MemoryRange)>,
    pub(super) segment: Arc<Segment>,
    pub(super) own: Vec<MemoryRange>,
}

/// What keeps a pool readable. Dropped in this order: a page that can be read has a table that says
/// whether it is valid.
#[derive(Debug)]
pub(super) struct PoolExports {
    /// For each range of foreign memory that was needed, an export that has it.
    pub(super) foreign: Vec<Arc<ForeignExport>>,
    /// For each range of the segment that was needed: pages first, and then the table.
    pub(super) own: Vec<Export>,
}

/// The foreign memory that is readable.
#[derive(Debug, Default)]
pub(super) struct ForeignExports(Vec<Known>);

/// An export that pools have. What is compared is here, so that none is kept only to be looked at:
/// a pool's exports end when it is withdrawn.
#[derive(Debug)]
struct Known {
    export: Weak<ForeignExport>,
    claim: Weak<Claimed>,
    /// The memory, by an address that other memory has only after this export has ended.
    memory: usize,
    range: MemoryRange,
}

impl Known {
    fn of(export: &Arc<ForeignExport>) -> Self {
        let ForeignExport { claim, memory, range, .. } = &**export;
        Self {
            export: Arc::downgrade(export),
            claim: Arc::downgrade(claim),
            memory: memory.address(),
            range: *range,
        }
    }
}

impl ForeignExports {
    /// An export that has this range of `memory`.
    fn find(&self, memory: &ForeignMemory, range: MemoryRange) -> Option<Arc<ForeignExport>> {
        let mut has =
            self.0.iter().filter(|known| known.memory == memory.address() && contains(known.range, range));
        has.find_map(|known| known.export.upgrade())
    }

    /// The claim of exports of `memory`.
    fn claim(&self, memory: &ForeignMemory) -> Option<Arc<Claimed>> {
        let mut of = self.0.iter().filter(|known| known.memory == memory.address());
        of.find_map(|known| known.claim.upgrade())
    }

    /// Makes readable what a new pool needs, and is not readable already.
    ///
    /// # Errors
    ///
    /// The first range that the transport refused. What this call has made readable has been
    /// released then.
    pub(super) fn make(
        &mut self,
        exporter: &dyn Exporter,
        registering: &Registering,
        pool: PoolId,
        needs: &Needs,
    ) -> Result<PoolExports, TransportError> {
        self.0.retain(|known| known.export.strong_count() > 0);
        let mut have: Vec<Arc<ForeignExport>> = Vec::new();
        let mut new: Vec<(&ForeignMemory, MemoryRange, Arc<Claimed>)> = Vec::new();
        for (memory, range) in &needs.foreign {
            let is_new = new.iter().any(|&(other, of, _)| of == *range && other.same(memory));
            if is_new || have.iter().any(|export| export.has(memory, *range)) {
                continue;
            }
            if let Some(known) = self.find(memory, *range) {
                have.push(known);
                continue;
            }
            let claimed = new.iter().find(|(other, ..)| other.same(memory));
            let claim = match claimed.map(|(.., claim)| Arc::clone(claim)).or_else(|| self.claim(memory)) {
                Some(claim) => claim,
                None => Arc::new(Claimed::new(memory)?),
            };
            new.push((memory, *range, claim));
        }
        let foreign = new.iter().map(|(memory, range, _)| Wanted::of_foreign(memory, *range));
        let own = needs.own.iter().map(|&range| Wanted::of_segment(&needs.segment, range));
        let wanted: Vec<_> = foreign.chain(own).collect();
        let mut made = registering.run(exporter, pool, &wanted)?.into_iter();
        for ((memory, range, claim), export) in new.into_iter().zip(made.by_ref()) {
            let memory = memory.clone();
            let export = Arc::new(ForeignExport { export, claim, memory, range });
            self.0.push(Known::of(&export));
            have.push(export);
        }
        let own = made.collect();
        let of = |(memory, range): &(ForeignMemory, MemoryRange)| {
            have.iter().find(|export| export.has(memory, *range)).map(Arc::clone)
        };
        Ok(PoolExports { foreign: needs.foreign.iter().filter_map(of).collect(), own })
    }
}

/// Whether all of `part` lies in `whole`. Neither wraps around.
const fn contains(whole: MemoryRange, part: MemoryRange) -> bool {
    match part.addr.checked_sub(whole.addr) {
        Some(skipped) => skipped <= whole.len && part.len <= whole.len - skipped,
        None => false,
    }
}

#[cfg(test)]
mod tests;
