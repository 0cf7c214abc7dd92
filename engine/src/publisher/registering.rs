//! Making memory readable: several exports at a time, with their progress in the log.

use std::fmt::Display;
use std::path::Path;

use kvrail_host::numa::NodePlacement;
use kvrail_host::pieces;
use kvrail_session::PoolId;

use super::wanted::Wanted;
use crate::cutting::Limit;
use crate::transport::{Export, Exporter, TransportError};

/// The most exports at the same time by default.
const MOST: usize = 16;

/// How memory is made readable.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registering {
    /// The most bytes of one export, below what the transport can do.
    pub(super) piece_bytes: u64,
    /// How many exports are made at the same time; `None`: as many as the transport has use for.
    pub(super) at_once: Option<usize>,
    /// Whether memory of the publisher's own comes from the NUMA node of the NICs.
    pub(super) near_nics: bool,
}

impl Registering {
    pub(super) const DEFAULT: Self = Self { piece_bytes: u64::MAX, at_once: None, near_nics: true };

    /// The most bytes of one export over this transport.
    pub(super) fn limit(&self, exporter: &dyn Exporter) -> Limit {
        Limit::new(self.piece_bytes.min(exporter.max_bytes()))
    }

    fn threads(&self, exporter: &dyn Exporter) -> usize {
        self.at_once.unwrap_or_else(|| exporter.parallel().min(MOST)).max(1)
    }

    /// Does `allocate`, which makes memory of the publisher's own, where that memory comes from the
    /// NUMA node of the NICs. Where this cannot be, it comes from any node, and the log says why.
    pub(super) fn near_nics<R: Send>(
        &self,
        exporter: &dyn Exporter,
        pool: PoolId,
        allocate: impl Fn() -> R + Sync,
    ) -> R {
        self.near_nics_of(Path::new("/"), exporter, pool, allocate)
    }

    /// As [`near_nics`](Self::near_nics), by the system whose files are below `root`.
    fn near_nics_of<R: Send>(
        &self,
        root: &Path,
        exporter: &dyn Exporter,
        pool: PoolId,
        allocate: impl Fn() -> R + Sync,
    ) -> R {
        let Some(node) = exporter.numa_node().filter(|_| self.near_nics) else { return allocate() };
        let anywhere = |why: &dyn Display| {
            tracing::info!(pool = pool.0, %why, "memory of any NUMA node");
            allocate()
        };
        let placed = match NodePlacement::of(root, node) {
            Ok(Some(placed)) => placed,
            Ok(None) => return allocate(),
            Err(why) => return anywhere(&why),
        };
        let made = placed.run(&allocate);
        made.inspect(|_| tracing::debug!(pool = pool.0, node, cpus = %placed.cpus(), "memory near the NICs"))
            .unwrap_or_else(|why| anywhere(&why))
    }

    /// Makes exports, in the order of `jobs`. Threads take the jobs one by one.
    ///
    /// # Errors
    ///
    /// The first that failed. The others have been released then, in the order of `jobs`.
    pub(super) fn run(
        &self,
        exporter: &dyn Exporter,
        pool: PoolId,
        jobs: &[Wanted],
    ) -> Result<Vec<Export>, TransportError> {
        let what = format_args!("pool {}", pool.0);
        pieces::register(&what, self.threads(exporter), jobs, Wanted::bytes, |job| job.make(exporter))
    }
}

#[cfg(test)]
mod tests;
