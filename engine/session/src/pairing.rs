//! Which of a producer's rails each rail of the reader reads from.

use kvrail_core::events::LaneWanted;
use kvrail_core::id::RailIndex;

use crate::offer::RailDescription;

/// A rail of the reader and a rail of the producer, to be joined by lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RailPair {
    /// The reader's rail.
    pub rail: RailIndex,
    /// The producer's rail.
    pub remote_rail: RailIndex,
}

impl From<LaneWanted> for RailPair {
    /// The pair that an engine wants another lane for.
    fn from(wanted: LaneWanted) -> Self {
        Self { rail: wanted.rail, remote_rail: RailIndex(wanted.remote_rail) }
    }
}

/// No rail of the reader can reach a rail of the producer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the two sides have no transport in common: this side has {ours}, the producer has {theirs}")]
pub struct NothingInCommon {
    /// This side's rails, by transport.
    pub ours: String,
    /// The producer's rails, by transport.
    pub theirs: String,
}

impl NothingInCommon {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        4140
    }
}

/// Pairs every rail of the reader with a producer's rail of the same transport. A rail of a
/// transport that the producer does not have gets no pair.
///
/// Where both sides have equally many rails of a transport, the first is paired with the first, and
/// so on: fabrics are built so that these are on one switch. Otherwise each rail is paired with the
/// producer's rail that has the fewest lanes, pairs made here included; of equal ones, with the one
/// of the lowest index.
///
/// # Errors
///
/// No rail has a pair.
pub fn pair(
    reader: &[RailDescription],
    producer: &[RailDescription],
) -> Result<Vec<RailPair>, NothingInCommon> {
    let mut pairs = Vec::with_capacity(reader.len());
    let mut load: Vec<u64> = producer.iter().map(|rail| rail.lanes.into()).collect();
    for (index, rail) in reader.iter().enumerate() {
        let of_kind = |rails: &[RailDescription]| rails.iter().filter(|r| r.kind == rail.kind).count();
        let remotes = producer.iter().enumerate().filter(|(_, r)| r.kind == rail.kind).map(|(i, _)| i);
        let chosen = if of_kind(reader) == of_kind(producer) {
            remotes.clone().nth(of_kind(&reader[..index]))
        } else {
            remotes.min_by_key(|&i| load[i])
        };
        let Some(chosen) = chosen else { continue };
        load[chosen] += 1;
        // Neither side has more than 16 rails.
        pairs.push(RailPair { rail: RailIndex(index as u8), remote_rail: RailIndex(chosen as u8) });
    }
    if pairs.is_empty() {
        return Err(NothingInCommon::between(reader, producer));
    }
    Ok(pairs)
}

impl NothingInCommon {
    /// The error for this side's rails and the producer's rails.
    #[must_use]
    pub fn between(ours: &[RailDescription], theirs: &[RailDescription]) -> Self {
        Self { ours: kinds(ours), theirs: kinds(theirs) }
    }
}

fn kinds(rails: &[RailDescription]) -> String {
    let names: Vec<_> = rails.iter().map(|r| format!("{} ({})", r.name, r.kind)).collect();
    if names.is_empty() { "no rails".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;
    use crate::offer::{RailAddress, TransportKind};

    fn rails(kinds: &[(TransportKind, u32)]) -> Vec<RailDescription> {
        let rail = |&(kind, lanes): &(TransportKind, u32)| RailDescription {
            name: Name::lossy("rail"),
            kind,
            address: RailAddress([0; 64]),
            nominal_bytes_per_sec: 1,
            numa: None,
            lanes,
        };
        kinds.iter().map(rail).collect()
    }

    fn paired(reader: &[(TransportKind, u32)], producer: &[(TransportKind, u32)]) -> Vec<(u8, u8)> {
        let pairs = pair(&rails(reader), &rails(producer)).unwrap();
        pairs.into_iter().map(|p| (p.rail.0, p.remote_rail.0)).collect()
    }

    const V: (TransportKind, u32) = (TransportKind::Verbs, 0);
    const S: (TransportKind, u32) = (TransportKind::Shm, 0);
    const T: (TransportKind, u32) = (TransportKind::Tcp, 0);

    #[test]
    fn equal_counts_are_paired_by_index_whatever_the_load() {
        let loaded = [(TransportKind::Verbs, 90), V, V];
        assert_eq!(paired(&[V, V, V], &loaded), [(0, 0), (1, 1), (2, 2)]);
    }

    #[test]
    fn unequal_counts_are_paired_by_load() {
        assert_eq!(paired(&[V; 5], &[V, V]), [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]);
        let busy = [(TransportKind::Verbs, 2), (TransportKind::Verbs, 1), V];
        assert_eq!(paired(&[V, V], &busy), [(0, 2), (1, 1)]);
        assert_eq!(paired(&[V; 8], &[V]), (0..8).map(|i| (i, 0)).collect::<Vec<_>>());
    }

    #[test]
    fn transports_are_not_mixed() {
        assert_eq!(paired(&[T, V, V], &[V, T, V]), [(0, 1), (1, 0), (2, 2)]);
        // The shm rail has no counterpart.
        assert_eq!(paired(&[S, T], &[T]), [(1, 0)]);
        assert_eq!(paired(&[T, S, T, T], &[S, T, T]), [(0, 1), (1, 0), (2, 2), (3, 1)]);
    }

    #[test]
    fn without_a_common_transport_the_error_names_both_sides_rails() {
        let error = pair(&rails(&[S]), &rails(&[V, T])).unwrap_err().to_string();
        assert!(error.contains("rail (shm)") && error.contains("rail (verbs), rail (tcp)"), "{error}");
        assert!(pair(&[], &rails(&[V])).unwrap_err().to_string().contains("no rails"));
    }
}
