//! A page layout as a value: what two peers must agree on.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU64};

use kvrail_layouts::{Fingerprint, KvLayout};
use kvrail_session::{LayoutName, Name};

/// A [`KvLayout`] as a value, for what is decided at run time: which layout a process serves.
///
/// Only layouts of one region fit: a page is one range of bytes here. That is checked when
/// [`of`](Self::of) is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLayout {
    name: &'static str,
    fingerprint: Fingerprint,
    page_bytes: u32,
    tokens: u64,
    synthetic: bool,
}

impl PageLayout {
    /// The layout `L`.
    #[must_use]
    pub const fn of<L: KvLayout>() -> Self {
        const {
            assert!(L::REGIONS == 1, "a page of several regions cannot be read as one range of bytes");
            assert!(L::PAGE_BYTES <= u32::MAX as u64, "a page is larger than a work request can name");
            assert!(!L::NAME.is_empty() && L::NAME.len() <= 64, "a layout's name is 1 to 64 bytes");
        }
        Self {
            name: L::NAME,
            fingerprint: L::FINGERPRINT,
            page_bytes: L::PAGE_BYTES as u32,
            tokens: L::TOKENS,
            synthetic: L::SYNTHETIC,
        }
    }

    /// What people call it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What two peers compare.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Bytes of a page, at least 1.
    #[must_use]
    pub const fn page_bytes(&self) -> u32 {
        self.page_bytes
    }

    /// Tokens of a page; 0 if it does not say.
    #[must_use]
    pub const fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Whether no inference engine has such a page.
    #[must_use]
    pub const fn synthetic(&self) -> bool {
        self.synthetic
    }

    /// In the words of the bootstrap.
    pub(crate) fn to_session(self) -> kvrail_session::Layout {
        let name: LayoutName = Name::lossy(self.name);
        // A geometry has at least one byte.
        let page_bytes = NonZeroU64::new(self.page_bytes.into()).unwrap_or(NonZeroU64::MIN);
        kvrail_session::Layout { name, fingerprint: self.fingerprint, page_bytes, parts: NonZeroU16::MIN }
    }
}

impl fmt::Display for PageLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes a page)", self.name, self.page_bytes)
    }
}
