use super::*;
use crate::id::LaneId;

fn read(i: u32, signaled: bool) -> Read {
    Read {
        wr_id: WrId::new(LaneId::new(1, 2), i),
        remote_addr: 0x1000 + u64::from(i),
        local_addr: 0x2000 + u64::from(i),
        len: 4096 + i,
        rkey: 10 + i,
        lkey: 20 + i,
        signaled,
    }
}

/// Walks a chain as a device would.
fn walk(head: *mut SendWr, out: &mut [(u64, u64, u32, u64, u32, u32, u32); 8]) -> usize {
    let (mut at, mut n) = (head.cast_const(), 0);
    while !at.is_null() {
        // SAFETY: the chain under test ends in null and holds live wrs only.
        let wr = unsafe { &*at };
        assert_eq!((wr.num_sge, wr.opcode), (1, super::super::IBV_WR_RDMA_READ));
        // SAFETY: every template points at its sge.
        let sge = unsafe { &*wr.sg_list };
        out[n] = (wr.wr_id, wr.remote_addr, wr.rkey, sge.addr, sge.length, sge.lkey, wr.send_flags.bits());
        n += 1;
        at = wr.next;
    }
    n
}

#[test]
fn a_device_that_walks_the_chain_finds_the_encoded_reads() {
    let mut storage = ChainStorage::<8>::new();
    let mut chain = Chain::new(&mut storage);
    // Long and short commits in turn: the link is restored each time.
    for len in [8_u32, 3, 8, 1] {
        let mut posting = chain.begin();
        for i in 0..len {
            posting.push(&read(i, i + 1 == len));
        }
        let mut seen = [(0, 0, 0, 0, 0, 0, 0); 8];
        let mut n = 0;
        let commit = posting.post(|head| {
            n = walk(head, &mut seen);
            (0, ptr::null_mut())
        });
        assert_eq!(commit, Commit::All);
        assert_eq!(n, len as usize);
        for (i, got) in (0..len).zip(seen) {
            let r = read(i, i + 1 == len);
            let flags = if r.signaled { SendFlags::SIGNALED.bits() } else { 0 };
            assert_eq!(got, (r.wr_id.0, r.remote_addr, r.rkey, r.local_addr, r.len, r.lkey, flags));
        }
    }
}

#[test]
fn uniform_reads_are_encoded_as_the_same_reads_one_by_one() {
    let mut storage = ChainStorage::<8, 2>::new();
    let mut chain = Chain::new(&mut storage);
    let pieces = [Piece { addr: 0x10, len: 1 }, Piece { addr: 0x20, len: 2 }];
    let reads = UniformReads { wr_id: WrId::new(LaneId::new(1, 2), 7), len: 96, rkey: 5, lkey: 6 };
    let ends = |i: u32| Ends { remote_addr: 0x1000 + u64::from(i), local_addr: 0x2000 + u64::from(i) };
    // Words that earlier commits left in the templates are overwritten.
    for (before, seq) in (0..5).flat_map(|n| [0, 4, 3, 2, 1].map(|left| (n, WrId::SEQUENCES - left))) {
        let reads = UniformReads { wr_id: WrId::new(reads.wr_id.lane(), seq), ..reads };
        let mut posting = chain.begin();
        (0..8).for_each(|i| posting.push_scattered(&read(i, i % 2 == 0), &pieces));
        assert_eq!(posting.post(|_| (0, ptr::null_mut())), Commit::All);
        let mut posting = chain.begin();
        (0..before).for_each(|i| posting.push(&read(i, false)));
        posting.push_uniform(&reads, (0..3).map(ends));
        assert_eq!(posting.len(), before as usize + 3);
        let commit = posting.post(|head| {
            let mut seen = [(0, 0, 0, 0, 0, 0, 0); 8];
            assert_eq!(walk(head, &mut seen), before as usize + 3);
            for i in 0..3 {
                let r = reads.read(i, ends(i), i == 2);
                let flags = if i == 2 { SendFlags::SIGNALED.bits() } else { 0 };
                let want = (r.wr_id.0, r.remote_addr, r.rkey, r.local_addr, r.len, r.lkey, flags);
                assert_eq!(seen[(before + i) as usize], want);
            }
            (0, ptr::null_mut())
        });
        assert_eq!(commit, Commit::All);
    }
}

#[test]
fn keyed_reads_are_encoded_as_the_same_reads_one_by_one() {
    let mut storage = ChainStorage::<8, 2>::new();
    let mut chain = Chain::new(&mut storage);
    let pieces = [Piece { addr: 0x10, len: 1 }, Piece { addr: 0x20, len: 2 }];
    let ends = |i: u32| KeyedEnds {
        remote_addr: 0x1000 + u64::from(i),
        rkey: 10 + i,
        local_addr: 0x2000 + u64::from(i),
        lkey: 20 + i,
    };
    // Words that earlier commits left in the templates are overwritten.
    for (before, seq) in (0..5).flat_map(|n| [0, 4, 3, 2, 1].map(|left| (n, WrId::SEQUENCES - left))) {
        let wr_id = WrId::new(LaneId::new(1, 2), seq);
        let reads = KeyedReads { wr_id, len: 96, count: 3, signaled: before % 2 == 0 };
        let mut posting = chain.begin();
        (0..8).for_each(|i| posting.push_scattered(&read(i, i % 2 == 0), &pieces));
        assert_eq!(posting.post(|_| (0, ptr::null_mut())), Commit::All);
        let mut posting = chain.begin();
        (0..before).for_each(|i| posting.push(&read(i, false)));
        posting.push_keyed(&reads, (0..).map(ends));
        assert_eq!(posting.len(), before as usize + 3);
        let commit = posting.post(|head| {
            let mut seen = [(0, 0, 0, 0, 0, 0, 0); 8];
            assert_eq!(walk(head, &mut seen), before as usize + 3);
            for i in 0..3 {
                let r = reads.read(i, ends(i));
                let flags = if r.signaled { SendFlags::SIGNALED.bits() } else { 0 };
                let want = (r.wr_id.0, r.remote_addr, r.rkey, r.local_addr, r.len, r.lkey, flags);
                assert_eq!(seen[(before + i) as usize], want);
            }
            (0, ptr::null_mut())
        });
        assert_eq!(commit, Commit::All);
    }
}

