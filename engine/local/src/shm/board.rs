//! Questions about exports, between the lanes of a reader and the thread that has the connection.
//!
//! A lane that READs an rkey for the first time posts a question and waits for a bounded time. The
//! thread asks the exporter and puts the answer here. Nothing here owns a descriptor, since the
//! thread has a descriptor table of its own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kvrail_host::segment::{SegmentView, SegmentViewError};

use super::wire::Description;

/// How long a READ waits for the exporter to describe an export.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// How often a waiting READ looks whether its lane is to fail.
const GLANCE: Duration = Duration::from_millis(10);

/// An export that the connection's thread has learned of.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) description: Description,
    pub(super) means: Means,
}

/// What the connection's thread has made of an export.
#[derive(Debug)]
pub(super) enum Means {
    Mapped(Arc<SegmentView>),
    /// Its file is the next descriptor on the socket between the thread and the process.
    FileFollows,
    Process,
    /// It is a segment, and not safe to read.
    Unsafe(SegmentViewError),
}

/// What a question came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The export is among those that were found.
    Found,
    /// There is no such export.
    Unknown,
    /// No answer came in time, or the connection has ended, or the lane is to fail.
    NoAnswer,
}

#[derive(Debug)]
struct Question {
    rkey: u32,
    waiters: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Asked,
    Answered(Outcome),
}

#[derive(Debug, Default)]
struct State {
    questions: Vec<Question>,
    found: VecDeque<Found>,
}

#[derive(Debug, Default)]
pub(super) struct Board {
    state: Mutex<State>,
    changed: Condvar,
    /// The connection has ended: the producer has died or has dropped its exporter.
    dead: AtomicBool,
    /// The reader has ended.
    stop: AtomicBool,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Ends all waits, now and later.
    pub(super) fn connection_ended(&self) {
        self.dead.store(true, Ordering::Release);
        let _state = self.lock();
        self.changed.notify_all();
    }

    /// Posts a question, calls `wake` for the thread to see it, and waits for the answer until
    /// [`PATIENCE`] has passed or `failing` is set.
    pub(super) fn ask(&self, rkey: u32, failing: &AtomicBool, wake: impl FnOnce()) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.lock();
        match state.questions.iter_mut().find(|question| question.rkey == rkey) {
            Some(question) => question.waiters += 1,
            None => state.questions.push(Question { rkey, waiters: 1, stage: Stage::New }),
        }
        wake();
        let outcome = loop {
            let stage = state.questions.iter().find(|question| question.rkey == rkey).map(|q| q.stage);
            match stage {
                Some(Stage::Answered(outcome)) => break outcome,
                Some(_) if self.is_dead() || failing.load(Ordering::Acquire) => break Outcome::NoAnswer,
                Some(_) if Instant::now() < deadline => {}
                _ => break Outcome::NoAnswer,
            }
            let woken = self.changed.wait_timeout(state, GLANCE);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        };
        state.questions.retain_mut(|question| {
            question.waiters -= u32::from(question.rkey == rkey);
            question.waiters > 0
        });
        outcome
    }

    /// The next question that the exporter has not been asked.
    pub(super) fn next_question(&self) -> Option<u32> {
        let mut state = self.lock();
        let question = state.questions.iter_mut().find(|question| question.stage == Stage::New)?;
        question.stage = Stage::Asked;
        Some(question.rkey)
    }

    /// Answers the question for `rkey`. `None`: there is no such export.
    pub(super) fn answer(&self, rkey: u32, found: Option<Found>) {
        let mut state = self.lock();
        let outcome = if found.is_some() { Outcome::Found } else { Outcome::Unknown };
        state.found.extend(found);
        if let Some(question) = state.questions.iter_mut().find(|question| question.rkey == rkey) {
            question.stage = Stage::Answered(outcome);
        }
        self.changed.notify_all();
    }

    /// The next export that was found, in the order in which their descriptors come.
    pub(super) fn next_found(&self) -> Option<Found> {
        self.lock().found.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_asked_once_and_answered_to_all_who_wait() {
        let board = Board::default();
        let failing = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiters = [0, 1].map(|_| scope.spawn(|| board.ask(7, &failing, || ())));
            let start = Instant::now();
            while board.lock().questions.first().is_none_or(|question| question.waiters < 2) {
                assert!(start.elapsed() < PATIENCE);
                std::thread::yield_now();
            }
            assert_eq!((board.next_question(), board.next_question()), (Some(7), None));
            board.answer(7, None);
            assert_eq!(waiters.map(|waiter| waiter.join().unwrap()), [Outcome::Unknown; 2]);
        });
        assert!(board.lock().questions.is_empty());
    }

    #[test]
    fn a_wait_ends_with_the_connection_with_the_lane_and_with_patience() {
        let (board, failing) = (Board::default(), AtomicBool::new(false));
        let start = Instant::now();
        assert_eq!(board.ask(7, &failing, || ()), Outcome::NoAnswer);
        assert!(start.elapsed() >= PATIENCE);
        failing.store(true, Ordering::Release);
        assert_eq!(board.ask(7, &failing, || ()), Outcome::NoAnswer);
        failing.store(false, Ordering::Release);
        board.connection_ended();
        assert_eq!(board.ask(7, &failing, || ()), Outcome::NoAnswer);
        assert!(start.elapsed() < 2 * PATIENCE);
        assert!(board.lock().questions.is_empty());
    }
}
