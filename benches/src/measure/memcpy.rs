//! The limit of this machine: the same pages, copied by the rails' own copy routine alone, in the
//! pieces that a rail gets of them.
//!
//! The copy runs in the producer's process, from the published pages themselves into memory that is
//! made as a reader's is. It has as many threads as a reader has rails, or fewer, and each goes
//! round its share of the pages.

use anyhow::Context;
use kvrail::local::copy_bytes;
use kvrail::{Publisher, clock, shm};

use crate::measure::clock::sleep_until;
use crate::measure::window::{Count, Counter, Failed, Recorder, Sample, Span};
use crate::process::protocol::{CopySetup, Copying, Routine};

/// How much of a page an engine hands to a rail at a time.
const PIECE: usize = shm::ENGINE_CONFIG.chunk_bytes as usize;

/// Copies one page.
fn copy_page(routine: Routine, from: &[u8], to: &mut [u8]) {
    match routine {
        Routine::Rail => from.chunks(PIECE).zip(to.chunks_mut(PIECE)).for_each(|(f, t)| copy_bytes(f, t)),
        Routine::Libc => to.copy_from_slice(from),
    }
}

/// The threads that copy, and their memory.
#[derive(Debug)]
pub(crate) struct Copier {
    memory: &'static mut [u8],
    /// One for each thread.
    recorders: Vec<Recorder>,
    /// How many of these had a thread in the last round.
    active: usize,
    /// Pages copied between two looks at the clock.
    batch: usize,
}

impl Copier {
    /// Takes memory for every page of `publisher`.
    pub(crate) fn new(publisher: &Publisher, copy: CopySetup) -> anyhow::Result<Self> {
        let bytes = publisher.slots() as usize * publisher.layout().page_bytes() as usize;
        let memory = kvrail::memory::leaked(bytes)?;
        // A reader's registration makes its pages present, so that no copy has to.
        memory.fill(0);
        // A thread without a page has nothing to do.
        let threads = usize::from(copy.threads).min(publisher.slots() as usize);
        let recorders = (0..threads).map(|_| Recorder::new(false)).collect();
        Ok(Self { memory, recorders, active: 0, batch: copy.batch })
    }

    /// Copies from `start` on, for `warmup` and `duration`, all in nanoseconds. Returns when all
    /// threads were at work.
    pub(crate) fn round(
        &mut self,
        publisher: &Publisher,
        copying: Copying,
        start: u64,
        warmup: u64,
        duration: u64,
    ) -> anyhow::Result<Span> {
        let page_bytes = publisher.layout().page_bytes() as usize;
        let Copying { routine, threads } = copying;
        self.active = usize::from(threads).clamp(1, self.recorders.len());
        let share = (publisher.slots() as usize).div_ceil(self.active);
        let batch = self.batch;
        let window = Span { from: start + warmup, to: start + warmup + duration };
        let recorders = &mut self.recorders[..self.active];
        recorders.iter_mut().for_each(|recorder| recorder.start(window));
        let spans = std::thread::scope(|scope| {
            let shares = self.memory.chunks_mut(share * page_bytes);
            let mut threads = Vec::with_capacity(recorders.len());
            for (number, (to, recorder)) in shares.zip(recorders).enumerate() {
                let work = move || {
                    sleep_until(start);
                    let began = clock::now().0;
                    copy_pages(publisher, routine, number * share, to, batch, recorder, window.to);
                    recorder.finish(began, clock::now().0)
                };
                let thread =
                    std::thread::Builder::new().name("bench-memcpy".into()).spawn_scoped(scope, work);
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
        Counter::new().count(&self.recorders[..self.active], span)
    }
}

/// Goes round the pages of one thread until `end`. `first` is the slot of the first of them.
fn copy_pages(
    publisher: &Publisher,
    routine: Routine,
    first: usize,
    to: &mut [u8],
    batch: usize,
    recorder: &mut Recorder,
    end: u64,
) {
    let page_bytes = publisher.layout().page_bytes() as usize;
    let (mut began, mut pages) = (clock::now().0, 0);
    loop {
        for (number, to) in to.chunks_exact_mut(page_bytes).enumerate() {
            // Slot numbers are u32.
            if let Ok(page) = publisher.page((first + number) as u32) {
                copy_page(routine, &page, to);
            }
            pages += 1;
            if pages as usize == batch {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_routines_copy_every_byte_of_a_page() {
        for len in [1, 41_984, PIECE, PIECE + 1, 4_497_408] {
            let page: Vec<u8> = (0..len).map(|i| (i * 31 % 251) as u8 + 1).collect();
            for routine in [Routine::Rail, Routine::Libc] {
                let mut to = vec![0; len];
                copy_page(routine, &page, &mut to);
                assert!(to == page, "{routine:?} {len}");
            }
        }
    }
}
