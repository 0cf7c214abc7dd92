//! The sizes that readers come in. A configuration gets the smallest that holds its maxima.

use engine::macro_support::State;
use static_assertions::const_assert;

use crate::error::CapiError;

/// Entries of a lane's send queue, the drain's included: as deep as the rails make lanes.
const DEPTH: usize = 128;

/// The alignment of a reader's memory: that of a state, and of the handle before it.
pub(crate) const ALIGN: usize = 256;

/// The maxima that decide a reader's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Maxima {
    pub(crate) peers: usize,
    pub(crate) regions: usize,
    pub(crate) lanes: usize,
    pub(crate) batches: usize,
    pub(crate) batch: usize,
}

/// A size: what it holds, and the bytes of its state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) holds: Maxima,
    pub(crate) bytes: usize,
}

/// The state of a size.
type Of<const P: usize, const R: usize, const L: usize, const B: usize, const N: usize> =
    State<P, R, L, DEPTH, B, N, 0, 2, 2>;

macro_rules! sizes {
    ($($name:ident: $peers:literal, $regions:literal, $lanes:literal, $batches:literal, $batch:literal;)*) => {
        $(
            pub(crate) type $name = Of<$peers, $regions, $lanes, $batches, $batch>;
            const_assert!(align_of::<$name>() <= ALIGN);
        )*
        /// All sizes, the smallest first.
        pub(crate) const SIZES: &[Size] = &[$(Size {
            holds: Maxima {
                peers: $peers, regions: $regions, lanes: $lanes, batches: $batches, batch: $batch,
            },
            bytes: size_of::<$name>(),
        }),*];
    };
}
// Each has about four times the bytes of the one before, and room for one lane from each of eight
// rails to each peer. Rails are not counted: 16 cost nothing. A poll looks at all places for lanes
// now and then, so a size with more of them costs more. The medium one has those of a reader in
// Rust that was not declared.
sizes! {
    //     peers, regions, lanes, batches, pages of a batch
    Tiny: 4, 32, 32, 16, 64;
    Small: 16, 128, 128, 32, 64;
    Medium: 64, 512, 512, 64, 256;
    Large: 256, 4096, 2048, 128, 512;
    Huge: 1024, 16384, 8192, 256, 1024;
}

/// Calls a function for the state of size number `$size`.
macro_rules! with_size {
    ($size:expr, $state:ident => $call:expr) => {
        match $size {
            0 => {
                type $state = $crate::reader::sizes::Tiny;
                $call
            }
            1 => {
                type $state = $crate::reader::sizes::Small;
                $call
            }
            2 => {
                type $state = $crate::reader::sizes::Medium;
                $call
            }
            3 => {
                type $state = $crate::reader::sizes::Large;
                $call
            }
            _ => {
                type $state = $crate::reader::sizes::Huge;
                $call
            }
        }
    };
}
pub(super) use with_size;
const_assert!(SIZES.len() == 5);

impl Maxima {
    /// Each number with its name in a configuration.
    const fn named(&self) -> [(&'static str, usize); 5] {
        [
            ("max_peers", self.peers),
            ("max_regions", self.regions),
            ("max_lanes", self.lanes),
            ("max_batches", self.batches),
            ("max_batch", self.batch),
        ]
    }

    fn fit(&self, holds: &Self) -> bool {
        self.named().iter().zip(holds.named()).all(|((_, needed), (_, has))| *needed <= has)
    }

    /// The number of the smallest size that holds these maxima.
    pub(crate) fn size(&self) -> Result<usize, CapiError> {
        if let Some(at) = SIZES.iter().position(|size| self.fit(&size.holds)) {
            return Ok(at);
        }
        let largest = SIZES.last().map_or([("", 0); 5], |size| size.holds.named());
        let beyond = self.named().into_iter().zip(largest).find(|((_, needed), (_, has))| needed > has);
        let ((name, value), (_, most)) = beyond.unwrap_or((("maxima", 0), ("", 0)));
        Err(CapiError::Maxima { name, value: value as u64, most: most as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_gets_the_smallest_size_that_holds_it() {
        for (at, size) in SIZES.iter().enumerate() {
            assert_eq!(size.holds.size().unwrap(), at);
            assert!(at == 0 || size.bytes > SIZES[at - 1].bytes, "sizes grow");
        }
        let tiny = SIZES[0].holds;
        assert_eq!(Maxima { batch: 65, ..tiny }.size().unwrap(), 2);
        assert_eq!(Maxima { lanes: 33, ..tiny }.size().unwrap(), 1);
        let error = Maxima { peers: 1025, ..tiny }.size().unwrap_err();
        assert_eq!(error.to_string(), "max_peers is 1025, and the largest reader has 1024");
    }

    #[test]
    fn the_bytes_of_all_sizes_are_bounded() {
        let mib: Vec<_> = SIZES.iter().map(|size| size.bytes.div_ceil(1 << 20)).collect();
        assert!(mib.iter().zip([1, 2, 8, 32, 128]).all(|(bytes, most)| *bytes <= most), "{mib:?} MiB");
    }
}
