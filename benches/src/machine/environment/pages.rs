//! Huge pages that are set aside, of the machine or of one of its NUMA nodes.

use serde::Serialize;

use crate::machine::source::Source;

/// The huge pages of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct HugePages {
    /// The size of one, in bytes.
    pub(crate) page_bytes: u64,
    /// How many are set aside.
    pub(crate) pages: u64,
    /// How many of them are free.
    pub(crate) free: u64,
}

/// The huge pages in `folder`, the smallest first.
///
/// # Errors
///
/// The folder or a number in it cannot be read.
pub(crate) fn read(source: &Source, folder: &str) -> Result<Vec<HugePages>, String> {
    let mut all = Vec::new();
    for name in source.names(folder)? {
        let kib = name.strip_prefix("hugepages-").and_then(|name| name.strip_suffix("kB"));
        let bytes = kib.and_then(|kib| kib.parse::<u64>().ok()?.checked_mul(1024));
        let Some(page_bytes) = bytes else { continue };
        let number = |file: &str| source.number(&format!("{folder}/{name}/{file}"));
        all.push(HugePages { page_bytes, pages: number("nr_hugepages")?, free: number("free_hugepages")? });
    }
    all.sort_by_key(|pages| pages.page_bytes);
    Ok(all)
}
