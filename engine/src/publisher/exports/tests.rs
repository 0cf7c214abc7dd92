//! Foreign memory: the ways in which a transport is asked for it, and what several pools share.
#![allow(unsafe_code, reason = "memory that nothing reads")]

use std::sync::Mutex;

use kvrail_core::id::MAX_RAILS;
use kvrail_host::exported::{Backing, ExportedMemory};

use super::*;

/// A transport that takes some ways, and remembers which it was asked for, and for which bytes.
struct Takes {
    host: bool,
    asked: Mutex<Vec<&'static str>>,
    ranges: Mutex<Vec<MemoryRange>>,
}

impl Exporter for Takes {
    fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError> {
        let (name, takes) = match memory.backing() {
            Backing::Host => ("host", self.host),
            Backing::Dmabuf { .. } => ("dmabuf", false),
            Backing::Segment(_) => ("segment", true),
            _ => ("another", false),
        };
        self.asked.lock().unwrap().push(name);
        self.ranges.lock().unwrap().push(memory.range());
        let export = Export { keys: [7; MAX_RAILS], keep: Box::new(memory) };
        takes.then_some(export).ok_or_else(|| format!("no {name} here").into())
    }
}

fn takes(host: bool) -> Takes {
    Takes { host, asked: Mutex::default(), ranges: Mutex::default() }
}

fn host(addr: u64, len: u64) -> ForeignMemory {
    // SAFETY: it is exported to a transport that reads nothing.
    unsafe { ForeignMemory::host(MemoryRange { addr, len }) }
}

/// Makes ranges of foreign memory readable, and a segment, as for a new pool.
fn make(
    exports: &mut ForeignExports,
    exporter: &Takes,
    foreign: &[(&ForeignMemory, MemoryRange)],
) -> Result<PoolExports, TransportError> {
    let segment = Arc::new(Segment::new(4096).unwrap());
    let own = vec![segment.range()];
    let foreign = foreign.iter().map(|&(memory, range)| (memory.clone(), range)).collect();
    exports.make(exporter, &Registering::DEFAULT, PoolId(0), &Needs { foreign, segment, own })
}

fn make_whole(exporter: &Takes, memory: &ForeignMemory) -> Result<PoolExports, TransportError> {
    make(&mut ForeignExports::default(), exporter, &[(memory, memory.range())])
}

#[test]
fn the_reason_of_the_transport_is_the_error() {
    let memory = host(4096, 4096);
    assert_eq!(make_whole(&takes(true), &memory).unwrap().foreign[0].keys(), [7; MAX_RAILS]);
    let error = make_whole(&takes(false), &memory).unwrap_err();
    assert_eq!(error.to_string(), "no host here");
}

#[test]
fn a_range_that_is_readable_is_not_made_readable_again() {
    let (exporter, mut exports) = (takes(true), ForeignExports::default());
    let memory = host(0x10_0000, 0x4000);
    let range = |from: u64, len| MemoryRange { addr: 0x10_0000 + from, len };
    let both = [(&memory, range(0, 0x2000)), (&memory, range(0x2000, 0x2000)), (&memory, range(0, 0x2000))];
    let first = make(&mut exports, &exporter, &both).unwrap();
    assert!(Arc::ptr_eq(&first.foreign[0], &first.foreign[2]));
    let foreign = |from: usize| {
        let (asked, ranges) = (exporter.asked.lock().unwrap(), exporter.ranges.lock().unwrap());
        let all = asked.iter().zip(ranges.iter()).skip(from);
        all.filter(|(name, _)| **name == "host").map(|(_, range)| *range).collect::<Vec<_>>()
    };
    assert_eq!(foreign(0), [range(0, 0x2000), range(0x2000, 0x2000)]);
    let begin = exporter.asked.lock().unwrap().len();
    // Within one of them, across both, and the same addresses of other memory.
    let inside = make(&mut exports, &exporter, &[(&memory, range(0x1000, 0x1000))]).unwrap();
    assert!(Arc::ptr_eq(&inside.foreign[0], &first.foreign[0]));
    assert_eq!(foreign(begin), []);
    let across = make(&mut exports, &exporter, &[(&memory, range(0x1000, 0x2000))]).unwrap();
    let other = host(0x10_0000, 0x4000);
    let others = make(&mut exports, &exporter, &[(&other, range(0, 0x1000))]).unwrap();
    assert_eq!(foreign(begin), [range(0x1000, 0x2000), range(0, 0x1000)]);
    drop((first, across, others));
    // The one that a pool still has is found, the other is made anew.
    let begin = exporter.asked.lock().unwrap().len();
    let again = [(&memory, range(0, 0x1000)), (&memory, range(0x3000, 0x1000))];
    let again = make(&mut exports, &exporter, &again).unwrap();
    assert!(Arc::ptr_eq(&again.foreign[0], &inside.foreign[0]));
    assert_eq!(foreign(begin), [range(0x3000, 0x1000)]);
}

#[cfg(feature = "cuda")]
mod device {
    use std::os::fd::OwnedFd;

    use kvrail_verbs::gpu::DeviceMemory;

    use super::*;

    /// Memory of a device as far as it can be without one: a file stands for its dmabuf.
    fn device() -> DeviceMemory {
        let file: OwnedFd = Segment::new(8192).unwrap().fd().try_clone_to_owned().unwrap();
        // SAFETY: nothing registers it with a device, and nothing writes to it.
        unsafe { DeviceMemory::from_dmabuf(file, 4096, 1 << 30, 4096) }.unwrap()
    }

    #[test]
    fn device_memory_that_is_refused_can_be_registered_elsewhere() {
        let device = device();
        // SAFETY: the transport reads nothing.
        let memory = unsafe { ForeignMemory::device(&device) }.unwrap();
        assert_eq!(memory.range(), MemoryRange { addr: 1 << 30, len: 4096 });
        let transport = takes(true);
        let error = make_whole(&transport, &memory).unwrap_err();
        assert!(error.to_string().starts_with("no dmabuf here; and nvidia-peermem is not loaded"), "{error}");
        assert_eq!(transport.asked.lock().unwrap()[0], "dmabuf", "first of all");
        assert!(device.claim(), "the right to register it was given back");
        let error = make_whole(&transport, &memory).unwrap_err();
        assert!(error.to_string().contains("registered already"), "{error}");
    }
}
