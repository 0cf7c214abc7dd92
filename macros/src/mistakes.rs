//! Mistakes of an author, collected: each is reported on its own token, all of them at once.

use proc_macro2::Ident;

/// Mistakes so far, in the order in which they were found.
pub(crate) type Mistakes = Vec<syn::Error>;

/// The keys that have been met, so that a second one of the same name is a mistake.
#[derive(Default)]
pub(crate) struct SeenKeys(Vec<String>);

impl SeenKeys {
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|seen| seen == key)
    }

    /// Whether this is the first key of its name. A second one is added to `mistakes`.
    pub(crate) fn first(&mut self, key: &Ident, mistakes: &mut Mistakes) -> bool {
        let word = key.to_string();
        if self.has(&word) {
            mistakes.push(syn::Error::new(key.span(), format!("`{word}` is said twice; say it once")));
            return false;
        }
        self.0.push(word);
        true
    }
}
