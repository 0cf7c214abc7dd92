//! The handle by which any thread wakes an engine over verbs.

use std::sync::Arc;

use kvrail_core::provider::Wake;
use kvrail_host::wake::WakeFd;

/// Wakes an engine over verbs, from any thread.
#[derive(Clone, Debug)]
pub struct VerbsWaker(pub(super) Arc<WakeFd>);

impl Wake for VerbsWaker {
    fn wake(&self) {
        self.0.request();
    }
}
