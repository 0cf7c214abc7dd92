//! What is written for others to read. A write that fails is an error that names where it went; a
//! reader that hangs up, as `head` does, has read enough.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Text could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {to}: {source}")]
pub(crate) struct WriteError {
    to: String,
    source: io::Error,
}

/// Whether anybody reads what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Nothing says the contrary.
    Yes,
    /// The other end of the pipe is closed.
    No,
}

/// All of `text` to stdout, at once.
///
/// # Errors
///
/// It could not be written. A closed pipe is no error.
pub(crate) fn stdout(text: &[u8]) -> Result<Read, WriteError> {
    let mut out = io::stdout().lock();
    judged(out.write_all(text).and_then(|()| out.flush()), || "stdout")
}

/// All of `text` to stderr.
///
/// # Errors
///
/// It could not be written. A closed pipe is no error.
pub(crate) fn stderr(text: &[u8]) -> Result<Read, WriteError> {
    judged(io::stderr().write_all(text), || "stderr")
}

/// Writes `text` to stdout as all that a program has to say, and returns how it ends.
#[allow(dead_code, reason = "for the benchmarks")]
pub(crate) fn printed(text: &str) -> ExitCode {
    match stdout(text.as_bytes()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // Without anybody to read it the status says it.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// The outcome of writing to what `to` names.
///
/// # Errors
///
/// It could not be written. A closed pipe is no error.
pub(crate) fn judged<T: fmt::Display>(
    outcome: io::Result<()>,
    to: impl FnOnce() -> T,
) -> Result<Read, WriteError> {
    match outcome {
        Ok(()) => Ok(Read::Yes),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Read::No),
        Err(source) => Err(WriteError { to: to().to_string(), source }),
    }
}
