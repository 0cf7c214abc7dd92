//! The keys of the pages that this program publishes.

use kvrail::PageLayout;
use kvrail::session::TagSecret;
use kvrail_node::{Key, KeySpace, Namespace};

/// The keys by page number, of pages of one layout. All runs have the same ones, so that `drive`
/// knows those of `serve`.
#[derive(Clone, Debug)]
pub(crate) struct PageKeys {
    space: KeySpace,
}

impl PageKeys {
    /// The keys of pages of `layout`.
    pub(crate) fn of(layout: &PageLayout) -> anyhow::Result<Self> {
        // These pages need no secret: all runs of this program are to find each other's.
        let secret = TagSecret::from_bytes(*b"kvrail-bench: the keys of pages.");
        let layout = layout.fingerprint();
        let namespace = Namespace { model: "kvrail-bench".into(), layout, shape: String::new() };
        Ok(Self { space: KeySpace::new(&secret, &namespace)? })
    }

    /// The key of page number `number`.
    pub(crate) fn key(&self, number: u64) -> anyhow::Result<Key> {
        Ok(self.space.key(&number.to_le_bytes())?)
    }

    /// The keys of the first `pages` pages.
    pub(crate) fn first(&self, pages: u64) -> anyhow::Result<Vec<Key>> {
        (0..pages).map(|number| self.key(number)).collect()
    }
}
