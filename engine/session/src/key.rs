//! The key that all peers of a group share: every process that holds it may join.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroize;

/// Iterations of PBKDF2-HMAC-SHA-256 for a passphrase: OWASP's Password Storage Cheat Sheet, 2023.
const PASSPHRASE_ITERATIONS: u32 = 600_000;
/// The salt is fixed, so that both sides derive the same key from the same words.
const PASSPHRASE_SALT: &[u8] = b"kvrail peer key from a passphrase";
/// The shortest passphrase, in bytes. A shorter one can be guessed offline however slow the
/// derivation is.
const PASSPHRASE_MIN: usize = 16;

/// 32 secret bytes that all peers of a group share.
///
/// Debug output shows its [`KeyId`] only. The bytes are overwritten when the key is dropped.
#[derive(Clone)]
pub struct PeerKey([u8; 32]);

/// A public digest of a key: equal keys have equal ids, and the key cannot be found from the id.
/// Both sides print their ids when their keys differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 8]);

/// Why there is no [`PeerKey`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The text does not have 64 characters.
    #[error(
        "a peer key is 64 hexadecimal digits, and this text has {len} characters: make a key with `openssl rand -hex 32`"
    )]
    Length {
        /// Its characters, without surrounding white space.
        len: usize,
    },
    /// A character is no hexadecimal digit.
    #[error(
        "a peer key is 64 hexadecimal digits, and character {at} is none: make a key with `openssl rand -hex 32`"
    )]
    Digit {
        /// The character's place, counted from 0.
        at: usize,
    },
    /// The passphrase is so short that it can be guessed.
    #[error(
        "a passphrase of {len} bytes can be guessed offline: use at least {PASSPHRASE_MIN}, or a key file made with `openssl rand -hex 32`"
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
    #[error("the key file {} has mode {mode:03o}, so other users can open it: make a new key, and `chmod o-rwx` the file", path.display())]
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
            Self::Content { source, .. } => source.code(),
        }
    }
}

impl PeerKey {
    /// The key with these bytes. They should be random: 32 from the system's generator.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key from 64 hexadecimal digits, of either case; surrounding white space is ignored.
    ///
    /// # Errors
    ///
    /// [`KeyError::Length`] or [`KeyError::Digit`]. Neither contains a part of the text.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let text = text.trim_ascii();
        let len = text.chars().count();
        if len != 64 {
            return Err(KeyError::Length { len });
        }
        let mut key = Self([0; 32]);
        for (at, c) in text.chars().enumerate() {
            let digit = c.to_digit(16).ok_or(KeyError::Digit { at })?;
            // digit < 16.
            key.0[at / 2] = key.0[at / 2] << 4 | digit as u8;
        }
        Ok(key)
    }

    /// A key from a file that holds 64 hexadecimal digits and whose mode gives "others" no access.
    ///
    /// # Errors
    ///
    /// The file cannot be read, every user of the machine can read or write it, or it holds no key.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let failed = |source| KeyError::File { path: path.into(), source };
        let file = std::fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o007 != 0 {
            return Err(KeyError::Exposed { path: path.into(), mode });
        }
        // 256 bytes are enough to see that a longer file holds no key.
        let mut text = String::with_capacity(256);
        let read = file.take(256).read_to_string(&mut text).map_err(failed);
        let key = read.and_then(|_| {
            Self::from_hex(&text)
                .map_err(|source| KeyError::Content { path: path.into(), source: Box::new(source) })
        });
        text.zeroize();
        key
    }

    /// A key derived from words that people can remember, by PBKDF2-HMAC-SHA-256 with 600,000
    /// iterations, which takes about a tenth of a second.
    ///
    /// It is the weaker choice: an attacker who records one exchange can try words against the
    /// record offline. A file of random bytes has no such weakness.
    ///
    /// # Errors
    ///
    /// [`KeyError::Passphrase`] below 16 bytes.
    pub fn from_passphrase(words: &str) -> Result<Self, KeyError> {
        if words.len() < PASSPHRASE_MIN {
            return Err(KeyError::Passphrase { len: words.len() });
        }
        Ok(Self::stretch(words, PASSPHRASE_ITERATIONS))
    }

    fn stretch(words: &str, iterations: u32) -> Self {
        Self(pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(words.as_bytes(), PASSPHRASE_SALT, iterations))
    }

    /// Its public digest.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = self.mac(b"kvrail/1 key id ").finalize().into_bytes();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        KeyId(id)
    }

    /// A MAC under this key for one purpose, which `label` names. All labels have the same length,
    /// so no label is the beginning of another.
    pub(crate) fn mac(&self, label: &[u8; 16]) -> Hmac<Sha256> {
        // HMAC takes keys of any length: this cannot fail, and a key of 32 bytes is used as it is.
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes 32 bytes");
        mac.chain_update(label)
    }
}

