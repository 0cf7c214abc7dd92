//! The secret under which the tags of pages are computed.

use std::fmt;
use std::path::Path;

use kvrail_core::table::KeyTag;
use zeroize::Zeroize;

use crate::key::{KeyId, derived};
use crate::secret_file::{KeyError, from_file, from_hex};

/// 32 secret bytes by which all peers of a group turn the key of a page into its [`KeyTag`].
///
/// An entry of the publication table holds the tag, not the key: a reader that finds another tag
/// than the one that it computed from the key has found another page. Peers without the secret can
/// neither compute the tag of a key, nor learn from a tag which prompt a page belongs to.
///
/// It is not the [`PeerKey`](crate::PeerKey), and must not hold the same bytes. A peer key is
/// rotated: if tags depended on it, a rotation would change all tags, so that no reader would find
/// a page that was published before, and the cache would be as good as empty. A group changes its
/// tag secret only where it means to forget its pages, and at the same time on all peers.
///
/// A tag has 128 bits because two keys must not have the same one by accident, which would serve a
/// wrong page: among 2^40 keys some two have the same tag with a probability of 2^-49. A tag of 64
/// bits would make it certain. More bits would not fit an entry of 32 bytes, which a reader gets
/// whole in one READ.
///
/// Debug output shows its [`id`](Self::id) only. The bytes are overwritten when the secret is
/// dropped.
#[derive(Clone)]
pub struct TagSecret([u8; 32]);

impl TagSecret {
    /// The secret with these bytes. They should be random: 32 from the system's generator.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A secret from 64 hexadecimal digits, of either case; surrounding white space is ignored.
    ///
    /// # Errors
    ///
    /// [`KeyError::Length`] or [`KeyError::Digit`]. Neither contains a part of the text.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        from_hex(text).map(|bytes| Self(*bytes))
    }

    /// A secret from a file, by the same rules as
    /// [`PeerKey::from_file`](crate::PeerKey::from_file).
    ///
    /// # Errors
    ///
    /// The file cannot be read, every user of the machine can read or write it, or it holds no
    /// secret.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        from_file(path.as_ref()).map(|bytes| Self(*bytes))
    }

    /// A public digest of the secret: peers whose ids differ find none of each other's pages.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let digest = derived(&self.0, b"kvrail tag id 1 ", b"");
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        KeyId(id)
    }

    /// The tag of the page with this key: the first 128 bits of HMAC-SHA-256.
    ///
    /// The label of the HMAC does not name a version of the session's protocol, so that a new
    /// version does not empty the cache either.
    #[must_use]
    pub fn tag(&self, key: &[u8]) -> KeyTag {
        let digest = derived(&self.0, b"kvrail key tag 1", key);
        let mut tag = [0; 16];
        tag.copy_from_slice(&digest[..16]);
        KeyTag(u128::from_be_bytes(tag))
    }
}

impl Drop for TagSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for TagSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TagSecret({})", self.id())
    }
}

#[cfg(test)]
mod tests;
