//! READs are written byte by byte as rdma-core writes them: entries, doorbell record, doorbell.
//!
//! `tests/data/README.md` describes the data. `KVRAIL_MLX5_ENTRIES=FILE` compares with another file
//! of such lines.
#![allow(missing_docs, reason = "a test")]
#![allow(unsafe_code, reason = "queues are raw memory")]

mod common;

use common::{BLOCKS, Memory, QP_NUM, READ, wr};
use kvrail_core::id::WrId;
use kvrail_core::provider::{Commit, Ends, KeyedEnds, KeyedReads, Piece, Post, Read, UniformReads};
use kvrail_core::verbs_abi::{Wc, WcStatus};
use kvrail_mlx5::CqeError;

fn bytes(hex: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digits).collect()
}

#[test]
fn entries_record_and_doorbell_equal_those_of_rdma_core() {
    let data = match std::env::var_os("KVRAIL_MLX5_ENTRIES") {
        Some(path) => std::fs::read_to_string(path).expect("the file of the variable"),
        None => include_str!("data/read_entries.jsonl").to_owned(),
    };
    let mut memory = Memory::new();
    let (mut whole, mut over_the_end, mut places) = (0, 0, [0; 2]);
    for line in data.lines() {
        let post: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let number = |value: &serde_json::Value| value.as_u64().expect("a number");
        let begin = number(&post["pi"]) as u32;
        let offset = number(&post["uar_off"]) as usize;
        // The posts between, which the data leaves out: as many blocks, and doorbells that end
        // where this one's place comes next.
        let place = (offset - 0x800) / 0x100;
        memory.fill(begin - memory.head(), Some(place != memory.doorbells() as usize % 2));
        memory.clear_register();
        let reads: Vec<Read> = post["wrs"]
            .as_array()
            .expect("wrs")
            .iter()
            .zip(0..)
            .map(|(wr, seq)| Read {
                wr_id: common::wr(seq),
                remote_addr: number(&wr["remote_addr"]),
                local_addr: number(&wr["local_addr"]),
                len: number(&wr["length"]) as u32,
                rkey: number(&wr["rkey"]) as u32,
                lkey: number(&wr["lkey"]) as u32,
                signaled: number(&wr["signaled"]) == 1,
            })
            .collect();
        assert_eq!(memory.commit(&reads), Commit::All);
        for (at, expected) in (begin..).zip(bytes(post["wqes"].as_str().expect("hex")).chunks(64)) {
            assert_eq!(memory.block(at), expected, "block {at} of the post at {begin}");
        }
        let record = post["dbrec"].as_array().expect("two words");
        for (at, word) in record.iter().enumerate() {
            assert_eq!(memory.record(at), (number(word) as u32).to_le_bytes(), "record at {begin}");
        }
        let doorbell = bytes(post["uar"].as_str().expect("hex"));
        let mut expected = vec![0; 4096];
        expected[offset..offset + doorbell.len()].copy_from_slice(&doorbell);
        assert_eq!(memory.register_page(), expected, "the register's page after the post at {begin}");
        memory.complete((memory.head() - 1) as u16, 0, 0);
        assert_eq!(memory.poll().last().map(Wc::wr_id), reads.last().map(|read| read.wr_id));
        whole += usize::from(doorbell.len() == 64);
        over_the_end += usize::from(begin % BLOCKS + reads.len() as u32 > BLOCKS);
        places[place] += 1;
    }
    assert!(whole >= 2 && over_the_end >= 2 && places[0] >= 2 && places[1] >= 2, "the data has all kinds");
}

