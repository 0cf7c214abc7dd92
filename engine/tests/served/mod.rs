//! A producer's transport of one rail over shared memory, for servers that no publisher makes.

use kvrail::core::id::RailIndex;
use kvrail::local::shm::{ShmExport, ShmExporter};
use kvrail::session::{LaneAcceptor, LaneBlob, LaneEndError, RailDescription, RailList};

/// A producer's one rail, and the exporter behind it.
pub(crate) struct Served {
    pub(crate) rail: RailDescription,
    pub(crate) _exporter: (ShmExport, ShmExporter),
}

impl LaneAcceptor for Served {
    type Lane = ();

    fn rails(&self) -> RailList {
        [self.rail].into_iter().collect()
    }

    fn accept(&self, _: RailIndex, _: &LaneBlob) -> Result<((), LaneBlob), LaneEndError> {
        Ok(((), LaneBlob::EMPTY))
    }

    fn release(&self, (): ()) {}
}
