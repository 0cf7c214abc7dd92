//! A device, as far as `ibv_post_send` shows it to a program: it walks a chain.

use kvrail_core::id::WrId;
use kvrail_core::provider::Read;
use kvrail_core::verbs_abi::{IBV_WR_RDMA_READ, SendFlags, SendWr};

/// What a device finds in a chain of at most `most` READs, each into one piece of memory.
///
/// # Panics
///
/// On anything that a device would refuse: another operation, unknown flags, a chain without an
/// end.
///
/// # Safety
///
/// `head` begins a chain that ends in null, of live wrs that point at live sges.
pub unsafe fn walk(head: *const SendWr, most: usize) -> Vec<Read> {
    let mut found = Vec::new();
    let mut at = head;
    while !at.is_null() {
        assert!(found.len() < most, "the chain goes on after {most} wrs");
        // SAFETY: the caller's promise.
        let wr = unsafe { &*at };
        assert_eq!(wr.opcode, IBV_WR_RDMA_READ);
        assert_eq!(wr.send_flags & !SendFlags::SIGNALED, SendFlags::empty());
        assert_eq!((wr.num_sge, wr.imm_data), (1, 0));
        // SAFETY: the caller's promise.
        let sge = unsafe { &*wr.sg_list };
        found.push(Read {
            wr_id: WrId(wr.wr_id),
            remote_addr: wr.remote_addr,
            local_addr: sge.addr,
            len: sge.length,
            rkey: wr.rkey,
            lkey: sge.lkey,
            signaled: wr.send_flags == SendFlags::SIGNALED,
        });
        at = wr.next;
    }
    found
}

/// The answer of a device to a chain of `n` wrs, of which it takes the first `accepted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 0: all wrs were taken.
    Taken,
    /// An errno, and the first wr that was not taken.
    Refused {
        /// Reduced modulo the chain's length.
        accepted: u8,
    },
    /// An errno and null, as rxe answers after it has queued everything.
    Silent {
        /// How many wrs were taken nevertheless.
        accepted: u8,
    },
    /// An errno and a pointer between two wrs, or behind the last.
    Nonsense {
        /// How many wrs were taken nevertheless.
        accepted: u8,
        /// Where it points, in bytes from the head.
        offset: u16,
    },
}

pub const ENOMEM: i32 = 12;

impl Answer {
    /// What `ibv_post_send` returns, and how many wrs of `n` were taken.
    pub fn give(self, head: *mut SendWr, n: usize) -> ((i32, *mut SendWr), usize) {
        let part = |accepted: u8| usize::from(accepted) % (n + 1);
        match self {
            Self::Taken => ((0, std::ptr::null_mut()), n),
            Self::Refused { accepted } => {
                let accepted = usize::from(accepted) % n;
                ((ENOMEM, head.wrapping_add(accepted)), accepted)
            }
            Self::Silent { accepted } => ((ENOMEM, std::ptr::null_mut()), part(accepted)),
            Self::Nonsense { accepted, offset } => {
                // Never a wr of this chain: those are `Refused`.
                let mut offset = usize::from(offset);
                if offset.is_multiple_of(size_of::<SendWr>()) && offset / size_of::<SendWr>() < n {
                    offset += 8;
                }
                ((ENOMEM, head.wrapping_byte_add(offset)), part(accepted))
            }
        }
    }
}

impl<'a> arbitrary::Arbitrary<'a> for Answer {
    fn arbitrary(u: &mut arbitrary::Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(match u.int_in_range(0..=11)? {
            0 => Self::Refused { accepted: u.arbitrary()? },
            1 => Self::Silent { accepted: u.arbitrary()? },
            2 => Self::Nonsense { accepted: u.arbitrary()?, offset: u.arbitrary()? },
            // Most commits are taken whole.
            _ => Self::Taken,
        })
    }
}
