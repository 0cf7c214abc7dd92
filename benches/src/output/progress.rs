//! A progress bar on stderr, if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar of bytes or of steps. It disappears when it is dropped.
#[derive(Debug)]
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar of `length` bytes.
    pub(crate) fn bytes(what: impl Into<std::borrow::Cow<'static, str>>, length: u64) -> Self {
        Self::styled(what, length, "{wide_msg} [{bar:16}] {binary_bytes}/{binary_total_bytes} {elapsed}")
    }

    /// A bar of `length` steps.
    pub(crate) fn steps(what: impl Into<std::borrow::Cow<'static, str>>, length: u64) -> Self {
        Self::styled(what, length, "{wide_msg} [{bar:16}] {pos}/{len} {elapsed}")
    }

    /// The words take what the terminal has left, and are cut off there: a bar that is wider than
    /// the terminal takes two lines.
    fn styled(what: impl Into<std::borrow::Cow<'static, str>>, length: u64, template: &str) -> Self {
        // This target draws nothing unless stderr is a terminal.
        let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what);
        // A tick needs a thread, so a hidden bar has none.
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    /// A bar that is not drawn.
    pub(crate) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Sets the length.
    pub(crate) fn length(&self, length: u64) {
        self.0.set_length(length);
    }

    /// Sets the words before the bar.
    pub(crate) fn about(&self, what: impl Into<std::borrow::Cow<'static, str>>) {
        self.0.set_message(what);
    }

    /// Moves on by this many bytes or steps.
    pub(crate) fn add(&self, by: u64) {
        self.0.inc(by);
    }

    /// Removes the bar from the terminal.
    pub(crate) fn done(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.done();
    }
}
