//! Exports that are made at the same time, and what is left of them after an error.
#![allow(unsafe_code, reason = "memory that nothing reads")]

use std::fs;
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
    let limit = |piece_bytes| Registering { piece_bytes, ..Registering::DEFAULT }.limit(&Short).bytes();
    assert_eq!([limit(u64::MAX), limit(1 << 20), limit(1 << 40)], [1 << 30, 1 << 20, 1 << 30]);
}

/// A transport whose NICs are on this node.
struct OnNode(Option<u8>);

impl Exporter for OnNode {
    fn export(&self, _: ExportedMemory) -> Result<Export, TransportError> {
        Err("nothing is exported".into())
    }

    fn numa_node(&self) -> Option<u8> {
        self.0
    }
}

/// The CPUs on which the calling thread may run.
fn allowed() -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap().to_owned()
}

#[test]
fn memory_is_allocated_by_a_thread_on_the_node_of_the_nics() {
    let all = allowed();
    let first = all.split(['-', ',']).next().unwrap();
    let root = std::env::temp_dir().join(format!("kvrail-near-nics-{}", std::process::id()));
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    // A host whose node 1 has one of the CPUs of this thread, and whose node 0 has none of them.
    write("sys/devices/system/node/node0/cpulist", "5000-5003\n");
    write("sys/devices/system/node/node1/cpulist", &format!("{first}\n"));
    let memory_of = |nodes: &str| {
        let text = format!("Cpus_allowed_list:\t{all}\nMems_allowed_list:\t{nodes}\n");
        write("proc/thread-self/status", &text);
    };
    let ran_on = |near_nics, node| {
        let registering = Registering { near_nics, ..Registering::DEFAULT };
        registering.near_nics_of(&root, &OnNode(node), PoolId(0), allowed)
    };
    memory_of("0-1");
    assert_eq!(ran_on(true, Some(1)), first);
    assert_eq!(ran_on(false, Some(1)), all, "it is switched off");
    assert_eq!(ran_on(true, None), all, "there are no NICs");
    assert_eq!(ran_on(true, Some(0)), all, "this process may not run there");
    assert_eq!(ran_on(true, Some(7)), all, "there is no such node");
    memory_of("0");
    assert_eq!(ran_on(true, Some(1)), all, "the control group gives no memory of the node");
    fs::remove_dir_all(&root).unwrap();

    // The system as it is. Whatever its nodes are, memory is allocated.
    for node in [Some(0), Some(255), None] {
        let done = Registering::DEFAULT.near_nics(&OnNode(node), PoolId(0), || 7);
        assert_eq!(done, 7);
    }
}
