//! Encrypted frames: one message each.

use crate::error::Cause;
use crate::noise::{TAG_BYTES, Transport};

/// Bytes of the largest message: a Noise message has 65,535 at most, of which 16 are its tag.
pub(crate) const MAX_MESSAGE: usize = 65_519;

/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 2;

const _: () = assert!(MAX_MESSAGE + TAG_BYTES == u16::MAX as usize);

/// Both directions of an encrypted connection, without its socket.
///
/// Between two frames it holds 64 bytes of heap: the two keys, in boxes of `snow`.
pub(crate) struct Channel {
    transport: Transport,
    incoming: Partial,
}

/// The frame that comes next, as far as it has come.
enum Partial {
    /// The first byte of its length, if that has come.
    Length(Option<u8>),
    /// Its ciphertext, which has `want` bytes. `bytes` grows with what comes: a peer that says a
    /// length and sends nothing costs nothing.
    Sealed { want: usize, bytes: Vec<u8> },
    /// A frame could not be opened. Nothing of this connection can be trusted any more.
    Failed,
}

impl Channel {
    /// A channel of which no frame has been sent.
    pub(crate) fn new(transport: Transport) -> Self {
        Self { transport, incoming: Partial::Length(None) }
    }

    /// Appends one frame with `message` to `out`. Fails only after 2^64 frames.
    ///
    /// # Panics
    ///
    /// If the message is longer than [`MAX_MESSAGE`].
    pub(crate) fn seal(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), Cause> {
        assert!(message.len() <= MAX_MESSAGE, "a message of {} bytes fits no frame", message.len());
        let sealed = message.len() + TAG_BYTES;
        // sealed <= 65,535.
        out.extend_from_slice(&(sealed as u16).to_le_bytes());
        let at = out.len();
        out.resize(at + sealed, 0);
        self.transport.seal(message, &mut out[at..])
    }

    /// Takes bytes from the front of `bytes` until a frame is whole, and returns its message.
    /// `Ok(None)`: all bytes are taken, and more must come. Between two frames it holds no buffer.
    ///
    /// After an error every later call fails, too.
    pub(crate) fn open(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, Cause> {
        match self.take(bytes) {
            Ok(message) => Ok(message),
            Err(cause) => {
                self.incoming = Partial::Failed;
                Err(cause)
            }
        }
    }

    fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<Vec<u8>>, Cause> {
        loop {
            match &mut self.incoming {
                Partial::Failed => return Err(Cause::Forged),
                Partial::Length(first) => {
                    let Some((&byte, left)) = bytes.split_first() else { return Ok(None) };
                    *bytes = left;
                    let Some(low) = *first else {
                        *first = Some(byte);
                        continue;
                    };
                    let want = usize::from(u16::from_le_bytes([low, byte]));
                    if want < TAG_BYTES {
                        return Err(Cause::Forged);
                    }
                    self.incoming = Partial::Sealed { want, bytes: Vec::new() };
                }
                Partial::Sealed { want, bytes: sealed } => {
                    let (part, left) = bytes.split_at(bytes.len().min(*want - sealed.len()));
                    *bytes = left;
                    if part.len() == *want {
                        // The whole ciphertext is here: it need not be copied first.
                        return self.whole(part).map(Some);
                    }
                    sealed.extend_from_slice(part);
                    if sealed.len() < *want {
                        return Ok(None);
                    }
                    let sealed = std::mem::take(sealed);
                    return self.whole(&sealed).map(Some);
                }
            }
        }
    }

    fn whole(&mut self, sealed: &[u8]) -> Result<Vec<u8>, Cause> {
        let mut message = vec![0; sealed.len() - TAG_BYTES];
        self.transport.open(sealed, &mut message)?;
        self.incoming = Partial::Length(None);
        Ok(message)
    }

    /// Bytes of a frame that is not whole yet: `(got, want)`; `None` between two frames.
    pub(crate) fn partial(&self) -> Option<(usize, usize)> {
        match &self.incoming {
            Partial::Length(None) | Partial::Failed => None,
            Partial::Length(Some(_)) => Some((1, LENGTH_BYTES + TAG_BYTES)),
            Partial::Sealed { want, bytes } => Some((LENGTH_BYTES + bytes.len(), LENGTH_BYTES + want)),
        }
    }
}

#[cfg(test)]
mod tests;
