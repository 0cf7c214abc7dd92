//! The 64 bytes that kvrail-session carries for this transport: the address of a rail, and one end
//! of a lane. Offsets are fixed, numbers are big-endian, reserved bytes are zero, and a value out
//! of its range is refused.
//!
//! ```text
//! rail address                         lane end
//!  0  format, 1                         0  format, 1
//!  1  link layer (1 IB, 2 Ethernet)     1  path MTU (1: 256 .. 5: 4096)
//!  2  flags (1: needs a GRH)            2  READs in flight that this end allows, at least 1
//!  3  number of addresses, 1..3         3  address kind
//!  4  LID, u16                          4  flags (1: needs a GRH, 2: for background work)
//!  6  partition key, u16                5  reserved
//!  8  1st: kind u8, GID 16 bytes        6  LID, u16
//! 25  2nd                               8  QP number, u32 (24 bits)
//! 42  3rd                              12  first PSN, u32 (24 bits)
//! 59  reserved                         16  GID, 16 bytes
//!                                      32  partition key, u16
//!                                      34  reserved
//! ```

use bitflags::bitflags;

use kvrail_core::batch::Class;

use crate::device::gid::{Gid, GidKind};

/// The length of a rail's address and of a lane's end, in bytes.
pub const BLOB: usize = 64;
/// The most addresses that a rail's bytes have room for.
pub const MAX_ADDRESSES: usize = 3;

const FORMAT: u8 = 1;

bitflags! {
    /// The flags of a rail and of a lane's end.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct EndFlags: u8 {
        /// Packets need a global route header.
        const NEEDS_GRH = 1;
        /// The lane is for background work. A rail has no such flag.
        const BACKGROUND = 2;
    }
}

/// The largest QP number and packet sequence number (PSN): both have 24 bits.
pub const BITS_24: u32 = 0xFF_FFFF;

/// The path MTU, as `enum ibv_mtu` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(clippy::exhaustive_enums, reason = "InfiniBand's specification has these five")]
pub enum Mtu {
    /// 256 bytes.
    B256 = 1,
    /// 512 bytes.
    B512 = 2,
    /// 1024 bytes.
    B1024 = 3,
    /// 2048 bytes.
    B2048 = 4,
    /// 4096 bytes.
    B4096 = 5,
}

impl Mtu {
    /// All MTUs, smallest first.
    pub const ALL: [Self; 5] = [Self::B256, Self::B512, Self::B1024, Self::B2048, Self::B4096];

    /// The MTU with this number in `enum ibv_mtu`.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&mtu| mtu as u32 == code)
    }

    /// The MTU of so many bytes.
    #[must_use]
    pub fn from_bytes(bytes: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|mtu| mtu.bytes() == bytes)
    }

    /// Bytes of payload per packet.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        128 << self as u32
    }
}

/// What carries a port's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(clippy::exhaustive_enums, reason = "values of the wire, of which verbs know two")]
pub enum LinkLayer {
    /// InfiniBand: addressed by LID.
    InfiniBand = 1,
    /// Ethernet, that is RoCE: addressed by GID.
    Ethernet = 2,
}

impl std::fmt::Display for LinkLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InfiniBand => "InfiniBand",
            Self::Ethernet => "Ethernet",
        })
    }
}

/// Why 64 bytes do not describe a rail or a lane's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes are of another version of this format, or of another transport.
    #[error("format {0} is not known: the peers run different releases, or the rail is no verbs rail")]
    Format(u8),
    /// A value is out of its range.
    #[error("{field} is {value}, which is out of range")]
    Value {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// A reserved byte is not zero.
    #[error("byte {0} is reserved and is not zero")]
    Reserved(usize),
    /// An address is not of the kind that it claims.
    #[error("{gid} is no address of the kind {kind}")]
    Address {
        /// The kind that it claims.
        kind: GidKind,
        /// The address.
        gid: Gid,
    },
}

impl WireError {
    /// The code of this error: see `docs/errors.md`.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Format(_) => 5080,
            Self::Value { .. } => 5081,
            Self::Reserved(_) => 5082,
            Self::Address { .. } => 5083,
        }
    }
}