#[test]
#[should_panic(expected = "a chain of 2 wrs, 0 of them encoded, takes no 3 more")]
fn a_full_chain_takes_no_more_keyed_reads() {
    let mut storage = ChainStorage::<2>::new();
    let reads = KeyedReads { wr_id: WrId(0), len: 1, count: 3, signaled: true };
    Chain::new(&mut storage).begin().push_keyed(&reads, core::iter::empty());
}

#[test]
#[should_panic(expected = "a chain of 4 wrs, 2 of them encoded, takes no 3 more")]
fn a_full_chain_takes_no_more_uniform_reads() {
    let mut storage = ChainStorage::<4>::new();
    let mut chain = Chain::new(&mut storage);
    let mut posting = chain.begin();
    (0..2).for_each(|i| posting.push(&read(i, true)));
    let reads = UniformReads { wr_id: WrId(0), len: 1, rkey: 0, lkey: 0 };
    posting.push_uniform(&reads, (0..3).map(|_| Ends { remote_addr: 0, local_addr: 0 }));
}

#[test]
fn each_wr_has_its_own_pieces_and_none_of_an_earlier_commit() {
    let mut storage = ChainStorage::<3, 4>::new();
    let mut chain = Chain::new(&mut storage);
    let pieces = [Piece { addr: 0x10, len: 1 }, Piece { addr: 0x20, len: 2 }, Piece { addr: 0x30, len: 3 }];
    // The second commit puts one piece where the first had three, and the other way round.
    for counts in [[1, 3, 2], [3, 1, 1]] {
        let mut posting = chain.begin();
        for (i, n) in counts.into_iter().enumerate() {
            let read = read(i as u32, true);
            if n == 1 { posting.push(&read) } else { posting.push_scattered(&read, &pieces[..n]) }
        }
        let commit = posting.post(|head| {
            let mut at = head.cast_const();
            for (i, n) in counts.into_iter().enumerate() {
                // SAFETY: the chain has three live wrs, then null.
                let wr = unsafe { &*at };
                assert_eq!((wr.wr_id, wr.num_sge.unsigned_abs() as usize), (read(i as u32, true).wr_id.0, n));
                // SAFETY: each wr points at an array of its own, of four live sges.
                let sges = unsafe { core::slice::from_raw_parts(wr.sg_list, n) };
                for (sge, piece) in sges.iter().zip(&pieces) {
                    let read = read(i as u32, true);
                    let want = if n == 1 { (read.local_addr, read.len) } else { (piece.addr, piece.len) };
                    assert_eq!((sge.addr, sge.length, sge.lkey), (want.0, want.1, read.lkey));
                }
                at = wr.next;
            }
            assert!(at.is_null());
            (0, ptr::null_mut())
        });
        assert_eq!(commit, Commit::All);
    }
}

#[test]
#[should_panic(expected = "a READ of 3 pieces in a chain of wrs with 1 to 2")]
fn a_wr_takes_no_more_pieces_than_it_has_room_for() {
    let mut storage = ChainStorage::<2, 2>::new();
    Chain::new(&mut storage).begin().push_scattered(&read(0, true), &[Piece::default(); 3]);
}

#[test]
fn bad_wr_says_how_many_wrs_were_accepted() {
    let mut storage = ChainStorage::<4>::new();
    let mut chain = Chain::new(&mut storage);
    let mut commit = |bad: fn(*mut SendWr) -> *mut SendWr| {
        let mut posting = chain.begin();
        for i in 0..3 {
            posting.push(&read(i, true));
        }
        posting.post(|head| (12, bad(head)))
    };
    assert_eq!(commit(|head| head), Commit::Prefix { accepted: 0, errno: 12 });
    assert_eq!(commit(|head| head.wrapping_add(2)), Commit::Prefix { accepted: 2, errno: 12 });
    // Beyond the commit, between two wrs, null: all of it counts as posted.
    assert_eq!(commit(|head| head.wrapping_add(3)), Commit::Unknown { errno: 12 });
    assert_eq!(commit(|head| head.wrapping_byte_add(64)), Commit::Unknown { errno: 12 });
    assert_eq!(commit(|_| ptr::null_mut()), Commit::Unknown { errno: 12 });
}

#[test]
fn an_empty_commit_rings_no_doorbell() {
    let mut storage = ChainStorage::<4>::new();
    assert_eq!(Chain::new(&mut storage).begin().post(|_| unreachable!()), Commit::All);
}

#[test]
#[should_panic(expected = "a chain of 2 wrs is full")]
fn a_full_chain_takes_no_more() {
    let mut storage = ChainStorage::<2>::new();
    let mut chain = Chain::new(&mut storage);
    let mut posting = chain.begin();
    for i in 0..3 {
        posting.push(&read(i, true));
    }
}
