//! The producer's side: memory that readers can read over TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use kvrail_host::descriptors::OwnerProcess;
use kvrail_host::exported::ExportedMemory;
use kvrail_host::listener::Listener;
use kvrail_host::secret::RandomError;
use kvrail_host::wake::StopSignal;

use super::address::TcpAddress;
use super::exports::{Exports, TcpExportError, TcpExported};
use super::serve::{MAX_LANES, ServerState, ServerThread};

/// Answers READs of its exports. Functional only: see [the module](super). Dropping the server ends
/// every connection; its exports are not read after that.
#[derive(Debug)]
pub struct TcpServer {
    address: TcpAddress,
    exports: Arc<Exports>,
    stop: Arc<StopSignal>,
    thread: Option<JoinHandle<()>>,
    owner: OwnerProcess,
}

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TcpServeError {
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
            Self::Unspecified { .. } => 3162,
            Self::System { .. } => 3163,
            Self::Random(_) => 3164,
        }
    }
}

impl TcpServer {
    /// Listens at `bind` (port 0: any free port) until it is dropped. There is no export yet: see
    /// [`export`](Self::export).
    ///
    /// # Errors
    ///
    /// An unspecified IP address; or the system refused something.
    pub fn start(bind: SocketAddr) -> Result<Self, TcpServeError> {
        Self::start_for(bind, MAX_LANES)
    }

    fn start_for(bind: SocketAddr, max_lanes: usize) -> Result<Self, TcpServeError> {
        if bind.ip().is_unspecified() {
            return Err(TcpServeError::Unspecified { bind });
        }
        let failed = |step| move |source| TcpServeError::System { bind, step, source };
        let listener = Listener::bind(bind, "kvrail-tcp-bind").map_err(failed("listening"))?;
        let address = TcpAddress::random(listener.local_addr()).map_err(TcpServeError::Random)?;
        let stop = StopSignal::new().map_err(|errno| failed("eventfd")(errno.into()))?;
        let stop = Arc::new(stop);
        let exports = Exports::new();
        let thread = ServerThread::new(ServerState::new(address, Arc::clone(&exports), max_lanes));
        let raised = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("kvrail-tcp-srv".into())
            .spawn(move || thread.run(&listener, &raised))
            .map_err(failed("starting a thread"))?;
        Ok(Self { address, exports, stop, thread: Some(thread), owner: OwnerProcess::current() })
    }

    /// The address that a reader connects to.
    #[must_use]
    pub fn address(&self) -> &TcpAddress {
        &self.address
    }

    /// Lets readers read `memory`, until the returned value is dropped.
    ///
    /// The server's threads do not touch the bytes: the system copies them. A READ of bytes that
    /// are not mapped any more completes with `REM_ACCESS_ERR`.
    ///
    /// # Errors
    ///
    /// The memory is a device's, or no range; there are [`MAX_EXPORTS`](crate::MAX_EXPORTS)
    /// already; or this process is a child of the one that started the server.
    pub fn export(&self, memory: ExportedMemory) -> Result<TcpExported, TcpExportError> {
        self.exports.export(memory)
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

    use super::*;
    use crate::tcp::{TcpConnectError, TcpConnection};

    #[test]
    fn a_lane_beyond_the_limit_is_refused_until_another_lane_ends() {
        let server = TcpServer::start_for("127.0.0.1:0".parse().unwrap(), 2).unwrap();
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
