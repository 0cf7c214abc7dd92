//! Error texts say what to do, and contain no text twice.

use kvrail_core::provider::MemoryRange;

use super::*;
use crate::mr::locked::Locked;
use crate::rail::Side;
use crate::wire::WireError;

#[test]
fn the_lock_limit_is_named_if_and_only_if_it_was_the_reason() {
    const GIB: u64 = 1 << 30;
    let range = MemoryRange { addr: 4096, len: 3 * GIB };
    let refused = |errno, limit, pinned| {
        let locked = Locked { limit, pinned: Some(pinned) };
        MrError::explained("mlx5_1", range, 4, Errno(errno), locked)
    };
    // The limit has room for the first rail's registration and not for the second's.
    let error = refused(libc::ENOMEM, Some(4 * GIB), 3 * GIB);
    assert_eq!(error.errno(), libc::ENOMEM);
    let text = error.to_string();
    for part in ["mlx5_1", "3221225472 bytes more", "may lock 4294967296", "has locked 3221225472"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("4 rails") && text.contains("12884901888 bytes in all"), "{text}");
    assert!(text.contains("ulimit -l unlimited") && !text.contains("memory regions"), "{text}");
    // Where the limit has room, or there is no limit, the device is the reason.
    for limit in [Some(4 * GIB), None] {
        let text = refused(libc::ENOMEM, limit, 0).to_string();
        assert!(text.contains("out of memory regions") && !text.contains("ulimit"), "{text}");
    }
    assert!(matches!(refused(libc::EPERM, Some(0), 0), MrError::LockedMemory { limit: 0, .. }));
    // Another errno is another reason, however low the limit.
    let error = refused(libc::EFAULT, Some(0), 0);
    assert!(error.to_string().contains("not mapped") && error.errno() == libc::EFAULT, "{error}");
    assert!(refused(libc::EINVAL, Some(0), 0).to_string().contains("3221225472 bytes at 0x1000"));
}

#[test]
fn each_errno_has_its_own_hint() {
    let open = |errno| RailError::Open { device: "mlx5_0".into(), errno: Errno(errno) }.to_string();
    assert!(open(libc::EMFILE).contains("ulimit -n") && !open(libc::EMFILE).contains("provider library"));
    assert!(open(libc::ENOENT).contains("provider library"));
    let system = |errno| RailError::System { what: "a thing", errno: Errno(errno) }.to_string();
    assert!(system(libc::EMFILE).contains("ulimit -n"));
    assert!(system(libc::EAGAIN).contains("ulimit -u"));
    assert!(!system(libc::EBADF).contains("ulimit"));
    let side = RailError::WrongSide { rail: "mlx5_0".into(), side: Side::Producer }.to_string();
    assert!(side.contains("producer's") && !side.contains("another engine"), "{side}");
}

/// A program that prints an error with its sources prints no text twice.
#[test]
fn an_error_whose_text_has_its_reason_has_no_source() {
    use std::error::Error as _;
    let reason = MrError::DmabufUnsupported { device: "rxe0".into(), errno: Errno(95) };
    let region = VerbsRegionError { rail: 1, reason };
    assert!(region.to_string().contains("dma-buf") && region.source().is_none(), "{region}");
    let unreachable = Unreachable::Partition { ours: 1, theirs: 2 };
    for error in [VerbsLaneError::from(WireError::Format(9)), VerbsLaneError::from(unreachable)] {
        assert!(error.source().is_none(), "{error}");
    }
    let rail = VerbsLaneError::from(RailError::NoDevice);
    assert_eq!(rail.to_string(), RailError::NoDevice.to_string(), "this one is the reason");
}

#[test]
fn errors_name_what_to_do() {
    let text = RailError::NoLibrary.to_string();
    assert!(text.contains("libibverbs1") && text.contains("install"), "{text}");
    let text = RailError::NoKernelSupport.to_string();
    assert!(text.contains("modprobe"), "{text}");
    let call =
        |errno| RailError::Call { device: "mlx5_0".into(), call: "ibv_create_cq", errno: Errno(errno) };
    assert!(call(libc::ENOMEM).to_string().contains("ulimit -l"));
    assert!(!call(libc::EIO).to_string().contains("ulimit"));
    let step = VerbsLaneError::Step { rail: "ra0".into(), to: "RTR", errno: Errno(libc::ETIMEDOUT) };
    assert!(step.to_string().contains("ip neigh"), "{step}");
}
