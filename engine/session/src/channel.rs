//! Encrypted frames: one message each.

use crate::error::Cause;

/// Bytes of the largest message: a Noise message has 65,535 at most, of which 16 are its tag.
pub(crate) const MAX_MESSAGE: usize = 65_519;

/// Both directions of an encrypted connection, without its socket.
pub(crate) struct Channel;

impl Channel {
    /// Appends one frame with `message` to `out`. Fails only after 2^64 frames.
    ///
    /// # Panics
    ///
    /// If the message is longer than [`MAX_MESSAGE`].
    pub(crate) fn seal(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Cause> {
        let _ = (message, out);
        todo!()
    }

    /// Takes bytes from the front of `bytes` until a frame is whole, and returns its message.
    /// `Ok(None)`: all bytes are taken, and more must come. Between two frames it holds no buffer.
    pub(crate) fn open(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, Cause> {
        let _ = bytes;
        todo!()
    }

    /// Bytes of a frame that is not whole yet: `(got, want)`; `None` between two frames.
    pub(crate) fn partial(&self) -> Option<(usize, usize)> {
        todo!()
    }
}
