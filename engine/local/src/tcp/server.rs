//! The producer's side: memory that readers can read over TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use kvrail_core::provider::MemoryRange;
use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::listener::Listener;
use kvrail_host::secret::RandomError;
use kvrail_host::wake::StopSignal;

use super::address::TcpAddress;
use super::serve::{MAX_LANES, ServerState, ServerThread, TcpExport};
use crate::region::ExportedRegion;

/// The most exports of one server.
pub const MAX_EXPORTS: usize = 16;

/// Answers READs of its exports. Functional only: see [the module](super). Dropping the server ends
/// every connection; its exports are not read after that.
#[derive(Debug)]
pub struct TcpServer {
    address: TcpAddress,
    regions: Vec<ExportedRegion>,
    stop: Arc<StopSignal>,
    thread: Option<JoinHandle<()>>,
    owner: OwnerProcess,
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TcpServeError {
    /// Too few or too many exports.
    #[error("{exports} exports were given to one server, which takes 1 to {MAX_EXPORTS}: use larger exports")]
    Exports {
        /// How many were given.
        exports: usize,
    },
    /// An empty range, or one that wraps around.
    #[error("export {index} is {} bytes at {:#x}, which is empty or wraps around", range.len, range.addr)]
    Range {
        /// Its number.
        index: usize,
        /// The range.
        range: MemoryRange,
    },
    /// Readers cannot connect to an unspecified IP address.
    #[error("a server cannot listen at {bind}: give the address of the interface that readers use")]
    Unspecified {
        /// The address to listen at.
        bind: SocketAddr,
    },
    /// The system refused.
    #[error("a server could not be started at {bind}: {step} failed: {source}")]
    System {
        /// The address to listen at.
        bind: SocketAddr,
        /// The step.
        step: &'static str,
        /// The system's reason.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: io::Error,
    },
    /// The system has no random numbers to give.
    #[error("the system gave no random numbers for a server's address: {0}")]
    Random(RandomError),
}

impl TcpServeError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Exports { .. } => 3160,
            Self::Range { .. } => 3161,
            Self::Unspecified { .. } => 3162,
            Self::System { .. } => 3163,
            Self::Random(_) => 3164,
        }
    }
}

impl TcpServer {
    /// Listens at `bind` (port 0: any free port) and serves `exports` until it is dropped.
    ///
    /// # Errors
    ///
    /// No export or more than [`MAX_EXPORTS`], or an export that is no range of memory; an
    /// unspecified IP address; or the system refused something.
    pub fn start(bind: SocketAddr, exports: Vec<TcpExport>) -> Result<Self, TcpServeError> {
        Self::start_for(bind, exports, MAX_LANES)
    }

    fn start_for(bind: SocketAddr, exports: Vec<TcpExport>, max_lanes: usize) -> Result<Self, TcpServeError> {
        if exports.is_empty() || exports.len() > MAX_EXPORTS {
            return Err(TcpServeError::Exports { exports: exports.len() });
        }
        if bind.ip().is_unspecified() {
            return Err(TcpServeError::Unspecified { bind });
        }
        let regions = exports.iter().zip(0..).map(|(export, rkey)| {
            let range @ MemoryRange { addr: base, len } = export.range;
            let bad = TcpServeError::Range { index: rkey as usize, range };
            base.checked_add(len).filter(|_| len > 0).ok_or(bad)?;
            Ok(ExportedRegion { base, len, rkey })
        });
        let regions = regions.collect::<Result<Vec<_>, _>>()?;
        let failed = |step| move |source| TcpServeError::System { bind, step, source };
        let listener = Listener::bind(bind, "kvrail-tcp-bind").map_err(failed("listening"))?;
        let address = TcpAddress::random(listener.local_addr()).map_err(TcpServeError::Random)?;
        let stop = StopSignal::new().map_err(|errno| failed("eventfd")(errno.into()))?;
        let stop = Arc::new(stop);
        let thread = ServerThread::new(ServerState::new(address, regions.clone(), exports, max_lanes));
        let raised = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("kvrail-tcp-srv".into())
            .spawn(move || thread.run(&listener, &raised))
            .map_err(failed("starting a thread"))?;
        Ok(Self { address, regions, stop, thread: Some(thread), owner: OwnerProcess::current() })
    }

    /// The address that a reader connects to.
    #[must_use]
    pub fn address(&self) -> &TcpAddress {
        &self.address
    }

    /// The exports, in the order given: base, length and rkey, as READs name them.
    #[must_use]
    pub fn regions(&self) -> &[ExportedRegion] {
        &self.regions
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        // In a child of a fork there is no thread, and the stop signal is the parent's.
        if !self.owner.is_current() {
            return;
        }
        self.stop.raise();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use kvrail_host::segment::Segment;

    use super::*;
    use crate::tcp::{TcpConnectError, TcpConnection};

    #[test]
    fn a_lane_beyond_the_limit_is_refused_until_another_lane_ends() {
        let segment = Arc::new(Segment::new(4096).unwrap());
        let bind = "127.0.0.1:0".parse().unwrap();
        let server = TcpServer::start_for(bind, vec![TcpExport::segment(segment)], 2).unwrap();
        let open = || TcpConnection::open(server.address());
        let (first, _second) = (open().unwrap(), open().unwrap());
        let error = open().unwrap_err();
        assert!(matches!(error, TcpConnectError::Full { .. }), "{error}");
        drop(first);
        let begun = Instant::now();
        while let Err(error) = open() {
            assert!(begun.elapsed() < Duration::from_secs(10), "{error}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
