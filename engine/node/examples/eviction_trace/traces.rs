//! Synthetic requests of a cluster that caches prefixes: each is a chain of pages, and every page
//! stands for all tokens up to its end.

/// SplitMix64, so that a trace is the same on every machine.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `from..=to`.
    fn between(&mut self, from: usize, to: usize) -> usize {
        from + (self.next() % (to - from + 1) as u64) as usize
    }

    /// Whether something with this probability happens.
    fn happens(&mut self, probability: f64) -> bool {
        self.next() as f64 / u64::MAX as f64 <= probability
    }

    /// A number below `n`; number i has a probability in proportion to 1 / (i + 1).
    fn zipf(&mut self, n: usize) -> usize {
        let sum: f64 = (1..=n).map(|i| 1.0 / i as f64).sum();
        let mut left = self.next() as f64 / u64::MAX as f64 * sum;
        (0..n - 1)
            .find(|&i| {
                left -= 1.0 / (i + 1) as f64;
                left <= 0.0
            })
            .unwrap_or(n - 1)
    }
}

/// The shares of requests of each kind, in percent, and the name.
pub(crate) struct Mix {
    pub(crate) name: &'static str,
    chats: usize,
    agents: usize,
    scans: usize,
}

pub(crate) const MIXES: [Mix; 4] = [
    Mix { name: "chats", chats: 100, agents: 0, scans: 0 },
    Mix { name: "chats, 10 % scans", chats: 90, agents: 0, scans: 10 },
    Mix { name: "agents", chats: 0, agents: 100, scans: 0 },
    Mix { name: "all three", chats: 60, agents: 35, scans: 5 },
];

/// A conversation or an agent: what it has said so far.
struct Thread {
    pages: Vec<u64>,
    /// The probability with which each further request is the last.
    ends: f64,
    grows: (usize, usize),
}

/// Makes the requests of a trace, one after another.
pub(crate) struct Trace<'a> {
    mix: &'a Mix,
    chance: Chance,
    next_page: u64,
    /// Shared prompts of chats, and of agents with their tools.
    prompts: [Vec<Vec<u64>>; 2],
    threads: [Vec<Thread>; 2],
}

/// Chats and agents that are active at a time.
const ACTIVE: [usize; 2] = [400, 24];

impl<'a> Trace<'a> {
    pub(crate) fn new(mix: &'a Mix, seed: u64) -> Self {
        let mut trace = Self {
            mix,
            chance: Chance::new(seed),
            next_page: 0,
            prompts: [Vec::new(), Vec::new()],
            threads: [Vec::new(), Vec::new()],
        };
        for _ in 0..100 {
            let prompt = trace.some_pages(4, 48);
            trace.prompts[0].push(prompt);
        }
        for _ in 0..6 {
            let prompt = trace.some_pages(96, 192);
            trace.prompts[1].push(prompt);
        }
        for (kind, active) in ACTIVE.into_iter().enumerate() {
            for _ in 0..active {
                let thread = trace.begin(kind);
                trace.threads[kind].push(thread);
            }
        }
        trace
    }

    fn some_pages(&mut self, from: usize, to: usize) -> Vec<u64> {
        let count = self.chance.between(from, to) as u64;
        let first = self.next_page;
        self.next_page += count;
        (first..self.next_page).collect()
    }

    fn begin(&mut self, kind: usize) -> Thread {
        let prompt = self.chance.zipf(self.prompts[kind].len());
        let pages = self.prompts[kind][prompt].clone();
        let (turns, grows) = [(5.0, (1, 12)), (30.0, (1, 16))][kind];
        Thread { pages, ends: 1.0 / turns, grows }
    }

    /// The pages of the next request, the first of its prompt first.
    pub(crate) fn request(&mut self) -> Vec<u64> {
        let share = self.chance.between(0, 99);
        if share >= self.mix.chats + self.mix.agents {
            debug_assert!(self.mix.scans > 0);
            return self.some_pages(128, 1024);
        }
        let kind = usize::from(share >= self.mix.chats);
        let at = self.chance.between(0, ACTIVE[kind] - 1);
        let (from, to) = self.threads[kind][at].grows;
        // The question and, from the last turn, the answer; or the result of a tool.
        let more = self.some_pages(from, to);
        self.threads[kind][at].pages.extend(more);
        let pages = self.threads[kind][at].pages.clone();
        if self.chance.happens(self.threads[kind][at].ends) {
            self.threads[kind][at] = self.begin(kind);
        } else if kind == 1 && self.chance.happens(0.05) {
            // An agent that begins others: they go on from what it has read so far.
            let other = self.chance.between(0, ACTIVE[1] - 1);
            self.threads[1][other].pages.clone_from(&pages);
        }
        pages
    }
}
