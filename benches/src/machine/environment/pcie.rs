//! The PCIe link of a device: what it is, what it could be, and how much it carries.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::machine::fact::Fact;
use crate::machine::source::Source;

/// The speeds of PCIe: GT/s, and how many of how many bits on the wire are data. Generations 1 and
/// 2 send 8 bits as 10, generations 3 to 5 send 128 as 130, and later ones 242 bytes in a flit of
/// 256, of which the others are for error correction and checksums.
const SPEEDS: [(f64, u32, u32); 7] = [
    (2.5, 8, 10),
    (5.0, 8, 10),
    (8.0, 128, 130),
    (16.0, 128, 130),
    (32.0, 128, 130),
    (64.0, 242, 256),
    (128.0, 242, 256),
];

/// A speed of [`SPEEDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Speed(usize);

/// A device's link.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pcie {
    /// Its speed, in GT/s for each of its lanes.
    pub(crate) gt_per_s: Fact<Speed>,
    /// Its lanes.
    pub(crate) width: Fact<u32>,
    /// The highest speed that the device can have.
    pub(crate) max_gt_per_s: Fact<Speed>,
    /// The most lanes that the device can have.
    pub(crate) max_width: Fact<u32>,
    /// What speed and width carry in each direction, in GB/s (10^9 bytes): data after the encoding,
    /// before the headers of PCIe's packets, which take some more.
    pub(crate) gb_per_s: Fact<f64>,
}

impl Speed {
    /// Parses what sysfs says: `32.0 GT/s PCIe`.
    fn parse(text: &str) -> Option<Self> {
        let value: f64 = text.split_once(" GT/s")?.0.parse().ok()?;
        SPEEDS.iter().position(|&(speed, ..)| (speed - value).abs() < 0.01).map(Self)
    }

    /// What a link of this speed with so many lanes carries, in GB/s.
    pub(crate) fn gb_per_s(self, width: u32) -> f64 {
        let (speed, data, sent) = SPEEDS[self.0];
        speed * f64::from(width) / 8.0 * f64::from(data) / f64::from(sent)
    }
}

impl Pcie {
    /// The link of the device at `at`, a folder in sysfs.
    pub(crate) fn read(source: &Source, at: &str) -> Self {
        let speed = |name: &str| source.parsed(&format!("{at}/{name}"), "PCIe speed", Speed::parse);
        // 0 and 255 lanes stand for a link that is not known.
        let width = |name: &str| {
            let lanes = |text: &str| text.parse().ok().filter(|lanes| (1..=32).contains(lanes));
            source.parsed(&format!("{at}/{name}"), "number of PCIe lanes", lanes)
        };
        let (now, lanes) = (speed("current_link_speed"), width("current_link_width"));
        let carries = now.clone().and_then(|speed| Ok(speed.gb_per_s(lanes.clone()?)));
        Self {
            gt_per_s: now.into(),
            width: lanes.into(),
            max_gt_per_s: speed("max_link_speed").into(),
            max_width: width("max_link_width").into(),
            gb_per_s: carries.into(),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} GT/s", SPEEDS[self.0].0)
    }
}

impl Serialize for Speed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(SPEEDS[self.0].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_carries_what_its_encoding_leaves() {
        let carries = |text: &str, width| format!("{:.1}", Speed::parse(text).unwrap().gb_per_s(width));
        assert_eq!(carries("32.0 GT/s PCIe", 16), "63.0");
        assert_eq!(carries("16.0 GT/s PCIe", 16), "31.5");
        assert_eq!(carries("8 GT/s", 8), "7.9");
        assert_eq!(carries("5.0 GT/s PCIe", 8), "4.0");
        assert_eq!(carries("64.0 GT/s PCIe", 16), "121.0");
        for text in ["Unknown", "33.0 GT/s", "32.0", "NaN GT/s", "inf GT/s", ""] {
            assert_eq!(Speed::parse(text), None, "{text}");
        }
    }
}
