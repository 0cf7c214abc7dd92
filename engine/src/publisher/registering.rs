//! Making memory readable: several exports at a time, with their progress in the log.

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
}

impl Registering {
    pub(super) const DEFAULT: Self = Self { piece_bytes: u64::MAX, at_once: None };

    /// The most bytes of one export over this transport.
    pub(super) fn limit(&self, exporter: &dyn Exporter) -> Limit {
        Limit::new(self.piece_bytes.min(exporter.max_bytes()))
    }

    fn threads(&self, exporter: &dyn Exporter) -> usize {
        self.at_once.unwrap_or_else(|| exporter.parallel().min(MOST)).max(1)
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
