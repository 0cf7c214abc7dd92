//! What the machine can do at best: the same pages, copied by nothing but the rails' own copy routine, in
//! the pieces that a rail gets of them.
//!
//! It runs in the producer's process, over the published pages themselves, into memory made as a reader's
//! is; with as many threads as a reader has rails, each going round its share of the pages.

use std::time::Duration;

use anyhow::Context;
use kvrail::local::copy_bytes;
use kvrail::{Publisher, clock, shm};
use serde::{Deserialize, Serialize};

use crate::window::{Count, Failed, Recorder, Sample, Span};

/// How much of a page an engine hands to a rail at a time.
pub(crate) const PIECE: usize = shm::ENGINE_CONFIG.chunk_bytes as usize;

/// What copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Routine {
    /// What a rail copies with, piece by piece: the limit.
    Rail,
    /// The C library's `memcpy`, whole pages: for comparison.
    Libc,
}

impl Routine {
    fn copy(self, from: &[u8], to: &mut [u8]) {
        match self {
            Self::Rail => from.chunks(PIECE).zip(to.chunks_mut(PIECE)).for_each(|(f, t)| copy_bytes(f, t)),
            Self::Libc => to.copy_from_slice(from),
        }
    }
}

/// What copying takes.
#[derive(Debug)]
pub(crate) struct Copier {
    memory: &'static mut [u8],
    /// One for each thread.
    recorders: Vec<Recorder>,
    /// Pages copied between two looks at the clock, as a reader's batch.
    run: usize,
}

impl Copier {
    /// With room for every page of `publisher`.
    pub(crate) fn new(publisher: &Publisher, threads: usize, run: usize) -> anyhow::Result<Self> {
        let bytes = publisher.slots() as usize * publisher.layout().page_bytes() as usize;
        let memory = kvrail::memory::leaked(bytes)?;
        // A reader's registration makes its pages present, so that no copy has to.
        memory.fill(0);
        // A thread without a page has nothing to do.
        let threads = threads.min(publisher.slots() as usize);
        Ok(Self { memory, recorders: (0..threads).map(|_| Recorder::new(false)).collect(), run })
    }

    /// Copies from `start` on, for `warmup` and `duration`. Returns when all threads were at work.
    pub(crate) fn round(
        &mut self,
        publisher: &Publisher,
        routine: Routine,
        start: u64,
        warmup: Duration,
        duration: Duration,
    ) -> anyhow::Result<Span> {
        let page_bytes = publisher.layout().page_bytes() as usize;
        let pages = publisher.slots() as usize;
        let share = pages.div_ceil(self.recorders.len());
        let run = self.run;
        let from = start + warmup.as_nanos() as u64;
        let window = Span { from, to: from + duration.as_nanos() as u64 };
        self.recorders.iter_mut().for_each(|recorder| recorder.start(window));
        let spans = std::thread::scope(|scope| {
            let shares = self.memory.chunks_mut(share * page_bytes);
            let mut threads = Vec::with_capacity(self.recorders.len());
            for (number, (to, recorder)) in shares.zip(&mut self.recorders).enumerate() {
                let work = move || {
                    sleep_until(start);
                    let began = clock::now().0;
                    copy(publisher, routine, number * share, to, run, recorder, window.to);
                    recorder.finish(began, clock::now().0)
                };
                let thread = std::thread::Builder::new().spawn_scoped(scope, work);
                threads.push(thread.context("cannot start a thread that copies pages")?);
            }
            let joined = threads.into_iter().map(|thread| {
                thread.join().expect("a copying thread indexes within the pages that it was given")
            });
            anyhow::Ok(joined.collect::<Vec<_>>())
        })?;
        Ok(Span::common(spans).unwrap_or(Span { from: window.to, to: window.to }))
    }

    /// What all threads did in a window of the last round.
    pub(crate) fn count(&self, span: Span) -> Count {
        Recorder::count_all(&self.recorders, span)
    }
}

/// Goes round the pages of one thread until `end`.
fn copy(
    publisher: &Publisher,
    routine: Routine,
    first: usize,
    to: &mut [u8],
    run: usize,
    recorder: &mut Recorder,
    end: u64,
) {
    let page_bytes = publisher.layout().page_bytes() as usize;
    let (mut began, mut pages) = (clock::now().0, 0);
    loop {
        for (number, to) in to.chunks_exact_mut(page_bytes).enumerate() {
            // Slots are numbered in a u32.
            if let Ok(page) = publisher.page((first + number) as u32) {
                routine.copy(page, to);
            }
            pages += 1;
            if pages as usize == run {
                let at = clock::now().0;
                recorder.record(&Sample { at, took: at - began, pages, failed: Failed::default() });
                if at >= end {
                    return;
                }
                (began, pages) = (at, 0);
            }
        }
    }
}

/// Sleeps until shortly before `time`, and spins the rest, so that all start together.
pub(crate) fn sleep_until(time: u64) {
    loop {
        match time.saturating_sub(clock::now().0) {
            0 => return,
            left if left > 200_000 => std::thread::sleep(Duration::from_nanos(left - 100_000)),
            _ => std::hint::spin_loop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_routines_copy_every_byte_of_a_page() {
        for len in [1, 41_984, PIECE, PIECE + 1, 4_497_408] {
            let page: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8 + 1).collect();
            for routine in [Routine::Rail, Routine::Libc] {
                let mut to = vec![0; len];
                routine.copy(&page, &mut to);
                assert!(to == page, "{routine:?} {len}");
            }
        }
    }
}
