//! Keys, as a caller in C names them.

use engine::session::KeyError;
use engine::{PeerKey, PeerKeys};

use crate::abi::publisher_types::kvrail_keys;
use crate::border::Caller;
use crate::error::CapiError;

/// The keys that `keys` names; none for a null pointer.
pub(crate) fn keys(caller: &Caller<'_>, keys: *const kvrail_keys) -> Result<PeerKeys, CapiError> {
    if keys.is_null() {
        return Ok(PeerKeys::none());
    }
    let keys = caller.value("keys", keys)?;
    let hex = caller.text_or_none("keys.hex", keys.hex)?;
    let file = caller.text_or_none("keys.file", keys.file)?;
    let other_hex = caller.text_or_none("keys.other_hex", keys.other_hex)?;
    let other_file = caller.text_or_none("keys.other_file", keys.other_file)?;
    let first = key(hex, file)?
        .ok_or(CapiError::Key("keys names no key: give hex or file, or a null pointer for no key at all"))?;
    Ok(match key(other_hex, other_file)? {
        None => PeerKeys::one(first),
        Some(other) => PeerKeys::rotating(first, other),
    })
}

fn key(hex: Option<&str>, file: Option<&str>) -> Result<Option<PeerKey>, CapiError> {
    let read: Result<PeerKey, KeyError> = match (hex, file) {
        (None, None) => return Ok(None),
        (Some(hex), None) => PeerKey::from_hex(hex),
        (None, Some(file)) => PeerKey::from_file(file),
        (Some(_), Some(_)) => return Err(CapiError::Key("keys names one key twice: give hex or file")),
    };
    Ok(Some(read?))
}