#[test]
fn reads_in_bulk_are_written_as_one_by_one() {
    for signaled in [false, true] {
        let reads: Vec<Read> = (0..9)
            .map(|seq| Read {
                signaled: signaled && seq == 8,
                wr_id: wr(seq),
                remote_addr: READ.remote_addr + u64::from(seq) * 4096,
                ..READ
            })
            .collect();
        let mut one_by_one = Memory::new();
        assert_eq!(one_by_one.commit(&reads), Commit::All);
        let mut keyed = Memory::new();
        let ends = reads.iter().map(|read| KeyedEnds {
            remote_addr: read.remote_addr,
            rkey: read.rkey,
            local_addr: read.local_addr,
            lkey: read.lkey,
        });
        let all = KeyedReads { wr_id: wr(0), len: READ.len, count: 9, signaled };
        assert_eq!(keyed.commit_with(|post| post.read_keyed(all, ends)), Commit::All);
        assert_eq!(keyed.all(), one_by_one.all());
        if signaled {
            let mut uniform = Memory::new();
            let ends =
                reads.iter().map(|read| Ends { remote_addr: read.remote_addr, local_addr: read.local_addr });
            let all = UniformReads { wr_id: wr(0), len: READ.len, rkey: READ.rkey, lkey: READ.lkey };
            assert_eq!(uniform.commit_with(|post| post.read_uniform(all, ends)), Commit::All);
            assert_eq!(uniform.all(), one_by_one.all());
        }
    }
}

/// Names of wrs have 24 bits of a sequence number, which begins again at 0.
#[test]
fn names_of_wrs_in_bulk_go_on_at_0_after_the_last() {
    let mut memory = Memory::new();
    let first = WrId(wr(0).0 | 0xFF_FFFE);
    let all = KeyedReads { wr_id: first, len: 8, count: 4, signaled: true };
    let ends = KeyedEnds { remote_addr: 1, rkey: 2, local_addr: 3, lkey: 4 };
    assert_eq!(memory.commit_with(|post| post.read_keyed(all, std::iter::repeat(ends))), Commit::All);
    memory.complete(3, 0, 0);
    assert_eq!(memory.poll()[0].wr_id(), first.nth(3));
    assert_eq!(first.nth(3), wr(1));
}

/// By the layout in the programmer's manual: a control segment and a remote one, and a data segment
/// for each piece that has bytes.
#[test]
fn a_scattered_read_has_a_data_segment_for_each_piece() {
    for count in [2, 3, 6, 7, 16] {
        let mut memory = Memory::new();
        // Begins at the last block of the queue, so that it goes on at the first.
        memory.fill(BLOCKS - 1, None);
        memory.clear_register();
        let mut pieces: Vec<Piece> =
            (0..count).map(|i| Piece { addr: 0x1000 * (i + 1), len: 0x10 + i as u32 }).collect();
        pieces.insert(1, Piece { addr: 0xDEAD, len: 0 });
        let read = Read { wr_id: wr(7), ..READ };
        assert_eq!(memory.commit_with(|post| post.scatter(read, &pieces)), Commit::All);
        let segments = 2 + count as u32;
        let mut expected = Vec::new();
        expected.extend([0, 0, 255, 0x10]);
        expected.extend((QP_NUM << 8 | segments).to_be_bytes());
        expected.extend([0, 0, 0, 8, 0, 0, 0, 0]);
        expected.extend(READ.remote_addr.to_be_bytes());
        expected.extend(READ.rkey.to_be_bytes());
        expected.extend([0; 4]);
        for piece in pieces.iter().filter(|piece| piece.len > 0) {
            expected.extend(piece.len.to_be_bytes());
            expected.extend(READ.lkey.to_be_bytes());
            expected.extend(piece.addr.to_be_bytes());
        }
        let blocks = segments.div_ceil(4);
        let written: Vec<u8> = (BLOCKS - 1..BLOCKS - 1 + blocks).flat_map(|at| memory.block(at)).collect();
        assert_eq!(written[..expected.len()], expected, "{count} pieces");
        assert_eq!(memory.record(1), (BLOCKS - 1 + blocks).to_be_bytes());
        // As a whole where the register takes as many bytes (256), and else 8 of them.
        let page = memory.register_page();
        let whole = if blocks * 64 <= 256 { written.len() } else { 8 };
        let at = if memory.doorbells().is_multiple_of(2) { 0x900 } else { 0x800 };
        assert_eq!(page[at..at + whole], written[..whole], "{count} pieces");
        assert_eq!(
            page.iter().filter(|byte| **byte != 0).count(),
            written[..whole].iter().filter(|byte| **byte != 0).count()
        );
        // Its completion names its first block.
        memory.complete(BLOCKS as u16 - 1, 0, 0);
        assert_eq!(memory.poll()[0].wr_id(), wr(7));
    }
}

