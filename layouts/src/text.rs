//! Text that a `const fn` can write.
//!
//! A mistake in a declaration is found in const evaluation, where `format!` does not exist. A
//! message without the two numbers that disagree is no help; this type writes them.

use crate::axis::AxisKind;

/// A line of text of at most [`Text::CAPACITY`] bytes. Longer text is cut off.
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; Self::CAPACITY],
    len: usize,
}

impl Text {
    /// Longest text, in bytes. The longest message of
    /// [`DeclarationErrorKind`](crate::DeclarationErrorKind) is below it (tested).
    pub const CAPACITY: usize = 320;

    /// No text.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; Self::CAPACITY], len: 0 }
    }

    /// This text, followed by `text`.
    #[must_use]
    pub const fn str(mut self, text: &str) -> Self {
        let text = text.as_bytes();
        let mut i = 0;
        while i < text.len() && self.len < Self::CAPACITY {
            self.bytes[self.len] = text[i];
            self.len += 1;
            i += 1;
        }
        self
    }

    /// This text, followed by `number` in decimal.
    #[must_use]
    pub const fn num(mut self, number: u64) -> Self {
        let mut digits = 1;
        let mut power = 1;
        while number / power >= 10 {
            power *= 10;
            digits += 1;
        }
        while digits > 0 && self.len < Self::CAPACITY {
            // The cast keeps one decimal digit.
            self.bytes[self.len] = b'0' + (number / power % 10) as u8;
            self.len += 1;
            power = if power >= 10 { power / 10 } else { 1 };
            digits -= 1;
        }
        self
    }

    /// This text, followed by bytes in hexadecimal: a fingerprint.
    #[must_use]
    pub const fn hex(mut self, bytes: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut i = 0;
        while i < 2 * bytes.len() && self.len < Self::CAPACITY {
            let byte = bytes[i / 2];
            self.bytes[self.len] = DIGITS[(if i % 2 == 0 { byte >> 4 } else { byte & 15 }) as usize];
            self.len += 1;
            i += 1;
        }
        self
    }

    /// This text, followed by an axis as [`AxisKind`] is displayed.
    #[must_use]
    pub(crate) const fn axis(self, axis: AxisKind) -> Self {
        match axis {
            AxisKind::Other(tag) => self.str(axis.name()).str("#").num(tag as u64),
            _ => self.str(axis.name()),
        }
    }

    /// The text.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        let (written, _) = self.bytes.split_at(self.len);
        match core::str::from_utf8(written) {
            Ok(text) => text,
            // A character of more than one byte was cut in half at the capacity.
            Err(cut) => match core::str::from_utf8(written.split_at(cut.valid_up_to()).0) {
                Ok(text) => text,
                Err(_) => "",
            },
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Display for Text {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.as_str())
    }
}

impl core::fmt::Debug for Text {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Equality of strings, for `const fn`.
pub(crate) const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for n in [0, 1, 9, 10, 99, 100, 4_497_408, u64::MAX] {
            assert_eq!(Text::new().num(n).as_str().parse(), Ok(n));
        }
    }

    #[test]
    fn bytes_are_written_as_a_fingerprint_is() {
        let print =
            crate::Fingerprint::from_bytes([0xA0, 1, 0x2F, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xFF]);
        assert_eq!(Text::new().hex(&print.to_bytes()).as_str(), std::format!("{print}"));
    }

    #[test]
    fn text_beyond_the_capacity_is_cut_between_characters() {
        let mut text = Text::new().str("x");
        for _ in 0..Text::CAPACITY {
            text = text.str("é");
        }
        assert_eq!(text.as_str().len(), Text::CAPACITY - 1);
        assert_eq!(text.num(7).as_str().len(), Text::CAPACITY - 1);
    }
}
