//! Rows of a page, such as the tokens that sparse attention asks for: neighbours are read together,
//! and all of them land one behind the other.

use core::fmt;

use crate::limits::MAX_ROWS;

/// Some rows of a page. Row `i` is the `row_bytes` bytes from byte `i * row_bytes` of the page on.
///
/// They land one behind the other, in the order in which the page has them: `row_bytes * len()`
/// bytes in all. [`place`](Self::place) says where each row lands.
///
/// ```
/// use kvrail_core::rows::Rows;
///
/// // The tokens 3, 4, 5 and 40 of a page of 64 tokens of 656 bytes: two READs.
/// let rows = Rows::of(656, &[3, 4, 5, 40])?;
/// assert_eq!((rows.len(), rows.bytes()), (4, 4 * 656));
/// assert_eq!(rows.place(40), Some(3));
/// # Ok::<(), kvrail_core::rows::RowsError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// The first row; bit 0 of `mask`, which is set.
    first: u32,
    mask: u64,
    /// At least 1.
    row_bytes: u32,
}

/// Why numbers are not those of rows that can be read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowsError {
    /// There is no row.
    #[error("no row is named: name at least one")]
    Empty,
    /// Rows have no bytes.
    #[error("rows of 0 bytes: give the bytes of a row")]
    NoBytes,
    /// A row is not behind the one before it.
    #[error("row {row} follows row {before}: name each row once, in rising order")]
    Order {
        /// The row.
        row: u32,
        /// The row before it.
        before: u32,
    },
    /// The rows are too far apart.
    #[error(
        "rows {first} to {last} span {}, and the rows of one READ may span {MAX_ROWS}: read the rest as another page",
        u64::from(*last) - u64::from(*first) + 1
    )]
    Span {
        /// The first row.
        first: u32,
        /// The last row.
        last: u32,
    },
}

impl RowsError {
    /// The number of this error in docs/errors.md, for logs, metrics and callers in other
    /// languages.
    #[must_use]
    pub const fn code(&self) -> u32 {
        match self {
            Self::Empty => 2085,
            Self::NoBytes => 2086,
            Self::Order { .. } => 2087,
            Self::Span { .. } => 2088,
        }
    }
}

impl Rows {
    /// The rows with these numbers, which rise, of `row_bytes` bytes each.
    ///
    /// # Errors
    ///
    /// No row, rows of 0 bytes, rows that do not rise, or that span more than
    /// [`MAX_ROWS`].
    pub fn of(row_bytes: u32, rows: &[u32]) -> Result<Self, RowsError> {
        let (&first, behind) = rows.split_first().ok_or(RowsError::Empty)?;
        let (mut mask, mut before) = (1, first);
        for &row in behind {
            if row <= before {
                return Err(RowsError::Order { row, before });
            }
            if row - first >= MAX_ROWS {
                return Err(RowsError::Span { first, last: row });
            }
            mask |= 1 << (row - first);
            before = row;
        }
        Self::of_mask(row_bytes, first, mask)
    }

    /// The rows whose bits are set in `mask`, of which bit 0 is row `first`.
    ///
    /// # Errors
    ///
    /// No row, or rows of 0 bytes.
    pub const fn of_mask(row_bytes: u32, first: u32, mask: u64) -> Result<Self, RowsError> {
        if mask == 0 {
            return Err(RowsError::Empty);
        }
        if row_bytes == 0 {
            return Err(RowsError::NoBytes);
        }
        let shift = mask.trailing_zeros();
        let Some(first) = first.checked_add(shift) else {
            return Err(RowsError::Span { first, last: u32::MAX });
        };
        Ok(Self { first, mask: mask >> shift, row_bytes })
    }

    /// How many rows they are; at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "rows are never none")]
    pub const fn len(&self) -> usize {
        self.mask.count_ones() as usize
    }

    /// Bytes of a row.
    #[must_use]
    pub const fn row_bytes(&self) -> u32 {
        self.row_bytes
    }