#[test]
fn a_full_queue_takes_a_prefix_and_rings_for_it_alone() {
    let mut memory = Memory::new();
    memory.fill_outstanding(BLOCKS - 2);
    let reads: Vec<Read> = (0..4).map(|seq| Read { wr_id: wr(1000 + seq), ..READ }).collect();
    assert_eq!(memory.commit(&reads), Commit::Prefix { accepted: 2, errno: 12 });
    assert_eq!(memory.record(1), BLOCKS.to_be_bytes());
    memory.clear_register();
    assert_eq!(memory.commit(&reads), Commit::Prefix { accepted: 0, errno: 12 });
    assert_eq!(memory.register_page(), [0; 4096], "nothing was posted, so nothing rings");
    // A READ of two blocks does not fit into one, and nothing behind it is posted before it.
    memory.complete(BLOCKS as u16 - 2, 0, 0);
    memory.poll();
    memory.fill_outstanding(BLOCKS - 3);
    let pieces = [Piece { addr: 8, len: 8 }; 3];
    let commit = memory.commit_with(|post| {
        post.read(READ);
        post.scatter(READ, &pieces);
        post.read(READ);
    });
    assert_eq!(commit, Commit::Prefix { accepted: 1, errno: 12 });
    // The completion of an entry of several blocks gives all of them back.
    let mut memory = Memory::new();
    memory.commit_with(|post| post.scatter(READ, &[Piece { addr: 8, len: 8 }; 16]));
    memory.complete(0, 0, 0);
    memory.poll();
    memory.fill_outstanding(BLOCKS);
}

#[test]
fn a_commit_that_is_dropped_posts_nothing() {
    let mut memory = Memory::new();
    memory.drop_commit(&[READ; 3]);
    assert_eq!((memory.record(1), memory.register_page()), ([0; 4], vec![0; 4096]));
    assert_eq!(memory.commit(&[READ]), Commit::All);
    assert_eq!(memory.record(1), 1_u32.to_be_bytes());
}

#[test]
fn a_drain_is_signaled_and_names_no_memory() {
    let mut memory = Memory::new();
    assert_eq!(memory.drain(wr(3)), Ok(()));
    let mut expected = vec![0, 0, 0, 0x10];
    expected.extend((QP_NUM << 8 | 2).to_be_bytes());
    expected.extend([0, 0, 0, 8]);
    expected.extend([0; 20]);
    assert_eq!(memory.block(0)[..32], expected);
    memory.complete(0, 0xD0, 0xF505);
    let wcs = memory.poll();
    assert_eq!((wcs[0].wr_id(), wcs[0].status(), wcs[0].vendor_err()), (wr(3), WcStatus::WR_FLUSH_ERR, 0xF5));
}

