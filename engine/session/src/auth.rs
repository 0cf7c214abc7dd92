//! How messages are authenticated: by MACs over the whole transcript during the handshake, and by
//! one key and one counter per direction afterwards.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::key::PeerKey;
use crate::wire::MAC;

/// The direction of a message. It is part of every MAC, so that no message can be sent back to its
/// author.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToProducer = 1,
    ToReader = 2,
}

/// A message's MAC is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

/// The hash of all messages since the connection was made, in the order of the protocol, which is
/// the same on both sides.
#[derive(Clone)]
pub(crate) struct Transcript {
    key: PeerKey,
    hash: Sha256,
}

impl Transcript {
    pub(crate) fn new(key: PeerKey) -> Self {
        Self { key, hash: Sha256::new() }
    }

    /// Adds a message to the transcript. [`seal`](Self::seal) and [`open`](Self::open) do so by
    /// themselves; this is for `Hello`, which has no MAC.
    pub(crate) fn absorb(&mut self, frame: &[u8]) {
        self.hash.update(frame);
    }

    /// The MAC of a message that ends the transcript so far. The message's kind and version are in
    /// its header, and so in the hash.
    fn mac(&self, direction: Direction, body: &[u8]) -> Hmac<Sha256> {
        let hash = self.hash.clone().chain_update(body).finalize();
        self.key.mac(b"kvrail/1 message").chain_update([direction as u8]).chain_update(hash)
    }

    /// Fills in the MAC at the end of `frame`, and adds the message to the transcript.
    pub(crate) fn seal(&mut self, direction: Direction, frame: &mut [u8]) {
        let (body, mac) = split(frame);
        mac.copy_from_slice(&self.mac(direction, body).finalize().into_bytes());
        self.absorb(frame);
    }

    /// Checks the MAC at the end of `frame`, in constant time, and adds the message to the
    /// transcript.
    pub(crate) fn open(&mut self, direction: Direction, frame: &[u8]) -> Result<(), Forged> {
        let (body, mac) = frame.split_at(frame.len().saturating_sub(MAC));
        self.mac(direction, body).verify_slice(mac).map_err(|_| Forged)?;
        self.absorb(frame);
        Ok(())
    }

    /// The keys for the two directions of the session, derived from this transcript.
    pub(crate) fn finish(self, outgoing: Direction) -> Channel {
        let hash = self.hash.finalize();
        let half = |direction: Direction| {
            let mac = self.key.mac(b"kvrail/1 session").chain_update([direction as u8]).chain_update(hash);
            Half { key: PeerKey::from_bytes(mac.finalize().into_bytes().into()), count: 0 }
        };
        let incoming = match outgoing {
            Direction::ToProducer => Direction::ToReader,
            Direction::ToReader => Direction::ToProducer,
        };
        Channel { outgoing: half(outgoing), incoming: half(incoming) }
    }
}

/// A session's MACs: each side may send at any time, so each direction has a key and a count of its
/// own.
pub(crate) struct Channel {
    outgoing: Half,
    incoming: Half,
}

struct Half {
    key: PeerKey,
    count: u64,
}

impl Half {
    fn mac(&self, body: &[u8]) -> Hmac<Sha256> {
        self.key.mac(b"kvrail/1 channel").chain_update(self.count.to_le_bytes()).chain_update(body)
    }
}

impl Channel {
    /// Fills in the MAC at the end of `frame`, the next message out.
    pub(crate) fn seal(&mut self, frame: &mut [u8]) {
        let (body, mac) = split(frame);
        mac.copy_from_slice(&self.outgoing.mac(body).finalize().into_bytes());
        self.outgoing.count += 1;
    }

    /// Checks the MAC at the end of `frame`, the next message in.
    pub(crate) fn open(&mut self, frame: &[u8]) -> Result<(), Forged> {
        let (body, mac) = frame.split_at(frame.len().saturating_sub(MAC));
        self.incoming.mac(body).verify_slice(mac).map_err(|_| Forged)?;
        self.incoming.count += 1;
        Ok(())
    }
}

/// Splits a message of this side, which has a MAC, into its body and the MAC.
fn split(frame: &mut [u8]) -> (&[u8], &mut [u8]) {
    let at = frame.len() - MAC;
    let (body, mac) = frame.split_at_mut(at);
    (body, mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transcript() -> Transcript {
        let mut transcript = Transcript::new(PeerKey::from_bytes([7; 32]));
        transcript.absorb(b"hello");
        transcript
    }

    #[test]
    fn a_message_opens_in_its_place_and_direction_only() {
        let mut frame = [9; 100];
        transcript().seal(Direction::ToReader, &mut frame);
        assert_eq!(transcript().open(Direction::ToReader, &frame), Ok(()));
        assert_eq!(transcript().open(Direction::ToProducer, &frame), Err(Forged));
        let mut later = transcript();
        later.absorb(b"x");
        assert_eq!(later.open(Direction::ToReader, &frame), Err(Forged));
        let mut other_key = Transcript::new(PeerKey::from_bytes([8; 32]));
        other_key.absorb(b"hello");
        assert_eq!(other_key.open(Direction::ToReader, &frame), Err(Forged));
        assert_eq!(transcript().open(Direction::ToReader, &frame[..20]), Err(Forged));
    }

    #[test]
    fn a_session_message_opens_once_in_order_and_not_at_its_author() {
        let mut reader = transcript().finish(Direction::ToProducer);
        let mut producer = transcript().finish(Direction::ToReader);
        let (mut first, mut second) = ([1; 64], [1; 64]);
        reader.seal(&mut first);
        reader.seal(&mut second);
        assert_ne!(first, second);
        assert_eq!(producer.open(&second), Err(Forged));
        assert_eq!(producer.open(&first), Ok(()));
        assert_eq!(producer.open(&first), Err(Forged));
        assert_eq!(producer.open(&second), Ok(()));
        assert_eq!(reader.open(&first), Err(Forged));
        let mut answer = [2; 64];
        producer.seal(&mut answer);
        assert_eq!(reader.open(&answer), Ok(()));
    }
}
