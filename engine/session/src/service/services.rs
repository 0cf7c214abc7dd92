//! The producer's side: services, and the questions of one session that wait for them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::types::{
    MAX_SERVICE_BYTES, ServiceAnswer, ServiceAsk, ServiceNumber, ServiceRefusal, ServiceRefusalCode,
};
use crate::name::{Name, NodeName};

/// How many questions of one session wait. While there are so many, no more bytes of the session
/// are taken; those of one read of the socket may be more.
const MAX_WAITING: usize = 64;

/// What answers the questions of readers.
pub trait Service: Send + Sync {
    /// Appends the answer to `ask` to `answer`, which is empty: [`MAX_SERVICE_BYTES`] at most.
    ///
    /// It is called on the thread that serves all sessions of the server, so all sessions wait
    /// meanwhile: it must not block, and takes a bounded number of steps, some tens of
    /// microseconds. A panic ends the question alone. `ask` comes from a peer, and may be anything.
    ///
    /// # Errors
    ///
    /// The service does not answer this question; the reader gets the text.
    fn answer(&self, asker: &Asker, ask: &[u8], answer: &mut Vec<u8>) -> Result<(), ServiceError>;
}

/// Who asks, and when.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Asker {
    /// The number of the session, counted from 1 by the server.
    pub session: u64,
    /// The name that the reader gave itself: for logs, since every holder of the key may give any.
    pub node: NodeName,
    /// The time of the question.
    pub now: Instant,
}

impl Asker {
    /// A reader that asks now, for tests and benchmarks of a service.
    #[must_use]
    pub const fn new(session: u64, node: NodeName, now: Instant) -> Self {
        Self { session, node, now }
    }
}

/// Why a service does not answer a question: a text for the reader, of which 64 bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ServiceError(NodeName);

impl ServiceError {
    /// An error with this text: what does not fit 64 bytes is cut off.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Name::lossy(text))
    }

    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        4224
    }
}

/// The services of a server.
#[derive(Clone, Default)]
pub struct Services(BTreeMap<ServiceNumber, Arc<dyn Service>>);

impl Services {
    /// Adds a service; it takes the place of an earlier one of the same number.
    pub fn add(&mut self, number: ServiceNumber, service: Arc<dyn Service>) {
        self.0.insert(number, service);
    }

    /// Whether there is no service.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Answers a question: with a refusal, where there is no answer.
    fn answer(&self, asker: &Asker, ask: &ServiceAsk) -> ServiceAnswer {
        let refuse = |code, text: &str| Err(ServiceRefusal { code, text: Name::lossy(text) });
        let result = match self.0.get(&ask.service) {
            None => refuse(ServiceRefusalCode::NoSuchService, &format!("service {}", ask.service)),
            Some(service) => {
                let mut content = Vec::new();
                // A panic of the service is its own failure; the message has been printed.
                match catch_unwind(AssertUnwindSafe(|| service.answer(asker, &ask.content, &mut content))) {
                    Ok(Ok(())) if content.len() <= MAX_SERVICE_BYTES => Ok(content),
                    Ok(Ok(())) => {
                        let text = format!("its answer had {} bytes", content.len());
                        refuse(ServiceRefusalCode::Failed, &text)
                    }
                    Ok(Err(ServiceError(text))) => {
                        Err(ServiceRefusal { code: ServiceRefusalCode::Refused, text })
                    }
                    Err(_) => refuse(ServiceRefusalCode::Failed, "it panicked"),
                }
            }
        };
        ServiceAnswer { number: ask.number, result }
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The questions of one session that were not answered yet. Each is answered when the socket takes
/// the answer, so a reader that takes nothing costs its questions, and no answer.
pub(crate) struct WaitingAsks {
    session: u64,
    node: NodeName,
    waiting: VecDeque<ServiceAsk>,
}

impl WaitingAsks {
    pub(crate) const fn new(session: u64, node: NodeName) -> Self {
        Self { session, node, waiting: VecDeque::new() }
    }

    pub(crate) fn received(&mut self, ask: ServiceAsk) {
        self.waiting.push_back(ask);
    }

    /// Whether the session may read more.
    pub(crate) fn takes_asks(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    pub(crate) fn has_answers(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Answers the next question.
    pub(crate) fn next_answer(&mut self, services: &Services, now: Instant) -> Option<ServiceAnswer> {
        let ask = self.waiting.pop_front()?;
        let asker = Asker::new(self.session, self.node, now);
        Some(services.answer(&asker, &ask))
    }
}
