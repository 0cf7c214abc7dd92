//! The points of a sweep: every combination of the settings that were given.

use clap::ValueEnum;

use crate::catalogue::NamedLayout;
use crate::measure::ladder::CONCURRENCY;

/// The most points of a sweep. Each has processes of its own, which hold memory.
pub(crate) const MOST: usize = 64;

/// Settings for one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// How long does one page take? One batch of one page at a time.
    Latency,
    /// How much is there? Full batches, several in flight.
    Throughput,
    /// Where does more load bring no more? 1 to 32 batches in flight; the peak is marked.
    Saturation,
}

impl Preset {
    const fn concurrency(self) -> &'static [u8] {
        match self {
            Self::Latency => &[1],
            Self::Throughput => &[CONCURRENCY],
            Self::Saturation => &[1, 2, 4, 8, 16, 32],
        }
    }

    const fn batch(self) -> Option<u16> {
        match self {
            Self::Latency => Some(1),
            Self::Throughput | Self::Saturation => None,
        }
    }
}

/// The settings that were given; an empty list: the preset's, or the default.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    pub(crate) layouts: Vec<NamedLayout>,
    pub(crate) concurrency: Vec<u8>,
    pub(crate) batch: Vec<u16>,
    pub(crate) chunk_bytes: Vec<u32>,
    pub(crate) lanes_per_rail: Vec<u8>,
    pub(crate) preset: Preset,
}

/// One combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) named: NamedLayout,
    pub(crate) concurrency: u8,
    pub(crate) batch: usize,
    /// `None`: what suits the transport.
    pub(crate) chunk_bytes: Option<u32>,
    pub(crate) lanes_per_rail: u8,
}

impl Sweep {
    /// All points, the layout changing last, and lanes first.
    pub(crate) fn points(&self) -> Vec<Point> {
        let concurrency =
            if self.concurrency.is_empty() { self.preset.concurrency() } else { &self.concurrency };
        let batches: Vec<Option<u16>> = match &self.batch[..] {
            [] => vec![self.preset.batch()],
            given => given.iter().copied().map(Some).collect(),
        };
        let chunks: Vec<Option<u32>> = match &self.chunk_bytes[..] {
            [] => vec![None],
            given => given.iter().copied().map(Some).collect(),
        };
        let mut points = Vec::new();
        for &named in &self.layouts {
            for &concurrency in concurrency {
                for batch in &batches {
                    for &chunk_bytes in &chunks {
                        for &lanes_per_rail in &self.lanes_per_rail {
                            let batch = batch.map_or(named.batch(), usize::from);
                            points.push(Point { named, concurrency, batch, chunk_bytes, lanes_per_rail });
                        }
                    }
                }
            }
        }
        points
    }
}

impl Point {
    /// What tells this point from the others of its sweep: `c8 b32`. Empty where there is one.
    pub(crate) fn name(&self, all: &[Self]) -> String {
        let differs = |of: fn(&Self) -> u64| all.iter().any(|other| of(other) != of(self));
        let mut parts = Vec::new();
        let mut part = |letter: &str, of: fn(&Self) -> u64| {
            if differs(of) {
                parts.push(format!("{letter}{}", of(self)));
            }
        };
        part("c", |point| point.concurrency.into());
        part("b", |point| point.batch as u64);
        part("chunk", |point| point.chunk_bytes.unwrap_or(0).into());
        part("l", |point| point.lanes_per_rail.into());
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(preset: Preset) -> Sweep {
        let layouts = ["opaque-4k", "opaque-1m"].map(|name| NamedLayout::find(name).unwrap()).into();
        let (concurrency, batch, chunk_bytes) = (Vec::new(), Vec::new(), Vec::new());
        Sweep { layouts, concurrency, batch, chunk_bytes, lanes_per_rail: vec![1], preset }
    }

    #[test]
    fn every_combination_is_a_point() {
        let given = Sweep {
            concurrency: vec![1, 8],
            batch: vec![16, 32, 64],
            chunk_bytes: vec![1 << 18],
            lanes_per_rail: vec![1, 2],
            ..sweep(Preset::Throughput)
        };
        let points = given.points();
        assert_eq!(points.len(), 2 * 2 * 3 * 2);
        let names: std::collections::BTreeSet<_> =
            points.iter().map(|point| (point.named.name, point.name(&points))).collect();
        assert_eq!(names.len(), points.len(), "each has a name of its own");
        assert!(names.contains(&("opaque-1m", "c8 b64 l2".into())));
        assert_eq!(points[0].name(&points[..1]), "");
    }

    #[test]
    fn a_preset_stands_for_what_was_not_given() {
        let concurrency = |preset, given: &[u8]| -> Vec<u8> {
            let sweep = Sweep { concurrency: given.into(), ..sweep(preset) };
            let points = sweep.points();
            points.iter().filter(|p| p.named.name == "opaque-4k").map(|p| p.concurrency).collect()
        };
        assert_eq!(concurrency(Preset::Saturation, &[]), [1, 2, 4, 8, 16, 32]);
        assert_eq!(concurrency(Preset::Saturation, &[5]), [5]);
        assert_eq!(concurrency(Preset::Throughput, &[]), [CONCURRENCY]);
        assert_eq!(sweep(Preset::Latency).points()[0].batch, 1);
        assert_eq!(sweep(Preset::Throughput).points()[1].batch, 32);
    }
}
