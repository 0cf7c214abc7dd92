//! `ibv_wc`: a work completion, and what its status says about page and path.

use core::fmt;
use core::mem::{offset_of, size_of};

use bitflags::bitflags;
use static_assertions::{assert_eq_size, const_assert_eq};

use crate::id::WrId;

bitflags! {
    /// `enum ibv_wc_flags`. Bits that this version does not know are kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct WcFlags: u32 {
        /// `IBV_WC_GRH`: a global routing header stands before the data of a UD receive.
        const GRH = 1;
        /// `IBV_WC_WITH_IMM`: immediate data came with it.
        const WITH_IMM = 1 << 1;
        /// `IBV_WC_IP_CSUM_OK`: checksums were found right.
        const IP_CSUM_OK = 1 << 2;
        /// `IBV_WC_WITH_INV`: a local key was invalidated by the peer.
        const WITH_INV = 1 << 3;
    }
}

/// `struct ibv_wc`: a work completion, as the driver wrote it.
///
/// Of a failed completion only [`wr_id`](Self::wr_id), [`status`](Self::status),
/// [`qp_num`](Self::qp_num) and [`vendor_err`](Self::vendor_err) are valid; nothing else has an
/// accessor.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Wc {
    wr_id: u64,
    status: u32,
    opcode: u32,
    vendor_err: u32,
    byte_len: u32,
    imm_data: u32,
    qp_num: u32,
    src_qp: u32,
    wc_flags: WcFlags,
    pkey_index: u16,
    slid: u16,
    sl: u8,
    dlid_path_bits: u8,
}

// rdma-core, libibverbs/verbs.h: struct ibv_wc (LP64).
assert_eq_size!(WcFlags, u32);
const_assert_eq!(size_of::<Wc>(), 48);
const_assert_eq!(align_of::<Wc>(), 8);
const_assert_eq!(offset_of!(Wc, wr_id), 0);
const_assert_eq!(offset_of!(Wc, status), 8);
const_assert_eq!(offset_of!(Wc, opcode), 12);
const_assert_eq!(offset_of!(Wc, vendor_err), 16);
const_assert_eq!(offset_of!(Wc, byte_len), 20);
const_assert_eq!(offset_of!(Wc, imm_data), 24);
const_assert_eq!(offset_of!(Wc, qp_num), 28);
const_assert_eq!(offset_of!(Wc, src_qp), 32);
const_assert_eq!(offset_of!(Wc, wc_flags), 36);
const_assert_eq!(offset_of!(Wc, pkey_index), 40);
const_assert_eq!(offset_of!(Wc, slid), 42);
const_assert_eq!(offset_of!(Wc, sl), 44);
const_assert_eq!(offset_of!(Wc, dlid_path_bits), 45);

/// The offsets of the fields of a [`Wc`], to be compared with those of the real header.
#[allow(missing_docs, reason = "the names are verbs.h's")]
#[derive(Clone, Copy, Debug)]
pub struct WcOffsets {
    pub wr_id: usize,
    pub status: usize,
    pub opcode: usize,
    pub vendor_err: usize,
    pub byte_len: usize,
    pub imm_data: usize,
    pub qp_num: usize,
    pub src_qp: usize,
    pub wc_flags: usize,
    pub pkey_index: usize,
    pub slid: usize,
    pub sl: usize,
    pub dlid_path_bits: usize,
}

impl Wc {
    /// The offsets of its fields.
    pub const OFFSETS: WcOffsets = WcOffsets {
        wr_id: offset_of!(Self, wr_id),
        status: offset_of!(Self, status),
        opcode: offset_of!(Self, opcode),
        vendor_err: offset_of!(Self, vendor_err),
        byte_len: offset_of!(Self, byte_len),
        imm_data: offset_of!(Self, imm_data),
        qp_num: offset_of!(Self, qp_num),
        src_qp: offset_of!(Self, src_qp),
        wc_flags: offset_of!(Self, wc_flags),
        pkey_index: offset_of!(Self, pkey_index),
        slid: offset_of!(Self, slid),
        sl: offset_of!(Self, sl),
        dlid_path_bits: offset_of!(Self, dlid_path_bits),
    };

    /// A completion of a provider that does not get it from verbs.
    #[must_use]
    pub const fn new(wr_id: WrId, status: WcStatus, vendor_err: u32, qp_num: u32) -> Self {
        Self {
            wr_id: wr_id.0,
            status: status.0,
            opcode: 0,
            vendor_err,
            byte_len: 0,
            imm_data: 0,
            qp_num,
            src_qp: 0,
            wc_flags: WcFlags::empty(),
            pkey_index: 0,
            slid: 0,
            sl: 0,
            dlid_path_bits: 0,
        }
    }

    /// The wr that completed. Its success is also that of every earlier wr of its lane.
    #[inline]
    #[must_use]
    pub const fn wr_id(&self) -> WrId {
        WrId(self.wr_id)
    }

    /// Whether the wr succeeded, and why not.
    #[inline]
    #[must_use]
    pub const fn status(&self) -> WcStatus {
        WcStatus(self.status)
    }

