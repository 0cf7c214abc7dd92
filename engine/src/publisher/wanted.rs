//! Memory that is to be made readable.

use std::sync::Arc;

use kvrail_core::provider::MemoryRange;
use kvrail_host::exported::ExportedMemory;
use kvrail_host::segment::Segment;

use super::foreign::ForeignMemory;
use crate::transport::{Export, Exporter, TransportError};

/// Memory that is to be made readable, by one export.
#[derive(Debug)]
pub(super) struct Wanted {
    range: MemoryRange,
    /// The ways by which a transport may reach it, in the order in which they are tried.
    ways: Vec<ExportedMemory>,
    /// A way that is not open, and what would open it.
    missing_way: Option<&'static str>,
}

impl Wanted {
    /// These bytes of a segment. They lie within it.
    pub(super) fn of_segment(segment: &Arc<Segment>, range: MemoryRange) -> Self {
        let ways = ExportedMemory::segment(Arc::clone(segment)).part(range).into_iter().collect();
        Self { range, ways, missing_way: None }
    }

    /// These bytes of foreign memory. They lie within it.
    pub(super) fn of_foreign(memory: &ForeignMemory, range: MemoryRange) -> Self {
        Self { range, ways: memory.ways(range).collect(), missing_way: memory.missing_way() }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.range.len
    }

    /// Makes the memory readable, in the first of its ways that the transport takes.
    pub(super) fn make(&self, exporter: &dyn Exporter) -> Result<Export, TransportError> {
        let mut refused = Vec::new();
        for way in &self.ways {
            match exporter.export(way.clone()) {
                Ok(export) => return Ok(export),
                Err(error) => refused.push(error),
            }
        }
        // Each way needs something else, so the text has what every one of them lacks.
        let mut texts: Vec<_> = refused.iter().map(ToString::to_string).collect();
        texts.extend(self.missing_way.map(Into::into));
        match refused.pop() {
            Some(only) if texts.len() == 1 => Err(only),
            _ => Err(texts.join("; and ").into()),
        }
    }
}
