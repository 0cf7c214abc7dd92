//! Keys of a batch.

use crate::abi::node_types::kvrail_page_keys;
use crate::border::Caller;
use crate::error::CapiError;

/// The most keys of a call.
const MOST: usize = 1 << 16;

/// Keys, one behind the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys<'a> {
    bytes: &'a [u8],
    /// `None`: all have `each` bytes.
    lengths: Option<&'a [u32]>,
    each: usize,
    count: usize,
}

impl<'a> Keys<'a> {
    /// The keys that `keys` describes, whose lengths are those of the bytes.
    pub(crate) fn parse(caller: &Caller<'a>, keys: *const kvrail_page_keys) -> Result<Self, CapiError> {
        let kvrail_page_keys { bytes, byte_count, lengths, count } = caller.value("keys", keys)?;
        if count > MOST {
            return Err(CapiError::Value {
                what: "keys.count",
                value: count as u64,
                allowed: "65,536 at most",
            });
        }
        let bytes = caller.list("keys.bytes", bytes, byte_count)?;
        let (lengths, total) = if lengths.is_null() {
            let each = byte_count.checked_div(count).unwrap_or(0);
            (None, each * count)
        } else {
            let lengths = caller.list("keys.lengths", lengths, count)?;
            (Some(lengths), lengths.iter().map(|&length| length as usize).sum())
        };
        if total != byte_count {
            let allowed = "the sum of the keys' lengths";
            return Err(CapiError::Value { what: "keys.byte_count", value: byte_count as u64, allowed });
        }
        Ok(Self { bytes, lengths, each: byte_count.checked_div(count).unwrap_or(0), count })
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// The bytes of each key.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let Self { mut bytes, lengths, each, count } = *self;
        (0..count).map(move |at| {
            let length = lengths.map_or(each, |lengths| lengths[at] as usize);
            // `parse` found that the lengths add up.
            let (key, rest) = bytes.split_at_checked(length).unwrap_or_default();
            bytes = rest;
            key
        })
    }
}