    /// Bytes of all rows together.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.len() as u64 * self.row_bytes as u64
    }

    /// The first row and the last.
    #[must_use]
    pub const fn span(&self) -> (u32, u64) {
        (self.first, self.first as u64 + (u64::BITS - 1 - self.mask.leading_zeros()) as u64)
    }

    /// Where row number `row` lands, counted in rows from 0; `None` if it is not among them.
    #[must_use]
    pub const fn place(&self, row: u32) -> Option<usize> {
        let Some(at) = row.checked_sub(self.first) else { return None };
        if at >= MAX_ROWS || self.mask >> at & 1 == 0 {
            return None;
        }
        Some((self.mask & ((1 << at) - 1)).count_ones() as usize)
    }

    /// The byte of the page at which the first row begins.
    pub(crate) const fn begin(&self) -> u64 {
        self.first as u64 * self.row_bytes as u64
    }

    /// The first byte of the page behind the last row, or the largest number where that is larger.
    pub(crate) const fn end(&self) -> u64 {
        (self.span().1 + 1).saturating_mul(self.row_bytes as u64)
    }

    /// Which rows from the first on, as bits.
    pub(crate) const fn mask(&self) -> u64 {
        self.mask
    }

    /// How many READs of at most `1 << shift` bytes bring them.
    pub(crate) const fn reads(&self, shift: u8) -> u32 {
        RowReads::new(self.mask, self.row_bytes, shift).left()
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = (0..u64::from(MAX_ROWS)).filter(|at| self.mask >> at & 1 != 0);
        write!(f, "rows of {} bytes: ", self.row_bytes)?;
        f.debug_list().entries(rows.map(|at| u64::from(self.first) + at)).finish()
    }
}

/// One READ of rows that are neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowRead {
    /// From the first row of the page's on, in bytes.
    pub(crate) source: u32,
    /// From the first byte of where the page lands.
    pub(crate) destination: u32,
    pub(crate) len: u32,
}

/// The READs that bring the rows of a page. A READ brings neighbours, of which the first has its
/// bit in `starts`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowReads {
    mask: u64,
    /// The first rows of the READs that are left.
    starts: u64,
    row_bytes: u32,
    /// Where the next READ lands.
    destination: u32,
}

/// For each number of bits: every so many bits, one that is set.
const EVERY: [u64; 7] = [
    u64::MAX,
    0x5555_5555_5555_5555,
    0x1111_1111_1111_1111,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0000_0001_0000_0001,
    1,
];

impl RowReads {
    /// Those of `mask`, in READs of at most `1 << shift` bytes. A row has no more bytes than that.
    pub(crate) const fn new(mask: u64, row_bytes: u32, shift: u8) -> Self {
        // A READ ends with each row whose number is a multiple of a power of two, so that where a
        // READ begins takes no count of rows.
        let width = u32::BITS - (row_bytes - 1).leading_zeros();
        let rows = (shift as u32).saturating_sub(width);
        let every = EVERY[if rows < 6 { rows as usize } else { 6 }];
        Self { mask, starts: mask & (!(mask << 1) | every), row_bytes, destination: 0 }
    }

    /// Those of a page of which `mask` are read, `bytes` in all.
    #[inline]
    pub(crate) const fn of(mask: u64, bytes: u32, shift: u8) -> Self {
        let rows = mask.count_ones();
        debug_assert!(rows > 0 && bytes > 0 && bytes.is_multiple_of(rows));
        let row_bytes = match bytes.checked_div(rows) {
            Some(row_bytes) => row_bytes,
            None => 1,
        };
        Self::new(mask, row_bytes, shift)
    }

    /// Bytes from the first row to the last. They are within a page, whose length is a u32.
    pub(crate) const fn span(&self) -> u32 {
        (u64::BITS - self.mask.leading_zeros()) * self.row_bytes
    }

    /// How many READs are left.
    #[inline]
    pub(crate) const fn left(&self) -> u32 {
        self.starts.count_ones()
    }

    /// Whether no READ is left.
    #[inline]
    pub(crate) const fn is_over(&self) -> bool {
        self.starts == 0
    }

    /// Without the first `n`.
    #[inline]
    pub(crate) const fn skip(mut self, n: u32) -> Self {
        if n > 0 {
            let mut left = n;
            while left > 0 {
                self.starts &= self.starts.wrapping_sub(1);
                left -= 1;
            }
            let before = self.mask & self.starts.wrapping_sub(1) & !self.starts;
            self.destination = before.count_ones() * self.row_bytes;
        }
        self
    }

    /// The next READ. There is one.
    #[inline]
    pub(crate) const fn next(&mut self) -> RowRead {
        debug_assert!(self.starts != 0, "as many READs as the page has chunks");
        let start = self.starts.trailing_zeros() % u64::BITS;
        self.starts &= self.starts.wrapping_sub(1);
        // The READ ends before a row that is not read, or that begins another READ.
        let ends = (!self.mask | self.starts) >> start | !(u64::MAX >> start);
        let len = ends.trailing_zeros() * self.row_bytes;
        let read = RowRead { source: start * self.row_bytes, destination: self.destination, len };
        self.destination += len;
        read
    }

