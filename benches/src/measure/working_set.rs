//! How many bytes of pages a run takes that publishes and reads them on one host.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytesize::ByteSize;

use crate::catalogue::NamedLayout;
use crate::machine::memory::{Available, Memory, NotEnough, PROCESS};
use crate::measure::rung::Rung;
use crate::output::grid::wrapped;
use crate::output::verdict::WIDTH;

/// The default working set of the demo, where memory permits. It holds that six times over.
pub(crate) const USUAL: u64 = 512 << 20;

/// New memory that is written to see how busy the machine is.
const PROBE: usize = 32 << 20;
/// What writing the pages and all their copies may take of the demo's time.
const SETUP: Duration = Duration::from_secs(8);
/// The least that is left on a busy machine: more than most caches hold.
const LEAST: u64 = 64 << 20;

/// Bytes of published pages: as many as were given, or as many as fit.
///
/// # Errors
///
/// The given working set does not fit, or not even the smallest one does.
pub(crate) fn choose(
    given: Option<u64>,
    usual: u64,
    layouts: &[NamedLayout],
    rungs: &[Rung],
    memory: &Memory,
) -> Result<u64, NotEnough> {
    // The parent, the producer, and the readers.
    let processes = 2 + rungs.iter().map(|rung| rung.processes.len()).sum::<usize>();
    let beside = PROCESS * processes as u64;
    // The producer's pages, its copies of them, and those of each row.
    let copies = 2 + rungs.len() as u64;
    // Two copies less than fit, so that there is room to spare.
    let fits = |available: Available| usual.min(available.bytes.saturating_sub(beside) / (copies + 2));
    let working_set = given.unwrap_or_else(|| memory.available().map_or(usual, fits));
    let taken = |named: &NamedLayout| {
        let page = u64::from(named.layout.page_bytes());
        let pages = (working_set / page).max(1);
        // Each process reads at least one page.
        let of_row = |rung: &Rung| pages.max(rung.processes.len() as u64);
        (2 * pages + rungs.iter().map(of_row).sum::<u64>()) * page
    };
    let taken = layouts.iter().map(taken).max().unwrap_or(0);
    memory.afford(taken, processes, || format!("{copies} copies of the pages, and the processes"))?;
    Ok(working_set)
}

/// How long it takes to get and write some new memory.
pub(crate) fn probe() -> Duration {
    let start = Instant::now();
    drop(black_box(vec![1_u8; PROBE]));
    start.elapsed()
}

/// The working set whose copies, for all layouts, are written in time at the pace of the probe.
pub(crate) fn in_time(working_set: u64, layouts: usize, rungs: usize, probe: Duration) -> u64 {
    let copies = ((2 + rungs) * layouts) as u64;
    let whole = probe.mul_f64((working_set * copies) as f64 / PROBE as f64);
    let part = SETUP.as_secs_f64() / whole.as_secs_f64();
    if part >= 1.0 {
        return working_set;
    }
    #[expect(clippy::cast_sign_loss, reason = "a share is not negative")]
    let fits = (working_set as f64 * part) as u64;
    fits.max(LEAST.min(working_set))
}

/// Says that the demo takes a smaller working set since the machine is busy.
pub(crate) fn busy(working_set: u64, instead_of: u64) -> String {
    let size = |bytes| ByteSize::b(bytes).display().iec();
    let text = format!(
        "kvrail-bench: the demo takes {} of pages six times over, instead of {}: this machine is busy, and more would take too long",
        size(working_set),
        size(instead_of)
    );
    wrapped(&text, WIDTH - 2).join("\n  ") + "\n"
}

/// Says that the demo takes a smaller working set than usual, and why, in lines that fit a
/// terminal.
pub(crate) fn reduced(working_set: u64, memory: &Memory) -> String {
    let size = |bytes| ByteSize::b(bytes).display().iec();
    let why = memory.available().map_or(String::new(), |available| format!(": {available}"));
    let text = format!(
        "kvrail-bench: the demo takes {} of pages six times over, instead of {}{why}",
        size(working_set),
        size(USUAL),
    );
    wrapped(&text, WIDTH - 2).join("\n  ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::OF_THE_DEMO;
    use crate::measure::rung::rungs_of_the_demo;

    #[test]
    fn a_busy_machine_writes_fewer_pages_and_an_idle_one_all() {
        let of = |ms, bytes| in_time(bytes, 2, 4, Duration::from_millis(ms));
        assert_eq!([1, 15, 41].map(|ms| of(ms, USUAL)), [USUAL; 3]);
        // 192 pieces of the probe's size, at 83.3 ms each, take twice the time.
        let half = in_time(USUAL, 2, 4, Duration::from_secs(16) / 192);
        assert!(half.abs_diff(USUAL / 2) < 1024, "{half}");
        assert_eq!([of(10_000, USUAL), of(10_000, 8 * MIB), of(0, USUAL)], [LEAST, 8 * MIB, USUAL]);
        let text = busy(64 * MIB, USUAL);
        assert!(text.lines().all(|line| line.len() <= WIDTH) && text.contains("64.0 MiB"), "{text}");
    }

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn the_demo_takes_no_more_memory_than_a_limit_leaves() {
        let layouts = &OF_THE_DEMO;
        let rungs = rungs_of_the_demo(8);
        let memory = Memory::fake;
        let fits = |machine, limit| choose(None, USUAL, layouts, &rungs, &memory(machine, limit));
        assert_eq!(fits(24 * GIB, None).unwrap(), USUAL);
        assert_eq!(fits(24 * GIB, Some((16 * GIB, 15 * GIB))).unwrap(), USUAL);
        let limited = Memory::fake(24 * GIB, Some((2 * GIB, 2 * GIB - 8 * MIB)));
        let bytes = choose(None, USUAL, layouts, &rungs, &limited).unwrap();
        assert!(bytes < 256 * MIB && 6 * bytes + 13 * PROCESS < 2 * GIB, "{bytes}");
        let text = reduced(bytes, &limited);
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        let line = text.replace("\n  ", " ");
        for word in ["235.5 MiB of pages", "instead of 512.0 MiB", "(/box/memory.max is 2.0 GiB)"] {
            assert!(line.contains(word), "{word}: {line}");
        }
        // Where it does not fit it says so before anything is taken.
        let error = fits(24 * GIB, Some((2 * GIB, 128 * MIB))).unwrap_err().to_string();
        assert!(error.contains("128.0 MiB are available (/box/memory.max is 2.0 GiB)"), "{error}");
        // What the user gives is taken or refused, and never changed.
        let rungs = rungs_of_the_demo(2);
        let given = |bytes| choose(Some(bytes), USUAL, layouts, &rungs, &limited).ok();
        assert_eq!((given(64 * MIB), given(512 * MIB)), (Some(64 * MIB), None));
    }
}
