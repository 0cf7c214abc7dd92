//! The ends of a case: passed, skipped, or failed with a text.

use core::fmt::{self, Write as _};

use heapless::String;

/// A broken promise that a case has found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the provider breaks its contract: {text}")]
pub struct Failure {
    text: String<400>,
}

impl Failure {
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Self {
        let mut kept = String::new();
        // A text that does not fit is cut off; the name of the case is reported beside it.
        let _ = kept.write_fmt(text);
        Self { text: kept }
    }

    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self { .. } => 9200,
        }
    }
}

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a case passes, is skipped or fails")]
pub enum Outcome {
    /// The provider keeps the promise, as far as the case can see.
    Passed,
    /// The provider lacks an ability that the case needs.
    Skipped {
        /// The missing ability.
        missing: &'static str,
    },
    /// The provider breaks the promise.
    Failed(Failure),
}

/// Why a case cannot go on.
#[derive(Debug)]
pub(crate) enum Stop {
    Skip(&'static str),
    Fail(Failure),
}

/// What a case returns.
pub(crate) type CaseResult = Result<(), Stop>;

/// Ends the case with a failure.
macro_rules! fail {
    ($($text:tt)*) => {
        return Err($crate::failure::Stop::Fail($crate::failure::Failure::new(format_args!($($text)*))))
    };
}

/// Ends the case with a failure unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            $crate::failure::fail!($($text)*);
        }
    };
}

pub(crate) use {ensure, fail};
