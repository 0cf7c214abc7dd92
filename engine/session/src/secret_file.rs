//! Secrets of 32 bytes in files and as text, and the errors of files and texts that hold none.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The shortest passphrase, in bytes. A shorter one can be guessed offline however slow the
/// derivation is.
pub(crate) const PASSPHRASE_MIN: usize = 16;

/// The most bytes of a file that are read: enough to see that a longer file holds no secret.
const FILE_MAX: usize = 256;

/// Makes a key file that other users cannot open: most umasks let them.
const MAKE: &str = "(umask 077; head -c 32 /dev/urandom > key)";

/// 32 secret bytes, overwritten when they are dropped.
pub(crate) type SecretBytes = Zeroizing<[u8; 32]>;

/// Why there is no [`PeerKey`](crate::PeerKey) or [`TagSecret`](crate::TagSecret).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text does not have 64 characters.
    #[error(
        "a key is 64 hexadecimal digits, and this text has {len} characters: make a key with `openssl rand -hex 32`"
    )]
    Length {
        /// Its characters, without surrounding white space.
        len: usize,
    },
    /// A character is no hexadecimal digit.
    #[error(
        "a key is 64 hexadecimal digits, and character {at} is none: make a key with `openssl rand -hex 32`"
    )]
    Digit {
        /// The character's place, counted from 0.
        at: usize,
    },
    /// The passphrase is so short that it can be guessed.
    #[error(
        "a passphrase of {len} bytes can be guessed offline: use at least {PASSPHRASE_MIN}, or a key file made with `{MAKE}`"
    )]
    Passphrase {
        /// Its length in bytes.
        len: usize,
    },
    /// The file cannot be read.
    #[error("cannot read the key file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: std::io::Error,
    },
    /// Every user of the machine can read or replace the key.
    #[error(
        "the key file {} has mode {mode:03o}, so other users can open it: make a new key with `{MAKE}`, or `chmod o-rwx` the file if no other user has read it",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no key.
    #[error("the key file {} holds no key: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        // A raw name: the text contains the cause, so `source()` must not return it again.
        r#source: Box<KeyError>,
    },
    /// 32 bytes of a file that no random generator gives.
    #[error("its 32 bytes are text, or all the same, so they can be guessed: make a key with `{MAKE}`")]
    NotRandom,
    /// The file holds bytes that are no text, and not 32 of them.
    #[error(
        "a key is 32 bytes or 64 hexadecimal digits, and the file has {len} bytes that are no text: make a key with `{MAKE}`"
    )]
    Size {
        /// How many bytes there are; 256 stands for 256 or more.
        len: usize,
    },
}

impl KeyError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Length { .. } => 4030,
            Self::Digit { .. } => 4031,
            Self::Passphrase { .. } => 4032,
            Self::File { .. } => 4033,
            Self::Exposed { .. } => 4034,
            Self::NotRandom => 4035,
            Self::Size { .. } => 4036,
            Self::Content { source, .. } => source.code(),
        }
    }
}

/// The secret in 64 hexadecimal digits, with white space around them.
pub(crate) fn from_hex(text: &str) -> Result<SecretBytes, KeyError> {
    let text = text.trim_ascii();
    let len = text.chars().count();
    if len != 64 {
        return Err(KeyError::Length { len });
    }
    let mut secret = SecretBytes::default();
    for (at, c) in text.chars().enumerate() {
        let digit = c.to_digit(16).ok_or(KeyError::Digit { at })?;
        // digit < 16.
        secret[at / 2] = secret[at / 2] << 4 | digit as u8;
    }
    Ok(secret)
}

/// The secret in a file whose mode gives "others" no access: 32 bytes, or 64 hexadecimal digits
/// with white space around them. The length tells the two apart.
pub(crate) fn from_file(path: &Path) -> Result<SecretBytes, KeyError> {
    let failed = |source| KeyError::File { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(KeyError::Exposed { path: path.into(), mode });
    }
    // Twice the room, so that reading makes no other copy.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * FILE_MAX));
    file.take(FILE_MAX as u64).read_to_end(&mut bytes).map_err(failed)?;
    content(&bytes).map_err(|source| KeyError::Content { path: path.into(), source: Box::new(source) })
}

fn content(bytes: &[u8]) -> Result<SecretBytes, KeyError> {
    if let Ok(raw) = <&[u8; 32]>::try_from(bytes) {
        // A generator gives such bytes once in 2^44 keys; a person who saves a word or half a key
        // does each time.
        let text = raw.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
        if text || raw.iter().all(|&b| b == raw[0]) {
            return Err(KeyError::NotRandom);
        }
        return Ok(Zeroizing::new(*raw));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| KeyError::Size { len: bytes.len() })?;
    from_hex(text)
}

#[cfg(test)]
mod tests;