    /// The device vendor's error code. It is for logs; kvrail decides nothing by it.
    #[inline]
    #[must_use]
    pub const fn vendor_err(&self) -> u32 {
        self.vendor_err
    }

    /// The local QP's number.
    #[inline]
    #[must_use]
    pub const fn qp_num(&self) -> u32 {
        self.qp_num
    }
}

impl Wc {
    /// The flags of a successful completion; `None` for a failed one, whose flags are not valid.
    /// kvrail needs none of them for READs.
    #[must_use]
    pub const fn flags(&self) -> Option<WcFlags> {
        if self.status().is_success() { Some(WcFlags::from_bits_retain(self.wc_flags.bits())) } else { None }
    }
}

impl fmt::Debug for Wc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wc")
            .field("wr_id", &self.wr_id())
            .field("status", &self.status())
            .field("vendor_err", &self.vendor_err)
            .field("qp_num", &self.qp_num)
            .finish_non_exhaustive()
    }
}

/// `enum ibv_wc_status`, kept as the integer that the driver wrote, so that an unknown value is
/// possible.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WcStatus(pub u32);

macro_rules! statuses {
    ($($name:ident = $value:literal $text:literal),* $(,)?) => {
        #[allow(missing_docs, reason = "the names are those of verbs.h")]
        impl WcStatus {
            $(pub const $name: Self = Self($value);)*

            /// The name in `verbs.h`, or `IBV_WC_?` for a value that it does not know.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => concat!("IBV_WC_", stringify!($name)),)*
                    _ => "IBV_WC_?",
                }
            }

            /// The status in words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "a status that this version does not know",
                }
            }
        }
    };
}

statuses! {
    SUCCESS = 0 "success",
    LOC_LEN_ERR = 1 "local length error",
    LOC_QP_OP_ERR = 2 "local QP operation error",
    LOC_EEC_OP_ERR = 3 "local EE context operation error",
    LOC_PROT_ERR = 4 "local protection error: the destination is not registered for this write",
    WR_FLUSH_ERR = 5 "flushed: the QP was already in the error state",
    MW_BIND_ERR = 6 "memory window bind error",
    BAD_RESP_ERR = 7 "bad response",
    LOC_ACCESS_ERR = 8 "local access error",
    REM_INV_REQ_ERR = 9 "the peer found the request invalid",
    REM_ACCESS_ERR = 10 "the peer refused the access: key or range is not its own",
    REM_OP_ERR = 11 "the peer could not complete the operation",
    RETRY_EXC_ERR = 12 "no answer from the peer within the retries",
    RNR_RETRY_EXC_ERR = 13 "the peer stayed not ready",
    LOC_RDD_VIOL_ERR = 14 "local RDD violation",
    REM_INV_RD_REQ_ERR = 15 "invalid RD request",
    REM_ABORT_ERR = 16 "the peer aborted",
    INV_EECN_ERR = 17 "invalid EE context number",
    INV_EEC_STATE_ERR = 18 "invalid EE context state",
    FATAL_ERR = 19 "fatal error",
    RESP_TIMEOUT_ERR = 20 "response timeout",
    GENERAL_ERR = 21 "general error",
}

/// The cause of a failed completion, as far as its status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::exhaustive_enums,
    reason = "every status is of one of these kinds, and each must be answered"
)]
pub enum FaultKind {
    /// The request: it would fail on every path, so its page fails and is not posted again.
    Page,
    /// The path: the wr may succeed on another lane.
    Path,
    /// Neither: the wr was flushed, since another wr of its lane had failed.
    Flushed,
}

impl WcStatus {
    /// Whether the wr has succeeded, and with it all earlier wrs of its lane.
    #[inline]
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == Self::SUCCESS.0
    }

    /// Whether the peer has answered the request: the path to the peer works, and so does its
    /// device.
    #[must_use]
    pub const fn is_answer(self) -> bool {
        matches!(
            self,
            Self::REM_INV_REQ_ERR
                | Self::REM_ACCESS_ERR
                | Self::REM_OP_ERR
                | Self::RNR_RETRY_EXC_ERR
                | Self::REM_INV_RD_REQ_ERR
        )
    }

    /// Whether the status is about this side's request or memory.
    #[must_use]
    pub const fn is_local(self) -> bool {
        matches!(self, Self::LOC_LEN_ERR | Self::LOC_QP_OP_ERR | Self::LOC_PROT_ERR | Self::LOC_ACCESS_ERR)
    }

    /// The cause. For an unknown status it is the path: posting on another lane is harmless, and
    /// the deadline bounds it.
    #[must_use]
    pub const fn fault(self) -> FaultKind {
        match self {
            Self::LOC_LEN_ERR
            | Self::LOC_PROT_ERR
            | Self::LOC_ACCESS_ERR
            | Self::REM_INV_REQ_ERR
            | Self::REM_ACCESS_ERR => FaultKind::Page,
            Self::WR_FLUSH_ERR => FaultKind::Flushed,
            _ => FaultKind::Path,
        }
    }
}

impl fmt::Debug for WcStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

impl fmt::Display for WcStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.name(), self.0, self.text())
    }
}
