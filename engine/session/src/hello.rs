//! The two sides of the handshake, without a socket: bytes in, bytes out, and a channel at the end.

use crate::channel::Channel;
use crate::error::{By, Cause};
use crate::greeting::{GreetingBytes, GreetingHead, GreetingKind, MAGIC, RefusedRest};
use crate::key::{KeyId, PeerKeys};
use crate::noise::{NoiseProducer, NoiseReader};
use crate::refusal::{Both, Refusal};
use crate::versions::Versions;

/// The reader's side of a handshake.
pub(crate) struct Dialling {
    key: KeyId,
    greeting: GreetingBytes,
    /// `None` once the handshake is over.
    noise: Option<NoiseReader>,
}

impl Dialling {
    /// Begins a handshake with key number `attempt` of `keys`, and appends the first message to
    /// `out`.
    pub(crate) fn begin(keys: &PeerKeys, attempt: usize, out: &mut Vec<u8>) -> Result<Self, Cause> {
        let (key, psk) = keys.attempt(attempt);
        let head = GreetingHead { kind: GreetingKind::Hello, versions: Versions::SUPPORTED, chosen: 0, key };
        let head = head.encode();
        let mut noise = NoiseReader::new(&psk, &head);
        let message = noise.write()?;
        out.extend_from_slice(&head);
        out.extend_from_slice(&message);
        Ok(Self { key, greeting: GreetingBytes::new(), noise: Some(noise) })
    }

    /// Takes bytes from the front of `bytes`. `Ok(None)`: all bytes are taken, and more must come.
    ///
    /// Once it has returned a channel or an error, it takes no more bytes.
    pub(crate) fn received(&mut self, bytes: &mut &[u8]) -> Result<Option<Channel>, Cause> {
        let Some(noise) = self.noise.take() else { return Ok(None) };
        let Some(head) = self.greeting.take(bytes, GreetingKind::Welcome)? else {
            self.noise = Some(noise);
            return Ok(None);
        };
        if head.kind == GreetingKind::Refused {
            return Err(self.refused(&head));
        }
        let (echo, transport) = noise.read(self.greeting.rest())?;
        // The encrypted copy of the head is the producer's; the head itself may have been changed.
        if echo != self.greeting.head_bytes()[MAGIC.len()..] {
            return Err(Cause::Forged);
        }
        if Versions::SUPPORTED.common(head.versions) != Some(head.chosen) {
            return Err(Cause::Contradiction(
                "its Welcome does not choose the highest version of both sides",
            ));
        }
        if head.key != self.key {
            return Err(Cause::Contradiction("its Welcome names another key than the Hello"));
        }
        Ok(Some(Channel::new(transport)))
    }

    /// What a Refused means for this side. It is in clear: anyone on the way may have sent it.
    fn refused(&self, head: &GreetingHead) -> Cause {
        let rest = match RefusedRest::parse(self.greeting.rest()) {
            Ok(rest) => rest,
            Err(error) => return error.into(),
        };
        let versions = Both { ours: Versions::SUPPORTED, theirs: head.versions };
        let keys = Both { ours: self.key, theirs: head.key };
        let refusal = Refusal::from_wire(rest.reason, rest.number, versions, keys);
        let plausible = match refusal {
            Refusal::Version(both) => both.ours.common(both.theirs).is_none(),
            Refusal::Key(both) => both.ours == rest.key && both.ours != both.theirs,
            _ => true,
        };
        // The producer saw another Hello than this side has sent, or the refusal is not its own.
        if !plausible {
            return Cause::Forged;
        }
        Cause::Refused { by: By::Peer, refusal, verified: false }
    }

    /// Bytes of a greeting that is not whole yet: `(got, want)`; `None` if none has come.
    pub(crate) fn partial(&self) -> Option<(usize, usize)> {
        self.greeting.partial()
    }
}

/// The producer's side of a handshake.
pub(crate) struct Answering {
    greeting: GreetingBytes,
    named_a_key: bool,
    over: bool,
}

impl Answering {
    /// A handshake of which no byte has come.
    pub(crate) fn new() -> Self {
        Self { greeting: GreetingBytes::new(), named_a_key: false, over: false }
    }

    /// Whether a whole greeting that names one of the keys has come.
    pub(crate) fn named_a_key(&self) -> bool {
        self.named_a_key
    }

    /// Takes bytes from the front of `bytes`; appends the answer to `out`, also where it fails and
    /// the answer is a refusal. `Ok(None)`: all bytes are taken, and more must come. The channel's
    /// first frame proves that the reader is no replay: nothing is promised before.
    ///
    /// Once it has returned a channel or an error, it takes no more bytes and answers no more.
    pub(crate) fn received(
        &mut self,
        keys: &PeerKeys,
        bytes: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Channel>, Cause> {
        if self.over {
            return Ok(None);
        }
        let result = self.answer(keys, bytes, out);
        self.over = !matches!(result, Ok(None));
        let refusal = match &result {
            Ok(_) => return result,
            Err(Cause::Refused { refusal, .. }) => *refusal,
            Err(Cause::Greeting(error)) => Refusal::Malformed { kind: error.kind() },
            Err(Cause::Forged) => Refusal::Malformed { kind: GreetingKind::Hello as u16 },
            // This side failed: the peer sees the end of the connection.
            Err(_) => return result,
        };
        refuse(keys, refusal, out);
        result
    }

    fn answer(
        &mut self,
        keys: &PeerKeys,
        bytes: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Channel>, Cause> {
        let Some(hello) = self.greeting.take(bytes, GreetingKind::Hello)? else { return Ok(None) };
        let Some(chosen) = Versions::SUPPORTED.common(hello.versions) else {
            let both = Both { ours: Versions::SUPPORTED, theirs: hello.versions };
            return Err(refused(Refusal::Version(both)));
        };
        let Some(psk) = keys.named(hello.key) else {
            return Err(refused(Refusal::Key(Both { ours: keys.id(0), theirs: hello.key })));
        };
        self.named_a_key = true;
        let noise = NoiseProducer::read(&psk, self.greeting.head_bytes(), self.greeting.rest())?;
        let (kind, key) = (GreetingKind::Welcome, hello.key);
        let head = GreetingHead { kind, versions: Versions::SUPPORTED, chosen, key }.encode();
        let echo = head.last_chunk().expect("a head is longer than its echo");
        let (message, transport) = noise.write(echo)?;
        out.extend_from_slice(&head);
        out.extend_from_slice(&message);
        Ok(Some(Channel::new(transport)))
    }

    /// Bytes of a greeting that is not whole yet: `(got, want)`; `None` if none has come.
    pub(crate) fn partial(&self) -> Option<(usize, usize)> {
        self.greeting.partial()
    }
}

fn refused(refusal: Refusal) -> Cause {
    Cause::Refused { by: By::Us, refusal, verified: true }
}

/// A refusal in clear, for a peer whose greeting has not been answered yet. `keys` names this
/// side's key.
pub(crate) fn refuse(keys: &PeerKeys, refusal: Refusal, out: &mut Vec<u8>) {
    let (reason, number) = refusal.to_wire();
    let key = if let Refusal::Key(both) = refusal { both.theirs } else { KeyId::NONE };
    let (kind, versions) = (GreetingKind::Refused, Versions::SUPPORTED);
    out.extend_from_slice(&GreetingHead { kind, versions, chosen: 0, key: keys.id(0) }.encode());
    out.extend_from_slice(&RefusedRest { reason, number, key }.encode());
}

#[cfg(test)]
mod tests;
