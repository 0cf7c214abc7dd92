//! The text of a thread's last error, and the names of statuses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt::{self, Write as _};
use std::sync::OnceLock;

use crate::error::CapiError;

/// The most bytes of a text of an error.
const TEXT: usize = 1024;

/// A text of limited length, without the heap: the data path has errors, too.
struct Fixed {
    bytes: [u8; TEXT],
    len: usize,
}

impl fmt::Write for Fixed {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(TEXT - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

thread_local! {
    static LAST: RefCell<Fixed> = const { RefCell::new(Fixed { bytes: [0; TEXT], len: 0 }) };
}

/// Notes `error` as the calling thread's last error, and returns its status.
#[cold]
pub(crate) fn report(error: &CapiError) -> i32 {
    note(error);
    // Codes have four digits.
    i32::try_from(error.code()).unwrap_or(i32::MAX)
}

/// Notes a text as that of the calling thread's last error.
#[cold]
pub(crate) fn note(text: &dyn fmt::Display) {
    LAST.with_borrow_mut(|last| {
        last.len = 0;
        // Writing to it does not fail, and a text that says that it failed is as good as another.
        let _ = write!(last, "{text}");
    });
}

/// Calls `with` with the text of the calling thread's last error; it is empty if there was none.
pub(crate) fn last<R>(with: impl FnOnce(&str) -> R) -> R {
    // Whole characters were written.
    LAST.with_borrow(|last| with(str::from_utf8(&last.bytes[..last.len]).unwrap_or("")))
}

/// The table of docs/errors.md: for each code the name of the error, and what to do about it.
fn table() -> &'static BTreeMap<u32, (CString, CString)> {
    static TABLE: OnceLock<BTreeMap<u32, (CString, CString)>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let rows = include_str!("../../../docs/errors.md").lines().filter_map(row);
        rows.collect()
    })
}

/// A row `| code | `name` | what happened |` of the page.
fn row(line: &str) -> Option<(u32, (CString, CString))> {
    let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.splitn(3, " | ");
    let code = cells.next()?.parse().ok()?;
    let text = |cell: &str| CString::new(cell.replace('`', "")).ok();
    Some((code, (text(cells.next()?)?, text(cells.next()?)?)))
}

/// The name of a status: of 0 "Ok", of a number that no error has "unknown".
pub(crate) fn name(status: i32) -> &'static CStr {
    lookup(status).map_or(if status == 0 { c"Ok" } else { c"unknown" }, |(name, _)| name)
}

/// What a status means, and what to do about it.
pub(crate) fn meaning(status: i32) -> &'static CStr {
    let none = if status == 0 { c"It went well." } else { c"No error of this version has this number." };
    lookup(status).map_or(none, |(_, text)| text)
}

fn lookup(status: i32) -> Option<&'static (CString, CString)> {
    table().get(&u32::try_from(status).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_page_has_its_name() {
        assert_eq!(name(0), c"Ok");
        assert_eq!(name(2060), c"Miss::Overwriting");
        assert_eq!(name(8023), c"CapiError::SlotInFlight");
        assert!(meaning(2060).to_bytes().len() > 20);
        assert_eq!((name(1), name(-5)), (c"unknown", c"unknown"));
        let rows = include_str!("../../../docs/errors.md").lines();
        let coded = rows.filter(|line| {
            line.strip_prefix("| ")
                .and_then(|line| line.get(..5))
                .is_some_and(|head| head.ends_with(' ') && head.trim_end().parse::<u32>().is_ok())
        });
        assert_eq!(coded.count(), table().len());
        assert!(table().len() > 400, "{}", table().len());
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        note(&"ä".repeat(TEXT));
        last(|text| assert_eq!((text.len(), text.chars().all(|c| c == 'ä')), (TEXT, true)));
        note(&"x".to_owned().as_str());
        last(|text| assert_eq!(text, "x"));
    }
}
