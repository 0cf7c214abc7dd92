//! Questions and answers: what a reader asks a service of the producer, beside pages and lanes.
//!
//! A producer may have services, each with a number
//! ([`ServerConfig::service`](crate::ServerConfig::service)). A reader asks one with
//! [`Session::ask_service`](crate::Session::ask_service), or with a
//! [`ServiceClient`](crate::ServiceClient) from any thread. What the bytes of a question and of an
//! answer mean concerns the two programs alone: the session carries them, encrypted, in one message
//! each, and answers for a service that does not exist.
//!
//! Every question gets one answer, unless the session ends. Questions of one session are answered
//! in their order; the reader has [`MAX_UNANSWERED`] of them open at most.

mod asks;
mod error;
mod services;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use asks::Asks;
pub use error::AskError;
pub(crate) use services::WaitingAsks;
pub use services::{Asker, Service, ServiceError, Services};
pub use types::{
    AskNumber, MAX_SERVICE_BYTES, MAX_UNANSWERED, ServiceAnswer, ServiceAsk, ServiceNumber, ServiceRefusal,
    ServiceRefusalCode,
};