    /// The bytes of the next READ, and how many from it on have as many.
    #[inline]
    pub(crate) const fn equal(mut self) -> (u32, u32) {
        let len = self.next().len;
        let mut n = 1;
        while self.starts != 0 && self.next().len == len {
            n += 1;
        }
        (len, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString as _;
    use std::vec::Vec;

    /// SplitMix64 (Steele, Lea, Flood 2014).
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        }

        fn below(&mut self, n: u64) -> u64 {
            self.next() % n
        }
    }

    /// The READs one by one, from the rows one by one.
    fn by_hand(mask: u64, row_bytes: u32, shift: u8) -> Vec<RowRead> {
        let most = ((1_u32 << shift) / row_bytes).max(1);
        let most = 1 << most.ilog2().min(6);
        let mut reads: Vec<RowRead> = Vec::new();
        let mut last = None;
        for row in (0..64).filter(|row| mask >> row & 1 != 0) {
            match reads.last_mut() {
                Some(read) if last == Some(row - 1) && row % most != 0 => read.len += row_bytes,
                before => {
                    let destination = before.map_or(0, |read| read.destination + read.len);
                    reads.push(RowRead { source: row * row_bytes, destination, len: row_bytes });
                }
            }
            last = Some(row);
        }
        reads
    }

    #[test]
    fn reads_of_rows_are_those_that_are_made_row_by_row() {
        let mut rng = Rng(7);
        let dense = |rng: &mut Rng| (0..1 + rng.below(5)).fold(u64::MAX, |mask, _| mask & rng.next());
        for round in 0..20_000 {
            let mask = match round {
                0 => u64::MAX,
                1 => 1 << 63,
                2 => u64::MAX << 1,
                _ if rng.below(2) == 0 => dense(&mut rng),
                _ => !dense(&mut rng),
            };
            let shift = 8 + rng.below(9) as u8;
            let row_bytes = 1 + rng.below(1 << shift) as u32;
            let rows = match Rows::of_mask(row_bytes, 5, mask) {
                Ok(rows) => rows,
                Err(error) => {
                    assert!(error == RowsError::Empty && mask == 0);
                    continue;
                }
            };
            let expected = by_hand(rows.mask(), row_bytes, shift);
            assert_eq!(rows.reads(shift), expected.len() as u32, "{mask:#x}");
            let bytes = rows.bytes() as u32;
            for (first, read) in expected.iter().enumerate() {
                let reads = RowReads::of(rows.mask(), bytes, shift).skip(first as u32);
                assert_eq!(reads.clone().next(), *read, "{mask:#x} from {first}");
                let equal = expected[first..].iter().take_while(|other| other.len == read.len).count();
                assert_eq!(reads.equal(), (read.len, equal as u32), "{mask:#x} from {first}");
                assert!(read.len <= 1 << shift);
            }
            let last = expected.last().unwrap();
            assert_eq!(u64::from(last.destination + last.len), rows.bytes());
        }
    }

    #[test]
    fn rows_are_named_once_in_rising_order_and_are_not_far_apart() {
        assert_eq!(Rows::of(656, &[]), Err(RowsError::Empty));
        assert_eq!(Rows::of(0, &[1]), Err(RowsError::NoBytes));
        assert_eq!(Rows::of(656, &[4, 4]), Err(RowsError::Order { row: 4, before: 4 }));
        assert_eq!(Rows::of(656, &[4, 9, 6]), Err(RowsError::Order { row: 6, before: 9 }));
        let far = Rows::of(656, &[10, 74]).unwrap_err();
        assert_eq!(
            far.to_string(),
            "rows 10 to 74 span 65, and the rows of one READ may span 64: read the rest as another page"
        );
        assert!(Rows::of_mask(1, u32::MAX, 1).is_ok());
        let beyond = Rows::of_mask(1, u32::MAX, 2).unwrap_err();
        assert_eq!(beyond, RowsError::Span { first: u32::MAX, last: u32::MAX });
        let rows = Rows::of(656, &[10, 12, 73]).unwrap();
        assert_eq!((rows.len(), rows.span(), rows.begin(), rows.end()), (3, (10, 73), 6560, 74 * 656));
        assert_eq!(
            [9, 10, 11, 12, 73, 74, u32::MAX].map(|row| rows.place(row)),
            [None, Some(0), None, Some(1), Some(2), None, None]
        );
        assert_eq!(std::format!("{rows:?}"), "rows of 656 bytes: [10, 12, 73]");
        let rows = Rows::of_mask(656, 8, 0b10100).unwrap();
        assert_eq!(rows, Rows::of(656, &[10, 12]).unwrap());
    }
}
