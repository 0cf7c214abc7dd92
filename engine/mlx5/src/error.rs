//! What can be wrong with queues, and with what the device writes.

/// Why queues cannot be used by this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectQueueError {
    /// A queue's length is no power of two, or out of its range.
    #[error("a {what} of {entries} entries: it must be a power of two, {least} to {most}")]
    Entries {
        /// Which queue.
        what: &'static str,
        /// Its length.
        entries: usize,
        /// The shortest that works.
        least: usize,
        /// The longest that works.
        most: usize,
    },
    /// An entry has another size than this crate writes or reads.
    #[error("entries of the {what} have {bytes} bytes, not {expected}: post by ibv_post_send on this device")]
    EntryBytes {
        /// Which queue.
        what: &'static str,
        /// Bytes of an entry.
        bytes: u32,
        /// What this crate handles.
        expected: u32,
    },
    /// A part of a queue is not aligned as the device aligns it.
    #[error("the {what} begins at {address:#x}, which is no multiple of {align}")]
    Alignment {
        /// Which part.
        what: &'static str,
        /// Its address.
        address: usize,
        /// The alignment.
        align: usize,
    },
    /// The doorbell register takes writes of a size that this crate does not know.
    #[error(
        "a doorbell register with {bytes} bytes for entries: 0 or a power of two from 64 to 1024 are known"
    )]
    Register {
        /// Bytes for an entry.
        bytes: u32,
    },
    /// QPs of one rail have different doorbell registers.
    #[error("QP {qp_num:#x} has a doorbell register of its own: all of a rail must share their thread's")]
    OtherRegister {
        /// The QP.
        qp_num: u32,
    },
    /// The rail is not there, or is there already.
    #[error("rail {rail} is not there, or was added before: there are at most 16")]
    Rail {
        /// Its number.
        rail: u8,
    },
    /// A QP number has more bits than a device gives.
    #[error("QP number {qp_num:#x} is 0 or has more than 24 bits")]
    Number {
        /// The number.
        qp_num: u32,
    },
    /// A QP with this number is open on the rail.
    #[error("QP {qp_num:#x} is open on the rail: close it first")]
    Twice {
        /// The number.
        qp_num: u32,
    },
    /// No place is left for a send queue.
    #[error("all {places} places for send queues are in use: close one, or give more")]
    Full {
        /// How many there are.
        places: usize,
    },
}

impl DirectQueueError {
    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Entries { .. } => 5600,
            Self::EntryBytes { .. } => 5601,
            Self::Alignment { .. } => 5602,
            Self::Register { .. } => 5603,
            Self::OtherRegister { .. } => 5604,
            Self::Rail { .. } => 5605,
            Self::Number { .. } => 5606,
            Self::Twice { .. } => 5607,
            Self::Full { .. } => 5608,
        }
    }
}

/// What cannot be right in a completion queue entry. Its send queue is distrusted from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CqeError {
    /// An opcode that no completion of a READ has.
    #[error("a completion queue entry has opcode {opcode}: READs give 0 and 13")]
    Opcode {
        /// The upper four bits of its last byte.
        opcode: u8,
    },
    /// A format that this crate has not asked the device for: compressed, or with data inside.
    #[error("a completion queue entry has format {format}, which was not asked for: 0 is the plain one")]
    Format {
        /// Bits 2 and 3 of its last byte.
        format: u8,
    },
    /// The entry says that another operation than a READ succeeded.
    #[error("a completion queue entry says that operation {operation:#x} succeeded: only READs are posted")]
    Operation {
        /// The operation.
        operation: u8,
    },
    /// The entry names a block of the send queue at which no outstanding wr begins.
    #[error("a completion queue entry names block {counter}, where no outstanding wr begins")]
    NotOutstanding {
        /// The block, modulo 2^16.
        counter: u16,
    },
    /// A success after an error: the QP is in the error state, where nothing succeeds.
    #[error("block {counter} is reported a success after an error of the same QP")]
    SuccessAfterError {
        /// The block, modulo 2^16.
        counter: u16,
    },
}

impl CqeError {
    /// The number of this error in docs/errors.md. It never changes its meaning.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Opcode { .. } => 5620,
            Self::Format { .. } => 5621,
            Self::Operation { .. } => 5622,
            Self::NotOutstanding { .. } => 5623,
            Self::SuccessAfterError { .. } => 5624,
        }
    }
}
