//! Writing to stdout and stderr. A failed write is an error that names where it went. A reader that
//! closes its end, as `head` does, has read enough, and that is no error.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Text could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {to}: {source}")]
pub(crate) struct OutputError {
    to: String,
    source: io::Error,
}

/// Whether the text that was written can still be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// It was accepted.
    Accepted,
    /// The reader has closed its end of the pipe.
    ReaderGone,
}

/// Writes all of `text` to stdout, and flushes it.
///
/// # Errors
///
/// The text could not be written. A closed pipe is no error.
pub(crate) fn stdout(text: &[u8]) -> Result<Delivery, OutputError> {
    let mut out = io::stdout().lock();
    delivery(out.write_all(text).and_then(|()| out.flush()), || "stdout")
}

/// Writes all of `text` to stderr.
///
/// # Errors
///
/// The text could not be written. A closed pipe is no error.
pub(crate) fn stderr(text: &[u8]) -> Result<Delivery, OutputError> {
    delivery(io::stderr().write_all(text), || "stderr")
}

/// Writes `text`, which is all that a program has to say, to stdout, and returns the program's exit
/// code.
#[allow(dead_code, reason = "for the benchmarks, which include this file")]
pub(crate) fn printed(text: &str) -> ExitCode {
    match stdout(text.as_bytes()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            // Where stderr cannot be written either, the exit status shows the failure.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Turns the result of a write into a [`Delivery`]. `to` names where the text went.
///
/// # Errors
///
/// The text could not be written. A closed pipe is no error.
pub(crate) fn delivery<T: fmt::Display>(
    outcome: io::Result<()>,
    to: impl FnOnce() -> T,
) -> Result<Delivery, OutputError> {
    match outcome {
        Ok(()) => Ok(Delivery::Accepted),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Delivery::ReaderGone),
        Err(source) => Err(OutputError { to: to().to_string(), source }),
    }
}
