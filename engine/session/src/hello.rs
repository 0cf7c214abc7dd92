//! The two sides of the handshake, without a socket: bytes in, bytes out, and a channel at the end.

use crate::channel::Channel;
use crate::error::Cause;
use crate::key::PeerKeys;
use crate::refusal::Refusal;

/// The reader's side of a handshake.
pub(crate) struct Dialling;

impl Dialling {
    /// Begins a handshake with key number `attempt` of `keys`, and appends the first message to
    /// `out`.
    pub(crate) fn begin(keys: &PeerKeys, attempt: usize, out: &mut Vec<u8>) -> Result<Self, Cause> {
        let _ = (keys, attempt, out);
        todo!()
    }

    /// Takes bytes from the front of `bytes`. `Ok(None)`: all bytes are taken, and more must come.
    pub(crate) fn received(&mut self, bytes: &mut &[u8]) -> Result<Option<Channel>, Cause> {
        let _ = bytes;
        todo!()
    }
}

/// The producer's side of a handshake.
pub(crate) struct Answering;

impl Answering {
    /// A handshake of which no byte has come.
    pub(crate) fn new() -> Self {
        todo!()
    }

    /// Whether a whole greeting that names one of the keys has come.
    pub(crate) fn named_a_key(&self) -> bool {
        todo!()
    }

    /// Takes bytes from the front of `bytes`; appends the answer to `out`, also where it fails and
    /// the answer is a refusal. `Ok(None)`: all bytes are taken, and more must come. The channel's
    /// first frame proves that the reader is no replay: nothing is promised before.
    pub(crate) fn received(
        &mut self,
        keys: &PeerKeys,
        bytes: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Channel>, Cause> {
        let _ = (keys, bytes, out);
        todo!()
    }

    /// Bytes of a greeting that is not whole yet: `(got, want)`; `None` if none has come.
    pub(crate) fn partial(&self) -> Option<(usize, usize)> {
        todo!()
    }
}

/// A refusal in clear, for a peer whose greeting has not been answered yet. `keys` names this
/// side's key.
pub(crate) fn refuse(keys: &PeerKeys, refusal: Refusal, out: &mut Vec<u8>) {
    let _ = (keys, refusal, out);
    todo!()
}
