//! A completion queue entry, parsed out of its last 16 bytes.

use core::fmt;

use kvrail_core::verbs_abi::WcStatus;

use crate::error::CqeError;
use crate::format::{BITS_24, CQE_REQUESTER, CQE_REQUESTER_ERROR, RDMA_READ};

/// The completion of a READ, as a device wrote it. Which wr it is, and whether that wr is
/// outstanding, the send queue knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectCqe {
    /// The QP's number, of 24 bits.
    pub qp_num: u32,
    /// The block of the send queue at which the wr's entry begins, modulo 2^16.
    pub counter: u16,
    /// What became of the wr.
    pub outcome: CqeOutcome,
}

/// What became of a wr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a wr succeeds or it does not")]
pub enum CqeOutcome {
    /// Its bytes are in memory, and so are those of all earlier wrs of its QP.
    Success,
    /// It failed, or was flushed.
    Error {
        /// Why, as the device says it.
        syndrome: Syndrome,
        /// The vendor's syndrome, for logs.
        vendor: u8,
    },
}

/// The syndrome of a failed completion, `MLX5_CQE_SYNDROME_…`. Values that this version does not
/// know are possible.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Syndrome(pub u8);

impl Syndrome {
    /// Each syndrome that the device documents, with the status that verbs have for it.
    pub const ALL: [(Self, WcStatus); 13] = [
        (Self(0x01), WcStatus::LOC_LEN_ERR),
        (Self(0x02), WcStatus::LOC_QP_OP_ERR),
        (Self(0x04), WcStatus::LOC_PROT_ERR),
        (Self::FLUSHED, WcStatus::WR_FLUSH_ERR),
        (Self(0x06), WcStatus::MW_BIND_ERR),
        (Self(0x10), WcStatus::BAD_RESP_ERR),
        (Self(0x11), WcStatus::LOC_ACCESS_ERR),
        (Self(0x12), WcStatus::REM_INV_REQ_ERR),
        (Self(0x13), WcStatus::REM_ACCESS_ERR),
        (Self(0x14), WcStatus::REM_OP_ERR),
        (Self(0x15), WcStatus::RETRY_EXC_ERR),
        (Self(0x16), WcStatus::RNR_RETRY_EXC_ERR),
        (Self(0x22), WcStatus::REM_ABORT_ERR),
    ];
    /// The wr was not executed, since its QP was in the error state.
    pub const FLUSHED: Self = Self(0x05);

    /// The status that verbs have for it; a general error for one that is not documented.
    #[must_use]
    pub fn status(self) -> WcStatus {
        let known = Self::ALL.iter().find(|(syndrome, _)| *syndrome == self);
        known.map_or(WcStatus::GENERAL_ERR, |(_, status)| *status)
    }
}

impl fmt::Debug for Syndrome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "syndrome {:#04x} ({})", self.0, self.status().name())
    }
}

impl DirectCqe {
    /// The QP's number in the last word of an entry. Entries that cannot be parsed have one, too.
    #[inline]
    #[must_use]
    pub const fn qp_num(last: u64) -> u32 {
        (last >> 32) as u32 & BITS_24
    }

    /// Parses an entry that belongs to software. `last` is its last word, bytes 56 to 63, and
    /// `before` gives the word before, which only errors have a use for; both as big-endian
    /// numbers.
    ///
    /// | bits of `last` | what |
    /// |---|---|
    /// | 63 to 56 | the operation |
    /// | 55 to 32 | the QP's number |
    /// | 31 to 16 | the block at which the wr begins |
    /// | 15 to 8 | a signature, which is not asked for |
    /// | 7 to 4 | the opcode of the entry |
    /// | 3 and 2 | its format |
    /// | 1 and 0 | whether it was solicited, and the owner |
    ///
    /// # Errors
    ///
    /// What cannot be a completion of a READ.
    #[inline]
    pub fn parse(last: u64, before: impl FnOnce() -> u64) -> Result<Self, CqeError> {
        let (qp_num, counter) = (Self::qp_num(last), (last >> 16) as u16);
        let (opcode, format) = ((last as u8) >> 4, (last as u8) >> 2 & 3);
        if format != 0 {
            return Err(CqeError::Format { format });
        }
        let outcome = match opcode {
            CQE_REQUESTER => {
                let operation = (last >> 56) as u8;
                if operation != RDMA_READ {
                    return Err(CqeError::Operation { operation });
                }
                CqeOutcome::Success
            }
            CQE_REQUESTER_ERROR => {
                let before = before();
                CqeOutcome::Error { syndrome: Syndrome(before as u8), vendor: (before >> 8) as u8 }
            }
            _ => return Err(CqeError::Opcode { opcode }),
        };
        Ok(Self { qp_num, counter, outcome })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: u64 = 0x10AB_CDEF_1234_0000;

    #[test]
    fn a_success_and_an_error_are_parsed_field_by_field() {
        let success = DirectCqe { qp_num: 0xAB_CDEF, counter: 0x1234, outcome: CqeOutcome::Success };
        assert_eq!(DirectCqe::parse(LAST, || panic!("a success needs no more")), Ok(success));
        // Owner, solicited and signature are no part of it.
        assert_eq!(DirectCqe::parse(LAST | 0xFF03, || 0), Ok(success));
        let outcome = CqeOutcome::Error { syndrome: Syndrome(0x13), vendor: 0x88 };
        // The operation of a failed wr is not looked at.
        let last = LAST & !(0xFF << 56) | 13 << 4;
        assert_eq!(DirectCqe::parse(last, || 0xFFFF_FFFF_FFFF_8813), Ok(DirectCqe { outcome, ..success }));
    }

    #[test]
    fn what_no_read_gives_is_an_error() {
        for opcode in (1..=15).filter(|opcode| *opcode != 13) {
            assert_eq!(
                DirectCqe::parse(LAST | u64::from(opcode) << 4, || 0),
                Err(CqeError::Opcode { opcode })
            );
        }
        for format in 1..4 {
            assert_eq!(
                DirectCqe::parse(LAST | u64::from(format) << 2, || 0),
                Err(CqeError::Format { format })
            );
        }
        for operation in (0..=255).filter(|operation| *operation != 0x10) {
            let last = LAST & !(0xFF << 56) | u64::from(operation) << 56;
            assert_eq!(DirectCqe::parse(last, || 0), Err(CqeError::Operation { operation }));
        }
    }

    #[test]
    fn every_syndrome_has_the_status_of_verbs() {
        let mut known = 0;
        for syndrome in 0..=255 {
            let status = Syndrome(syndrome).status();
            assert!(!status.is_success());
            known += usize::from(status != WcStatus::GENERAL_ERR);
        }
        assert_eq!(known, Syndrome::ALL.len());
        assert_eq!(Syndrome(5).status(), WcStatus::WR_FLUSH_ERR);
        assert_eq!(Syndrome(0x15).status(), WcStatus::RETRY_EXC_ERR);
        assert_eq!(Syndrome(0x03).status(), WcStatus::GENERAL_ERR);
    }
}