/// The addresses of a rail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RailEnd {
    /// What carries its packets.
    pub link: LinkLayer,
    /// Whether its packets need a global route header even on its own subnet.
    pub needs_grh: bool,
    /// Its LID, on InfiniBand.
    pub lid: u16,
    /// Its partition.
    pub pkey: u16,
    /// Its addresses, best first: 1 to [`MAX_ADDRESSES`].
    pub addresses: Vec<(GidKind, Gid)>,
}

/// One end of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneEnd {
    /// The QP's number, 24 bits.
    pub qp_num: u32,
    /// The sequence number of the first packet that this end sends, 24 bits.
    pub psn: u32,
    /// The largest packets that it takes.
    pub mtu: Mtu,
    /// How many READs may be in flight by this end's limits, at least 1.
    pub read_depth: u8,
    /// Whether packets to it need a global route header.
    pub needs_grh: bool,
    /// The class of the work that the lane is for. It is `Background` only where the reader marks
    /// the packets of the two classes differently
    /// ([`VerbsConfig::divides_classes`](crate::VerbsConfig::divides_classes)), so a producer of a
    /// release without this flag refuses a lane only then.
    pub class: Class,
    /// Its LID, on InfiniBand; 0 otherwise.
    pub lid: u16,
    /// Its partition.
    pub pkey: u16,
    /// The kind of its address.
    pub kind: GidKind,
    /// Its address.
    pub gid: Gid,
}

fn u16_at(bytes: &[u8; BLOB], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; BLOB], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn gid_at(bytes: &[u8; BLOB], at: usize) -> Gid {
    let mut gid = [0; 16];
    gid.copy_from_slice(&bytes[at..at + 16]);
    Gid(gid)
}

fn address(code: u8, gid: Gid) -> Result<(GidKind, Gid), WireError> {
    let kind = GidKind::from_code(code)
        .ok_or(WireError::Value { field: "the kind of an address", value: code.into() })?;
    if kind.fits(gid) { Ok((kind, gid)) } else { Err(WireError::Address { kind, gid }) }
}

fn flags(code: u8, known: EndFlags) -> Result<EndFlags, WireError> {
    let flags = EndFlags::from_bits(code).filter(|&flags| known.contains(flags));
    flags.ok_or(WireError::Value { field: "the flags", value: code.into() })
}

fn flags_of(needs_grh: bool) -> EndFlags {
    if needs_grh { EndFlags::NEEDS_GRH } else { EndFlags::empty() }
}

fn zero(bytes: &[u8; BLOB], range: std::ops::Range<usize>) -> Result<(), WireError> {
    match bytes[range.clone()].iter().position(|&b| b != 0) {
        Some(at) => Err(WireError::Reserved(range.start + at)),
        None => Ok(()),
    }
}

fn lid(link: LinkLayer, lid: u16) -> Result<u16, WireError> {
    // LID 0 is none, and LIDs from 0xC000 on are multicast.
    let fits = match link {
        LinkLayer::InfiniBand => (1..0xC000).contains(&lid),
        LinkLayer::Ethernet => lid == 0,
    };
    if fits { Ok(lid) } else { Err(WireError::Value { field: "the LID", value: lid.into() }) }
}

fn format(bytes: &[u8; BLOB]) -> Result<(), WireError> {
    if bytes[0] == FORMAT { Ok(()) } else { Err(WireError::Format(bytes[0])) }
}

