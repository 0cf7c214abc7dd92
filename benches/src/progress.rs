//! Something to look at while it takes longer than a moment; nothing where nobody looks.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar of bytes, or of steps, on stderr if that is a terminal.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// Of `length` bytes.
    pub(crate) fn new(what: impl Into<std::borrow::Cow<'static, str>>, length: u64) -> Self {
        Self::styled(what, length, "{msg} [{bar:32}] {binary_bytes}/{binary_total_bytes} {elapsed}")
    }

    /// Of `length` steps.
    pub(crate) fn steps(what: impl Into<std::borrow::Cow<'static, str>>, length: u64) -> Self {
        Self::styled(what, length, "{msg} [{bar:32}] {pos}/{len} {elapsed}")
    }

    fn styled(what: impl Into<std::borrow::Cow<'static, str>>, length: u64, template: &str) -> Self {
        // Draws nothing unless stderr is a terminal.
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        // Ticking takes a thread.
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    /// One that nobody sees.
    pub(crate) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// How long it is.
    pub(crate) fn length(&self, length: u64) {
        self.0.set_length(length);
    }

    /// What it is about now.
    pub(crate) fn about(&self, what: impl Into<std::borrow::Cow<'static, str>>) {
        self.0.set_message(what);
    }

    /// On by so much.
    pub(crate) fn add(&self, by: u64) {
        self.0.inc(by);
    }

    /// Takes it away.
    pub(crate) fn done(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.done();
    }
}