/// The keys of a process: usually one, two during a rotation, or none.
///
/// A producer accepts readers with each of its keys. A reader dials with its first key, and with
/// the other one where the producer does not know the first.
#[derive(Clone, Debug)]
pub struct PeerKeys(std::sync::Arc<[PeerKey]>);

impl PeerKeys {
    /// One key.
    #[must_use]
    pub fn one(key: PeerKey) -> Self {
        Self([key].into())
    }

    /// Two keys, during a rotation: `first` is what a reader dials with first.
    #[must_use]
    pub fn rotating(first: PeerKey, other: PeerKey) -> Self {
        Self([first, other].into())
    }

    /// No key: everyone who reaches the address is served, and nothing tells peers apart. A
    /// producer without a key serves loopback addresses only, unless
    /// [`ServerConfig::serve_anyone`](crate::ServerConfig::serve_anyone) is set.
    #[must_use]
    pub fn none() -> Self {
        Self([].into())
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// How many times a reader dials at most.
    pub(crate) fn attempts(&self) -> usize {
        self.0.len().max(1)
    }
}

impl From<PeerKey> for PeerKeys {
    fn from(key: PeerKey) -> Self {
        Self::one(key)
    }
}

impl From<&PeerKey> for PeerKeys {
    fn from(key: &PeerKey) -> Self {
        Self::one(key.clone())
    }
}

impl From<&PeerKeys> for PeerKeys {
    fn from(keys: &PeerKeys) -> Self {
        keys.clone()
    }
}

impl Drop for PeerKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerKey({})", self.id())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

    #[test]
    fn hex_is_64_digits() {
        let key = PeerKey::from_hex(&format!(" {HEX}\n")).unwrap();
        assert!((0..32).eq(key.0));
        assert!(matches!(PeerKey::from_hex(&HEX[1..]), Err(KeyError::Length { len: 63 })));
        assert!(matches!(PeerKey::from_hex(&format!("{HEX}0")), Err(KeyError::Length { len: 65 })));
        assert!(matches!(PeerKey::from_hex(&HEX.replace('A', "g")), Err(KeyError::Digit { at: 53 })));
        assert!(matches!(PeerKey::from_hex(&HEX.replace('A', "é")), Err(KeyError::Digit { at: 53 })));
    }

    #[test]
    fn neither_debug_output_nor_errors_contain_the_key() {
        let key = PeerKey::from_hex(HEX).unwrap();
        let shown = format!("{key:?}");
        assert!(!shown.contains("0001") && shown.contains(&key.id().to_string()), "{shown}");
        let error = PeerKey::from_hex(&HEX[1..]).unwrap_err().to_string();
        assert!(!error.contains("010203"), "{error}");
    }

    #[test]
    fn a_file_open_to_others_is_refused() {
        let dir = std::env::temp_dir().join(format!("kvrail-key-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("key");
        let mut file = std::fs::File::create(&path).unwrap();
        writeln!(file, "{HEX}").unwrap();
        let chmod = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        chmod(0o640);
        assert_eq!(PeerKey::from_file(&path).unwrap().id(), PeerKey::from_hex(HEX).unwrap().id());
        chmod(0o644);
        let error = PeerKey::from_file(&path).unwrap_err();
        assert!(error.to_string().contains("mode 644"), "{error}");
        chmod(0o600);
        file.write_all(&[b'a'; 4096]).unwrap();
        assert!(matches!(PeerKey::from_file(&path), Err(KeyError::Content { .. })));
        std::fs::remove_dir_all(&dir).unwrap();
        let error = PeerKey::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("kvrail-key") && error.contains("No such file"), "{error}");
    }

    /// Python: `hashlib.pbkdf2_hmac("sha256", words, salt, 1000)`.
    #[test]
    fn passphrases_are_stretched_by_pbkdf2() {
        assert!(matches!(PeerKey::from_passphrase("too short"), Err(KeyError::Passphrase { len: 9 })));
        let key = PeerKey::stretch("correct horse battery staple", 1000);
        let hex: String = key.0.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, PBKDF2_1000);
    }

    const PBKDF2_1000: &str = "a582513ba71a5f03172b554f856e3a508eafac2ed9d25542d390a5228aec211e";
}
