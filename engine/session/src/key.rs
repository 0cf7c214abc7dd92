//! The key that all peers of a group share: every process that holds it may join.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use crate::secret_file::{KeyError, PASSPHRASE_MIN, SecretBytes, from_file, from_hex};

/// Iterations of PBKDF2-HMAC-SHA-256 for a passphrase: OWASP's Password Storage Cheat Sheet, 2023.
const PASSPHRASE_ITERATIONS: u32 = 600_000;
/// The salt is fixed, so that both sides derive the same key from the same words.
const PASSPHRASE_SALT: &[u8] = b"kvrail peer key from a passphrase";

/// The pre-shared key of one Noise handshake. It is derived from a [`PeerKey`], or zeros, which
/// are public, where there is no key.
pub(crate) type Psk = SecretBytes;

/// 32 secret bytes that all peers of a group share.
///
/// Debug output shows its [`KeyId`] only. The bytes are overwritten when the key is dropped.
#[derive(Clone)]
pub struct PeerKey([u8; 32]);

/// A public digest of a key: equal keys have equal ids, and a random key cannot be found from its
/// id. Both sides print their ids when their keys differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 8]);

impl KeyId {
    /// Stands for the id where there is no key.
    pub const NONE: Self = Self([0; 8]);
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
        from_hex(text).map(|bytes| Self(*bytes))
    }

    /// A key from a file whose mode gives "others" no access, so make it after `umask 077`. The
    /// file holds exactly 32 bytes, as `head -c 32 /dev/urandom > key` makes it, or 64 hexadecimal
    /// digits with white space around them, as `openssl rand -hex 32 > key` makes it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, every user of the machine can read or write it, or it holds no key.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        from_file(path.as_ref()).map(|bytes| Self(*bytes))
    }

    /// A key derived from words that people can remember, by PBKDF2-HMAC-SHA-256 with 600,000
    /// iterations, which takes about a tenth of a second.
    ///
    /// It is the weaker choice: the [`KeyId`] is a digest of the key and travels in clear, so an
    /// attacker who has seen it once can try words against it offline. A file of random bytes has
    /// no such weakness.
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
        let digest = derived(&self.0, b"kvrail/2 key id ", b"");
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        KeyId(id)
    }

    /// What Noise takes as its pre-shared key: the key itself is input of HMAC only.
    fn psk(&self) -> Psk {
        derived(&self.0, b"kvrail/2 psk    ", b"")
    }
}

/// HMAC-SHA-256 of `input` under `secret` for the purpose that `label` names. All labels have the
/// same length, so no label is the beginning of another.
pub(crate) fn derived(secret: &[u8; 32], label: &[u8; 16], input: &[u8]) -> SecretBytes {
    // HMAC takes keys of any length: this cannot fail, and a key of 32 bytes is used as it is.
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes 32 bytes");
    let mut digest = mac.chain_update(label).chain_update(input).finalize().into_bytes();
    let mut bytes = SecretBytes::default();
    bytes.copy_from_slice(&digest);
    digest.as_mut_slice().zeroize();
    bytes
}

/// The keys of a process: usually one, two during a rotation, or none.
///
/// A producer accepts readers with each of its keys. A reader dials with its first key, and with
/// the other one where the producer does not know the first.
///
/// Debug output shows the keys' [`KeyId`]s only.
#[derive(Clone)]
pub struct PeerKeys(Arc<[PeerKey]>);

impl PeerKeys {
    /// One key.
    #[must_use]
    pub fn one(key: PeerKey) -> Self {
        Self([key].into())
    }

    /// Two keys, during a rotation: `first` is what a reader dials with first. Two equal keys count
    /// as one.
    #[must_use]
    pub fn rotating(first: PeerKey, other: PeerKey) -> Self {
        if first.id() == other.id() { Self::one(first) } else { Self([first, other].into()) }
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

    /// The ids of the keys, in the order in which a reader dials with them; none without a key.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.0.iter().map(PeerKey::id)
    }

    /// How many times a reader dials at most.
    pub(crate) fn attempts(&self) -> usize {
        self.0.len().max(1)
    }

    /// The id of the key that a reader dials with in its attempt number `attempt`, counted from 0:
    /// [`KeyId::NONE`] without a key. After the last key comes the last key again.
    pub(crate) fn id(&self, attempt: usize) -> KeyId {
        self.key(attempt).map_or(KeyId::NONE, PeerKey::id)
    }

    /// The same key's id and pre-shared key.
    pub(crate) fn attempt(&self, attempt: usize) -> (KeyId, Psk) {
        self.key(attempt).map_or((KeyId::NONE, no_key()), |key| (key.id(), key.psk()))
    }

    /// The pre-shared key of the key with this id; without a key, of [`KeyId::NONE`].
    pub(crate) fn named(&self, id: KeyId) -> Option<Psk> {
        if self.is_none() {
            return (id == KeyId::NONE).then(no_key);
        }
        self.0.iter().find(|key| key.id() == id).map(PeerKey::psk)
    }

    fn key(&self, attempt: usize) -> Option<&PeerKey> {
        self.0.get(attempt).or(self.0.last())
    }
}

/// The pre-shared key of peers that have no key. It is public.
fn no_key() -> Psk {
    Zeroizing::new([0; 32])
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

impl fmt::Debug for PeerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerKeys")?;
        f.debug_list().entries(self.ids()).finish()
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
mod tests;
