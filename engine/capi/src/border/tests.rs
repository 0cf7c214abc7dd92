use super::*;
use crate::abi::reader_types::kvrail_peer_stats;

/// Runs `call` as a function of C does.
fn run(call: impl FnOnce(&Caller<'_>) -> Result<(), CapiError>) -> i32 {
    // SAFETY: the tests give pointers to values that they own.
    unsafe { enter(call) }
}

#[test]
fn a_panic_becomes_a_status_and_leaves_its_text() {
    assert_eq!(run(|_| panic!("number {}", 7)), 8007);
    status::last(|text| assert_eq!(text, "a defect of kvrail: number 7; please report it"));
}

#[test]
fn pointers_are_checked_as_far_as_they_can_be() {
    let numbers = [1_u64, 2];
    let misaligned = std::ptr::from_ref(&numbers).cast::<u8>().wrapping_add(1).cast::<u64>();
    assert_eq!(run(|caller| caller.value("n", std::ptr::null::<u64>()).map(drop)), 8000);
    assert_eq!(run(|caller| caller.value("n", misaligned).map(drop)), 8017);
    assert_eq!(run(|caller| caller.list("n", std::ptr::null::<u64>(), 1).map(drop)), 8000);
    assert_eq!(run(|caller| caller.list("n", numbers.as_ptr(), usize::MAX).map(drop)), 8004);
    let all = run(|caller| {
        assert_eq!(caller.list("n", numbers.as_ptr(), 2)?, [1, 2]);
        assert!(caller.list("n", std::ptr::null::<u64>(), 0)?.is_empty());
        Ok(())
    });
    assert_eq!(all, 0);
    assert_eq!(run(|caller| caller.text("t", c"\xFF".as_ptr()).map(drop)), 8003);
}

#[test]
fn structures_of_other_versions_are_taken_as_far_as_they_are_known() {
    /// The structure as a later version may have it.
    #[repr(C)]
    struct Later {
        known: kvrail_peer_stats,
        more: u64,
    }
    let bytes = |bytes: usize| u32::try_from(bytes).unwrap();
    let known = kvrail_peer_stats { struct_bytes: bytes(size_of::<Later>()), pages: 7, ..Default::default() };
    let read = |later: &Later| {
        let mut pages = 0;
        let status = run(|caller| {
            pages = caller.structure(std::ptr::from_ref(later).cast::<kvrail_peer_stats>())?.pages;
            Ok(())
        });
        (status, pages)
    };
    assert_eq!(read(&Later { known, more: 0 }), (0, 7));
    assert_eq!(read(&Later { known, more: 1 }), (8002, 0));
    let short = kvrail_peer_stats { struct_bytes: 8, ..known };
    assert_eq!(read(&Later { known: short, more: 0 }), (8001, 0));
    let long = kvrail_peer_stats { struct_bytes: u32::MAX, ..known };
    assert_eq!(read(&Later { known: long, more: 0 }), (8002, 0));

    let mut later = Later { known, more: 5 };
    let value = kvrail_peer_stats { struct_bytes: 1, pages: 8, detours: 9, ..Default::default() };
    let place = std::ptr::from_mut(&mut later).cast::<kvrail_peer_stats>();
    assert_eq!(run(|caller| caller.fill(place, &value)), 0);
    let Later { known, more } = later;
    assert_eq!((known.pages, known.detours, more), (8, 9, 5));
    assert_eq!(known.struct_bytes, bytes(size_of::<Later>()), "the caller's field stays");
}

#[test]
fn a_text_is_cut_and_says_what_it_needs() {
    let mut buffer = [1_u8; 4];
    let at = buffer.as_mut_ptr().cast();
    assert_eq!(run(|caller| caller.write_text(at, 4, "abc")), 0);
    assert_eq!(&buffer, b"abc\0");
    assert_eq!(run(|caller| caller.write_text(at, 4, "aä\u{df}")), 8009);
    assert_eq!(&buffer, "aä\0".as_bytes());
    status::last(|text| assert!(text.contains("6 are needed"), "{text}"));
    assert_eq!(run(|caller| caller.write_text(at, 0, "")), 8009);
}
