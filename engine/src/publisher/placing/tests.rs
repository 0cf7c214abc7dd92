//! What a foreign pool may be.
#![allow(unsafe_code, reason = "memory that nothing reads")]

use super::*;

/// Memory at an address that nothing reads.
fn memory_at(addr: u64, len: u64) -> ForeignMemory {
    // SAFETY: it is exported nowhere.
    unsafe { ForeignMemory::host(MemoryRange { addr, len }) }
}

fn dmabuf(addr: u64, len: u64) -> ForeignMemory {
    let file = std::fs::File::open("/dev/null").unwrap().into();
    // SAFETY: it is exported nowhere.
    unsafe { ForeignMemory::dmabuf(file, 0, MemoryRange { addr, len }) }
}

fn one(page: u32, region: &ForeignRegion) -> Result<Pages, ForeignPoolError> {
    place(&[page], std::slice::from_ref(region)).map(|placed| placed[0].pages)
}

#[test]
fn pages_lie_where_the_region_says() {
    let memory = memory_at(0x10_0000, 1000);
    let whole = ForeignRegion::new(&memory);
    let pages = |base, page_bytes, stride, slots| Ok(Pages { base, page_bytes, stride, slots });
    assert_eq!(one(100, &whole), pages(0x10_0000, 100, 100, 10));
    assert_eq!(one(100, &whole.clone().stride(250).offset(150)), pages(0x10_0000 + 150, 100, 250, 4));
    assert_eq!(one(100, &whole.clone().bytes(300..600)), pages(0x10_0000 + 300, 100, 100, 3));
    let behind = whole.clone().bytes(500..1000).stride(125).offset(25);
    assert_eq!(one(100, &behind), pages(0x10_0000 + 525, 100, 125, 4));
    // The last byte may be the last of the address space.
    let last = memory_at(u64::MAX - 100, 100);
    assert_eq!(one(100, &ForeignRegion::new(&last)), pages(u64::MAX - 100, 100, 100, 1));
}

#[test]
fn each_number_that_cannot_be_is_refused_with_what_it_was_compared_with() {
    use ForeignPoolError as E;
    let memory = memory_at(0x1000, 1000);
    let (whole, region) = (ForeignRegion::new(&memory), 0);
    let cases = [
        (whole.clone().stride(99), E::Stride { region, stride: 99, page: 100 }),
        (whole.clone().stride(0), E::Stride { region, stride: 0, page: 100 }),
        (whole.clone().offset(1), E::Offset { region, offset: 1, page: 100, stride: 100 }),
        (
            whole.clone().stride(200).offset(u64::MAX),
            E::Offset { region, offset: u64::MAX, page: 100, stride: 200 },
        ),
        (whole.clone().stride(300), E::Tail { region, bytes: 1000, stride: 300, tail: 100 }),
        (whole.clone().bytes(0..950), E::Tail { region, bytes: 950, stride: 100, tail: 50 }),
        (whole.clone().bytes(0..99), E::Tail { region, bytes: 99, stride: 100, tail: 99 }),
        (whole.clone().bytes(200..200), E::Outside { region, from: 200, to: 200, memory: 1000 }),
        (whole.clone().bytes(200..1100), E::Outside { region, from: 200, to: 1100, memory: 1000 }),
        (
            ForeignRegion::new(&memory_at(u64::MAX - 98, 100)),
            E::Range { region, addr: u64::MAX - 98, len: 100 },
        ),
        (ForeignRegion::new(&memory_at(0x1000, 0)), E::Range { region, addr: 0x1000, len: 0 }),
    ];
    for (given, want) in cases {
        let error = one(100, &given).unwrap_err();
        assert_eq!(error, want);
        assert!(error.to_string().starts_with("region 0"), "{error}");
    }
    let many = memory_at(0, 1 << 40);
    assert_eq!(one(1, &ForeignRegion::new(&many)), Err(E::TooManySlots { region: 0, slots: 1 << 40 }));
    let tail = one(100, &whole.stride(300)).unwrap_err().to_string();
    assert!(tail.contains("1000 bytes are no multiple of its stride of 300"), "{tail}");
    assert!(tail.contains("leave out the last 100 bytes"), "{tail}");
}