impl RailEnd {
    /// Encodes it. Addresses beyond [`MAX_ADDRESSES`] are left out.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOB] {
        let mut bytes = [0; BLOB];
        let listed = &self.addresses[..self.addresses.len().min(MAX_ADDRESSES)];
        // MAX_ADDRESSES fits a byte.
        bytes[..4].copy_from_slice(&[
            FORMAT,
            self.link as u8,
            flags_of(self.needs_grh).bits(),
            listed.len() as u8,
        ]);
        bytes[4..6].copy_from_slice(&self.lid.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.pkey.to_be_bytes());
        for ((kind, gid), at) in listed.iter().zip((8..).step_by(17)) {
            bytes[at] = *kind as u8;
            bytes[at + 1..at + 17].copy_from_slice(&gid.0);
        }
        bytes
    }

    /// Decodes it, and checks every value.
    ///
    /// # Errors
    ///
    /// Names the first value that is out of range.
    pub fn decode(bytes: &[u8; BLOB]) -> Result<Self, WireError> {
        format(bytes)?;
        let link = match bytes[1] {
            1 => LinkLayer::InfiniBand,
            2 => LinkLayer::Ethernet,
            other => return Err(WireError::Value { field: "the link layer", value: other.into() }),
        };
        let needs_grh = flags(bytes[2], EndFlags::NEEDS_GRH)?.contains(EndFlags::NEEDS_GRH);
        let count = usize::from(bytes[3]);
        if count == 0 || count > MAX_ADDRESSES {
            return Err(WireError::Value { field: "the number of addresses", value: bytes[3].into() });
        }
        let lid = lid(link, u16_at(bytes, 4))?;
        let mut addresses = Vec::with_capacity(count);
        for at in (8..).step_by(17).take(count) {
            let (kind, gid) = address(bytes[at], gid_at(bytes, at + 1))?;
            if (kind == GidKind::InfiniBand) != (link == LinkLayer::InfiniBand) {
                return Err(WireError::Address { kind, gid });
            }
            addresses.push((kind, gid));
        }
        zero(bytes, 8 + 17 * count..BLOB)?;
        Ok(Self { link, needs_grh, lid, pkey: u16_at(bytes, 6), addresses })
    }
}

impl LaneEnd {
    /// The rail on which it is an end, with the one address that it names.
    pub(crate) fn rail(&self) -> RailEnd {
        let link = match self.kind {
            GidKind::InfiniBand => LinkLayer::InfiniBand,
            _ => LinkLayer::Ethernet,
        };
        let addresses = vec![(self.kind, self.gid)];
        RailEnd { link, needs_grh: self.needs_grh, lid: self.lid, pkey: self.pkey, addresses }
    }

    /// Encodes it.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOB] {
        let mut bytes = [0; BLOB];
        let kind = self.kind as u8;
        let mut flags = flags_of(self.needs_grh);
        flags.set(EndFlags::BACKGROUND, self.class == Class::Background);
        bytes[..5].copy_from_slice(&[FORMAT, self.mtu as u8, self.read_depth, kind, flags.bits()]);
        bytes[6..8].copy_from_slice(&self.lid.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.qp_num.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.psn.to_be_bytes());
        bytes[16..32].copy_from_slice(&self.gid.0);
        bytes[32..34].copy_from_slice(&self.pkey.to_be_bytes());
        bytes
    }

    /// Decodes it, and checks every value.
    ///
    /// # Errors
    ///
    /// Names the first value that is out of range.
    pub fn decode(bytes: &[u8; BLOB]) -> Result<Self, WireError> {
        format(bytes)?;
        let value = |field, value| WireError::Value { field, value };
        let mtu = Mtu::from_code(bytes[1].into()).ok_or(value("the path MTU", bytes[1].into()))?;
        let read_depth = bytes[2];
        if read_depth == 0 {
            return Err(value("the READ depth", 0));
        }
        let (kind, gid) = address(bytes[3], gid_at(bytes, 16))?;
        let flags = flags(bytes[4], EndFlags::all())?;
        let needs_grh = flags.contains(EndFlags::NEEDS_GRH);
        let class = if flags.contains(EndFlags::BACKGROUND) { Class::Background } else { Class::Urgent };
        zero(bytes, 5..6)?;
        let link = if kind == GidKind::InfiniBand { LinkLayer::InfiniBand } else { LinkLayer::Ethernet };
        let lid = lid(link, u16_at(bytes, 6))?;
        let qp_num = u32_at(bytes, 8);
        // QPs 0 and 1 are the subnet manager's and the general services'; all ones is multicast.
        if !(2..BITS_24).contains(&qp_num) {
            return Err(value("the QP number", qp_num));
        }
        let psn = u32_at(bytes, 12);
        if psn > BITS_24 {
            return Err(value("the first PSN", psn));
        }
        zero(bytes, 34..BLOB)?;
        let pkey = u16_at(bytes, 32);
        Ok(Self { qp_num, psn, mtu, read_depth, needs_grh, class, lid, pkey, kind, gid })
    }
}

#[cfg(test)]
mod tests;