/// Every way in which an entry cannot be right: the oldest wr fails, and nothing of the QP is
/// believed any more.
#[test]
fn what_cannot_be_right_ends_the_belief_in_a_qp() {
    let cases = [
        (3, 0x20, CqeError::Opcode { opcode: 2 }),
        (3, 0xC0, CqeError::Opcode { opcode: 12 }),
        (3, 0x0C, CqeError::Format { format: 3 }),
        (4, 0x00, CqeError::NotOutstanding { counter: 4 }),
        (0xFFFF, 0x00, CqeError::NotOutstanding { counter: 0xFFFF }),
        // The second block of an entry.
        (2, 0x00, CqeError::NotOutstanding { counter: 2 }),
    ];
    for (counter, opcode, error) in cases {
        let mut memory = Memory::new();
        memory.commit(&[Read { wr_id: wr(0), ..READ }]);
        let pieces = [Piece { addr: 8, len: 8 }; 3];
        memory.commit_with(|post| post.scatter(Read { wr_id: wr(1), ..READ }, &pieces));
        memory.commit(&[Read { wr_id: wr(2), ..READ }]);
        memory.complete(counter, opcode, 0);
        let wcs: Vec<Wc> = memory.poll();
        let told: Vec<_> = wcs.iter().map(|wc| (wc.wr_id(), wc.status(), wc.vendor_err())).collect();
        assert_eq!(told, [(wr(0), WcStatus::GENERAL_ERR, error.code())], "{error}");
        assert_eq!(memory.distrusted(), Some((QP_NUM, error)));
        assert_eq!(memory.distrusted(), None);
        // Entries that would have been right are passed over, and nothing can be posted.
        memory.complete(0, 0x00, 0);
        memory.complete(3, 0xD0, 5);
        assert!(memory.poll().is_empty());
        assert_eq!(memory.commit(&[READ]), Commit::Prefix { accepted: 0, errno: 5 });
        assert_eq!(memory.drain(wr(9)), Err(5));
    }
}

#[test]
fn nothing_succeeds_after_an_error_of_the_same_qp() {
    let mut memory = Memory::new();
    let reads: Vec<Read> = (0..4).map(|seq| Read { wr_id: wr(seq), ..READ }).collect();
    memory.commit(&reads);
    memory.complete(1, 0xD0, 0x8813);
    memory.complete(2, 0x00, 0);
    let told: Vec<_> = memory.poll().iter().map(|wc| (wc.wr_id(), wc.status())).collect();
    assert_eq!(told, [(wr(1), WcStatus::REM_ACCESS_ERR), (wr(2), WcStatus::GENERAL_ERR)]);
    assert_eq!(memory.distrusted(), Some((QP_NUM, CqeError::SuccessAfterError { counter: 2 })));
}

#[test]
fn a_completion_where_nothing_is_outstanding_refuses_the_next_commit() {
    let mut memory = Memory::new();
    memory.complete(0, 0x00, 0);
    assert!(memory.poll().is_empty());
    assert_eq!(memory.commit(&[READ]), Commit::Prefix { accepted: 0, errno: 5 });
}

#[test]
fn completions_that_an_earlier_qp_of_the_number_left_are_passed_over() {
    let mut memory = Memory::new();
    memory.commit(&[Read { wr_id: wr(0), ..READ }]);
    memory.complete(0, 0x00, 0);
    memory.open_again();
    memory.commit(&[Read { wr_id: wr(1), ..READ }]);
    assert!(memory.poll().is_empty(), "the success of another QP's wr");
    memory.complete(0, 0x00, 0);
    assert_eq!(memory.poll()[0].wr_id(), wr(1));
    // And those of a QP that is not open any more.
    memory.complete(0, 0x00, 0);
    memory.close();
    assert!(memory.poll().is_empty(), "a QP that is not open");
}

/// The owner's bit changes with each lap, and the consumer's index has 24 bits in the record.
#[test]
fn completions_are_found_over_many_laps_of_their_queue() {
    let mut memory = Memory::new();
    for round in 0..200_u32 {
        for at in 0..3 {
            memory.commit(&[Read { wr_id: wr(round * 3 + at), ..READ }]);
            memory.complete((round * 3 + at) as u16, 0, 0);
        }
        let told: Vec<_> = memory.poll().iter().map(|wc| wc.wr_id()).collect();
        assert_eq!(told, [0, 1, 2].map(|at| wr(round * 3 + at)));
        assert_eq!(memory.consumed(), round * 3 + 3);
        assert!(memory.poll().is_empty());
    }
}

#[test]
fn arming_writes_the_record_and_the_register_with_a_number_for_each_event() {
    let mut memory = Memory::new();
    memory.commit(&[READ]);
    memory.complete(0, 0, 0);
    memory.poll();
    for arms in 0..6_u32 {
        let command = (arms % 4) << 28 | 1;
        assert!(memory.arm());
        assert_eq!(memory.armed(), (command, u64::from(command) << 32 | 0x77));
    }
}
