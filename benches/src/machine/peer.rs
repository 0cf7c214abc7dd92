//! The facts of another host: `env --listen` gives them to every program that connects, and
//! `doctor --peer` takes them.
//!
//! There is no encryption and no authentication: the facts are those of files that every user of
//! the host can read, and a host gives them only while its user asks for that. What comes from the
//! network is bounded in bytes and in time, and judged as text.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The format of the document.
pub(crate) const SCHEMA: &str = "kvrail-bench-env/1";
/// The most bytes of a document. One of a machine with 16 NICs has less than one of them.
const LONGEST: usize = 16 << 20;
/// How long one step may take, and how long all may.
const STEP: Duration = Duration::from_secs(3);
const ALL: Duration = Duration::from_secs(10);

/// The facts of another host are not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The name means no address.
    #[error("--peer {peer}: {source}; give HOST:PORT of a host on which `kvrail-bench env --listen` runs")]
    Unresolved { peer: String, source: std::io::Error },
    /// Nothing answers.
    #[error(
        "--peer {peer} does not answer: {source}; start `kvrail-bench env --listen 0.0.0.0:{port}` there, and let the firewall pass that port"
    )]
    Silent { peer: String, port: u16, source: std::io::Error },
    /// It answers something else.
    #[error("--peer {peer} sends no facts ({why}); is it `kvrail-bench env --listen` of this version?")]
    OtherService { peer: String, why: String },
}

/// Gives the document to everything that connects, for as long as the process runs.
pub(crate) fn serve(listener: &TcpListener, document: &str) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        // A peer that does not read delays others by one step.
        let written =
            stream.set_write_timeout(Some(STEP)).and_then(|()| stream.write_all(document.as_bytes()));
        if let Err(error) = written {
            tracing::debug!(%error, "the facts were not taken");
        }
    }
}

/// Takes the facts of the host at `peer`.
///
/// # Errors
///
/// The host is not reached, or sends no facts.
pub(crate) fn facts(peer: &str) -> Result<Value, PeerError> {
    let named = || peer.to_owned();
    let addresses =
        peer.to_socket_addrs().map_err(|source| PeerError::Unresolved { peer: named(), source })?;
    let mut failed = None;
    for address in addresses {
        match text(address) {
            Ok(bytes) => return parsed(peer, &bytes),
            Err(source) => failed = Some((address.port(), source)),
        }
    }
    let (port, source) = failed.unwrap_or((0, std::io::ErrorKind::AddrNotAvailable.into()));
    Err(PeerError::Silent { peer: named(), port, source })
}

/// All that the host at this address sends, if it comes in time and is not too long.
fn text(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let until = Instant::now() + ALL;
    let mut stream = TcpStream::connect_timeout(&address, STEP)?;
    stream.set_read_timeout(Some(STEP))?;
    let mut bytes = Vec::new();
    let mut part = [0; 16 << 10];
    loop {
        let read = stream.read(&mut part)?;
        bytes.extend_from_slice(&part[..read]);
        if read == 0 || bytes.len() > LONGEST {
            return Ok(bytes);
        }
        if Instant::now() >= until {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
    }
}

fn parsed(peer: &str, bytes: &[u8]) -> Result<Value, PeerError> {
    let failed = |why: String| PeerError::OtherService { peer: peer.into(), why };
    if bytes.len() > LONGEST {
        return Err(failed(format!("more than {LONGEST} bytes")));
    }
    let mut document: Value = serde_json::from_slice(bytes).map_err(|error| failed(error.to_string()))?;
    if document["schema"] != SCHEMA {
        return Err(failed(format!("its format is not {SCHEMA}")));
    }
    Ok(document["environment"].take())
}
