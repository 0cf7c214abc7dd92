//! Names of nodes, layouts and rails. In messages, a name is a field of fixed length.

use std::fmt;
use std::str::FromStr;

/// A name of 1 to `N` bytes of UTF-8, in a field of `N` bytes whose rest is zero. It has no control
/// characters, since a peer's name is printed in logs and on terminals.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name<const N: usize> {
    field: [u8; N],
}

/// The name of a node: at most 64 bytes.
pub type NodeName = Name<64>;
/// The name of a layout: at most 64 bytes.
pub type LayoutName = Name<64>;

/// Why bytes cannot be a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name is empty.
    #[error("a name is empty: give it at least one byte")]
    Empty,
    /// The name is longer than its field.
    #[error("a name of {len} bytes does not fit its field of {max} bytes: shorten it")]
    TooLong {
        /// The name's length in bytes.
        len: usize,
        /// The field's length in bytes.
        max: usize,
    },
    /// The name is not UTF-8.
    #[error("a name is not UTF-8: only its first {valid} bytes are")]
    NotUtf8 {
        /// How many bytes at its beginning are UTF-8.
        valid: usize,
    },
    /// The name has a control character; NUL is one.
    #[error("a name has a control character at byte {at}")]
    Control {
        /// The character's place in bytes, counted from 0.
        at: usize,
    },
    /// After the zero that ends the name, its field has bytes that are not zero.
    #[error("a name ends at byte {end} of its field, and bytes after that are not zero")]
    NotPadded {
        /// Where the name ends, in bytes.
        end: usize,
    },
}

impl NameError {
    /// A number that never changes its meaning (docs/errors.md).
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Empty => 4020,
            Self::TooLong { .. } => 4021,
            Self::NotUtf8 { .. } => 4022,
            Self::Control { .. } => 4023,
            Self::NotPadded { .. } => 4024,
        }
    }
}

impl<const N: usize> Name<N> {
    /// The name `text`.
    ///
    /// # Errors
    ///
    /// It is empty, longer than `N` bytes, or has a control character.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > N {
            return Err(NameError::TooLong { len: text.len(), max: N });
        }
        if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
            return Err(NameError::Control { at });
        }
        let mut field = [0; N];
        field[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { field })
    }

    /// The beginning of `text` that fits, with spaces for control characters; `?` for an empty
    /// text.
    #[must_use]
    pub fn lossy(text: &str) -> Self {
        let mut field = [0; N];
        let mut len = 0;
        for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            let Some(room) = field.get_mut(len..len + c.len_utf8()) else { break };
            c.encode_utf8(room);
            len += c.len_utf8();
        }
        if len == 0 {
            field[..N.min(1)].fill(b'?');
        }
        Self { field }
    }

    /// The name in a field of a message.
    ///
    /// # Errors
    ///
    /// The field holds no valid name, or other bytes after it.
    pub fn from_field(field: &[u8; N]) -> Result<Self, NameError> {
        let end = field.iter().position(|&b| b == 0).unwrap_or(N);
        if field[end..].iter().any(|&b| b != 0) {
            return Err(NameError::NotPadded { end });
        }
        let text =
            std::str::from_utf8(&field[..end]).map_err(|e| NameError::NotUtf8 { valid: e.valid_up_to() })?;
        Self::new(text)
    }

    /// The field: the name, then zeros.
    #[must_use]
    pub const fn field(&self) -> &[u8; N] {
        &self.field
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.field.iter().position(|&b| b == 0).unwrap_or(N);
        // `new` has checked the text. If that check were wrong, an empty name is better than a
        // panic.
        std::str::from_utf8(&self.field[..end]).unwrap_or_default()
    }
}

impl<const N: usize> FromStr for Name<N> {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl<const N: usize> fmt::Display for Name<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<const N: usize> fmt::Debug for Name<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_name_and_zeros_or_it_is_refused() {
        type Short = Name<8>;
        assert_eq!(Short::from_field(b"mlx5_0:1").map(|n| n.to_string()), Ok("mlx5_0:1".into()));
        assert_eq!(Short::from_field(b"eth0\0\0\0\0").map(|n| n.to_string()), Ok("eth0".into()));
        assert_eq!(Short::from_field(&[0; 8]), Err(NameError::Empty));
        assert_eq!(Short::from_field(b"eth0\0x\0\0"), Err(NameError::NotPadded { end: 4 }));
        assert_eq!(Short::from_field(b"a\x1b[2J\0\0\0"), Err(NameError::Control { at: 1 }));
        assert_eq!(Short::from_field(b"abc\xff\0\0\0\0"), Err(NameError::NotUtf8 { valid: 3 }));
        assert_eq!(Short::new("123456789"), Err(NameError::TooLong { len: 9, max: 8 }));
        assert_eq!(Short::new("a\0"), Err(NameError::Control { at: 1 }));
    }

    #[test]
    fn lossy_cuts_between_characters_and_is_always_a_name() {
        assert_eq!(Name::<4>::lossy("aéé").as_str(), "aé");
        assert_eq!(Name::<4>::lossy("a\nb").as_str(), "a b");
        assert_eq!(Name::<4>::lossy("").as_str(), "?");
        for text in ["", "é", "\0", "a\u{7f}long one", "ééé"] {
            let name = Name::<3>::lossy(text);
            assert_eq!(Name::from_field(name.field()), Ok(name), "{text:?}");
        }
    }
}