#[test]
fn a_layout_has_as_many_regions_as_its_pool_and_each_has_as_many_slots() {
    let (keys, values) = (memory_at(0x1_0000, 4096), memory_at(0x2_0000, 2048));
    let regions = [&keys, &values].map(ForeignRegion::new);
    let placed = place(&[1024, 512], &regions).unwrap();
    let bases: Vec<_> = placed.iter().map(|region| (region.pages.base, region.pages.slots)).collect();
    assert_eq!(bases, [(0x1_0000, 4), (0x2_0000, 4)]);
    let wrong = |given, layout| Some(ForeignPoolError::Regions { given, layout });
    assert_eq!(place(&[1024], &regions).err(), wrong(2, 1));
    assert_eq!(place(&[1024, 512, 512], &regions).err(), wrong(2, 3));
    assert_eq!(place(&[1024], &[]).err(), wrong(0, 1));
    let slots = ForeignPoolError::Slots { region: 1, slots: 2, first: 4 };
    assert_eq!(place(&[1024, 1024], &regions).err(), Some(slots));
}

#[test]
fn pages_that_share_bytes_are_refused_in_one_pool_and_across_pools() {
    let block = memory_at(0x10_0000, 10_000);
    // Two layouts side by side in blocks of 1000 bytes, and one that reaches into the second.
    let at = |page, offset| place(&[page], &[ForeignRegion::new(&block).stride(1000).offset(offset)]);
    let (first, second) = (at(600, 0).unwrap(), at(400, 600).unwrap());
    let known = [(PoolId(0), &*first), (PoolId(1), &*second)];
    assert_eq!(check_apart(PoolId(1), &second, known[..1].iter().copied()), Ok(()));
    let inside = at(2, 599).unwrap();
    let error = check_apart(PoolId(2), &inside, known.iter().copied()).unwrap_err();
    let page = (PoolId(2), 0, 0);
    let (at_, other_at) = (0x10_0000 + 599, 0x10_0000);
    assert_eq!(error, ForeignPoolError::Overlap { page, at: at_, other: (PoolId(0), 0, 0), other_at });
    assert!(error.to_string().contains("slot 0 of region 0 of pool 2 at 0x100257"), "{error}");
    // The same pool twice: two tables over one page.
    assert!(check_apart(PoolId(2), &first, known.iter().copied()).is_err());
    // Two regions of one pool.
    let twice = [ForeignRegion::new(&block), ForeignRegion::new(&block)];
    let twice = place(&[1000, 1000], &twice).unwrap();
    let error = check_apart(PoolId(5), &twice, std::iter::empty()).unwrap_err();
    let (page, other) = ((PoolId(5), 1, 0), (PoolId(5), 0, 0));
    assert!(matches!(error, ForeignPoolError::Overlap { page: p, other: o, .. } if p == page && o == other));
}

#[test]
fn addresses_of_dmabufs_say_nothing_about_other_memory() {
    let (host, one, other) = (memory_at(0x1000, 4096), dmabuf(0x1000, 4096), dmabuf(0x1000, 4096));
    let placed = |memory| place(&[1024], &[ForeignRegion::new(memory)]).unwrap();
    let [host, first, second] = [&host, &one, &other].map(placed);
    let apart = |known: &[PlacedRegion]| check_apart(PoolId(1), &first, [(PoolId(0), known)].into_iter());
    assert_eq!((apart(&host), apart(&second)), (Ok(()), Ok(())));
    assert_eq!(apart(&placed(&one.clone())).unwrap_err().code(), 6118, "the same dmabuf twice");
}
