//! The keys of pages, and the spaces that they are in.

use std::hash::Hasher;

use kvrail::layouts::Fingerprint;
use kvrail::session::TagSecret;
use kvrail_core::table::KeyTag;
use siphasher::sip128::{Hasher128, SipHasher13};

/// The most bytes of a key.
pub const MAX_KEY_BYTES: usize = 256;
/// The most bytes of a model's name, and of a shape.
pub const MAX_NAMESPACE_TEXT: usize = 1024;

/// What a group of keys has in common. Pages of two namespaces never meet, whatever their keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// The model and its revision, as the engine calls them.
    pub model: String,
    /// The layout of the pages, at its rank: element types, order, block size.
    pub layout: Fingerprint,
    /// The parallel shape where the layout does not say it, such as `tp 2 of 8, pp 0 of 1`.
    pub shape: String,
}

/// A namespace under a group's secret: it turns keys into [`Key`]s.
#[derive(Clone)]
pub struct KeySpace {
    hasher: SipHasher13,
}

/// A page's key in its namespace: 128 bits, which the owner's table entry repeats.
///
/// It is SipHash-1-3 with 128 bits, under a key that only the group's nodes can compute. Without
/// that secret no node can choose two keys that meet, and by accident two of 2^40 keys meet with a
/// probability of 2^-49.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(pub KeyTag);

/// Why bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PageKeyError {
    /// The key has no bytes, or too many.
    #[error("a key of {bytes} bytes: keys have 1 to {MAX_KEY_BYTES} bytes; hash a longer one first")]
    Length {
        /// Its bytes.
        bytes: usize,
    },
    /// A text of a namespace is too long.
    #[error("the {what} of a namespace has {bytes} bytes: {MAX_NAMESPACE_TEXT} at most")]
    Text {
        /// Which text.
        what: &'static str,
        /// Its bytes.
        bytes: usize,
    },
}

impl PageKeyError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Length { .. } => 7000,
            Self::Text { .. } => 7001,
        }
    }
}

impl KeySpace {
    /// The space of `namespace`. Nodes that are to find each other's pages have the same `secret`
    /// and the same namespace.
    ///
    /// # Errors
    ///
    /// A text of the namespace is too long.
    pub fn new(secret: &TagSecret, namespace: &Namespace) -> Result<Self, PageKeyError> {
        let Namespace { model, layout, shape } = namespace;
        let mut bytes = b"kvrail key space 1".to_vec();
        for (what, text) in [("model", model), ("shape", shape)] {
            let length = text.len();
            let short = u16::try_from(length).ok().filter(|_| length <= MAX_NAMESPACE_TEXT);
            let short = short.ok_or(PageKeyError::Text { what, bytes: length })?;
            // The length stands before the text, so that no two namespaces have the same bytes.
            bytes.extend_from_slice(&short.to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&layout.to_bytes());
        let KeyTag(under) = secret.tag(&bytes);
        Ok(Self { hasher: SipHasher13::new_with_key(&under.to_le_bytes()) })
    }

    /// The key with these bytes, 1 to [`MAX_KEY_BYTES`] of them, whatever they are.
    ///
    /// # Errors
    ///
    /// No bytes, or too many.
    #[inline]
    pub fn key(&self, bytes: &[u8]) -> Result<Key, PageKeyError> {
        if bytes.is_empty() || bytes.len() > MAX_KEY_BYTES {
            return Err(PageKeyError::Length { bytes: bytes.len() });
        }
        let mut hasher = self.hasher;
        hasher.write(bytes);
        Ok(Key(KeyTag(hasher.finish128().as_u128())))
    }
}

impl std::fmt::Debug for KeySpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The state of the hasher is secret.
        f.debug_struct("KeySpace").finish_non_exhaustive()
    }
}
