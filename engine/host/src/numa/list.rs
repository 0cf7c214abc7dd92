//! A list of CPUs or of NUMA nodes, as the kernel writes it: `0-95,192-287`.

use std::fmt;

/// The most ranges of a list: one for each CPU of the largest machine that Linux runs on.
const RANGES: usize = 8192;

/// Numbers in ranges. Each range has its first number and its last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberList(Vec<(u32, u32)>);

impl NumberList {
    /// Parses a list; an empty text is an empty list. `None`: the text is no list, or has more than
    /// 8,192 ranges.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return Some(Self::default());
        }
        let mut ranges = Vec::new();
        for range in text.split(',') {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let (from, to) = (from.parse().ok()?, to.parse().ok()?);
            if from > to || ranges.len() == RANGES {
                return None;
            }
            ranges.push((from, to));
        }
        Some(Self(ranges))
    }

    /// How many numbers there are, if no two ranges overlap.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(from, to)| u64::from(to - from) + 1).sum()
    }

    /// Whether a number is in both lists.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|&(from, to)| other.0.iter().any(|&(first, last)| first <= to && from <= last))
    }

    /// The numbers that are in both lists.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let both = self.0.iter().flat_map(|&(from, to)| {
            let within = other.0.iter().map(move |&(first, last)| (first.max(from), last.min(to)));
            within.filter(|(first, last)| first <= last)
        });
        Self(both.collect())
    }

    /// All numbers, in the order of the list.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().flat_map(|&(from, to)| from..=to)
    }

    /// Whether `number` is in the list.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        self.0.iter().any(|&(from, to)| (from..=to).contains(&number))
    }
}

impl fmt::Display for NumberList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, &(from, to)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            if from == to { write!(f, "{comma}{from}")? } else { write!(f, "{comma}{from}-{to}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        let list = NumberList::parse("0-95,192-287\n").unwrap();
        assert_eq!((list.count(), list.to_string()), (192, "0-95,192-287".into()));
        assert!(list.has(192) && !list.has(96));
        let meets = |other| list.meets(&NumberList::parse(other).unwrap());
        assert!(meets("95-191") && meets("100-400") && !meets("96-191") && !meets(""));
        assert_eq!(NumberList::parse("").unwrap().to_string(), "none");
        let common = |other| list.common(&NumberList::parse(other).unwrap()).to_string();
        assert_eq!([common("90-200"), common("96-191"), common("3,5")], ["90-95,192-200", "none", "3,5"]);
        assert_eq!(NumberList::parse("3,5-7").unwrap().iter().collect::<Vec<_>>(), [3, 5, 6, 7]);
        for text in ["a", "3-", "-1", "5-3", "1,,2", "4294967296", "0-3;8"] {
            assert_eq!(NumberList::parse(text), None, "{text}");
        }
        assert_eq!(NumberList::parse("0-4294967295").unwrap().count(), 1 << 32);
        assert_eq!(NumberList::parse(&"1,".repeat(RANGES + 1)), None);
    }
}
