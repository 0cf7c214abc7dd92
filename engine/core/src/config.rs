//! How an engine is tuned at run time: sizes of chunks and runs, caps of rails, time-outs and
//! back-off.

use crate::time::Nanos;

/// How an engine behaves, within the maxima of its storage. The defaults suit 400 Gb/s ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// A page longer than this travels as several work requests; a power of two, at least 4,096.
    pub chunk_bytes: u32,
    /// How many chunks go to one lane in one commit when the peer has several lanes: 16, the READ
    /// depth of most devices. Deciding for each chunk costs three times as much, runs of 8 a third
    /// more (docs/performance.md).
    pub run_chunks: u32,
    /// A run ends at this many bytes.
    pub run_bytes: u32,
    /// How many bytes a peer may post before the next peer with work has its turn.
    pub quantum_bytes: u32,
    /// The most wrs of a lane from one signaled wr to the next. Fewer return credits sooner.
    pub signal_wrs: u32,
    /// The most bytes of a lane from one signaled wr to the next.
    pub signal_bytes: u32,
    /// The most bytes outstanding on one rail. Beyond 1–2 MiB of pages NICs get slower.
    pub rail_bytes: u64,
    /// The most wrs outstanding on one rail. Beyond 512–768 small wrs NICs get slower.
    pub rail_wrs: u32,
    /// A lane that has wrs outstanding and completes none of them for this long is failed; 1 us to
    /// 2^50 ns.
    pub stall: Nanos,
    /// A failed lane whose flush has not ended after this long is destroyed instead; 1 us to 2^50
    /// ns.
    pub drain: Nanos,
    /// How long after a path's first failure its next lane is requested; doubled with each further
    /// failure.
    pub backoff_min: Nanos,
    /// The longest back-off of a path.
    pub backoff_max: Nanos,
    /// The most lanes that are requested at the same time. More would be a reconnect storm.
    pub reconnects: u16,
    /// After this many pages of one region were found to kill their lanes, the whole region is set
    /// aside.
    pub region_faults: u16,
    /// For how long a page that killed its lanes, or a region with such pages, is not read. Each
    /// new try costs a lane.
    pub set_aside: Nanos,
}

impl EngineConfig {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        chunk_bytes: 256 << 10,
        run_chunks: 16,
        run_bytes: 256 << 10,
        quantum_bytes: 512 << 10,
        signal_wrs: 16,
        signal_bytes: 512 << 10,
        rail_bytes: 2 << 20,
        rail_wrs: 512,
        stall: Nanos::from_millis(1_000),
        drain: Nanos::from_millis(1_000),
        backoff_min: Nanos::from_millis(10),
        backoff_max: Nanos::from_millis(2_000),
        reconnects: 8,
        region_faults: 3,
        set_aside: Nanos::from_secs(30),
    };

    /// Checks what can be checked without the rest of the engine.
    ///
    /// # Errors
    ///
    /// The first field that cannot work, with its value and the values that can.
    pub fn check(&self) -> Result<(), EngineConfigError> {
        if !self.chunk_bytes.is_power_of_two() || self.chunk_bytes < 4096 {
            return Err(EngineConfigError::Chunk(self.chunk_bytes));
        }
        let positive = [
            ("run_chunks", u64::from(self.run_chunks)),
            ("run_bytes", u64::from(self.run_bytes)),
            ("quantum_bytes", u64::from(self.quantum_bytes)),
            ("signal_wrs", u64::from(self.signal_wrs)),
            ("signal_bytes", u64::from(self.signal_bytes)),
            ("rail_bytes", self.rail_bytes),
            ("rail_wrs", u64::from(self.rail_wrs)),
            ("stall", self.stall.0),
            ("drain", self.drain.0),
            ("backoff_min", self.backoff_min.0),
            ("reconnects", u64::from(self.reconnects)),
            ("region_faults", u64::from(self.region_faults)),
            ("set_aside", self.set_aside.0),
        ];
        for (name, value) in positive {
            if value == 0 {
                return Err(EngineConfigError::Zero(name));
            }
        }
        let limits = [
            ("rail_bytes", self.rail_bytes, 1, 1 << 40),
            ("stall (ns)", self.stall.0, 1_000, 1 << 50),
            ("drain (ns)", self.drain.0, 1_000, 1 << 50),
        ];
        for (name, value, least, most) in limits {
            if value < least || value > most {
                return Err(EngineConfigError::Range { name, value, least, most });
            }
        }
        if self.backoff_max < self.backoff_min {
            return Err(EngineConfigError::Backoff { min: self.backoff_min.0, max: self.backoff_max.0 });
        }
        Ok(())
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A configuration that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineConfigError {
    /// The chunk size is no power of two, or too small.
    #[error("chunk_bytes is {0}: it must be a power of two, at least 4096")]
    Chunk(u32),
    /// A field that must not be 0.
    #[error("{0} is 0: it must be at least 1")]
    Zero(&'static str),
    /// A field outside of the range that the engine's arithmetic allows.
    #[error("{name} is {value}: it must be {least} to {most}")]
    Range {
        /// The field.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed value.
        least: u64,
        /// The greatest allowed value.
        most: u64,
    },
    /// The longest back-off is shorter than the first.
    #[error("backoff_max ({max} ns) is less than backoff_min ({min} ns): make it at least as long")]
    Backoff {
        /// `backoff_min`, in ns.
        min: u64,
        /// `backoff_max`, in ns.
        max: u64,
    },
}

impl EngineConfigError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Chunk(..) => 2000,
            Self::Zero(..) => 2001,
            Self::Range { .. } => 2002,
            Self::Backoff { .. } => 2003,
        }
    }
}
