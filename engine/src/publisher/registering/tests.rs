//! Exports that are made at the same time, and what is left of them after an error.
#![allow(unsafe_code, reason = "memory that nothing reads")]

use std::sync::{Arc, Barrier, Mutex};

use kvrail_core::id::MAX_RAILS;
use kvrail_core::provider::MemoryRange;
use kvrail_host::exported::ExportedMemory;

use super::super::foreign::ForeignMemory;
use super::*;

const PIECE: u64 = 4096;

/// Pieces of memory, one behind the other.
fn jobs(count: u64) -> Vec<Wanted> {
    // SAFETY: it is exported to a transport that reads nothing.
    let memory = unsafe { ForeignMemory::host(MemoryRange { addr: PIECE, len: count * PIECE }) };
    let range = |piece| MemoryRange { addr: PIECE * (piece + 1), len: PIECE };
    (0..count).map(|piece| Wanted::of_foreign(&memory, range(piece))).collect()
}

fn number(memory: &ExportedMemory) -> u32 {
    (memory.range().addr / PIECE - 1) as u32
}

/// A transport whose exports wait for each other, and remember when they end.
struct Recorder {
    /// So many exports are under way at the same time, or the test hangs.
    together: Barrier,
    /// The piece that is refused.
    refused: Option<u32>,
    released: Arc<Mutex<Vec<u32>>>,
}

/// Remembers that it was dropped.
struct Kept(u32, Arc<Mutex<Vec<u32>>>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

impl Exporter for Recorder {
    fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError> {
        let number = number(&memory);
        self.together.wait();
        if self.refused == Some(number) {
            return Err(format!("not piece {number}").into());
        }
        let mut keys = [0; MAX_RAILS];
        keys[0] = number;
        Ok(Export { keys, keep: Box::new(Kept(number, Arc::clone(&self.released))) })
    }

    fn parallel(&self) -> usize {
        4
    }
}

fn recorder(together: usize, refused: Option<u32>) -> Recorder {
    Recorder { together: Barrier::new(together), refused, released: Arc::default() }
}

fn numbers(exports: &[Export]) -> Vec<u32> {
    exports.iter().map(|export| export.keys[0]).collect()
}

#[test]
fn exports_are_made_together_and_come_in_the_order_of_their_pieces() {
    let in_order = |count| (0..count).collect::<Vec<u32>>();
    // As many as the transport says, as many as the caller says, and never more than pieces.
    for (at_once, together, count) in [(None, 4, 12), (Some(3), 3, 9), (Some(1), 1, 5), (Some(9), 2, 2)] {
        let (exporter, registering) =
            (recorder(together, None), Registering { at_once, ..Registering::DEFAULT });
        let made = registering.run(&exporter, PoolId(0), &jobs(count)).unwrap();
        assert_eq!(numbers(&made), in_order(count as u32), "{at_once:?}");
        assert_eq!(*exporter.released.lock().unwrap(), [], "{at_once:?}");
    }
    assert!(Registering::DEFAULT.run(&recorder(1, None), PoolId(0), &[]).unwrap().is_empty());
}

#[test]
fn a_refused_piece_releases_the_others_in_their_order() {
    for refused in [0, 2, 5] {
        let exporter = recorder(1, Some(refused));
        let registering = Registering { at_once: Some(1), ..Registering::DEFAULT };
        let error = registering.run(&exporter, PoolId(0), &jobs(6)).unwrap_err();
        assert_eq!(error.to_string(), format!("not piece {refused}"));
        // None is begun behind it.
        assert_eq!(*exporter.released.lock().unwrap(), (0..refused).collect::<Vec<_>>());
    }
    // With several threads, those that were under way are released, too.
    let exporter = recorder(2, Some(1));
    let registering = Registering { at_once: Some(2), ..Registering::DEFAULT };
    assert!(registering.run(&exporter, PoolId(0), &jobs(2)).is_err());
    assert_eq!(*exporter.released.lock().unwrap(), [0]);
}

#[test]
fn the_lesser_limit_holds() {
    struct Short;
    impl Exporter for Short {
        fn export(&self, _: ExportedMemory) -> Result<Export, TransportError> {
            Err("it exports nothing".into())
        }
        fn max_bytes(&self) -> u64 {
            1 << 30
        }
    }
    let limit = |piece_bytes| Registering { piece_bytes, at_once: None }.limit(&Short).bytes();
    assert_eq!([limit(u64::MAX), limit(1 << 20), limit(1 << 40)], [1 << 30, 1 << 20, 1 << 30]);
}
