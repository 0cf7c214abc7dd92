//! A work queue entry, as the device finds it in a send queue.

use crate::shared::Words;

/// 64-bit words of a basic block, and of a segment.
const BLOCK: usize = 8;
const SEGMENT: usize = 2;

/// A READ that the device has found in a send queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The QP.
    pub qp_num: u32,
    /// The block at which its entry begins, modulo 2^16.
    pub index: u16,
    /// How many blocks it takes.
    pub blocks: u32,
    /// Where its bytes come from.
    pub remote_addr: u64,
    /// The key for them.
    pub rkey: u32,
    /// Where its bytes go.
    pub pieces: Vec<FoundPiece>,
    /// Whether a success is to be answered.
    pub signaled: bool,
    /// What the device answered: `None` for a success, or the syndrome and that of the vendor.
    pub failure: Option<(u8, u8)>,
}

/// A piece of local memory in a READ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundPiece {
    /// Its address.
    pub addr: u64,
    /// Its length.
    pub len: u32,
    /// The key for it.
    pub lkey: u32,
}

impl Found {
    /// Reads the entry at block `index` of a queue of `count` blocks.
    ///
    /// # Panics
    ///
    /// On anything but a READ that is whole and as the device wants it.
    pub(crate) fn read(queue: &Words, count: usize, qp_num: u32, index: u16) -> Self {
        let first = usize::from(index) * BLOCK;
        let word = |at: usize| queue.get((first + at) % (count * BLOCK));
        let at = format!("QP {qp_num:#x}, block {index}");
        let (head, tail) = (word(0), word(1));
        assert_eq!((head >> 32) as u8, 0x10, "{at}: RDMA READ");
        assert_eq!((head >> 40) as u16, index, "{at}: its own index");
        assert_eq!(head >> 56, 0, "{at}: no modifier");
        assert_eq!(head as u32 >> 8, qp_num, "{at}: its own QP");
        let segments = head as usize & 0xFF;
        assert!((2..64).contains(&segments), "{at}: {segments} segments");
        let flags = tail >> 32;
        assert!(flags == 0 || flags == 8, "{at}: flags {flags:#x}");
        assert_eq!(tail as u32, 0, "{at}: no immediate");
        assert_eq!(word(3) as u32, 0, "{at}: reserved");
        let blocks = (segments * SEGMENT).div_ceil(BLOCK);
        assert!(blocks <= count, "{at}: {blocks} blocks in a queue of {count}");
        let pieces = (2..segments).map(|segment| {
            let (sizes, addr) = (word(segment * SEGMENT), word(segment * SEGMENT + 1));
            let (len, lkey) = ((sizes >> 32) as u32, sizes as u32);
            assert_ne!(len, 0, "{at}: a length of 0 stands for 2^31");
            FoundPiece { addr, len, lkey }
        });
        Self {
            qp_num,
            index,
            blocks: blocks as u32,
            remote_addr: word(2),
            rkey: (word(3) >> 32) as u32,
            pieces: pieces.collect(),
            signaled: flags == 8,
            failure: None,
        }
    }

    /// The bytes that it asks for.
    pub(crate) fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.len)).sum()
    }
}
