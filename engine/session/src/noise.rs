//! The Noise protocol, `NNpsk0`: the only file that calls `snow`.
//!
//! Both sides make a key pair for one connection, and mix the pre-shared key into the first
//! message. So both prove that they hold the pre-shared key, and a key that is stolen later opens
//! no recorded connection. Neither side has a key pair of its own that outlives the connection:
//! all holders of the pre-shared key are equal.

use aes_gcm::AesGcm;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes256Enc;
use aes_gcm::aes::cipher::consts::U12;
use kvrail_host::secret::{RandomError, random_bytes};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState, TransportState};
use zeroize::Zeroize;

use crate::error::Cause;
use crate::greeting::{ECHO_BYTES, HEAD_BYTES, HELLO_REST, WELCOME_REST};
use crate::key::Psk;

const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";
/// Bytes by which a message grows when it is sealed.
pub(crate) const TAG_BYTES: usize = 16;

/// The side that sends the first message, before the second one has come.
pub(crate) struct NoiseReader(Box<HandshakeState>);

/// The side that answers, after it has opened the first message.
pub(crate) struct NoiseProducer(Box<HandshakeState>);

/// Both directions of an established connection.
pub(crate) struct Transport(TransportState);

/// snow's own primitives, but for the cipher: snow takes an older release of the crate `aes-gcm`,
/// which uses the AES instructions of 64-bit ARM only in a build with a special setting.
struct Primitives;

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        DefaultResolver.resolve_rng()
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::AESGCM).then(|| Box::new(SessionCipher([0; 32])) as Box<dyn Cipher>)
    }
}

/// AES-256-GCM under this key. The round keys are made for each message, which takes some 700
/// instructions: they have 384 bytes, and a server has two keys for each of thousands of sessions.
struct SessionCipher([u8; 32]);

/// Only the encrypting half of AES: GCM needs no other.
type Gcm = AesGcm<Aes256Enc, U12>;

impl SessionCipher {
    fn gcm(&self) -> Gcm {
        Gcm::new(&self.0.into())
    }

    /// The nonce of message `n`: 32 bits of zeros and the number, as the specification of Noise
    /// says.
    fn nonce(n: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&n.to_be_bytes());
        nonce
    }
}

impl Cipher for SessionCipher {
    fn name(&self) -> &'static str {
        "AESGCM"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = *key;
    }

    fn encrypt(&self, n: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let (sealed, rest) = out.split_at_mut(plaintext.len());
        let both = InOutBuf::new(plaintext, sealed).expect("both have the plaintext's length");
        let tag = self.gcm().encrypt_inout_detached(&Self::nonce(n).into(), authtext, both);
        let tag = tag.expect("a message is far shorter than the 64 GiB that GCM can seal");
        rest[..TAG_BYTES].copy_from_slice(&tag);
        plaintext.len() + TAG_BYTES
    }

    fn decrypt(
        &self,
        n: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let (sealed, tag) = ciphertext.split_last_chunk::<TAG_BYTES>().ok_or(snow::Error::Decrypt)?;
        let opened = out.get_mut(..sealed.len()).ok_or(snow::Error::Decrypt)?;
        let both = InOutBuf::new(sealed, opened).map_err(|_| snow::Error::Decrypt)?;
        let opened =
            self.gcm().decrypt_inout_detached(&Self::nonce(n).into(), authtext, both, &(*tag).into());
        opened.map_err(|_| snow::Error::Decrypt)?;
        Ok(sealed.len())
    }
}

impl Drop for SessionCipher {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The settings of one side. They are constants, so that none of its steps fails.
fn builder<'a>(psk: &'a Psk, prologue: &'a [u8; HEAD_BYTES]) -> Builder<'a> {
    let params: NoiseParams = PATTERN.parse().expect("snow knows the pattern");
    let builder = Builder::with_resolver(params, Box::new(Primitives));
    let builder = builder.psk(0, psk).expect("psk 0 is set once");
    builder.prologue(prologue).expect("the prologue is set once")
}

/// What snow's error for a message that this side writes means.
fn write_failed(error: snow::Error) -> Cause {
    match error {
        // snow drops the system's reason: a second request for a random byte fails for the same
        // reason.
        snow::Error::Rng => Cause::Random(random_bytes::<1>().err().unwrap_or(RandomError::UNEXPECTED)),
        _ => Cause::Contradiction("the messages of this connection are used up"),
    }
}

impl NoiseReader {
    /// Begins a connection. Both sides must have the same `prologue`.
    pub(crate) fn new(psk: &Psk, prologue: &[u8; HEAD_BYTES]) -> Self {
        Self::build(builder(psk, prologue))
    }

