//! Foreign memory, and the ways in which a transport is asked for it.
#![allow(unsafe_code, reason = "memory that nothing reads")]

use std::sync::Mutex;

use kvrail_core::provider::MemoryRange;
use kvrail_host::exported::Backing;

use super::*;

/// A transport that takes some ways, and remembers which it was asked for.
struct Takes {
    host: bool,
    asked: Mutex<Vec<&'static str>>,
}

impl Exporter for Takes {
    fn export(&self, memory: ExportedMemory) -> Result<Export, TransportError> {
        let (name, takes) = match memory.backing() {
            Backing::Host => ("host", self.host),
            Backing::Dmabuf { .. } => ("dmabuf", false),
            _ => ("another", false),
        };
        self.asked.lock().unwrap().push(name);
        let export = Export { keys: [7; MAX_RAILS], keep: Box::new(memory) };
        takes.then_some(export).ok_or_else(|| format!("no {name} here").into())
    }
}

fn takes(host: bool) -> Takes {
    Takes { host, asked: Mutex::default() }
}

#[test]
fn the_reason_of_the_transport_is_the_error() {
    // SAFETY: it is exported to a transport that reads nothing.
    let memory = unsafe { ForeignMemory::host(MemoryRange { addr: 4096, len: 4096 }) };
    assert_eq!(ForeignExport::new(&takes(true), &memory).unwrap().export.keys, [7; MAX_RAILS]);
    let error = ForeignExport::new(&takes(false), &memory).unwrap_err();
    assert_eq!(error.to_string(), "no host here");
}

#[cfg(feature = "cuda")]
mod device {
    use std::os::fd::OwnedFd;

    use kvrail_host::segment::Segment;
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
        let error = ForeignExport::new(&transport, &memory).unwrap_err();
        assert!(error.to_string().starts_with("no dmabuf here; and nvidia-peermem is not loaded"), "{error}");
        assert_eq!(transport.asked.lock().unwrap()[0], "dmabuf", "first of all");
        assert!(device.claim(), "the right to register it was given back");
        let error = ForeignExport::new(&transport, &memory).unwrap_err();
        assert!(error.to_string().contains("registered already"), "{error}");
    }
}