    fn build(builder: Builder<'_>) -> Self {
        Self(Box::new(builder.build_initiator().expect("snow has all parts of the pattern")))
    }

    /// The first message.
    pub(crate) fn write(&mut self) -> Result<[u8; HELLO_REST], Cause> {
        let mut message = [0; HELLO_REST];
        self.0.write_message(&[], &mut message).map_err(write_failed)?;
        Ok(message)
    }

    /// Opens the second message: its payload, and the connection.
    pub(crate) fn read(
        mut self,
        message: &[u8; WELCOME_REST],
    ) -> Result<([u8; ECHO_BYTES], Transport), Cause> {
        let mut payload = [0; ECHO_BYTES];
        self.0.read_message(message, &mut payload).map_err(|_| Cause::Forged)?;
        Ok((payload, Transport::new(*self.0)))
    }
}

impl NoiseProducer {
    /// Opens the first message.
    pub(crate) fn read(
        psk: &Psk,
        prologue: &[u8; HEAD_BYTES],
        message: &[u8; HELLO_REST],
    ) -> Result<Self, Cause> {
        Self::open(builder(psk, prologue), message)
    }

    fn open(builder: Builder<'_>, message: &[u8; HELLO_REST]) -> Result<Self, Cause> {
        let mut state = Box::new(builder.build_responder().expect("snow has all parts of the pattern"));
        state.read_message(message, &mut []).map_err(|_| Cause::Forged)?;
        Ok(Self(state))
    }

    /// The second message, and the connection.
    pub(crate) fn write(
        mut self,
        payload: &[u8; ECHO_BYTES],
    ) -> Result<([u8; WELCOME_REST], Transport), Cause> {
        let mut message = [0; WELCOME_REST];
        self.0.write_message(payload, &mut message).map_err(write_failed)?;
        Ok((message, Transport::new(*self.0)))
    }
}

impl Transport {
    fn new(state: HandshakeState) -> Self {
        Self(state.into_transport_mode().expect("both messages of the pattern are through"))
    }

    /// Seals `message` into `sealed`, which is [`TAG_BYTES`] longer.
    pub(crate) fn seal(&mut self, message: &[u8], sealed: &mut [u8]) -> Result<(), Cause> {
        self.0.write_message(message, sealed).map(drop).map_err(write_failed)
    }

    /// Opens `sealed`, the peer's next message, into `message`, which is [`TAG_BYTES`] shorter.
    pub(crate) fn open(&mut self, sealed: &[u8], message: &mut [u8]) -> Result<(), Cause> {
        self.0.read_message(sealed, message).map(drop).map_err(|_| Cause::Forged)
    }
}

/// Handshakes whose keys are not random, so that their bytes are known.
#[cfg(test)]
pub(crate) mod fixed {
    use super::*;

    /// A reader whose private key for the connection is `private`.
    pub(crate) fn reader(psk: &Psk, prologue: &[u8; HEAD_BYTES], private: &[u8; 32]) -> NoiseReader {
        NoiseReader::build(builder(psk, prologue).fixed_ephemeral_key_for_testing_only(private))
    }

    /// A producer whose private key for the connection is `private`.
    pub(crate) fn producer(
        psk: &Psk,
        prologue: &[u8; HEAD_BYTES],
        message: &[u8; HELLO_REST],
        private: &[u8; 32],
    ) -> Result<NoiseProducer, Cause> {
        NoiseProducer::open(builder(psk, prologue).fixed_ephemeral_key_for_testing_only(private), message)
    }
}
